"""An object file's bytes, checked: sections, symbols and relocations as plain values.

    0                 64
    +-----------------+--------------------------------+------------------+
    | header          | contents of the sections       | section headers  |
    +-----------------+--------------------------------+------------------+
      e_shoff, e_shnum  sh_offset .. sh_offset + sh_size  64 bytes each

Every range is held against the file's size before it is read, and whatever reading hostile bytes raises
leaves as a LoadError. Time and memory are bounded by the file's size: the sections that are read may not
overlap, names have a maximal length and are read once.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

from ebpfjit.elf.budget import Budget, text_size
from ebpfjit.errors import LoadError
from ebpfjit.record import dataclass

HEADER = struct.Struct("<16sHHIQQQIHHHHHH")
HEADER_SIZE = HEADER.size
SECTION_HEADER_SIZE = 64
SECTION_HEADER = struct.Struct("<IIQQQQIIQQ")
SYMBOL = struct.Struct("<IBBHQQ")
RELOCATION = struct.Struct("<QQ")
RELOCATION_WITH_ADDEND = struct.Struct("<QQq")
MAX_NAME = 4096
ENTRY_SIZE = 500
"""Bytes that a symbol or relocation takes at most once it is read."""
HEADER_COST = 1000
"""Bytes that a section takes, its names not counted."""
SHF_WRITE, SHF_ALLOC, SHF_EXECINSTR, SHF_COMPRESSED = 0x1, 0x2, 0x4, 0x800
SHN_LORESERVE, SHN_ABS, SHN_COMMON, SHN_XINDEX = 0xFF00, 0xFFF1, 0xFFF2, 0xFFFF
EM_NONE, EM_BPF = 0, 247
"""LLVM before 3.9 knew no number of BPF's own."""
MACHINES = {
    EM_NONE: "EM_NONE",
    3: "EM_386",
    8: "EM_MIPS",
    20: "EM_PPC",
    21: "EM_PPC64",
    22: "EM_S390",
    40: "EM_ARM",
    62: "EM_X86_64",
    183: "EM_AARCH64",
    190: "EM_CUDA",
    224: "EM_AMDGPU",
    243: "EM_RISCV",
    EM_BPF: "EM_BPF",
    258: "EM_LOONGARCH",
}
"""The machines that files are for where clang was not told its target: hosts, and what LLVM compiles for."""

SECTION_TYPES = {
    0: "SHT_NULL",
    1: "SHT_PROGBITS",
    2: "SHT_SYMTAB",
    3: "SHT_STRTAB",
    4: "SHT_RELA",
    8: "SHT_NOBITS",
    9: "SHT_REL",
}
SYMBOL_TYPES = {
    0: "STT_NOTYPE",
    1: "STT_OBJECT",
    2: "STT_FUNC",
    3: "STT_SECTION",
    4: "STT_FILE",
    5: "STT_COMMON",
    6: "STT_TLS",
}
STV_INTERNAL, STV_HIDDEN = 1, 2
BINDINGS = {0: "STB_LOCAL", 1: "STB_GLOBAL", 2: "STB_WEAK"}
BTF_SECTIONS = (".BTF", ".BTF.ext")
WANTED = "an EM_BPF ELF64 little-endian relocatable object is needed"
OTHER_ORDER = "; compile it for this byte order, with clang -target bpfel"
STRIPPED = (
    "there is no symbol table: the file was stripped, and what its instructions refer to is lost; build it"
    " again, or install it unstripped (without strip --strip-all)"
)

_PARSE_ERRORS = (
    struct.error,
    LookupError,
    ValueError,
    TypeError,
    AttributeError,
    ArithmeticError,
    AssertionError,
    EOFError,
    RecursionError,
)
"""What parsing hostile bytes may raise."""


@dataclass(frozen=True, slots=True)
class Section:
    """A section; `data` is empty where the file holds nothing for it (SHT_NOBITS).

    `type` is ELF's name ("SHT_PROGBITS"), or the number of a type that is not looked at. `offset` is where in
    the file it starts; it and `size` count bytes.
    """

    index: int
    name: str
    type: str | int
    flags: int
    offset: int
    size: int
    data: memoryview
    link: int
    info: int
    entry_size: int

    @property
    def is_program(self) -> bool:
        """True where the section holds instructions."""
        return bool(self.type == "SHT_PROGBITS" and self.flags & SHF_EXECINSTR and self.size)

    @property
    def is_data(self) -> bool:
        """True where the section holds what programs have in memory: variables, map definitions."""
        wanted = self.type in ("SHT_PROGBITS", "SHT_NOBITS") and self.flags & SHF_ALLOC
        return bool(wanted and not self.flags & SHF_EXECINSTR)

    @property
    def is_writable(self) -> bool:
        """True where programs may write to it."""
        return bool(self.flags & SHF_WRITE)


