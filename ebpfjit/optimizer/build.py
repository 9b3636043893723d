"""Verified -> Code: each definition of a register is a value, each block gets what it reads.

    before (pc 3 is a loop)                    after
    3: r4 = *(u8 *)(r1 + 0)                    b1 pc 3 (v3, v4):
       r3 += r4                                  pay 4 else leave 3 (r1 = v3, r2 = v1, r3 = v4, r10 = v2)
       r1 += 1                                   bound load v3 + 0..1 else leave 3 (...) refund 4
       if r1 != r2 goto 3                        v5 = *(u8 *)(v3 + 0)
                                                 v6 = v4 + v5
                                                 v7 = v3 + 1
                                                 if v7 != v1 goto b1(v7, v6) else b2(v6)

Every check, payment and store is in the program's order, with the exit it needs. Arguments of blocks that are
the same on every way in are gone. What falls off the end, jumps nowhere or is no instruction leaves.

Runs of other code come in at blocks of their own (on-stack replacement), which load what is a value here and
lies in the frame there. Where they come to a block that ends the round of a loop that is there twice, so that
the loop is entered at its header only.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from itertools import accumulate
from operator import itemgetter
from typing import Any

from ebpfjit.analysis.cfg import is_inside
from ebpfjit.analysis.liveness import live_before
from ebpfjit.analysis.segments import BRANCH, MAY_NOT_COME_BACK, NO_SEGMENTS, SEGMENT
from ebpfjit.analysis.verified import Verified
from ebpfjit.errors import OptimizationError
from ebpfjit.isa.spec import FRAME_POINTER, REGISTER_COUNT, Imm, Kind, Row
from ebpfjit.isa.table import BY_NAME, TABLE, told_by
from ebpfjit.optimizer.arguments import Place, found, origins
from ebpfjit.optimizer.code import (
    ALIGNED,
    BOUND,
    CALL_RESULTS,
    COUNT,
    LEAVE,
    PAY,
    Block,
    Code,
    Entry,
    Exit,
    Op,
    Way,
)
from ebpfjit.optimizer.parts import LEAST, parts_of
from ebpfjit.optimizer.remarks import Remark
from ebpfjit.optimizer.slots import NO_SLOTS, Bytes, slots_of
from ebpfjit.program import Instruction
from ebpfjit.runtime.execution import CODE_ADDRESS

COPY, MOVE_IMM, LOW_HALF, WIDE, JUMP = (
    BY_NAME[name] for name in ("MOV64_X", "MOV64_K", "MOV32_X", "LDDW", "JA")
)
U64_SIZE = 8
LOADS = {size: BY_NAME[name] for size, name in ((1, "LDXB"), (2, "LDXH"), (4, "LDXW"), (8, "LDXDW"))}
"""What loads a slot, by its size."""
ARGUMENTS = range(1, 6)
"""Registers that hold a helper's arguments, and zero behind it."""
PACKET_LOADS = told_by(*(row for row in TABLE if row.kind is Kind.PACKET_LOAD))
"""As in `Program.operations`."""
ORDERED = frozenset(row for row in TABLE if row.is_ordered)


def build(
    verified: Verified, entries: Collection[int] = (), *, slots: bool = True, counted: bool = False
) -> Code:
    """Return a program as Code that is entered at its functions, and by runs that are at these blocks.

    With `slots` those of frames are values; `counted` code counts what is executed.

    Raises OptimizationError for programs of which analysis does not know what their accesses are to.
    """
    least = len(verified.program)
    (code,) = _Builder(verified, entries, slots=slots, counted=counted, least=least).parts()
    return code


def build_parts(
    verified: Verified, entries: Collection[int] = (), *, slots: bool = True, counted: bool = False
) -> Iterator[Code]:
    """Yield a large program part by part: each is as `build` would have it if it were the whole.

    Parts share a list of remarks, and call each other's functions. Raises as `build`.
    """
    return _Builder(verified, entries, slots=slots, counted=counted, least=LEAST).parts()


