"""The shape of code: which blocks lead to which, whatever they hold. Worked out once, as long as that stays.

b0 -> b1, b2        ways    [[1, 2], [1, 2], []]
b1 -> b1, b2        order   [0, 1, 2]                   reverse postorder
                    before  [[-1], [0, 1], [0, 1]]      -1: from outside
                    depths  [0, 1, 0], headers {1}      loops
"""

from __future__ import annotations

from collections.abc import Sequence

from ebpfjit.record import lazy

MOST_WORK = 64
"""Blocks that are looked at for loops, for each block there is: beyond that loops count as none."""


class Shape:
    """Blocks by number: `ways` are those behind each, once for each way; `entered` those that are entered."""

    def __init__(self, ways: list[list[int]], entered: list[int]) -> None:
        self.ways, self.entered = ways, entered
        self.is_deep = False
        """Whether loops were so deep in each other that some count as none; known with `loops`."""

    @lazy
    def order(self) -> list[int]:
        """The blocks that control may come to, each behind those that dominate it."""
        return reverse_postorder(self.ways, self.entered)

    @lazy
    def before(self) -> list[list[int]]:
        """For each block those that lead to it, once for each way; -1 for those that are entered."""
        found: list[list[int]] = [[] for _ in self.ways]
        for number, ways in enumerate(self.ways):
            for way in ways:
                found[way].append(number)
        for number in self.entered:
            found[number].append(-1)
        return found

    @lazy
    def place(self) -> list[int]:
        """By block its place in the order, -1 where control does not come to it; so is what is behind all."""
        place = [-1] * (len(self.ways) + 1)
        for index, number in enumerate(self.order):
            place[number] = index
        return place

    @lazy
    def loops(self) -> tuple[list[int], set[int]]:
        """In how many loops each block lies, and the blocks that loops start with."""
        ways, place, before = self.ways, self.place, self.before
        depths = [0] * len(ways)
        back: dict[int, list[int]] = {}
        for index, number in enumerate(self.order):
            for way in ways[number]:
                if place[way] <= index:
                    back.setdefault(way, []).append(number)
        work = MOST_WORK * len(self.order)
        for header, sources in back.items():
            inside, waiting, first = {header}, [*sources], place[header]
            while waiting and work > 0:
                number = waiting.pop()
                if place[number] > first and number not in inside:
                    inside.add(number)
                    work -= 1
                    waiting += before[number]
            for number in inside:
                depths[number] += 1
        self.is_deep = work <= 0
        return depths, set(back)

    def renumbered(self, numbers: Sequence[int]) -> Shape:
        """Return the shape without blocks that control does not come to; `numbers` has -1 for these.

        What was worked out is so of the others as well.
        """
        kept = [number for number, new in enumerate(numbers) if new >= 0]
        ways = [[numbers[way] for way in self.ways[number]] for number in kept]
        found, known = Shape(ways, [numbers[number] for number in self.entered]), self.__dict__
        if "order" in known:
            found.__dict__["order"] = [numbers[number] for number in self.order]
        if "loops" in known:
            depths, headers = self.loops
            loops = [depths[number] for number in kept], {numbers[number] for number in headers}
            found.__dict__["loops"], found.is_deep = loops, self.is_deep
        return found

    def inside(self, header: int, most: int) -> set[int]:
        """Return the blocks of a loop: those that lead back to its header, without it, in any way.

        Of a loop of more than `most` blocks these are more than that, and not all.
        """
        place, before = self.place, self.before
        found, waiting = {header}, [each for each in before[header] if place[each] >= place[header]]
        while waiting and len(found) <= most:
            number = waiting.pop()
            if number not in found and place[number] >= 0:
                found.add(number)
                waiting += before[number]
        return found

    @property
    def depths(self) -> list[int]:
        """In how many loops each block lies."""
        return self.loops[0]

    @property
    def headers(self) -> set[int]:
        """The blocks that loops start with."""
        return self.loops[1]


def reverse_postorder(ways: Sequence[Sequence[int]], entered: Sequence[int]) -> list[int]:
    """Return the blocks that control may come to from those that are entered, in reverse postorder."""
    is_found = [False] * len(ways)
    order: list[int] = []
    for start in entered:
        waiting = [start]
        while waiting:
            number = waiting.pop()
            if number < 0:
                order.append(~number)
            elif not is_found[number]:
                is_found[number] = True
                waiting.append(~number)
                for way in ways[number]:
                    if not is_found[way]:
                        waiting.append(way)
    order.reverse()
    return order
