"""Code in the interpreter: what the optimizer makes of a program, run value by value.

    interpret(stage(code)) == interpret(program), at every stage

The interpreter goes on where Code leaves. An access that no BOUND stood for is a wrong proof: WrongCode,
which is no fault of the program's.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import contextmanager, suppress
from operator import mul
from typing import Protocol

from ebpfjit.analysis.accesses import Promises
from ebpfjit.analysis.verified import Verified
from ebpfjit.bits import W64
from ebpfjit.difftest.guards import LITTER
from ebpfjit.errors import CallDepthExceeded, ExecutionError, MemoryFault, OptimizationError, Stopped
from ebpfjit.interpreter import State, check_depth
from ebpfjit.isa import semantics
from ebpfjit.isa.spec import FRAME_POINTER, REGISTER_COUNT, Kind
from ebpfjit.optimizer import passes
from ebpfjit.optimizer.check import Seen, check
from ebpfjit.optimizer.check_placed import check_placed
from ebpfjit.optimizer.code import CALL_RESULTS, ONLY, Block, Code, Entry, Exit, Op, word_of
from ebpfjit.optimizer.facts import Facts
from ebpfjit.optimizer.frames import looked_at
from ebpfjit.optimizer.registers import place
from ebpfjit.record import record
from ebpfjit.runtime.counters import are_on, counters_of, segment_word
from ebpfjit.runtime.execution import CODE_ADDRESS, Execution
from ebpfjit.runtime.memory import check_marks
from ebpfjit.translators.x86_64.target import AUDITED_VALUES, VALUES


@record
class Stage:
    """What the optimizer makes of a program behind a pass: the code, and what it knows then.

    Frames of functions that are `littered` need not hold zeros.
    """

    name: str
    code: Code
    facts: Facts | None
    littered: frozenset[int] = frozenset()

    def machine(self, execution: Execution, judge: Judge | None, late: int = 0) -> CodeState:
        """Return the interpreter that runs it, with somebody who looks at what it knows.

        It goes on in Code where it has come to so many entries; its first frame is zeroed then.
        """
        state = CodeState(self.code, execution, judge, () if late else self.littered)
        state.passed_by = late
        return state


def stages(verified: Verified, entries: Collection[int], promises: Promises) -> list[Stage]:
    """Return what the optimizer makes of a program, stage by stage, each checked."""
    found, seen = [], Seen()
    for name, code, facts in passes.stages(verified, promises, entries, counted=are_on()):
        try:
            check(code, seen)
        except AssertionError as error:
            raise WrongCode(f"behind {name}: {error}") from None
        littered = frozenset[int]()
        if name == "guards" and facts is not None:
            littered = frozenset(verified.program.functions) - looked_at(code, facts, checked=True)
        found.append(Stage(name, code, facts, littered))
    for code, registers in ((found[0].code, AUDITED_VALUES), (found[-1].code, VALUES)):
        try:
            with suppress(OptimizationError):  # its calls need more registers than there are
                check_placed(place(code, registers), registers)
        except AssertionError as error:
            raise WrongCode(f"placed: {error}") from None
    return found


POISON = 0xDEAD_0000_DEAD_0000
"""What a register has that nothing reads any more."""


class WrongCode(ExecutionError):  # noqa: N818 - as AuditFailure is
    """The optimizer's code did what the program does not do."""


class Judge(Protocol):
    """What looks at a run of Code. Raises WrongCode."""

    def values(self, state: CodeState, values: Iterable[int]) -> None:
        """See that these values are there now."""

    def operation(self, state: CodeState, op: Op) -> None:
        """See an operation before it is done."""


