"""Arguments of blocks that loops come back to: what they are in all rounds, from one look at the loop.

    header (a):                     a starts between `first` and `last`, each round adds `step`;
      ...                           all that comes round passes the test a + offset < bound
      if a + offset < bound ...

Then a is at most max(last, bound - 1 - offset + step): what comes round was below the bound before the step
was added to it. That holds as long as nothing on the way wraps, which is looked at with the bounds that are
so found. Where `!=` is the test, what starts below the bound and comes exactly to it does not pass it.

An argument that is only handed round, through arguments of blocks inside, is what it was before. Of others is
known what the operations that make them can give at most.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ebpfjit.bits import U64_MASK, W32, W64, Width
from ebpfjit.isa.spec import Kind, Row
from ebpfjit.isa.table import TABLE
from ebpfjit.optimizer.facts import NOWHERE, UNKNOWN, Incoming, static_range
from ebpfjit.optimizer.intervals import MIRRORED, RELATIONS, SIGNED, related, zeros_of
from ebpfjit.record import record

if TYPE_CHECKING:
    from ebpfjit.optimizer.ranges import Walk
    from ebpfjit.optimizer.scaled import Room

MOST_HANDED = 16
"""Arguments that a value is followed through."""

MOST_ADDED = 8
"""Constants in a row that are added up."""

MOST_ROOM = 1 << 30
"""Of what a bound may be away from the end of the argument."""

MOST_TESTS = 8
"""Tests of an argument that are looked at."""


Chain = tuple[int, int, int]
"""A value as another one plus a number, added on 64 bits or on 32; 0 where nothing is added."""

ADDITIONS = frozenset(row for row in TABLE if row.kind is Kind.BINARY and row.meaning in ("ADD", "SUB"))
_Said = tuple[str, str]
#      row: what it says of the first, of the second, its width, whether as signed
COMPARISONS: dict[Row, tuple[_Said, _Said, Width, bool]] = {
    row: (said, (MIRRORED[said[0]], MIRRORED[said[1]]), row.width, row.meaning in SIGNED)
    for row in TABLE
    if row.kind is Kind.BRANCH and (said := RELATIONS.get(row.meaning))
}


@record
class Test:
    """A comparison at the end of a block: an argument plus `offset` has a relation to the value `bound`.

    `number` is the bound where that is a constant. `bits` are those that are compared and that the sum has.
    """

    block: int
    offset: int
    bits: int
    is_signed: bool
    bound: int | None
    number: int
    relations: tuple[str, str]


@record
class Steps:
    """What a round adds to an argument: `least` to `most`, multiples of 2**zeros; `bits` as in Chain."""

    least: int
    most: int
    bits: int
    zeros: int


class Induction:
    """What is known of arguments of one code; asked in the order of a walk."""

    def __init__(self, walk: Walk) -> None:
        self.walk, self.facts, self.dominators = walk, walk.facts, walk.dominators
        self.tests: dict[int, list[Test]] = {}
        place, ways = self.dominators.place, self.dominators.ways
        self.targets = {
            way
            for here, number in enumerate(self.dominators.order)
            for way in ways[number]
            if place[way] <= here
        }
        """The blocks that ways lead back to."""
        if self.targets:
            self._find_tests(self.targets)

    def _find_tests(self, targets: set[int]) -> None:
        walk = self.walk
        for number in self.dominators.order:
            end = walk.code.blocks[number].end
            compares = COMPARISONS.get(end.row)
            if compares is None:
                continue
            *relations, w, signed = compares
            imm = w.wrap(end.imm)
            for index, value in enumerate(end.args):
                source, by, bits = self.chain(value)
                other = end.args[1 - index] if end.row.uses_src else None
                said = relations[index]
                if walk.at[source] in targets:
                    bits = min(bits or W64.bits, w.bits)
                    self._note(source, Test(number, by, bits, signed, other, imm, said))
                if by or walk.at[value] not in targets:
                    self._note(value, Test(number, 0, w.bits, signed, other, imm, said))

    def _note(self, value: int, test: Test) -> None:
        tests = self.tests.setdefault(value, [])
        if len(tests) < MOST_TESTS:
            tests.append(test)
        else:
            code = self.walk.code
            code.leave_alone(
                "ranges", code.blocks[test.block].end.pc, f"more than {MOST_TESTS} tests of a value"
            )

    # -- how values come about ----------------------------------------------------------------------------

    def number(self, value: int) -> int | None:
        """Return the number that a value is, from its operation."""
        op = self.walk.defined[value]
        if op is None or op.args or op.row.kind not in (Kind.MOVE, Kind.LOAD_IMM64):
            return None
        return op.imm & (U64_MASK if op.row.kind is Kind.LOAD_IMM64 else op.row.width.mask)

    def chain(self, value: int) -> Chain:
        """Return what a value is made of by adding constants."""
        total, bits, defined = 0, 0, self.walk.defined
        for _ in range(MOST_ADDED):
            op = defined[value]
            if op is None or op.row not in ADDITIONS:
                break
            row, source = op.row, op.args[0]
            number: int | None = op.imm
            if row.uses_src:
                number = self.number(op.args[1])
                if number is None and row.meaning == "ADD":
                    source, number = op.args[1], self.number(op.args[0])
            if number is None or bits not in (0, row.width.bits):
                break
            bits = row.width.bits
            by = row.width.signed(number)
            total += by if row.meaning == "ADD" else -by
            value = source
        return value, total, bits

    def steps(self, arg: int, values: list[int]) -> Steps | None:
        """Return what is added to an argument where these values are it in the next round."""
        seen: dict[int, Steps | None] = {}
        if len(values) == 1:
            return self._steps(arg, values[0], seen)
        found: Steps | None = None
        for value in values:
            one = self._steps(arg, value, seen)
            if one is None:
                return None
            found = one if found is None else _either(found, one)
        return found

    def _steps(self, arg: int, value: int, seen: dict[int, Steps | None]) -> Steps | None:
        inner, by, bits = self.chain(value)
        if inner == arg:
            return Steps(by, by, bits, zeros_of(abs(by)))
        at = self.walk.at[inner]
        if at < 0 or at in self.walk.entered or self.walk.is_known[inner]:
            return None
        if inner not in seen:
            if len(seen) == MOST_HANDED:
                return None
            seen[inner] = None  # so it is for what leads back to itself by way of others
            found: Steps | None = None
            for before in self.walk.incoming(inner):
                if before != inner:
                    one = self._steps(arg, before, seen)
                    found = one if one is None or found is None else _either(found, one)
                    if found is None:
                        return None
            seen[inner] = found
        steps = seen[inner]
        if steps is None or not _fit(bits, steps.bits):
            return None
        zeros = min(steps.zeros, zeros_of(abs(by)))
        return Steps(steps.least + by, steps.most + by, bits or steps.bits, zeros)

    def sources(self, values: list[int]) -> set[int] | None:
        """Return what values are that are handed round through arguments; None where it is too much."""
        walk, seen, found = self.walk, set(values), set[int]()
        work = list(seen)
        while work:
            value = work.pop()
            if walk.at[value] < 0 or walk.is_known[value]:
                found.add(value)
                continue
            if walk.at[value] in walk.entered or len(seen) > MOST_HANDED:
                return None
            fresh = [each for each in walk.incoming(value) if each not in seen]
            seen.update(fresh)
            work += fresh
        return found

    # -- arguments ----------------------------------------------------------------------------------------

    def coming_round(self, header: int) -> list[tuple[int, tuple[int, ...]]]:
        """Return the blocks that come round to a header, with what its arguments are then."""
        blocks, place = self.walk.code.blocks, self.dominators.place
        return [
            (number, blocks[number].ways[way].args)
            for number, way in self.dominators.preds[header]
            if place[number] >= place[header]
        ]

    def _handed(self, arg: int, back: list[tuple[int, int]]) -> set[int] | None:
        """Return what the argument may be in a later round besides what it was; None where it is too much."""
        at = self.walk.at
        for _, value in back:
            if at[value] >= 0:
                break
        else:
            return {value for _, value in back}
        self.walk.is_known[arg] = 1  # what it hands round through arguments of blocks inside is itself
        handed = self.sources([value for _, value in back])
        self.walk.is_known[arg] = 0
        return None if handed is None else handed - {arg}

    def is_invariant(self, header: int, arg: int, first: Incoming, back: list[tuple[int, int]]) -> bool:
        """True for an argument that is the same in all rounds; `first` is what is known before the first.

        Of loops with other ways in nothing is said: what holds on this one need not hold there.
        """
        facts, knows = self.facts, self.walk.knows
        at = self.walk.at
        for number, value in back:
            if (at[value] < 0 and not knows(value)) or not self.dominators.dominates(header, number):
                return False
        handed = self._handed(arg, back)
        return handed is not None and all(
            knows(value) and (facts.root[value], facts.delta[value]) == (first[3], first[4])
            for value in handed
        )

    def argument(self, header: int, arg: int, first: Incoming, back: list[tuple[int, int]]) -> Incoming:
        """Return what is known of an argument in all rounds; `first` is so before the first."""
        handed, tests = self._handed(arg, back), self.tests
        steps = self.steps(arg, [value for _, value in back])
        zeros = 0 if steps is None else min(first[2], steps.zeros)
        whole = W32 if steps is not None and steps.bits == W32.bits else W64
        low, high = self._at_most(first, handed) or (0, max(whole.mask, first[1]))
        found: Incoming = (low, high, zeros, UNKNOWN, 0, first[5], NOWHERE, NOWHERE, NOWHERE)
        if handed is None or any(value in tests for _, value in back):
            found = _together(found, self._as_tested(header, first, back))
        if steps is None or arg not in tests or steps.least < 0 < steps.most:
            return found
        latches = [number for number, _ in back]
        for test in tests[arg]:
            way = self._staying(header, latches, test)
            if way is not None:
                known = Stepping(self.walk, first, steps, test, test.relations[way]).known()
                found = found if known is None else _together(found, known)
        return found

    def rooms(
        self, header: int, arg: int, first: Incoming, room: Room, back: list[tuple[int, int]]
    ) -> list[Room | None]:
        """Return what is known of multiples of an argument in all rounds; `room` is so before the first."""
        scaled = self.walk.scaled
        found: list[Room | None] = []
        steps = self.steps(arg, [value for _, value in back])
        latches = [number for number, _ in back]
        for test in self.tests.get(arg, ()) if steps is not None else ():
            way = self._staying(header, latches, test)
            if steps is None or way is None or steps.least < 0 < steps.most:
                continue
            stepping = Stepping(self.walk, first, steps, test, test.relations[way])
            if stepping.known() is not None:
                found.append(scaled.stepping(room, stepping))
        every: Room | None = room
        for latch, value in back:
            here: Room | None = None
            for test in self.tests.get(value, ()):
                way = None if test.offset or test.is_signed else self._staying(header, [latch], test)
                if way is not None and (test.bound is None or self.walk.knows(test.bound)):
                    here = here or scaled.tested(test, test.relations[way])
            every = scaled.either(every, here)
        return [*found, every]

    def _at_most(self, first: Incoming, handed: set[int] | None) -> tuple[int, int] | None:
        """Return between which numbers an argument lies that starts as `first` and then is one of these."""
        if handed is None:
            return None
        low, high = first[0], first[1]
        for value in handed:
            op = self.walk.defined[value]
            if self.walk.knows(value):
                a, b = self.facts.range(value)
            else:
                a, b = static_range(op) if op is not None else (0, U64_MASK)
            if a < low:
                low = a
            if b > high:
                high = b
        return low, high

    def _as_tested(self, header: int, first: Incoming, back: list[tuple[int, int]]) -> Incoming:
        """Return what follows for an argument from tests of the very values that it has in later rounds."""
        low, high, limit = first[0], first[1], first[8]
        if first[5] == self.facts.argument:
            limit = NOWHERE
        for latch, value in back:
            op, room = self.walk.defined[value], NOWHERE
            a, b = static_range(op) if op is not None else (0, U64_MASK)
            for test in self.tests.get(value, ()):
                way = None if test.offset or test.is_signed else self._staying(header, [latch], test)
                if way is not None:
                    is_known = test.bound is None or self.walk.knows(test.bound)
                    a, b, room = self._tested(test, test.relations[way], a, b, room, is_known=is_known)
            low, high = min(low, a), max(high, b)
            limit = NOWHERE if NOWHERE in (limit, room) else min(limit, room)
        return low, high, 0, UNKNOWN, 0, first[5], NOWHERE, NOWHERE, limit

    def _tested(
        self, test: Test, relation: str, low: int, high: int, room: int, *, is_known: bool
    ) -> tuple[int, int, int]:
        """Return between which numbers a value lies that passes a test, and its room before the length."""
        facts = self.facts
        if not is_known:
            return low, high, room
        if test.bits == W64.bits or high <= W32.mask:
            bound = (test.number, test.number) if test.bound is None else facts.range(test.bound)
            between = related(relation, (low, high), bound) if bound[1] < 1 << test.bits else None
            low, high = between or (low, high)
        if test.bits == W64.bits and relation in ("<", "<=") and self.walk.is_measured:
            more = facts.low[facts.length] - test.number if test.bound is None else facts.room(test.bound)
            if more is not None and abs(more) <= MOST_ROOM:
                room = more + (relation == "<") if room == NOWHERE else max(room, more + (relation == "<"))
        return low, high, room

    def _staying(self, header: int, latches: list[int], test: Test) -> int | None:
        """Return the way behind a test that all rounds of a loop take, None where there is none."""
        dominators = self.dominators
        ways = dominators.ways[test.block]
        if not dominators.dominates(header, test.block) or ways[0] == ways[1]:
            return None
        for way, target in enumerate(ways):
            if target == header:
                is_taken = all(latch == test.block for latch in latches)
            else:
                is_only = len(dominators.preds[target]) == 1 and target not in dominators.entered
                is_taken = is_only and all(dominators.dominates(target, latch) for latch in latches)
            if is_taken:
                return way
        return None


def _fit(a: int, b: int) -> bool:
    return a == b or not a or not b


def _either(a: Steps, b: Steps) -> Steps | None:
    if not _fit(a.bits, b.bits):
        return None
    return Steps(min(a.least, b.least), max(a.most, b.most), a.bits or b.bits, min(a.zeros, b.zeros))


def _together(a: Incoming, b: Incoming) -> Incoming:
    """Return what holds of a value of which both hold."""
    low, high = max(a[0], b[0]), min(a[1], b[1])
    near, far = (b[6], b[7]) if a[6] == NOWHERE else (a[6], a[7])
    if NOWHERE not in (a[6], b[6]):
        near, far = max(a[6], b[6]), min(a[7], b[7])
    limit = min(a[8], b[8]) if NOWHERE in (a[8], b[8]) else max(a[8], b[8])
    return low, high, max(a[2], b[2]), UNKNOWN, 0, a[5], near, far, limit


class Stepping:
    """An argument that each round adds `steps` to, and a test that it passes in all of them."""

    def __init__(self, walk: Walk, first: Incoming, steps: Steps, test: Test, relation: str) -> None:
        self.walk, self.facts = walk, walk.facts
        self.low, self.high, self.zeros, _, _, self.base, self.near, self.far, self.limit = first
        self.steps, self.test, self.relation, self.offset = steps, test, relation, test.offset
        self.strict = relation in ("<", ">")
        """The step, where it is always the same."""
        self.step = steps.most if steps.least == steps.most else 0

    def known(self) -> Incoming | None:
        """Return what is known of the argument, None where the test does not tell."""
        bound = self.test.bound
        if bound is not None and not self.walk.knows(bound):
            return None  # it may be another one in each round
        if self.base == self.facts.argument or self.base >= self.facts.frame:
            if bound is None or self.near == NOWHERE or self.near != self.far:
                return None
            if self.test.bits != W64.bits or self.steps.bits == W32.bits:
                return None
            return self._between_places(bound) or self._before_end(bound)
        return self._rising() if self.steps.least >= 0 else self._falling()

    # -- numbers ------------------------------------------------------------------------------------------

    def _bound(self) -> tuple[int, int]:
        """Return between which numbers the bound lies."""
        test = self.test
        return (test.number, test.number) if test.bound is None else self.facts.range(test.bound)

    def _mask(self) -> int:
        """Return the largest number that neither wraps nor is negative for the test."""
        bits = min(self.test.bits, self.steps.bits or W64.bits)
        return (1 << bits - self.test.is_signed) - 1

    def _rising(self) -> Incoming | None:
        low, high = self._bound()
        mask, offset = self._mask(), self.offset
        if high > mask or self.low + offset < 0:
            return None
        limit = NOWHERE
        if self.relation in ("<", "<="):
            most = max(self.high, high - self.strict - offset + self.steps.most)
            room = self._room()
            if room is not None and self.limit != NOWHERE:
                limit = min(self.limit, offset + self.strict + room - self.steps.most)
        elif self.relation == "!=" and self.step > 0:
            if not self._comes_to(low, high):
                return self._to_length()
            most = high - offset
            room = self._room()
            if room is not None:
                limit = offset + room
        else:
            return None
        if most > mask or most + offset > mask:
            return None
        return self.low, most, 0, UNKNOWN, 0, self.base, NOWHERE, NOWHERE, limit

    def _comes_to(self, low: int, high: int) -> bool:
        """True where an argument that rises or falls surely comes to a bound, and not past it."""
        first, last = self.low + self.offset, self.high + self.offset
        if self.step == 1:
            return last <= low
        if self.step == -1:
            return first >= high
        if first != last or low != high or not self.step:
            return False
        return (low - first) % self.step == 0 and (low - first) // self.step >= 0

    def _to_length(self) -> Incoming | None:
        """It rises by one until it is the argument's length, which it is not above at the start."""
        facts, bound = self.facts, self.test.bound
        if bound is None or self.step != 1 or self.test.bits != W64.bits or self.steps.bits == W32.bits:
            return None
        if (facts.root[bound], facts.delta[bound]) != (facts.length, 0):
            return None
        if self.limit == NOWHERE or self.limit < self.offset:
            return None
        most = facts.high[facts.length] - self.offset
        return self.low, most, 0, UNKNOWN, 0, self.base, NOWHERE, NOWHERE, self.offset

    def _room(self) -> int | None:
        """Return a k with bound + k <= LENGTH."""
        facts, bound = self.facts, self.test.bound
        if not self.walk.is_measured:
            return None
        room = facts.low[facts.length] - self.test.number if bound is None else facts.room(bound)
        return room if room is not None and abs(room) <= MOST_ROOM else None

    def _falling(self) -> Incoming | None:
        low, high = self._bound()
        mask, offset = self._mask(), self.offset
        if high > mask or self.high + offset > mask or self.high > mask:
            return None
        if self.relation in (">", ">="):
            least = min(self.low, low + self.strict - offset + self.steps.least)
        elif self.relation == "!=" and self.step < 0 and self._comes_to(low, high):
            least = low - offset
        else:
            return None
        if least < 0 or least + offset < 0:
            return None
        return least, self.high, 0, UNKNOWN, 0, self.base, NOWHERE, NOWHERE, self.limit

    # -- places -------------------------------------------------------------------------------------------

    def _between_places(self, bound: int) -> Incoming | None:
        """It comes from one place of a region exactly to another."""
        place = self.facts.place(bound)
        if place is None or place[0] != self.base or place[1] != place[2] or self.relation != "!=":
            return None
        way = place[1] - self.offset - self.near
        if not self.step or way % self.step or way // self.step < 0:
            return None
        near, far = min(self.near, self.near + way), max(self.near, self.near + way)
        return 0, U64_MASK, 0, UNKNOWN, 0, self.base, near, far, NOWHERE

    def _before_end(self, bound: int) -> Incoming | None:
        """It rises in the argument, up to a place that is not behind its end.

        No region lies so high that an address near its end wraps (MOST_LENGTH).
        """
        facts, offset = self.facts, self.offset
        if not self.walk.is_measured or self.base != facts.argument:
            return None
        if facts.base[facts.root[bound]] != facts.argument:
            return None
        room = self.walk.room_ahead(bound)
        if room is None or abs(room) > MOST_ROOM or self.near < 0 or self.near + offset < 0:
            return None
        if self.steps.least < 0:
            return None
        if self.relation in ("<", "<="):
            limit = min(facts.low[facts.length] - self.near, offset + self.strict + room - self.steps.most)
        elif self.relation == "!=" and self.step == 1 and self.near + offset <= self._least(bound):
            limit = offset + room
        else:
            return None
        far = facts.high[facts.length] - limit
        return 0, U64_MASK, 0, UNKNOWN, 0, self.base, self.near, far, limit

    def _least(self, pointer: int) -> int:
        """Return how far behind the argument's start a pointer is that is ahead of it, at least."""
        facts = self.facts
        place = facts.place(pointer)
        if place is not None:
            return place[1]
        root, delta = facts.root[pointer], facts.delta[pointer]
        parts = facts.parts[root]
        if parts is not None and parts[0] == facts.argument:
            return facts.low[parts[1]] + parts[2] + delta
        return facts.near[root] + delta
