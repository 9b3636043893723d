"""The part of a `View` that needs no machine code: instructions, source lines, blocks, ways."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence

from ebpfjit.analysis.cfg import leaders
from ebpfjit.analysis.liveness import ways_of
from ebpfjit.analysis.verifier import check
from ebpfjit.errors import VerifierError
from ebpfjit.isa.spec import Kind
from ebpfjit.listing.names import named
from ebpfjit.listing.view import Block, Step, View
from ebpfjit.program import Instruction, Program
from ebpfjit.runtime.helpers.names import NAMES

NO_NOTES: Mapping[int, str] = {}


def uncompiled(program: Program, why: str) -> View:
    """Return what there is to see of a program of which there is no machine code, and `why` there is none."""
    starts = leaders(program) if program.code else []
    try:
        check(program)
        blocks = blocks_of(program, starts)
    except VerifierError:
        blocks = ()  # what jumps nowhere has no ways
    return View(
        program.name,
        program.type,
        program.section,
        f"no machine code: {why}",
        steps_of(program, starts),
        blocks=blocks,
        refusal=why,
    )


def steps_of(
    program: Program,
    blocks: Sequence[int],
    notes: Mapping[int, str] = NO_NOTES,
    below: Mapping[int, str] = NO_NOTES,
    helpers: Mapping[int, str] = NAMES,
) -> tuple[Step, ...]:
    """Return the instructions; `blocks` are the slots where basic blocks start, in order."""
    functions = program.functions if len(program.functions) > 1 else {}
    return tuple(
        Step(
            insn.pc,
            insn.encode(),
            named(program, insn, helpers=helpers),
            blocks[max(bisect_right(blocks, insn.pc) - 1, 0)] if blocks else 0,
            functions.get(insn.pc, ""),
            program.lines.get(insn.pc),
            _targets(insn),
            notes.get(insn.pc, ""),
            below.get(insn.pc, ""),
        )
        for insn in program.instructions
    )


def _targets(insn: Instruction) -> tuple[int, ...]:
    return () if insn.target is None else (insn.target,)


def blocks_of(
    program: Program, blocks: Iterable[int], ways: Mapping[int, Sequence[int]] | None = None
) -> tuple[Block, ...]:
    """Return the basic blocks and what follows each; `blocks` are where they start, in order."""
    starts = list(blocks)
    if ways is None:
        ways = ways_of(program, dict.fromkeys(starts, 0))
    functions = list(program.functions)
    stops = [*starts[1:], len(program)]
    return tuple(
        Block(
            start,
            functions[bisect_right(functions, start) - 1],
            tuple((way, _kind(program, stop, way)) for way in ways[start]),
        )
        for start, stop in zip(starts, stops, strict=True)
    )


def _kind(program: Program, stop: int, way: int) -> str:
    """Return how the block that ends before the slot `stop` comes to the one at `way`."""
    last = program.slots[stop - 1] or program.slots[stop - 2]
    if last is None or last.row is None or last.target != way:
        return "next"
    return "jump" if last.row.kind is Kind.JUMP else "taken"