@dataclass(frozen=True, slots=True)
class Symbol:
    """A symbol; `value` is its offset in bytes in `section`, None for a symbol defined nowhere here.

    `type` ("STT_FUNC") and `binding` ("STB_GLOBAL") are ELF's names, or numbers. `is_common` is true
    for a variable that no section holds yet (SHN_COMMON), `is_hidden` for what only this file may use.
    """

    name: str
    type: str | int
    binding: str | int
    section: Section | None
    value: int
    size: int
    is_common: bool = False
    is_hidden: bool = False

    @property
    def is_global(self) -> bool:
        """True where other files may see it."""
        return self.binding in ("STB_GLOBAL", "STB_WEAK")

    @property
    def is_weak(self) -> bool:
        """True where it need not be defined."""
        return self.binding == "STB_WEAK"

    @property
    def is_function(self) -> bool:
        """True for a function that is defined in this file."""
        return self.type == "STT_FUNC" and self.section is not None

    def __str__(self) -> str:
        if self.type == "STT_SECTION" and self.section is not None:
            return f"section {self.section.name!r}"
        return f"symbol {self.name!r}"


def name_of_place(section: Section, offset: int, name: str) -> str:
    """Return what something in a section is called where its name is not its own: "tc+0x28:NAME"."""
    return f"{section.name}+{offset:#x}:{name}"


@dataclass(frozen=True, slots=True)
class Relocation:
    """One relocation: `offset` counts bytes in the section it changes; `type` is R_BPF_*'s number.

    `addend` is there in files with SHT_RELA, which only LLVM before 3.9 wrote.
    """

    offset: int
    type: int
    symbol: Symbol
    addend: int = 0


@dataclass(frozen=True, slots=True)
class ObjectFile:
    """What an object file holds.

    `relocations` maps the index of a section of instructions or data to its relocations. `budget` is
    what is left for all that is made of the file.
    """

    name: str
    sections: tuple[Section, ...]
    symbols: tuple[Symbol, ...]
    relocations: dict[int, tuple[Relocation, ...]]
    budget: Budget

    def section(self, name: str) -> Section | None:
        """Return the first section of that name which holds something."""
        return next((s for s in self.sections if s.name == name and s.size), None)


def read_object(data: bytes, name: str) -> ObjectFile:
    """Return the sections, symbols and relocations of an object file.

    `name` is what error messages call the file. Raises LoadError for anything but a well-formed
    EM_BPF ELF64 little-endian relocatable object.
    """
    with _parsing(name):
        return _Reader(data, name).read()


def read_section(data: bytes, name: str, section: str) -> memoryview:
    """Return the contents of one section of any little-endian ELF64 file; LoadError where it has none."""
    with _parsing(name):
        reader = _Reader(data, name)
        if len(data) < HEADER_SIZE or data[:6] != b"\x7fELF\x02\x01":
            raise LoadError(
                f"{name}: not a little-endian ELF64 file; types are in such a one, or in BTF alone"
            )
        return reader.read_section(section)


@contextmanager
def _parsing(name: str) -> Iterator[None]:
    """The one place where the exceptions of parsing become LoadErrors."""
    try:
        yield
    except LoadError:
        raise
    except _PARSE_ERRORS as error:
        raise LoadError(f"{name}: damaged ELF file: {type(error).__name__}: {error}") from error


class _Header(NamedTuple):
    """The fields of a section header, in order."""

    name: int
    type: int
    flags: int
    address: int
    offset: int
    size: int
    link: int
    info: int
    alignment: int
    entry_size: int


