"""Checks before loops: those that are the same in all rounds, and those of addresses that step, at once.

    before                                          after
                                                    b9 (v8, v9):                  where the loop is entered
                                                      v10 = v2 + -1
                                                      v11 = v10 - v9              how far the counter gets
                                                      v12 = v8 + v11
                                                      bound load v8 .. v12 + 0..1 else leave 5 (r1 = v8, ...)
                                                      if v11 > 2147483647 goto b10() else b1(v8, v9)
    b1 pc 5 (v3, v4):                               b1 pc 5 (v3, v4):
      bound load v3 + 0..1 else leave 5 (...)
      v5 = *(u8 *)(v3 + 0)                            v5 = *(u8 *)(v3 + 0)
      v6 = v3 + 1                                     v6 = v3 + 1
      v7 = v4 + 1                                     v7 = v4 + 1
      if v7 < v2 goto b1(v6, v7) else b2()            if v7 < v2 goto b1(v6, v7) else b2()

Innermost loops with one header are looked at, which call nothing. What comes in from outside, from baseline
code too, comes by a new block in front. Where a check does not hold there, the run leaves to the header in
baseline code, as nothing of the loop has been done. In programs that may meet structs with rights, which say
of each access what may be, only such checks stand for several rounds that hold in no struct ("only packet").

How far a counter gets follows from one test that all rounds pass, with both sides as they are in front of
the loop: it rises by c from x, and each round that goes on has x <= n (or is not where it stops). So it gets
as far as n - x + c, rounded down to a multiple of c, and in parts behind the test as far as one step less.
That this is at most LARGEST is asked for too, where it is multiplied: else what wraps is seen where the first
and the last address are; and that a step past n does not wrap. A loop may end earlier than the test would
have it: then more was asked for than was needed, and it may have left for nothing. So of several tests one
with the end of some memory comes first, and what not each round touches, farther on than the test speaks of,
is asked for where it is.
"""

from __future__ import annotations

from collections.abc import Sequence

from ebpfjit.bits import W64
from ebpfjit.isa.spec import Kind, Row
from ebpfjit.isa.table import BY_NAME, TABLE
from ebpfjit.optimizer.code import ALIGNED, BOUND, LEAVE, ONLY, Block, Code, Entry, Op, Proof, Way
from ebpfjit.optimizer.dominators import Dominators
from ebpfjit.optimizer.facts import UNKNOWN, Facts
from ebpfjit.optimizer.intervals import MIRRORED, RELATIONS, SIGNED
from ebpfjit.optimizer.trips import (
    LARGEST_FACTOR,
    LARGEST_OFFSET,
    LONGEST_SPAN,
    Linear,
    Swept,
    Trip,
    added,
    is_beyond,
    joined,
    multiplied,
    shifted,
    way_of,
)
from ebpfjit.record import record, replace

LARGEST = (1 << 31) - 1
"""How far a counter may get: more would take a second, and no check is needed for what takes so long."""

NO_VALUE = -1
"""What a bound of the argument's bytes is about."""

MOST_TERMS, MOST_DEPTH, MOST_CHECKS, MOST_TRIPS = 3, 4, 6, 4
"""Of what is asked before one loop: terms of a sum, operations that it is made of, checks; tests tried."""

MOST_WALKED = 8
"""How often all blocks may be walked to find loops: of deep nests nothing is moved."""

JUMP, FARTHER, NEARER, NOT_EQUAL = (BY_NAME[name] for name in ("JA", "JGT_K", "JLT_K", "JNE_K"))
ADD, SUB, MUL, AND = (BY_NAME[f"{name}64_X"] for name in ("ADD", "SUB", "MUL", "AND"))
ADD_IMM, MUL_IMM, AND_IMM, MOD_IMM, SHIFT = (
    BY_NAME[f"{name}64_K"] for name in ("ADD", "MUL", "AND", "MOD", "LSH")
)
MOVE_IMM = BY_NAME["MOV64_K"]

_CALLS = (Kind.CALL_HELPER, Kind.CALL_KFUNC, Kind.CALL_LOCAL, Kind.CALL_REGISTER, Kind.PACKET_LOAD)
CALLS = frozenset(row for row in TABLE if row.kind in _CALLS)

UPWARDS, DOWNWARDS = ("<", "<=", "!="), (">", ">=", "!=")


@record
class Leaving:
    """A comparison of a value with a number that is not to hold in front of a loop."""

    row: Row
    value: int
    number: int


