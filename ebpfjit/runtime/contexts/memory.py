"""Memory below 4 GiB for a context and its packet: contexts hold packet addresses of 32 bits.

    0          512                              data                 data_end
    [ context ][ headroom, metadata at its end ][ packet ............][ tailroom ]

One mapping a run, kept by its thread for the next one: making one costs more than running a program.
"""

from __future__ import annotations

import mmap
import threading
from dataclasses import dataclass, field

from ebpfjit.errors import ExecutionError
from ebpfjit.runtime.memory import Region, address_of

CONTEXT_ROOM = 512
"""Bytes for the context's struct, and what else it points to, before the frame of the packet."""

SMALLEST = 1 << 16
LARGEST_PACKET = 1 << 24

_MAP_32BIT = 0x40
_KEPT = 4


@dataclass(slots=True)
class LowMemory:
    """A zeroed mapping below 4 GiB; `start` is its address, `view` its bytes."""

    size: int
    start: int = 0
    view: memoryview = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self.view = memoryview(_map(self.size))
        self.start = address_of(self.view)
        if self.start + self.size > 1 << 32:
            raise ExecutionError(
                "contexts hold packet addresses of 32 bits, and there is no memory below 4 GiB "
                "to be had here (mmap with MAP_32BIT)"
            )

    def region(self, name: str, start: int, stop: int, *, writable: bool) -> Region:
        """Return a region over the bytes from `start` to `stop`, counted from the mapping's first."""
        return Region(name, self.start + start, self.start + stop, writable, self.view[start:stop])


def _map(size: int) -> mmap.mmap:
    try:
        return mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | _MAP_32BIT)
    except OSError as error:
        raise ExecutionError(
            f"no {size} bytes of memory below 4 GiB for a packet: {error.strerror}"
        ) from error


_pool = threading.local()


def take(size: int) -> LowMemory:
    """Return a mapping of at least `size` bytes, one this thread has kept where it can.

    What an earlier run left is still in it. Raises ExecutionError where there is none to be had.
    """
    kept: list[LowMemory] = _pool.__dict__.setdefault("kept", [])
    if kept and kept[-1].size >= size:
        return kept.pop()
    rounded = SMALLEST
    while rounded < size:
        rounded *= 2
    return LowMemory(rounded)


def give_back(memory: LowMemory) -> None:
    """Let the next run of this thread have the mapping."""
    kept: list[LowMemory] = _pool.__dict__.setdefault("kept", [])
    if memory.size <= SMALLEST * 4 and len(kept) < _KEPT:
        kept.append(memory)
