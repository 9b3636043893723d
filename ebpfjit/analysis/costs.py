"""What each basic block costs: its instructions, and those of the arms that its branch chooses from.

    A: ...; if r1 > 5 goto C      costs its own, and those of B: whichever way is taken
    B: r2 = r1                    costs nothing
    C: ...

An arm is a block of a few instructions that do nothing but arithmetic, which only the branch leads to, and
which goes on where the other way does. Of two arms the longer one counts. So the account does not depend on
which way is taken, and machine code may do both and choose: no part of the account then hangs on a condition.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from ebpfjit.isa.spec import Kind
from ebpfjit.program import Program

LONGEST = 8
"""Instructions of an arm at most."""

ARITHMETIC = frozenset({Kind.BINARY, Kind.MOVE, Kind.UNARY, Kind.LOAD_IMM64})


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
    for start, count in blocks.items():
        may_be = count <= LONGEST and once.get(start) and start not in kept and len(ways[start]) == 1
        if may_be and _is_arm(program, start, count, illegal):
            arms[start] = ways[start][0]
    for start, following in ways.items():
        if len(following) != 2 or following[0] == following[1]:
            continue
        a, b = following
        if arms.get(a) == b:
            chosen = [a]
        elif arms.get(b) == a:
            chosen = [b]
        elif a in arms and arms[a] == arms.get(b):
            chosen = [a, b]
        else:
            continue
        costs[start] += max(blocks[arm] for arm in chosen)
        for arm in chosen:
            costs[arm] = 0
    return costs


def _is_arm(program: Program, pc: int, count: int, illegal: Collection[int]) -> bool:
    """True where a block does nothing but arithmetic, and perhaps a jump at its end."""
    for _ in range(count):
        insn = program.slots[pc]
        if insn is None or insn.row is None or pc in illegal:
            return False
        if insn.row.kind not in ARITHMETIC and insn.row.kind is not Kind.JUMP:
            return False
        pc = insn.next_pc
    return True
