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
from dataclasses import replace

from ebpfjit.isa.spec import Kind
from ebpfjit.isa.table import BY_NAME
from ebpfjit.optimizer.code import PAY, Block, Code, Op, Way
from ebpfjit.optimizer.flow import predecessors, reverse_postorder
from ebpfjit.optimizer.next_use import loop_depths

SETTLES = frozenset(
    {Kind.CALL_HELPER, Kind.CALL_KFUNC, Kind.CALL_LOCAL, Kind.CALL_REGISTER, Kind.PACKET_LOAD, Kind.EXIT}
)
"""What wants the account to be exact."""

JUMP = BY_NAME["JA"]


def pay_ahead(code: Code) -> Code:
    """Return the code with fewer payments."""
    order = reverse_postorder(code)
    depths, headers = loop_depths(code, order)
    entered = {entry.block for entry in code.entries.values()}
    ahead = [0] * len(code.blocks)  # what is paid for a block when it starts
    advance = [0] * len(code.blocks)  # what is paid at its end for later ones
    blocks = [*code.blocks]
    promised: dict[int, int] | None = None  # what ways back pay for the starts of loops: found out first
    while True:
        for number in reversed(order):
            block = code.blocks[number]
            if block.ways and block.end.row.kind not in SETTLES:
                likely = max(block.ways, key=lambda way: (depths[way.block], -ahead[way.block]))
                advance[number] = ahead[likely.block]
            ops, pending = _collected(block, advance[number])
            paid = 0 if number in entered else pending
            if promised is not None and number in headers:
                paid = promised[number]
            if pending != paid:
                ops = [Op(PAY, (), pending - paid, 0, block.pc), *ops]
            ahead[number] = paid
            blocks[number] = Block(block.pc, block.args, tuple(ops), block.end, block.ways)
        if promised is not None or not headers:
            break
        promised = {number: ahead[number] for number in headers}
    return _with_differences(code, blocks, order, ahead, advance)


def _collected(block: Block, pending: int) -> tuple[list[Op], int]:
    """Return a block's operations with what is paid as soon as can be, and what is to be paid before it."""
    found: list[Op] = []
    for op in reversed(block.ops):
        if op.row is PAY:
            pending += op.imm
            if op.exit is not None:
                found.append(
                    replace(op, imm=pending, offset=op.offset or op.imm) if pending != op.imm else op
                )
                pending = 0
            continue
        if op.row.kind in SETTLES:
            if pending:
                found.append(Op(PAY, (), pending, 0, op.pc))
                pending = 0
        elif op.exit is not None and pending:
            op = replace(op, exit=replace(op.exit, refund=op.exit.refund + pending))
        found.append(op)
    found.reverse()
    return found, pending


def _with_differences(
    code: Code, blocks: list[Block], order: Sequence[int], ahead: Sequence[int], advance: Sequence[int]
) -> Code:
    """Return the code with what is due on the ways between blocks."""
    before = predecessors(code)
    for number in order:
        ways = [*blocks[number].ways]
        for index, way in enumerate(ways):
            due = ahead[way.block] - advance[number]
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
        if tuple(ways) != blocks[number].ways:
            block = blocks[number]
            blocks[number] = Block(block.pc, block.args, block.ops, block.end, tuple(ways))
    return replace(code, blocks=tuple(blocks))
