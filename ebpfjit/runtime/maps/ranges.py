"""Free ranges of numbers, of which the best fitting is taken: an arena's pages that are not allocated.

    free     [0..9]        [12..12]     [20..29]
    take 1                 12           the smallest that is long enough; of equal ones the last that came
    give 10, 2   [0..11]                 what touches is one range

As Linux has them (kernel/bpf/range_tree.c), so that programs get the same pages in the same order.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort


class FreeRanges:
    """The numbers from 0 to `count` - 1 that are free: all of them at first.

    `_starts` are where ranges start, in ascending order, `_last` the last number of each (inclusive).
    `_of_size` has the starts of each length in the order in which they came, `_sizes` the lengths.
    """

    def __init__(self, count: int) -> None:
        self._starts: list[int] = []
        self._last: dict[int, int] = {}
        self._of_size: dict[int, dict[int, None]] = {}
        self._sizes: list[int] = []
        self._insert(0, count - 1)

    def __len__(self) -> int:
        """How many ranges there are."""
        return len(self._starts)

    def find(self, length: int) -> int | None:
        """Return where a range starts that has room for `length`, the best there is; None for none."""
        index = bisect_left(self._sizes, length)
        if index == len(self._sizes):
            return None
        return next(reversed(self._of_size[self._sizes[index]]))

    def are_free(self, start: int, length: int) -> bool:
        """True where all of them are free."""
        index = bisect_right(self._starts, start) - 1
        return index >= 0 and self._last[self._starts[index]] >= start + length - 1

    def ranges(self) -> list[tuple[int, int]]:
        """Return the first and the last number of each range, in ascending order."""
        return [(start, self._last[start]) for start in self._starts]

    def take(self, start: int, length: int) -> None:
        """Let these be free no more, whether they were or not."""
        last = start + length - 1
        index = max(bisect_right(self._starts, start) - 1, 0)
        while index < len(self._starts) and (first := self._starts[index]) <= last:
            end = self._last[first]
            if end < start:
                index += 1
                continue
            self._remove(first)
            if first < start:
                self._insert(first, start - 1)
                index += 1
            if end > last:
                self._insert(last + 1, end)
                return

    def give(self, start: int, length: int) -> None:
        """Let these be free, whether they were or not."""
        if self.are_free(start, length):
            return
        self.take(start, length)
        last = start + length - 1
        index = bisect_left(self._starts, start)
        right = self._starts[index] if index < len(self._starts) else -1
        left = self._starts[index - 1] if index else -1
        if left >= 0 and self._last[left] == start - 1:
            self._remove(left)
            start = left
        if right == last + 1:
            last = self._last[right]
            self._remove(right)
        self._insert(start, last)

    def _insert(self, start: int, last: int) -> None:
        size = last - start + 1
        insort(self._starts, start)
        self._last[start] = last
        if size not in self._of_size:
            insort(self._sizes, size)
            self._of_size[size] = {}
        self._of_size[size][start] = None

    def _remove(self, start: int) -> None:
        size = self._last.pop(start) - start + 1
        del self._starts[bisect_left(self._starts, start)]
        starts = self._of_size[size]
        del starts[start]
        if not starts:
            del self._of_size[size]
            del self._sizes[bisect_left(self._sizes, size)]
