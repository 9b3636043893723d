"""The reference interpreter: clear before fast, and the judge of the machine code.

One function per kind of instruction; the table row says which, `isa.semantics` says what it means.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from dataclasses import dataclass

from ebpfjit.analysis.arena_accesses import base_of
from ebpfjit.analysis.cfg import is_inside
from ebpfjit.analysis.verified import Verified
from ebpfjit.bits import U64_MASK, W32, W64
from ebpfjit.errors import ExecutionError, Stopped
from ebpfjit.isa import semantics
from ebpfjit.isa.spec import FROM_ARENA, REGISTER_COUNT, Kind, Row
from ebpfjit.program import Instruction, Program
from ebpfjit.runtime import faults
from ebpfjit.runtime.execution import (
    CODE_ADDRESS,
    MAX_LOOPS,
    Execution,
    HelperFunction,
    call_helper,
    callback_arguments,
)
from ebpfjit.runtime.foreign import NOTHING, ForeignMemory
from ebpfjit.runtime.memory import MAX_FRAMES, active, check_marks
from ebpfjit.runtime.world import Thrown, engine_of

LINK_OFFSET, NETWORK_OFFSET = -0x200000, -0x100000
"""From where on a packet load's offset counts from a header (SKF_LL_OFF, SKF_NET_OFF in linux/filter.h)."""


@dataclass(slots=True)
class Frame:
    """What a local call saves and its exit restores."""

    return_pc: int
    saved: tuple[int, ...]  # r6 to r9, and r10
    stack_start: int
    loops: int


class State:
    """The machine while it runs: registers (u64), pc, frames, budget."""

    def __init__(self, verified: Verified, execution: Execution) -> None:
        self.verified = verified
        self.program = verified.program
        self.execution = execution
        self.space = execution.space
        self.space.spend = self.spend
        self.registers = [0] * REGISTER_COUNT
        self.registers[1], self.registers[2] = execution.arguments
        self.pc = 0
        self.frames: list[Frame] = []
        self.loops = MAX_LOOPS
        self.budget = execution.limit
        self.result: int | None = None
        self.watcher: Watcher | None = None
        self.leaving = False
        self.ended = False

    def enter_function(self, pc: int, caller: int) -> None:
        """Start the function at slot `pc` on a zeroed frame of its own, below the live ones."""
        top = self.execution.stack.start
        if not self.execution.stack.push(self.verified.frame_sizes[pc]):
            raise faults.call_depth_exceeded(caller, MAX_FRAMES)
        self.registers[10] = top
        self.loops = MAX_LOOPS
        self.pc = pc

    def call_function(self, address: int, arguments: tuple[int, ...]) -> int:
        """Run a function of the program for a helper that is being called; return its r0."""
        if self.execution.mark is not None:
            self.execution.mark.check()
        caller = self.pc - 1  # a helper call takes one slot
        target = function_at(self.verified, address, caller)
        check_depth(self, caller)
        saved, pc, depth = self.registers[:], self.pc, len(self.frames)
        stack_start, loops, leaving = self.execution.stack.start, self.loops, self.leaving
        values = callback_arguments(arguments)
        self.frames.append(Frame(pc, tuple(saved[6:11]), stack_start, loops))
        self.registers[:10] = [0, *values, 0, 0, 0, 0]
        self.leaving = False
        try:
            self.enter_function(target, caller)
            self.run_until(depth)
            if self.ended:
                raise Thrown(self.registers[0])
            return self.registers[0]
        finally:
            del self.frames[depth:]
            self.registers, self.pc, self.loops, self.leaving = saved, pc, loops, leaving
            self.ended = False
            self.execution.stack.start = stack_start

    def place(self) -> tuple[Program, int]:
        """Return the program, and the slot of the helper call that is going on."""
        return self.program, self.pc - 1  # a helper call takes one slot

    def leave_function(self) -> None:
        """Make the function that called the helper exit once the helper has returned."""
        self.leaving = True

    def leave_program(self) -> None:
        """Make the program, or the function that another helper called, exit once the helper has returned."""
        self.ended = True

    def budget_left(self) -> int | None:
        """Return how many instructions the run may still execute, None for no limit."""
        return self.budget

    def spend(self, instructions: int) -> None:
        """Pay for the work of a helper; who called it adds the pc to the fault."""
        if self.budget is None:
            return
        if self.budget < instructions:
            raise faults.budget_exhausted(None, self.execution.limit)
        self.budget -= instructions

    def charge(self) -> None:
        """Pay for the basic block that starts here, if one does.

        The budget is looked at in some blocks only (`Verified.tested`); in between it may go
        below zero.
        """
        cost = self.verified.costs.get(self.pc)
        if cost is None:
            return
        if self.pc in self.verified.tested:
            try:
                check_marks()
            except Stopped as error:
                raise faults.locate(error, self.pc) from None
        if self.budget is None:
            return
        if self.budget < cost and self.pc in self.verified.tested:
            raise faults.budget_exhausted(self.pc, self.execution.limit)
        self.budget -= cost

    def run_until(self, depth: int) -> None:
        """Run until so many frames are left, -1 for the end of the program; or until a helper ends it."""
        while self.is_inside(depth):
            self.step()

    def is_inside(self, depth: int) -> bool:
        """True while there are more frames than that, and nothing has ended the program."""
        return self.result is None and len(self.frames) > depth and not self.ended

    def step(self) -> None:
        """Execute the instruction at `pc`, and pay for its basic block where it is the first."""
        slots = self.program.slots
        if self.pc >= len(slots):
            raise faults.illegal_instruction(self.pc, "control fell off the end of the program")
        self.charge()
        if self.watcher is not None:
            self.watcher(self.pc, self.registers)
        instruction = slots[self.pc]
        assert instruction is not None  # jumps into the second half of an lddw were refused
        if instruction.pc in self.verified.illegal or instruction.row is None:
            raise faults.illegal_instruction(instruction.pc, self.verified.illegal[instruction.pc])
        self.execute(instruction, instruction.row)

    def execute(self, instruction: Instruction, row: Row) -> None:
        """Execute an instruction, wherever the machine is."""
        self.pc = instruction.next_pc
        self.execution.instructions += 1
        STEPS[row.kind](self, instruction, row)

    def operand(self, row: Row, insn: Instruction) -> int:
        """The second operand at the row's width: src, or imm sign-extended."""
        value = self.registers[insn.src_reg] if row.uses_src else insn.imm
        return row.width.wrap(value)


