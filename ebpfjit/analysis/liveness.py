"""Which registers may still be read: a backward dataflow over basic blocks, as bit masks."""

from __future__ import annotations

from ebpfjit.analysis.cfg import NEVER_FALLS_THROUGH, illegal_reason, is_inside
from ebpfjit.isa.spec import REGISTER_COUNT, Kind, Reg
from ebpfjit.program import Instruction, Program

ALL = (1 << REGISTER_COUNT) - 1
RESULT = 1 << 0
RESULT_AND_ARGUMENTS = 0b111111


def live_after(program: Program, blocks: dict[int, int]) -> list[int]:
    """Return for each slot the registers (bit n: rn) that may be read after its instruction.

    `blocks` are those of `Verified`. What a local call reads is not looked into: all of them. An
    exit hands r0 on, and to a caller in the program r1 to r5 as well.
    """
    has_callers = any(
        insn.row is not None and insn.row.kind in (Kind.CALL_LOCAL, Kind.CALL_REGISTER)
        for insn in program.instructions
    )
    at_exit = RESULT_AND_ARGUMENTS if has_callers else RESULT
    effects = [_effect(insn, at_exit) for insn in program.instructions]
    order = {insn.pc: index for index, insn in enumerate(program.instructions)}
    live_at: dict[int, int] = dict.fromkeys(blocks, 0)
    after = [0] * len(program)
    starts = sorted(blocks, reverse=True)
    changed = True
    while changed:
        changed = False
        for start in starts:
            first = order[start]
            last = first + blocks[start] - 1
            live = _at_end(program, program.instructions[last], live_at)
            for index in range(last, first - 1, -1):
                after[program.instructions[index].pc] = live
                reads, writes = effects[index]
                live = (live & ~writes) | reads
            if live != live_at[start]:
                live_at[start] = live
                changed = True
    return after


def _at_end(program: Program, insn: Instruction, live_at: dict[int, int]) -> int:
    """Return what is live where a block's last instruction hands over."""
    row = insn.row
    if row is None or illegal_reason(insn) is not None:
        return 0
    following = [] if row.kind in NEVER_FALLS_THROUGH else [insn.next_pc]
    if insn.target is not None and row.kind is not Kind.CALL_LOCAL:
        following.append(insn.target)
    live = 0
    for pc in following:
        live |= live_at.get(pc, 0) if is_inside(program, pc) else 0
    return live


def _effect(insn: Instruction, at_exit: int) -> tuple[int, int]:
    """Return the registers that an instruction reads and writes, as masks."""
    row = insn.row
    if row is None or illegal_reason(insn) is not None:
        return 0, 0
    if row.kind is Kind.EXIT:
        return at_exit, 0
    if row.kind in (Kind.CALL_LOCAL, Kind.CALL_REGISTER):
        return ALL, 0
    if row.kind is Kind.PACKET_LOAD:  # it may end the function
        return at_exit | (1 << insn.src_reg if row.uses_src else 0), 0
    reads = sum(1 << number for number in row.implicit_reads)
    writes = sum(1 << number for number in row.implicit_writes)
    for role, number in ((row.dst, insn.dst_reg), (row.src, insn.src_reg)):
        if isinstance(role, Reg):
            reads |= 0 if role is Reg.WRITE else 1 << number
            writes |= 0 if role is Reg.READ else 1 << number
    return reads, writes
