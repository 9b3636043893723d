"""Sections of a text, as `clang -S -target bpf` writes them: which lines are code, what variables hold.

.text, .section xdp,"ax"      code: units, each from the start of a function to that of the next
.data .bss .rodata, license   bytes, and where symbols are in them
.maps .BTF                    the same: which maps there are, and what their types say
anything else (.debug_info)   skipped; its symbols are known by name, for who refers to them
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence

from ebpfjit.assembler.lexer import column_of, error, take_label
from ebpfjit.assembler.operands import Rejected, integer
from ebpfjit.record import dataclass, field

MAX_DATA = 1 << 24
"""Bytes of variables of a text."""
CODE, DATA, SKIPPED = "code", "data", "skipped"
MAPS, BTF = ".maps", ".BTF"

HAS_SECTIONS = re.compile(r"^[ \t]*\.(?:section|pushsection|data|bss|type|comm|lcomm)\b", re.MULTILINE)
_DIRECTIVE = re.compile(r"\s*\.([\w.]+)[ \t]*(.*)", re.ASCII)
_SECTION = re.compile(r'\s*("[^"]*"|[^,\s"]+)\s*(?:,\s*"([^"]*)")?')
_FUNCTION = re.compile(r"([\w.$]+)\s*,\s*[@%]function", re.ASCII)
_STRING = re.compile(r'"((?:\\.|[^"\\])*)"')
_ESCAPE = re.compile(r"\\(?:([0-7]{1,3})|x([0-9A-Fa-f]{1,2})|(.))")
_WORD = re.compile(r"[A-Za-z_.$][\w.$]*", re.ASCII)
_INTEGER = re.compile(r"[+-]?(?:0[xX][0-9A-Fa-f]+|[0-9]+)", re.ASCII)
_ESCAPES = {"n": 10, "t": 9, "r": 13, "b": 8, "f": 12}

SIZES = {
    "byte": 1, "2byte": 2, "short": 2, "hword": 2, "4byte": 4, "long": 4, "int": 4, "8byte": 8, "quad": 8,
}  # fmt: skip
"""Directives that write integers, and the bytes of one."""
_SPACES = ("zero", "space", "skip")
_STRINGS = {"ascii": b"", "asciz": b"\0", "string": b"\0"}
_ALIGNMENTS = {"p2align": True, "align": False, "balign": False}
"""Directives that align: True where the number is that of low bits."""
_SAYING = frozenset({"type", "size", "globl", "global", "weak", "local", "hidden", "protected", "internal"})
_SAID_ANYWHERE = frozenset({"file", "ident", "addrsig", "addrsig_sym", "loc"})


@dataclass(slots=True)
class Unit:
    """Lines of code, by number, from the start of a function; `name` is its, "" for what comes before one.

    `has_code` is true of one with an instruction.
    """

    section: str
    name: str
    lines: list[int] = field(default_factory=list)
    has_code: bool = False


@dataclass(slots=True)
class Variables:
    """A section of variables: its bytes, and where each of its symbols is."""

    name: str
    data: bytearray = field(default_factory=bytearray)
    symbols: dict[str, int] = field(default_factory=dict)

    @property
    def is_readonly(self) -> bool:
        """True where programs may not write."""
        return self.name.startswith(".rodata")


@dataclass(slots=True)
class Sections:
    """What a text consists of. `elsewhere` says of symbols that cannot be used why that is so."""

    units: list[Unit] = field(default_factory=list)
    variables: dict[str, Variables] = field(default_factory=dict)
    places: dict[str, tuple[str, int]] = field(default_factory=dict)
    elsewhere: dict[str, str] = field(default_factory=dict)
    globals: set[str] = field(default_factory=set)

    @property
    def license(self) -> str | None:
        """What the section "license" says, None where there is none."""
        found = self.variables.get("license")
        return None if found is None else bytes(found.data).split(b"\0")[0].decode(errors="replace")

    def entry(self, name: str | None) -> Unit | None:
        """Return where the program starts: the function of that name, else the first that is attached."""
        code = [unit for unit in self.units if unit.has_code]
        for unit in code:
            if unit.name and unit.name == name:
                return unit
        apart = [unit for unit in code if unit.section != ".text"]
        return next(iter(self.attached or apart or code), None)

    @property
    def attached(self) -> list[Unit]:
        """The functions in sections of their own, those that other files may see first."""
        found = [unit for unit in self.units if unit.name and unit.has_code and unit.section != ".text"]
        return sorted(found, key=lambda unit: unit.name not in self.globals)

    def ordered(self, entry: Unit | None) -> list[Unit]:
        """Return the units with the section of the entry first, which starts with it."""
        return sorted(
            self.units, key=lambda unit: (unit is not entry, entry is None or unit.section != entry.section)
        )

    def needed(self, entry: Unit | None, lines: Sequence[str]) -> list[Unit]:
        """Return the units that the entry refers to, and those that these do, the entry first.

        What stands before the first function of a section is taken too: nobody says what is in it.
        """
        if entry is None or not entry.name:
            return self.ordered(entry)
        by_name = {unit.name: unit for unit in self.units if unit.name}
        found, waiting = {entry.name, ""}, [entry, *(unit for unit in self.units if not unit.name)]
        while waiting:
            for word in _words(waiting.pop().lines, lines):
                if word in by_name and word not in found:
                    found.add(word)
                    waiting.append(by_name[word])
        return [entry, *(unit for unit in self.units if unit.name in found and unit is not entry)]


def _words(numbers: Iterable[int], lines: Sequence[str]) -> Iterator[str]:
    for number in numbers:
        if _DIRECTIVE.match(lines[number]) is None:  # those of the next function stand here too
            yield from _WORD.findall(lines[number].partition("#")[0])


def read_sections(lines: Sequence[str]) -> Sections:
    """Return what a text consists of. Raises AssemblyError for a directive of variables that is none."""
    return _Reader(lines).read()


class _Reader:
    """A text while its lines are told apart."""

    def __init__(self, lines: Sequence[str]) -> None:
        self.lines = lines
        self.found = Sections()
        self.functions: set[str] = set()
        self.left = MAX_DATA
        self.outer: list[tuple[str, str]] = []
        self.section, self.kind = ".text", CODE
        self.unit = self._new_unit("")

    def _new_unit(self, name: str) -> Unit:
        unit = Unit(self.section, name)
        self.found.units.append(unit)
        return unit

    def read(self) -> Sections:
        """Tell all lines apart."""
        for number, line in enumerate(self.lines):
            try:
                self._line(number, line)
            except Rejected as rejected:
                raise error(str(rejected), number + 1, column_of(line, 0, 0), line) from None
        self.found.units = [unit for unit in self.found.units if unit.lines]
        return self.found

    def _line(self, number: int, line: str) -> None:
        if self._moves(line):
            return
        if self.kind is CODE:
            self._code(number, line)
        elif self.kind is DATA:
            self._data(line)
        else:
            self._skip(line)

    def _moves(self, line: str) -> bool:
        """Go to another section where a line says so."""
        directive = _DIRECTIVE.match(line) if "." in line else None
        if directive is None:
            return False
        word, rest = directive[1], directive[2]
        if word == "type" and (function := _FUNCTION.match(rest)) is not None:
            self.functions.add(function[1])
        if word in ("globl", "global", "weak"):
            self.found.globals.add(rest.partition("#")[0].strip())
        if word in ("comm", "lcomm"):
            self._common(rest)
        elif word in ("text", "data", "bss"):
            self._go(f".{word}", "x" if word == "text" else "")
        elif word in ("section", "pushsection") and (section := _SECTION.match(rest)) is not None:
            if word == "pushsection":
                self.outer.append((self.section, self.kind))
            self._go(section[1].strip('"'), section[2] or "")
        elif word in ("popsection", "previous") and self.outer:
            self.section, self.kind = self.outer.pop()
            self.unit = self._new_unit("") if self.kind is CODE else self.unit
        else:
            return False
        return True

    def _go(self, name: str, flags: str) -> None:
        is_code = name == ".text" or "x" in flags
        is_data = name.startswith((".data", ".bss", ".rodata")) or name in ("license", MAPS, BTF)
        self.section, self.kind = name, CODE if is_code else DATA if is_data else SKIPPED
        if is_code:
            self.unit = self._new_unit("")

    def _code(self, number: int, line: str) -> None:
        label = take_label(line, 0) if ":" in line else None
        if label is not None and (label[1] in self.functions or label[1] in self.found.globals):
            self.unit = self._new_unit(label[1])
        self.unit.lines.append(number)
        rest = line[label.end() :] if label is not None else line
        if not self.unit.has_code and rest.partition("#")[0].strip() and _DIRECTIVE.match(rest) is None:
            self.unit.has_code = True

    def _skip(self, line: str) -> None:
        label = take_label(line, 0) if ":" in line else None
        if label is not None:
            self.found.elsewhere[label[1]] = (
                f"{label[1]!r} is in section {self.section!r}, of which a text does not say enough: compile "
                "to an object file (clang -c), and load that"
            )

    def _common(self, rest: str) -> None:
        """Take `name,size,alignment`: a variable that is zero."""
        name, *numbers = [part.strip() for part in rest.split(",")]
        section = self.found.variables.setdefault(".bss", Variables(".bss"))
        size, alignment = (_number(part) for part in [*numbers, "1", "1"][:2])
        self._put(section, bytes(-len(section.data) % min(max(alignment, 1), 64)))
        self._define(section, name)
        self._put(section, bytes(max(0, min(size, self.left + 1))))

    def _define(self, section: Variables, name: str) -> None:
        section.symbols[name] = len(section.data)
        self.found.places[name] = section.name, len(section.data)

    def _put(self, section: Variables, data: bytes) -> None:
        self.left -= len(data)
        if self.left < 0:
            raise Rejected(f"more than {MAX_DATA} bytes of variables")
        section.data += data

    def _data(self, line: str) -> None:
        """Take a line of a section of variables: labels, and a directive."""
        section = self.found.variables.setdefault(self.section, Variables(self.section))
        start = 0
        while (label := take_label(line, start)) is not None:
            self._define(section, label[1])
            start = label.end()
        directive = _DIRECTIVE.match(line, start)
        if directive is not None:
            self._write(section, directive[1], directive[2])
        elif line[start:].partition("#")[0].strip():
            raise Rejected(f"an instruction in section {self.section!r}, which holds variables")

    def _write(self, section: Variables, word: str, rest: str) -> None:
        """Do what a directive says. Raises Rejected for one that is none of variables."""
        if word in _STRINGS:
            strings = [found[1] for found in _STRING.finditer(rest)]
            self._put(section, b"".join(_unescaped(text) + _STRINGS[word] for text in strings))
            return
        parts = [part.strip() for part in rest.partition("#")[0].split(",")]
        if word in SIZES:
            for part in parts:
                self._put(section, self._number(section, part, SIZES[word]))
        elif word in _SPACES:
            size, value = _number(parts[0]), _number(parts[1]) if len(parts) > 1 else 0
            self._put(section, bytes([value & 0xFF]) * max(0, min(size, self.left + 1)))
        elif word in _ALIGNMENTS:
            bits = _number(parts[0])
            alignment = 1 << min(max(bits, 0), 12) if _ALIGNMENTS[word] else min(max(bits, 1), 4096)
            self._put(section, bytes(-len(section.data) % alignment))
        elif word not in _SAYING and word not in _SAID_ANYWHERE and not word.startswith("cfi_"):
            raise Rejected(f"directive '.{word}' is not taken in a section of variables")

    def _number(self, section: Variables, part: str, size: int) -> bytes:
        """Return an integer's bytes; of an address zeros, and its variable cannot be used."""
        if _WORD.match(part):
            name = next(reversed(section.symbols), "")
            self.found.elsewhere[name] = f"{name!r} holds the address of {part!r}: compile to an object file"
            return bytes(size)
        return (_number(part) & (1 << 8 * size) - 1).to_bytes(size, "little")


def _number(text: str) -> int:
    if _INTEGER.fullmatch(text) is None:
        raise Rejected(f"expected an integer, found {text[:40]!r}")
    return integer(text)


def _unescaped(text: str) -> bytes:
    """Return the bytes of a string in quotes."""
    out = bytearray()
    end = 0
    for found in _ESCAPE.finditer(text):
        out += text[end : found.start()].encode(errors="replace")
        octal, hexadecimal, letter = found.groups()
        if letter is not None:
            out += bytes([_ESCAPES[letter]]) if letter in _ESCAPES else letter.encode(errors="replace")
        else:
            out.append((int(octal, 8) if octal else int(hexadecimal, 16)) & 0xFF)
        end = found.end()
    return bytes(out + text[end:].encode(errors="replace"))