class _Builder:
    """Blocks while they are made, numbered by pc, each made after one at least of those before it.

    Of the part at hand: its blocks are those from the number `first` (0 in its Code) to `stop`; `stubs` are
    behind them.
    """

    def __init__(
        self, verified: Verified, entries: Collection[int], *, slots: bool, counted: bool, least: int
    ) -> None:
        if not verified.knows_all:
            raise OptimizationError("it has accesses of which analysis knows nothing")
        self.verified = verified
        self.segments = verified.segments if counted else NO_SEGMENTS
        self.program = verified.program
        self.live = [*live_before(verified.liveness), 0]  # nothing is behind the program
        self.functions = frozenset({0, *self.program.functions})
        ways = self._ways()
        entered = self.functions.union(entries)
        if len(entered) > len(self.functions):  # a run is never at a block that nothing leads to
            entered = entered.intersection(_reverse_postorder(self.functions, ways))
        self.entered = sorted(entered)
        copies = [pc for pc in self.entered if self._ends_round(pc, ways[pc])]
        heads = [pc for pc in self.entered if pc not in copies]
        order = _reverse_postorder([*heads, *(way for pc in copies for way in ways[pc])], ways)
        self.slots = found = slots_of(verified, {pc: ways[pc] for pc in order}) if slots else NO_SLOTS
        self.width = width = REGISTER_COUNT + max(map(len, found.bytes.values()), default=0)
        self._number(parts_of(verified, sorted(order), ways, least), copies)
        self.order = [*(self.entries[pc] for pc in copies), *(self.numbers[pc] for pc in order)]
        live, written = verified.liveness.at, self._written()
        if found.of:
            self.masks = [live[pc] | found.live.get(pc, 0) for pc in self.starts]
            written = {pc: mask | found.written.get(pc, 0) for pc, mask in written.items()}
        else:
            self.masks = [live[pc] for pc in self.starts]
        self.read = [_REGISTERS[mask] if mask < ALL_REGISTERS else _bits(mask) for mask in self.masks]
        self.ways = [[self.numbers[way] for way in ways[pc]] for pc in self.starts]
        are_entered = [self.entries[pc] for pc in self.entered]
        self.came, self.same = origins(
            self.ways, self.read, [written[pc] for pc in self.starts], are_entered, self.order, width
        )
        self.before = _only_ways_in(self.ways, self.order, are_entered)
        self.arguments = [
            self._arguments(number, registers) if self.before[number] < 0 else ()
            for number, registers in enumerate(self.read)
        ]
        self.left: list[Registers] = [[]] * len(self.starts)
        sizes = verified.blocks
        self.instructions = dict(zip(sizes, accumulate(sizes.values(), initial=0), strict=False))
        """Where each block's instructions start."""
        self.first = self.stop = 0
        self.values: dict[Place, int] = {}
        self.stubs: list[Block] = []
        self.homes: list[int] = []
        self.pick_exit = _Pick(REGISTER_COUNT) if found.of else _PICK
        self.pick_start = _Pick(width) if found.of else _PICK

    def _number(self, parts: Iterable[Sequence[int]], copies: Collection[int]) -> None:
        """Give the blocks at these slots their numbers, part by part, the copies of some behind."""
        self.starts: list[int] = []
        self.ranges: list[range] = []
        """Of each part the numbers of its blocks."""
        self.numbers: dict[int, int] = {}
        self.entries: dict[int, int] = {}
        """By slot the block that runs of other code come to."""
        for part in parts:
            first, copied = len(self.starts), [pc for pc in copies if part[0] <= pc <= part[-1]]
            self.starts += [*part, *copied]
            numbers = {pc: first + index for index, pc in enumerate(part)}
            self.numbers |= numbers
            self.entries |= numbers
            self.entries.update({pc: first + len(part) + index for index, pc in enumerate(copied)})
            self.ranges.append(range(first, len(self.starts)))

    def _arguments(self, number: int, registers: Sequence[int]) -> tuple[int, ...]:
        """Return the registers that are arguments of a block."""
        came, same, start = self.came[number], self.same, number * self.width
        return tuple([x for x in registers if came[x] == start + x and start + x not in same])

    def _ways(self) -> dict[int, list[int]]:
        """Return what follows each block: nothing where it has an instruction that nothing runs."""
        starts = sorted(self.verified.blocks)
        ended = {starts[bisect_right(starts, pc) - 1] for pc in self.verified.illegal}
        return {pc: [] if pc in ended else ways for pc, ways in self.verified.liveness.ways.items()}

    def _ends_round(self, pc: int, ways: Sequence[int]) -> bool:
        """True for a block from which a loop comes round, and which else leads out of it.

        Who enters there gets a copy: so the loop is entered at its header only.
        """
        nesting = self.verified.nesting
        header = nesting.header.get(pc)
        if header is None or header not in ways or pc in nesting.headers or pc in self.program.functions:
            return False
        return all(way == header or not nesting.is_in(way, header) for way in ways)

    def _written(self) -> dict[int, int]:
        """Return the registers that each block's instructions write, by its pc, as masks."""
        effects, instructions = self.verified.liveness.effects, self.program.instructions
        has_packet_loads = not PACKET_LOADS.isdisjoint(self.program.operations)
        found: dict[int, int] = {}
        stop = 0
        for start, count in self.verified.blocks.items():
            first, stop, written = stop, stop + count, 0
            for _, writes in effects[first:stop]:
                written |= writes
            # What liveness takes for no writing: calls of functions, which end blocks, and packet loads.
            for insn in instructions[first if has_packet_loads else stop - 1 : stop]:
                for register in insn.row.implicit_writes if insn.row is not None else ():
                    written |= 1 << register
            found[start] = written
        return found

    def new(self, register: int) -> int:
        """Return a new value, that of a register."""
        self.homes.append(register)
        return len(self.homes) - 1

    def registers_of(self, number: int) -> tuple[tuple[int, ...], Registers]:
        """Return new values for a block's arguments, and what all registers are at its start.

        Slots that a function starts with are no arguments of it.
        """
        before = self.before[number]
        if before >= 0:
            return (), [*self.pick_start[self.masks[number]](self.left[before]), None]
        registers: Registers = [None] * (self.width + 1)
        args = []
        came, same, values = self.came[number], self.same, self.values
        start, is_function = number * self.width, self.starts[number] in self.functions
        for register in self.read[number]:
            origin = came[register]
            if origin in same:
                origin = found(same, origin)
            if origin == start + register:
                values[origin] = self.new(register)
                if register < REGISTER_COUNT or not is_function:
                    args.append(values[origin])
            if origin >= 0:
                registers[register] = values[origin]
            else:
                block, written = divmod(~origin, self.width)
                registers[register] = self.left[block][written]
        return tuple(args), registers

    def parts(self) -> Iterator[Code]:
        """Yield the parts of the whole, one after the other."""
        part_of = [0] * len(self.starts)
        for index, part in enumerate(self.ranges):
            part_of[part.start : part.stop] = [index] * len(part)
        orders: list[list[int]] = [[] for _ in self.ranges]
        for number in self.order:
            orders[part_of[number]].append(number)
        entered: list[list[int]] = [[] for _ in self.ranges]
        for pc in self.entered:
            entered[part_of[self.entries[pc]]].append(pc)
        remarks = [*self.slots.remarks]
        for part, order, pcs in zip(self.ranges, orders, entered, strict=True):
            yield self.part(part, order, pcs, remarks)

    def part(
        self, numbers: range, order: Sequence[int], entered: Sequence[int], remarks: list[Remark]
    ) -> Code:
        """Return a part: the blocks of these numbers, in the order in which they are made."""
        self.first, self.stop = first, _ = numbers.start, numbers.stop
        self.values, self.stubs, self.homes = {}, [], []
        blocks: list[Block | None] = [None] * len(numbers)
        starts: list[Exit | None] = [None] * len(numbers)
        translation = _Translation(self)
        for number in order:
            blocks[number - first] = translation.block(number)
            starts[number - first], self.left[number] = translation.start, translation.registers
        entries = {}
        for pc in entered:
            number = self.entries[pc]
            given = tuple(x for x in self.read[number] if x < REGISTER_COUNT)
            is_function = pc in self.functions
            entries[pc] = Entry(number - first, given) if is_function else self._way_in(pc, number)
        made = [block for block in blocks if block is not None]
        return Code(self.verified, (*made, *self.stubs), entries, self.homes, starts=starts, remarks=remarks)

    def stub(self, block: Block) -> int:
        """Add a block behind those of the part, and return its number there."""
        self.stubs.append(block)
        return self.stop - self.first + len(self.stubs) - 1

    def _way_in(self, pc: int, number: int) -> Entry:
        """Return the entry of runs of other code that are at a block: slots are in the frame there.

        What loads them is no access of an instruction: it has the pc behind the program.
        """
        read = self.read[number]
        slots = [register for register in read if register >= REGISTER_COUNT]
        registers = tuple(register for register in read if register < REGISTER_COUNT)
        if slots and FRAME_POINTER not in registers:
            registers += (FRAME_POINTER,)
        values = {register: self.new(register) for register in registers}
        args, ops = tuple(values.values()), []
        places = self.slots.bytes.get(self.slots.functions.get(pc, -1), ())
        for slot in slots:
            offset, size = places[slot - REGISTER_COUNT]
            values[slot] = self.new(slot)
            frame, end = values[FRAME_POINTER], len(self.program)
            ops.append(Op(LOADS[size], (frame,), 0, offset, end, (values[slot],)))
        way = Way(number - self.first, tuple([values[register] for register in read]))
        return Entry(self.stub(Block(pc, args, tuple(ops), Op(JUMP, (), 0, 0, pc), (way,))), registers)


