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
the same on every way in are gone. A block that is entered from outside and ends the round of a loop is there
twice, so that the loop is entered at its header only. What falls off the end, jumps nowhere or is no
instruction leaves.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Collection, Mapping, Sequence

from ebpfjit.analysis.cfg import is_inside
from ebpfjit.analysis.liveness import live_before
from ebpfjit.analysis.verified import Verified
from ebpfjit.errors import OptimizationError
from ebpfjit.isa.spec import FRAME_POINTER, REGISTER_COUNT, Imm, Kind, Reg, Row
from ebpfjit.isa.table import BY_NAME
from ebpfjit.optimizer.arguments import Place, origins
from ebpfjit.optimizer.code import (
    ALIGNED,
    BOUND,
    CALL_RESULTS,
    LEAVE,
    PAY,
    Block,
    Code,
    Entry,
    Exit,
    Op,
    Way,
)
from ebpfjit.optimizer.slots import NO_SLOTS, slots_of
from ebpfjit.program import Instruction
from ebpfjit.runtime.execution import CODE_ADDRESS

MOVE_IMM, LOW_HALF, WIDE, JUMP = (BY_NAME[name] for name in ("MOV64_K", "MOV32_X", "LDDW", "JA"))
ARGUMENTS = range(1, 6)
"""Registers that hold a helper's arguments, and zero behind it."""


def build(verified: Verified, entries: Collection[int] = (), *, slots: bool = True) -> Code:
    """Return a program as Code that is entered at its functions, and at these blocks besides.

    With `slots` those of frames are values.

    Raises OptimizationError for programs of which analysis does not know what their accesses are to.
    """
    if not verified.knows_all:
        raise OptimizationError("it has accesses of which analysis knows nothing")
    return _Builder(verified, entries, slots=slots).code()


