"""Atomic operations: lock-prefixed instructions where there is one, a compare-exchange loop where not."""

from __future__ import annotations

from ebpfjit.program import Instruction
from ebpfjit.translators.x86_64.memory import check_alignment, emit_check, load_address
from ebpfjit.translators.x86_64.target import POINTER, Context, pin, register, translates

#    eBPF    x86-64
OPERATIONS = {"ADD": "add", "OR": "or", "AND": "and", "XOR": "xor"}


def _address(insn: Instruction, cx: Context) -> str:
    """Check the operand and return its text, with the size and a hole for the offset."""
    size = cx.width.bytes
    check_alignment(cx, cx.dst64, insn.offset, size)
    emit_check(cx, cx.dst64, insn.offset, insn)
    return f"{POINTER[size]} [{cx.dst64}+$offset]"


@translates(*(f"ATOMIC_{name}{bits}" for name in OPERATIONS for bits in (64, 32)))
def update(insn: Instruction, cx: Context) -> None:
    """Lock add [memory], src."""
    memory = _address(insn, cx)
    cx.emit(f"lock {OPERATIONS[cx.row.meaning]} {memory}, {cx.src}", offset=insn.offset)


@translates("ATOMIC_FETCH_ADD64", "ATOMIC_FETCH_ADD32")
def fetch_add(insn: Instruction, cx: Context) -> None:
    """Lock xadd leaves the old value in src."""
    memory = _address(insn, cx)
    cx.emit(f"lock xadd {memory}, {cx.src}", offset=insn.offset)


@translates("ATOMIC_XCHG64", "ATOMIC_XCHG32")
def exchange(insn: Instruction, cx: Context) -> None:
    """Xchg with memory is locked by itself."""
    memory = _address(insn, cx)
    cx.emit(f"xchg {memory}, {cx.src}", offset=insn.offset)


@translates("ATOMIC_CMPXCHG64", "ATOMIC_CMPXCHG32")
def compare_exchange(insn: Instruction, cx: Context) -> None:
    """Lock cmpxchg compares with rax, which is r0."""
    memory = _address(insn, cx)
    cx.emit(f"lock cmpxchg {memory}, {cx.src}", offset=insn.offset)
    if cx.width.bits == 32:
        # Where the comparison succeeds the machine leaves the upper half of rax alone.
        cx.emit("mov eax, eax")


@translates(*(f"ATOMIC_FETCH_{name}{bits}" for name in ("OR", "AND", "XOR") for bits in (64, 32)))
def fetch_update(insn: Instruction, cx: Context) -> None:
    """Old value in src; the machine has no such instruction, so try until nobody interferes.

    push rax;  mov rax, [r11]
    again:  mov r10, rax;  or r10, src;  lock cmpxchg [r11], r10;  jne again
    mov src, rax;  pop rax      (r0 as src: its old value is on the stack, and stays dropped)
    """
    bits = cx.width.bits
    _address(insn, cx)
    load_address(cx, cx.dst64, insn.offset)
    memory = f"{POINTER[bits // 8]} [r11]"
    old, new = register(0, bits), {64: "r10", 32: "r10d"}[bits]
    src_is_rax = cx.src64 == "rax"
    operand = f"{POINTER[bits // 8]} [rsp]" if src_is_rax else cx.src
    again = cx.new_label("again")
    cx.emit("push rax")
    cx.emit(f"mov {old}, {memory}")
    cx.label(again)
    cx.emit(f"mov {new}, {old}")
    cx.emit(f"{OPERATIONS[cx.row.meaning]} {new}, {operand}")
    cx.emit(f"lock cmpxchg {memory}, {new}")
    cx.jump("jne", again)
    if src_is_rax:
        cx.emit("add rsp, 8")
    else:
        cx.emit(f"mov {cx.src}, {old}")
        cx.emit("pop rax")
    pin(cx)