ADDRESSING = frozenset((COPY, *(BY_NAME[name] for name in ("ADD64_X", "ADD64_K", "LSH64_K"))))
"""What addresses are made of, for the most part: an access can do it by itself."""

MOST_BACK = 4
"""Instructions that are done again, at most, to make an address."""

Registers = list[Any]
"""A value (int) for each register and slot, None where nothing reads it; behind them None."""


class _Pick(dict[int, Callable[[Registers], tuple[int | None, ...]]]):
    """By a mask, what takes those of the first `width` registers that are in it, None instead of the others;
    of slots beyond these only those that are in it. It takes the None that is behind all registers.
    """

    def __init__(self, width: int) -> None:
        self.width = width

    def __missing__(self, mask: int) -> Callable[[Registers], tuple[int | None, ...]]:
        places = [number if mask >> number & 1 else -1 for number in range(self.width)]
        slots = [self.width + number for number in _bits(mask >> self.width)]
        found = self[mask] = itemgetter(*places, *slots)
        return found


_PICK = _Pick(REGISTER_COUNT)
"""That of all programs without slots."""


def _only_ways_in(ways: Sequence[Sequence[int]], order: Sequence[int], entered: Collection[int]) -> list[int]:
    """Return for each block the one that leads to it, -1 where there are several ways, or it is entered."""
    found = [-2] * len(ways)
    for block in order:
        for way in ways[block]:
            found[way] = block if found[way] == -2 else -1
    for block in entered:
        found[block] = -1
    return found


