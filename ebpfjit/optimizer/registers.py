"""Code -> placed Code: a register for each value, wherever it is read.

    before                        after (v1 is still read in the loop, v3 is not)
    b1 (v3, v4):                  b1 (v3 in r1, v4 in r3):
      v5 = *(u8 *)(v3 + 0)          r4 = *(u8 *)(r1 + 0)
      v6 = v4 + v5                  r3 += r4
      v7 = v3 + 1                   r1 += 1
      if v7 != v1 goto b1(v7, v6)   if r1 != r2 goto b1

Blocks are taken so that of those that lead to one, one at least comes first: where values are at its end
is where they are at the start of the next, and the other ways there move them. A value goes where it is
wanted next; else to the register that it was of; else to any that is free. No two values that are still read
are ever in one register: a step looks only at what is free before it.

Where there are too few registers the value that is read last gives up its own (Belady). It is stored where it
is defined, once, to a word of the machine's stack, and loaded from there where it is read again: as a value
never changes, what was stored stays right.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from ebpfjit.analysis.entries import OUTWARD_CALLS
from ebpfjit.errors import OptimizationError
from ebpfjit.isa.spec import FRAME_POINTER, Kind
from ebpfjit.isa.table import TABLE
from ebpfjit.isa.unencoded import UNENCODED
from ebpfjit.optimizer.code import CALL_RESULTS, Block, Code, Op, Way
from ebpfjit.optimizer.flow import value_count
from ebpfjit.optimizer.last_use import BEHIND, LastUse
from ebpfjit.optimizer.next_use import FAR, NEVER, NextUse
from ebpfjit.optimizer.parts import cut
from ebpfjit.optimizer.placed import Move, PlacedBlock, PlacedCode, Places
from ebpfjit.translators.machine import SPILLED, Registers

HELPER_CALLS = frozenset({Kind.CALL_HELPER, Kind.CALL_KFUNC})
LOCAL_CALLS = frozenset({Kind.CALL_LOCAL, Kind.CALL_REGISTER})
"""What gives all registers back but those of results that are read; others write theirs at any rate."""
MOST_TRIES = 3
"""Times that code is placed, each time with more on the stack in loops that do not read it."""

MOST_WORDS = 96
"""Words of the machine's stack for the values of one program."""

LOOPS = frozenset({"AND", "OR", "XOR"})
"""Fetching operations that no machine instruction does: a loop with a register more."""
COMMUTATIVE = frozenset(
    row
    for row in TABLE
    if row.kind is Kind.BINARY and row.uses_src and row.meaning in ("ADD", "MUL", "AND", "OR", "XOR")
)
HELPER_ROWS = frozenset(row for row in TABLE if row.kind in HELPER_CALLS)


def place(code: Code, registers: Registers) -> PlacedCode:
    """Return code with registers. Raises OptimizationError where there are too few."""
    order = code.shape.order
    placer = _Placer(code, registers, LastUse(code, order))
    place, ways = code.shape.place, code.shape.ways
    leading = [(index, place[way]) for index, number in enumerate(order) for way in ways[number]]
    for part in cut(len(order), leading):
        placer.part(order[part.start : part.stop])
    return placer.placed()


def reads(op: Op) -> list[int]:
    """Return all values that an operation reads, those of its exit too."""
    leaves = op.exit
    if leaves is None:
        return list(op.args)
    return [*op.args, *(value for value in leaves.registers if value is not None)]


def sequential(moves: Mapping[int, int], scratch: int) -> list[Move]:
    """Return copies (destination: source) that are made at once as moves, one after the other."""
    pending = {dst: src for dst, src in moves.items() if dst != src}
    done: list[Move] = []
    readers: dict[int, int] = {}
    for src in pending.values():
        readers[src] = readers.get(src, 0) + 1
    ready = [dst for dst in pending if dst not in readers]
    while pending:
        if not ready:  # all that is left goes round: one of them waits in between
            dst = next((each for each in pending if each < SPILLED), scratch)
            if dst == scratch:
                dst = next(iter(pending))  # there are words only
            done.append(Move(scratch, dst))
            pending = {other: scratch if src == dst else src for other, src in pending.items()}
            readers[scratch], readers[dst] = readers[dst], 0
            ready.append(dst)
        dst = ready.pop()
        src = pending.pop(dst)
        readers[src] -= 1
        if not readers[src] and src in pending:
            ready.append(src)
        if dst >= SPILLED and src >= SPILLED and scratch not in pending.values():
            done.append(Move(scratch, src))
            src = scratch
        done.append(Move(dst, src))
    return done