Watcher = Callable[[int, list[int]], None]
"""watcher(pc, registers): told of each instruction before it is executed."""

Step = Callable[[State, Instruction, Row], None]
STEPS: dict[Kind, Step] = {}


def executes(kind: Kind) -> Callable[[Step], Step]:
    """Register what the interpreter does for a kind of instruction.

    A step is called with `state.pc` already at the next instruction.
    """

    def register(step: Step) -> Step:
        STEPS[kind] = step
        return step

    return register


def interpret(
    verified: Verified,
    execution: Execution,
    watcher: Watcher | None = None,
    machine: Callable[[Execution], State] | None = None,
) -> int:
    """Run a program and return r0, unsigned; on a `machine` that is made for it, where there is one.

    `watcher` is told of each instruction when its basic block is paid for, before it is executed.
    Raises MemoryFault, AlignmentFault, IllegalInstruction, BudgetExhausted, CallDepthExceeded,
    HelperNotFound, or whatever a helper raised. `execution.instructions` counts what was executed.
    """
    state = State(verified, execution) if machine is None else machine(execution)
    state.watcher = watcher
    with active(state.space, execution.mark), engine_of(execution.world, state):
        try:
            if execution.function is not None:
                return state.call_function(*execution.function)
            state.enter_function(0, caller=0)
            state.run_until(-1)
        except ExecutionError as error:
            faults.name_line(error, verified.program)
            raise
        finally:
            execution.budget_left = state.budget
            state.space.spend = None  # else it refers to itself, and buffers stay exported
    if state.ended:
        return state.registers[0]
    assert state.result is not None  # the outermost function has left
    return state.result


@executes(Kind.BINARY)
def _binary(state: State, insn: Instruction, row: Row) -> None:
    dst = row.width.wrap(state.registers[insn.dst_reg])
    meaning = semantics.BINARY[row.meaning]
    state.registers[insn.dst_reg] = meaning(row.width, dst, state.operand(row, insn))


@executes(Kind.MOVE)
def _move(state: State, insn: Instruction, row: Row) -> None:
    state.registers[insn.dst_reg] = semantics.MOVE[row.meaning](row.width, state.operand(row, insn))


@executes(Kind.UNARY)
def _unary(state: State, insn: Instruction, row: Row) -> None:
    dst = row.width.wrap(state.registers[insn.dst_reg])
    state.registers[insn.dst_reg] = semantics.UNARY[row.meaning](row.width, dst)


@executes(Kind.CAST)
def _cast(state: State, insn: Instruction, row: Row) -> None:
    number, use = W32.wrap(state.registers[insn.src_reg]), state.verified.arena
    to_user = use is not None and insn.imm != FROM_ARENA
    state.registers[insn.dst_reg] = use.map.to_user(number) if use is not None and to_user else number


