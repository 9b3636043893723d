"""What remembers where the result came from: at which slot each register got what is in it."""

from __future__ import annotations

from collections.abc import Iterable

from ebpfjit.translators.x86_64.target import BLOCK, Context


def emit_reasons(cx: Context, pc: int, reasons: Iterable[tuple[int, int | None]]) -> None:
    """Emit that registers get a reason: the slot `pc` (None), or that of another; clobbers r10."""
    for number, other in reasons:
        place = f"dword ptr {BLOCK[f'reason_{number}']}"
        if other is None:
            cx.emit(f"mov {place}, $imm", imm=pc, imm_sizes=(32,))
        else:
            cx.emit(f"mov r10d, dword ptr {BLOCK[f'reason_{other}']}")
            cx.emit(f"mov {place}, r10d")
