"""Where machine code pays for basic blocks: with as few subtractions as the account can do with.

The interpreter pays for each block at its start. Machine code pays at the start of tested blocks, and
there for what follows on the way that is likely, as far as the next tested block. On another way out of
a block the difference is paid:

    A: sub r9, 7          A has 2 instructions, B 3, D 2
    jeq ..., C
    B: ...
    goto D
    C: ...                C has 2: on the edge from A to C, one instruction is given back
    D: ...

The account is exact at the start of tested blocks, at calls and at exits. Where a program faults,
what was paid for later blocks is given back by the host.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import accumulate

from ebpfjit.analysis.cfg import NEVER_FALLS_THROUGH, illegal_reason
from ebpfjit.isa.spec import Kind
from ebpfjit.program import Instruction, Program

SETTLES = frozenset(
    {
        Kind.CALL_HELPER,
        Kind.CALL_KFUNC,
        Kind.CALL_LOCAL,
        Kind.CALL_REGISTER,
        Kind.PACKET_LOAD,
        Kind.EXIT,
    }
)
"""What wants the account to be exact; blocks with such an instruction pay for none but themselves."""


@dataclass(frozen=True)
class Charges:
    """What is paid where, in instructions. Nothing is paid at the start of blocks that are not tested.

    `paid` is paid at the start of each tested block, for itself and later ones; by its pc. `through`
    is paid, at the end of a block, on the way to the next instruction, `taken` on the way that its
    jump goes; both by the pc of the block's last instruction, and negative where something is given
    back. `advance` is how much of what has been paid belongs to later blocks while a block runs.
    `own` is paid at the start of blocks that are not tested, where each pays for itself.
    """

    paid: dict[int, int]
    through: dict[int, int]
    taken: dict[int, int]
    advance: dict[int, int]
    own: dict[int, int] = field(default_factory=dict)


def own_charges(costs: dict[int, int], tested: frozenset[int]) -> Charges:
    """Return the charges by which each block pays for itself: nothing to find out."""
    paid = {pc: costs[pc] for pc in tested}
    own = {pc: count for pc, count in costs.items() if pc not in tested}
    return Charges(paid, {}, {}, dict.fromkeys(costs, 0), own)


def charges_of(
    program: Program,
    blocks: dict[int, int],
    costs: Mapping[int, int],
    tested: frozenset[int],
    depths: Mapping[int, int],
) -> Charges:
    """Return what is paid where. All but the program are those of `Verified`, `depths` those of its loops."""
    ends = _ends(program, blocks)
    ways_of = {
        start: [pc for pc in reversed(_following(last)) if pc is not None and pc in blocks]
        for start, (last, _) in ends.items()
    }
    charges = Charges({}, {}, {}, {})
    before: dict[int, int] = {}  # what is paid for a block when it starts; 0 for tested ones
    for start, (last, settles) in reversed(ends.items()):
        through, taken = _following(last)
        # Ways back go to tested blocks, of which `before` need not know.
        likely = max(ways_of[start], key=lambda pc: depths.get(pc, 0), default=None)
        advance = 0 if settles or likely is None else before.get(likely, 0)
        charges.advance[start] = advance
        for way, edges in ((through, charges.through), (taken, charges.taken)):
            if way is not None and (due := before.get(way, 0) - advance):
                edges[last.pc] = due
        if start in tested:
            charges.paid[start] = costs[start] + advance
        else:
            before[start] = costs[start] + advance
    return charges


def _ends(program: Program, blocks: dict[int, int]) -> dict[int, tuple[Instruction, bool]]:
    """Return each block's last instruction, and whether one of its instructions settles."""
    instructions = program.instructions
    settling = [
        index
        for index, insn in enumerate(instructions)
        if insn.row is None or insn.row.kind in SETTLES or illegal_reason(insn) is not None
    ]
    stops = list(accumulate(blocks.values()))
    settled = {bisect_right(stops, index) for index in settling}
    return {
        start: (instructions[stop - 1], number in settled)
        for number, (start, stop) in enumerate(zip(blocks, stops, strict=True))
    }


def _following(last: Instruction) -> tuple[int | None, int | None]:
    """Return the slots that a block's last instruction falls through to, and jumps to."""
    row = last.row
    if row is None:
        return None, None
    through = None if row.kind in NEVER_FALLS_THROUGH else last.next_pc
    return through, last.target if row.kind is not Kind.CALL_LOCAL else None
