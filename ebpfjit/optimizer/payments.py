"""Payments: once for all that is likely to follow, instead of block by block.

    before                                   after
    b1: pay 4 else leave 3 (...)             b1: pay 7 own 4 else leave 3 (...)
        ...                                      ...
        if v1 > 5 goto b2() else b3()            if v1 > 5 goto b2() else b3()
    b2: pay 9                                b2: pay 6                        the other way: the difference
    b3: pay 3                                b3:
        ...                                      bound ... else leave 9 (...) refund 3 + ...
        goto b1()                                goto b1()

A payment where the budget is looked at asks for its own part only: as the interpreter does, which pays block
by block. What was paid ahead goes back where code leaves. The account is exact where something outside may
look at it: at calls, and at the ends of functions.
"""

from __future__ import annotations

from collections.abc import Sequence
from operator import is_not

from ebpfjit.isa.spec import Kind
from ebpfjit.isa.table import BY_NAME, TABLE
from ebpfjit.optimizer.code import PAY, Block, Code, Op, Way, with_exit
from ebpfjit.record import replace

SETTLES = frozenset(
    {Kind.CALL_HELPER, Kind.CALL_KFUNC, Kind.CALL_LOCAL, Kind.CALL_REGISTER, Kind.PACKET_LOAD, Kind.EXIT}
)
"""What wants the account to be exact."""

SETTLING = frozenset(row for row in TABLE if row.kind in SETTLES)
PAYING = SETTLING | {PAY}
JUMP = BY_NAME["JA"]


def pay_ahead(code: Code) -> Code:
    """Return the code with fewer payments."""
    order, (depths, headers) = code.shape.order, code.shape.loops
    entered = {entry.block for entry in code.entries.values()}
    ahead = [0] * len(code.blocks)  # what is paid for a block when it starts
    advance = [0] * len(code.blocks)  # what is paid at its end for later ones
    blocks = [*code.blocks]
    paying = [[op for op in block.ops if op.row in PAYING] for block in blocks]
    ways = code.shape.ways
    promised: dict[int, int] | None = None  # what ways back pay for the starts of loops: found out first
    while True:
        for number in reversed(order):
            following = ways[number]
            if following:
                likely = following[0]
                for other in following[1:]:
                    if (depths[other], -ahead[other]) > (depths[likely], -ahead[likely]):
                        likely = other
                advance[number] = ahead[likely]
            pending = _due(paying[number], advance[number])
            ahead[number] = 0 if number in entered else pending
            if promised is not None and number in headers:
                ahead[number] = promised[number]
        if promised is not None or not any(ahead[number] for number in headers):
            break
        promised = {number: ahead[number] for number in headers}
    for number in order:
        block = code.blocks[number]
        if paying[number] or advance[number] or ahead[number]:
            if advance[number] == ahead[number] == 0 and _is_settled(paying[number], block):
                continue
            ops, pending = _collected(block, advance[number])
            if pending != ahead[number]:
                ops = [Op(PAY, (), pending - ahead[number], 0, block.pc), *ops]
            blocks[number] = Block(block.pc, block.args, tuple(ops), block.end, block.ways)
    return _with_differences(code, blocks, order, ahead, advance)


def _due(paying: Sequence[Op], pending: int) -> int:
    """Return what is to be paid before a block, of its payments and of what comes later."""
    for op in reversed(paying):
        is_settled = op.row is not PAY or op.exit is not None
        pending = 0 if is_settled else pending + op.imm
    return pending


def _is_settled(paying: Sequence[Op], block: Block) -> bool:
    """True for a block that pays at its start only, where the budget is looked at."""
    return len(paying) == 1 and paying[0] is block.ops[0] and paying[0].exit is not None


def _collected(block: Block, pending: int) -> tuple[list[Op], int]:
    """Return a block's operations with what is paid as soon as can be, and what is to be paid before it."""
    found: list[Op] = []
    for op in reversed(block.ops):
        if op.row in PAYING:
            if op.row is not PAY:
                if pending:
                    found.append(Op(PAY, (), pending, 0, op.pc))
                found.append(op)
                pending = 0
                continue
            pending += op.imm
            if op.exit is not None:
                own = op.offset or op.imm
                same = pending == op.imm
                found.append(op if same else Op(PAY, (), pending, own, op.pc, (), op.exit, op.stores))
                pending = 0
            continue
        leaves = op.exit
        if leaves is not None and pending:
            op = with_exit(op, leaves.giving_back(leaves.refund + pending))
        found.append(op)
    found.reverse()
    return found, pending


def _with_differences(
    code: Code, blocks: list[Block], order: Sequence[int], ahead: Sequence[int], advance: Sequence[int]
) -> Code:
    """Return the code with what is due on the ways between blocks."""
    before = code.shape.before
    for number in order:
        paid = advance[number]
        for following in code.shape.ways[number]:
            if ahead[following] != paid:
                break
        else:
            continue
        ways = [*blocks[number].ways]
        for index, way in enumerate(ways):
            due = ahead[way.block] - paid
            if not due:
                continue
            there = blocks[way.block]
            payment = Op(PAY, (), due, 0, there.pc)
            if len(before[way.block]) == 1:
                ops = (payment, *there.ops)
                blocks[way.block] = Block(there.pc, there.args, ops, there.end, there.ways)
            else:
                blocks.append(Block(there.pc, (), (payment,), Op(JUMP, (), 0, 0, there.pc), (way,)))
                ways[index] = Way(len(blocks) - 1, ())
        if any(map(is_not, ways, blocks[number].ways)):
            block = blocks[number]
            blocks[number] = Block(block.pc, block.args, block.ops, block.end, tuple(ways))
    return replace(code, blocks=tuple(blocks))