def hoisted(code: Code, facts: Facts) -> Code:
    """Return code with checks before loops instead of in them."""
    dominators = facts.dominators
    assert dominators is not None  # the facts are of code whose checks were looked at
    loops = _innermost(code, dominators)
    if not loops:
        return code
    return _Hoisting(code, facts, dominators).done(loops)


def _innermost(code: Code, dominators: Dominators) -> dict[int, set[int]]:
    """Return the blocks of loops with no loop inside, one header and no calls, by header."""
    latches: dict[int, list[int]] = {}
    refused = set[int]()
    budget = MOST_WALKED * len(code.blocks)
    for number in dominators.order:
        for way in dominators.ways[number]:
            if dominators.is_back(number, way):
                latches.setdefault(way, []).append(number)
                if not dominators.dominates(way, number) and way not in refused:
                    refused.add(way)
                    code.leave_alone("hoisting", code.blocks[way].pc, "it is a loop with several ways in")
    found: dict[int, set[int]] = {}
    for header, ends in latches.items():
        blocks, work = {header}, list(ends)
        while work and header not in refused:
            budget -= 1
            if budget < 0:
                code.leave_alone("hoisting", None, "its loops are too deep in each other")
                return {}
            block = work.pop()
            if block in blocks:
                continue
            if block in latches:
                refused.add(header)
            blocks.add(block)
            work += [before for before, _ in dominators.preds[block]]
        if header not in refused:
            found[header] = blocks
    return found


class _Hoisting:
    """The loops of one code, and what is put in front of them."""

    def __init__(self, code: Code, facts: Facts, dominators: Dominators) -> None:
        self.code, self.facts, self.dominators = code, facts, dominators
        self.blocks = list(code.blocks)
        self.homes = list(code.homes)
        self.next_value = len(code.homes) or max(code.values(), default=-1) + 1
        self.entries = dict(code.entries)
        self.entered: dict[int, list[int]] = {}
        for pc, entry in code.entries.items():
            self.entered.setdefault(entry.block, []).append(pc)
        self.proofs = dict(code.proofs)

    def done(self, loops: dict[int, set[int]]) -> Code:
        """Return the code with checks in front of these loops."""
        for header, blocks in loops.items():
            loop = _Loop(self, header, blocks)
            if loop.checks and loop.why_not:
                self.code.leave_alone("hoisting", loop.block.pc, loop.why_not)
            elif loop.checks:
                loop.hoist()
        if len(self.blocks) == len(self.code.blocks):
            return self.code
        return replace(
            self.code,
            blocks=tuple(self.blocks),
            homes=self.homes,
            entries=self.entries,
            proofs=self.proofs,
            starts=[],
        )

    def new(self, home: int) -> int:
        """Return a new value."""
        self.next_value += 1
        if self.homes:
            self.homes.append(home)
        return self.next_value - 1

    def home(self, value: int) -> int:
        """Return the register that a value was of."""
        return self.homes[value] if self.homes else 0


