"""Memory that is not the program's: what an environment says is behind pointers, by the kernel's rules.

    0                 USER_END            KERNEL_START             2**64
    [ the process's   )   nobody's        [ the kernel's           )

Addresses are numbers that the environment chose: no byte of this process is ever read through one. Helpers
that probe memory copy from here; a load through a pointer that the kernel gave the program reads from here,
and gives zero where nothing is (Linux: PROBE_MEM). Machine code finds the kernel's part in a table:

    table_address -> [ first row | behind the last ]   rows: start, stop, where the bytes are    8 bytes each
"""

from __future__ import annotations

import ctypes
from bisect import bisect_right
from collections.abc import Iterator, Mapping
from typing import Any

from ebpfjit.bits import U64_MASK
from ebpfjit.record import dataclass, field
from ebpfjit.runtime.memory import address_of, flat_view

USER_END, KERNEL_START = 0x7FFF_FFFF_F000, 0xFFFF_8000_0000_0000
"""Addresses on x86-64: processes have those below, the kernel those from the second on, nobody the rest."""

_HEADER_WORDS = 2


@dataclass(frozen=True, slots=True)
class Stretch:
    """Bytes that are there from an address on."""

    start: int
    view: memoryview = field(repr=False)

    @property
    def stop(self) -> int:
        """The address behind the last byte."""
        return self.start + self.view.nbytes


def stretches_of(memory: Mapping[int, Any]) -> list[Stretch]:
    """Return memory by address as stretches in order, those without a byte left out.

    Raises ValueError for bytes that are neither all a process's nor all the kernel's, and for two stretches
    that overlap; TypeError for what is no buffer.
    """
    found: list[Stretch] = []
    for address, data in sorted(memory.items()):
        stretch = Stretch(int(address), flat_view(data))
        if not stretch.view.nbytes:
            continue
        is_process = stretch.start >= 0 and stretch.stop <= USER_END
        if not is_process and not (stretch.start >= KERNEL_START and stretch.stop <= U64_MASK):
            raise ValueError(
                f"memory: {stretch.view.nbytes} bytes at {address:#x}: a process has memory below"
                f" {USER_END:#x}, the kernel from {KERNEL_START:#x} to {U64_MASK - 1:#x}, nobody elsewhere"
            )
        if found and found[-1].stop > stretch.start:
            raise ValueError(
                f"memory: the bytes at {stretch.start:#x} overlap those from {found[-1].start:#x} to"
                f" {found[-1].stop:#x}; give each byte once"
            )
        found.append(stretch)
    return found


class _Stretches:
    """Stretches that are found by address."""

    def __init__(self, stretches: list[Stretch]) -> None:
        self.all = stretches
        self._starts = [stretch.start for stretch in stretches]

    def at(self, address: int) -> Stretch | None:
        """Return the one that holds the byte at an address."""
        index = bisect_right(self._starts, address) - 1
        found = self.all[index] if index >= 0 else None
        return found if found is not None and address < found.stop else None

    def pieces(self, address: int, size: int) -> Iterator[memoryview]:
        """Yield the bytes from an address on, at most `size`, up to the first that is missing."""
        while size > 0 and (found := self.at(address)) is not None:
            offset = address - found.start
            piece = found.view[offset : offset + size]
            yield piece
            address, size = address + len(piece), size - len(piece)


class ForeignMemory:
    """Memory by address. The kernel's is read-only to programs, a process's as its buffers are.

    `paths` are texts that bpf_d_path gives, by the address of a struct path, `packets` where the bytes of a
    packet are and how many, by the address of its struct sk_buff or xdp_buff.
    Raises as `stretches_of`.
    """

    def __init__(
        self,
        memory: Mapping[int, Any] | None = None,
        paths: Mapping[int, str] | None = None,
        packets: Mapping[int, tuple[int, int]] | None = None,
    ) -> None:
        stretches = stretches_of(memory or {})
        self._process = _Stretches([each for each in stretches if each.start < USER_END])
        self._kernel = _Stretches(_joined([each for each in stretches if each.start >= KERNEL_START]))
        self.paths = dict(paths or {})
        self.packets = dict(packets or {})
        words = [w for row in self._kernel.all for w in (row.start, row.stop, address_of(row.view))]
        self._table = (ctypes.c_uint64 * (_HEADER_WORDS + len(words)))()
        first = ctypes.addressof(self._table) + 8 * _HEADER_WORDS
        self._table[:] = [first, first + 8 * len(words), *words]

    @property
    def table_address(self) -> int:
        """The address of the table of the kernel's part; it is good as long as this object."""
        return ctypes.addressof(self._table)

    def _pieces(self, address: int, size: int) -> Iterator[memoryview]:
        return (self._process if address < USER_END else self._kernel).pieces(address, size)

    def read(self, address: int, size: int) -> bytes | None:
        """Return the bytes there, None where one of them is missing."""
        data = b"".join(self._pieces(address, size))
        return data if len(data) == size else None

    def string(self, address: int, limit: int) -> bytes | None:
        """Return the bytes up to a zero byte, left out, at most `limit`; None where one is missing."""
        head = bytearray()
        for piece in self._pieces(address, limit):
            text, zero, _ = bytes(piece).partition(b"\0")
            head += text
            if zero:
                return bytes(head)
        return bytes(head) if len(head) == limit else None

    def write(self, address: int, data: bytes) -> bool:
        """Write to a process's memory; False where it is read-only or not there: nothing is written then."""
        pieces = list(self._process.pieces(address, len(data)))
        if sum(map(len, pieces)) < len(data) or any(piece.readonly for piece in pieces):
            return False
        done = 0
        for piece in pieces:
            piece[:] = data[done : done + len(piece)]
            done += len(piece)
        return True

    def load(self, address: int, size: int) -> int:
        """Return what a load through a pointer of the kernel's gives: zero where the kernel has nothing."""
        data = self.read(address, size) if address >= KERNEL_START else None
        return int.from_bytes(data or b"", "little")


def _joined(stretches: list[Stretch]) -> list[Stretch]:
    """Join those that touch, as a copy of them: what is loaded at once may lie in two."""
    groups: list[list[Stretch]] = []
    for stretch in stretches:
        if groups and groups[-1][-1].stop == stretch.start:
            groups[-1].append(stretch)
        else:
            groups.append([stretch])
    return [
        group[0] if len(group) == 1 else Stretch(group[0].start, memoryview(b"".join(s.view for s in group)))
        for group in groups
    ]


NOTHING = ForeignMemory()
"""That of an environment that says nothing."""
