"""What counts: how often segments were executed, and branches not taken. Flags are nobody's there."""

from __future__ import annotations

from ebpfjit.translators.labels import COUNTERS
from ebpfjit.translators.operation import Operation
from ebpfjit.translators.x86_64.target import Context, translates


def emit_count(cx: Context, pc: int, which: int) -> None:
    """Emit one more for the segment that starts at a slot, or its branch that is not taken; clobbers r10."""
    cx.emit("mov r10, qword ptr [rip+$symbol]", symbol=COUNTERS)
    cx.emit("inc qword ptr [r10+$offset]", offset=16 * pc + 8 * which)


@translates("COUNT")
def count(insn: Operation, cx: Context) -> None:
    """One more."""
    emit_count(cx, insn.pc, insn.imm)
