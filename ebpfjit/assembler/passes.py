"""The two passes: find each line's form and each label's slot, then encode."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence

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
from ebpfjit.assembler.operands import Fields, Labels, Rejected, integer, integer64
from ebpfjit.assembler.sections import HAS_SECTIONS, MAPS, Sections, read_sections
from ebpfjit.assembler.syntax import DATA_WORDS, Form, all_forms, classes
from ebpfjit.bits import W32
from ebpfjit.errors import AssemblyError
from ebpfjit.isa.spec import Kind
from ebpfjit.isa.table import BY_NAME
from ebpfjit.program import MAX_SLOTS, SLOT_SIZE, Instruction, SourceLine
from ebpfjit.record import dataclass

MAX_TEXT, MAX_LINE = 1 << 25, 1 << 20
"""Characters of a text, and of a line of it."""
MAX_LINES = MAX_SLOTS
MAX_LABELS = 1_000_000
MAX_PROGRAMS = 256
MAX_USED = 64
"""Maps and sections of variables that a program refers to, as in Linux."""

DIRECTIVES = frozenset({
    ".text", ".file", ".globl", ".global", ".weak", ".local", ".hidden", ".protected", ".internal",
    ".p2align", ".type", ".size", ".ident", ".addrsig", ".addrsig_sym",
    ".cfi_sections", ".cfi_startproc", ".cfi_endproc",
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
    addend: int = 0

    @property
    def slots(self) -> int:
        """How many 8-byte slots the statement fills."""
        return len(self.tokens) // 2 if self.form is None else self.form.row.slots


def assemble(text: str) -> bytes:
    """Return the bytecode of the assembly text `text`, instruction after instruction.

    Raises AssemblyError, with line and column, for any text that is not a program; TypeError
    where `text` is no str. An empty text gives no bytes.
    """
    made = _assembled(text, None, whole=True)
    return made.code


@dataclass(frozen=True, slots=True)
class Assembled:
    """A text as a program: its bytes, and what else the text says.

    `symbols` are its functions by slot, `lines` the source lines by the slot where their code starts.
    `uses` are the maps that wide loads refer to: (section, "") of a section of variables, (".maps", name) of
    what is defined there; `references` are these by slot: the number of the map, and how far into its value
    (None: the map itself). `sections` has what is in the sections. `name` and `section` are those of the
    function that it starts with, None where the text names none.
    """

    code: bytes
    symbols: dict[int, str]
    lines: dict[int, SourceLine]
    uses: tuple[tuple[str, str], ...]
    references: dict[int, tuple[int, int | None]]
    name: str | None
    section: str | None
    sections: Sections


def assembled(text: str, entry: str | None = None) -> Assembled:
    """Return a text as a program that starts with the function `entry`, where there is one of that name.

    Of a text with functions, those that are not called are left out. Raises as `assemble`.
    """
    return _assembled(text, entry, whole=False)


def attached(text: str) -> list[str]:
    """Return the functions of a text that are in sections of their own ("xdp"). Raises as `assemble`."""
    _check_size(text)
    if HAS_SECTIONS.search(text) is None:
        return []
    found = [unit.name for unit in read_sections(split_lines(text)).attached]
    if len(found) > MAX_PROGRAMS:
        raise error(f"more than {MAX_PROGRAMS} programs", 1, 1, "")
    return found


def _assembled(text: str, entry: str | None, *, whole: bool) -> Assembled:
    if not isinstance(text, str):
        raise TypeError(f"assemble takes a str, not {type(text).__name__}")
    _check_size(text)
    lines = split_lines(text)
    sections = read_sections(lines) if HAS_SECTIONS.search(text) else None
    if sections is None:
        source, first = _Source(lines, range(len(lines)), Sections(), whole=whole), None
    else:
        first = sections.entry(entry)
        units = sections.ordered(first) if whole else sections.needed(first, lines)
        numbers = [number for unit in units for number in unit.lines]
        source = _Source(lines, numbers, sections, whole=whole)
    source.read()
    code = b"".join([source.encode(statement) for statement in source.statements])
    named = source.labels.named
    functions = [unit.name for unit in (sections.units if sections is not None else ()) if unit.name in named]
    return Assembled(
        code,
        {named[name]: name for name in functions if named[name] * SLOT_SIZE < len(code)},
        source.source_lines,
        tuple(source.used),
        source.references,
        None if first is None or not first.name else first.name,
        None if first is None else first.section,
        source.sections,
    )


def _check_size(text: str) -> None:
    """Raise AssemblyError for a text that is longer than any program's, before anything is made of it."""
    if len(text) > MAX_TEXT:
        raise error(f"a text of {len(text)} characters; at most {MAX_TEXT} are assembled", 1, 1, "")
    if text.count("\n") >= MAX_LINES:
        raise error(f"more than {MAX_LINES} lines", MAX_LINES + 1, 1, "")


