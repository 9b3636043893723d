"""Classic BPF as text: what bpf_asm, tcpdump -d, tcpdump -dd and tcpdump -ddd read and write.

bpf_asm     ldh [12] / jeq #0x800, yes, no / yes: ret #1                 labels; Linux tools/bpf/bpf_asm
tcpdump     (001) jeq      #0x800           jt 2	jf 5                  libpcap's bpf_image
dd          { 0x15, 0, 3, 0x00000800 },                                  an initializer in C
ddd         21 0 3 2048                                                  numbers; first how many follow
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence

from ebpfjit.classic.code import Instruction, decode, encode
from ebpfjit.classic.table import (
    ANCILLARIES,
    ANCILLARY,
    BY_NAME,
    Form,
    Kind,
    Row,
    ancillary,
    signed,
)
from ebpfjit.errors import AssemblyError

Fields = tuple[int, int, int, int]
DIALECTS = ("bpf_asm", "tcpdump", "dd", "ddd")
MASK = 0xFFFFFFFF

_NEGATED = {"jne": "jeq", "jneq": "jeq", "jlt": "jge", "jle": "jgt"}
"""What bpf_asm turns round: a branch on what does not hold."""
_SAME = {"ldi": "ld", "ldxi": "ldx", "jmp": "ja"}
_NAMES = {name: ANCILLARY + offset for name, offset in ANCILLARIES.items()}
_NAMES["vlan_pr"] = _NAMES["vlanp"] = _NAMES["vlan_avail"]
_NAMES["random"] = _NAMES["rand"]
_LIBPCAPS = {"vlan_avail": "vlanp", "rand": "random"}
"""Ancillary loads that libpcap calls something else."""
_HEX = ("and", "or", "xor", "jeq", "jgt", "jge", "jset", "ld", "ldx")
"""Operations whose numbers are written in base 16."""


# -- writing ------------------------------------------------------------------------------------------


def disassemble(code: bytes, dialect: str = "bpf_asm") -> str:
    """Return a program (`code`: its bytes) as text that `assemble` reads.

    `dialect` is "bpf_asm", "tcpdump", "dd" or "ddd", else ValueError.

    "dd" and "ddd" keep every bit. The other two have no place for what an operation does not use, so that jt,
    jf and k of such instructions are 0 when they are read again; and what no operation is raises
    AssemblyError there. Raises DecodeError.
    """
    if dialect not in DIALECTS:
        raise ValueError(f"a dialect is one of {', '.join(DIALECTS)}, not {dialect!r}")
    return "".join(f"{line}\n" for line in _WRITERS[dialect](decode(code)))


def _dd(instructions: Sequence[Instruction]) -> Iterator[str]:
    for each in instructions:
        yield f"{{ {each.code:#x}, {each.jt}, {each.jf}, {each.k:#010x} }},"


def _ddd(instructions: Sequence[Instruction]) -> Iterator[str]:
    yield str(len(instructions))
    for each in instructions:
        yield f"{each.code} {each.jt} {each.jf} {each.k}"


def _row(each: Instruction) -> Row:
    if each.row is None:
        what = f"instruction {each.pc}: code {each.code:#06x} is no operation"
        raise AssemblyError(what, each.pc + 1, 1, "")
    return each.row


def _operand(row: Row, k: int, pc: int, space: str, length: str) -> str:
    number = f"{k:#x}" if row.name in _HEX else str(k)
    return {
        Form.ABSOLUTE: f"[{k}]",
        Form.INDIRECT: f"[x{space}+{space}{k}]",
        Form.LENGTH: length,
        Form.NUMBER: f"#{number}",
        Form.CELL: f"M[{k}]",
        Form.HEADER: f"4*([{k}]&0xf)",
        Form.INDEX: "x",
        Form.ACCUMULATOR: "a",
        Form.NOTHING: "",
        Form.TARGET: str(signed(pc + 1 + k & MASK)),  # libpcap's protochain goes back
    }[row.form]


def _tcpdump(instructions: Sequence[Instruction]) -> Iterator[str]:
    for each in instructions:
        row, pc = _row(each), each.pc
        k = each.k if row.name in _HEX and row.form is Form.NUMBER else signed(each.k)  # %#x, or %d
        operand = _operand(row, k, pc, " ", "#pktlen")
        if row.form is Form.ACCUMULATOR:
            operand = ""
        if name := ancillary(row, each.k):
            operand = f"[{_LIBPCAPS.get(name, name)}]"
        if row.kind is Kind.BRANCH:
            yield f"({pc:03}) {row.name:<8} {operand:<16} jt {pc + 1 + each.jt}\tjf {pc + 1 + each.jf}"
        else:
            yield f"({pc:03}) {row.name:<8} {operand}"


def _bpf_asm(instructions: Sequence[Instruction]) -> Iterator[str]:
    targets = {each.pc + 1 + way for each in instructions for way in _ways(each)}
    for each in instructions:
        label = f"l{each.pc}:" if each.pc in targets else ""
        yield f"{label:<8}{_asm_line(each, len(instructions))}".rstrip()


def _ways(each: Instruction) -> tuple[int, ...]:
    """Return how far an instruction jumps, from the one behind it on."""
    kind = _row(each).kind
    return (signed(each.k),) if kind is Kind.JUMP else (each.jt, each.jf) if kind is Kind.BRANCH else ()


def _asm_line(each: Instruction, length: int) -> str:
    row, pc = _row(each), each.pc
    ways = [f"l{pc + 1 + way}" if 0 <= pc + 1 + way < length else str(way & MASK) for way in _ways(each)]
    if row.kind is Kind.JUMP:
        return f"jmp {ways[0]}"
    name = ancillary(row, each.k)
    operand = name if name else _operand(row, each.k, pc, "", "len")
    return f"{row.name} {', '.join([operand, *ways])}"


_WRITERS: dict[str, Callable[[Sequence[Instruction]], Iterator[str]]] = {
    "bpf_asm": _bpf_asm, "tcpdump": _tcpdump, "dd": _dd, "ddd": _ddd,
}  # fmt: skip


# -- reading ------------------------------------------------------------------------------------------


def assemble(text: str) -> bytes:
    """Return the bytes (struct sock_filter) of the program in `text`, in one of the four dialects.

    Which one is told by how it looks.

    Comments are `; ...`, `// ...`, `/* ... */`, and lines that begin with `#`. As in bpf_asm upper case is
    lower case, but for labels. Raises AssemblyError with line and column,
    and TypeError for what is no text.
    """
    if not isinstance(text, str):
        raise TypeError(f"a program's text is a str, not of type {type(text).__name__}")
    without_mark = text.removeprefix("\ufeff")  # as some editors begin files
    numbered = enumerate(_without_comments(without_mark).splitlines(), 1)
    lines = [(number, line) for number, line in numbered if line.strip()]
    if not lines:
        raise AssemblyError("the text has no instructions", 1, 1, "")
    first = lines[0][1].strip()
    if first.startswith("{"):
        return encode(_read_dd(lines))
    if re.fullmatch(r"\d{1,20}", first) or re.fullmatch(r"\d{1,20}(,|\s).*\d\s*,?", first):
        return encode(_read_ddd(lines))
    return encode(_read_text(lines))


def _without_comments(text: str) -> str:
    def blank(found: re.Match[str]) -> str:
        return "\n" * found[0].count("\n") or " "

    return re.sub(r"/\*.*?\*/|//[^\n]*|;[^\n]*|^#[^\n]*", blank, text, flags=re.DOTALL | re.MULTILINE)


def _wrong(reason: str, number: int, line: str, at: int = 0) -> AssemblyError:
    return AssemblyError(reason, number, at + 1, line)


def _fits(fields: list[int], number: int, line: str) -> Fields:
    for value, limit, what in zip(fields, (0xFFFF, 0xFF, 0xFF, MASK), ("code", "jt", "jf", "k"), strict=True):
        if not 0 <= value <= limit:
            raise _wrong(f"{what} is {value}, and has room for 0 to {limit}", number, line)
    code, jt, jf, k = fields
    return code, jt, jf, k


def _number(word: str, number: int, line: str, at: int) -> int:
    """Return what a number is as C and bpf_asm read it: 0x10, 0b11, 010 in base 8."""
    octal = re.fullmatch(r"[+-]?0[0-7]+", word) is not None
    try:
        return int(word, 8 if octal else 0)
    except ValueError:  # 08, or more digits than Python takes
        shown = word if len(word) <= 20 else f"{word[:20]}..."
        raise _wrong(f"{shown} is no number of 32 bits", number, line, at) from None


def _read_dd(lines: Sequence[tuple[int, str]]) -> Iterator[Fields]:
    for number, line in lines:
        rest = line
        for found in re.finditer(r"\{([^{}]*)\}\s*,?", line):
            parts = [part.strip() for part in found[1].split(",")]
            if len(parts) != 4 or not all(re.fullmatch(r"0x[0-9a-fA-F]+|\d+", part) for part in parts):
                what = "an instruction is { code, jt, jf, k }, four numbers"
                raise _wrong(what, number, line, found.start())
            yield _fits([_number(part, number, line, found.start()) for part in parts], number, line)
            rest = rest.replace(found[0], "", 1)
        if rest.strip():
            raise _wrong("an instruction is { code, jt, jf, k },", number, line, line.index(rest.strip()[0]))


def _read_ddd(lines: Sequence[tuple[int, str]]) -> Iterator[Fields]:
    """Read numbers, a count first; in one line, with commas between (iptables) or behind each (bpf_asm)."""
    rows = [(number, part) for number, line in lines for part in line.split(",") if part.strip()]
    first, head = rows[0]
    words = head.split()
    counted = int(words[0]) if len(words) == 1 else None
    body = rows[1:] if counted is not None else rows
    if counted is not None and counted != len(body):
        raise _wrong(f"the first line says {counted} instructions, and there are {len(body)}", first, head)
    for number, row in body:
        parts = row.split()
        if len(parts) != 4 or not all(re.fullmatch(r"\d{1,20}", part) for part in parts):
            raise _wrong("an instruction is code, jt, jf, k: four numbers in base 10", number, row)
        yield _fits([int(part) for part in parts], number, row)


_TCPDUMP = re.compile(r"\s*\((\d{1,20})\)\s+(\w+)\s*(.*?)(?:\s+jt\s+(\d{1,20})\s+jf\s+(\d{1,20}))?\s*$")
_LABEL = re.compile(r"\s*([A-Za-z_]\w*)\s*:")
_NUMBER = r"([+-]?(?:0[xX][0-9a-fA-F]+|0b[01]+|\d+))"
_FOUR, _FIFTEEN = r"(?:0x0*4|0b0*100|0*4)", r"(?:0x0*f|0b0*1111|0+17|15)"
_FORMS = (
    (Form.LENGTH, re.compile(r"#?(?:len|pktlen)")),
    (Form.HEADER, re.compile(rf"{_FOUR}\s*\*\s*\(\s*\[\s*{_NUMBER}\s*\]\s*&\s*{_FIFTEEN}\s*\)")),
    (Form.INDIRECT, re.compile(rf"\[\s*%?x\s*\+\s*{_NUMBER}\s*\]")),
    (Form.INDIRECT, re.compile(r"\[\s*%?x\s*\]()")),
    (Form.ABSOLUTE, re.compile(rf"\[\s*{_NUMBER}\s*\]")),
    (Form.CELL, re.compile(rf"m\s*\[\s*{_NUMBER}\s*\]")),
    (Form.NUMBER, re.compile(rf"#\s*{_NUMBER}")),
    (Form.INDEX, re.compile(r"%?x")),
    (Form.ACCUMULATOR, re.compile(r"%?a")),
    (Form.TARGET, re.compile(_NUMBER)),
    (Form.NOTHING, re.compile(r"")),
)
_IS_HEADER = dict(_FORMS)[Form.HEADER]


def _read_text(lines: Sequence[tuple[int, str]]) -> list[Fields]:
    """Read bpf_asm's dialect, or tcpdump's."""
    labels: dict[str, int] = {}
    statements: list[tuple[int, str, str]] = []
    for number, line in lines:
        rest = line
        while not line.lstrip().startswith("(") and (found := _LABEL.match(rest)):
            if found[1] in labels:
                raise _wrong(f"a second label {found[1]!r}", number, line, line.index(found[1]))
            labels[found[1]] = len(statements)
            rest = rest[found.end() :]
        if rest.strip():
            statements.append((number, line, rest.strip()))
    return [_statement(pc, *statement, labels) for pc, statement in enumerate(statements)]


def _statement(pc: int, number: int, line: str, text: str, labels: dict[str, int]) -> Fields:
    found = _TCPDUMP.match(text)
    if found is None:
        return _asm_statement(pc, number, line, text, labels)
    place, name, operand, taken, other = found.groups()
    if int(place) != pc:
        raise _wrong(f"instruction ({place}) stands at the place of ({pc:03})", number, line)
    name = name.lower()
    row, k = _parsed(name, operand or ("a" if name == "ret" else ""), number, line)
    if row.kind is Kind.JUMP:
        return _fits([row.code, 0, 0, k - pc - 1 & MASK], number, line)
    if (row.kind is Kind.BRANCH) != (taken is not None):
        has = "its targets: jt N jf N" if taken is None else "no targets"
        raise _wrong(f"{name} has {has}", number, line)
    ways = [int(taken) - pc - 1, int(other) - pc - 1] if taken is not None else [0, 0]
    return _fits([row.code, *ways, k], number, line)


def _asm_statement(pc: int, number: int, line: str, text: str, labels: dict[str, int]) -> Fields:
    name, rest = re.fullmatch(r"(\S*)\s*(.*)", text, re.DOTALL).groups()  # type: ignore[union-attr]  # it matches all
    name = name.lower()
    parts = [part.strip() for part in rest.split(",")] if rest.strip() else []

    def way(label: str) -> int:
        if label in labels:
            return labels[label] - pc - 1
        if re.fullmatch(r"\+?\d+", label):
            return _number(label, number, line, line.find(label))
        raise _wrong(f"no label {label!r}", number, line, max(line.find(label), 0))

    if name in ("jmp", "ja"):
        if len(parts) != 1:
            raise _wrong(f"{name} has one target", number, line)
        k = way(parts[0].lstrip("#"))
        if k > MASK:
            raise _wrong(f"{k} does not fit in 32 bits", number, line)
        return _fits([BY_NAME["ja", Form.TARGET].code, 0, 0, k & MASK], number, line)
    negated = name in _NEGATED
    base = _NEGATED.get(name, _SAME.get(name, name))
    operand = parts[0] if parts else ""
    if name in ("ldi", "ldxi") and not operand.startswith("#"):
        operand = f"#{operand}"
    row, k = _parsed(base, operand, number, line)
    targets = [way(part) for part in parts[1:]]
    if row.kind is not Kind.BRANCH:
        if targets:
            raise _wrong(f"{name} has no targets", number, line, line.index(","))
        return _fits([row.code, 0, 0, k], number, line)
    if not 1 <= len(targets) <= 2:
        raise _wrong(f"{name} has one target or two: {name} #5, yes, no", number, line)
    jt, jf = (targets[0], targets[1] if len(targets) == 2 else 0)
    return _fits([row.code, *((jf, jt) if negated else (jt, jf)), k], number, line)


def _parsed(name: str, operand: str, number: int, line: str) -> tuple[Row, int]:
    """Return the row that a mnemonic and an operand are, and k."""
    if name == "ldx" and _IS_HEADER.fullmatch(operand.lower()):
        name = "ldxb"
    forms = [form for mnemonic, form in BY_NAME if mnemonic == name]
    at = max(line.find(operand), 0) if operand else 0
    if not forms:
        known = ", ".join(sorted({mnemonic for mnemonic, _ in BY_NAME}))
        raise _wrong(f"no operation {name!r}; there are: {known}", number, line, max(line.find(name), 0))
    lower = operand.lower()
    word = re.sub(r"#|\[\s*#?(\w+)\s*\]", r"\1", lower, count=1)  # proto, #proto, and libpcap's [proto]
    if word in _NAMES and Form.ABSOLUTE in forms:
        return BY_NAME[name, Form.ABSOLUTE], _NAMES[word] & MASK
    for form, pattern in _FORMS:
        found = pattern.fullmatch(lower)
        if found is not None and form in forms:
            k = _number(found[1], number, line, at) if found.groups() and found[1] else 0
            if not -(1 << 31) <= k <= MASK:
                raise _wrong(f"{k} does not fit in 32 bits", number, line, at)
            return BY_NAME[name, form], k & MASK
    takes = ", ".join(form.value for form in forms if form.value) or "nothing"
    raise _wrong(f"{name} takes {takes}, not {operand!r}", number, line, at)
