"""What objects and timers of programs may take together: of all programs of this process."""

from __future__ import annotations

from collections import deque

from ebpfjit.once import ForkLock

_counting = ForkLock()
"""Held while bytes are counted. What is given back does not wait for it, wherever garbage is collected."""

MOST_BYTES = 256 << 20


class Heap:
    """How much there is; what the garbage collector gives back is counted at the next request."""

    def __init__(self) -> None:
        self._used = 0
        self._released: deque[int] = deque()

    def take(self, size: int) -> bool:
        """Count so many bytes; False where there is no room for them."""
        with _counting.held:
            while self._released:
                self._used -= self._released.popleft()
            if self._used + size > MOST_BYTES:
                return False
            self._used += size
            return True

    def give_back(self, size: int) -> None:
        """Note that so many bytes are free again."""
        self._released.append(size)


heap = Heap()
