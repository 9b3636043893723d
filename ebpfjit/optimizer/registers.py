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
are ever in one register: a step looks only at what is free before it. There is no spilling: eleven registers
are enough for what came from eleven, and passes do not ask for more than there are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import chain

from ebpfjit.errors import OptimizationError
from ebpfjit.isa.spec import FRAME_POINTER, Kind
from ebpfjit.optimizer.code import CALL_RESULTS, Block, Code, Op, Way
from ebpfjit.optimizer.placed import Move, Placed, PlacedBlock, PlacedCode, Registers

HELPER_CALLS = frozenset({Kind.CALL_HELPER, Kind.CALL_KFUNC})
LOOPS = frozenset({"AND", "OR", "XOR"})
"""Fetching operations that no machine instruction does: a loop with a register more."""
COMMUTATIVE = frozenset({"ADD", "MUL", "AND", "OR", "XOR"})


def place(code: Code, registers: Registers) -> PlacedCode:
    """Return code with registers. Raises OptimizationError where there are too few."""
    return _Placer(code, registers).placed()


def live_in(code: Code) -> list[set[int]]:
    """Return for each block the values that are defined elsewhere and read from its start on."""
    before: list[list[int]] = [[] for _ in code.blocks]
    defined: dict[int, int] = {}
    live: list[set[int]] = []
    for number, block in enumerate(code.blocks):
        here = set(block.args)
        read: set[int] = set()
        for op in block.all_ops:
            read.update(value for value in op.args if value not in here)
            if op.exit is not None:
                read.update(x for x in op.exit.registers if x is not None and x not in here)
            here.update(op.results)
        for way in block.ways:
            before[way.block].append(number)
            read.update(value for value in way.args if value not in here)
        defined.update(dict.fromkeys(here, number))
        live.append(read)
    waiting = [(number, value) for number, values in enumerate(live) for value in values]
    while waiting:
        number, value = waiting.pop()
        for other in before[number]:
            if value not in live[other] and defined[value] != other:
                live[other].add(value)
                waiting.append((other, value))
    return live


def _order(code: Code) -> list[int]:
    """Return the blocks that control comes to, each behind one at least of those that lead to it."""
    found: set[int] = set()
    order: list[int] = []
    for entry in code.entries.values():
        waiting = [(entry.block, False)]
        while waiting:
            number, is_done = waiting.pop()
            if is_done:
                order.append(number)
            elif number not in found:
                found.add(number)
                waiting.append((number, True))
                waiting += [(way.block, False) for way in code.blocks[number].ways]
    return order[::-1]


def sequential(moves: Mapping[int, int], scratch: int) -> list[Move]:
    """Return copies (destination: source) that are made at once as moves, one after the other."""
    pending = {dst: src for dst, src in moves.items() if dst != src}
    if not pending:
        return []
    readers: dict[int, int] = {}
    for src in pending.values():
        readers[src] = readers.get(src, 0) + 1
    ready = [dst for dst in pending if dst not in readers]
    done = []
    while pending:
        if not ready:  # all that is left goes round: one of them waits in between
            dst = next(iter(pending))
            done.append(Move(scratch, dst))
            pending = {other: scratch if src == dst else src for other, src in pending.items()}
            readers[scratch], readers[dst] = readers[dst], 0
            ready.append(dst)
        dst = ready.pop()
        src = pending.pop(dst)
        done.append(Move(dst, src))
        readers[src] -= 1
        if not readers[src] and src in pending:
            ready.append(src)
    return done


