"""Atomic operations: lock-prefixed instructions where there is one, a compare-exchange loop where not."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from ebpfjit.program import Instruction
from ebpfjit.translators.x86_64.memory import (
    check_alignment,
    emit_check,
    find_in_arena,
    is_in_arena,
    load_address,
)
from ebpfjit.translators.x86_64.target import POINTER, Context, pin, register, translates

#    eBPF    x86-64
OPERATIONS = {"ADD": "add", "OR": "or", "AND": "and", "XOR": "xor"}


@contextmanager
def _operand(insn: Instruction, cx: Context) -> Iterator[tuple[str, int | None]]:
    """Check the operand; yield its text, with the size, and the number for its hole, the offset.

    What is emitted meanwhile is left out where the operand is in the arena, and not there.
    """
    size = cx.width.bytes
    check_alignment(cx, cx.dst64, insn.offset, size)
    if is_in_arena(cx):
        nothing = find_in_arena(cx, insn.dst_reg, insn, stores=True)
        yield f"{POINTER[size]} [r11]", None
        cx.label(nothing)
        pin(cx)
        return
    emit_check(cx, cx.dst64, insn)
    yield f"{POINTER[size]} [{cx.dst64}+$offset]", insn.offset


@translates(*(f"ATOMIC_{name}{bits}" for name in OPERATIONS for bits in (64, 32)))
def update(insn: Instruction, cx: Context) -> None:
    """Lock add [memory], src."""
    with _operand(insn, cx) as (memory, offset):
        cx.emit(f"lock {OPERATIONS[cx.row.meaning]} {memory}, {cx.src}", offset=offset)


@translates("ATOMIC_FETCH_ADD64", "ATOMIC_FETCH_ADD32")
def fetch_add(insn: Instruction, cx: Context) -> None:
    """Lock xadd leaves the old value in src."""
    with _operand(insn, cx) as (memory, offset):
        cx.emit(f"lock xadd {memory}, {cx.src}", offset=offset)


@translates("ATOMIC_XCHG64", "ATOMIC_XCHG32")
def exchange(insn: Instruction, cx: Context) -> None:
    """Xchg with memory is locked by itself."""
    with _operand(insn, cx) as (memory, offset):
        cx.emit(f"xchg {memory}, {cx.src}", offset=offset)


@translates("ATOMIC_CMPXCHG64", "ATOMIC_CMPXCHG32")
def compare_exchange(insn: Instruction, cx: Context) -> None:
    """Lock cmpxchg compares with rax, which is r0."""
    with _operand(insn, cx) as (memory, offset):
        cx.emit(f"lock cmpxchg {memory}, {cx.src}", offset=offset)
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
    with _operand(insn, cx) as (_, offset):
        if offset is not None:
            load_address(cx, cx.dst64, insn.offset)
        _try_until(cx)
    if offset is not None:
        pin(cx)


def _try_until(cx: Context) -> None:
    """Emit the loop on what r11 points to."""
    bits = cx.width.bits
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
