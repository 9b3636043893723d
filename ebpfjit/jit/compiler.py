"""Verified -> Listing: the assembly text of every instruction, from the registry of translators."""

from __future__ import annotations

from dataclasses import dataclass

from ebpfjit.analysis.verified import Verified
from ebpfjit.errors import TranslationError
from ebpfjit.runtime.execution import CODE_ADDRESS, MAX_LOOPS
from ebpfjit.runtime.memory import MAX_FRAMES
from ebpfjit.translators import registry, x86_64
from ebpfjit.translators.emitter import Piece
from ebpfjit.translators.x86_64.target import (
    BLOCK,
    Context,
    Settings,
    emit_end_of_program,
    emit_entry,
    emit_function_entry,
    emit_shared,
    pc_label,
)


@dataclass(frozen=True)
class Listing:
    """A program as assembly text: pieces in the order of their addresses, the cold ones last."""

    verified: Verified
    pieces: tuple[Piece, ...]


def settings_for(
    *, checked: bool, features: frozenset[str], helpers: frozenset[int], kfuncs: frozenset[int]
) -> Settings:
    """Return translator settings with the runtime's constants filled in."""
    return Settings(checked, features, helpers, kfuncs, MAX_LOOPS, CODE_ADDRESS, MAX_FRAMES)


def translate(verified: Verified, settings: Settings) -> Listing:
    """Return the program's assembly text.

    Raises TranslationError where an operation has no translator.
    """
    program = verified.program
    target = x86_64.target.NAME
    cx = Context(program, verified.frame_sizes, settings)
    emit_entry(cx)
    for pc in program.functions:
        emit_function_entry(cx, pc)
    blocks, illegal = verified.blocks, verified.illegal
    for instruction in program.instructions:
        pc, row = instruction.pc, instruction.row
        cx.begin(pc)
        cx.label(pc_label(pc))
        cx.start(instruction)
        if pc in blocks:
            charge(cx, blocks[pc])
        if row is None or pc in illegal:
            cx.raise_fault("illegal")
            continue
        try:
            translator = registry.translator_of(target, row)
        except KeyError:
            raise TranslationError(f"pc {pc}: {target} has no translator for {row.operation}") from None
        translator(instruction, cx)
    emit_end_of_program(cx, len(program))
    emit_shared(cx)
    return Listing(verified, (*cx.pieces, *cx.cold))


def charge(cx: Context, instructions: int) -> None:
    """Emit the payment for a basic block: an instruction limit that does not cover it is a fault."""
    cx.emit(f"sub qword ptr {BLOCK['budget']}, $imm", imm=instructions)
    cx.jump("js", cx.fault("budget"))