class CodeState(State):
    """The interpreter, which runs Code where it comes to one of its entries."""

    def __init__(
        self, code: Code, execution: Execution, judge: Judge | None = None, littered: Collection[int] = ()
    ) -> None:
        super().__init__(code.verified, execution)
        self.code, self.judge, self.littered = code, judge, littered
        self.passed_by = 0
        """So many entries the run comes to before it goes on in Code."""
        self.values: dict[int, int] = {}
        self.frame = 0

    def enter_function(self, pc: int, caller: int) -> None:
        """Start a function; a frame that is not to be zeroed holds something else."""
        super().enter_function(pc, caller)
        if pc in self.littered:
            size = self.verified.frame_sizes[pc]
            self.execution.stack.region.view[:size] = bytes([LITTER]) * size

    def run_until(self, depth: int) -> None:
        """Run as the interpreter does, and in Code from each entry on that control comes to."""
        just_left = False
        while self.is_inside(depth):
            entry = None if just_left else self.code.entries.get(self.pc)
            if entry is not None and self.passed_by:
                self.passed_by -= 1
                entry = None
            if entry is None:
                self.step()
                just_left = False
            else:
                just_left = self.run_code(entry)

    def run_code(self, entry: Entry) -> bool:
        """Run from an entry on; True where it went on at an exit, False where the function has ended."""
        outer, self.values = (self.values, self.frame), {}
        self.frame = self.registers[FRAME_POINTER]
        try:
            block: Block | None = self.code.blocks[entry.block]
            values = [self.registers[register] for register in entry.registers]
            while block is not None:
                self.values.update(zip(block.args, values, strict=True))
                if self.judge is not None:
                    self.judge.values(self, block.args)
                for op in block.ops:
                    if self.judge is not None:
                        self.judge.operation(self, op)
                    done = _OPS[op.row.kind](self, op)
                    if done is not None:
                        return done
                    if self.judge is not None:
                        self.judge.values(self, op.results)
                number = self.end(block)
                if number is None:
                    return block.end.row.kind is Kind.LEAVE
                way = block.ways[number]
                block, values = self.code.blocks[way.block], [self.values[value] for value in way.args]
        finally:
            self.values, self.frame = outer
        raise AssertionError  # blocks end in a way, or return

    def end(self, block: Block) -> int | None:
        """Execute the end of a block; return which way it goes, None where it goes elsewhere."""
        end = block.end
        row = end.row
        match row.kind:
            case Kind.JUMP:
                return 0
            case Kind.BRANCH:
                a, *others = (row.width.wrap(self.values[value]) for value in end.args)
                b = others[0] if others else row.width.wrap(end.imm)
                return 0 if semantics.CONDITION[row.meaning](row.width, a, b) else 1
            case Kind.BRANCH_LOAD:
                value = self.bytes_at(end, row.size)
                other = row.width.wrap(self.second(end))
                return 0 if semantics.CONDITION[row.meaning](row.width, value, other) else 1
            case Kind.MAY_GOTO if self.loops:
                self.loops -= 1
                return 1
            case Kind.MAY_GOTO:
                return 0
            case Kind.LEAVE:
                self.leave(end.exit)
                return None
        self.registers[: len(end.args)] = [self.values[value] for value in end.args]
        self.as_instruction(end)
        return None

    def leave(self, leaves: Exit | None) -> bool:
        """Be where an exit says, as the interpreter is."""
        assert leaves is not None  # what leaves has an exit
        self.pc = leaves.pc
        self.registers[:] = self.registers_at(leaves)
        values = leaves.registers[REGISTER_COUNT : leaves.places]
        for (offset, size), value in zip(leaves.slots, values, strict=True):
            if value is not None:
                number = self.values[value] & (1 << 8 * size) - 1
                self.space.store(leaves.pc, W64.wrap(self.frame + offset), size, number)
        if self.budget is not None:
            self.budget += leaves.refund
            if leaves.inside:  # what follows pays for the block again
                self.budget += self.verified.costs[leaves.pc]
        is_counted = leaves.inside or leaves.pc not in self.verified.blocks
        if self.decoded.counters is not None and is_counted and leaves.pc in self.verified.segments.starts:
            self.count(segment_word(leaves.pc), -1)  # as what follows counts it
        counting = [self.values[value] for value in leaves.registers[leaves.places :]]  # type: ignore[index]
        for word, number, factors in leaves.counts:
            self.count(word, number + sum(map(mul, factors, counting)))
        return True

    def count(self, word: int, number: int) -> None:
        """Add a number to a word of the program's counters."""
        words = counters_of(self.program).words
        words[word] = W64.wrap(words[word] + number)

    def registers_at(self, leaves: Exit | None) -> list[int]:
        """Return what the registers are at an exit."""
        assert leaves is not None  # what leaves has an exit
        return [
            POISON if value is None else self.values[value] for value in leaves.registers[:REGISTER_COUNT]
        ]

    def as_instruction(self, op: Op) -> None:
        """Have the interpreter execute the instruction that an operation was made from."""
        instruction = self.program.slots[op.pc]
        assert instruction is not None  # operations are made from instructions
        self.execute(instruction, op.row)

    def is_in(self, name: str, address: int, size: int, *, stores: bool) -> bool:
        """True where bytes lie in a region of ONLY, of which all may be touched."""
        region = self.execution.packet if name == ONLY["packet"] else self.execution.argument
        if region is None or region.rights is not None or not (region.writable or not stores):
            return False
        return region.contains(address, size)

    def is_in_argument(self, offset: int, size: int, *, stores: bool) -> bool:
        """True where bytes lie in the memory that r1 points to at the start, which may be stored to."""
        region, (start, _) = self.execution.argument, self.execution.arguments
        if region is None or region.rights is not None or not (region.writable or not stores):
            return False
        return size == 0 or region.contains(start + offset, size)

    def address(self, op: Op) -> int:
        """Return the address that an operation is about."""
        index = self.values[op.args[1]] * op.scale if op.scale else 0
        return W64.wrap(self.values[op.args[0]] + index + op.offset)

    def second(self, op: Op) -> int:
        """Return what an operation at an address has besides: its last value, or the immediate."""
        return self.values[op.args[-1]] if op.row.uses_src else op.imm

    def bytes_at(self, op: Op, size: int, *, behind: int = 0) -> int:
        """Return the bytes that an operation loads, so many of them from its address on.

        Those that were gathered need not be of one region, nor what one access of their size may load.
        """
        address = W64.wrap(self.address(op) + behind)
        if size > 1 and self.space.find(address, size, "load") is None:
            half = size // 2
            low, high = (self.bytes_at(op, half, behind=behind + each) for each in (0, half))
            return low | high << 8 * half
        with _bound_before(op):
            return self.space.load(op.pc, address, size)

    def element(self, op: Op, start: int, place: int) -> int:
        """Return one of the elements that lie one behind the other."""
        size = op.row.size
        with _bound_before(op):
            return self.space.load(op.pc, W64.wrap(start + place * size), size)


