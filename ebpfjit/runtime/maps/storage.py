"""Zeroed memory for one map, which costs nothing before it is touched; and the areas it is cut into."""

from __future__ import annotations

import ctypes
import errno
import mmap
from typing import Any

from ebpfjit.errors import MapRefused
from ebpfjit.once import ForkLock
from ebpfjit.runtime.maps.account import account
from ebpfjit.runtime.maps.definition import MapDefinition
from ebpfjit.runtime.memory import Region

ALIGNMENT = 64

changing = ForkLock(waits_at_fork=True)
"""Held while Python changes what keeps a map in order; one for all maps, as Python's own lock is."""


class _FixedRegion(Region):
    """A region that stays as it is: programs reach what it says."""

    __slots__ = ()

    def __setattr__(self, name: str, value: Any) -> None:
        raise AttributeError(f"{name} of a map's memory cannot be changed")

    def __delattr__(self, name: str) -> None:
        raise AttributeError(f"{name} of a map's memory cannot be deleted")


class Storage:
    """Anonymous memory, cut into areas one after the other, each at a multiple of 64 bytes.

    `offsets` are where the areas start, `memory` all of it as an mmap, `address` where it starts,
    `pin` what keeps it mapped.
    It is unmapped when the last reference is gone. Raises MapRefused where there is not so much memory,
    or all maps together may not have so much (`ebpfjit.runtime.maps.account`).
    """

    def __init__(self, definition: MapDefinition, *sizes: int) -> None:
        self.offsets: list[int] = []
        end = 0
        for size in sizes:
            self.offsets.append(end)
            end += -(-size // ALIGNMENT) * ALIGNMENT
        self.memory = _map(definition, max(end, 1))
        self.view = memoryview(self.memory)
        self.pin = ctypes.c_char.from_buffer(self.memory)
        self.address = ctypes.addressof(self.pin)

    def read(self, offset: int, size: int) -> bytes:
        """Return `size` bytes at `offset`."""
        return self.memory[offset : offset + size]

    def write(self, offset: int, data: bytes) -> None:
        """Write `data` at `offset`."""
        self.memory[offset : offset + len(data)] = data

    def pages(self, start: int) -> dict[int, bytes]:
        """Return what is not zero behind `start`, page by page."""
        size, zero = mmap.PAGESIZE, bytes(mmap.PAGESIZE)
        found = {}
        for at in range(start, len(self.memory), size):
            page = self.read(at, size)
            if page != zero[: len(page)]:
                found[at] = page
        return found

    def put(self, pages: dict[int, bytes]) -> None:
        """Write what `pages` returned."""
        for offset, page in pages.items():
            self.write(offset, page)

    def words(self, offset: int, count: int) -> memoryview:
        """Return `count` u32 at `offset` as something to index."""
        return self.view[offset : offset + 4 * count].cast("I")

    def region(self, name: str, offset: int, size: int, *, writable: bool) -> Region:
        """Return an area as memory that programs may touch."""
        view = self.view[offset : offset + size]
        start = self.address + offset
        region = Region(name, start, start + size, writable, view)
        region.__class__ = _FixedRegion
        return region


def _map(definition: MapDefinition, size: int) -> mmap.mmap:
    """Return `size` bytes of zeroed memory, which the account of all maps pays for."""
    size = -(-size // mmap.PAGESIZE) * mmap.PAGESIZE
    reason = account.refusal(size)
    if reason:
        raise _refusal(definition, size, f"{reason}; see set_map_memory_limit")
    try:
        memory = mmap.mmap(
            -1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS, prot=mmap.PROT_READ | mmap.PROT_WRITE
        )
    except (OSError, OverflowError, ValueError, MemoryError):
        account.give_back(size)
        raise _refusal(definition, size, "the system has no such memory") from None
    account.give_back_with(memory, size)
    return memory


def _refusal(definition: MapDefinition, size: int, reason: str) -> MapRefused:
    return MapRefused(
        f"{definition}: there are no {size} bytes for {definition.max_entries} entries: {reason}; make"
        " max_entries smaller (ENOMEM)",
        errno.ENOMEM,
    )
