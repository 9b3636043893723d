"""How soon values are read again: what spilling goes by.

That is Belady's rule, over blocks as Braun and Hack have it ("Register Spilling and Live-Range Splitting for
SSA-Form Programs", 2009). Operations are counted on the way to the next one that reads a value. A way out of
a loop counts as FAR, and what only an exit reads as NEVER: it is needed, but never soon.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ebpfjit.optimizer.code import Code
from ebpfjit.record import lazy

FAR = 1 << 16
NEVER = 1 << 40
MOST_WALKS = 2
"""Walks over all blocks: what is read in the next round of a loop is known behind the second."""


class NextUse:
    """The distances, at the start of each block in `order`, of values that are live there.

    All is worked out when somebody asks: where there are registers for all values, nobody does.
    """

    def __init__(self, code: Code, order: Sequence[int], live: Sequence[Sequence[int]]) -> None:
        self.code, self.live, self.order = code, live, order

    @property
    def headers(self) -> set[int]:
        """The blocks that loops start with."""
        return self.code.shape.headers

    @property
    def depths(self) -> list[int]:
        """In how many loops each block lies."""
        return self.code.shape.depths

    @lazy
    def at(self) -> dict[int, dict[int, int]]:
        """The distances at the start of each block."""
        blocks = self.code.blocks
        at: dict[int, dict[int, int]] = {number: {} for number in self.order}
        first = {number: self._first(number) for number in self.order}
        for _ in range(MOST_WALKS):
            for number in reversed(self.order):
                here = self._behind(number, at)
                size = len(blocks[number].ops) + 1
                known = {value: here.get(value, NEVER) + size for value in self.live[number]}
                known.update(first[number])
                at[number] = known
        return at

    def _first(self, number: int) -> dict[int, int]:
        """Return where values are first read in a block, by the place of the operation there."""
        found: dict[int, int] = {}
        block = self.code.blocks[number]
        for index, op in enumerate(block.all_ops):
            for value in op.args:
                found.setdefault(value, index)
        return found

    def behind(self, number: int) -> dict[int, int]:
        """Return the distances at the end of a block."""
        return self._behind(number, self.at)

    def _behind(self, number: int, at: Mapping[int, dict[int, int]]) -> dict[int, int]:
        found: dict[int, int] = {}
        blocks, depths = self.code.blocks, self.depths
        for way in blocks[number].ways:
            there = at[way.block]
            if not there:
                continue  # nothing is known there yet, or nothing is live
            far = FAR if depths[way.block] < depths[number] else 0
            soon, known = there.get, found.get
            for value in self.live[way.block]:
                distance = soon(value, NEVER) + far
                if distance < known(value, NEVER):
                    found[value] = distance
            if way.args:
                for value, argument in zip(way.args, blocks[way.block].args, strict=True):
                    distance = soon(argument, NEVER) + far
                    if distance < known(value, NEVER):
                        found[value] = distance
        return found
