"""Memory that is used again when nobody has a view of it any more."""

from __future__ import annotations

MOST_KEPT = 3
"""How much is held at a time: the batch before is seldom gone when the next one is read."""


class Spare:
    """Byte arrays of up to `largest` bytes, which are lent again once they are free.

    New memory would be cleared, page by page, before it is written to: that takes as long as reading a file.
    """

    def __init__(self, largest: int) -> None:
        self._largest = largest
        self._kept: list[bytearray] = []

    def take(self, size: int) -> bytearray:
        """Return memory of so many bytes or more, with whatever is in it."""
        for data in self._kept:
            if len(data) >= size and _is_free(data):
                return data
        made = bytearray(size)
        if size <= self._largest:
            self._kept = [*self._kept[1 - MOST_KEPT :], made]
        return made


def _is_free(data: bytearray) -> bool:
    """True where nothing has a view of a bytearray: it could be given another size."""
    try:
        data.append(data.pop())
    except BufferError:
        return False
    return True
