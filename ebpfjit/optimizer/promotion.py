"""Counts of what innermost loops execute are values while they run (counter promotion).

    before                                    after
                                              b5 (v5):                         where the loop is entered
                                                v6 = 0
                                                goto b1(v5, v6, v6)
    b1 pc 1 (v2):                             b1 pc 1 (v2, v7, v8):
      pay 2 else leave 1 (...)                  pay 2 else leave 1 (...) count 2 += v8, 8 += v7, 12 += v8
      count 0 += 1                              v9 = v8 + 1
      ...                                       ...
      if v3 == 0 goto b3() else b2() ; 3        if v3 == 0 goto b3(v7) else b2()
    b2 pc 4 ():                               b2 pc 4 ():
      count 0 += 1
      bound load .. else leave 5 (...)          bound .. else leave 5 (..) count 2 += v9, 8 += 1 + v7, ...
      ...                                       v10 = v7 + 1
      goto b3()                                 goto b3(v10)
    b3 pc 6 ():                               b3 pc 6 (v11):
      count 0 += 1
      v4 = v2 + 4                               v4 = v2 + 4
      if v4 != v1 goto b1(v4) else b4()         if v4 != v1 goto b1(v4, v11, v9) else b6(v11, v9)
                                              b6 (v12, v13):
                                                count 0 += v13 ; 1
                                                count 0 += v12 ; 4
                                                count 0 += v13 ; 6
                                                goto b4()

Not each count is a value: what comes into a block goes out of it, so that counting some ways between blocks,
those that a spanning tree leaves over, tells of all (Knuth and Stevenson, "Optimal measurement points for
program frequency counts", 1973). Where a run is in the middle of a round, all is as if one more way led from
there to the loop's start: that is the number that is added.

Contract: behind each way out of the loop, exits too, each word has the number that it had before. Loops have
one header, no loop inside, and no calls, so that nothing looks at the words meanwhile; where a slice ends,
what pays brings them up to date.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from ebpfjit.isa.spec import Kind, Row
from ebpfjit.isa.table import BY_NAME, TABLE
from ebpfjit.optimizer.code import COUNT, Block, Code, Entry, Exit, Op, Way, with_exit, word_of
from ebpfjit.optimizer.flow import Starts, homes_of
from ebpfjit.optimizer.shape import reverse_postorder
from ebpfjit.record import record, replace

MOST_BLOCKS = 64
"""Blocks of a loop, at most."""
MOST_VALUES = 6
"""Values that count in one loop, at most: registers are few."""

JUMP, CONSTANT, ADD_NUMBER, ADD, SUB = (
    BY_NAME[name] for name in ("JA", "MOV64_K", "ADD64_K", "ADD64_X", "SUB64_X")
)
_CALLS = {Kind.CALL_HELPER, Kind.CALL_KFUNC, Kind.CALL_LOCAL, Kind.CALL_REGISTER, Kind.PACKET_LOAD}
CALLS = frozenset(row for row in TABLE if row.kind in _CALLS)

Place = tuple[int, int]
"""A block of a loop, and how many of its COUNTs are behind."""
Signs = dict[int, int]
"""By the number of a COUNT: 1 where it is passed on a path, -1 where it is passed backwards."""
COUNTED = -1
"""In place of the number of a way: the first COUNT of a block."""


@record
class Step:
    """A way between places of a loop: by the COUNT with the number `count`, or a `way` out of a block."""

    here: Place
    there: Place
    way: int
    count: int | None = None


@record
class Chord:
    """A step that is counted, with what it tells of each COUNT."""

    step: Step
    signs: Signs


def promote(code: Code, counting: set[int] | None) -> Code:
    """Return the code with values that count in its innermost loops, which are added to `counting`.

    That is None where nobody counts.
    """
    if counting is None:
        return code
    promoting = _Promoting(code, counting)
    for header in sorted(code.shape.headers):
        loop = _Loop(code, header)
        if loop.is_found() and (chords := loop.chords()) and len(chords) <= MOST_VALUES:
            promoting.loop(loop, chords)
    return promoting.done()


class _Loop:
    """An innermost loop: the blocks of its `body` in order, its COUNTs by number.

    `at` has for each place the signs of the path there from the start of the loop, in the tree.
    """

    def __init__(self, code: Code, header: int) -> None:
        self.code, self.header = code, header
        self.body: list[int] = []
        self.counts: list[Op] = []
        self.at: dict[Place, Signs] = {}

    def is_found(self) -> bool:
        """Return whether it is a loop that is taken, and find out its blocks."""
        code, header, shape = self.code, self.header, self.code.shape
        (depths, _), before, place = shape.loops, shape.before, shape.place
        inside = shape.inside(header, MOST_BLOCKS)
        if len(inside) > MOST_BLOCKS or shape.is_deep:
            return False
        self.body = sorted(inside, key=place.__getitem__)
        for number in self.body:
            if depths[number] != depths[header]:
                return False
            comes = before[number] if number != header else ()
            if any(each not in inside or place[each] >= place[number] for each in comes):
                return False
            rows = [op.row for op in code.blocks[number].ops]
            if not CALLS.isdisjoint(rows):
                return False
        self.counts = [op for number in self.body for op in self.counts_of(number)]
        return bool(self.counts)

    def counts_of(self, block: int) -> list[Op]:
        """Return the COUNTs of a block."""
        return [op for op in self.code.blocks[block].ops if op.row is COUNT]

    def steps(self) -> list[Step]:
        """Return all steps, those first that are rather in the tree.

        To count a way that a branch has is work whether it is gone or not; what each round comes by first
        tells of rounds.
        """
        inside, last = set(self.body), (self.header, 0)
        found: list[tuple[int, Step]] = []
        number = 0
        for block in self.body:
            counts = len(self.counts_of(block))
            for before in range(counts):
                here = block, before
                found.append((5 if here == last else 0, Step(here, (block, before + 1), COUNTED, number)))
                number += 1
            ways = self.code.blocks[block].ways
            for index, way in enumerate(ways):
                if way.block in inside:
                    order = 1 + 2 * (way.block == self.header) + (len(ways) == 1)
                    found.append((order, Step((block, counts), (way.block, 0), index)))
        return [step for _, step in sorted(found, key=lambda each: each[0])]

    def chords(self) -> list[Chord]:
        """Return the steps that tell of all counts: those that a spanning tree leaves over."""
        parent: dict[Place, Place] = {}

        def root(place: Place) -> Place:
            while place in parent:
                place = parent[place]
            return place

        tree: dict[Place, list[tuple[Place, Signs]]] = {}
        left: list[Step] = []
        for step in self.steps():
            one, other = root(step.here), root(step.there)
            if one == other:
                left.append(step)
                continue
            parent[other] = one
            passed = {} if step.count is None else {step.count: 1}
            tree.setdefault(step.here, []).append((step.there, passed))
            tree.setdefault(step.there, []).append((step.here, dict.fromkeys(passed, -1)))
        start = self.header, 0
        self.at, waiting = {start: {}}, [start]
        while waiting:
            here = waiting.pop()
            for there, passed in tree.get(here, ()):
                if there not in self.at:
                    self.at[there] = self.at[here] | passed
                    waiting.append(there)
        found = []
        for step in left:  # its circle: it, and through the tree from its end to where it starts
            signs = dict(self.at[step.here])
            for count, sign in self.at[step.there].items():
                signs[count] = signs.get(count, 0) - sign
            if step.count is not None:
                signs[step.count] = 1
            signs = {count: sign for count, sign in signs.items() if sign}
            if signs:
                found.append(Chord(step, signs))
        return found


class _Promoting:
    """The blocks so far."""

    def __init__(self, code: Code, counting: set[int]) -> None:
        self.code, self.counting = code, counting
        self.blocks = [*code.blocks]
        self.homes = homes_of(code)
        self.starts: Starts = [*code.starts]
        self.entries = dict(code.entries)
        functions = code.verified.program.functions
        starts = sorted({entry.block for pc, entry in code.entries.items() if pc in functions})
        self.reached = set(reverse_postorder(code.shape.ways, starts))
        """The blocks that runs of functions come to from their start."""
        self.leaving: dict[int, int] = {}
        """Where blocks that were added behind loops lead."""

    def done(self) -> Code:
        """Return the code."""
        if len(self.blocks) == len(self.code.blocks):
            return self.code
        code, blocks = self.code, tuple(self.blocks)
        return Code(code.verified, blocks, self.entries, self.homes, code.proofs, self.starts, code.remarks)

    def new(self, like: int | None = None) -> int:
        """Return a new value, of the register that another one was of; without one it counts."""
        self.homes.append(0 if like is None else self.homes[like])
        value = len(self.homes) - 1
        if like is None:
            self.counting.add(value)
        return value

    def loop(self, loop: _Loop, chords: Sequence[Chord]) -> None:
        """Have values count in a loop."""
        self.enter(loop, len(chords))
        _Counting(self, loop, chords).run()

    def enter(self, loop: _Loop, count: int) -> None:
        """Put a block in front of a loop, where so many values are 0; another for what only runs of baseline
        code come by, which may be in any round: of the first one more is known.
        """
        header, inside, functions = loop.header, set(loop.body), self.code.verified.program.functions
        before = {*self.code.shape.before[header]} - inside - {-1}
        before |= {number for number, to in self.leaving.items() if to == header}
        entered = [pc for pc, entry in self.entries.items() if entry.block == header]
        for is_inner in (False, True):
            ways = [number for number in before if (number in self.reached) is not is_inner]
            pcs = [pc for pc in entered if (pc in functions) is not is_inner]
            if ways or pcs:
                self.front(header, ways, pcs, count)

    def front(self, header: int, before: Iterable[int], entered: Iterable[int], count: int) -> None:
        """Put a block between some blocks, some entries, and a loop."""
        block, front = self.blocks[header], len(self.blocks)
        args, zero = tuple([self.new(arg) for arg in block.args]), self.new()
        for number in before:
            one = self.blocks[number]
            ways = [Way(front, way.args) if way.block == header else way for way in one.ways]
            self.blocks[number] = replace(one, ways=tuple(ways))
        for pc in entered:
            self.entries[pc] = Entry(front, self.entries[pc].registers)
        ops = (Op(CONSTANT, (), 0, 0, block.pc, (zero,)),)
        inside = Way(header, (*args, *[zero] * count))
        self.blocks.append(Block(block.pc, args, ops, Op(JUMP, (), 0, 0, block.pc), (inside,)))


class _Counting:
    """A loop while its values are made: `came` has those of the ways to each block, by chord."""

    def __init__(self, around: _Promoting, loop: _Loop, chords: Sequence[Chord]) -> None:
        self.around, self.loop, self.chords = around, loop, chords
        self.counted = {(chord.step.here[0], chord.step.way): each for each, chord in enumerate(chords)}
        """Which chord is a way of a block, or its first COUNT."""
        self.came: dict[int, list[list[int]]] = {number: [] for number in loop.body}
        self.behind: dict[tuple[Any, ...], int] = {}
        """Blocks behind the loop that add up, by where they lead and what is added."""

    def run(self) -> None:
        """Change the blocks of the loop: first all that they do, then their ways."""
        blocks, body, header = self.around.blocks, self.loop.body, self.loop.header
        every = range(len(self.chords))
        taken: dict[int, Sequence[int]] = {header: every}
        """Of each block the chords whose values are arguments of it."""
        passed: dict[tuple[int, int], list[int]] = {}
        """The values on each way."""
        for number in body:
            if number != header:
                given = [*zip(*self.came[number], strict=True)]
                taken[number] = [each for each in every if len(set(given[each])) > 1]
                here = [values[0] for values in given]
            else:
                here = [-1] * len(self.chords)
            for each in taken[number]:
                here[each] = self.around.new()
            args = [here[each] for each in taken[number]]
            block = self.block(number, here)
            ops = [*block.ops]
            for index, way in enumerate(block.ways):
                there = passed[number, index] = [*here]
                if (number, index) in self.counted:
                    ops.append(self.one_more(there, self.counted[number, index], block.end.pc))
                if way.block in self.came:
                    self.came[way.block].append(there)
            blocks[number] = replace(block, args=(*block.args, *args), ops=tuple(ops))
        for number in body:
            block = blocks[number]
            ways = []
            for index, way in enumerate(block.ways):
                values = passed[number, index]
                if way.block in self.came:
                    ways.append(Way(way.block, (*way.args, *[values[each] for each in taken[way.block]])))
                else:
                    ways.append(self.leave(number, way, values))
            blocks[number] = replace(block, ways=tuple(ways))

    def one_more(self, values: list[int], chord: int, pc: int) -> Op:
        """Return the operation that counts one more."""
        before, values[chord] = values[chord], self.around.new()
        return Op(ADD_NUMBER, (before,), 1, 0, pc, (values[chord],))

    def block(self, number: int, here: list[int]) -> Block:
        """Return a block of the loop, with exits that count instead of COUNTs; `here` is at its end then."""
        block, starts, ops, counts = self.around.blocks[number], self.around.starts, list[Op](), 0
        start = starts[number] if number < len(starts) else None
        if start is not None:
            starts[number] = self.exit(start, (number, 0), here)
        for op in block.ops:
            if op.row is COUNT:
                if not counts and (number, COUNTED) in self.counted:
                    ops.append(self.one_more(here, self.counted[number, COUNTED], op.pc))
                counts += 1
            elif op.exit is not None:
                ops.append(with_exit(op, self.exit(op.exit, (number, counts), here)))
            else:
                ops.append(op)
        return replace(block, ops=tuple(ops))

    def told(self, place: Place) -> list[tuple[Op, int, tuple[int, ...]]]:
        """Return for each COUNT what is to be added by who leaves at a place: a number, and the value of each
        chord, less it, or none of it.
        """
        signs, found = self.loop.at[place], []
        for number, op in enumerate(self.loop.counts):
            factors = tuple([chord.signs.get(number, 0) for chord in self.chords])
            if any(factors) or signs.get(number):
                found.append((op, signs.get(number, 0), factors))
        return found

    def exit(self, leaves: Exit, place: Place, here: Sequence[int]) -> Exit:
        """Return an exit that counts."""
        counts = tuple([(word_of(op), number, factors) for op, number, factors in self.told(place)])
        values = (*leaves.registers, *here)
        return Exit(leaves.pc, values, leaves.refund, leaves.slots, leaves.inside, counts)

    def leave(self, number: int, way: Way, values: Sequence[int]) -> Way:
        """Return a way out of the loop by a block that adds up."""
        place = number, len(self.loop.counts_of(number))
        key = way.block, *sorted(self.loop.at[place].items())
        if key not in self.behind:
            self.behind[key] = behind = len(self.around.blocks)
            self.around.blocks.append(self.sums(way.block, place))
            self.around.leaving[behind] = way.block
            if number in self.around.reached:
                self.around.reached.add(behind)
        return Way(self.behind[key], (*way.args, *values))

    def sums(self, block: int, place: Place) -> Block:
        """Return a block in front of another that adds to all words what is due at a place."""
        there = self.around.blocks[block]
        args = tuple([self.around.new(arg) for arg in there.args])
        values = [self.around.new() for _ in self.chords]
        ops: list[Op] = []
        made: dict[tuple[int, tuple[int, ...]], int] = {}
        for op, number, factors in self.told(place):
            if not any(factors):
                ops.append(Op(COUNT, (), number, op.offset, op.pc))
                continue
            if (number, factors) not in made:
                made[number, factors] = self.sum(ops, values, number, factors)
            ops.append(Op(COUNT, (made[number, factors],), 0, op.offset, op.pc))
        end = Op(JUMP, (), 0, 0, there.pc)
        return Block(there.pc, (*args, *values), tuple(ops), end, (Way(block, args),))

    def sum(self, ops: list[Op], values: Sequence[int], number: int, factors: Sequence[int]) -> int:
        """Add the operations that make the sum of a number and of values; return it."""
        pc, total = self.around.code.blocks[self.loop.header].pc, -1

        def add(row: Row, args: tuple[int, ...], imm: int = 0) -> int:
            value = self.around.new()
            ops.append(Op(row, args, imm, 0, pc, (value,)))
            return value

        pairs = zip(factors, values, strict=True)
        for factor, value in sorted([pair for pair in pairs if pair[0]], reverse=True):
            if total >= 0:
                total = add(ADD if factor > 0 else SUB, (total, value))
            else:
                total = value if factor > 0 else add(SUB, (add(CONSTANT, ()), value))
        return add(ADD_NUMBER, (total,), number) if number else total
