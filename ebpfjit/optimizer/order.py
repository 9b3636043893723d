"""Jump threading and block placement.

    b1: if v1 > 5 goto b2() else b3()        b1: if v1 > 5 goto b2() else b4(v1)      past b3
    b3: goto b4(v1)

Blocks are laid out along the way that is likely: the one that stays in the innermost loop, else the one that
the program falls through to. So loops are contiguous; what leaves comes last.
"""

from __future__ import annotations

from collections.abc import Set
from itertools import chain

from ebpfjit.optimizer.code import LEAVE, Block, Code, Way
from ebpfjit.optimizer.payments import JUMP


def thread_jumps(code: Code) -> Code:
    """Return the code with ways past blocks that only jump; these stay, and nothing leads to them."""
    blocks = code.blocks
    empty = {
        number
        for number, block in enumerate(blocks)
        if not block.ops and block.end.row is JUMP and block.ways[0].block != number
    }
    empty -= _read_elsewhere(code, empty)
    if not empty:
        return code
    found = []
    beyond: dict[int, Way] = {}
    leads = code.shape.ways
    for number, block in enumerate(blocks):
        if not empty.isdisjoint(leads[number]):
            ways = [
                _through(way, blocks, _beyond(way.block, blocks, empty, beyond))
                if way.block in empty
                else way
                for way in block.ways
            ]
            block = Block(block.pc, block.args, block.ops, block.end, tuple(ways))
        found.append(block)
    return Code(code.verified, tuple(found), code.entries, code.homes, code.proofs, [], code.remarks)


def _read_elsewhere(code: Code, empty: Set[int]) -> set[int]:
    """Return those of some blocks of which an argument is read by others: it is to be passed on to them.

    Only blocks that dominate what they lead to can be: nothing else comes there, but in rounds of a loop.
    """
    blocks, shape, owners = code.blocks, code.shape, dict[int, int]()
    for number in empty:
        if blocks[number].args:
            place, (way,) = shape.place, shape.ways[number]
            others = [each for each in shape.before[way] if each != number]
            if all(each >= 0 and not 0 <= place[each] < place[way] for each in others):
                owners.update(dict.fromkeys(blocks[number].args, number))
    if not owners:
        return set()
    asked, found = frozenset(owners), set()
    for number, block in enumerate(blocks):
        ops = block.all_ops
        read = [op.args for op in ops]
        read += [way.args for way in block.ways]
        named = [op.exit.registers for op in ops if op.exit is not None]
        for value in asked.intersection(chain(*read, *named)):
            if owners[value] != number:
                found.add(owners[value])
    return found


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
    likelihood, leads = code.shape.depths.copy(), code.shape.ways
    for number, block in enumerate(blocks):
        if block.end.row is LEAVE:
            likelihood[number] = -1
    placed: dict[int, None] = {}
    waiting = sorted({entry.block for entry in code.entries.values()}, reverse=True)
    cold: list[int] = []
    while waiting or cold:
        number = waiting.pop() if waiting else cold.pop()
        while number not in placed:
            placed[number] = None
            ways = [way for way in leads[number] if way not in placed]
            if not ways:
                break
            likely = ways.pop()
            for way in reversed(ways):
                if way != likely:
                    if likelihood[way] > likelihood[likely]:
                        likely, way = way, likely
                    (cold if likelihood[way] < 0 else waiting).append(way)
            number = likely
    laid_out = Code(code.verified, blocks, code.entries, code.homes, code.proofs, [], code.remarks, [*placed])
    laid_out.__dict__["shape"] = code.shape
    return laid_out
