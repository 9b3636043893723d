r"""Which blocks every way from outside to a block leads through; for n blocks that takes n log n steps.

    entry -> b0 -> b1 -> b3       b0 dominates b1, b2 and b3; b3 is dominated by b0 only
               \-> b2 -> b3

Blocks are taken in reverse postorder, where all that leads to a block but ways back comes before it; the
dominator of several ways is where their chains of dominators meet (Cooper, Harvey and Kennedy, "A Simple,
Fast Dominance Algorithm", 2001), found by pointers that skip (Myers, "An Applicative Random-Access Stack",
1983).
A way back into a block that does not dominate where it comes from is one into the middle of a loop: such
blocks count as entered from outside, which claims less than there is.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import reduce

from ebpfjit.optimizer.shape import Shape

OUTSIDE = -1
"""What dominates blocks that are entered."""

MOST_WALKS = 4
"""So often loops are looked at for ways into their middle; then all that is jumped back to counts as such."""


class Dominators:
    """The tree of dominators.

    By block: `order` has those that control comes to in reverse postorder, `place` their place in it (-1:
    nothing comes there), `idom` the nearest dominator of each, `children` the blocks that it is that of, in
    order. `preds` has for each block the ways to it: (block, which of its ways). `entered` are the blocks
    that are entered from outside, by default all that the shape has.
    """

    def __init__(self, shape: Shape, entered: Iterable[int] | None = None) -> None:
        count = len(shape.ways)
        self.ways = shape.ways
        self.entered = set(shape.entered if entered is None else entered)
        starts = sorted(self.entered)
        if starts != shape.entered:
            shape = Shape(shape.ways, starts)
        self.order, self.place = shape.order, shape.place
        self.preds: list[list[tuple[int, int]]] = [[] for _ in range(count)]
        for number in self.order:
            for index, way in enumerate(self.ways[number]):
                self.preds[way].append((number, index))
        self.idom = [OUTSIDE] * count
        self._find(count)
        self.children: list[list[int]] = [[] for _ in range(count)]
        self.roots: list[int] = []
        for number in self.order:
            dominator = self.idom[number]
            (self.children[dominator] if dominator >= 0 else self.roots).append(number)
        self._first, self._last = self._numbered(count)

    def dominates(self, block: int, other: int) -> bool:
        """True where every way to the other block leads through this one, or they are one."""
        return self._first[block] <= self._first[other] <= self._last[block]

    def common(self, blocks: Iterable[int]) -> int:
        """Return the nearest block that dominates all of some, OUTSIDE where there is none."""
        return reduce(self._meet, blocks)

    def is_back(self, block: int, to: int) -> bool:
        """True for a way that goes back, in reverse postorder, or to the block itself."""
        return self.place[to] <= self.place[block]

    def _find(self, count: int) -> None:
        place, ways = self.place, self.ways
        back = [(number, way) for number in self.order for way in ways[number] if place[way] <= place[number]]
        outside = self.entered
        for walk in range(MOST_WALKS):
            self._walk(count, outside)
            middles = {way for number, way in back if way not in outside and not self._is_above(way, number)}
            if not middles:
                return
            outside = outside | (middles if walk < MOST_WALKS - 2 else {way for _, way in back})

    def _walk(self, count: int, outside: set[int]) -> None:
        """Give each block its dominator, as if nothing but these went back to anywhere."""
        idom, place = self.idom, self.place
        depth, skip = [0] * (count + 1), [OUTSIDE] * (count + 1)  # the last is OUTSIDE
        self.depth, self.skip = depth, skip
        preds = self.preds
        for number in self.order:
            before = preds[number]
            if number in outside:
                dominator = OUTSIDE
            elif len(before) == 1:
                dominator = before[0][0]
            else:
                here, dominator = place[number], OUTSIDE
                for block, _ in before:
                    if place[block] < here and block != dominator:
                        dominator = block if dominator < 0 else self._meet(dominator, block)
                        if dominator < 0:
                            break
            idom[number] = dominator
            depth[number] = depth[dominator] + 1
            further = skip[dominator]
            near = depth[dominator] - depth[further] == depth[further] - depth[skip[further]]
            skip[number] = skip[further] if near and dominator >= 0 else dominator

    def _meet(self, a: int, b: int) -> int:
        """Return the nearest block that dominates both."""
        idom, depth, skip = self.idom, self.depth, self.skip
        if depth[a] < depth[b]:
            a, b = b, a
        least = depth[b]
        while depth[a] > least:
            a = skip[a] if depth[skip[a]] >= least else idom[a]
        while a != b:
            if skip[a] != skip[b]:
                a, b = skip[a], skip[b]
            else:
                a, b = idom[a], idom[b]
        return a

    def _is_above(self, block: int, other: int) -> bool:
        depth, skip, least = self.depth, self.skip, self.depth[block]
        while depth[other] > least:
            other = skip[other] if depth[skip[other]] >= least else self.idom[other]
        return other == block

    def _numbered(self, count: int) -> tuple[list[int], list[int]]:
        """Return, by block, its number in a walk down the tree and the last number below it."""
        first, last = [count] * count, [-1] * count
        number = 0
        waiting = [~root for root in self.roots]
        while waiting:
            block = waiting.pop()
            if block >= 0:
                last[block] = number - 1
                continue
            first[~block] = number
            number += 1
            waiting.append(~block)
            waiting += [~child for child in self.children[~block]]
        return first, last
