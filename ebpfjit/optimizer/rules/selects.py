"""Code -> Code in which a branch around next to nothing is a choice between values.

    before                              after
    b0 pc 0 (v0, v1):                   b0 pc 0 (v0, v1):
      ...                                 ...
      if v0 > v1 goto b2(v0) else b1()    v3 = v0 if v0 > v1 else v1
    b1 pc 3 ():                           pay 1 if v0 <= v1
      pay 1                               goto b1(v3)
      goto b2(v1)                       b1 pc 4 (v2):
    b2 pc 4 (v2):                         exit v2
      exit v2

Contract: the same values come to the block where both ways join, and the same is paid on either way. An arm
is a block that only the branch leads to; it holds nothing but its payment, at which nobody looks, and one
cheap operation at most, which is done in either case then. Only one value differs where the ways join, or
two that need no operation: a branch that is foretold right costs less than more of them. Linear: each
branch is looked at once.
"""

from __future__ import annotations

from typing import NamedTuple

from ebpfjit.isa.spec import Kind
from ebpfjit.isa.table import BY_NAME, UNENCODED
from ebpfjit.optimizer.code import PAY, Block, Code, Op, Way
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
MOST_PAID = 2
"""Instructions of an arm: a move, and a jump to where the other way leads."""

INVERSE = {"JEQ": "JNE", "JNE": "JEQ", "JGT": "JLE", "JLE": "JGT", "JGE": "JLT", "JLT": "JGE", "JSGT": "JSLE",
           "JSLE": "JSGT", "JSGE": "JSLT", "JSLT": "JSGE"}  # fmt: skip
"""Comparisons that hold where others do not; JSET has none."""


class _Arm(NamedTuple):
    """One way from a branch to where both join."""

    ops: tuple[Op, ...]
    paid: int
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
    direct_taken, direct_through = (_Arm((), 0, way, None) for way in block.ways)
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
    paid, ops = 0, list[Op]()
    for op in block.ops:
        if op.row is PAY and op.exit is None:
            paid += op.imm
        elif op.row in CHEAP and not ops:
            ops.append(op)
        else:
            return None
    return _Arm(tuple(ops), paid, block.ways[0], way.block) if paid <= MOST_PAID else None


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
    less = min(taken.paid, through.paid)
    more, meaning = taken.paid - through.paid, end.row.meaning
    if more < 0 and meaning in INVERSE:
        less, more, meaning = taken.paid, -more, INVERSE[meaning]
    elif more < 0:
        less = through.paid
    if less:
        ops.append(Op(PAY, (), less, 0, end.pc))
    if more:
        ops.append(Op(UNENCODED[f"PAY_IF_{meaning}{suffix}_{form}"], end.args, end.imm, more, end.pc))
    join = Way(taken.way.block, tuple(given))
    return Block(block.pc, block.args, tuple(ops), Op(JUMP, (), 0, 0, end.pc), (join,))