class _Source:
    """The text while it is assembled: its lines, and what the first pass finds in them.

    `numbers` are those of lines of code, in their order. Where it is assembled as a `whole`, bytes are all
    that is made of it.
    """

    def __init__(self, lines: list[str], numbers: Sequence[int], sections: Sections, *, whole: bool) -> None:
        self.lines = lines
        self.numbers = numbers
        self.sections = sections
        self.whole = whole
        self.files: dict[str, str] = {}
        self.source_lines: dict[int, SourceLine] = {}
        self.used: dict[tuple[str, str], int] = {}
        self.references: dict[int, tuple[int, int | None]] = {}
        self.statements: list[_Statement] = []
        self.labels = Labels()
        self._line_of_label: dict[str, int] = {}
        self._labels_left = MAX_LABELS

    def read(self) -> None:
        """Find the form of each line and the slot of each label."""
        pc = 0
        for number in self.numbers:
            line, start = self.lines[number], 0
            if len(line) > MAX_LINE:
                raise error(f"a line of more than {MAX_LINE} characters", number + 1, 1, "")
            while ":" in line and (found := take_label(line, start)) is not None:
                self._define(found[1], pc, number, found.start(1))
                start = found.end()
            tokens = tokenize(line, start)
            if not tokens or tokens[0] in DIRECTIVES or self._is_place(tokens, pc):
                continue
            addend = _take_addend(tokens)
            statement = _Statement(_find(tokens), tokens, pc, number, start, addend)
            if statement.form is None and tokens[0].lower() not in DATA_WORDS:
                from ebpfjit.assembler.diagnosis import explain  # few texts are wrong

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

    def _is_place(self, tokens: list[str], pc: int) -> bool:
        """Take `.loc FILE LINE COLUMN`: the code that follows is of that line."""
        if tokens[0] != ".loc":
            return False
        if not self.files:
            self.files = dict(_files(self.lines))
        numbers = [int(token) for token in tokens[1:4] if token.isdigit() and len(token) < _MOST_DIGITS]
        if len(numbers) == 3 and numbers[1]:  # line 0: of none
            file = self.files.get(str(numbers[0]), "<text>")
            self.source_lines[pc] = SourceLine(file, numbers[1], numbers[2], "")
        return True

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
        if form.row.kind is Kind.LOAD_IMM64 and len(tokens) > 2 and tokens[2] not in self.labels.named:
            place = self.sections.places.get(tokens[2])
            if place is not None and tokens[2] not in self.sections.elsewhere:
                return self._encode_variable(statement, *place)
        fields = Fields(pc, self.labels, *form.fixed)
        index = 0
        try:
            for index, read in form.operands:
                read(fields, tokens[index])
            if statement.addend:
                raise Rejected("only the address of a variable has something added to it")
        except Rejected as rejected:
            reason = self.sections.elsewhere.get(tokens[index], str(rejected))
            raise self._error(statement, index, reason) from None
        dst, src, offset, imm, next_imm = fields.dst, fields.src, fields.offset, fields.imm, fields.next_imm
        return Instruction(pc, form.row.opcode, dst, src, offset, imm, next_imm, form.row).encode()

    def _encode_variable(self, statement: _Statement, name: str, offset: int) -> bytes:
        """Return the wide load of a place in a section of variables."""
        if self.whole:
            reason = (
                f"{statement.tokens[2]!r} is in section {name!r}, and bytes alone hold neither variables nor "
                "maps: Program.from_assembly gives it memory"
            )
            raise self._error(statement, 2, reason)
        pc, is_map = statement.pc, name == MAPS
        key = name, statement.tokens[2] if is_map else ""
        if key not in self.used and len(self.used) == MAX_USED:
            raise self._error(statement, 2, f"more than {MAX_USED} maps and sections of variables")
        number, offset = self.used.setdefault(key, len(self.used)), offset + statement.addend
        self.references[pc] = number, None if is_map else offset
        row = BY_NAME["LDDW_MAP_IDX" if is_map else "LDDW_MAP_IDX_VALUE"]
        dst, reference = REGISTERS[statement.tokens[0]][1], row.reference
        assert reference is not None  # both rows have one
        next_imm = 0 if is_map else W32.signed(offset)
        return Instruction(pc, row.opcode, dst, reference.value, 0, number, next_imm, row).encode()

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


_MOST_DIGITS = 9
_FILE = re.compile(r'\s*\.file\s+(\d+)\s+"([^"]*)"(?:\s+"([^"]*)")?', re.ASCII)


def _files(lines: Iterable[str]) -> Iterator[tuple[str, str]]:
    """Yield what `.file NUMBER ["FOLDER"] "NAME"` says: number and name."""
    for line in lines:
        if ".file" in line and (found := _FILE.match(line)) is not None:
            yield found[1], found[3] or found[2]


def _take_addend(tokens: list[str]) -> int:
    """Take the number out of `r1 = table+8 ll`, and return it."""
    if len(tokens) != 5 or tokens[4] != "ll" or tokens[1] != "=" or classes()[tokens[3]] != SIGNED:
        return 0
    return integer(tokens.pop(3))


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
