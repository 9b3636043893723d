"""The machine of the interpreter while it runs: registers, frames, budget; and a run from start to end."""

from __future__ import annotations

from collections.abc import Callable

from ebpfjit.analysis.verified import Verified
from ebpfjit.errors import ExecutionError, Stopped
from ebpfjit.interpreter.decode import Decoded, Stretch, Watcher, decoded
from ebpfjit.interpreter.steps import DECODERS, LEFT, check_depth, function_at
from ebpfjit.isa.spec import REGISTER_COUNT, Row
from ebpfjit.program import Instruction, Program
from ebpfjit.record import dataclass
from ebpfjit.runtime import counters, faults
from ebpfjit.runtime.execution import MAX_LOOPS, Execution, callback_arguments
from ebpfjit.runtime.memory import MAX_FRAMES, Region, active, check_marks, has_marks
from ebpfjit.runtime.world import Thrown, engine_of

NOWHERE = Region("nothing", 0, 0, False, memoryview(b""))
"""A region that holds no byte."""


@dataclass(slots=True)
class Frame:
    """What a local call saves and its exit restores."""

    return_pc: int
    saved: tuple[int, ...]  # r6 to r9, and r10
    stack_start: int
    loops: int


class State:
    """The machine while it runs: registers (u64), pc, frames, budget.

    `pc` is right between stretches, and in calls, where it is the instruction that follows. `near` has for
    each register the region of the last access through it, where the next one looks first: whether its bytes
    lie in it, as it is then, and whether it allows them. `forget` empties it where a region was taken away.
    """

    def __init__(self, verified: Verified, execution: Execution, watcher: Watcher | None = None) -> None:
        self.verified = verified
        self.program = verified.program
        self.watcher = watcher
        self.decoded: Decoded = decoded(verified, watched=watcher is not None, counted=counters.are_on())
        self.execution = execution
        self.space = execution.space
        self.space.spend = self.spend
        self.space.after_revoke = self.forget
        self.registers = [0] * REGISTER_COUNT
        self.registers[1], self.registers[2] = execution.arguments
        self.near = [NOWHERE] * REGISTER_COUNT
        self.pc = 0
        self.frames: list[Frame] = []
        self.loops = MAX_LOOPS
        self.budget = execution.limit
        self.result: int | None = None
        self.leaving = False
        self.ended = False

    def forget(self, _: Region) -> None:
        """Look for the region of each access anew: one of them was taken away."""
        self.near[:] = [NOWHERE] * REGISTER_COUNT

    def enter_function(self, pc: int, caller: int) -> None:
        """Start the function at slot `pc` on a zeroed frame of its own, below the live ones."""
        top = self.execution.stack.start
        if not self.execution.stack.push(self.verified.frame_sizes[pc]):
            raise faults.call_depth_exceeded(caller, MAX_FRAMES)
        self.registers[10] = top
        self.loops = MAX_LOOPS
        self.pc = pc

    def call_local(self, target: int, caller: int) -> None:
        """Start the function at slot `target` for a call at slot `caller`, and have its exit come back."""
        saved = tuple(self.registers[6:11])
        self.frames.append(Frame(caller + 1, saved, self.execution.stack.start, self.loops))
        self.enter_function(target, caller)

    def exit_function(self) -> int:
        """Go back to where the function was called; of the outermost one, r0 is the result. Return LEFT."""
        if not self.frames:
            self.result = self.registers[0]
            return LEFT
        frame = self.frames.pop()
        self.pc = frame.return_pc
        self.registers[6:11] = frame.saved
        self.execution.stack.start = frame.stack_start
        self.loops = frame.loops
        return LEFT

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
            self.registers[:] = saved
            self.pc, self.loops, self.leaving = pc, loops, leaving
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

    def charge(self, stretch: Stretch) -> None:
        """Pay for the basic block that starts with a stretch.

        The budget is looked at in some blocks only (`Verified.tested`); in between it may go
        below zero.
        """
        if stretch.is_tested:
            try:
                check_marks()
            except Stopped as error:
                raise faults.locate(error, stretch.pc) from None
        if self.budget is None:
            return
        if self.budget < stretch.cost and stretch.is_tested:
            raise faults.budget_exhausted(stretch.pc, self.execution.limit)
        self.budget -= stretch.cost

    def run_until(self, depth: int) -> None:
        """Run until so many frames are left, -1 for the end of the program; or until a helper ends it."""
        execution, registers = self.execution, self.registers
        stretches, stretch_at = self.decoded.stretches, self.decoded.stretch_at
        is_charged = self.budget is not None or has_marks()
        while self.is_inside(depth):
            pc = self.pc
            while pc != LEFT:
                stretch = stretches.get(pc) or stretch_at(pc)
                if is_charged:
                    self.charge(stretch)
                execution.instructions += stretch.count
                try:
                    for step in stretch.body:
                        step(self, registers)
                except ExecutionError as error:
                    execution.instructions -= stretch.count_behind(error.pc)
                    raise
                pc = stretch.end(self, registers)

    def is_inside(self, depth: int) -> bool:
        """True while there are more frames than that, and nothing has ended the program."""
        return self.result is None and len(self.frames) > depth and not self.ended

    def step(self) -> None:
        """Execute the instruction at `pc`, and pay for its basic block where it is the first."""
        stretch = self.decoded.single_at(self.pc)
        self.charge(stretch)
        self.execution.instructions += stretch.count
        for step in stretch.body:
            step(self, self.registers)
        self._go_to(stretch.end(self, self.registers))

    def execute(self, instruction: Instruction, row: Row) -> None:
        """Execute an instruction as a row says, wherever the machine is."""
        self.execution.instructions += 1
        pc = DECODERS[row.kind](self.verified, instruction, row)(self, self.registers)
        self._go_to(instruction.next_pc if pc is None else pc)

    def _go_to(self, pc: int) -> None:
        if pc != LEFT:
            self.pc = pc


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
    state = State(verified, execution, watcher) if machine is None else machine(execution)
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
            # Else the space refers to itself, and buffers stay exported.
            state.space.spend = state.space.after_revoke = None
    if state.ended:
        return state.registers[0]
    assert state.result is not None  # the outermost function has left
    return state.result