ALL_REGISTERS = 1 << REGISTER_COUNT
_REGISTERS = [
    tuple(register for register in range(REGISTER_COUNT) if mask >> register & 1)
    for mask in range(1 << REGISTER_COUNT)
]
"""The registers of each mask."""


def _reverse_postorder(entered: Collection[int], ways: Mapping[int, Sequence[int]]) -> list[int]:
    """Return the blocks that control may come to: each behind one at least of those that lead to it."""
    found: set[int] = set()
    order: list[int] = []
    for start in entered:
        waiting = [(start, False)]
        while waiting:
            pc, is_done = waiting.pop()
            if is_done:
                order.append(pc)
            elif pc not in found:
                found.add(pc)
                waiting.append((pc, True))
                waiting += [(way, False) for way in ways[pc]]
    return order[::-1]


class _Translation:
    """The block that is being made: which value each register has, and the operations so far."""

    pc: int
    cost: int
    ops: list[Op]
    args: tuple[int, ...]
    registers: Registers
    bytes: Sequence[Bytes]
    start: Exit

    def __init__(self, builder: _Builder) -> None:
        self.builder, self.verified, self.program = builder, builder.verified, builder.program
        self.first = builder.first
        self.homes, self.slots, self.slot_of = builder.homes, builder.slots, builder.slots.of
        self.live, self.pick_exit, self.numbers = builder.live, builder.pick_exit, builder.numbers
        self.counted, self.branches = builder.segments.starts, builder.segments.branches

    def block(self, number: int) -> Block:
        """Translate a block's instructions."""
        builder, verified = self.builder, self.verified
        self.pc = pc = builder.starts[number]
        self.cost, self.ops = verified.costs[pc], []
        self.args, self.registers = builder.registers_of(number)
        self.bytes = self.slots.bytes.get(self.slots.functions.get(pc, -1), ()) if self.slot_of else ()
        self.start = self.exit(pc, paid=False)
        if self.bytes and pc in builder.functions:  # frames are zero at the start
            for register in builder.read[number]:
                if register >= REGISTER_COUNT:
                    self.ops.append(Op(MOVE_IMM, (), 0, 0, pc, (self.registers[register],)))
        self.pay()
        self.count(pc)
        first, illegal = builder.instructions[pc], verified.illegal
        for insn in self.program.instructions[first : first + verified.blocks[pc]]:
            row = insn.row
            if row is None or (illegal and insn.pc in illegal):
                return self.closed(self.leave(insn.pc))
            step = _STEPS.get(row)
            if step is None:
                return _ENDINGS[row.kind](self, insn, row)
            step(self, insn, row)
            if self.counted and row.kind in MAY_NOT_COME_BACK and insn.next_pc not in verified.blocks:
                self.count(insn.next_pc)
        return self.closed(Op(JUMP, (), 0, 0, pc), self.way(insn.next_pc))

    def closed(self, end: Op, *ways: Way) -> Block:
        """Return the block with its end."""
        return Block(self.pc, self.args, tuple(self.ops), end, ways)

    # -- the parts of operations --

    def exit(self, pc: int, *, paid: bool = True) -> Exit:
        """Return the exit to an instruction of this block, or to what is behind the program.

        Where baseline code pays for the block again, what is paid for it goes back.
        """
        mask = self.live[pc]
        inside = bool(self.counted) and paid and pc == self.pc
        refund = self.cost if paid and pc == self.pc and not inside else 0
        if not self.bytes:
            return Exit(pc, self.pick_exit[mask](self.registers), refund, (), inside)
        slots = self.slots.live.get(pc, 0)
        places = tuple([self.bytes[slot - REGISTER_COUNT] for slot in _bits(slots)])
        return Exit(pc, self.pick_exit[mask | slots](self.registers), refund, places, inside)

    def before_address(self, pc: int, base: int) -> Exit:
        """Return the exit to an access, or to where in front of it the making of its address starts.

        Baseline code makes that again then, so that optimised code need not have it in a register: an access
        can be of what it is made of, by an index. In between nothing is written but the base, and what
        nothing reads behind the access.
        """
        first, made, slots, kept = pc, len(self.ops), self.program.slots, self.live[pc] & ~(1 << base)
        before: dict[int, Any] = {}
        lost = 0  # registers that had another value before a copy
        while first > self.pc and pc - first < MOST_BACK:
            insn = slots[first - 1]
            if insn is None or insn.row not in ADDRESSING or kept >> insn.dst_reg & 1:
                break
            is_copy, written = insn.row is COPY, 1 << insn.dst_reg
            lost = lost | written if is_copy else lost & ~written
            if lost & self.live[first - 1]:
                break
            if not is_copy:
                made -= 1
                before[insn.dst_reg] = self.ops[made].args[0]
            first -= 1
        if not before:
            return self.exit(first)
        now = self.registers
        self.registers = [*now]
        for register, value in before.items():
            self.registers[register] = value
        leaves = self.exit(first)
        self.registers = now
        return leaves

    def leave(self, pc: int) -> Op:
        """Return the end of a block that goes on in baseline code."""
        return Op(LEAVE, (), 0, 0, pc, (), self.exit(pc))

    def way(self, pc: int, instead: int | None = None) -> Way:
        """Return the way to a block; where there is none, to one that leaves at `pc`, or at `instead`."""
        number = self.numbers.get(pc)  # there is none outside of the program
        if number is not None:
            registers, arguments = self.registers, self.builder.arguments[number]
            return Way(number - self.first, tuple([registers[x] for x in arguments]) if arguments else ())
        leaves = self.leave(pc if instead is None else instead)
        return Way(self.builder.stub(Block(leaves.pc, (), (), leaves)), ())

    def pay(self) -> None:
        """Pay for the block; where the budget is looked at and is short, it is baseline code that pays."""
        leaves = self.start if self.pc in self.verified.tested else None
        if self.cost or leaves is not None:
            self.ops.append(Op(PAY, (), self.cost, 0, self.pc, (), leaves))

    def count(self, pc: int) -> None:
        """Count the segment that starts at a slot, where somebody counts."""
        if pc in self.counted:
            self.ops.append(Op(COUNT, (), 1, SEGMENT, pc))

    def define(
        self, register: int, row: Row, args: tuple[int, ...], imm: int, offset: int, pc: int,
        leaves: Exit | None = None,
    ) -> None:  # fmt: skip
        """Add an operation, whose value a register has from now on."""
        homes = self.homes
        value = self.registers[register] = len(homes)
        homes.append(register)
        self.ops.append(Op(row, args, imm, offset, pc, (value,), leaves))

    # -- instructions --

    def binary(self, insn: Instruction, row: Row) -> None:
        """Dst = dst op src: of values."""
        registers, homes, dst = self.registers, self.homes, insn.dst_reg
        args = (registers[dst], registers[insn.src_reg]) if row.uses_src else (registers[dst],)
        value = registers[dst] = len(homes)
        homes.append(dst)
        self.ops.append(Op(row, args, 0 if row.uses_src else insn.imm, 0, insn.pc, (value,)))

    def move(self, insn: Instruction, row: Row) -> None:
        """A copy of 64 bits is the same value."""
        if row is COPY:
            self.registers[insn.dst_reg] = self.registers[insn.src_reg]
            return
        args = (self.registers[insn.src_reg],) if row.uses_src else ()
        self.define(insn.dst_reg, row, args, 0 if row.uses_src else insn.imm, 0, insn.pc)

    def unary(self, insn: Instruction, row: Row) -> None:
        """Dst = op dst."""
        self.define(insn.dst_reg, row, (self.registers[insn.dst_reg],), 0, 0, insn.pc)

    def cast(self, insn: Instruction, row: Row) -> None:
        """Without an arena, which programs that come here do not have, the low half is what a cast leaves."""
        self.define(insn.dst_reg, LOW_HALF, (self.registers[insn.src_reg],), 0, 0, insn.pc)

    def constant(self, insn: Instruction, row: Row) -> None:
        """The number that a wide load stands for in this program."""
        if row.operation == "LDDW_CODE":
            number = CODE_ADDRESS + insn.pc + 1 + insn.imm
        else:
            number = insn.imm64 if row.reference is None else self.program.references[insn.pc]
        self.define(insn.dst_reg, WIDE, (), number, 0, insn.pc)

    def checks(self, insn: Instruction, row: Row, base: int, *, stores: bool) -> int:
        """Add what an access asks before it happens; return the value of its base."""
        address: int = self.registers[base]
        pc, leaves = insn.pc, self.before_address(insn.pc, base)
        if row in ORDERED:
            self.ops.append(Op(ALIGNED, (address,), row.size, insn.offset, pc, (), leaves))
        self.ops.append(Op(BOUND, (address,), row.size, insn.offset, pc, (), leaves, stores))
        return address

    def load(self, insn: Instruction, row: Row) -> None:
        """A bound, and the load; what is in a slot is a value."""
        slot = self.slot_of.get(insn.pc)
        if slot is not None:
            self.registers[insn.dst_reg] = self.registers[slot]
            if row.signed:
                extends = BY_NAME[f"MOVSX64_{8 * row.size}"]
                self.define(insn.dst_reg, extends, (self.registers[slot],), 0, 0, insn.pc)
            return
        args = (self.checks(insn, row, insn.src_reg, stores=False),)
        self.define(insn.dst_reg, row, args, 0, insn.offset, insn.pc)

    def store(self, insn: Instruction, row: Row) -> None:
        """A bound, and the store; a slot has what a load of it would give, whichever code stored it."""
        slot, registers = self.slot_of.get(insn.pc), self.registers
        if slot is not None:
            if not row.uses_src:
                mask = (1 << 8 * row.size) - 1
                self.define(slot, WIDE, (), insn.imm & mask, 0, insn.pc)
            elif row.size == U64_SIZE:
                registers[slot] = registers[insn.src_reg]
            else:
                part, imm = _STORED[row.size]
                self.define(slot, part, (registers[insn.src_reg],), imm, 0, insn.pc)
            return
        base = self.checks(insn, row, insn.dst_reg, stores=True)
        args = (base, registers[insn.src_reg]) if row.uses_src else (base,)
        self.ops.append(Op(row, args, 0 if row.uses_src else insn.imm, insn.offset, insn.pc))

    def atomic(self, insn: Instruction, row: Row) -> None:
        """Bounds for loading and storing, and the operation; what is fetched is a value."""
        base = self.checks(insn, row, insn.dst_reg, stores=True)
        args: tuple[int, ...] = (base, self.registers[insn.src_reg])
        compares = row.meaning == "CMPXCHG"
        if compares:
            args += (self.registers[0],)
        if row.fetch:
            self.define(0 if compares else insn.src_reg, row, args, 0, insn.offset, insn.pc)
        else:
            self.ops.append(Op(row, args, 0, insn.offset, insn.pc))

    def packet_load(self, insn: Instruction, row: Row) -> None:
        """A load from the packet: where there are no such bytes baseline code ends the function."""
        args = (self.registers[insn.src_reg],) if row.uses_src else ()
        self.define(0, row, args, insn.imm, 0, insn.pc, self.exit(insn.pc))

    def call_out(self, insn: Instruction, row: Row) -> None:
        """A call of a helper, which may end the function; r1 to r5 are zero afterwards."""
        registers = self.registers
        self.define(0, row, tuple(registers[1:6]), insn.imm, insn.offset, insn.pc)
        self.define(1, MOVE_IMM, (), 0, 0, insn.pc)
        registers[1:6] = [registers[1]] * len(ARGUMENTS)

    # -- ends --

    def call(self, insn: Instruction, row: Row) -> Block:
        """A call of a function of the program, which leaves r0 to r5; too deep, baseline code faults."""
        target, registers, pc = insn.target, self.registers, insn.pc
        if row.kind is Kind.CALL_LOCAL:
            assert target is not None  # a local call has one
            if not is_inside(self.program, target):
                return self.closed(self.leave(pc))
            read = self.builder.read[self.builder.numbers[target]]
            args, imm = [registers[x] for x in read if x < FRAME_POINTER], target
        else:
            args, imm = [registers[insn.dst_reg], *registers[:FRAME_POINTER]], 0
        leaves, results = self.exit(pc), tuple(map(self.builder.new, range(CALL_RESULTS)))
        self.ops.append(Op(row, tuple(args), imm, 0, pc, results, leaves))
        registers[:CALL_RESULTS] = results
        return self.closed(Op(JUMP, (), 0, 0, pc), self.way(insn.next_pc))

    def jump(self, insn: Instruction, row: Row) -> Block:
        """The one way out."""
        target = insn.target
        assert target is not None  # a jump has one
        if target not in self.builder.numbers:
            return self.closed(self.leave(insn.pc))
        return self.closed(Op(JUMP, (), 0, 0, insn.pc), self.way(target))

    def branch(self, insn: Instruction, row: Row) -> Block:
        """Two ways out: taken, and on."""
        assert insn.target is not None  # a jump has one
        registers, pc = self.registers, insn.pc
        args: tuple[int, ...] = ()
        if row.kind is Kind.BRANCH:
            args = (registers[insn.dst_reg],)
            if row.uses_src:
                args += (registers[insn.src_reg],)
        end = Op(row, args, insn.imm if row.imm is Imm.OPERAND else 0, 0, pc)
        behind = self.way(pc + 1)
        if pc in self.branches:
            counts = Op(COUNT, (), 1, BRANCH, pc)
            behind = Way(self.builder.stub(Block(pc, (), (counts,), Op(JUMP, (), 0, 0, pc), (behind,))), ())
        return self.closed(end, self.way(insn.target, instead=pc), behind)

    def leave_function(self, insn: Instruction, row: Row) -> Block:
        """The end of the function: r0, and for callers of the program r1 to r5."""
        mask = self.builder.live[insn.pc]
        args = [self.registers[register] for register in range(CALL_RESULTS) if mask >> register & 1]
        return self.closed(Op(row, tuple(args), 0, 0, insn.pc))


