"""What a local call has to do: which registers the callee changes, whether the depth can be too much.

A call saves those of r6 to r9 that the callee, or what it calls, may write. Where a program calls
nothing but functions that are known, none of them itself again, and the deepest chain fits the stack,
no call need count. A function that does nothing but arithmetic then needs no frame either.
"""

from __future__ import annotations

from dataclasses import dataclass

from ebpfjit.analysis.cfg import ENDS_BLOCK, NEVER_FALLS_THROUGH, illegal_reason, is_inside
from ebpfjit.isa.spec import FRAME_POINTER, Kind, Reg
from ebpfjit.program import Instruction, Program
from ebpfjit.runtime.memory import MAX_FRAMES, STACK_SIZE

SAVED = (6, 7, 8, 9)
ARITHMETIC = frozenset(
    {Kind.BINARY, Kind.MOVE, Kind.UNARY, Kind.LOAD_IMM64, Kind.JUMP, Kind.BRANCH, Kind.EXIT}
)
OUTWARD = frozenset({Kind.CALL_HELPER, Kind.CALL_KFUNC, Kind.CALL_REGISTER})
MOST_LOOKS = 4  # an instruction may belong to several functions; so many times all are looked at


@dataclass(frozen=True)
class Calls:
    """What is known of the functions of a program, each named by the slot where it starts.

    `writes` are the registers of r6 to r9 that a call of the function may change, and that the caller
    saves; a function that is not there may change all. Where `bounded`, no chain of calls is too
    deep, nor its frames too large. `frameless` functions are called without a frame.
    """

    writes: dict[int, frozenset[int]]
    bounded: bool
    frameless: frozenset[int]


UNKNOWN = Calls({}, bounded=False, frameless=frozenset())


def calls_of(program: Program, frame_sizes: dict[int, int]) -> Calls:
    """Return what is known; `frame_sizes` are those of `Verified`."""
    rows = [insn.row for insn in program.instructions if insn.row is not None]
    if not any(row.kind is Kind.CALL_LOCAL for row in rows):
        return UNKNOWN
    bodies = _bodies(program)
    if bodies is None or any(row.kind is Kind.CALL_REGISTER for row in rows):
        return UNKNOWN
    callees = {pc: _callees(program, body) for pc, body in bodies.items()}
    order = _callees_first(callees)
    if order is None:
        return UNKNOWN
    writes: dict[int, frozenset[int]] = {}
    depth: dict[int, int] = {}
    stack: dict[int, int] = {}
    for pc in order:
        own = frozenset(register for insn in bodies[pc] for register in _written(insn))
        writes[pc] = own.union(*(writes[callee] for callee in callees[pc]))
        depth[pc] = 1 + max((depth[callee] for callee in callees[pc]), default=0)
        stack[pc] = frame_sizes[pc] + max((stack[callee] for callee in callees[pc]), default=0)
    bounded = (
        depth[0] <= MAX_FRAMES
        and stack[0] <= STACK_SIZE
        and not any(row.kind in OUTWARD for row in rows)  # helpers may call functions
    )
    frameless = frozenset(pc for pc, body in bodies.items() if all(map(_needs_no_frame, body)))
    return Calls(writes, bounded, frameless if bounded else frozenset())


def _bodies(program: Program) -> dict[int, list[Instruction]] | None:
    """Return the instructions that each function may come to; None where that takes too long."""
    left, slots = MOST_LOOKS * len(program), program.slots
    bodies: dict[int, list[Instruction]] = {}
    for function in program.functions:
        seen = {function}
        work = [function]
        body = bodies[function] = []
        while work:
            pc = work.pop()
            while True:  # straight on
                insn = slots[pc]
                assert insn is not None  # only the starts of instructions are followed
                body.append(insn)
                row, pc = insn.row, insn.next_pc
                ends = row is None or row.kind in ENDS_BLOCK or illegal_reason(insn) is not None
                if ends or pc in seen or not is_inside(program, pc):
                    break
                seen.add(pc)
            if len(body) > left:
                return None
            for pc in _following(insn) if ends else ():
                if pc not in seen and is_inside(program, pc):
                    seen.add(pc)
                    work.append(pc)
        left -= len(body)
    return bodies


def _following(insn: Instruction) -> list[int]:
    row = insn.row
    if row is None or illegal_reason(insn) is not None:
        return []
    following = [] if row.kind in NEVER_FALLS_THROUGH else [insn.next_pc]
    if insn.target is not None and row.kind is not Kind.CALL_LOCAL:
        following.append(insn.target)
    return following


def _callees(program: Program, body: list[Instruction]) -> frozenset[int]:
    targets = (insn.target for insn in body if insn.row is not None and insn.row.kind is Kind.CALL_LOCAL)
    return frozenset(pc for pc in targets if pc is not None and pc in program.functions)


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


def _written(insn: Instruction) -> list[int]:
    row = insn.row
    if row is None or (insn.dst_reg not in SAVED and insn.src_reg not in SAVED):
        return []
    fields = ((row.dst, insn.dst_reg), (row.src, insn.src_reg))
    return [number for role, number in fields if role in (Reg.WRITE, Reg.UPDATE) and number in SAVED]


def _needs_no_frame(insn: Instruction) -> bool:
    """True for arithmetic that has nothing to do with r10, and what cannot fault."""
    row = insn.row
    if row is None or illegal_reason(insn) is not None or row.kind not in ARITHMETIC:
        return False
    fields = ((row.dst, insn.dst_reg), (row.src, insn.src_reg))
    return all(not isinstance(role, Reg) or number != FRAME_POINTER for role, number in fields)