class _Reader:
    """Reads one object file; every method raises LoadError naming the file and the section."""

    def __init__(self, data: bytes, name: str) -> None:
        self.data = data
        self.name = name
        self.unread = len(data)
        self.budget = Budget(name, len(data))
        self._names: dict[tuple[int, int], str] = {}

    def read(self) -> ObjectFile:
        self._check_identity()
        sections = self._sections()
        symbol_table = self._only_symbol_table(sections)
        symbols = self._symbols(symbol_table, sections) if symbol_table else ()
        for section in sections:
            if section.is_program or section.is_data or section.name in BTF_SECTIONS:
                self._spend(section)
        if symbol_table is None and any(section.is_program for section in sections):
            raise self._error(STRIPPED)
        relocations = self._relocations(sections, symbol_table, symbols)
        return ObjectFile(self.name, sections, symbols, relocations, self.budget)

    def read_section(self, name: str) -> memoryview:
        for section in self._sections():
            if section.name == name and len(section.data):
                self._spend(section)
                return section.data
        raise self._error(f"there is no section {name!r}")

    def _error(self, message: str) -> LoadError:
        return LoadError(f"{self.name}: {message}")

    def _check_identity(self) -> None:
        """Refuse what is not an object for BPF, before anything else is looked at."""
        data = self.data
        if data[:4] != b"\x7fELF":
            found = f"it starts with {data[:4].hex(' ')}" if data else "it is empty"
            raise self._error(f"not an ELF file: {found}")
        if len(data) < 20:
            raise self._error(f"truncated ELF header: {len(data)} bytes")
        kind, machine = struct.unpack_from(">HH" if data[5] == 2 else "<HH", data, 16)
        bits = {1: "ELF32", 2: "ELF64"}.get(data[4], f"ELF class {data[4]}")
        order = {1: "little-endian", 2: "big-endian"}.get(data[5], f"byte order {data[5]}")
        types = {1: "relocatable", 2: "executable", 3: "shared"}
        if machine not in (EM_BPF, EM_NONE) or (data[4], data[5], kind) != (2, 1, 1):
            found = f"{_machine_name(machine)}, {bits}, {order}, {types.get(kind, f'type {kind}')}"
            raise self._error(f"{found}: {WANTED}{OTHER_ORDER if (machine, data[5]) == (EM_BPF, 2) else ''}")
        self.is_old = machine == EM_NONE
        if len(data) < HEADER_SIZE:
            raise self._error(f"truncated ELF header: {len(data)} of {HEADER_SIZE} bytes")

    def _check_range(self, offset: int, size: int, what: str) -> None:
        if offset + size > len(self.data):
            raise self._error(
                f"{what} is truncated: bytes {offset:#x} to {offset + size:#x}"
                f" of a file of {len(self.data):#x} bytes"
            )

    def _spend(self, section: Section) -> None:
        """Count what is read: sections that do not overlap cannot hold more than the file."""
        self.unread -= len(section.data)
        if self.unread < 0:
            raise self._error(f"section {section.name!r} overlaps with others")
        if section.flags & SHF_COMPRESSED:
            raise self._error(f"section {section.name!r} is compressed")

    def _sections(self) -> tuple[Section, ...]:
        # .., e_shoff, e_flags, e_ehsize, e_phentsize, e_phnum, e_shentsize, e_shnum, e_shstrndx
        *_, table, _, _, _, _, entry_size, count, names_index = HEADER.unpack_from(self.data)
        if not table:
            raise self._error("no section headers")
        if entry_size != SECTION_HEADER_SIZE:
            raise self._error(f"section headers of {entry_size} bytes, not {SECTION_HEADER_SIZE}")
        self._check_range(table, max(count, 1) * entry_size, "the table of section headers")
        if not count:  # ELF: 0xff00 sections or more are counted in the first header
            count = _Header(*SECTION_HEADER.unpack_from(self.data, table)).size
            self._check_range(table, count * entry_size, "the table of section headers")
        self.budget.spend(HEADER_COST * count, "section headers")
        table_bytes = memoryview(self.data)[table : table + count * entry_size]
        headers = [_Header(*fields) for fields in SECTION_HEADER.iter_unpack(table_bytes)]
        if names_index == SHN_XINDEX and headers:  # ELF: so many that their index has no room
            names_index = headers[0].link
        names = self._section_names(headers, names_index)
        return tuple(self._section(index, entry, names[index]) for index, entry in enumerate(headers))

    def _section_names(self, headers: list[_Header], index: int) -> list[str]:
        if index >= len(headers):
            raise self._error(f"section names are in section {index}, there are {len(headers)} sections")
        entry = headers[index]
        self._check_range(entry.offset, entry.size, "the section of section names")
        table = self._bytes(entry)
        return [
            self._string(table, index, entry.name, f"section {number}")
            for number, entry in enumerate(headers)
        ]

    def _bytes(self, entry: _Header) -> memoryview:
        return memoryview(self.data)[entry.offset : entry.offset + entry.size]

    def _section(self, index: int, entry: _Header, name: str) -> Section:
        type_ = SECTION_TYPES.get(entry.type, entry.type)
        empty = type_ in ("SHT_NULL", "SHT_NOBITS")
        if not empty:
            self._check_range(entry.offset, entry.size, f"section {name!r}")
        return Section(
            index, name, type_, entry.flags, entry.offset, entry.size,
            memoryview(b"") if empty else self._bytes(entry),
            entry.link, entry.info, entry.entry_size,
        )  # fmt: skip

    def _string(self, table: memoryview, section: int, offset: int, owner: str) -> str:
        """Return the zero-terminated string at `offset` of a string table, which is in `section`."""
        if not offset and not len(table):
            return ""
        known = self._names.get((section, offset))
        if known is not None:
            return known
        if offset >= len(table):
            raise self._error(f"the name of {owner} is outside of the string table")
        text, zero, _ = bytes(table[offset : offset + MAX_NAME]).partition(b"\0")
        if not zero:
            raise self._error(f"the name of {owner} does not end")
        self.budget.spend(text_size(text), "the names of sections and symbols")
        found = self._names[section, offset] = text.decode("utf-8", "backslashreplace")
        return found

    def _only_symbol_table(self, sections: tuple[Section, ...]) -> Section | None:
        tables = [section for section in sections if section.type == "SHT_SYMTAB"]
        if len(tables) > 1:
            raise self._error(f"{len(tables)} symbol tables, there can be one")
        return tables[0] if tables else None

    def _table(self, section: Section, size: int) -> memoryview:
        """Return the contents of a table, having checked its shape."""
        if section.entry_size != size or len(section.data) % size:
            raise self._error(
                f"section {section.name!r} is no table of {size}-byte entries: {section.size} bytes,"
                f" entries of {section.entry_size}"
            )
        self._spend(section)
        return section.data

    def _symbols(self, table: Section, sections: tuple[Section, ...]) -> tuple[Symbol, ...]:
        if table.link >= len(sections):
            raise self._error(
                f"section {table.name!r} has its names in section {table.link}, which is not there"
            )
        data = self._table(table, SYMBOL.size)
        self.budget.spend(ENTRY_SIZE * (len(data) // SYMBOL.size), "symbols")
        names = sections[table.link]
        return tuple(
            self._symbol(number, entry, names, sections)
            for number, entry in enumerate(SYMBOL.iter_unpack(data))
        )

    def _symbol(
        self,
        number: int,
        entry: tuple[int, int, int, int, int, int],
        names: Section,
        sections: tuple[Section, ...],
    ) -> Symbol:
        name_offset, info, other, index, value, size = entry
        name = self._string(names.data, names.index, name_offset, f"symbol {number}")
        section: Section | None = None
        if 0 < index < SHN_LORESERVE:
            if index >= len(sections):
                raise self._error(
                    f"symbol {name!r} is in section {index}, there are {len(sections)} sections"
                )
            section = sections[index]
        elif index not in (0, SHN_ABS, SHN_COMMON):
            raise self._error(f"symbol {name!r} is in section {index:#x}, which is not supported")
        if section is not None and value + size > section.size:
            raise self._error(
                f"symbol {name!r} is outside of section {section.name!r}: bytes {value:#x} to"
                f" {value + size:#x} of {section.size:#x}"
            )
        type_, binding = SYMBOL_TYPES.get(info & 15, info & 15), BINDINGS.get(info >> 4, info >> 4)
        hidden = other & 3 in (STV_INTERNAL, STV_HIDDEN)
        return Symbol(name, type_, binding, section, value, size, index == SHN_COMMON, hidden)

    def _relocations(
        self, sections: tuple[Section, ...], table: Section | None, symbols: tuple[Symbol, ...]
    ) -> dict[int, tuple[Relocation, ...]]:
        """Return the relocations of instructions and data; debug information's are not looked at."""
        found: dict[int, tuple[Relocation, ...]] = {}
        for section in sections:
            if section.type not in ("SHT_REL", "SHT_RELA") or section.info >= len(sections):
                continue
            target = sections[section.info]
            if not target.is_program and not target.is_data:
                continue
            if section.type == "SHT_RELA" and not self.is_old:
                raise self._error(f"section {section.name!r}: relocations with addends are not BPF's")
            if target.index in found:
                raise self._error(f"section {target.name!r} has two sections of relocations")
            if table is None or section.link != table.index:
                raise self._error(f"section {section.name!r}: section {section.link} is no symbol table")
            self.budget.spend(ENTRY_SIZE * (len(section.data) // RELOCATION.size), "relocations")
            found[target.index] = tuple(self._section_relocations(section, target, symbols))
        return found

    def _section_relocations(
        self, section: Section, target: Section, symbols: tuple[Symbol, ...]
    ) -> Iterator[Relocation]:
        layout = RELOCATION_WITH_ADDEND if section.type == "SHT_RELA" else RELOCATION
        step = 8 if target.is_program else 1
        for offset, info, *addend in layout.iter_unpack(self._table(section, layout.size)):
            number = info >> 32
            if offset % step or offset >= target.size:
                what = "instruction" if target.is_program else "byte"
                where = f"the relocation at {offset:#x} is at no {what}"
                raise self._error(f"section {section.name!r}: {where} of section {target.name!r}")
            if number >= len(symbols):
                where = f"the relocation at {offset:#x}"
                raise self._error(
                    f"section {section.name!r}: {where} is against symbol {number}, there are {len(symbols)}"
                )
            yield Relocation(offset, info & 0xFFFFFFFF, symbols[number], *addend)


def _machine_name(machine: int) -> str:
    """Return the name of an e_machine number, "EM_X86_64"."""
    return MACHINES.get(machine, f"machine {machine}")
