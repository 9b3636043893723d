r"""What is known of each value: between which numbers it lies, and how far from which other value, or region.

    b0 (v0, v1):                            v0 is r1, the argument; v1 is r2, how many bytes are there
      v2 = 0
      if v1 > 3 goto b1 else b3             in b1: v1 >= 4
    b1 (v3) from b0 (v2), b1 (v6):          v3: 0 .. v1 - 1, as b1 comes round for v6 < v1 only
      v4 = v0 + v3                          v4: v0 + v3, in the argument, v3 behind its start
      v5 = *(u8 *)(v4 + 0)                  v5: 0 .. 255
      v6 = v3 + 1                           v6: v3 + 1
      if v6 < v1 goto b1(v6) else b2

One walk down the tree of dominators, in reverse postorder. What a condition says holds in all that its way
dominates, and is taken back behind it. An argument of a block is what comes in on all ways. Of ways back of
loops that is not known yet: there it is worked out from how values step (`optimizer.induction`), or it is
what the operations can give at most. Nothing is guessed, so nothing is walked twice.

All of it is so in each run of the *program*, whichever code runs it, and nothing follows from bounds. So code
as it was built is walked from the functions on as if nothing came in from baseline code elsewhere: what does
has come by the same ways there, and what is known of arguments holds for it as well.

Numbers besides those of values stand for what values are counted from: CONSTANT, ARGUMENT, LENGTH, ...
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Protocol

from ebpfjit.analysis.accesses import Promises
from ebpfjit.bits import U64_MASK, W32, W64, Width
from ebpfjit.isa import semantics
from ebpfjit.isa.spec import FRAME_POINTER, Kind, Row
from ebpfjit.isa.table import TABLE
from ebpfjit.isa.unencoded import UNENCODED
from ebpfjit.optimizer import intervals
from ebpfjit.optimizer.code import Block, Code, Entry, Op
from ebpfjit.optimizer.dominators import Dominators
from ebpfjit.optimizer.facts import (
    FARTHEST,
    LARGEST_DELTA,
    MOST,
    MOST_LENGTH,
    NOTHING,
    NOWHERE,
    UNKNOWN,
    Facts,
    Incoming,
    both,
)
from ebpfjit.optimizer.induction import Induction
from ebpfjit.optimizer.intervals import MIRRORED, RELATIONS, SIGNED, Interval, compared, low_zeros, zeros_of
from ebpfjit.optimizer.scaled import SCALING, Scaled
from ebpfjit.runtime.rights import PACKET_POINTERS, Rights

Trail = list[tuple[Any, int, Any]]
"""What was changed for a part of the walk: list or dictionary, index, what was there."""


Compares = tuple[tuple[str, str], Width, bool]
"""What a comparison says where it holds and where it does not, its width, whether it reads signs."""


class Visitor(Protocol):
    """Who looks at operations while what is known at their place is there."""

    def start(self, number: int) -> None:
        """See the start of a block."""

    def op(self, index: int, op: Op) -> None:
        """See an operation of that block: a BOUND, ALIGNED or a call, before it."""

    def end(self, trail: Trail) -> None:
        """See the end of the block; what is on the trail is taken back behind all that it dominates."""


class _Nobody:
    """Who looks at nothing."""

    def start(self, number: int) -> None:
        """See nothing."""

    def op(self, index: int, op: Op) -> None:
        """See nothing."""

    def end(self, trail: Trail) -> None:
        """See nothing."""


MAKES_ZEROS = frozenset({"AND", "MUL", "LSH"})
"""What makes multiples of numbers that are none."""

SEEN = frozenset(
    {Kind.BOUND, Kind.ALIGNED, Kind.CALL_HELPER, Kind.CALL_KFUNC, Kind.CALL_LOCAL, Kind.CALL_REGISTER}
)
"""The kinds that a visitor sees."""


class Walk:
    """A walk over code that finds out what is known, and shows it to a visitor."""

    def __init__(self, code: Code, promises: Promises, visitor: Visitor | None = None) -> None:
        self.code, self.promises, self.visitor = code, promises, visitor or _Nobody()
        verified = code.verified
        program = verified.program
        starts = {entry.block for pc, entry in code.entries.items() if pc in program.functions}
        self.is_entered_elsewhere = len(starts) < len(code.entries)
        self.dominators = Dominators(code.shape, starts)
        self.map_at = {map_.address: map_ for map_ in program.maps}
        count = len(code.homes) or max(code.values(), default=-1) + 1
        self.facts = Facts(count, [pc for pc in code.entries if pc in program.functions])
        self.main_is_called = verified.entries_with(promises.calling).is_main_called
        self.is_measured = promises.argument_is_measured and not self.main_is_called
        if self.is_measured:
            self.facts.limit[self.facts.length] = 0
            self.facts.high[self.facts.length] = MOST_LENGTH
        self.defined, self.where = self.facts.defined, self.facts.where
        self.at = [-1] * count
        """By value, the block whose argument it is."""
        self.place_in: list[int] = [0] * count
        """By argument, which of its block's it is."""
        self.is_known = bytearray(count)
        """By argument, whether it is known already; of other values that is told by `is_walked`."""
        self.is_walked = bytearray(len(code.blocks))
        self.joined: list[list[Incoming] | None] = [None] * len(code.blocks)
        rights = promises.argument_rights
        self.pointers = {} if rights is None else _packet_pointers(rights)
        """Where in the argument there are pointers into the packet; their names."""
        self.trail: Trail = []
        self.scaled = Scaled(self)
        self._index()
        self.induction = Induction(self)

    def _index(self) -> None:
        """Find out where values are defined, and what comes into arguments."""
        blocks, at, where, defined = self.code.blocks, self.at, self.where, self.defined
        for number in self.dominators.order:
            block = blocks[number]
            for index, arg in enumerate(block.args):
                at[arg] = where[arg] = number
                self.place_in[arg] = index
            for op in block.ops:
                for result in op.results:
                    defined[result] = op
                    where[result] = number
        self.entered: dict[int, list[tuple[int, Entry]]] = {}
        for pc, entry in self.code.entries.items():
            if pc in self.code.verified.program.functions:
                self.entered.setdefault(entry.block, []).append((pc, entry))

    def incoming(self, arg: int) -> list[int]:
        """Return what an argument is on each way to its block."""
        blocks, number, index = self.code.blocks, self.at[arg], self.place_in[arg]
        return [blocks[before].ways[way].args[index] for before, way in self.dominators.preds[number]]

    def run(self) -> Facts:
        """Walk."""
        dominators, trail = self.dominators, self.trail
        waiting = [~root for root in reversed(dominators.roots)]
        marks: list[int] = []
        while waiting:
            number = waiting.pop()
            if number >= 0:
                self._take_back(marks.pop())
                continue
            number = ~number
            marks.append(len(trail))
            waiting.append(number)
            self._block(number)
            for child in reversed(dominators.children[number]):
                waiting.append(~child)
        del self.visitor, self.scaled, self.induction  # which lead back here: no work for the collector
        return self.facts

    def _take_back(self, mark: int) -> None:
        trail = self.trail
        while len(trail) > mark:
            where, index, before = trail.pop()
            where[index] = before

    def _block(self, number: int) -> None:
        """Find out what is known in a block, and on the ways out of it."""
        block = self.code.blocks[number]
        only = self._only_way_in(number)
        if only is not None:
            self._on_way(self.code.blocks[only[0]], only[1])
        if block.args:
            self._arguments(number, block)
        visitor = self.visitor
        visitor.start(number)
        for index, op in enumerate(block.ops):
            step, is_seen = _HOW[op.row]
            if is_seen:
                visitor.op(index, op)
            if step is not None:
                step(self, op)
        visitor.end(self.trail)
        self.is_walked[number] = 1
        place, trail = self.dominators.place, self.trail
        for index, out in enumerate(block.ways):
            if out.args and place[out.block] > place[number]:
                mark = len(trail)
                self._on_way(block, index)
                self._join(out.block, [self._on(value) for value in out.args])
                if self.scaled.known:
                    self.scaled.join(out.block, out.args)
                if len(trail) > mark:
                    self._take_back(mark)

    def knows(self, value: int) -> bool:
        """True where what is known of a value is there: not of those of rounds that are still to come."""
        return bool(self.is_known[value]) if self.at[value] >= 0 else bool(self.is_walked[self.where[value]])

    def _only_way_in(self, number: int) -> tuple[int, int] | None:
        """Return the one way to a block: (block, which of its ways), but for those of rounds of its loop.

        What is known by it of values from outside stays in all rounds.
        """
        dominators = self.dominators
        ways_in = dominators.preds[number]
        if dominators.idom[number] < 0 or number in self.entered:
            return None
        if len(ways_in) > 1:
            ways_in = [each for each in ways_in if not dominators.dominates(number, each[0])]
        return ways_in[0] if len(ways_in) == 1 else None

    # -- arguments ----------------------------------------------------------------------------------------

    def _on(self, value: int) -> Incoming:
        """Return what is known of a value here."""
        facts = self.facts
        root, base, zeros = facts.root[value], facts.base[value], facts.zeros[value]
        low, high = facts.range(value) if root != value else (facts.low[value], facts.high[value])
        delta, near, far, limit = facts.delta[value], NOWHERE, NOWHERE, NOWHERE
        if base != UNKNOWN:
            base, near, far = facts.place(value) or (base, NOWHERE, NOWHERE)
        if self.is_measured:
            room = facts.room_behind(value) if base == facts.argument else facts.room(value)
            limit = NOWHERE if room is None else room
        return low, high, zeros, root, delta, base, near, far, limit

    def _join(self, number: int, new: list[Incoming]) -> None:
        """Put what is known on a way to what is known on the ways before."""
        old = self.joined[number]
        self.joined[number] = new if old is None else list(map(both, old, new))

    def _arguments(self, number: int, block: Block) -> None:
        """Find out what the arguments of a block are."""
        if number in self.entered:
            for pc, entry in self.entered[number]:
                self._join(number, [self._at_start(pc, register) for register in entry.registers])
        known = self.joined[number]
        self.joined[number] = None
        if known is None:
            pass  # runs come from outside only
        elif number in self.induction.targets:
            self._around(number, block.args, known)
        else:
            for arg, first in zip(block.args, known, strict=True):
                self.define(arg, first)
            if self.scaled.joined:
                self.scaled.define(number, block.args)
        for arg in block.args:
            self.is_known[arg] = 1

    def _around(self, number: int, args: Iterable[int], known: list[Incoming]) -> None:
        """Find out what the arguments of a block are that rounds come back to; those first that stay."""
        later = []
        induction, rooms = self.induction, self.scaled.joined.pop(number, None)
        comes_round = induction.coming_round(number)
        for index, (arg, first) in enumerate(zip(args, known, strict=True)):
            back = [(latch, values[index]) for latch, values in comes_round if values[index] != arg]
            if not back or induction.is_invariant(number, arg, first, back):
                self.define(arg, first)
                self.is_known[arg] = 1
            else:
                later.append((arg, first, None if rooms is None else rooms[index], back))
        for arg, first, room, back in later:
            self.define(arg, self.induction.argument(number, arg, first, back))
            if room is not None:
                self.scaled.argument(arg, first, self.induction.rooms(number, arg, first, room, back))

    def define(self, value: int, known: Incoming) -> None:
        """Write down what is known of a value; one that may be several roots is its own."""
        facts = self.facts
        low, high, zeros, root, delta, base, near, far, limit = known
        facts.low[value], facts.high[value], facts.zeros[value] = low, high, zeros
        facts.base[value], facts.near[value], facts.far[value] = base, near, far
        if low == high:
            root, delta = facts.constant, low
        if root != UNKNOWN:
            facts.root[value], facts.delta[value] = root, delta
        else:
            facts.limit[value] = limit

    def _at_start(self, pc: int, register: int) -> Incoming:
        """Return what a register is where a function is entered."""
        facts = self.facts
        if register == FRAME_POINTER:
            return self._on(facts.frame + facts.functions.index(pc))
        if pc or self.main_is_called:
            return NOTHING
        if register == 1:
            return self._on(facts.argument)
        if register == 2:
            return self._on(facts.length) if self.is_measured else NOTHING
        return 0, 0, 64, facts.constant, 0, UNKNOWN, NOWHERE, NOWHERE, NOWHERE

    # -- conditions ---------------------------------------------------------------------------------------

    def _change(self, where: list[int], index: int, value: int) -> None:
        self.trail.append((where, index, where[index]))
        where[index] = value

    def _on_way(self, block: Block, way: int) -> None:
        """Learn what a way out of a block says; what is learnt is put on the trail."""
        end = block.end
        compares = _COMPARES.get(end.row)
        if compares is None:
            return
        taken, other = block.ways
        if taken.block != other.block or taken.args != other.args:
            self._learn(end, way, compares)

    def _learn(self, end: Op, way: int, compares: Compares) -> None:
        """Learn what a comparison says where it holds (way 0), or does not; it is put on the trail."""
        facts, (relations, w, signed) = self.facts, compares
        relation, mask, a = relations[way], w.mask, end.args[0]
        x = facts.range(a) if facts.root[a] != a else (facts.low[a], facts.high[a])
        if not end.row.uses_src:
            number = end.imm & mask
            if x[1] <= mask:
                self._narrow(a, x, compared(w, relation, x, (number, number), signed=signed))
            return
        b = end.args[1]
        y = facts.range(b)
        is_whole_a, is_whole_b, whole = x[1] <= mask, y[1] <= mask, (0, mask)
        if is_whole_a:
            self._narrow(a, x, compared(w, relation, x, y if is_whole_b else whole, signed=signed))
        if is_whole_b:
            self._narrow(b, y, compared(w, MIRRORED[relation], y, x if is_whole_a else whole, signed=signed))
        if w is W64 and not signed:
            if self.is_measured:
                self._measure(relation, a, b)
            if facts.packet_ends:
                self._look_ahead(relation, a, b)

    def _narrow(self, value: int, before: Interval, found: Interval | None) -> None:
        """Write down where a value lies here; None where this way is never taken, which needs no facts."""
        if found is None or found == before:
            return
        facts = self.facts
        low, high = found
        root, delta = facts.root[value], facts.delta[value]
        if root == facts.constant:
            return
        if root != value:
            self._change(facts.low, value, low)
            self._change(facts.high, value, high)
            if facts.low[root] + delta < 0 or facts.high[root] + delta > U64_MASK:
                return
            low, high = max(low - delta, facts.low[root]), min(high - delta, facts.high[root])
            if low > high:
                return
        self._change(facts.low, root, low)
        self._change(facts.high, root, high)
        limit = facts.limit[root]
        if limit != NOWHERE and facts.base[root] != facts.argument:
            self.lengthen(low + limit)
        if self.scaled.known:
            scaled = self.scaled.known.get(root)
            if scaled is not None:
                self.lengthen(scaled.factor * low + scaled.room)

    def lengthen(self, least: int) -> None:
        """Learn how long the argument is at least."""
        length = self.facts.length
        if least > self.facts.low[length]:
            self._change(self.facts.low, length, min(least, self.facts.high[length]))

    def _measure(self, relation: str, a: int, b: int) -> None:
        """Learn of a relation between two values how far one is from the end of the argument, at least."""
        if relation == "!=":
            facts = self.facts
            for lower, upper in ((a, b), (b, a)):
                if facts.is_end(upper):
                    room = facts.room_behind(lower) if facts.parts[facts.root[upper]] else facts.room(lower)
                    if room == 0:
                        self._limit(lower, upper, 1)
            return
        if relation in (">", ">="):
            a, b = b, a
        least = 1 if relation in ("<", ">") else 0
        self._limit(a, b, least)
        if relation == "==":
            self._limit(b, a, least)

    def _look_ahead(self, relation: str, a: int, b: int) -> None:
        """Note how many bytes behind a pointer a comparison with the packet's end speaks of."""
        facts = self.facts
        if relation in (">", ">="):
            a, b = b, a
        if facts.root[b] not in facts.packet_ends or relation in ("==", "!="):
            return
        root, before = facts.root[a], facts.ahead.get(facts.root[a], 0)
        ahead = facts.delta[a] + (relation in ("<", ">")) - facts.delta[b]
        if ahead > before:
            self.trail.append((facts.ahead, root, before))
            facts.ahead[root] = ahead

    def _limit(self, lower: int, upper: int, least: int) -> None:
        """Learn that lower + least <= upper."""
        facts = self.facts
        root, delta = facts.root[lower], facts.delta[lower]
        if root == facts.constant:
            return
        if self.scaled.known:
            self.scaled.learn(lower, upper, least)
        if facts.base[facts.root[upper]] == facts.argument:
            room = self.room_ahead(upper)
            if room is None or not self.is_ahead(lower):
                return
            parts = facts.parts[root]
            if parts is not None and parts[0] == facts.argument != facts.base[parts[1]]:
                root, delta = parts[1], delta + parts[2]
        elif facts.base[root] != facts.argument:
            room = facts.room(upper)
            if room is None or facts.low[root] + delta < 0 or facts.high[root] + delta > U64_MASK:
                return
        else:
            return
        limit = delta + least + room
        if abs(limit) > LARGEST_DELTA:
            return
        if root < facts.count and (facts.limit[root] == NOWHERE or facts.limit[root] < limit):
            self._change(facts.limit, root, limit)
            self.scaled.limited(root, limit)
        self.lengthen(limit if facts.base[root] == facts.argument else facts.low[root] + limit)

    def room_ahead(self, pointer: int) -> int | None:
        """Return a k with distance + k <= LENGTH, for a pointer that is behind the argument's start."""
        return self.facts.room_behind(pointer) if self.is_ahead(pointer) else None

    def is_ahead(self, pointer: int) -> bool:
        """True for a pointer behind the argument's start, and not so far that its address wraps."""
        facts = self.facts
        place = facts.place(pointer)
        if place is not None:
            return place[0] == facts.argument and place[1] >= 0
        root, delta = facts.root[pointer], facts.delta[pointer]
        parts = facts.parts[root]
        if parts is not None and parts[0] == facts.argument:
            # Behind the start by a number that is not too large, as it has room before the length.
            by = parts[2] + delta
            return facts.limit[parts[1]] != NOWHERE and facts.low[parts[1]] + by >= 0
        if facts.base[root] != facts.argument or facts.limit[root] == NOWHERE:
            return False
        return facts.near[root] != NOWHERE and facts.near[root] + delta >= 0

    # -- operations ---------------------------------------------------------------------------------------

    def _constant(self, value: int, number: int) -> None:
        facts = self.facts
        facts.low[value] = facts.high[value] = number
        facts.zeros[value] = zeros_of(number)
        facts.root[value], facts.delta[value] = facts.constant, number

    def _same(self, value: int, source: int, by: int = 0) -> bool:
        """Make a value another one plus a number, modulo 2**64; False where that is too far."""
        facts = self.facts
        root, delta = facts.root[source], facts.delta[source] + by
        if root == facts.constant or abs(delta) > LARGEST_DELTA:
            return False
        facts.root[value], facts.delta[value] = root, delta
        facts.base[value] = facts.base[source]
        near = facts.near[source]
        if near != NOWHERE:
            facts.near[value], facts.far[value] = near + by, facts.far[source] + by
        return True

    def _binary(self, op: Op) -> None:
        row, facts = op.row, self.facts
        w, meaning, value, a = row.width, row.meaning, op.results[0], op.args[0]
        mask = w.mask
        x = whole = facts.range(a) if facts.root[a] != a else (facts.low[a], facts.high[a])
        if x[1] > mask:
            x = 0, mask
        if row.uses_src:
            b = op.args[1]
            y = facts.range(b) if facts.root[b] != b else (facts.low[b], facts.high[b])
            if y[1] > mask:
                y = 0, mask
            is_number = y[0] == y[1]
        else:
            number, is_number = op.imm & mask, True
            y = number, number
        if is_number and x[0] == x[1]:
            self._constant(value, semantics.BINARY[meaning](w, x[0], y[0]))
            return
        low, high = intervals.BINARY[meaning](w, x, y)
        if low == high:
            self._constant(value, low)
            return
        facts.low[value], facts.high[value] = low, high
        if meaning == "ADD" or meaning == "SUB":
            if is_number:
                self._moved(op, a, y[0])
            else:
                self._sum(op, whole, y)
        elif meaning == "AND" and is_number and whole == x and _keeps(x[1], y[0]):
            self._same(value, a)
        elif is_number and self.is_measured and whole == x and meaning in SCALING:
            self.scaled.operation(meaning, value, a, x, y[0], w.bits)
        zeros = facts.zeros[a]
        if zeros or meaning in MAKES_ZEROS:
            others = zeros_of(y[0]) if is_number else facts.zeros[op.args[1]]
            amount = y[0] % w.bits if is_number else None
            facts.zeros[value] = min(low_zeros(meaning, zeros, others, amount), 64)

    def _moved(self, op: Op, source: int, number: int) -> None:
        """Follow the addition or subtraction of a number, of 64 bits or of what is the same there."""
        facts, value, w = self.facts, op.results[0], op.row.width
        adds = op.row.meaning == "ADD"
        by = w.signed(number) if adds else -w.signed(number)
        if w is W32:
            low, high = facts.range(source)
            if low + by < 0 or high + by > W32.mask:
                return  # it wraps where 64 bits would not
        if not self._same(value, source, by) and adds and w is W64:
            # An address, plus what varies.
            root = facts.root[source]
            facts.parts[value] = facts.constant, root, facts.delta[source] + number

    def _sum(self, op: Op, x: Interval, y: Interval) -> None:
        """Follow an addition or a subtraction of values."""
        facts, value, (a, b) = self.facts, op.results[0], op.args
        adds = op.row.meaning == "ADD"
        if adds and x[0] == x[1]:
            self._moved(op, b, x[0])
            return
        if op.row.width is W32:
            return
        if adds and self._is_pointer(b) > self._is_pointer(a):
            a, b = b, a
        pointer, scalar = facts.root[a], facts.root[b]
        number = facts.delta[a] + facts.delta[b]
        if adds and facts.constant not in (pointer, scalar) and abs(number) <= LARGEST_DELTA:
            facts.parts[value] = pointer, scalar, number
        facts.base[value] = facts.base[a]
        if facts.near[a] != NOWHERE:
            low, high = intervals.as_signed(W64, facts.range(b))
            low, high = (low, high) if adds else (-high, -low)
            near, far = facts.near[a] + low, facts.far[a] + high
            if -FARTHEST < near <= far < FARTHEST:
                facts.near[value], facts.far[value] = near, far

    def _is_pointer(self, value: int) -> int:
        """Return how surely a value is a pointer, and not the number that is added to one."""
        base = self.facts.base[value]
        if base == UNKNOWN:
            return 0
        return 2 if base >= self.facts.frame or base == self.facts.argument else 1

    def _move(self, op: Op) -> None:
        row, facts, value = op.row, self.facts, op.results[0]
        w = row.width
        if not op.args:
            self._constant(value, semantics.MOVE[row.meaning](w, w.wrap(op.imm)))
            return
        low, high = facts.range(op.args[0])
        bits = row.offset if isinstance(row.offset, int) and row.offset else w.bits
        if low == high:
            self._constant(value, semantics.MOVE[row.meaning](w, w.wrap(low)))
            return
        facts.high[value] = w.mask
        facts.zeros[value] = min(facts.zeros[op.args[0]], 64)
        if bits == 64 or high < 1 << (bits - 1 if row.meaning != "MOV" else bits):
            facts.low[value], facts.high[value] = low, high
            self._same(value, op.args[0])

    def _select(self, op: Op) -> None:
        """One value, by what is known of it where the comparison holds, or the other where it does not."""
        found = []
        for way, value in enumerate(op.args[-2:]):
            mark = len(self.trail)
            compares = _COMPARES.get(op.row)
            if compares is not None:
                self._learn(op, way, compares)
            found.append(self._on(value))
            self._take_back(mark)
        self.define(op.results[0], both(*found))

    def _unary(self, op: Op) -> None:
        row, facts, value = op.row, self.facts, op.results[0]
        w = row.width
        low, high = facts.range(op.args[0])
        if low == high:
            self._constant(value, semantics.UNARY[row.meaning](w, w.wrap(low)))
            return
        facts.high[value] = MOST[row]
        if row.meaning.startswith("LE") and high <= facts.high[value]:
            facts.low[value], facts.high[value] = low, high
            self._same(value, op.args[0])

    def _wide(self, op: Op) -> None:
        self._constant(op.results[0], op.imm)

    def _load(self, op: Op) -> None:
        facts, size = self.facts, op.row.size
        facts.high[op.results[0]] = MOST[op.row]
        if size < 4 or facts.base[op.args[0]] != facts.argument:
            return
        if self.promises.argument_rights is None:
            if size == 8:
                facts.base[op.results[0]] = facts.packet
            return
        place = facts.place(op.args[0])
        name = self.pointers.get((place[1] + op.offset, size)) if place and place[1] == place[2] else None
        if name is not None:
            facts.base[op.results[0]] = facts.packet
            if name == "data_end":
                facts.packet_ends.add(op.results[0])

    def _plain(self, op: Op) -> None:
        for value in op.results:
            self.facts.high[value] = MOST[op.row]

    def _call_out(self, op: Op) -> None:
        """What a lookup returns is zero, or a value of the map."""
        if op.imm & W32.mask not in self.promises.lookups or op.row.kind is not Kind.CALL_HELPER:
            return
        map_ = self.map_at.get(self.facts.number(op.args[0]) or -1)
        if map_ is not None:
            self.facts.base[op.results[0]] = self.facts.map_value
            if map_.value_is_stable:
                self.facts.lookups[op.results[0]] = map_.definition.value_size, not map_.is_readonly