Done = bool | None
"""None: the next operation follows. True: the code was left at an exit. False: the function has ended."""


def _source(state: CodeState, op: Op, place: int) -> int:
    """Return an argument, or the immediate where the operation has none there, at the row's width."""
    value = state.values[op.args[place]] if len(op.args) > place else op.imm
    return op.row.width.wrap(value)


def _pay(state: CodeState, op: Op) -> Done:
    if op.exit is not None:
        try:
            check_marks()
        except Stopped:
            return state.leave(op.exit)
    if state.budget is None:
        return None
    if op.exit is not None and state.budget < (op.offset or op.imm):
        return state.leave(op.exit)
    state.budget -= op.imm
    return None


def _count(state: CodeState, op: Op) -> Done:
    state.count(word_of(op), state.values[op.args[0]] if op.args else op.imm)
    return None


def _bound(state: CodeState, op: Op) -> Done:
    if not state.execution.checked:
        return None
    if not op.args:
        return None if state.is_in_argument(op.offset, op.imm, stores=op.stores) else state.leave(op.exit)
    size = op.imm
    if not op.scale:
        size += state.values[op.args[-1]] - state.values[op.args[0]]
    if size < op.imm:
        return state.leave(op.exit)
    address = state.address(op)
    if op.region in ONLY.values():
        return None if state.is_in(op.region, address, size, stores=op.stores) else state.leave(op.exit)
    found = state.space.find(address, size, "store" if op.stores else "load")
    return None if found is not None else state.leave(op.exit)


