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
from ebpfjit.optimizer.code import Block, Code, Op, Way
from ebpfjit.optimizer.flow import reverse_postorder, value_count, without

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
    taken: list[list[int] | None] = [None] * len(code.blocks)
    """Which arguments of a block stay, where not all do."""
    for number in order:
        args = code.blocks[number].args
        if number not in entered and not all(map(needed.__getitem__, args)):
            taken[number] = [place for place, value in enumerate(args) if needed[value]]
    blocks: list[Block | None] = [None] * len(code.blocks)
    for number in order:
        blocks[number] = _without_dead(code.blocks[number], needed, taken, taken[number])
    starts = [
        start
        if start is not None and all(value is None or needed[value] for value in start.registers)
        else None
        for start in code.starts
    ]
    return without(code, blocks, code.homes, starts)


def _needed(code: Code, order: list[int]) -> bytearray:
    """Return for each value 1 where something that stays reads it."""
    count = value_count(code)
    makers: list[Op | None] = [None] * count
    incoming: dict[int, list[int]] = {value: [] for block in code.blocks for value in block.args}
    needed = bytearray(count)
    waiting: list[int | None] = []
    for number in order:
        block = code.blocks[number]
        for op in block.ops:
            if op.row in REMOVABLE:
                makers[op.results[0]] = op
            else:
                waiting += op.args
                if op.exit is not None:
                    waiting += op.exit.registers
        end = block.end
        waiting += end.args
        if end.exit is not None:
            waiting += end.exit.registers
        for way in block.ways:
            for value, given in zip(code.blocks[way.block].args, way.args, strict=True):
                incoming[value].append(given)
    for entry in code.entries.values():
        waiting += code.blocks[entry.block].args
    while waiting:
        needs = waiting.pop()
        if needs is None or needed[needs]:
            continue
        needed[needs] = 1
        maker = makers[needs]
        if maker is not None:
            waiting += maker.args
        elif needs in incoming:
            waiting += incoming[needs]
    return needed


def _without_dead(
    block: Block, needed: bytearray, taken: list[list[int] | None], kept: list[int] | None
) -> Block:
    """Return a block with the operations that are needed, and the arguments that are taken."""
    ops = tuple([op for op in block.ops if op.row not in REMOVABLE or needed[op.results[0]]])
    ways = tuple(
        [
            way
            if (places := taken[way.block]) is None
            else Way(way.block, tuple([way.args[i] for i in places]))
            for way in block.ways
        ]
    )
    args = block.args if kept is None else tuple([block.args[place] for place in kept])
    return Block(block.pc, args, ops, block.end, ways)
