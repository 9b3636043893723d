"""The budget is looked at once in a round of an innermost loop, where it starts.

    before                                   after
    b1 (v3):                                 b1 (v3):
      pay 4                                    pay 4 own 13 or else leave 3 (...)
      if v3 > 5 goto b2() else b3(v3)          if v3 > 5 goto b2() else b3(v3)
    b2 ():                                   b2 ():
      pay 7 else leave 9 (...)                 pay 7
      v4 = v3 + 1                              ...
      goto b3(v4)
    b3 (v5):                                 b3 (v5):
      pay 2 else leave 20 (...)                pay 2
      if v5 != v1 goto b1(v5) else b4()        if v5 != v1 goto b1(v5) else b4()

Where a program looks follows from its jumps back, of which a loop may have several. Asked for is all that a
round may cost, by any way: where that is not left the run goes on in baseline code, which looks where the
program does. What is paid stays, so that `payments` puts more of it together.

Contract: only payments change, in whether somebody looks and what they ask for; the sum on each way is the
same, and no way comes round without a look. Loops have one header and no loop inside, call nothing, and are
small. Linear: each loop is looked at once, up to a number of blocks.
"""

from __future__ import annotations

from operator import is_not

from ebpfjit.isa.spec import Kind
from ebpfjit.isa.table import TABLE
from ebpfjit.isa.unencoded import UNENCODED
from ebpfjit.optimizer.code import PAY, Block, Code, Exit, Op
from ebpfjit.optimizer.flow import with_blocks
from ebpfjit.optimizer.payments import SETTLES

MOST_BLOCKS = 64
"""Blocks of a loop, at most."""
_KINDS = SETTLES | {Kind.LEAVE, Kind.MAY_GOTO, Kind.REDUCE}
STOPS = frozenset(row for row in (*TABLE, *UNENCODED.values()) if row.kind in _KINDS)
"""What loops that are left as they are have."""


def look_once(code: Code) -> Code:
    """Return the code with one look at the budget in each round of its innermost loops."""
    shape, old = code.shape, code.blocks
    depths, headers = shape.loops
    if shape.is_deep or not headers:
        return code
    blocks = [*old]
    for header in sorted(headers):
        body = shape.inside(header, MOST_BLOCKS)
        count = sum([_looks(old[number]) for number in body])
        if count - _looks_first(blocks[header]) and _is_simple(code, header, body, depths):
            start = code.starts[header] if header < len(code.starts) else None
            _look_at(blocks, header, body, start)
    is_changed = any(map(is_not, blocks, old))
    return with_blocks(code, tuple(blocks)) if is_changed else code


def _looks(block: Block) -> int:
    """Return how often the budget is looked at in a block."""
    return len([op for op in block.ops if op.row is PAY and op.exit is not None])


def _looks_first(block: Block) -> bool:
    """True where the first that a block does is to look."""
    return bool(block.ops) and block.ops[0].row is PAY and block.ops[0].exit is not None


def _is_simple(code: Code, header: int, body: set[int], depths: list[int]) -> bool:
    """True for an innermost loop of few blocks that only its header leads into, and that calls nothing."""
    before = code.shape.before
    if len(body) > MOST_BLOCKS or -1 in before[header]:
        return False
    for number in body:
        block = code.blocks[number]
        if depths[number] != depths[header] or block.end.row in STOPS:
            return False
        if not STOPS.isdisjoint([op.row for op in block.ops]):
            return False
        if number != header and not body.issuperset(before[number]):
            return False
    return True


def _look_at(blocks: list[Block], header: int, body: set[int], start: Exit | None) -> None:
    """Have the start of a round ask for all that it may cost, and nothing else look; if it has an exit."""
    first = blocks[header]
    leaves = first.ops[0].exit if _looks_first(first) else start
    if leaves is None:
        return
    payments = (op for number in body for op in blocks[number].ops if op.row is PAY)
    cost = sum(max(op.imm, op.offset, 0) for op in payments)
    for number in body:
        block = blocks[number]
        if _looks(block):
            ops = tuple([_unseen(op) if op.row is PAY else op for op in block.ops])
            blocks[number] = Block(block.pc, block.args, ops, block.end, block.ways)
    first = blocks[header]
    paid = first.ops[0].imm if first.ops and first.ops[0].row is PAY else 0
    look = Op(PAY, (), paid, cost, first.pc, (), leaves, stores=True)
    ops = (look, *first.ops[1 if paid else 0 :])
    blocks[header] = Block(first.pc, first.args, ops, first.end, first.ways)


def _unseen(op: Op) -> Op:
    """Return a payment at which nobody looks."""
    return Op(PAY, (), op.imm, 0, op.pc)