def _aligned(state: CodeState, op: Op) -> Done:
    return state.leave(op.exit) if state.address(op) % op.imm else None


def _binary(state: CodeState, op: Op) -> Done:
    row, a = op.row, op.row.width.wrap(state.values[op.args[0]])
    state.values[op.results[0]] = semantics.BINARY[row.meaning](row.width, a, _source(state, op, 1))
    return None


def _move(state: CodeState, op: Op) -> Done:
    state.values[op.results[0]] = semantics.MOVE[op.row.meaning](op.row.width, _source(state, op, 0))
    return None


def _unary(state: CodeState, op: Op) -> Done:
    value = op.row.width.wrap(state.values[op.args[0]])
    state.values[op.results[0]] = semantics.UNARY[op.row.meaning](op.row.width, value)
    return None


def _constant(state: CodeState, op: Op) -> Done:
    state.values[op.results[0]] = op.imm
    return None


@contextmanager
def _bound_before(op: Op) -> Iterator[None]:
    """Turn a fault of an access into WrongCode: a bound before it has seen that its bytes are there."""
    try:
        yield
    except MemoryFault as error:
        raise WrongCode(f"{op.row.name} at pc {op.pc} without a bound that holds: {error}") from None


def _load(state: CodeState, op: Op) -> Done:
    value = state.bytes_at(op, op.row.size)
    width = op.row.width
    state.values[op.results[0]] = W64.wrap(width.signed(value)) if op.row.signed else value
    return None


def _indexed_load(state: CodeState, op: Op) -> Done:
    value = state.bytes_at(op, op.row.size)
    if op.row.meaning:
        value = semantics.UNARY[op.row.meaning](op.row.width, value)
    elif op.row.signed:
        value = W64.wrap(op.row.width.signed(value))
    state.values[op.results[0]] = value
    return None


def _indexed_store(state: CodeState, op: Op) -> Done:
    value = op.row.width.wrap(state.second(op))
    if op.row.meaning:
        value = semantics.UNARY[op.row.meaning](op.row.width, value)
    with _bound_before(op):
        state.space.store(op.pc, state.address(op), op.row.size, value)
    return None


def _binary_load(state: CodeState, op: Op) -> Done:
    row, value = op.row, op.row.width.wrap(state.values[op.args[-1]])
    memory = state.bytes_at(op, row.size)
    state.values[op.results[0]] = semantics.BINARY[row.meaning](row.width, value, memory)
    return None


def _update(state: CodeState, op: Op) -> Done:
    row, memory = op.row, state.bytes_at(op, op.row.size)
    new = semantics.BINARY[row.meaning](row.width, memory, row.width.wrap(state.second(op)))
    with _bound_before(op):
        state.space.store(op.pc, state.address(op), row.size, new)
    return None


def _sum(state: CodeState, op: Op) -> Done:
    base, index = (state.values[value] for value in op.args)
    state.values[op.results[0]] = semantics.sum_(op.row.width, base, index, op.scale, op.offset)
    return None


def _select(state: CodeState, op: Op) -> Done:
    row, width, (x, *rest) = op.row, op.row.width, (state.values[value] for value in op.args)
    y = rest[0] if row.uses_src else op.imm
    holds = semantics.CONDITION[row.meaning](width, width.wrap(x), width.wrap(y))
    state.values[op.results[0]] = rest[-2 if holds else -1]
    return None