def _bits(mask: int) -> tuple[int, ...]:
    """Return the numbers of the bits that are set."""
    return tuple([number for number in range(mask.bit_length()) if mask >> number & 1])


_STORED = {4: (LOW_HALF, 0), 2: (BY_NAME["AND64_K"], 0xFFFF), 1: (BY_NAME["AND64_K"], 0xFF)}
"""What a store of so many bytes keeps of a value."""


_OF_KIND: dict[Kind, Callable[[_Translation, Instruction, Row], None]] = {
    Kind.BINARY: _Translation.binary,
    Kind.MOVE: _Translation.move,
    Kind.UNARY: _Translation.unary,
    Kind.CAST: _Translation.cast,
    Kind.LOAD_IMM64: _Translation.constant,
    Kind.LOAD: _Translation.load,
    Kind.STORE: _Translation.store,
    Kind.ATOMIC: _Translation.atomic,
    Kind.PACKET_LOAD: _Translation.packet_load,
    Kind.CALL_HELPER: _Translation.call_out,
    Kind.CALL_KFUNC: _Translation.call_out,
}
_STEPS = {row: _OF_KIND[row.kind] for row in TABLE if row.kind in _OF_KIND}
_ENDINGS: dict[Kind, Callable[[_Translation, Instruction, Row], Block]] = {
    Kind.JUMP: _Translation.jump,
    Kind.BRANCH: _Translation.branch,
    Kind.MAY_GOTO: _Translation.branch,
    Kind.CALL_LOCAL: _Translation.call,
    Kind.CALL_REGISTER: _Translation.call,
    Kind.EXIT: _Translation.leave_function,
}
