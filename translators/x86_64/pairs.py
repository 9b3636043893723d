"""Two or three instructions translated as one: a conditional jump and what it jumps over.

That is a jump, a move, or a move and a jump to where the conditional one goes too. What is jumped over
is a basic block of its own, for which is paid where it runs. That is still counted exactly: with lea,
which leaves the flags alone.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from ebpfjit.isa.spec import Kind
from ebpfjit.program import Instruction
from ebpfjit.translators.registry import Translator
from ebpfjit.translators.x86_64.jump import CONDITIONS
from ebpfjit.translators.x86_64.target import INVERSE, Context, pay, register

ONE_LESS = {"b": "sbb r9, 0", "ae": "adc r9, -1"}
"""What takes one instruction off the budget where the carry flag says so, or says not."""

Emit = Callable[[Context, Instruction, Instruction, Translator], None]


@dataclass(frozen=True, slots=True)
class Pair:
    """How `emit` translates a conditional jump with the instructions behind it, up to slot `stop`."""

    emit: Emit
    stop: int

    @property
    def compares_first(self) -> bool:
        """True where nothing is emitted before the comparison."""
        return self.emit is turn


def pair_of(branch: Instruction, second: Instruction, third: Instruction | None) -> Pair | None:
    """Return how a conditional jump is translated with what it skips, None for one by one.

    `second` and `third` follow the branch; None for a third that something else jumps to.
    """
    if branch.row is None or branch.row.kind is not Kind.BRANCH or second.row is None or second.slots != 1:
        return None
    is_move = second.row.meaning == "MOV"
    if branch.offset == 1:
        if second.row.kind is Kind.JUMP:
            return Pair(turn, second.pc + 1)
        return Pair(select, second.pc + 1) if is_move else None
    if not is_move or third is None or third.row is None or third.row.kind is not Kind.JUMP:
        return None
    return Pair(select_and_go, third.pc + 1) if third.target == branch.target else None


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
    through = cx.plan.through
    _select(cx, branch, second, through.get(branch.pc, 0) + through.get(second.pc, 0))


def select_and_go(cx: Context, branch: Instruction, second: Instruction, translator: Translator) -> None:
    """Move where the condition fails, and jump in either case.

    cmp ...;  jcc there;  mov dst, src;  jmp there
        cmp ...;  cmovncc dst, src;  lea r10, [r9-2];  cmovncc r9, r10;  jmp there
    """
    third = second.next_pc
    _select(cx, branch, second, cx.plan.through.get(branch.pc, 0) + cx.plan.taken.get(third, 0))
    assert branch.target is not None  # it is a branch
    cx.jump("jmp", cx.label_of(branch.target))


def _select(cx: Context, branch: Instruction, second: Instruction, due: int) -> None:
    """Emit the comparison and the move; `due` is what is to be paid where it moves."""
    over = cx.plan.taken.get(branch.pc, 0)
    moved = due - over
    pay(cx, over)
    row = second.row
    assert row is not None  # the caller saw that it is a move
    bits = row.width.bits
    value = second.imm if bits == 64 else second.imm & 0xFFFFFFFF
    source = "r10"
    if cx.settings.harden and not row.uses_src:
        source = "r11"
        _blinded(cx, second)
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
    if moved == 1 and condition in ONE_LESS:
        cx.emit(ONE_LESS[condition])
    elif moved:
        cx.emit("lea r10, [r9+$offset]", offset=-moved)
        cx.emit(f"cmov{condition} r9, r10")


def _blinded(cx: Context, second: Instruction) -> None:
    """Put a number together in r11, before the comparison, as that changes the flags."""
    cx.start(second)
    cx.emit_constant("mov r11, $imm", second.imm, (32,))
    if cx.width.bits == 32:
        cx.emit("mov r11d, r11d")  # it comes sign-extended


def _compare(cx: Context, branch: Instruction) -> str:
    """Set the flags for a conditional jump; return the jump that takes it."""
    if cx.row.meaning == "JSET":
        cx.emit_constant(f"test {cx.dst}, {cx.operand}", cx.imm, (32,))
        return "jne"
    cx.emit_constant(f"cmp {cx.dst}, {cx.operand}", cx.imm)
    return CONDITIONS[cx.row.meaning]
