"""Object files made by hand, section by section: what no compiler writes."""

from __future__ import annotations

import struct
from dataclasses import dataclass, field

PROGBITS, SYMTAB, STRTAB, NOBITS, REL = 1, 2, 3, 8, 9
WRITE, ALLOC, EXECUTE = 1, 2, 4
OBJECT, FUNCTION = 1, 2
GLOBAL, WEAK = 1, 2
EXIT = bytes.fromhex("b700000000000000 9500000000000000")


@dataclass
class Section:
    """A section; `size` is for one that takes no bytes of the file."""

    name: bytes
    type: int
    flags: int
    data: bytes
    link: int = 0
    info: int = 0
    entry_size: int = 0
    size: int | None = None


@dataclass
class ElfMaker:
    """An EM_BPF object: sections and symbols are added, `bytes()` gives the file.

    Sections are numbered from 1; the symbol table and its names come last.
    """

    sections: list[Section] = field(default_factory=list)
    symbols: bytearray = field(default_factory=lambda: bytearray(24))
    strings: bytearray = field(default_factory=lambda: bytearray(b"\0"))
    count: int = 1

    def section(
        self, name: str, data: bytes = b"", type_: int = PROGBITS, flags: int = 0, *,
        info: int = 0, size: int | None = None,
    ) -> int:  # fmt: skip
        """Add a section and return its number."""
        self.sections.append(Section(name.encode(), type_, flags, data, info=info, size=size))
        return len(self.sections)

    def code(self, name: str, data: bytes = EXIT) -> int:
        """Add a section of instructions."""
        return self.section(name, data, flags=ALLOC | EXECUTE)

    def string(self, text: bytes) -> int:
        """Add a name of symbols and return its offset."""
        offset = len(self.strings)
        self.strings += text + b"\0"
        return offset

    def symbol(
        self, name: str | int, section: int, value: int = 0, size: int = 0, type_: int = OBJECT,
        binding: int = GLOBAL,
    ) -> int:  # fmt: skip
        """Add a symbol (its name, or the offset of one) and return its number."""
        offset = self.string(name.encode()) if isinstance(name, str) else name
        self.symbols += struct.pack("<IBBHQQ", offset, binding << 4 | type_, 0, section, value, size)
        self.count += 1
        return self.count - 1

    def relocations(self, section: int, *entries: tuple[int, int, int]) -> None:
        """Add a section of relocations (offset, type, symbol)."""
        data = b"".join(struct.pack("<QII", offset, type_, symbol) for offset, type_, symbol in entries)
        self.section(f".rel{section}", data, REL, info=section)

    def __bytes__(self) -> bytes:
        count = len(self.sections)
        tables = [
            Section(b".symtab", SYMTAB, 0, bytes(self.symbols), count + 2, 1, 24),
            Section(b".strtab", STRTAB, 0, bytes(self.strings)),
        ]
        names = bytearray(b"\0")
        body, headers = bytearray(64), bytearray(64)
        everything = [*self.sections, *tables, Section(b".shstrtab", STRTAB, 0, b"")]
        starts = [names.extend(each.name + b"\0") or len(names) - len(each.name) - 1 for each in everything]
        everything[-1].data = bytes(names)
        for each, name in zip(everything, starts, strict=True):
            if each.type == REL:
                each.link, each.entry_size = count + 1, 16
            size = len(each.data) if each.size is None else each.size
            headers += struct.pack(
                "<IIQQQQIIQQ", name, each.type, each.flags, 0, len(body), size, each.link, each.info, 8,
                each.entry_size,
            )  # fmt: skip
            body += each.data + bytes(-len(each.data) % 8)
        head = b"\x7fELF\x02\x01\x01" + bytes(9)
        body[:64] = head + struct.pack(
            "<HHIQQQIHHHHHH", 1, 247, 1, 0, 0, len(body), 0, 64, 0, 0, 64, count + 4, count + 3
        )
        return bytes(body + headers)


def btf_section(types: bytes, strings: bytes) -> bytes:
    """Return BTF of types and strings that were made elsewhere."""
    head = struct.pack("<HBBIIIII", 0xEB9F, 1, 0, 24, 0, len(types), len(types), len(strings))
    return head + types + strings


def btf_ext(functions: bytes = b"", lines: bytes = b"", relocations: bytes = b"") -> bytes:
    """Return .BTF.ext of its three parts."""
    at, ranges = 0, b""
    for part in (functions, lines, relocations):
        ranges += struct.pack("<II", at, len(part))
        at += len(part)
    return struct.pack("<HBBI", 0xEB9F, 1, 0, 32) + ranges + functions + lines + relocations
