"""Numbers of which a multiple has room before the argument's end: a count of words, and what is below it.

    v2 = v1 >> 2             4 * v2      <= LENGTH       v1 is the length
    if v3 < v2 goto ...      4 * v3 + 4  <= LENGTH       behind it
    v4 = v3 << 2             v4 + 4      <= LENGTH       so it has room, as `Facts.limit` has it

For a root there is one factor f and one number k with f * root + k <= LENGTH, as numbers that do not wrap;
for a value that may wrap where its root does not, one of its own.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ebpfjit.bits import U64_MASK
from ebpfjit.optimizer.facts import Incoming
from ebpfjit.optimizer.intervals import Interval
from ebpfjit.record import record

if TYPE_CHECKING:
    from ebpfjit.optimizer.induction import Stepping, Test
    from ebpfjit.optimizer.ranges import Walk

LARGEST_FACTOR, LARGEST_ROOM = 1 << 16, 1 << 30

SCALING = frozenset({"RSH", "DIV", "LSH", "MUL"})
"""Operations with a number that make a multiple, or a part."""


@record
class Room:
    """`factor` * a number + `room` <= LENGTH; of the number `room` itself, where the factor is 0.

    `length` is then what the length was at least where it was looked at.
    """

    factor: int
    room: int
    length: int = 0

    def at(self, factor: int) -> int | None:
        """Return the room of so many times the number, None where it is not known."""
        if not self.factor:
            return self.length - factor * self.room
        return self.room if self.factor == factor else None


class Scaled:
    """What is known of multiples, at a point of a walk."""

    def __init__(self, walk: Walk) -> None:
        self.walk, self.facts = walk, walk.facts
        self.known: dict[int, Room | None] = {}
        self.multiples: dict[int, tuple[int, int, int]] = {}
        """Of roots: a root, a factor and a number, with root = factor * root + number."""
        self.joined: dict[int, list[Room | None]] = {}

    def _is_plain(self, value: int) -> bool:
        """True where a value is its root plus its delta as numbers, and no pointer into the argument."""
        facts, root, delta = self.facts, self.facts.root[value], self.facts.delta[value]
        if root == facts.constant or facts.base[root] == facts.argument:
            return False
        return facts.low[root] + delta >= 0 and facts.high[root] + delta <= U64_MASK

    def room(self, value: int) -> Room | None:
        """Return what is known of a value."""
        root = self.facts.root[value]
        own = self.known.get(value) if value != root else None
        known = self.known.get(root)
        if own is not None or known is None or not self._is_plain(value):
            return own
        return Room(known.factor, known.room - known.factor * self.facts.delta[value])

    def _set(self, root: int, factor: int, room: int, *, here: bool) -> None:
        """Write down what is known of a root: from here on, or wherever it is defined."""
        old, facts = self.known.get(root), self.facts
        if not 1 < factor <= LARGEST_FACTOR or abs(room) > LARGEST_ROOM:
            return
        if old is not None and (old.factor != factor or old.room >= room):
            return
        if here:
            self.walk.trail.append((self.known, root, old))
        self.known[root] = Room(factor, room)
        if here:
            self.walk.lengthen(factor * facts.low[root] + room)

    # -- operations ---------------------------------------------------------------------------------------

    def operation(self, meaning: str, value: int, source: int, x: Interval, number: int, bits: int) -> None:
        """See a value that is made of another, which lies in `x`, with a number; both fit the width."""
        factor = 1 << number % bits if meaning in ("RSH", "LSH") else number
        if not 1 < factor <= LARGEST_FACTOR:
            return
        if meaning in ("RSH", "DIV"):
            self._part(value, source, factor)
        elif x[1] * factor < 1 << bits:
            known, facts = self.room(source), self.facts
            if self._is_plain(source):
                self.multiples[value] = facts.root[source], factor, factor * facts.delta[source]
            if known is not None and known.factor >= factor and abs(known.room) <= LARGEST_ROOM:
                facts.limit[value] = known.room
            if known is not None and known.factor % factor == 0:
                self._set(value, known.factor // factor, known.room, here=False)

    def _part(self, value: int, source: int, factor: int) -> None:
        """A part of something with room, times as much, is not more than that was."""
        room, known = self.facts.room(source), self.room(source)
        if room is not None:
            self._set(value, factor, room, here=False)
        elif known is not None:
            self._set(value, factor * known.factor, known.room, here=False)

    # -- conditions ---------------------------------------------------------------------------------------

    def learn(self, lower: int, upper: int, least: int) -> None:
        """Learn that lower + least <= upper."""
        known, facts = self.room(upper), self.facts
        if known is None or facts.base[facts.root[lower]] == facts.argument:
            return
        if self._is_plain(lower):
            room = known.room + known.factor * (facts.delta[lower] + least)
            self._set(facts.root[lower], known.factor, room, here=True)
        else:
            self._set(lower, known.factor, known.room + known.factor * least, here=True)

    def limited(self, root: int, limit: int) -> None:
        """Learn that root + limit <= LENGTH: so there is room for what it is a multiple of."""
        multiple = self.multiples.get(root)
        if multiple is not None:
            self._set(multiple[0], multiple[1], multiple[2] + limit, here=True)

    # -- arguments ----------------------------------------------------------------------------------------

    def join(self, number: int, values: tuple[int, ...]) -> None:
        """See what comes into a block on a way."""
        facts = self.facts
        new: list[Room | None] = []
        for value in values:
            constant = facts.number(value)
            new.append(self.room(value) if constant is None else Room(0, constant, facts.low[facts.length]))
        old = self.joined.get(number)
        self.joined[number] = new if old is None else [_both(a, b) for a, b in zip(old, new, strict=True)]

    def define(self, number: int, args: tuple[int, ...]) -> None:
        """Write down what is known of the arguments of a block that rounds do not come back to."""
        for arg, room in zip(args, self.joined.pop(number, ()), strict=False):
            if room is not None and room.factor and self.facts.root[arg] == arg:
                self._set(arg, room.factor, room.room, here=False)

    def stepping(self, first: Room | None, one: Stepping) -> Room | None:
        """Return what is known of an argument that steps and passes a test, which is known to bound it."""
        bound = None if one.test.bound is None else self.room(one.test.bound)
        if bound is None or first is None:
            return None
        start = first.at(bound.factor)
        if start is None:
            return None
        if one.steps.least < 0:
            return Room(bound.factor, start)
        if one.relation == "!=":
            return Room(bound.factor, bound.factor * one.offset + bound.room)
        more = bound.factor * (one.offset + one.strict - one.steps.most) + bound.room
        return Room(bound.factor, min(start, more))

    def tested(self, test: Test, relation: str) -> Room | None:
        """Return what is known of a value that passes a test."""
        bound = None if test.bound is None or relation not in ("<", "<=") else self.room(test.bound)
        if bound is None or test.bits != U64_MASK.bit_length():
            return None
        return Room(bound.factor, bound.room + bound.factor * (relation == "<"))

    def argument(self, arg: int, first: Incoming, rooms: list[Room | None]) -> None:
        """Write down what is known of an argument in all rounds: each of these."""
        if first[5] != self.facts.argument and self.facts.root[arg] == arg:
            for room in rooms:
                if room is not None and room.factor:
                    self._set(arg, room.factor, room.room, here=False)

    def either(self, a: Room | None, b: Room | None) -> Room | None:
        """Return what holds of a number that is one or the other."""
        return _both(a, b)


def _both(a: Room | None, b: Room | None) -> Room | None:
    """Return what holds of a number that is one or the other."""
    if a is None or b is None:
        return None
    if not a.factor and not b.factor:
        return Room(0, a.room, min(a.length, b.length)) if a.room == b.room else None
    factor = a.factor or b.factor
    first, second = a.at(factor), b.at(factor)
    return None if first is None or second is None else Room(factor, min(first, second))