@executes(Kind.LOAD_IMM64)
def _load_imm64(state: State, insn: Instruction, row: Row) -> None:
    state.registers[insn.dst_reg] = constant(state.verified, insn, row)


def constant(verified: Verified, insn: Instruction, row: Row) -> int:
    """Return the value that an LDDW leaves in dst, u64."""
    if row.operation == "LDDW_CODE":
        return CODE_ADDRESS + insn.pc + 1 + insn.imm
    if row.reference is not None:
        return verified.program.references[insn.pc]
    return insn.imm64


def _check_alignment(insn: Instruction, row: Row, address: int) -> None:
    if row.is_ordered and address % row.size:
        raise faults.alignment_fault(insn.pc, address, row.size)


_ELSEWHERE: tuple[bool, memoryview | None] = (False, None)
"""Said of each access of a program without an arena, which is nearly every program."""


def _arena_bytes(state: State, insn: Instruction, row: Row) -> tuple[bool, memoryview | None]:
    """Return whether an access is to the arena, and its bytes there: None where there are none."""
    use = state.verified.arena
    is_sure = use.accesses.get(insn.pc) if use is not None else None
    if use is None or is_sure is None:
        return _ELSEWHERE
    number = state.registers[base_of(insn)]
    access = "load" if row.kind is Kind.LOAD else "store"
    if not is_sure and state.space.find(W64.wrap(number + insn.offset), row.size, access) is not None:
        return _ELSEWHERE
    return True, use.map.reach(number, insn.offset, row.size)


def _foreign(state: State) -> ForeignMemory:
    """Return the memory behind pointers of the kernel's."""
    world = state.execution.world
    return world.foreign if world is not None else NOTHING


@executes(Kind.LOAD)
def _load(state: State, insn: Instruction, row: Row) -> None:
    address = W64.wrap(state.registers[insn.src_reg] + insn.offset)
    _check_alignment(insn, row, address)
    in_arena, view = _ELSEWHERE if state.verified.arena is None else _arena_bytes(state, insn, row)
    if in_arena:
        value = int.from_bytes(view, "little") if view is not None else 0
    elif insn.pc in state.verified.kernel_loads and state.space.find(address, row.size, "load") is None:
        value = _foreign(state).load(address, row.size)
    else:
        value = state.space.load(insn.pc, address, row.size, faults.access_of(row))
    state.registers[insn.dst_reg] = W64.wrap(row.width.signed(value)) if row.signed else value


@executes(Kind.STORE)
def _store(state: State, insn: Instruction, row: Row) -> None:
    address = W64.wrap(state.registers[insn.dst_reg] + insn.offset)
    _check_alignment(insn, row, address)
    in_arena, view = _ELSEWHERE if state.verified.arena is None else _arena_bytes(state, insn, row)
    if in_arena:
        if view is not None:
            view[:] = (state.operand(row, insn) & (1 << 8 * row.size) - 1).to_bytes(row.size, "little")
        return
    state.space.store(insn.pc, address, row.size, state.operand(row, insn), faults.access_of(row))


@executes(Kind.ATOMIC)
def _atomic(state: State, insn: Instruction, row: Row) -> None:
    address = W64.wrap(state.registers[insn.dst_reg] + insn.offset)
    _check_alignment(insn, row, address)
    source = row.width.wrap(state.registers[insn.src_reg])
    in_arena, view = _ELSEWHERE if state.verified.arena is None else _arena_bytes(state, insn, row)
    if in_arena:
        if view is None:
            return  # Linux skips the instruction: registers stay as they are
        old = int.from_bytes(view, "little")
    else:
        old = state.space.load(insn.pc, address, row.size, "atomic")
    new = semantics.ATOMIC[row.meaning](row.width, old, source)
    if row.meaning == "CMPXCHG":
        expected = row.width.wrap(state.registers[0])
        # Written back even where it differs, as the machine does: the write must be allowed.
        new = new if old == expected else old
    if view is not None:
        view[:] = new.to_bytes(row.size, "little")
    else:
        state.space.store(insn.pc, address, row.size, new, "atomic")
    if row.fetch:
        state.registers[0 if row.meaning == "CMPXCHG" else insn.src_reg] = old


