"""x86-64 as lowering and the host see it: `MACHINE`."""

from __future__ import annotations

from collections.abc import Iterable

from ebpfjit.isa.spec import Kind
from ebpfjit.translators import FEATURES
from ebpfjit.translators.emitter import Emitter
from ebpfjit.translators.host import Layout
from ebpfjit.translators.machine import SPILLED, Machine
from ebpfjit.translators.operation import Operation
from ebpfjit.translators.x86_64 import gate, host, runs, stock, target, trace, values, vectors
from ebpfjit.translators.x86_64.counts import emit_count, emit_counts
from ebpfjit.translators.x86_64.reasons import emit_reasons
from ebpfjit.translators.x86_64.routine import Routine
from ebpfjit.translators.x86_64.target import BLOCK, POINTER, REGISTERS, register


class Context(target.Context):
    """What lowering writes to."""

    entry = target.emit_entry
    function_entry = target.emit_function_entry
    resume = target.emit_resume
    charge = target.emit_charge
    pay = target.pay
    pin = target.pin
    drop = target.drop
    count = emit_count
    add_counts = emit_counts
    give_reasons = emit_reasons
    trace = trace.emit_trace_point

    def shared(self) -> None:
        """Emit the routines of its own that the program turned out to use, and its stubs."""
        if self.settings.trace:
            trace.emit_trace_routine(self)
        target.emit_shared(self)
        host.emit_host_calls(self)

    def move(self, dst: int, src: int) -> None:
        """Emit a move."""
        if dst >= SPILLED and src >= SPILLED:  # seldom: pop finds its place when rsp is as it was
            self.emit("push qword ptr [rsp+$offset]", offset=8 * (src - SPILLED))
            self.emit("pop qword ptr [rsp+$offset]", offset=8 * (dst - SPILLED))
        elif dst >= SPILLED:
            self.emit(f"mov qword ptr [rsp+$offset], {register(src)}", offset=8 * (dst - SPILLED))
        elif src >= SPILLED:
            self.emit(f"mov {register(dst)}, qword ptr [rsp+$offset]", offset=8 * (src - SPILLED))
        else:
            self.emit(f"mov {register(dst)}, {register(src)}")

    def sum(self, dst: int, src: int, other: int, bits: int) -> None:
        """Emit a sum."""
        self.emit(f"lea {register(dst, bits)}, [{register(src)}+{register(other)}]")

    def add(self, dst: int, src: int, number: int, bits: int) -> bool:
        """Emit a sum with a number, where that is a displacement."""
        fits = -(1 << 31) <= number < 1 << 31
        if fits:
            self.emit(f"lea {register(dst, bits)}, [{register(src)}+$offset]", offset=number)
        return fits

    def store_slots(self, slots: Iterable[tuple[int, int, int]]) -> None:
        """Emit the stores: r10 holds where the frame starts."""
        self.emit(f"mov r10, qword ptr {BLOCK['stack_start']}")
        for offset, size, place in slots:
            number = place
            if place >= SPILLED:
                number = 0
                self.emit("push rax")
                self.emit("mov rax, qword ptr [rsp+$offset]", offset=8 * (place - SPILLED + 1))
            memory = f"{POINTER[size]} [r10+$offset]"
            self.emit(f"mov {memory}, {register(number, 8 * size)}", offset=self.frame_size + offset)
            if place >= SPILLED:
                self.emit("pop rax")

    def audit(self, insn: Operation) -> None:
        """Emit the fault "audit"; r10 and r11 are lost."""
        (vectors if insn.row.kind is Kind.REDUCE else values).emit_audits(self, insn)


def emit_routines(cx: Emitter, layout: Layout) -> None:
    """Emit the routines that all programs share."""
    host.emit_routines(cx, layout.slice_length, layout.clock, layout.ints, layout.lock)
    gate.emit_gate(cx, layout)
    stock.emit_stock(cx, layout.clock)


OTHERS = {
    "r9": "instructions that the run may still take in this slice: each block is paid for",
    "r10": "scratch: addresses that are checked",
    "r11": "a value in optimised code; scratch, or minus a region's start, in baseline code",
    "r12": "where the block of the run is: words that the host and the code share",
    "rsp": "the thread's own stack: addresses to return to, values that found no register",
}
"""What the registers are for that are no home."""

MACHINE = Machine(
    target.NAME,
    homes=tuple(names[0] for names in REGISTERS),
    others=OTHERS,
    block="r12",
    values=target.VALUES,
    audited=target.AUDITED_VALUES,
    features=FEATURES[target.NAME],
    context=Context,
    routine=Routine,
    emit_routines=emit_routines,
    emit_clock=stock.emit_clock,
    operand_bits=target.operand_bits,
    shared=host.SHARED,
    gate_size=runs.KEPT_SIZE,
)
