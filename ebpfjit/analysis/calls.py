"""What a local call has to do: whether the depth can be too much, which functions need a frame.

Where a program calls nothing but functions that are known, none of them itself again, and the deepest chain
fits the stack, no call need count. A function that does nothing but arithmetic then needs no frame either.
"""

from __future__ import annotations

from collections.abc import Collection

from ebpfjit.analysis.entries import Entries, Way
from ebpfjit.analysis.liveness import Liveness
from ebpfjit.isa.spec import FRAME_POINTER, Kind
from ebpfjit.program import Instruction, Program
from ebpfjit.record import dataclass
from ebpfjit.runtime.memory import MAX_FRAMES, STACK_SIZE

ARITHMETIC = frozenset(
    {Kind.BINARY, Kind.MOVE, Kind.UNARY, Kind.LOAD_IMM64, Kind.JUMP, Kind.BRANCH, Kind.EXIT}
)
MOST_LOOKS = 4  # a block may belong to several functions; so many times all are looked at


@dataclass(frozen=True)
class Calls:
    """What is known of the functions of a program, each named by the slot where it starts.

    Where `bounded`, no chain of calls is too deep, nor its frames too large. `frameless` functions are called
    without a frame.
    """

    bounded: bool
    frameless: frozenset[int]


UNKNOWN = Calls(bounded=False, frameless=frozenset())


@dataclass(slots=True)
class _Summary:
    """What a basic block, or a function, does: the functions it calls, whether it needs a frame."""

    callees: frozenset[int] = frozenset()
    is_frameless: bool = True


def calls_of(
    known: Liveness, entries: Entries, frame_sizes: dict[int, int], illegal: Collection[int]
) -> Calls:
    """Return what is known; `entries`, `frame_sizes` and `illegal` are those of `Verified`."""
    if Way.CALLX in entries.by_address or not entries.has_local_calls:
        return UNKNOWN
    functions = _functions(known, illegal)
    order = None if functions is None else _callees_first({pc: f.callees for pc, f in functions.items()})
    if functions is None or order is None:
        return UNKNOWN
    depth: dict[int, int] = {}
    stack: dict[int, int] = {}
    for pc in order:
        depth[pc] = 1
        stack[pc] = 0
        for callee in functions[pc].callees:
            depth[pc] = max(depth[pc], 1 + depth[callee])
            stack[pc] = max(stack[pc], stack[callee])
        stack[pc] += frame_sizes[pc]
    bounded = depth[0] <= MAX_FRAMES and stack[0] <= STACK_SIZE and not entries.by_address
    frameless = frozenset(pc for pc, function in functions.items() if function.is_frameless)
    return Calls(bounded, frameless if bounded else frozenset())


def _functions(known: Liveness, illegal: Collection[int]) -> dict[int, _Summary] | None:
    """Return what each function may come to; None where that takes too long to find."""
    blocks = _blocks(known, illegal)
    left = MOST_LOOKS * len(blocks)
    functions: dict[int, _Summary] = {}
    for start in known.program.functions:
        seen = {start}
        work = [start]
        function = functions[start] = _Summary()
        callees: set[int] = set()
        while work:
            pc = work.pop()
            block = blocks[pc]
            callees |= block.callees
            function.is_frameless &= block.is_frameless
            for way in known.ways[pc]:
                if way not in seen:
                    seen.add(way)
                    work.append(way)
        function.callees = frozenset(callees)
        left -= len(seen)
        if left < 0:
            return None
    return functions


def _blocks(known: Liveness, illegal: Collection[int]) -> dict[int, _Summary]:
    """Return what each basic block does. Without a frame arithmetic has nothing to do with r10."""
    blocks: dict[int, _Summary] = {}
    index, instructions, effects = 0, known.program.instructions, known.effects
    for start, count in known.blocks.items():
        stop = index + count
        touched = 0
        arithmetic = True
        for insn, (reads, written) in zip(instructions[index:stop], effects[index:stop], strict=True):
            touched |= reads | written
            if arithmetic and (insn.row is None or insn.row.kind not in ARITHMETIC or insn.pc in illegal):
                arithmetic = False
        is_frameless = arithmetic and not touched >> FRAME_POINTER & 1
        blocks[start] = _Summary(_callees(known.program, insn), is_frameless)
        index = stop
    return blocks


def _callees(program: Program, last: Instruction) -> frozenset[int]:
    """Return the function that a block ends with a call of, if it does."""
    target = last.target if last.row is not None and last.row.kind is Kind.CALL_LOCAL else None
    return frozenset() if target is None or target not in program.functions else frozenset({target})


def _callees_first(callees: dict[int, frozenset[int]]) -> list[int] | None:
    """Return the functions, each behind all it calls; None where one may call itself again."""
    callers: dict[int, list[int]] = {pc: [] for pc in callees}
    left = {pc: len(called) for pc, called in callees.items()}
    for pc, called in callees.items():
        for callee in called:
            callers[callee].append(pc)
    ready = [pc for pc, count in left.items() if not count]
    for pc in ready:  # grows meanwhile
        for caller in callers[pc]:
            left[caller] -= 1
            if not left[caller]:
                ready.append(caller)
    return ready if len(ready) == len(callees) else None
