"""What a local call has to do: whether the depth can be too much, which functions need a frame.

Where a program calls nothing but functions that are known, none of them itself again, and the deepest chain
fits the stack, no call need count. A function that does nothing but arithmetic then needs no frame either.
"""

from __future__ import annotations

from collections.abc import Collection
from itertools import accumulate

from ebpfjit.analysis.entries import Entries, Way
from ebpfjit.analysis.liveness import Liveness
from ebpfjit.isa.spec import FRAME_POINTER, Kind, Row
from ebpfjit.isa.table import BY_NAME, TABLE
from ebpfjit.program import Instruction, Program
from ebpfjit.record import dataclass
from ebpfjit.runtime.memory import MAX_FRAMES, STACK_SIZE

_KINDS = frozenset({Kind.BINARY, Kind.MOVE, Kind.UNARY, Kind.LOAD_IMM64, Kind.JUMP, Kind.BRANCH, Kind.EXIT})
ARITHMETIC: frozenset[Row | None] = frozenset(row for row in TABLE if row.kind in _KINDS)
"""Rows that need no frame."""
CALL = BY_NAME["CALL_LOCAL"]
FRAME = 1 << FRAME_POINTER
MOST_LOOKS = 4  # a block may belong to several functions; so many times all are looked at


@dataclass(frozen=True)
class Calls:
    """What is known of the functions of a program, each named by the slot where it starts.

    Where `bounded`, no chain of calls is too deep, nor its frames too large. `frameless` functions are called
    without a frame.
    """

    bounded: bool
    frameless: frozenset[int]


NONE: frozenset[int] = frozenset()
UNKNOWN = Calls(bounded=False, frameless=frozenset())


@dataclass(slots=True)
class _Function:
    """What a function does: the functions it calls, whether it can do without a frame."""

    callees: frozenset[int]
    is_frameless: bool


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


def _functions(known: Liveness, illegal: Collection[int]) -> dict[int, _Function] | None:
    """Return what each function may come to; None where that takes too long to find."""
    first: dict[int, int] = dict(
        zip(known.blocks, accumulate(known.blocks.values(), initial=0), strict=False)
    )
    """By block, where its instructions start."""
    left = MOST_LOOKS * len(first)
    functions: dict[int, _Function] = {}
    instructions = known.program.instructions
    for start in known.program.functions:
        seen = {start}
        work = [start]
        callees: set[int] = set()
        is_frameless = True
        while work:
            pc = work.pop()
            place, count = first[pc], known.blocks[pc]
            last = instructions[place + count - 1]
            if last.row is CALL:
                callees |= _callees(known.program, last)
            is_frameless = is_frameless and _is_arithmetic(known, place, place + count, illegal)
            for way in known.ways[pc]:
                if way not in seen:
                    seen.add(way)
                    work.append(way)
        functions[start] = _Function(frozenset(callees), is_frameless)
        left -= len(seen)
        if left < 0:
            return None
    return functions


def _is_arithmetic(known: Liveness, start: int, stop: int, illegal: Collection[int]) -> bool:
    """True where a block's instructions need no frame: arithmetic that has nothing to do with r10."""
    instructions, effects = known.program.instructions[start:stop], known.effects[start:stop]
    for insn, (reads, written) in zip(instructions, effects, strict=True):
        if insn.row not in ARITHMETIC or insn.pc in illegal or (reads | written) & FRAME:
            return False
    return True


def _callees(program: Program, last: Instruction) -> frozenset[int]:
    """Return the function that a block ends with the call of, if there is one."""
    return frozenset({last.target}) if last.target in program.functions else NONE


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
