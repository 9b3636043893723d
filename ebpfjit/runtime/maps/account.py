"""How much memory all maps of the process may have together; asked before a map gets any.

A map's memory costs nothing before it is touched, but a program touches it all in a moment. What is not
set by `set_map_memory_limit` follows from the machine, and from the limits that the process has.
"""

from __future__ import annotations

import gc
import os
import weakref
from collections import deque
from typing import Any

from ebpfjit.once import ForkLock

MOST_BY_DEFAULT = 4 << 30
MAX_MAPS = 1 << 14
"""Each map is a mapping, or two; a process may have 65,530 of them (vm.max_map_count), for all it does."""


class Account:
    """What maps have: `used` bytes in `count` mappings; at most `limit` bytes, None for the default."""

    def __init__(self) -> None:
        self.limit: int | None = None
        self._used = self._count = 0
        self._released: deque[tuple[int, int]] = deque()
        self._lock = ForkLock()  # a signal handler may make a map while one is made

    @property
    def used(self) -> int:
        """Bytes that maps have now."""
        with self._lock.held:
            self._settle()
            return self._used

    @property
    def count(self) -> int:
        """How many mappings they have now."""
        with self._lock.held:
            self._settle()
            return self._count

    def refusal(self, size: int, mappings: int = 1) -> str:
        """Return why there are no `size` bytes for one more map, "" where there are: then they are taken.

        A map that grows in the mapping that it has takes 0 `mappings`.
        """
        reason = self._take(size, mappings)
        if reason:
            gc.collect()  # maps that nobody has any more, but for each other
            reason = self._take(size, mappings)
        return reason

    def _take(self, size: int, mappings: int) -> str:
        with self._lock.held:
            self._settle()
            limit = self.limit if self.limit is not None else default_limit()
            if mappings and self._count >= MAX_MAPS:
                return f"there are {self._count} maps already, which is the most"
            if self._used + size > limit:
                return f"maps may have {limit} bytes together, and have {self._used}"
            self._used += size
            self._count += mappings
            return ""

    def _settle(self) -> None:
        while self._released:
            size, mappings = self._released.popleft()
            self._used -= size
            self._count -= mappings

    def give_back(self, size: int, mappings: int = 1) -> None:
        """Note that a map's memory is gone. Takes no lock: it is called by the garbage collector."""
        self._released.append((size, mappings))

    def give_back_with(self, memory: Any, size: int) -> None:
        """Give back as soon as nobody has `memory` any more."""
        weakref.finalize(memory, self.give_back, size).atexit = False


account = Account()


def default_limit() -> int:
    """Return half of the machine's memory or 4 GiB, or a quarter of what the process is limited to."""
    import resource

    limits = [MOST_BY_DEFAULT, os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2]
    for kind in (resource.RLIMIT_AS, resource.RLIMIT_DATA):
        soft = resource.getrlimit(kind)[0]
        if soft != resource.RLIM_INFINITY:
            limits.append(soft // 4)
    return min(limits)


def set_map_memory_limit(size: int | None) -> None:
    """Let all maps of the process have `size` bytes together; None for the default.

    The default is half of the machine's memory, at most 4 GiB, and at most a quarter of the process's
    RLIMIT_AS and RLIMIT_DATA. A map that would be too much is refused as the kernel does (MapRefused,
    ENOMEM); maps that are there stay. Raises ValueError for a negative size.
    """
    if size is not None and size < 0:
        raise ValueError(f"a limit of {size} bytes; it is 0 or more, or None for the default")
    account.limit = size