class _Placer:
    """Where values are while block after block is placed.

    Of the block at hand: `where` its values are now, the mask of registers that are `free`, and the `last`
    operation that reads each; `wanted` are registers in which a value is expected further on.
    """

    def __init__(self, code: Code, registers: Registers) -> None:
        self.code, self.registers = code, registers
        self.all = (1 << registers.count) - 1
        self.live = live_in(code)
        self.crossing = self._crossing()
        self.maps: list[dict[int, int] | None] = [None] * len(code.blocks)
        for entry in code.entries.values():
            self.maps[entry.block] = dict(zip(code.blocks[entry.block].args, entry.registers, strict=True))
        self.where: dict[int, int] = {}
        self.free = 0
        self.last: dict[int, int] = {}
        self.wanted: dict[int, int] = {}
        self.steps: list[Move | Placed] = []

    def placed(self) -> PlacedCode:
        """Place all blocks."""
        blocks: list[PlacedBlock | None] = [None] * len(self.code.blocks)
        for number in _order(self.code):
            blocks[number] = self.block(number)
        return PlacedCode(self.code, tuple(blocks))

    def _crossing(self) -> set[int]:
        """Return the values that are read after a helper that is called meanwhile."""
        found: set[int] = set()
        for block in self.code.blocks:
            if all(op.row.kind not in HELPER_CALLS for op in block.ops):
                continue
            live = self.live_out(block)
            for op in reversed(block.all_ops):
                live.difference_update(op.results)
                if op.row.kind in HELPER_CALLS:
                    found |= live
                live.update(op.args)
                if op.exit is not None:
                    live.update(value for value in op.exit.registers if value is not None)
        return found

    def live_out(self, block: Block) -> set[int]:
        """Return the values that are read behind a block, or on a way out of it."""
        return set(chain.from_iterable(chain(self.live[way.block], way.args) for way in block.ways))

    def block(self, number: int) -> PlacedBlock:
        """Place a block, and the ways out of it."""
        block, ops = self.code.blocks[number], self.code.blocks[number].all_ops
        last: dict[int, int] = {}
        for index, op in enumerate(ops):
            for value in op.args:
                last[value] = index
            if op.exit is not None:
                for each in op.exit.registers:
                    if each is not None:
                        last[each] = index
        last.update(dict.fromkeys(self.live_out(block), len(ops)))
        before = self.maps[number]
        assert before is not None  # something leads here
        self.where = {value: register for value, register in before.items() if value in last}
        self.free, self.last, self.steps = self.all, last, []
        for register in self.where.values():
            self.free &= ~(1 << register)
        self.wanted = self._wanted(block)
        if number in self.entered:
            self._out_of_the_way()
        placed = [self.step(index, op) for index, op in enumerate(ops)]
        moves = tuple(tuple(self.moves_to(way)) for way in block.ways)
        return PlacedBlock(self.steps[:-1], placed[-1], moves)

    @property
    def entered(self) -> set[int]:
        """The blocks that are entered from outside."""
        return {entry.block for entry in self.code.entries.values()}

    def _wanted(self, block: Block) -> dict[int, int]:
        """Return where values of a block are expected on ways to blocks that were placed before."""
        wanted: dict[int, int] = {}
        for way in block.ways:
            there = self.maps[way.block]
            if there is not None:
                for value, argument in zip(way.args, self.code.blocks[way.block].args, strict=True):
                    wanted[value] = there[argument]
        return wanted

    def _out_of_the_way(self) -> None:
        """Put arguments of a function that stay through calls of helpers where these keep them."""
        for value in sorted(self.crossing & self.where.keys()):
            register = self.where[value]
            free = self.free & self.registers.kept
            if not self.registers.kept >> register & 1 and free:
                self.move(value, self.choose(value))

    def move(self, value: int, register: int) -> None:
        """Move a value to a free register."""
        old = self.where[value]
        self.steps.append(Move(register, old))
        self.where[value] = register
        self.free = self.free & ~(1 << register) | 1 << old

    # -- choosing --

    def choose(self, value: int, avoid: int = 0) -> int:
        """Return a free register for a value. Raises OptimizationError where there is none."""
        free = self.free & ~avoid
        crossing = value in self.crossing and free & self.registers.kept
        good = free & self.registers.kept if crossing else free
        wanted = self.wanted.get(value)
        if wanted is not None and good >> wanted & 1:
            return wanted
        homes = self.code.homes
        if value < len(homes) and good >> homes[value] & 1:
            return homes[value]
        good = good & self.registers.extra or good & ~self.registers.kept or good
        if not good:
            raise OptimizationError("there are too few registers for its values")
        return (good & -good).bit_length() - 1

    def release(self, index: int, values: Iterable[int]) -> None:
        """Free the registers of those values that nothing reads after the operation `index`."""
        for value in values:
            if self.last[value] == index and value in self.where:
                self.free |= 1 << self.where.pop(value)

    def define(self, value: int, register: int) -> None:
        """Put a new value into a register, for as long as it is read."""
        if value in self.last:
            self.where[value] = register
            self.free &= ~(1 << register)

    # -- operations --

    def step(self, index: int, op: Op) -> Placed:
        """Place an operation."""
        kind = op.row.kind
        if kind in _FIXED:
            placed = self.fixed(index, op, *_FIXED[kind](self, op))
        elif kind is Kind.BINARY or kind is Kind.UNARY:
            placed = self.in_place(index, op, 0)
        elif kind is Kind.ATOMIC:
            placed = self.atomic(index, op)
        else:
            placed = self.free_form(index, op)
        self.steps.append(placed)
        return placed

    def places(self, op: Op) -> tuple[int | None, ...] | None:
        """Return where the registers of an exit are."""
        if op.exit is None:
            return None
        where = self.where
        return tuple([None if value is None else where[value] for value in op.exit.registers])

    def read(self, op: Op) -> list[int]:
        """Return all values that an operation reads."""
        if op.exit is None:
            return list(op.args)
        return [*op.args, *(value for value in op.exit.registers if value is not None)]

    def free_form(self, index: int, op: Op) -> Placed:
        """Place what may have its result in any register: one of its arguments' too, if that ends here."""
        args = tuple([self.where[value] for value in op.args])
        leaves = self.places(op)
        self.release(index, self.read(op))
        results = []
        for value in op.results:
            register = self.choose(value)
            results.append(register)
            self.define(value, register)
        return Placed(op, tuple(results), args, leaves)

    def in_place(self, index: int, op: Op, place: int) -> Placed:
        """Place what changes the register of one of its arguments: of a copy, where that is still read."""
        values = list(op.args)
        if (
            len(values) > 1
            and op.row.meaning in COMMUTATIVE
            and op.row.kind is Kind.BINARY
            and self.last[values[0]] != index
            and self.last[values[1]] == index
        ):
            values.reverse()
        changed, (result,) = values[place], op.results
        args = [self.where[value] for value in values]
        others = {value for at, value in enumerate(values) if at != place}
        if self.last[changed] == index and (changed not in others or op.row.kind is Kind.BINARY):
            self.release(index, values)
            self.define(result, args[place])
            return Placed(op, (args[place],), tuple(args))
        copy = self.choose(result)
        self.steps.append(Move(copy, args[place]))
        args[place] = copy
        self.release(index, values)
        self.define(result, copy)
        return Placed(op, (copy,), tuple(args))

    def atomic(self, index: int, op: Op) -> Placed:
        """Place an atomic operation: what is fetched is where the operand was, of a comparison in r0."""
        if op.row.meaning == "CMPXCHG":
            return self.fixed(index, op, {2: 0}, (0,))
        if not op.row.fetch:
            return self.free_form(index, op)
        if op.row.meaning in LOOPS:
            for value in [each for each, at in self.where.items() if self.registers.extra >> at & 1]:
                self.move(value, self.choose(value, avoid=self.registers.extra))
            extra, self.free = self.free & self.registers.extra, self.free & ~self.registers.extra
            placed = self.in_place(index, op, 1)
            self.free |= extra
            return placed
        return self.in_place(index, op, 1)

    def fixed(
        self, index: int, op: Op, wants: Mapping[int, int], gives: Sequence[int], clobbers: int = 0
    ) -> Placed:
        """Place what `wants` arguments (by place) and `gives` results in certain registers.

        What is in a register that it writes meanwhile, or needs for another value, moves away.
        """
        where, args, last = self.where, [self.where[value] for value in op.args], self.last
        written = clobbers
        for value, register in zip(op.results, gives, strict=True):
            written |= (value in last) << register
        expected = {register: op.args[at] for at, register in wants.items()}
        moves = {register: where[value] for register, value in expected.items()}
        loose = {value for at, value in enumerate(op.args) if at not in wants}
        staying = [value for value in where if last[value] > index or value in loose]
        self.free = self.all & ~written
        for register in chain(expected, (where[value] for value in staying)):
            self.free &= ~(1 << register)
        for value in staying:
            old = where[value]
            if not written >> old & 1 and expected.get(old, value) == value:
                continue
            others = [each for each in expected if expected[each] == value and not written >> each & 1]
            new = others[0] if others else self.choose(value)
            self.free &= ~(1 << new)
            where[value], moves[new] = new, old
        self.steps += sequential(moves, self.registers.scratch)
        args = [wants[at] if at in wants else where[value] for at, value in enumerate(op.args)]
        self.where = {value: register for value, register in where.items() if last[value] > index}
        kept = tuple(sorted(self.where.values()))
        self.free = self.all
        for register in kept:
            self.free &= ~(1 << register)
        for value, register in zip(op.results, gives, strict=True):
            self.define(value, register)
        return Placed(op, tuple(gives), tuple(args), None, kept)

    # -- ways --

    def moves_to(self, way: Way) -> list[Move]:
        """Return the moves on a way; what comes first to a block says where its values are there."""
        args = self.code.blocks[way.block].args
        there = self.maps[way.block]
        if there is None:
            there = self.maps[way.block] = self._arrival(way, args)
        where = self.where
        moves = {there[value]: where[value] for value in self.live[way.block]}
        for argument, value in zip(args, way.args, strict=True):
            moves[there[argument]] = where[value]
        return sequential(moves, self.registers.scratch)

    def _arrival(self, way: Way, args: Sequence[int]) -> dict[int, int]:
        """Return where a block has its values: those it reads stay, arguments are where it costs least."""
        there = {value: self.where[value] for value in self.live[way.block]}
        self.free = self.all
        for register in there.values():
            self.free &= ~(1 << register)
        homes, last = self.code.homes, []
        for argument, value in zip(args, way.args, strict=True):
            register = homes[argument] if argument < len(homes) else -1
            if self.where[value] == register and self.free >> register & 1:
                there[argument] = register
                self.free &= ~(1 << register)
            else:
                last.append((argument, value))
        for argument, value in last:
            register = self.where[value]
            crosses = argument in self.crossing and not self.registers.kept >> register & 1
            if value in there or not self.free >> register & 1 or crosses:
                register = self.choose(argument)
            there[argument] = register
            self.free &= ~(1 << register)
        return there


Fixed = tuple[dict[int, int], Sequence[int], int]
"""Which arguments (by place) are in which registers; those of results; a mask of what is written besides."""


def _helper(placer: _Placer, op: Op) -> Fixed:
    """A helper has its arguments in r1 to r5 and gives r0; it keeps few registers."""
    return {at: at + 1 for at in range(len(op.args))}, (0,), placer.all & ~placer.registers.kept


def _local(placer: _Placer, op: Op) -> Fixed:
    """A function has its arguments where they are in the program; what is to be kept is saved around it."""
    entry = placer.code.entries[op.imm]
    read = [register for register in entry.registers if register < FRAME_POINTER]
    return dict(enumerate(read)), range(CALL_RESULTS), 0


def _by_address(placer: _Placer, op: Op) -> Fixed:
    """As a call of a function that reads all registers; its address may be anywhere else."""
    return {at: at - 1 for at in range(1, len(op.args))}, range(CALL_RESULTS), 0


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