class _Builder:
    """Blocks while they are made, numbered by pc, each made after one at least of those before it."""

    def __init__(self, verified: Verified, entries: Collection[int], *, slots: bool) -> None:
        self.verified = verified
        self.program = verified.program
        self.live = live_before(verified.liveness)
        self.entered = sorted({0, *self.program.functions, *entries})
        self.is_entered = frozenset(self.entered)
        ways = self._ways()
        copies = [pc for pc in self.entered if self._ends_round(pc, ways[pc])]
        heads = [pc for pc in self.entered if pc not in copies]
        order = _reverse_postorder([*heads, *(way for pc in copies for way in ways[pc])], ways)
        has_slots = slots and not entries
        self.slots = slots_of(verified, {pc: ways[pc] for pc in order}) if has_slots else NO_SLOTS
        self.width = REGISTER_COUNT + max(map(len, self.slots.bytes.values()), default=0)
        self.starts = [*sorted(order), *copies]
        self.numbers = {pc: number for number, pc in enumerate(self.starts[: len(order)])}
        self.entries = self.numbers | {pc: len(order) + index for index, pc in enumerate(copies)}
        self.order = [*range(len(order), len(self.starts)), *(self.numbers[pc] for pc in order)]
        live, found = verified.liveness.at, self.slots
        self.read = [(*_REGISTERS[live[pc]], *_bits(found.live.get(pc, 0))) for pc in self.starts]
        self.origins = origins(
            [[self.numbers[way] for way in ways[pc]] for pc in self.starts],
            self.read,
            [self._written(pc) | found.written.get(pc, 0) for pc in self.starts],
            [self.entries[pc] for pc in self.entered],
            self.width,
        )
        self.arguments = [
            tuple(x for x in registers if self.origins[at := number * self.width + x] == at)
            for number, registers in enumerate(self.read)
        ]
        self.values: dict[Place, int] = {}
        self.left: list[list[int | None]] = [[]] * len(self.starts)
        self.stubs: list[Block] = []
        self.homes: list[int] = []

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

    def _written(self, pc: int) -> int:
        """Return the registers that a block's instructions write, as a mask."""
        written, slots = 0, self.program.slots
        for _ in range(self.verified.blocks[pc]):
            insn = slots[pc]
            assert insn is not None  # a block is made of instructions
            row = insn.row
            if row is None or pc in self.verified.illegal:
                break
            for register in row.implicit_writes:
                written |= 1 << register
            if row.dst is Reg.WRITE or row.dst is Reg.UPDATE:
                written |= 1 << insn.dst_reg
            if row.src is Reg.UPDATE:
                written |= 1 << insn.src_reg
            pc = insn.next_pc
        return written

    def new(self, register: int) -> int:
        """Return a new value, that of a register."""
        self.homes.append(register)
        return len(self.homes) - 1

    def registers_of(self, number: int) -> tuple[tuple[int, ...], list[int | None]]:
        """Return new values for a block's arguments, and what all registers are at its start.

        Slots that a function starts with are no arguments of it.
        """
        registers: list[int | None] = [None] * self.width
        args = []
        for register in self.read[number]:
            place = number * self.width + register
            origin = self.origins[place]
            if origin == place:
                self.values[place] = self.new(register)
                if register < REGISTER_COUNT or self.starts[number] not in self.is_entered:
                    args.append(self.values[place])
            if origin >= 0:
                registers[register] = self.values[origin]
            else:
                block, written = divmod(~origin, self.width)
                registers[register] = self.left[block][written]
        return tuple(args), registers

    def code(self) -> Code:
        """Return the whole."""
        blocks: dict[int, Block] = {}
        starts: list[Exit | None] = [None] * len(self.starts)
        for number in self.order:
            translation = _Translation(self, number)
            starts[number] = translation.exit(translation.pc, paid=False)
            blocks[number] = translation.block()
            self.left[number] = translation.registers
        read = {pc: self.read[self.entries[pc]] for pc in self.entered}
        entries = {
            pc: Entry(self.entries[pc], tuple(x for x in registers if x < REGISTER_COUNT))
            for pc, registers in read.items()
        }
        in_order = (blocks[number] for number in range(len(blocks)))
        return Code(self.verified, (*in_order, *self.stubs), entries, self.homes, starts=starts)


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
    """One block: which value each register has, and the operations so far."""

    def __init__(self, builder: _Builder, number: int) -> None:
        self.builder, self.pc = builder, builder.starts[number]
        self.verified, self.program = builder.verified, builder.program
        self.size, self.cost = self.verified.blocks[self.pc], self.verified.costs[self.pc]
        self.ops: list[Op] = []
        self.args, self.registers = builder.registers_of(number)
        self.bytes = builder.slots.bytes.get(builder.slots.functions.get(self.pc, -1), ())
        if self.pc in builder.is_entered:  # frames are zero at the start
            for register in builder.read[number]:
                if register >= REGISTER_COUNT:
                    self.ops.append(Op(MOVE_IMM, (), 0, 0, self.pc, (self.value(register),)))

    def block(self) -> Block:
        """Translate the block's instructions."""
        self.pay()
        at = self.pc
        for _ in range(self.size):
            insn = self.program.slots[at]
            assert insn is not None  # a block is made of instructions
            row = insn.row
            if row is None or at in self.verified.illegal:
                return self.closed(self.leave(insn.pc))
            end = _ENDINGS.get(row.kind)
            if end is not None:
                return end(self, insn, row)
            _STEPS[row.kind](self, insn, row)
            at = insn.next_pc
        return self.closed(self.op(JUMP, pc=self.pc), self.way(at))

    def closed(self, end: Op, *ways: Way) -> Block:
        """Return the block with its end."""
        return Block(self.pc, self.args, tuple(self.ops), end, ways)

    # -- the parts of operations --

    def value(self, register: int) -> int:
        """Return the value that a register has."""
        value = self.registers[register]
        assert value is not None  # liveness has seen that it is read
        return value

    def op(
        self, row: Row, *args: int, imm: int = 0, offset: int = 0, pc: int, exit_at: int | None = None,
        stores: bool = False, homes: Sequence[int] = (),
    ) -> Op:  # fmt: skip
        """Return an operation with new values, of these registers."""
        made = tuple(map(self.builder.new, homes))
        leaves = None if exit_at is None else self.exit(exit_at)
        return Op(row, args, imm, offset, pc, made, leaves, stores)

    def add(self, op: Op) -> Op:
        """Add an operation to the block."""
        self.ops.append(op)
        return op

    def exit(self, pc: int, *, paid: bool = True) -> Exit:
        """Return the exit to an instruction of this block, or to what is behind the program.

        Where baseline code pays for the block again, what is paid for it goes back.
        """
        registers: list[int | None] = [None] * REGISTER_COUNT
        for register in _REGISTERS[self.builder.live[pc]] if pc < len(self.program) else ():
            registers[register] = self.registers[register]
        mask = self.builder.slots.live.get(pc, 0)
        slots = _bits(mask) if mask else ()
        registers += [self.registers[slot] for slot in slots]
        places = tuple([self.bytes[slot - REGISTER_COUNT] for slot in slots])
        return Exit(pc, tuple(registers), self.cost if paid and pc == self.pc else 0, places)

    def leave(self, pc: int) -> Op:
        """Return the end of a block that goes on in baseline code."""
        return self.op(LEAVE, pc=pc, exit_at=pc)

    def way(self, pc: int, instead: int | None = None) -> Way:
        """Return the way to a block; where there is none, to one that leaves at `pc`, or at `instead`."""
        if is_inside(self.program, pc):
            number = self.builder.numbers[pc]
            return Way(number, tuple(map(self.value, self.builder.arguments[number])))
        leaves = self.leave(pc if instead is None else instead)
        self.builder.stubs.append(Block(leaves.pc, (), (), leaves))
        return Way(len(self.builder.starts) + len(self.builder.stubs) - 1, ())

    def pay(self) -> None:
        """Pay for the block; where the budget is looked at and is short, it is baseline code that pays."""
        leaves = self.exit(self.pc, paid=False) if self.pc in self.verified.tested else None
        if self.cost or leaves is not None:
            self.add(Op(PAY, (), self.cost, 0, self.pc, (), leaves))

    # -- instructions --

    def binary(self, insn: Instruction, row: Row) -> None:
        """Dst = dst op src: of values."""
        args = [self.value(insn.dst_reg)]
        if row.uses_src:
            args.append(self.value(insn.src_reg))
        self.define(insn.dst_reg, row, *args, imm=_operand(insn, row), pc=insn.pc)

    def define(
        self, register: int, row: Row, *args: int, imm: int = 0, offset: int = 0, pc: int,
        exit_at: int | None = None,
    ) -> None:  # fmt: skip
        """Add an operation, whose value a register has from now on."""
        op = self.op(row, *args, imm=imm, offset=offset, pc=pc, exit_at=exit_at, homes=(register,))
        (self.registers[register],) = self.add(op).results

    def move(self, insn: Instruction, row: Row) -> None:
        """A copy of 64 bits is the same value."""
        if row.name == "MOV64_X":
            self.registers[insn.dst_reg] = self.value(insn.src_reg)
            return
        args = (self.value(insn.src_reg),) if row.uses_src else ()
        self.define(insn.dst_reg, row, *args, imm=_operand(insn, row), pc=insn.pc)

    def unary(self, insn: Instruction, row: Row) -> None:
        """Dst = op dst."""
        self.define(insn.dst_reg, row, self.value(insn.dst_reg), pc=insn.pc)

    def cast(self, insn: Instruction, row: Row) -> None:
        """Without an arena, which programs that come here do not have, the low half is what a cast leaves."""
        self.define(insn.dst_reg, LOW_HALF, self.value(insn.src_reg), pc=insn.pc)

    def constant(self, insn: Instruction, row: Row) -> None:
        """The number that a wide load stands for in this program."""
        if row.operation == "LDDW_CODE":
            number = CODE_ADDRESS + insn.pc + 1 + insn.imm
        else:
            number = insn.imm64 if row.reference is None else self.program.references[insn.pc]
        self.define(insn.dst_reg, WIDE, imm=number, pc=insn.pc)

    def checks(self, insn: Instruction, row: Row, base: int, *, stores: bool) -> int:
        """Add what an access asks before it happens; return the value of its base."""
        address, pc, offset = self.value(base), insn.pc, insn.offset
        if row.is_ordered:
            self.add(self.op(ALIGNED, address, imm=row.size, offset=offset, pc=pc, exit_at=pc))
        self.add(self.op(BOUND, address, imm=row.size, offset=offset, pc=pc, exit_at=pc, stores=stores))
        return address

    def load(self, insn: Instruction, row: Row) -> None:
        """A bound, and the load; what is in a slot is a value, as much of it as the slot has."""
        slot = self.builder.slots.of.get(insn.pc)
        if slot is not None:
            value, whole = self.value(slot), _LOADED[row.size, row.signed]
            if whole is None:
                self.registers[insn.dst_reg] = value
            else:
                part, imm = whole
                self.define(insn.dst_reg, part, value, imm=imm, pc=insn.pc)
            return
        base = self.checks(insn, row, insn.src_reg, stores=False)
        self.define(insn.dst_reg, row, base, offset=insn.offset, pc=insn.pc)

    def store(self, insn: Instruction, row: Row) -> None:
        """A bound, and the store."""
        slot = self.builder.slots.of.get(insn.pc)
        if slot is not None:
            if row.uses_src:
                self.registers[slot] = self.value(insn.src_reg)
            else:
                self.define(slot, MOVE_IMM, imm=_operand(insn, row), pc=insn.pc)
            return
        args = [self.checks(insn, row, insn.dst_reg, stores=True)]
        if row.uses_src:
            args.append(self.value(insn.src_reg))
        self.add(self.op(row, *args, imm=_operand(insn, row), offset=insn.offset, pc=insn.pc))

    def atomic(self, insn: Instruction, row: Row) -> None:
        """Bounds for loading and storing, and the operation; what is fetched is a value."""
        base = self.checks(insn, row, insn.dst_reg, stores=True)
        args = [base, self.value(insn.src_reg)]
        compares = row.meaning == "CMPXCHG"
        if compares:
            args.append(self.value(0))
        if row.fetch:
            self.define(0 if compares else insn.src_reg, row, *args, offset=insn.offset, pc=insn.pc)
        else:
            self.add(self.op(row, *args, offset=insn.offset, pc=insn.pc))

    def packet_load(self, insn: Instruction, row: Row) -> None:
        """A load from the packet: where there are no such bytes baseline code ends the function."""
        args = (self.value(insn.src_reg),) if row.uses_src else ()
        self.define(0, row, *args, imm=insn.imm, pc=insn.pc, exit_at=insn.pc)

    def call_out(self, insn: Instruction, row: Row) -> None:
        """A call of a helper, which may end the function; r1 to r5 are zero afterwards."""
        args = [self.value(register) for register in ARGUMENTS]
        self.define(0, row, *args, imm=insn.imm, offset=insn.offset, pc=insn.pc)
        self.define(1, MOVE_IMM, pc=insn.pc)
        self.registers[1:6] = [self.registers[1]] * len(ARGUMENTS)

    # -- ends --

    def call(self, insn: Instruction, row: Row) -> Block:
        """A call of a function of the program, which leaves r0 to r5; too deep, baseline code faults."""
        target = insn.target
        if row.kind is Kind.CALL_LOCAL:
            assert target is not None  # a local call has one
            if not is_inside(self.program, target):
                return self.closed(self.leave(insn.pc))
            read = self.builder.read[self.builder.numbers[target]]
            args, imm = [self.value(register) for register in read if register < FRAME_POINTER], target
        else:
            args, imm = [self.value(insn.dst_reg), *map(self.value, range(FRAME_POINTER))], 0
        op = self.op(row, *args, imm=imm, pc=insn.pc, exit_at=insn.pc, homes=range(CALL_RESULTS))
        self.registers[:CALL_RESULTS] = self.add(op).results
        return self.closed(self.op(JUMP, pc=insn.pc), self.way(insn.next_pc))

    def jump(self, insn: Instruction, row: Row) -> Block:
        """The one way out."""
        assert insn.target is not None  # a jump has one
        if not is_inside(self.program, insn.target):
            return self.closed(self.leave(insn.pc))
        return self.closed(self.op(JUMP, pc=insn.pc), self.way(insn.target))

    def branch(self, insn: Instruction, row: Row) -> Block:
        """Two ways out: taken, and on."""
        assert insn.target is not None  # a jump has one
        args = []
        if row.kind is Kind.BRANCH:
            args = [self.value(insn.dst_reg), *([self.value(insn.src_reg)] if row.uses_src else [])]
        end = self.op(row, *args, imm=_operand(insn, row), pc=insn.pc)
        return self.closed(end, self.way(insn.target, instead=insn.pc), self.way(insn.next_pc))

    def leave_function(self, insn: Instruction, row: Row) -> Block:
        """The end of the function: r0, and for callers of the program r1 to r5."""
        mask = self.builder.live[insn.pc]
        args = [self.value(register) for register in range(CALL_RESULTS) if mask >> register & 1]
        return self.closed(self.op(row, *args, pc=insn.pc))


