"""Which words of a program's counters say what: of segments, and of both ways of branches."""

from __future__ import annotations

from ebpfjit.analysis.segments import DECIDES
from ebpfjit.analysis.verified import Verified
from ebpfjit.program import Program
from ebpfjit.record import record
from ebpfjit.runtime.counters import branch_word, segment_word


@record
class Shape:
    """`segments` are (word, instructions) in their order; `words` has that of its segment for each slot.

    `behind` says for each slot how many instructions of its segment are behind it. `branches` are (slot, word
    of its segment, word that says how often it was not taken); one to what is behind it is none.
    """

    segments: list[tuple[int, int]]
    words: dict[int, int]
    behind: dict[int, int]
    branches: list[tuple[int, int, int]]


def shape_of(program: Program) -> Shape:
    """Return the shape of a program's counters."""
    segments = Verified(program, {}).segments
    shape = Shape([], {}, {}, [])
    pcs: list[int] = []
    for insn in (*program.instructions, None):
        if pcs and (insn is None or insn.pc in segments.starts):
            word = segment_word(pcs[0])
            shape.segments.append((word, len(pcs)))
            shape.words.update(dict.fromkeys(pcs, word))
            shape.behind.update({pc: len(pcs) - 1 - index for index, pc in enumerate(pcs)})
            pcs = []
        if insn is not None:
            pcs.append(insn.pc)
    for insn in program.instructions:
        if insn.row is not None and insn.row.kind in DECIDES and insn.target != insn.next_pc:
            is_counted = insn.pc in segments.branches
            passed = branch_word(insn.pc) if is_counted else segment_word(insn.next_pc)
            shape.branches.append((insn.pc, shape.words[insn.pc], passed))
    return shape
