"""The two passes: find each line's form and each label's slot, then encode."""

from __future__ import annotations

from dataclasses import dataclass

from ebpfjit.assembler.diagnosis import explain
from ebpfjit.assembler.lexer import (
    INTEGER,
    LABEL,
    REGISTERS,
    SIGNED,
    column_of,
    error,
    is_label,
    split_lines,
    take_label,
    tokenize,
)
from ebpfjit.assembler.operands import Fields, Labels, Rejected, integer64
from ebpfjit.assembler.syntax import DATA_WORDS, Form, all_forms, classes
from ebpfjit.errors import AssemblyError
from ebpfjit.isa.spec import Kind
from ebpfjit.program import MAX_SLOTS, SLOT_SIZE, Instruction

MAX_TEXT, MAX_LINE = 1 << 25, 1 << 20
"""Characters of a text, and of a line of it."""
MAX_LINES = MAX_SLOTS
MAX_LABELS = 1_000_000

DIRECTIVES = frozenset({
    ".text", ".file", ".globl", ".global", ".weak", ".local", ".hidden", ".p2align", ".type", ".size",
    ".ident", ".addrsig", ".addrsig_sym",
})  # fmt: skip
"""What compilers write beside instructions (`clang -S`): no bytes of a program, so it is passed over."""


@dataclass(slots=True)
class _Statement:
    """One line's instruction (`form`) or data words (`form` is None); `line` counts from 0."""

    form: Form | None
    tokens: list[str]
    pc: int
    line: int
    start: int

    @property
    def slots(self) -> int:
        """How many 8-byte slots the statement fills."""
        return len(self.tokens) // 2 if self.form is None else self.form.row.slots


def assemble(text: str) -> bytes:
    """Return the bytecode of the assembly text `text`, instruction after instruction.

    Raises AssemblyError, with line and column, for any text that is not a program; TypeError
    where `text` is no str. An empty text gives no bytes.
    """
    if not isinstance(text, str):
        raise TypeError(f"assemble takes a str, not {type(text).__name__}")
    _check_size(text)
    source = _Source(split_lines(text))
    source.read()
    return b"".join([source.encode(statement) for statement in source.statements])


def _check_size(text: str) -> None:
    """Raise AssemblyError for a text that is longer than any program's, before anything is made of it."""
    if len(text) > MAX_TEXT:
        raise error(f"a text of {len(text)} characters; at most {MAX_TEXT} are assembled", 1, 1, "")
    if text.count("\n") >= MAX_LINES:
        raise error(f"more than {MAX_LINES} lines", MAX_LINES + 1, 1, "")


class _Source:
    """The text while it is assembled: its lines, and what the first pass finds in them."""

    def __init__(self, lines: list[str]) -> None:
        self.lines = lines
        self.statements: list[_Statement] = []
        self.labels = Labels()
        self._line_of_label: dict[str, int] = {}
        self._labels_left = MAX_LABELS

    def read(self) -> None:
        """Find the form of each line and the slot of each label."""
        pc = 0
        for number, line in enumerate(self.lines):
            start = 0
            if len(line) > MAX_LINE:
                raise error(f"a line of more than {MAX_LINE} characters", number + 1, 1, "")
            while ":" in line and (found := take_label(line, start)) is not None:
                self._define(found[1], pc, number, found.start(1))
                start = found.end()
            tokens = tokenize(line, start)
            if not tokens or tokens[0] in DIRECTIVES:
                continue
            statement = _Statement(_find(tokens), tokens, pc, number, start)
            if statement.form is None and tokens[0].lower() not in DATA_WORDS:
                raise self._error(statement, *explain(tokens))
            self.statements.append(statement)
            pc += statement.slots
            if pc > MAX_SLOTS:
                raise self._error(statement, 0, f"a program has at most {MAX_SLOTS} slots")
        self._define_exit()

    def _define(self, name: str, pc: int, number: int, column: int) -> None:
        reason = ""
        self._labels_left -= 1
        if self._labels_left < 0:
            reason = f"more than {MAX_LABELS} labels"
        elif name in REGISTERS:
            reason = f"{name!r} is a register: a label needs another name"
        elif name in self._line_of_label:
            reason = f"label {name!r} is defined already, on line {self._line_of_label[name] + 1}"
        elif not self.labels.define(name, pc):
            reason = f"label {name[:10]}... is too long a number"
        if reason:
            raise error(reason, number + 1, column + 1, self.lines[number])
        if not name[0].isdigit():
            self._line_of_label[name] = number

    def _define_exit(self) -> None:
        """Let `exit` mean the first exit instruction, unless the program says otherwise."""
        if "exit" not in self.labels.named:
            for statement in self.statements:
                if statement.form is not None and statement.form.row.kind is Kind.EXIT:
                    self.labels.named["exit"] = statement.pc
                    return

    def encode(self, statement: _Statement) -> bytes:
        """Return the bytes of one statement."""
        form, tokens, pc = statement.form, statement.tokens, statement.pc
        if form is None:
            return self._encode_data(statement)
        fields = Fields(pc, self.labels, *form.fixed)
        index = 0
        try:
            for index, read in form.operands:
                read(fields, tokens[index])
        except Rejected as rejected:
            raise self._error(statement, index, str(rejected)) from None
        dst, src, offset, imm, next_imm = fields.dst, fields.src, fields.offset, fields.imm, fields.next_imm
        return Instruction(pc, form.row.opcode, dst, src, offset, imm, next_imm, form.row).encode()

    def _encode_data(self, statement: _Statement) -> bytes:
        """Return the words of `.8byte 0x95, 0x85`: integers with commas between."""
        tokens, known = statement.tokens, classes()
        for index, token in enumerate(tokens[2::2], 1):
            if token != ",":
                raise self._error(statement, 2 * index, "expected ',' or the end of the line")
        encoded = bytearray()
        for index in range(1, len(tokens) + len(tokens) % 2, 2):
            if index >= len(tokens) or known[tokens[index]] not in (INTEGER, SIGNED):
                raise self._error(statement, index, "expected an integer, the 64-bit word")
            try:
                encoded += integer64(tokens[index]).to_bytes(SLOT_SIZE, "little")
            except Rejected as rejected:
                raise self._error(statement, index, str(rejected)) from None
        return bytes(encoded)

    def _error(self, statement: _Statement, index: int, reason: str) -> AssemblyError:
        """Make the error that points at token `index` of a statement."""
        line = self.lines[statement.line]
        return error(reason, statement.line + 1, column_of(line, statement.start, index), line)


def _find(tokens: list[str]) -> Form | None:
    """Return the form of `tokens`, or None.

    Only where nothing else fits, capitals count as small letters and a last word as a label.
    """
    known, forms = classes(), all_forms()
    form = forms.get(" ".join([known[token] for token in tokens]))
    if form is not None:
        return form
    key = [known[token] if token in known else known[token.lower()] for token in tokens]
    form = forms.get(" ".join(key))
    if form is None and len(key) > 1 and is_label(tokens[-1]) and tokens[-1] not in REGISTERS:
        form = forms.get(" ".join([*key[:-1], LABEL]))
    return form