def _bits(mask: int) -> tuple[int, ...]:
    """Return the numbers of the bits that are set."""
    return tuple([number for number in range(mask.bit_length()) if mask >> number & 1])


_LOADED: dict[tuple[int, bool], tuple[Row, int] | None] = {
    (8, False): None,
    (4, False): (LOW_HALF, 0),
    (2, False): (BY_NAME["AND64_K"], 0xFFFF),
    (1, False): (BY_NAME["AND64_K"], 0xFF),
    **{(bits // 8, True): (BY_NAME[f"MOVSX64_{bits}"], 0) for bits in (8, 16, 32)},
}
"""What a load of a size, signed or not, makes of what was stored; None: that is it."""


def _operand(insn: Instruction, row: Row) -> int:
    """Return the immediate where it is an operand, and not what tells operations apart."""
    return insn.imm if row.imm is Imm.OPERAND else 0


_STEPS: dict[Kind, Callable[[_Translation, Instruction, Row], None]] = {
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
_ENDINGS: dict[Kind, Callable[[_Translation, Instruction, Row], Block]] = {
    Kind.JUMP: _Translation.jump,
    Kind.BRANCH: _Translation.branch,
    Kind.MAY_GOTO: _Translation.branch,
    Kind.CALL_LOCAL: _Translation.call,
    Kind.CALL_REGISTER: _Translation.call,
    Kind.EXIT: _Translation.leave_function,
}