BITS = [*(1 << number for number in range(SPILLED)), *([0] * MOST_WORDS)]
"""By place: the register as a mask, none for words of the stack."""
_bit = BITS.__getitem__


MOST_BLOCKS_AHEAD = 4
"""How far is looked for where a value is expected."""


def _becoming(code: Code) -> dict[int, int]:
    """Return for values the argument that each is passed as; rather of a loop that comes round there."""
    place, found, blocks = code.shape.place, dict[int, int](), code.blocks
    for number in code.shape.order:
        for way in blocks[number].ways:
            if way.args:
                passed = zip(way.args, blocks[way.block].args, strict=True)
                if place[way.block] <= place[number]:
                    found.update(passed)
                else:
                    for value, argument in passed:
                        found.setdefault(value, argument)
    return found


NO_PLACES: Places = ((), (), None, ())


class _Placer:
    """Where values are while block after block is placed.

    Of the block at hand: `where` its values are now, the mask of registers that are `free`, which operation
    is the `last` to read each value (none where nothing reads it), those at which some are `dying`. `becomes`
    has the argument of a block that a value is passed as, `expected` the registers of arguments that are
    placed. Of the operation at hand: the registers that it needs where it had to load some (`busy`, a mask).
    `spilled` are the words of values that have one, `count` so many in all; those that are `local`, of values
    of a single block, are used again in each. `words` are free, each since an operation of the block, and
    `defined` are the operations that define its values, once somebody asked for them.
    """

    __slots__ = (
        "all",
        "away",
        "becomes",
        "before_blocks",
        "behind",
        "between",
        "blocks",
        "busy",
        "code",
        "count",
        "crossing",
        "defined",
        "dying",
        "entered",
        "expected",
        "free",
        "homes",
        "index",
        "last",
        "last_of",
        "live",
        "local",
        "maps",
        "next_use",
        "number",
        "ops",
        "registers",
        "reloaded",
        "sources",
        "spilled",
        "usable",
        "usable_count",
        "uses",
        "where",
        "words",
    )  # fmt: skip
    # more than there may be of attributes that are as fast without

    def __init__(self, code: Code, registers: Registers, uses: LastUse) -> None:
        self.code, self.sources, self.registers = code, code.blocks, registers
        self.before_blocks = code.shape.before
        self.next_use = NextUse(code, (), uses.live)
        self.all = (1 << registers.count) - 1
        self.usable = self.all & ~registers.reserved
        self.usable_count = self.usable.bit_count()
        self.homes = code.homes or [SPILLED] * value_count(code)
        self.live, self.last_of = uses.live, uses.last
        self.away: dict[int, set[int]] = {}
        self.reloaded: dict[int, set[int]] = {}
        self.blocks: list[PlacedBlock | None] = [None] * len(code.blocks)
        self.crossing = self._crossing()
        self.maps: list[dict[int, int] | None] = [None] * len(code.blocks)
        self.entered = {
            entry.block: dict(zip(code.blocks[entry.block].args, entry.registers, strict=True))
            for entry in code.entries.values()
        }
        self.spilled: dict[int, int] = {}
        self.count = 0
        self.local: list[int] = []
        self.words: list[tuple[int, int]] = []
        self.defined: dict[int, int] | None = None
        self.where: dict[Any, int] = {}
        self.free = self.busy = self.index = 0
        self.ops: tuple[Op, ...] = ()
        self.uses: dict[int, list[int]] | None = None
        self.last: dict[int, int] = {}
        self.becomes = _becoming(code)
        self.expected: dict[int, int] = {}
        self.between: dict[int, list[Move]] = {}
        self.number = -1
        self.behind: dict[int, int] | None = None

    def part(self, order: Sequence[int]) -> None:
        """Place a part of the blocks, once more where loops had to load what they do not read."""
        self.next_use, self.away = NextUse(self.code, order, self.live), {}
        count, local, blocks = self.count, len(self.local), self.blocks
        for _ in range(MOST_TRIES):
            self.spilled, self.reloaded, self.count = {}, {}, count
            del self.local[local:]
            self.expected = {value: place for at in self.entered.values() for value, place in at.items()}
            for number in order:
                self.maps[number] = self.entered.get(number)
            for number in order:
                blocks[number] = self.block(number)
            if not self.reloaded:
                break
            for header, values in self.reloaded.items():
                self.away.setdefault(header, set()).update(values)
        if self.spilled:
            for number in order:
                block = blocks[number]
                assert block is not None  # it was placed
                blocks[number] = self.with_stores(number, block)

    def placed(self) -> PlacedCode:
        """Return all blocks."""
        arrivals = tuple(arrival or {} for arrival in self.maps)
        return PlacedCode(self.code, tuple(self.blocks), arrivals, self.count)

    def with_stores(self, number: int, block: PlacedBlock) -> PlacedBlock:
        """Return a block that stores the values with a word where they are defined."""
        spilled, before = self.spilled, self.maps[number]
        assert before is not None  # it was placed
        defined = [(0, value, before[value]) for value in self.code.blocks[number].args]
        for index, (op, (results, *_)) in enumerate(zip(block.ops, block.places, strict=True)):
            defined += [(index + 1, *both) for both in zip(op.results, results, strict=True)]
        between: dict[int, list[Move]] = {}
        for index, value, place in defined:
            if value in spilled and place < SPILLED:
                between.setdefault(index, []).append(Move(spilled[value], place))
        for index, moves in block.between.items():
            between.setdefault(index, []).extend(moves)
        return PlacedBlock(block.ops, block.places, between, block.moves)

    def _crossing(self) -> set[int]:
        """Return the values that are read after a helper that is called meanwhile."""
        found: set[int] = set()
        if OUTWARD_CALLS.isdisjoint(self.code.verified.program.operations):
            return found
        for block in self.code.blocks:
            if HELPER_ROWS.isdisjoint([op.row for op in block.ops]):
                continue
            live = self.live_out(block)
            for op in reversed(block.all_ops):
                live.difference_update(op.results)
                if op.row.kind in HELPER_CALLS:
                    found |= live
                live.update(reads(op))
        return found

    def live_out(self, block: Block) -> set[int]:
        """Return the values that are read behind a block, or on a way out of it."""
        found: set[int] = set()
        for way in block.ways:
            found.update(self.live[way.block], way.args)
        return found

    def block(self, number: int) -> PlacedBlock:
        """Place a block, and the ways out of it."""
        block = self.sources[number]
        self.ops = ops = block.all_ops
        before, last = self.maps[number], self.last_of[number]
        assert before is not None  # something leads here
        self.last, self.where = last, dict(before)
        for argument in block.args:
            if argument not in last:
                del self.where[argument]
        self.dying = set(last.values())
        self.between, self.uses, self.index = {}, None, 0
        self.number, self.behind = number, None
        self.free = self.unused(self.where.values())
        self.defined, self.words = None, [(word, -1) for word in self.local]
        if number in self.entered:
            self._out_of_the_way()
        places, placing = [NO_PLACES] * len(ops), _PLACING
        for index, op in enumerate(ops):
            if op.args or op.results or op.exit is not None:  # others are payments and jumps, mostly
                self.index, self.busy = index, 0
                places[index] = placing[op.row](self, index, op)
        return PlacedBlock(ops, places, self.between, tuple(map(self.moves_to, block.ways)))

    def wanted(self, value: int) -> int:
        """Return the register in which a block further on expects a value; -1 where that is not known."""
        becomes, expected = self.becomes, self.expected
        for _ in range(MOST_BLOCKS_AHEAD):
            value = becomes.get(value, -1)
            if value < 0:
                break
            place = expected.get(value)
            if place is not None:
                return place
        return -1

    def _out_of_the_way(self) -> None:
        """Put arguments of a function that stay through calls of helpers where these keep them."""
        for value in sorted(self.crossing & self.where.keys()) if self.crossing else ():
            register = self.where[value]
            free = self.free & self.usable & self.registers.kept
            if register < SPILLED and not self.registers.kept >> register & 1 and free:
                self.move(value, self.choose(value))

    def before(self, *moves: Move) -> None:
        """Make moves in front of the operation at hand."""
        if moves:
            self.between.setdefault(self.index, []).extend(moves)

    def move(self, value: int, register: int) -> None:
        """Move a value to a free register."""
        old = self.where[value]
        self.before(Move(register, old))
        self.where[value] = register
        self.free = self.free & ~(1 << register) | 1 << old

    # -- choosing --

    def too_few(self) -> OptimizationError:
        """Return what is raised where values find no place."""
        pc = self.ops[self.index].pc
        return OptimizationError(f"there are too few registers for its values at pc {pc}")

    def unused(self, places: Iterable[int]) -> int:
        """Return the mask of all registers but these, of which none comes twice."""
        return self.all & ~sum(map(_bit, places))

    def word(self, value: int) -> int:
        """Return the word of a value on the stack. Raises OptimizationError where there are too many."""
        place = self.spilled.get(value)
        if place is not None:
            return place
        defined = self.definitions().get(value, -1)
        is_local = defined >= 0 and self.last.get(value) != BEHIND  # it lives in this block only
        for at, (word, since) in enumerate(self.words) if is_local else ():
            if since <= defined:
                del self.words[at]
                self.spilled[value] = word
                return word
        if self.count == MOST_WORDS:
            raise self.too_few()
        place = self.spilled[value] = SPILLED + self.count
        self.count += 1
        if is_local:
            self.local.append(place)
        return place

    def definitions(self) -> dict[int, int]:
        """Return where the block's values are defined, by the place of the operation."""
        if self.defined is None:
            self.defined = {value: index for index, op in enumerate(self.ops) for value in op.results}
        return self.defined

    def spill(self, value: int) -> None:
        """Have a value on the stack only."""
        self.free |= 1 << self.where[value]
        self.where[value] = self.word(value)

    def take(self, value: int, avoid: int = 0) -> int:
        """Return a register for a value, that of another one where none is free."""
        if not self.free & self.usable & ~avoid:
            busy = self.busy
            if not self.spilled:  # its arguments are where they were
                busy = self.all & ~self.unused(
                    {self.where.get(x, SPILLED) for x in self.ops[self.index].args}
                )
            self.spill(self.victim(avoid | busy | ~self.usable))
        return self.choose(value, avoid)

    def victim(self, avoid: int) -> int:
        """Return the value whose register is given away: the one that is read again last, and of those one
        that is on the stack already.
        """
        if self.uses is None:
            self.uses = {}
            for index, op in enumerate(self.ops):
                for value in op.args:
                    self.uses.setdefault(value, []).append(index)
            self.behind = self.next_use.behind(self.number)
        behind, size = self.behind, len(self.ops)
        assert behind is not None  # it was found out with the uses
        found, best = -1, (-1, False)
        for value, place in self.where.items():
            if place < SPILLED and not avoid >> place & 1:
                uses = self.uses.get(value, ())
                later = bisect_right(uses, self.index)
                soon = uses[later] if later < len(uses) else behind.get(value, NEVER) + size
                key = (soon, value in self.spilled)
                if key > best:
                    found, best = value, key
        if found < 0:
            raise self.too_few()
        return found

    def load(self, value: int) -> int:
        """Return the register of a value, into which it is loaded where it is on the stack."""
        place = self.where[value]
        if place >= SPILLED:
            register = self.take(value)
            self.before(Move(register, place))
            self.where[value] = place = register
            self.free &= ~(1 << register)
        self.busy |= 1 << place
        return place

    def choose(self, value: int, avoid: int = 0) -> int:
        """Return a free register for a value. Raises OptimizationError where there is none."""
        good = self.free & self.usable & ~avoid
        if value in self.crossing:
            good = good & self.registers.kept or good
        if value in self.becomes:
            wanted = self.wanted(value)
            if wanted >= 0 and good >> wanted & 1:
                return wanted
        home = self.homes[value]
        if good >> home & 1:
            return home
        good = good & self.registers.extra or good & ~self.registers.kept or good
        if not good:
            raise self.too_few()
        return (good & -good).bit_length() - 1

    def release(self, index: int, values: Iterable[int | None]) -> None:
        """Free the registers of those of an operation's values that nothing reads behind it."""
        last, where, spilled = self.last, self.where, self.spilled
        for value in values:
            if value is not None and last[value] == index and value in where:
                self.free |= BITS[where.pop(value)]
                if spilled and value in spilled and value in self.definitions():
                    self.words.append((spilled[value], index))

    def define(self, value: int, register: int) -> None:
        """Put a new value into a register, for as long as it is read."""
        if value in self.last:
            self.where[value] = register
            self.free &= ~(1 << register)

    # -- operations --

    def args(self, values: Sequence[int]) -> tuple[int, ...]:
        """Return the registers of an operation's arguments, loaded where they are on the stack."""
        if self.spilled:
            return tuple([self.load(value) for value in values])
        where = self.where
        if len(values) == 1:  # written out: most have one or two, and it takes a fifth of the time
            return (where[values[0]],)
        if len(values) == 2:
            return where[values[0]], where[values[1]]
        return tuple([where[value] for value in values])

    def free_form(self, index: int, op: Op) -> Places:
        """Place what may have its result in any register: one of its arguments' too, if that ends here."""
        values, leaves = op.args, None
        args = self.args(values) if values else ()
        if op.exit is None:
            if values:
                self.release(index, values)
        else:
            leaves = tuple(map(self.where.get, op.exit.registers))
            if index in self.dying:
                self.release(index, values)
                self.release(index, op.exit.registers)
        if not op.results:
            return (), args, leaves, ()
        (value,) = op.results  # what has several is placed otherwise
        register = self.homes[value]
        if value in self.becomes or value in self.crossing or not self.free & self.usable & 1 << register:
            register = self.take(value)
        if value in self.last:
            self.where[value] = register
            self.free &= ~(1 << register)
        return (register,), args, leaves, ()

    def in_place(self, index: int, op: Op, place: int = 0) -> Places:
        """Place what changes the register of one of its arguments: of a copy, where that is still read."""
        values, (result,), last = op.args, op.results, self.last
        is_passed = result in self.becomes
        if len(values) == 1 and last[values[0]] == index and not (self.spilled or is_passed):
            register = self.where.pop(values[0])  # most: it stays where it is
            if result in last:
                self.where[result] = register
            else:
                self.free |= 1 << register
            return (register,), (register,), None, ()
        if op.row in COMMUTATIVE:
            first, second = values
            if last[second] == index and (last[first] != index or self.where[second] == self.wanted(result)):
                values = second, first
        args = self.args(values)
        register = args[place]
        wanted = self.wanted(result) if is_passed else -1
        is_free = wanted >= 0 and self.free & self.usable & 1 << wanted
        if last[values[place]] == index and not is_free:
            self.release(index, op.args)  # the address of an atomic operation is read before that is written
            self.define(result, register)
            return (register,), args, None, ()
        copy = wanted if is_free else self.take(result)
        self.before(Move(copy, register))
        self.release(index, op.args)
        self.define(result, copy)
        return (copy,), (*args[:place], copy, *args[place + 1 :]), None, ()

    def atomic(self, index: int, op: Op) -> Places:
        """Place an atomic operation: what is fetched is where the operand was, of a comparison in r0."""
        if op.row.meaning == "CMPXCHG":
            return self.fixed(index, op, {2: 0}, (0,))
        if not op.row.fetch:
            return self.free_form(index, op)
        if op.row.meaning in LOOPS:
            for value in [each for each, at in self.where.items() if self.registers.extra >> at & 1]:
                self.spill(value)
            extra, self.free = self.free & self.registers.extra, self.free & ~self.registers.extra
            placed = self.in_place(index, op, 1)
            self.free |= extra
            return placed
        return self.in_place(index, op, 1)

    def bound(self, index: int, op: Op) -> Places:
        """Place what has its values in certain registers."""
        return self.fixed(index, op, *_FIXED[op.row.kind](self, op))

    def fixed(
        self, index: int, op: Op, wants: Mapping[int, int], gives: Sequence[int], clobbers: int = 0
    ) -> Places:
        """Place what `wants` arguments (by place) and `gives` results in certain registers.

        What is in a register that it writes meanwhile, or needs for another value, moves away.
        """
        where, last = self.where, self.last
        for at, value in enumerate(op.args):
            if at not in wants:
                self.load(value)
        written, is_restored = clobbers, op.row.kind in LOCAL_CALLS
        for value, register in zip(op.results, gives, strict=True):
            written |= (value in last or not is_restored) << register
        expected = {register: op.args[at] for at, register in wants.items()}
        moves = {register: where[value] for register, value in expected.items()}
        loose = {value for at, value in enumerate(op.args) if at not in wants}
        leaves = op.row.kind is Kind.PACKET_LOAD  # calls that are too deep are faults where they are
        named = loose.union(reads(op)) if leaves else loose
        staying = [value for value in where if last[value] != index or value in named]
        self.free = self.unused({*expected, *(where[value] for value in staying)}) & ~written
        for value in staying:
            old = where[value]
            lost = clobbers if last[value] == index else written  # results are written when all is read
            if not lost >> old & 1 and expected.get(old, value) == value:
                continue
            others = [each for each in expected if expected[each] == value and not lost >> each & 1]
            if not others and not self.free & self.usable and value not in loose:
                where[value] = self.word(value)
                continue
            new = others[0] if others else self.choose(value)
            self.free &= ~(1 << new)
            where[value], moves[new] = new, old
        self.before(*sequential(moves, self.registers.scratch))
        args = [wants[at] if at in wants else where[value] for at, value in enumerate(op.args)]
        places = tuple(map(where.get, op.exit.registers)) if leaves and op.exit is not None else None
        self.where = {value: register for value, register in where.items() if last[value] != index}
        kept = tuple(sorted(place for place in self.where.values() if place < SPILLED))
        self.free = self.unused(kept)
        for value, register in zip(op.results, gives, strict=True):
            self.define(value, register)
        return tuple(gives), tuple(args), places, kept

    # -- ways --

    def moves_to(self, way: Way) -> tuple[Move, ...]:
        """Return the moves on a way; what comes first to a block says where its values are there."""
        to = way.block
        args, live, there, where = self.sources[to].args, self.live[to], self.maps[to], self.where
        if there is not None and not args and [*map(where.get, there)] == [*there.values()]:
            return ()  # all that is live there is where it is to be
        moves: dict[int, int] = {}
        if there is None and not self.spilled and self.has_room(way, args):
            there = self.maps[to] = dict(zip(live, map(where.__getitem__, live), strict=True))
            if not args:
                return ()
            self._with_arguments(way, args, there, [])
        else:
            if there is None:
                there = self.maps[to] = self._arrival(way, args)
            elif self.spilled and to in self.next_use.headers:
                soon = self.next_use.at[to]
                lost = {x for x in live if where[x] >= SPILLED > there[x] and soon[x] >= FAR}
                if lost:  # it comes back each round, and is not read there
                    self.reloaded.setdefault(to, set()).update(lost)
            for value in live:
                place = there[value]
                if place != where[value] and place < SPILLED:
                    moves[place] = where[value]
        for argument, value in zip(args, way.args, strict=True):
            if there[argument] != where[value]:
                moves[there[argument]] = where[value]
        return tuple(sequential(moves, self.registers.scratch)) if moves else ()

    def has_room(self, way: Way, args: Sequence[int]) -> bool:
        """True where a block has registers for all of its values, and no loop wants some out of the way."""
        block = way.block
        return len(self.live[block]) + len(args) <= self.usable_count and not self.away.get(block)

    def _arrival(self, way: Way, args: Sequence[int]) -> dict[int, int]:
        """Return where a block has its values: those it reads stay, arguments are where it costs least.

        Where there are more than registers, those that are read last are on the stack, and of a loop that had
        not enough registers what it does not read.
        """
        live, away, where = self.live[way.block], set(self.away.get(way.block, ())), self.where
        mask = self.registers.reserved
        reserved = [value for value in live if mask >> where[value] & 1] if mask else []
        away.difference_update(reserved)
        soon, is_loop = self.next_use.at[way.block], way.block in self.next_use.headers
        inside = [value for value in (*live, *args) if value not in away and value not in reserved]
        if len(inside) > self.usable_count:
            inside.sort(key=lambda value: soon.get(value, NEVER))
            away.update(inside[self.usable_count :])
        there = {value: self.word(value) for value in sorted(away)}
        later, spilled = [], self.spilled
        for value in live:
            if value in reserved:
                there[value] = where[value]
            elif value not in away:
                if value in spilled and soon[value] >= FAR:
                    there[value] = spilled[value]  # nobody loads it until then
                elif where[value] < SPILLED or not is_loop:
                    there[value] = where[value]
                else:
                    later.append(value)
        return self._with_arguments(way, args, there, later)

    def _with_arguments(
        self, way: Way, args: Sequence[int], there: dict[int, int], later: list[int]
    ) -> dict[int, int]:
        """Return `there`, where values are, with the arguments of the block, and what is left for `later`."""
        passed = dict(zip(args, way.args, strict=True))
        self.free = self.unused(there.values())
        homes, where = self.homes, self.where
        joins = len(self.before_blocks[way.block]) > 1
        for argument in args:
            if argument not in there:
                register = homes[argument] if where[passed[argument]] == homes[argument] else SPILLED
                if joins and argument not in self.crossing:
                    wanted = self.wanted(argument)
                    if wanted >= 0 and self.free & self.usable & 1 << wanted:
                        register = wanted
                if self.free >> register & 1:
                    there[argument] = register
                    self.free &= ~(1 << register)
                else:
                    later.append(argument)
        for value in later:
            register = where[passed.get(value, value)]
            crosses = value in self.crossing and not self.registers.kept >> register & 1
            if passed.get(value) in there or not self.free >> register & 1 or crosses:
                register = self.choose(value) if self.free & self.usable else self.word(value)
            there[value] = register
            self.free &= ~(1 << register)
        for argument in args:
            if there[argument] < SPILLED:
                self.expected[argument] = there[argument]
        return there


