"""What each basic block costs: its instructions, and those of the arms that its branch chooses from.

    A: ...; if r1 > 5 goto C      costs its own, and those of B: whichever way is taken
    B: r2 = r1                    costs nothing
    C: ...

An arm is a block of a few instructions that do nothing but arithmetic, which only the branch leads to, and
which goes on where the other way does. Of two arms the longer one counts. What chooses between arms may be
one itself, with the longer of these. So the account does not depend on which way is taken, and machine code
may do both and choose: no part of the account then hangs on a condition.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from ebpfjit.isa.spec import Kind
from ebpfjit.program import Program

LONGEST = 8
"""Instructions of an arm at most."""

ARITHMETIC = frozenset({Kind.BINARY, Kind.MOVE, Kind.UNARY, Kind.LOAD_IMM64})
ENDS = frozenset({Kind.JUMP, Kind.BRANCH})


def costs_of(
    program: Program,
    blocks: Mapping[int, int],
    ways: Mapping[int, Sequence[int]],
    kept: Collection[int],
    illegal: Collection[int],
) -> dict[int, int]:
    """Return what each basic block costs, by its pc.

    `blocks` are the sizes of blocks, `ways` what follows each. Those that are `kept` are no arms, nor is what
    has an `illegal` instruction.
    """
    costs = dict(blocks)
    led_to = [way for following in ways.values() for way in following]
    once: dict[int, bool] = {}
    for way in led_to:
        once[way] = way not in once
    arms: dict[int, int] = {}
    lengths: dict[int, int] = {}

    def may_be(start: int, length: int) -> bool:
        is_short = length <= LONGEST and once.get(start, False) and start not in kept
        return is_short and _is_arm(program, start, blocks[start], illegal)

    for start, count in blocks.items():
        if len(ways[start]) == 1 and may_be(start, count):
            arms[start], lengths[start] = ways[start][0], count
    for start in sorted(ways, reverse=True):  # what a branch chooses from lies, mostly, behind it
        following = ways[start]
        if len(following) != 2 or following[0] == following[1]:
            continue
        chosen, join = _choice(following[0], following[1], arms)
        if chosen:
            longest = max(lengths[arm] for arm in chosen)
            costs[start] += longest
            for arm in chosen:
                costs[arm] = 0
            if may_be(start, blocks[start] + longest):
                arms[start], lengths[start] = join, blocks[start] + longest
    return costs


def _choice(a: int, b: int, arms: Mapping[int, int]) -> tuple[list[int], int]:
    """Return which of two ways are arms that join, and where; none where they do not."""
    if arms.get(a) == b:
        return [a], b
    if arms.get(b) == a:
        return [b], a
    if a in arms and arms[a] == arms.get(b):
        return [a, b], arms[a]
    return [], a


def _is_arm(program: Program, pc: int, count: int, illegal: Collection[int]) -> bool:
    """True where a block does nothing but arithmetic, and perhaps a jump or a branch at its end."""
    for _ in range(count):
        insn = program.slots[pc]
        if insn is None or insn.row is None or pc in illegal:
            return False
        if insn.row.kind not in ARITHMETIC and insn.row.kind not in ENDS:
            return False
        pc = insn.next_pc
    return True
