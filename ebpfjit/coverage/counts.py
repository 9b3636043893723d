"""From what engines counted of a program to how often each instruction was executed, each branch taken."""

from __future__ import annotations

from ebpfjit.analysis.segments import DECIDES
from ebpfjit.analysis.verified import Verified
from ebpfjit.record import record
from ebpfjit.runtime.counters import Counters


@record
class Counts:
    """How often each instruction was executed, by its slot; each branch, how often it was (taken, not taken).

    An instruction that faulted was executed. A branch to what is behind it is none.
    """

    executed: dict[int, int]
    branches: dict[int, tuple[int, int]]


def counts_of(counters: Counters) -> Counts:
    """Return what was counted of a program so far."""
    program = counters.program
    segments = Verified(program, {}).segments
    executed: dict[int, int] = {}
    branches: dict[int, tuple[int, int]] = {}
    now = 0
    for insn in program.instructions:
        pc = insn.pc
        if pc in segments.starts:
            now = counters.executed(pc)
        executed[pc] = now
        now -= counters.faults.get(pc, 0)
    for insn in program.instructions:
        if insn.row is not None and insn.row.kind in DECIDES and insn.target != insn.next_pc:
            counted = insn.pc in segments.branches
            other = counters.not_taken(insn.pc) if counted else executed.get(insn.next_pc, 0)
            branches[insn.pc] = executed[insn.pc] - other, other
    return Counts(executed, branches)
