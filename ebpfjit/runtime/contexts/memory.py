"""Memory below 4 GiB, for contexts and packets: contexts hold packet addresses of 32 bits."""

from __future__ import annotations

import mmap

from ebpfjit.errors import ExecutionError
from ebpfjit.runtime.memory import Region, address_of

_MAP_32BIT = 0x40


class LowMemory:
    """A zeroed mapping of `size` bytes below 4 GiB; `start` is its address, `view` its bytes.

    Raises ExecutionError where there is none to be had.
    """

    def __init__(self, size: int) -> None:
        self.size = size
        self.view = memoryview(mapped(size))
        self.start = address_of(self.view)
        if self.start + size > 1 << 32:
            raise ExecutionError(
                "contexts hold packet addresses of 32 bits, and mmap (MAP_32BIT) gives no memory "
                "below 4 GiB here"
            )

    def region(self, name: str, start: int, stop: int, *, writable: bool) -> Region:
        """Return a region over the bytes from `start` to `stop`, counted from the mapping's first."""
        return Region(name, self.start + start, self.start + stop, writable, self.view[start:stop])


def mapped(size: int) -> mmap.mmap:
    """Return zeroed memory below 4 GiB. Raises ExecutionError."""
    try:
        return mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | _MAP_32BIT)
    except OSError as error:
        raise ExecutionError(f"no {size} bytes below 4 GiB for a packet: {error.strerror}") from error