def _reduce(state: CodeState, op: Op) -> Done:
    row, starts = op.row, [state.address(op), *(state.values[value] for value in op.args[1:])]
    streams = [[state.element(op, start, place) for place in range(op.imm)] for start in starts]
    state.values[op.results[0]] = semantics.reduced(row.width, row.meaning, *streams)
    return None


def _store(state: CodeState, op: Op) -> Done:
    with _bound_before(op):
        state.space.store(op.pc, state.address(op), op.row.size, _source(state, op, 1))
    return None


def _atomic(state: CodeState, op: Op) -> Done:
    row, address = op.row, state.address(op)
    with _bound_before(op):
        old = state.space.load(op.pc, address, row.size, "atomic")
        new = semantics.ATOMIC[row.meaning](row.width, old, row.width.wrap(state.values[op.args[1]]))
        if row.meaning == "CMPXCHG" and old != row.width.wrap(state.values[op.args[2]]):
            new = old
        state.space.store(op.pc, address, row.size, new, "atomic")
    if row.fetch:
        state.values[op.results[0]] = old
    return None


def _packet_load(state: CodeState, op: Op) -> Done:
    depth = len(state.frames)
    state.registers[:] = state.registers_at(op.exit)
    state.as_instruction(op)
    if not state.is_inside(depth - 1):
        return False  # no such bytes: the function has ended, as baseline code would have it
    state.values[op.results[0]] = state.registers[0]
    return None


def _call_out(state: CodeState, op: Op) -> Done:
    depth = len(state.frames)
    state.registers[:] = [POISON] * REGISTER_COUNT
    state.registers[1:CALL_RESULTS] = [state.values[value] for value in op.args]
    state.as_instruction(op)
    if not state.is_inside(depth - 1):
        return False
    state.values[op.results[0]] = state.registers[0]
    return None


def _call(state: CodeState, op: Op) -> Done:
    insn, depth = state.program.slots[op.pc], len(state.frames)
    assert insn is not None  # operations are made from instructions
    try:
        check_depth(state, op.pc)
    except CallDepthExceeded:
        return state.leave(op.exit)
    args = [state.values[value] for value in op.args]
    state.registers[:] = [POISON] * REGISTER_COUNT
    if op.row.kind is Kind.CALL_LOCAL:
        registers = [each for each in state.code.read_by(op.imm) if each != FRAME_POINTER]
    else:
        target, args = args[0], args[1:]
        registers = list(range(FRAME_POINTER))
        if target - CODE_ADDRESS not in state.program.functions:
            return state.leave(op.exit)
    for register, value in zip(registers, args, strict=True):
        state.registers[register] = value
    state.as_instruction(op)
    state.run_until(depth)
    if not state.is_inside(depth - 1):
        return False
    for result, value in zip(op.results, state.registers, strict=False):
        state.values[result] = value
    return None


_OPS: dict[Kind, Callable[[CodeState, Op], Done]] = {
    Kind.PAY: _pay,
    Kind.COUNT: _count,
    Kind.BOUND: _bound,
    Kind.ALIGNED: _aligned,
    Kind.BINARY: _binary,
    Kind.MOVE: _move,
    Kind.UNARY: _unary,
    Kind.LOAD_IMM64: _constant,
    Kind.LOAD: _load,
    Kind.SUM: _sum,
    Kind.SELECT: _select,
    Kind.INDEXED_LOAD: _indexed_load,
    Kind.INDEXED_STORE: _indexed_store,
    Kind.BINARY_LOAD: _binary_load,
    Kind.UPDATE: _update,
    Kind.REDUCE: _reduce,
    Kind.STORE: _store,
    Kind.ATOMIC: _atomic,
    Kind.PACKET_LOAD: _packet_load,
    Kind.CALL_HELPER: _call_out,
    Kind.CALL_KFUNC: _call_out,
    Kind.CALL_LOCAL: _call,
    Kind.CALL_REGISTER: _call,
}
