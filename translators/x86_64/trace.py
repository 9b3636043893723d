"""Instrumented code: at every pc, the guest's registers go into a trace.

    header      next (address of the next record), stop (address behind the last)
    record      pc, r0, ..., r10                            8 bytes each

The header's address is in the code, so a traced program belongs to one trace. A full trace takes no
more records.
"""

from __future__ import annotations

from ebpfjit.translators.emitter import NO_PC
from ebpfjit.translators.x86_64.target import REGISTERS, Context

RECORD_WORDS = 1 + len(REGISTERS)
RECORD_SIZE = 8 * RECORD_WORDS


def emit_trace_point(cx: Context, pc: int) -> None:
    """Emit the call that records the state before the instruction at `pc`; it changes nothing."""
    cx.emit("push r11")
    cx.emit("mov r11d, $imm", imm=pc, imm_sizes=(32,))
    cx.jump("call", "trace_point")
    cx.emit("pop r11")


def emit_trace_routine(cx: Context) -> None:
    """Emit `trace_point`: it appends a record of the pc in r11d."""
    full = ".trace_full"
    cx.begin(NO_PC)
    cx.label("trace_point")
    cx.emit("pushfq")
    cx.emit("push r10")
    cx.emit("push rax")
    cx.emit("movabs r10, $imm", imm=cx.settings.trace, imm_sizes=(64,))
    cx.emit("mov rax, qword ptr [r10]")
    cx.emit("cmp rax, qword ptr [r10+8]")
    cx.jump("jae", full)
    cx.emit("mov qword ptr [rax], r11")
    cx.emit("mov r11, qword ptr [rsp]")  # r0
    cx.emit("mov qword ptr [rax+8], r11")
    for number, names in enumerate(REGISTERS[1:], 1):
        cx.emit(f"mov qword ptr [rax+{8 + 8 * number:#x}], {names[0]}")
    cx.emit(f"add rax, {RECORD_SIZE:#x}")
    cx.emit("mov qword ptr [r10], rax")
    cx.label(full)
    cx.emit("pop rax")
    cx.emit("pop r10")
    cx.emit("popfq")
    cx.emit("ret")
