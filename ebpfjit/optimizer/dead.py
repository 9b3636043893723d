"""Code -> Code without what nobody needs: operations, arguments of blocks, blocks that nothing comes to.

    before                                  after
    b0 pc 0 (v0, v1):                       b0 pc 0 (v0, v1):
      pay 4 else leave 0 (r1 = v0)            pay 4 else leave 0 (r1 = v0)
      bound load v0 + 0..1 else leave 0 (..)  bound load v0 + 0..1 else leave 0 (..)
      v2 = *(u8 *)(v0 + 0)
      v3 = v2 + v1
      goto b1(v0, v3)                         goto b1(v0)
    b1 pc 3 (v4, v5):                       b1 pc 3 (v4):
      exit v4                                 exit v4

Contract: what has an effect stays (stores, bounds, payments, calls), with all that it reads and that its
exit names. A load goes where nobody reads what it loads; its bound stays, as that may leave. The arguments
of blocks that are entered from outside stay. Linear: each value is looked at once.
"""

from __future__ import annotations

from collections.abc import Set
from typing import Any

from ebpfjit.isa.spec import Kind
from ebpfjit.isa.table import TABLE
from ebpfjit.isa.unencoded import UNENCODED
from ebpfjit.optimizer.code import Block, Code, Way
from ebpfjit.optimizer.flow import without

_KINDS = frozenset(
    {Kind.BINARY, Kind.MOVE, Kind.UNARY, Kind.LOAD_IMM64, Kind.LOAD, Kind.SUM, Kind.SELECT}
    | {Kind.INDEXED_LOAD, Kind.BINARY_LOAD, Kind.REDUCE}
)
REMOVABLE = frozenset(
    row for row in (*TABLE, *UNENCODED.values()) if row.kind in _KINDS and not row.is_ordered
)
"""Rows whose operations only make a value; loads that are ordered are fences, and stay."""


def remove_dead(code: Code) -> Code:
    """Return the code without what has no effect and makes nothing that is needed."""
    blocks, order = code.blocks, code.shape.order
    entered = set(code.shape.entered)
    needed, doubtful = _needed(code, entered)
    taken: dict[int, list[int]] = {}
    """Which arguments of a block stay, where not all do."""
    for number in order:
        args = blocks[number].args
        if args and number not in entered and not needed.issuperset(args):
            taken[number] = [place for place, value in enumerate(args) if value in needed]
    if taken:
        before = code.shape.before
        doubtful.update(taken, *[before[number] for number in taken])
    left: list[Block | None] = [None] * len(blocks)
    for number in order:
        block = blocks[number]
        left[number] = _without_dead(number, block, needed, taken) if number in doubtful else block
    named = needed | {None}
    starts = [
        start if start is not None and named.issuperset(start.registers) else None for start in code.starts
    ]
    return without(code, left, code.homes, starts)


def _needed(code: Code, entered: Set[int]) -> tuple[set[Any], set[int]]:
    """Return the values that something reads that stays (perhaps None as well), and the blocks in which there
    may be operations that do not.

    From the last block on, and in each from its last operation on, all that reads a value comes before what
    makes it, but for what comes round in loops. So little has to be looked at again.
    """
    blocks = code.blocks
    needed: set[Any] = set()
    made_of: dict[int, tuple[int, ...]] = {}
    """What those are made of that nothing needed where they were looked at."""
    came: dict[int, list[int]] = {}
    """The same of arguments of blocks, which rounds of loops may bring."""
    doubtful = set[int]()
    is_done = [False] * len(blocks)
    for number in entered:
        needed.update(blocks[number].args)
    for number in reversed(code.shape.order):
        block = blocks[number]
        is_done[number] = True
        for way in block.ways:
            if way.args:
                if is_done[way.block] and needed.issuperset(blocks[way.block].args):
                    needed.update(way.args)
                    continue
                for value, given in zip(blocks[way.block].args, way.args, strict=True):
                    if value in needed:
                        needed.add(given)
                    else:
                        came.setdefault(value, []).append(given)
        end = block.end
        needed.update(end.args)
        if end.exit is not None:
            needed.update(end.exit.registers)
        for op in reversed(block.ops):
            if op.row not in REMOVABLE:
                needed.update(op.args)
                if op.exit is not None:
                    needed.update(op.exit.registers)
            elif op.results[0] in needed:
                needed.update(op.args)
            else:
                made_of[op.results[0]] = op.args
                doubtful.add(number)
    waiting = [value for value in (*came, *made_of) if value in needed]
    while waiting:
        value = waiting.pop()
        for read in came.get(value) or made_of.get(value) or ():
            if read not in needed:
                needed.add(read)
                waiting.append(read)
    return needed, doubtful


def _without_dead(number: int, block: Block, needed: Set[int], taken: dict[int, list[int]]) -> Block:
    """Return a block with the operations that are needed, and the arguments that are taken."""
    ops = tuple([op for op in block.ops if op.row not in REMOVABLE or op.results[0] in needed])
    args, ways = block.args, block.ways
    if taken:
        kept = taken.get(number)
        args = args if kept is None else tuple([args[place] for place in kept])
        ways = tuple(
            [
                way
                if (places := taken.get(way.block)) is None
                else Way(way.block, tuple([way.args[i] for i in places]))
                for way in ways
            ]
        )
    elif len(ops) == len(block.ops):
        return block
    return Block(block.pc, args, ops, block.end, ways)
