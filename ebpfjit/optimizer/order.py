"""Jump threading and block placement.

    b1: if v1 > 5 goto b2() else b3()        b1: if v1 > 5 goto b2() else b4(v1)      past b3
    b3: goto b4(v1)

Blocks are laid out along the way that is likely: the one that stays in the innermost loop, else the one that
the program falls through to. So loops are contiguous; what leaves comes last.
"""

from __future__ import annotations

from ebpfjit.isa.spec import Kind
from ebpfjit.optimizer.code import Block, Code, Entry, Way
from ebpfjit.optimizer.flow import reverse_postorder, uses_of
from ebpfjit.optimizer.next_use import loop_depths


def thread_jumps(code: Code) -> Code:
    """Return the code with ways past blocks that only jump; these stay, and nothing leads to them."""
    blocks = code.blocks
    empty = {
        number
        for number, block in enumerate(blocks)
        if not block.ops and block.end.row.kind is Kind.JUMP and block.ways[0].block != number
    }
    if any(blocks[number].args for number in empty):
        uses = uses_of(code)
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
    return Code(code.verified, tuple(found), code.entries, code.homes, code.proofs, [], code.remarks)


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


def lay_out(code: Code) -> Code:
    """Return the code with its blocks in the order in which they are likely to be run."""
    blocks = code.blocks
    depths, _ = loop_depths(code, reverse_postorder(code))
    placed: dict[int, int] = {}
    waiting = sorted({entry.block for entry in code.entries.values()}, reverse=True)
    cold: list[int] = []
    while waiting or cold:
        number = waiting.pop() if waiting else cold.pop()
        while number not in placed:
            placed[number] = len(placed)
            ways = [way.block for way in reversed(blocks[number].ways) if way.block not in placed]
            if not ways:
                break
            likely = max(ways, key=lambda each: (blocks[each].end.row.kind is not Kind.LEAVE, depths[each]))
            for way in ways:
                if way != likely:
                    (cold if blocks[way].end.row.kind is Kind.LEAVE else waiting).append(way)
            number = likely
    order = [blocks[number] for number in placed]
    found = [
        Block(b.pc, b.args, b.ops, b.end, tuple([Way(placed[way.block], way.args) for way in b.ways]))
        for b in order
    ]
    entries = {pc: Entry(placed[entry.block], entry.registers) for pc, entry in code.entries.items()}
    return Code(code.verified, tuple(found), entries, code.homes, code.proofs, [], code.remarks)
