"""What programs may do to a struct that they get from the kernel: a byte for each offset in it.

    bit    0   1   2   3     4   5   6   7
           loads of          stores of          1, 2, 4 or 8 bytes that start there

Both engines look there: the interpreter and Python by `Rights.allows`, machine code in the row of the region
(`translators/x86_64/checks.py`), and where it is compiled, for accesses whose offset it knows.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterable
from typing import Any

from ebpfjit.record import dataclass, field

SIZES = (1, 2, 4, 8)
STORES_SHIFT = 4
PACKET_POINTERS = ("data", "data_end", "data_meta")
"""The fields of contexts that point into the packet."""


@dataclass(frozen=True, slots=True, eq=False)
class Rights:
    """The rights of a struct called `name`; `fields` are names with the bytes where they start and end.

    `whose` says of what programs these are, for the faults: "this type".
    """

    name: str
    table: bytes
    fields: tuple[tuple[str, int, int], ...]
    whose: str = "this type"
    address: int = field(init=False)
    _memory: Any = field(init=False, repr=False)

    def __post_init__(self) -> None:
        """Put the table where it stays: machine code has its `address`."""
        memory = (ctypes.c_ubyte * len(self.table)).from_buffer_copy(self.table)
        object.__setattr__(self, "_memory", memory)
        object.__setattr__(self, "address", ctypes.addressof(memory))

    def allows(self, offset: int, size: int, *, store: bool) -> bool:
        """True where programs may load, or store, `size` bytes at an offset of the struct."""
        if size not in SIZES or not 0 <= offset < len(self.table):
            return False
        return bool(self.table[offset] >> (STORES_SHIFT if store else 0) & size)

    def refusal(self, offset: int, size: int, access: str) -> str:
        """Word why an access inside of the struct is none that programs may do."""
        name, start, stop = next(
            (field for field in self.fields if field[1] <= offset < field[2]), ("", offset, offset + size)
        )
        if not name:
            return f"{self.name} has no field at offset {offset}"
        name = f"{self.name}.{name}"
        loads, stores = self._sizes(start, stop, 0), self._sizes(start, stop, STORES_SHIFT)
        if not loads and not stores:
            return f"{name} is not for programs of {self.whose} (invalid bpf_context access)"
        if access != "load" and not stores:
            return f"{name} is read-only"
        sizes = " or ".join(map(str, loads if access == "load" else stores))
        return (
            f"{name} is at offset {start}, and Linux takes a {access} of {sizes} bytes of it, at a multiple "
            f"of their number, not of {size} at offset {offset} (invalid bpf_context access)"
        )

    def _sizes(self, start: int, stop: int, shift: int) -> list[int]:
        """Return which sizes accesses to some bytes may have."""
        return [size for size in SIZES if any(bits >> shift & size for bits in self.table[start:stop])]


def table_of(size: int, allowed: Iterable[tuple[int, int, bool]]) -> bytes:
    """Return the table of a struct of `size` bytes from its accesses: offset, size, whether they store."""
    table = bytearray(size)
    for offset, width, store in allowed:
        table[offset] |= width << (STORES_SHIFT if store else 0)
    return bytes(table)