Fixed = tuple[dict[int, int], Sequence[int], int]
"""Which arguments (by place) are in which registers; those of results; a mask of what is written besides."""


def _helper(placer: _Placer, op: Op) -> Fixed:
    """A helper has its arguments in r1 to r5 and gives r0; it keeps few registers."""
    return {at: at + 1 for at in range(len(op.args))}, (0,), placer.all & ~placer.registers.kept


def _local(placer: _Placer, op: Op) -> Fixed:
    """A function has its arguments where they are in the program; what is to be kept is saved around it."""
    read = [register for register in placer.code.read_by(op.imm) if register < FRAME_POINTER]
    return dict(enumerate(read)), range(CALL_RESULTS), 0


def _by_address(placer: _Placer, op: Op) -> Fixed:
    """As a call of a function that reads all registers; its address is where none of them is.

    It does not stay there: what is read behind the call has a register for values, which that need not be.
    """
    spare = placer.registers.spare
    reads = {at: at - 1 for at in range(1, len(op.args))}
    return {0: spare, **reads}, range(CALL_RESULTS), placer.registers.extra | 1 << spare


def _packet(placer: _Placer, op: Op) -> Fixed:
    """A load from the packet gives r0."""
    return {}, (0,), placer.registers.extra


def _leave(placer: _Placer, op: Op) -> Fixed:
    """A function ends with r0, and r1 to r5, where they are in the program."""
    return {at: at for at in range(len(op.args))}, (), 0


_FIXED: dict[Kind, Callable[[_Placer, Op], Fixed]] = {
    Kind.CALL_HELPER: _helper,
    Kind.CALL_KFUNC: _helper,
    Kind.CALL_LOCAL: _local,
    Kind.CALL_REGISTER: _by_address,
    Kind.PACKET_LOAD: _packet,
    Kind.EXIT: _leave,
}
_OF_KIND: dict[Kind, Callable[[_Placer, int, Op], Places]] = {
    **dict.fromkeys(_FIXED, _Placer.bound),
    Kind.BINARY: _Placer.in_place,
    Kind.UNARY: _Placer.in_place,
    Kind.ATOMIC: _Placer.atomic,
}
_PLACING = {row: _OF_KIND.get(row.kind, _Placer.free_form) for row in (*TABLE, *UNENCODED.values())}
"""What places operations of a row."""
