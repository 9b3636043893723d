"""A program as an object file for Linux: one section of instructions, a symbol, a license; no compiler
needed.

ELF header | code | license | .strtab | .symtab | .shstrtab | section headers
"""

from __future__ import annotations

import struct

from ebpfjit.errors import TranslationError
from ebpfjit.program import Program

_HEADER = struct.Struct("<16sHHIQQQIHHHHHH")
_SECTION = struct.Struct("<IIQQQQIIQQ")
_SYMBOL = struct.Struct("<IBBHQQ")
_REL, _EM_BPF, _CURRENT = 1, 247, 1
_PROGBITS, _SYMTAB, _STRTAB = 1, 2, 3
_ALLOC, _EXEC, _WRITE = 2, 4, 1
_GLOBAL_FUNCTION = 1 << 4 | 2
_REFERRING = frozenset(
    {"LDDW_MAP_FD", "LDDW_MAP_VALUE", "LDDW_VARIABLE", "LDDW_MAP_IDX", "LDDW_MAP_IDX_VALUE", "CALL_KFUNC"}
)
"""Operations that say what they refer to by relocations, of which such a file has none."""


def to_object(program: Program, section: str, *, license: str = "GPL") -> bytes:
    """Return an object with a program that refers to nothing, in a section that says its type ("xdp").

    `license` is what the object says: Linux keeps some helpers for programs under the GPL.

    Raises TranslationError for a program that refers to maps, variables or kernel functions, ValueError
    for a zero byte in a name, and TypeError for what is no Program or no text.
    """
    if not isinstance(program, Program):
        raise TypeError(f"an object is made of a Program, not of type {type(program).__name__}")
    name = program.name or "filter"
    for text in (name, section, license):
        if not isinstance(text, str):
            raise TypeError(f"a section and a license are text, not of type {type(text).__name__}")
        if "\0" in text:
            raise ValueError(f"{text!r} has a zero byte, with which names end")
    for insn in program.instructions:
        if insn.pc in program.references or (insn.row is not None and insn.row.operation in _REFERRING):
            what = "the program refers to a map, a variable or a kernel function"
            raise TranslationError(f"pc {insn.pc}: {what}, which takes relocations")
    sections: list[tuple[str, int, int, bytes, int, int, int]] = [
        ("", 0, 0, b"", 0, 0, 0),
        (section, _PROGBITS, _ALLOC | _EXEC, program.code, 0, 0, 0),
        ("license", _PROGBITS, _ALLOC | _WRITE, license.encode() + b"\0", 0, 0, 0),
        (".strtab", _STRTAB, 0, b"\0" + name.encode() + b"\0", 0, 0, 0),
    ]
    symbols = bytes(_SYMBOL.size) + _SYMBOL.pack(1, _GLOBAL_FUNCTION, 0, 1, 0, len(program.code))
    sections.append((".symtab", _SYMTAB, 0, symbols, 3, 1, _SYMBOL.size))
    names = b"\0"
    places = []
    for each in (*(one[0] for one in sections), ".shstrtab"):
        places.append(len(names) if each else 0)
        names += each.encode() + b"\0" if each else b""
    sections.append((".shstrtab", _STRTAB, 0, names, 0, 0, 0))
    body, headers = b"", []
    for place, (_, kind, flags, data, link, info, entry) in zip(places, sections, strict=True):
        body += bytes(-len(body) % 8)
        at = _HEADER.size + len(body) if kind else 0
        align = 8 if kind else 0
        headers.append(_SECTION.pack(place, kind, flags, 0, at, len(data), link, info, align, entry))
        body += data
    body += bytes(-len(body) % 8)
    ident = b"\x7fELF" + bytes((2, 1, _CURRENT)) + bytes(9)
    header = _HEADER.pack(
        ident, _REL, _EM_BPF, _CURRENT, 0, 0, _HEADER.size + len(body), 0, _HEADER.size, 0, 0, _SECTION.size,
        len(sections), len(sections) - 1,
    )  # fmt: skip
    return header + body + b"".join(headers)
