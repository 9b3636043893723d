"""BTF for programs for verdicts: what Linux wants to know of global functions, and of maps with locks.

TYPES is one small BTF for all of them; what is in it is named here by its id.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping

from ebpfjit.elf.btf import HEADER, MAGIC, Kind

_GLOBAL = 1
"""BTF_FUNC_GLOBAL; static functions have 0."""


class Writer:
    """Types one after the other; each method returns the id of what it adds."""

    def __init__(self) -> None:
        self.types = bytearray()
        self.strings = bytearray(b"\0")
        self.count = 0

    def text(self, name: str) -> int:
        """Add a name; return where it is."""
        at = len(self.strings)
        self.strings += name.encode() + b"\0"
        return at if name else 0

    def add(self, name: str, kind: Kind, count: int, size_or_type: int, *rest: int) -> int:
        """Add a type: the words of struct btf_type, and those that follow."""
        self.types += struct.pack(
            f"<III{len(rest)}I", self.text(name), kind << 24 | count, size_or_type, *rest
        )
        self.count += 1
        return self.count

    def integer(self, name: str, size: int, *, is_signed: bool = False) -> int:
        """Add an integer of so many bytes."""
        return self.add(name, Kind.INT, 0, size, is_signed << 24 | 8 * size)

    def struct(self, name: str, size: int, *members: tuple[str, int, int]) -> int:
        """Add a struct; members are name, type, offset in bytes."""
        words = [word for member, type_, at in members for word in (self.text(member), type_, 8 * at)]
        return self.add(name, Kind.STRUCT, len(members), size, *words)

    def function(self, name: str, returned: int, *parameters: int, linkage: int = _GLOBAL) -> int:
        """Add a function and its prototype: the types of what it returns, and takes."""
        words = [word for index, type_ in enumerate(parameters) for word in (self.text(f"p{index}"), type_)]
        prototype = self.add("", Kind.FUNC_PROTO, len(parameters), returned, *words)
        return self.add(name, Kind.FUNC, linkage, prototype)

    def to_bytes(self) -> bytes:
        """Return it all as a BTF file has it."""
        header = HEADER.pack(MAGIC, 1, 0, HEADER.size, 0, len(self.types), len(self.types), len(self.strings))
        return header + bytes(self.types) + bytes(self.strings)


_w = Writer()
_INT = _w.integer("int", 4, is_signed=True)
_U32 = _w.integer("unsigned int", 4)
_U64 = _w.integer("unsigned long long", 8)
_LOCK = _w.struct("bpf_spin_lock", 4, ("val", _U32, 0))
LOCKED_VALUE = _w.struct("locked_value", 16, ("lock", _LOCK, 0), ("count", _U32, 4), ("total", _U64, 8))
_TIMER = _w.struct("bpf_timer", 16, ("a", _U64, 0), ("b", _U64, 8))
TIMED_VALUE = _w.struct("timed_value", 32, ("timer", _TIMER, 0), ("count", _U64, 16), ("total", _U64, 24))
_PAIR = _w.struct("pair", 16, ("first", _U64, 0), ("second", _U64, 8))
_POINTER, _TO_PAIR, _TO_U32 = (_w.add("", Kind.PTR, 0, each) for each in (0, _PAIR, _U32))
_CONTEXTS = {
    name: _w.add("", Kind.PTR, 0, _w.struct(name, 4, ("first", _U32, 0))) for name in ("xdp_md", "__sk_buff")
}

GLOBALS: Mapping[str, int] = {
    "g_number": _w.function("g_number", _INT, _U64),
    "g_two": _w.function("g_two", _INT, _U64, _U32),
    "g_word": _w.function("g_word", _INT, _TO_U32),
    "g_pair": _w.function("g_pair", _INT, _TO_PAIR),
    "g_xdp": _w.function("g_xdp", _INT, _CONTEXTS["xdp_md"]),
    "g_skb": _w.function("g_skb", _INT, _CONTEXTS["__sk_buff"]),
    "g_void": _w.function("g_void", 0, _U64),
}
"""Global functions by name, with their ids: g_two(u64, u32), g_word(u32 *), g_pair(struct pair *), ..."""

STATIC = _w.function("f_static", _INT, linkage=0)
"""A static function, which says nothing."""

MAIN = _w.function("f_main", _INT, _POINTER, linkage=0)

TYPES = _w.to_bytes()
