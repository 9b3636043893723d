"""Helpers that need no Python: C functions of five u64, like any native helper.

ktime_get_ns            the monotonic clock, in nanoseconds
clock                   the clock of an environment, one routine for each: its own, or one that stands still
get_prandom_u32         xorshift64* (Vigna, "An experimental exploration of Marsaglia's
                        xorshift generators, scrambled"), its state in the host's memory
get_smp_processor_id    processor 0, as the default environment has it
"""

from __future__ import annotations

from ebpfjit.translators.emitter import NO_PC, Emitter
from ebpfjit.translators.x86_64.host import call

NAMES = ("ktime_get_ns", "get_prandom_u32", "get_smp_processor_id")
NANOSECONDS = 1_000_000_000
MULTIPLIER = 0x2545F4914F6CDD1D


def emit_clock(cx: Emitter, clock: int) -> None:
    """Emit what tells the time of one clock: at `clock_words` are what to add to the system's, and a mask."""
    cx.begin(NO_PC)
    cx.label("entry")
    _emit_time(cx, clock)
    cx.emit("mov rcx, qword ptr [rip+$symbol]", symbol="clock_words")
    cx.emit("and rax, qword ptr [rcx+8]")
    cx.emit("add rax, qword ptr [rcx]")
    cx.emit("ret")


def _emit_time(cx: Emitter, clock: int) -> None:
    cx.emit("sub rsp, 0x18")
    cx.emit("mov edi, $imm", imm=clock, imm_sizes=(32,))
    cx.emit("mov rsi, rsp")
    call(cx, "clock_gettime")
    cx.emit("mov eax, $imm", imm=NANOSECONDS, imm_sizes=(32,))
    cx.emit("imul rax, qword ptr [rsp]")
    cx.emit("add rax, qword ptr [rsp+8]")
    cx.emit("add rsp, 0x18")


def emit_stock(cx: Emitter, clock: int) -> None:
    """Emit the helpers; `clock` is the C library's number of the monotonic clock."""
    cx.begin(NO_PC)
    cx.label("ktime_get_ns")
    _emit_time(cx, clock)
    cx.emit("ret")

    cx.begin(NO_PC)
    cx.label("get_prandom_u32")
    cx.emit("mov rdx, qword ptr [rip+$symbol]", symbol="random_state")
    cx.emit("mov rax, qword ptr [rdx]")
    for shift, amount in (("shr", 12), ("shl", 25), ("shr", 27)):
        cx.emit("mov rcx, rax")
        cx.emit(f"{shift} rcx, {amount:#x}")
        cx.emit("xor rax, rcx")
    cx.emit("mov qword ptr [rdx], rax")
    cx.emit("movabs rcx, $imm", imm=MULTIPLIER, imm_sizes=(64,))
    cx.emit("imul rax, rcx")
    cx.emit("shr rax, 0x20")
    cx.emit("ret")

    cx.begin(NO_PC)
    cx.label("get_smp_processor_id")
    cx.emit("xor eax, eax")
    cx.emit("ret")
