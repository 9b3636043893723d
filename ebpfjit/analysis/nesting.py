"""Which loops there are, and what lies in them, by one walk in depth first order.

After Wei, Mao, Zou and Chen, "A New Algorithm for Identifying Loops in Decompilation" (SAS 2007): a block
that is met again while the walk is still below it is a loop's header, however the code is laid out.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from ebpfjit.record import dataclass

DEEPEST = 32
"""Loops around a block that are looked at; that keeps deep nests linear."""


@dataclass(frozen=True, slots=True)
class Nesting:
    """The loops of a program.

    `headers` are the blocks that loops are entered at, `header` is that of the innermost loop around a
    block, which for a header is the next loop outwards. What cannot be reached is in none of them.
    """

    headers: frozenset[int]
    header: dict[int, int]

    def is_in(self, block: int, header: int) -> bool:
        """True for a block of the loop of a header, for the header, and for what is too deep in others."""
        for _ in range(DEEPEST):
            if block == header:
                return True
            around = self.header.get(block)
            if around is None:
                return False
            block = around
        return True


def nesting_of(starts: Iterable[int], ways: Mapping[int, Sequence[int]]) -> Nesting:
    """Return the loops of a graph of blocks; `ways` are where each one goes on.

    `starts` are the blocks that are entered from outside.
    """
    walk = _Walk(ways)
    for start in starts:
        if start not in walk.position:
            walk.from_start(start)
    return Nesting(frozenset(walk.headers), walk.header)


class _Walk:
    """`position` is a block's place on the way from the start, 0 behind it; `header` that of its loop."""

    def __init__(self, ways: Mapping[int, Sequence[int]]) -> None:
        self.ways = ways
        self.position: dict[int, int] = {}
        self.header: dict[int, int] = {}
        self.headers: set[int] = set()

    def from_start(self, start: int) -> None:
        """Walk all blocks that can be reached."""
        path = [(start, iter(self.ways[start]))]
        self.position[start] = 1
        while path:
            block, following = path[-1]
            for way in following:
                if way not in self.position:
                    path.append((way, iter(self.ways[way])))
                    self.position[way] = len(path)
                    break
                self._meet(block, way)
            else:
                path.pop()
                self.position[block] = 0
                if path and block in self.header:
                    self._put(path[-1][0], self.header[block])

    def _meet(self, block: int, way: int) -> None:
        """Note an edge to a block that was walked before."""
        if self.position[way]:
            self.headers.add(way)
            self._put(block, way)
            return
        header = self.header.get(way)
        for _ in range(DEEPEST):
            if header is None:
                return
            if self.position[header]:
                self._put(block, header)
                return
            header = self.header.get(header)

    def _put(self, block: int, header: int) -> None:
        """Put a block into a loop, and that loop where it belongs among those around the block."""
        for _ in range(DEEPEST):
            if block == header:
                return
            around = self.header.get(block)
            if around is None:
                self.header[block] = header
                return
            if around == header:
                return
            if self.position[around] < self.position[header]:
                self.header[block], block, header = header, header, around
            else:
                block = around
