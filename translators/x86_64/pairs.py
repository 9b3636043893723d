"""Two instructions translated as one: a conditional jump and the single instruction it jumps over.

The second is a basic block of its own, for which is paid where it runs. That is still counted
exactly: with lea, which leaves the flags alone.
"""

from __future__ import annotations

from collections.abc import Callable

from ebpfjit.isa.spec import Kind, Row
from ebpfjit.program import Instruction
from ebpfjit.translators.registry import Translator
from ebpfjit.translators.x86_64.jump import CONDITIONS
from ebpfjit.translators.x86_64.target import INVERSE, Context, pay, register

Pair = Callable[[Context, Instruction, Instruction, Translator], None]


def pair_of(branch: Row, second: Row | None) -> Pair | None:
    """Return how a conditional jump over `second` is translated with it, None for one by one."""
    if branch.kind is not Kind.BRANCH or second is None:
        return None
    if second.kind is Kind.JUMP:
        return turn
    return select if second.meaning == "MOV" else None


def turn(cx: Context, branch: Instruction, second: Instruction, translator: Translator) -> None:
    """Jump where the condition fails, instead of jumping over a jump.

    jcc over;  jmp back;  over:       cmp ...;  jncc back
    """
    assert second.target is not None  # the caller saw that it is a jump
    cx.turned_to = second.target
    cx.turned_due = cx.plan.through.get(branch.pc, 0) + cx.plan.taken.get(second.pc, 0)
    translator(branch, cx)
    cx.turned_to = None
    pay(cx, cx.plan.taken.get(branch.pc, 0))


def select(cx: Context, branch: Instruction, second: Instruction, translator: Translator) -> None:
    """Move where the condition fails, instead of jumping over a move.

    cmp ...;  jcc over;  mov dst, src;  over:
        cmp ...;  cmovncc dst, src;  lea r10, [r9-1];  cmovncc r9, r10
    """
    over = cx.plan.taken.get(branch.pc, 0)
    moved = cx.plan.through.get(branch.pc, 0) + cx.plan.through.get(second.pc, 0) - over
    pay(cx, over)
    row = second.row
    assert row is not None  # the caller saw that it is a move
    bits = row.width.bits
    value = second.imm if bits == 64 else second.imm & 0xFFFFFFFF
    source = "r10"
    if cx.settings.harden and not row.uses_src:
        source = "r11"
        _blinded(cx, second, value)
        cx.start(branch)
    mnemonic = _compare(cx, branch)
    condition = INVERSE[mnemonic].removeprefix("j")
    # Moves leave the flags alone.
    if row.uses_src and bits == 64:
        source = register(second.src_reg)
    elif row.uses_src:
        cx.emit(f"mov r10d, {register(second.src_reg, 32)}")
    elif source == "r10":
        cx.emit("mov r10, $imm", imm=value, imm_sizes=(32, 64))
    cx.emit(f"cmov{condition} {register(second.dst_reg)}, {source}")
    if moved:
        cx.emit("lea r10, [r9+$offset]", offset=-moved)
        cx.emit(f"cmov{condition} r9, r10")


def _blinded(cx: Context, second: Instruction, value: int) -> None:
    """Put a number together in r11, before the comparison, as that changes the flags."""
    cx.start(second)
    cx.emit_constant("mov r11, $imm", value, (32, 64))
    if cx.width.bits == 32:
        cx.emit("mov r11d, r11d")  # blinded, the number comes sign-extended


def _compare(cx: Context, branch: Instruction) -> str:
    """Set the flags for a conditional jump; return the jump that takes it."""
    if cx.row.meaning == "JSET":
        cx.emit_constant(f"test {cx.dst}, {cx.operand}", cx.imm, (32,))
        return "jne"
    cx.emit_constant(f"cmp {cx.dst}, {cx.operand}", cx.imm)
    return CONDITIONS[cx.row.meaning]
