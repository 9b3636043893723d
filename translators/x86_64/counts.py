"""What counts: how often segments were executed, and branches not taken. Flags are nobody's there."""

from __future__ import annotations

from collections.abc import Iterable

from ebpfjit.translators.context import Counted
from ebpfjit.translators.labels import COUNTERS
from ebpfjit.translators.machine import SPILLED
from ebpfjit.translators.operation import Operation
from ebpfjit.translators.x86_64.target import Context, register, translates


def _word(pc: int, which: int) -> int:
    """Return which word of the counters is a slot's, as `runtime.counters` has them."""
    return 2 * pc + which


def emit_count(cx: Context, pc: int, which: int, number: int = 1) -> None:
    """Emit so many more for the segment from a slot on, or its branch that is not taken; clobbers r10."""
    place = 8 * _word(pc, which)
    cx.emit("mov r10, qword ptr [rip+$symbol]", symbol=COUNTERS)
    if number == 1:
        cx.emit("inc qword ptr [r10+$offset]", offset=place)
    else:
        cx.emit("add qword ptr [r10+$offset], $imm", offset=place, imm=number)


@translates("COUNT")
def count(insn: Operation, cx: Context) -> None:
    """So many more: a number, or a value."""
    if not insn.args:
        emit_count(cx, insn.pc, insn.offset, insn.imm)
        return
    cx.emit("mov r10, qword ptr [rip+$symbol]", symbol=COUNTERS)
    place = 8 * _word(insn.pc, insn.offset)
    cx.emit(f"add qword ptr [r10+$offset], {register(insn.args[0])}", offset=place)


def emit_counts(cx: Context, counts: Iterable[Counted], *, undone: bool = False) -> None:
    """Emit that words get more: each a number, and what is in places, or less that; or, `undone`, less.

    Values keep their places; r10 is lost, and the flags.
    """
    sign = -1 if undone else 1
    cx.emit("mov r10, qword ptr [rip+$symbol]", symbol=COUNTERS)
    for word, number, terms in counts:
        if number:
            cx.emit("add qword ptr [r10+$offset], $imm", offset=8 * word, imm=sign * number)
        for place, factor in terms:
            operation = "add" if sign * factor > 0 else "sub"
            name = register(0 if place >= SPILLED else place)
            if place >= SPILLED:
                cx.emit("push rax")
                cx.emit("mov rax, qword ptr [rsp+$offset]", offset=8 * (place - SPILLED + 1))
            cx.emit(f"{operation} qword ptr [r10+$offset], {name}", offset=8 * word)
            if place >= SPILLED:
                cx.emit("pop rax")