class _Loop:
    """One loop."""

    def __init__(self, around: _Hoisting, header: int, blocks: set[int]) -> None:
        self.around, self.facts, self.dominators = around, around.facts, around.dominators
        self.header, self.blocks = header, blocks
        code = around.code
        self.block = code.blocks[header]
        self.checks: list[tuple[int, int, Op]] = []
        rows = [op.row for number in blocks for op in code.blocks[number].ops]
        if BOUND in rows:
            self.checks = [
                (number, index, op)
                for number in sorted(blocks)
                for index, op in enumerate(code.blocks[number].ops)
                if op.row is BOUND
            ]
        calls = not CALLS.isdisjoint(rows)
        self.start = code.starts[header] if header < len(code.starts) else None
        self.why_not = "it is a loop with calls" if calls else ""
        if self.start is None and not calls:
            self.why_not = "what the loop starts with is not known any more"
        self.latches = [(before, way) for before, way in around.dominators.preds[header] if before in blocks]
        self.last = around.dominators.common(before for before, _ in self.latches)
        """What dominates this block is in each round."""
        self.ops: list[Op] = []
        self.products: dict[tuple[int, int], int] = {}
        """What was multiplied there, by value and number."""
        self.moved: dict[int, int] = {}
        """What arguments of the header are in front of it."""

    def hoist(self) -> None:
        """Put a block in front of the loop, with what can be checked there."""
        around, block = self.around, self.block
        self.moved = {arg: around.new(around.home(arg)) for arg in block.args}
        steps = [(arg, self._step(arg)) for arg in block.args]
        self.same = {arg for arg, step in steps if step == 0}
        self.holders = {self.facts.root[arg]: arg for arg in block.args if arg in self.same}
        self.steps = {arg: step for arg, step in steps if step}
        self.numbers = self._numbers()
        start = self.start
        assert start is not None  # it was looked at
        moved = self.moved.get
        registers = [None if value is None else moved(value, value) for value in start.registers]
        self.leaves = start.naming(registers).giving_back(0)
        gone = self._same_each_round()
        trips = [] if len(gone) == len(self.checks) else self._trips()
        leaving: list[Leaving] = []
        for trip in trips[:MOST_TRIPS]:
            swept = self._swept(trip, gone)
            if swept:
                leaving = self._ask(trip, swept)
                gone |= {each for one in swept for each in one.checks}
                break
        if len(gone) < len(self.checks):
            why = "no test says how far" if not trips else "no counter says how far all"
            around.code.leave_alone("hoisting", block.pc, f"{why} the addresses of the loop get")
        if gone:
            self._put(gone, leaving)

    # -- what is the same in each round --------------------------------------------------------------------

    def _step(self, arg: int) -> int | None:
        """Return what each round adds to an argument of the header, None where that is not always one."""
        index, facts = self.block.args.index(arg), self.facts
        found: int | None = None
        for before, way in self.latches:
            value = self.around.code.blocks[before].ways[way].args[index]
            step = facts.delta[value] if facts.root[value] == arg else 0 if value == arg else None
            if step is None or (found is not None and step != found):
                return None
            found = step
        return found

    def _in_front(self, value: int) -> int | None:
        """Return a value as it is in front of the loop, None where it is not the same in all rounds."""
        if value in self.moved:
            return self.moved[value] if value in self.same else None
        where = self.facts.where[value] if value < self.facts.count else -1
        if where < 0 or where in self.blocks:
            return None
        return value if self.dominators.dominates(where, self.header) else None

    def _is_in_each_round(self, block: int) -> bool:
        """True for a block that each round comes by: what is checked there may be checked before."""
        return self.dominators.dominates(block, self.last)

    def _same_each_round(self) -> set[tuple[int, int]]:
        """Put checks in front that are the same in all rounds; return them by block and index."""
        gone: set[tuple[int, int]] = set()
        facts = self.facts
        for number, index, op in self.checks:
            args, offset = op.args, op.offset
            if len(args) > 1 or len(self.ops) >= MOST_CHECKS:
                continue
            if args:
                root = facts.root[args[0]]
                value, offset = self._in_front(args[0]), op.offset
                if value is None and root in self.holders:
                    holder = self.holders[root]
                    offset += facts.delta[args[0]] - facts.delta[holder]
                    value = self.moved[holder]
                elif value is None and root < facts.count:
                    value, offset = self._in_front(root), op.offset + facts.delta[args[0]]
                if value is None or abs(offset) > LARGEST_OFFSET or not self._is_in_each_round(number):
                    continue
                args = (value,)
            pc, leaves = self.block.pc, self.leaves
            self._add_check(Op(BOUND, args, op.imm, offset, pc, (), leaves, op.stores, op.region))
            gone.add((number, index))
        return gone

    def _add_check(self, op: Op) -> None:
        """Put a check in front, or make one there wider."""
        for index, other in enumerate(self.ops):
            if (other.row, other.args, other.region) != (BOUND, op.args, op.region):
                continue
            if self._may_widen(op) and bool(other.imm) == bool(op.imm):
                low, high = min(other.offset, op.offset), max(other.offset + other.imm, op.offset + op.imm)
                if high - low <= LONGEST_SPAN:
                    self.ops[index] = replace(
                        other, offset=low, imm=high - low, stores=other.stores or op.stores
                    )
                    return
        self.ops.append(op)

    def _may_widen(self, op: Op) -> bool:
        """True for a check that may stand for bytes of other sizes too: in no struct with rights."""
        return not self.facts.meets_rights or not op.args or op.region in ONLY.values()

    # -- what steps ----------------------------------------------------------------------------------------

    def _numbers(self) -> dict[int, int]:
        """Return the arguments of the header that are numbers in front of it, as they are known."""
        around, facts = self.around, self.facts
        outside = [pred for pred in self.dominators.preds[self.header] if pred[0] not in self.blocks]
        if len(outside) != 1 or self.header in around.entered:
            return {}
        before, way = outside[0]
        given = zip(self.block.args, around.code.blocks[before].ways[way].args, strict=True)
        return {arg: facts.delta[value] for arg, value in given if facts.root[value] == facts.constant}

    def _linear(self, value: int, depth: int = MOST_DEPTH) -> Linear | None:
        """Return a value of a round by values in front of the loop."""
        facts = self.facts
        root, number = facts.root[value], facts.delta[value]
        if root == facts.constant:
            return Linear((), W64.signed(number), 0)
        if root in self.steps:
            if root in self.numbers:
                return shifted(Linear((), W64.signed(self.numbers[root]), self.steps[root]), number)
            return Linear(((self.moved[root], 1),), number, self.steps[root])
        holder = self.holders.get(root)
        if holder is not None:
            return Linear(((self.moved[holder], 1),), number - facts.delta[holder], 0)
        if root >= facts.count:
            value_in_front = self._in_front(value)
            return None if value_in_front is None else Linear(((value_in_front, 1),), 0, 0)
        same = self._in_front(root)
        if same is not None:
            return Linear(((same, 1),), number, 0)
        op = facts.defined[root]
        if op is None or op.row.kind is not Kind.BINARY or op.row.width is not W64 or not depth:
            return None
        return shifted(self._made(op, depth - 1), number)

    def _made(self, op: Op, depth: int) -> Linear | None:
        """Return what an operation of 64 bits makes, by values in front of the loop."""
        a = self._linear(op.args[0], depth)
        b = self._linear(op.args[1], depth) if op.row.uses_src else Linear((), op.imm, 0)
        if a is None or b is None:
            return None
        match op.row.meaning:
            case "ADD":
                return added(a, b, 1)
            case "SUB":
                return added(a, b, -1)
            case "LSH" if not b.terms and not b.step:
                return multiplied(a, 1 << b.number % W64.bits)
            case "MUL" if not b.terms and not b.step:
                return multiplied(a, b.number)
        return None

    def _trips(self) -> list[Trip]:
        """Return how far counters get, by the tests that all rounds pass; what says it best comes first."""
        found = []
        for number in sorted(self.blocks):
            trip = self._trip(number)
            if trip is not None:
                found.append(trip)
        return sorted(found, key=lambda trip: (trip.rank, -trip.said if trip.step > 0 else trip.said))

    def _trip(self, number: int) -> Trip | None:
        """Return how far a counter gets by the test at the end of a block."""
        block, dominators = self.around.code.blocks[number], self.dominators
        row = block.end.row
        if row.kind is not Kind.BRANCH or row.meaning not in RELATIONS:
            return None
        staying = [way for way in (0, 1) if block.ways[way].block in self.blocks]
        if len(staying) != 1:
            return None
        target = block.ways[staying[0]].block
        if target == self.header:
            is_taken = all(before == number for before, _ in self.latches)
        else:
            is_only = len(dominators.preds[target]) == 1
            is_taken = is_only and self._is_in_each_round(target)
        if not is_taken:
            return None
        return self._counted(block, target, RELATIONS[row.meaning][staying[0]])

    def _counted(self, block: Block, target: int, relation: str) -> Trip | None:
        """Return how far a counter gets while it has a relation to something that stays as it is."""
        end, facts = block.end, self.facts
        row, w = end.row, end.row.width
        ranges = [facts.range(value) for value in end.args]
        if not row.uses_src:
            ranges.append((w.wrap(end.imm),) * 2)
        # Numbers that are the same at both widths, signed or not, in all rounds; or signed ones, to a number.
        half = 1 << w.bits - 1
        are_small = all(high < half for _, high in ranges)
        is_signed = row.meaning in SIGNED and not are_small
        if (w is not W64 and not are_small) or (is_signed and row.uses_src):
            return None
        a = self._linear(end.args[0])
        b = self._linear(end.args[1]) if row.uses_src else Linear((), w.signed(ranges[1][0]), 0)
        if a is None or b is None:
            return None
        if not a.step:
            a, b, relation, ranges = b, a, MIRRORED[relation], ranges[::-1]
        if not a.step or b.step or relation not in (UPWARDS if a.step > 0 else DOWNWARDS):
            return None
        unit = abs(a.step)
        if unit > LARGEST_FACTOR:
            return None
        strict = 1 if relation in ("<", ">") else 0
        has_room = relation == "!=" or is_signed  # an immediate is far from where signed numbers wrap
        if not has_room:
            has_room = self._has_room(ranges[1], unit - strict, a.step > 0)
        needed = 0 if has_room else unit - strict
        bound = shifted(b, -strict if a.step > 0 else strict)
        if bound is None:
            return None
        trip = Trip(a, bound, a.step, relation == "!=", target, b, needed, self._rank(end, bound))
        return None if way_of(trip) is None else trip

    def _rank(self, end: Op, bound: Linear) -> int:
        """Return how well a test says how far a loop gets, the lower the better.

        A number is often but the most that a verifier takes; what a packet says of its length may be wrong.
        """
        facts = self.facts
        if any(facts.root[value] in facts.packet_ends for value in end.args):
            return 0
        return 1 if any(facts.base[value] != UNKNOWN for value in end.args) else 2 if bound.terms else 3

    def _has_room(self, bound: tuple[int, int], needed: int, rises: bool) -> bool:
        """True where a counter that is not past the bound does not wrap when it steps past it."""
        return bound[1] + needed <= W64.mask if rises else bound[0] >= needed

    def _swept(self, trip: Trip, gone: set[tuple[int, int]]) -> list[Swept]:
        """Return what checks in the loop stand for in all rounds of a trip, those together that can be."""
        found: dict[tuple[object, ...], Swept] = {}
        unit = abs(trip.step)
        for number, index, op in self.checks:
            if (number, index) in gone or len(op.args) != 1 or not self._may_widen(op):
                continue
            at, stride = self._linear(op.args[0]), None
            if at is None and unit == 1:
                at, stride = self._striding(op.args[0], trip.step)
            if at is None or not at.terms or len(at.terms) > MOST_TERMS or at.step % unit:
                continue
            factor = at.step // trip.step
            if not factor or abs(factor) > LARGEST_FACTOR or abs(at.number) > LARGEST_OFFSET:
                continue
            is_early = not self.dominators.dominates(trip.target, number) or trip.target == self.header
            low = at.number + op.offset
            if not self._is_in_each_round(number) and is_beyond(trip, at, low, low + op.imm, is_early):
                continue  # there it may be asked first
            checks, high = ((number, index),), low + op.imm
            one = Swept(at.terms, factor, low, high, op.stores, op.region, is_early, checks, stride)
            key = (at.terms, factor, is_early, stride, op.region in ONLY.values() and op.region)
            other = found.get(key)
            together = one if other is None else joined(other, one)
            if together is not None and (other is not None or len(found) + len(self.ops) < MOST_CHECKS):
                found[key] = together
        return list(found.values())

    def _striding(self, value: int, step: int) -> tuple[Linear | None, int | None]:
        """Return a value that each round adds another to, which stays as it is and is at most LARGEST.

        As a sum that steps as the counter does, and what it really steps by.
        """
        facts = self.facts
        root = facts.root[value]
        if root not in self.moved or len(self.latches) != 1:
            return None, None
        before, way = self.latches[0]
        back = self.around.code.blocks[before].ways[way].args[self.block.args.index(root)]
        parts = facts.parts[facts.root[back]]
        if parts is None or root not in parts[:2] or parts[2] + facts.delta[back]:
            return None, None
        other = parts[1] if parts[0] == root else parts[0]
        if other == root or other >= facts.count or facts.high[other] > LARGEST:
            return None, None
        holder = self.holders.get(other)
        if holder is not None and facts.delta[holder]:
            return None, None
        stride = self.moved[holder] if holder is not None else self._in_front(other)
        if stride is None:
            return None, None
        return Linear(((self.moved[root], 1),), facts.delta[value], step), stride

    # -- in front ------------------------------------------------------------------------------------------

    def _emit(self, row: Row, args: tuple[int, ...], imm: int = 0) -> int:
        """Add an operation in front; return its value."""
        value = self.around.new(0)
        self.ops.append(Op(row, args, imm, 0, self.block.pc, (value,)))
        return value

    def _plus(self, value: int, number: int) -> int:
        return self._emit(ADD_IMM, (value,), number) if number else value

    def _product(self, value: int, factor: int) -> int:
        """Return a value times a number above zero."""
        if factor == 1:
            return value
        if (value, factor) not in self.products:
            is_power = not factor & factor - 1
            row, number = (SHIFT, factor.bit_length() - 1) if is_power else (MUL_IMM, factor)
            self.products[value, factor] = self._emit(row, (value,), number)
        return self.products[value, factor]

    def _value(self, linear: Linear) -> int:
        """Return the value of a sum as it is before the first round."""
        total: int | None = None
        for value, factor in linear.terms:
            term = self._product(value, abs(factor))
            if total is None:
                total = term if factor > 0 else self._emit(SUB, (self._emit(MOVE_IMM, ()), term))
            else:
                total = self._emit(ADD if factor > 0 else SUB, (total, term))
        if total is None:
            return self._emit(MOVE_IMM, (), linear.number)
        return self._plus(total, linear.number)

    def _ask(self, trip: Trip, swept: Sequence[Swept]) -> list[Leaving]:
        """Add what is asked for a trip; return what must not be."""
        rises, unit = trip.step > 0, abs(trip.step)
        way = way_of(trip)
        assert way is not None  # it was looked at
        far = self._value(way)
        leaving = []
        if unit > 1 or any(abs(one.factor) != 1 or one.stride is not None for one in swept):
            leaving.append(Leaving(FARTHER, far, LARGEST))
        if trip.needed:
            row, number = (FARTHER, -1 - trip.needed) if rises else (NEARER, trip.needed)
            leaving.append(Leaving(row, self._value(trip.compared), number))
        if unit & unit - 1:
            rest = self._emit(MOD_IMM, (far,), unit)
            if trip.stops_at:
                leaving.append(Leaving(NOT_EQUAL, rest, 0))
            else:
                far = self._emit(SUB, (far, rest))
        elif unit > 1 and trip.stops_at:
            self.ops.append(Op(ALIGNED, (far,), unit, 0, self.block.pc, (), self.leaves))
        elif unit > 1:
            far = self._emit(AND_IMM, (far,), -unit)
        for one in swept:
            low = min(one.low, 0)  # above zero it stays a displacement
            first = self._value(Linear(one.terms, low, 0))
            factor = one.factor if rises else -one.factor
            rounds = far if one.is_early else self._plus(far, -unit)
            if one.stride is not None:
                factor, by = 1, self._emit(MUL, (rounds, one.stride))
            else:
                by = self._product(rounds, abs(factor))
            last = self._emit(ADD if factor > 0 else SUB, (first, by))
            args = (first, last) if factor > 0 else (last, first)
            size, offset = one.high - one.low, one.low - low
            op = Op(BOUND, args, size, offset, self.block.pc, (), self.leaves, one.stores, one.region)
            self.ops.append(op)
        return leaving

    def _put(self, gone: set[tuple[int, int]], leaving: list[Leaving]) -> None:
        """Put the block in front of the loop, and take the checks out of it."""
        around, header = self.around, self.header
        front, pc = len(around.blocks), self.block.pc
        args = tuple(self.moved[arg] for arg in self.block.args)
        inside = Way(header, args)
        if not leaving:
            end = Op(JUMP, (), 0, 0, pc)
            around.blocks.append(Block(pc, args, tuple(self.ops), end, (inside,)))
        for index, one in enumerate(leaving):
            first, is_last = index == 0, index == len(leaving) - 1
            end = Op(one.row, (one.value,), one.number, 0, pc)
            others = inside if is_last else Way(front + index + 1, ())
            ways = (Way(front + len(leaving), ()), others)
            around.blocks.append(
                Block(pc, args if first else (), tuple(self.ops) if first else (), end, ways)
            )
        if leaving:
            around.blocks.append(Block(pc, (), (), Op(LEAVE, (), 0, 0, pc, (), self.leaves)))
        for before in {number for number, _ in self.dominators.preds[header]} - self.blocks:
            block = around.blocks[before]
            turned = [Way(front, each.args) if each.block == header else each for each in block.ways]
            around.blocks[before] = Block(block.pc, block.args, block.ops, block.end, tuple(turned))
        for pc in around.entered.get(header, ()):
            around.entries[pc] = Entry(front, around.entries[pc].registers)
        for number in {number for number, _ in gone}:
            block = around.blocks[number]
            ops: list[Op] = []
            for index, op in enumerate(block.ops):
                if op.row is BOUND and (number, index) in gone:
                    self._prove(op)
                else:
                    ops.append(op)
            around.blocks[number] = Block(block.pc, block.args, tuple(ops), block.end, block.ways)

    def _prove(self, op: Op) -> None:
        value = op.args[0] if op.args else NO_VALUE
        low, high = op.offset, op.offset + op.imm
        proof = Proof("loop", value, low, op.imm, op.stores, low, high, self.block.pc)
        self.around.proofs[op.pc] = (*self.around.proofs.get(op.pc, ()), proof)