def _packet_pointers(rights: Rights) -> dict[tuple[int, int], str]:
    """Return the fields of a struct that point into the packet, by where they are and their size."""
    found = [field for field in rights.fields if field[0] in PACKET_POINTERS]
    return {(start, stop - start): name for name, start, stop in found}


def _keeps(high: int, mask: int) -> bool:
    """True where a mask leaves all numbers up to `high` as they are."""
    return (1 << high.bit_length()) - 1 & ~mask == 0


_STEPS: dict[Kind, Callable[[Walk, Op], None]] = {
    Kind.BINARY: Walk._binary,
    Kind.MOVE: Walk._move,
    Kind.UNARY: Walk._unary,
    Kind.LOAD_IMM64: Walk._wide,
    Kind.LOAD: Walk._load,
    Kind.ATOMIC: Walk._plain,
    Kind.PACKET_LOAD: Walk._plain,
    Kind.CALL_HELPER: Walk._call_out,
    Kind.SELECT: Walk._select,
}


_COMPARES: dict[Row, Compares] = {
    row: (RELATIONS[row.meaning], row.width, row.meaning in SIGNED)
    for row in (*TABLE, *UNENCODED.values())
    if row.kind in (Kind.BRANCH, Kind.SELECT) and row.meaning in RELATIONS
}
"""Comparisons that say something of what they compare, by row."""

_HOW = {row: (_STEPS.get(row.kind), row.kind in SEEN) for row in (*TABLE, *UNENCODED.values())}
"""By row: what an operation makes known, and whether a visitor sees it."""