@executes(Kind.PACKET_LOAD)
def _packet_load(state: State, insn: Instruction, row: Row) -> None:
    index = insn.imm + (state.registers[insn.src_reg] if row.uses_src else 0)
    packet = state.execution.packet
    offset = _packet_offset(state.execution, W32.signed(index))
    if packet is None or offset is None or offset + row.size > packet.size:
        state.registers[0] = 0
        _leave_function(state)
        return
    if offset >= 0:
        data = bytes(packet.view[offset : offset + row.size])
    else:  # the link header, in front of what the program sees
        data = ctypes.string_at(packet.start + offset, row.size)
    state.registers[0] = int.from_bytes(data, "big")


def _packet_offset(execution: Execution, index: int) -> int | None:
    """Return where a packet load reads, from the packet's start; None where there is nothing."""
    packet, headers = execution.packet, execution.headers
    if index >= 0:
        return index
    if index < LINK_OFFSET or packet is None or headers is None:
        return None
    if index >= NETWORK_OFFSET:
        return headers.network - packet.start + index - NETWORK_OFFSET
    return headers.link - packet.start + index - LINK_OFFSET


def _jump(state: State, insn: Instruction) -> None:
    target = insn.target
    assert target is not None  # only jumps come here
    if not is_inside(state.program, target):
        raise faults.bad_target(insn, len(state.program))
    state.pc = target


@executes(Kind.JUMP)
def _goto(state: State, insn: Instruction, row: Row) -> None:
    _jump(state, insn)


@executes(Kind.BRANCH)
def _branch(state: State, insn: Instruction, row: Row) -> None:
    dst = row.width.wrap(state.registers[insn.dst_reg])
    if semantics.CONDITION[row.meaning](row.width, dst, state.operand(row, insn)):
        _jump(state, insn)


@executes(Kind.MAY_GOTO)
def _may_goto(state: State, insn: Instruction, row: Row) -> None:
    if state.loops:
        state.loops -= 1
    else:
        _jump(state, insn)


def _call_out(state: State, insn: Instruction, function: HelperFunction | None) -> None:
    if function is None:
        raise faults.helper_not_found(insn)
    r1, r2, r3, r4, r5 = state.registers[1:6]
    try:
        result = call_helper(function, (r1, r2, r3, r4, r5))
    except ExecutionError as error:
        faults.locate(error, insn.pc)
        raise
    # What a call leaves in r1 to r5 is nobody's: zero, in both engines.
    state.registers[0:6] = [result & U64_MASK, 0, 0, 0, 0, 0]
    if state.leaving:
        state.leaving = False
        _leave_function(state)


@executes(Kind.CALL_HELPER)
def _call_helper(state: State, insn: Instruction, row: Row) -> None:
    _call_out(state, insn, state.execution.helpers.get(insn.imm & 0xFFFFFFFF))


@executes(Kind.CALL_KFUNC)
def _call_kfunc(state: State, insn: Instruction, row: Row) -> None:
    _call_out(state, insn, state.execution.kfuncs.get(insn.imm & 0xFFFFFFFF))


def check_depth(state: State, pc: int) -> None:
    """Raise CallDepthExceeded where there is no frame left for a call at slot `pc`."""
    if len(state.frames) + 1 >= MAX_FRAMES:
        raise faults.call_depth_exceeded(pc, MAX_FRAMES)


def function_at(verified: Verified, address: int, pc: int) -> int:
    """Return the slot of the function that an LDDW calls `address`; `pc` is that of the call.

    Raises IllegalInstruction where there is none.
    """
    target = address - CODE_ADDRESS
    if target not in verified.program.functions:
        raise faults.bad_function(pc, address)
    return target


def _call_function(state: State, insn: Instruction, target: int) -> None:
    saved = tuple(state.registers[6:11])
    state.frames.append(Frame(state.pc, saved, state.execution.stack.start, state.loops))
    state.enter_function(target, caller=insn.pc)


@executes(Kind.CALL_LOCAL)
def _call_local(state: State, insn: Instruction, row: Row) -> None:
    target = insn.target
    assert target is not None  # a local call has one
    if not is_inside(state.program, target):
        raise faults.bad_target(insn, len(state.program))
    check_depth(state, insn.pc)
    _call_function(state, insn, target)


@executes(Kind.CALL_REGISTER)
def _call_register(state: State, insn: Instruction, row: Row) -> None:
    check_depth(state, insn.pc)
    _call_function(state, insn, function_at(state.verified, state.registers[insn.dst_reg], insn.pc))


def _leave_function(state: State) -> None:
    if not state.frames:
        state.result = state.registers[0]
        return
    frame = state.frames.pop()
    state.pc = frame.return_pc
    state.registers[6:11] = frame.saved
    state.execution.stack.start = frame.stack_start
    state.loops = frame.loops


@executes(Kind.EXIT)
def _exit(state: State, insn: Instruction, row: Row) -> None:
    _leave_function(state)
