"""Code -> Code in which a branch around next to nothing is a choice between values.

    before                              after
    b0 pc 0 (v0, v1):                   b0 pc 0 (v0, v1):
      ...                                 ...
      if v0 > v1 goto b2(v0) else b1()    v3 = v0 if v0 > v1 else v1
    b1 pc 3 ():                           goto b1(v3)
      goto b2(v1)                       b1 pc 4 (v2):
    b2 pc 4 (v2):                         exit v2
      exit v2

Contract: the same values come to the block where both ways join. An arm is a block that only the branch
leads to; nothing is paid in it (`analysis.costs`), and it holds no more than a cheap operation or two,
which are done in either case then. One value differs where the ways join, or two that need no operation: a
branch that is foretold right costs less than more of them. Linear: each branch is looked at once.
"""

from __future__ import annotations

from typing import NamedTuple

from ebpfjit.isa.spec import Kind
from ebpfjit.isa.table import BY_NAME, UNENCODED
from ebpfjit.optimizer.code import Block, Code, Op, Way
from ebpfjit.optimizer.flow import homes_of, predecessors, without

JUMP = BY_NAME["JA"]
CHEAP = frozenset(
    BY_NAME[name]
    for name in (
        "MOV64_K",
        "MOV32_K",
        "LDDW",
        "MOV32_X",
        "ADD64_K",
        "ADD32_K",
        "ADD64_X",
        "ADD32_X",
        "AND64_K",
    )
)
"""Rows of what may be done in vain."""
MOST_DONE = 1
"""Operations of an arm."""


class _Arm(NamedTuple):
    """One way from a branch to where both join."""

    ops: tuple[Op, ...]
    way: Way
    block: int | None
    """The block in between, where there is one."""


def select(code: Code) -> Code:
    """Return the code with choices instead of branches around next to nothing."""
    blocks: list[Block | None] = [*code.blocks]
    before = predecessors(code)
    homes = homes_of(code)
    is_changed = False
    # Later ones first: what was a branch may be part of an arm then.
    for number in range(len(blocks) - 1, -1, -1):
        block = blocks[number]
        if block is None or block.end.row.kind is not Kind.BRANCH:
            continue
        arms = _arms(block, blocks, before)
        if arms is None:
            continue
        blocks[number] = _chosen(block, *arms, code.blocks[arms[0].way.block].args, homes)
        is_changed = True
        for arm in arms:
            if arm.block is not None:
                blocks[arm.block] = None
        before[arms[0].way.block].append(number)
    return without(code, blocks, homes) if is_changed else code


def _arms(block: Block, blocks: list[Block | None], before: list[list[int]]) -> tuple[_Arm, _Arm] | None:
    """Return both ways from a branch where they join at once; None where they do not."""
    taken, through = (_arm(way, blocks, before) for way in block.ways)
    direct_taken, direct_through = (_Arm((), way, None) for way in block.ways)
    for one, other in ((taken, through), (taken, direct_through), (direct_taken, through)):
        if one is not None and other is not None and one.way.block == other.way.block:
            differ = sum(a != b for a, b in zip(one.way.args, other.way.args, strict=True))
            done = len(one.ops) + len(other.ops)
            return (one, other) if differ <= (1 if done else 2) and differ + done <= 3 else None
    return None


def _arm(way: Way, blocks: list[Block | None], before: list[list[int]]) -> _Arm | None:
    """Return a way through a block that is next to empty; None through any other."""
    block = blocks[way.block]
    if block is None or len(before[way.block]) != 1 or before[way.block][0] < 0 or block.args:
        return None
    if block.end.row is not JUMP or block.ways[0].block == way.block:
        return None
    if len(block.ops) > MOST_DONE or not all(op.row in CHEAP for op in block.ops):
        return None
    return _Arm(block.ops, block.ways[0], way.block)


def _chosen(block: Block, taken: _Arm, through: _Arm, args: tuple[int, ...], homes: list[int]) -> Block:
    """Return a block with choices instead of its branch; `args` are those of the block of both ways."""
    end = block.end
    ops = [*block.ops, *taken.ops, *through.ops]
    given = []
    form = "X" if end.row.uses_src else "K"
    suffix = "32" if end.row.width.bits == 32 else ""
    for arg, one, other in zip(args, taken.way.args, through.way.args, strict=True):
        if one == other:
            given.append(one)
            continue
        result = len(homes)
        homes.append(homes[arg])
        row = UNENCODED[f"SELECT_{end.row.meaning}{suffix}_{form}"]
        ops.append(Op(row, (*end.args, one, other), end.imm, 0, end.pc, (result,)))
        given.append(result)
    join = Way(taken.way.block, tuple(given))
    return Block(block.pc, block.args, tuple(ops), Op(JUMP, (), 0, 0, end.pc), (join,))
