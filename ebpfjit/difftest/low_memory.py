"""Contexts at chosen addresses below 4 GiB: to see whether a run depends on where its packet lies.

For processes that test only.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from random import Random

from ebpfjit.difftest.arena import map_at
from ebpfjit.difftest.guards import allow, whole_pages
from ebpfjit.errors import JitUnavailable
from ebpfjit.runtime.contexts import memory, taking

SIZE = 4 << 20

PLACES = tuple(mmap.PAGESIZE * Random(number).randrange(0x1_0000, 0xF_0000) for number in range(24))
"""Addresses that have little in common."""


class _Place:
    """Zeroed memory at an address, in the place of what the operating system gives. Raises JitUnavailable."""

    def __init__(self, address: int) -> None:
        self.address = address
        self.view = map_at(address, SIZE)
        self.used = 0

    def clear(self) -> None:
        """Make all of it as new."""
        allow(self.address, SIZE)
        self.view[: self.used] = bytes(self.used)
        self.used = 0

    def give(self, size: int) -> memoryview:
        """Return the next `size` bytes. Raises JitUnavailable where all are used."""
        start, self.used = self.used, self.used + whole_pages(size)
        if self.used > SIZE:
            raise JitUnavailable(f"more than {SIZE} bytes of contexts at {self.address:#x}")
        return self.view[start : start + size]


@cache
def _place(address: int) -> _Place | None:
    try:
        return _Place(address)
    except JitUnavailable:
        return None  # something else lies there


@contextmanager
def contexts_at(address: int) -> Iterator[bool]:
    """Make contexts at an address for the length of a block; False where something else lies there."""
    place = _place(address)
    if place is None:
        yield False
        return
    usual, kept = memory.mapped, dict(vars(taking.idle))
    place.clear()
    vars(taking.idle).clear()
    memory.mapped = place.give  # type: ignore[assignment] # a buffer as well
    try:
        yield True
    finally:
        memory.mapped = usual
        vars(taking.idle).clear()
        vars(taking.idle).update(kept)
