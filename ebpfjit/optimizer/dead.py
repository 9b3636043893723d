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

from ebpfjit.isa.spec import Kind
from ebpfjit.isa.table import TABLE, UNENCODED
from ebpfjit.optimizer.code import Block, Code, Way
from ebpfjit.optimizer.flow import reverse_postorder, without

_KINDS = frozenset(
    {Kind.BINARY, Kind.MOVE, Kind.UNARY, Kind.LOAD_IMM64, Kind.LOAD, Kind.SUM, Kind.SELECT}
    | {Kind.INDEXED_LOAD, Kind.BINARY_LOAD}
)
REMOVABLE = frozenset(
    row for row in (*TABLE, *UNENCODED.values()) if row.kind in _KINDS and not row.is_ordered
)
"""Rows whose operations only make a value; loads that are ordered are fences, and stay."""


def remove_dead(code: Code) -> Code:
    """Return the code without what has no effect and makes nothing that is needed."""
    order = reverse_postorder(code)
    needed = _needed(code, order)
    entered = {entry.block for entry in code.entries.values()}
    taken: dict[int, list[int]] = {}
    """Which arguments of a block stay, where not all do."""
    for number in order:
        args = code.blocks[number].args
        if args and number not in entered and not needed.issuperset(args):
            taken[number] = [place for place, value in enumerate(args) if value in needed]
    blocks: list[Block | None] = [None] * len(code.blocks)
    for number in order:
        blocks[number] = _without_dead(number, code.blocks[number], needed, taken)
    named = needed | {None}
    starts = [
        start if start is not None and named.issuperset(start.registers) else None for start in code.starts
    ]
    return without(code, blocks, code.homes, starts)


def _needed(code: Code, order: list[int]) -> set[int]:
    """Return the values that something reads that stays."""
    makers: dict[int, tuple[int, ...]] = {}  # what those of operations are made of that may go
    incoming: dict[int, list[int]] = {}
    roots: set[int | None] = set()
    for number in order:
        block = code.blocks[number]
        makers.update({op.results[0]: op.args for op in block.ops if op.row in REMOVABLE})
        staying = [op for op in block.all_ops if op.row not in REMOVABLE]
        roots.update(*[op.args for op in staying])
        roots.update(*[op.exit.registers for op in staying if op.exit is not None])
        for way in block.ways:
            if way.args:
                for value, given in zip(code.blocks[way.block].args, way.args, strict=True):
                    incoming.setdefault(value, []).append(given)
    for entry in code.entries.values():
        roots.update(code.blocks[entry.block].args)
    needed = {value for value in roots if value is not None}
    waiting = [*needed]
    while waiting:
        value = waiting.pop()
        for read in makers.get(value) or incoming.get(value) or ():
            if read not in needed:
                needed.add(read)
                waiting.append(read)
    return needed


def _without_dead(number: int, block: Block, needed: set[int], taken: dict[int, list[int]]) -> Block:
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
