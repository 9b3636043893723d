"""Blocks that do nothing are left out: who jumps there jumps to where they go on.

b1: if v1 > 5 goto b2() else b3()        b1: if v1 > 5 goto b2() else b4(v1)
b3: goto b4(v1)
"""

from __future__ import annotations

from ebpfjit.isa.spec import Kind
from ebpfjit.optimizer.code import Block, Code, Way
from ebpfjit.optimizer.flow import uses_of


def thread_jumps(code: Code) -> Code:
    """Return the code with ways past blocks that only jump; these stay, and nothing leads to them."""
    blocks = code.blocks
    empty = {
        number
        for number, block in enumerate(blocks)
        if not block.ops and block.end.row.kind is Kind.JUMP and block.ways[0].block != number
    }
    if any(blocks[number].args for number in empty):
        uses = _uses(code)
        empty = {
            number
            for number in empty
            if all(uses[arg] == blocks[number].ways[0].args.count(arg) for arg in blocks[number].args)
        }  # what later blocks read of it is passed on to nobody
    if not empty:
        return code
    found = []
    beyond: dict[int, Way] = {}
    for block in blocks:
        ways = tuple(
            _through(way, blocks, _beyond(way.block, blocks, empty, beyond)) if way.block in empty else way
            for way in block.ways
        )
        found.append(block if ways == block.ways else Block(block.pc, block.args, block.ops, block.end, ways))
    return Code(code.verified, tuple(found), code.entries, code.homes, code.proofs)


def _uses(code: Code) -> list[int]:
    """Return how often each value is read, by exits too."""
    uses = uses_of(code)
    for block in code.blocks:
        for op in block.all_ops:
            for value in op.exit.registers if op.exit is not None else ():
                if value is not None:
                    uses[value] += 1
    return uses


def _through(way: Way, blocks: tuple[Block, ...], onward: Way) -> Way:
    """Return a way to a block and from there `onward` as one."""
    values = dict(zip(blocks[way.block].args, way.args, strict=True))
    return Way(onward.block, tuple([values.get(value, value) for value in onward.args]))


def _beyond(number: int, blocks: tuple[Block, ...], empty: set[int], beyond: dict[int, Way]) -> Way:
    """Return where a block that does nothing leads, past others; `beyond` has what is known of that."""
    chain: list[int] = []
    at = number
    while at in empty and at not in beyond:
        beyond[at] = blocks[at].ways[0]  # which stays for the one that a circle of them is closed at
        chain.append(at)
        at = blocks[at].ways[0].block
    for each in reversed(chain):
        way = blocks[each].ways[0]
        if way.block in beyond:
            beyond[each] = _through(way, blocks, beyond[way.block])
    return beyond[number]
