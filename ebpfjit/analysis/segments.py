"""What is counted of a program's runs: segments, and branches that were not taken.

    0  r1 = *(u32 *)(r1 + 0)      segment 0: executed as a whole, but for a fault in its middle
    1  if r1 > 5 goto 4
    2  call 7                     segment 2; the way from 1 to 2 is how often 1 was not taken
    3  r0 = 0                     segment 3: what was called may not come back
    4  exit                       segment 4

A segment starts where a basic block does, and behind what may end the run or the function: calls, and loads
from the packet. Of a branch, what is taken is what is left.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from itertools import chain

from ebpfjit.isa.spec import Kind
from ebpfjit.program import Program
from ebpfjit.record import record

MAY_NOT_COME_BACK = frozenset(
    {Kind.CALL_HELPER, Kind.CALL_KFUNC, Kind.CALL_LOCAL, Kind.CALL_REGISTER, Kind.PACKET_LOAD}
)
DECIDES = frozenset({Kind.BRANCH, Kind.MAY_GOTO})
SEGMENT, BRANCH = 0, 1
"""Of the two words that each slot has: how often its segment was executed, its branch not taken."""


@record
class Segments:
    """The slots where segments start, and those of branches whose not being taken is counted for itself.

    Of any other branch that is how often the segment behind it was executed: nothing else leads there, and no
    limit is looked at. One that leads to what is behind it either way is no branch.
    """

    starts: frozenset[int]
    branches: frozenset[int]


NO_SEGMENTS = Segments(frozenset(), frozenset())
"""Of runs that nobody counts."""


def segments_of(
    program: Program, blocks: Collection[int], ways: Mapping[int, Collection[int]], tested: Collection[int]
) -> Segments:
    """Return what is counted of a program, by its basic blocks, the ways between them and those that are
    `tested` (`Verified`).
    """
    starts, branches = set(blocks), set[int]()
    ways_in: dict[int, int] = dict.fromkeys(program.functions, 2)
    for way in chain.from_iterable(ways.values()):
        ways_in[way] = ways_in.get(way, 0) + 1
    for insn in program.instructions:
        kind, behind = insn.row.kind if insn.row is not None else None, insn.next_pc
        if kind in MAY_NOT_COME_BACK:
            starts.add(behind)
        elif kind in DECIDES and insn.target != behind and (behind in tested or ways_in.get(behind) != 1):
            branches.add(insn.pc)
    slots = program.slots
    return Segments(frozenset(pc for pc in starts if pc < len(slots)), frozenset(branches))
