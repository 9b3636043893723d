"""Code -> Code in which numbers that are divided by a constant are multiplied by its reciprocal.

    before                  after
    v1 = v0 / 10            v2 = 14757395258967641293 ll
                            v3 = v0 mulhi v2
                            v1 = v3 >> 3
    w4 = w0 % 1000          w5 = w0
                            v6 = 18446744073709552 ll
                            v7 = v5 mulhi v6
                            v8 = v7 * 1000
                            v4 = v5 - v8

Contract: the same values, by what is faster than a division. Comes behind guards, as no range is known of
what remains then. Divisions by powers of two are shifts before (`arithmetic`); those whose reciprocal takes
more than 64 bits stay. Linear.

    x // d == (x * m >> bits) >> s      for all x below 2**n, with m below 2**bits

T. Granlund and P. L. Montgomery, "Division by Invariant Integers using Multiplication" (1994).
"""

from __future__ import annotations

from typing import NamedTuple

from ebpfjit.bits import W32, W64, Width
from ebpfjit.isa.spec import Row
from ebpfjit.isa.table import BY_NAME
from ebpfjit.isa.unencoded import UNENCODED
from ebpfjit.optimizer.code import Block, Code, Op
from ebpfjit.optimizer.flow import homes_of, with_blocks
from ebpfjit.optimizer.rules.arithmetic import CONSTANT, LOW_HALF, LOW_ROWS, WIDE, fits

RIGHT, MULTIPLY, SUBTRACT = (BY_NAME[name] for name in ("RSH64_K", "MUL64_K", "SUB64_X"))
HIGH = UNENCODED["MULHI64"]
DIVISIONS = frozenset(BY_NAME[f"{meaning}{bits}_K"] for meaning in ("DIV", "MOD") for bits in (32, 64))


def divide(code: Code) -> Code:
    """Return the code without divisions by constants that are better done otherwise."""
    made = [*code.blocks]
    dividing = [
        number for number, block in enumerate(made) if not DIVISIONS.isdisjoint([op.row for op in block.ops])
    ]
    if not dividing:
        return code
    low = {op.results[0] for block in made for op in block.ops if op.row in LOW_ROWS and op.results}
    homes = homes_of(code)
    for number in dividing:
        block = made[number]
        ops: list[Op] = []
        for op in block.ops:
            ops += _divided(op, low, homes) if op.row in DIVISIONS else (op,)
        made[number] = Block(block.pc, block.args, tuple(ops), block.end, block.ways)
    return with_blocks(code, made, homes)


def _divided(op: Op, low: set[int], homes: list[int]) -> list[Op]:
    """Return what is done instead of a division; `low` are values without an upper half."""
    (a,), is_narrow = op.args, op.row.width is W32
    d = op.row.width.wrap(op.imm)
    is_division = op.row.meaning == "DIV"
    it = reciprocal(W64, 32 if is_narrow or a in low else 64, d) if d & (d - 1) else None
    if it is None or not (is_division or fits(d)):
        return [op]
    ops: list[Op] = []

    def add(row: Row, args: tuple[int, ...], imm: int = 0) -> int:
        homes.append(homes[op.results[0]])
        ops.append(Op(row, args, imm, 0, op.pc, (len(homes) - 1,)))
        return len(homes) - 1

    value = add(LOW_HALF, (a,)) if is_narrow and a not in low else a
    shifted = add(RIGHT, (value,), it.before) if it.before else value
    factor = W64.signed(it.factor)
    number = add(CONSTANT, (), factor) if fits(factor) else add(WIDE, (), it.factor)
    quotient = add(HIGH, (shifted, number))
    if it.behind:
        quotient = add(RIGHT, (quotient,), it.behind)
    if not is_division:
        add(SUBTRACT, (value, add(MULTIPLY, (quotient,), d)))
    last = ops.pop()  # which makes what the division made
    homes.pop()
    return [*ops, Op(last.row, last.args, last.imm, 0, op.pc, op.results)]


class Reciprocal(NamedTuple):
    """What x is shifted right by, multiplied by, and what the high half of that is shifted right by."""

    before: int
    factor: int
    behind: int


def reciprocal(w: Width, n: int, d: int) -> Reciprocal | None:
    """Return what divides each x below 2**n by d, which is no power of two; None where w is too small for it.

    With top = 2**(bits + s) and m = top / d, rounded up, m * d is top + e for some e below d. x * m / top is
    x / d + x * e / (d * top): of which the whole part is that of x / d where x * e is below top.
    """
    found = _of_all(w, n, d)
    if found is None and not d & 1:
        zeros = (d & -d).bit_length() - 1
        found = _of_all(w, n - zeros, d >> zeros)
        return None if found is None else found._replace(before=zeros)
    return found


def _of_all(w: Width, n: int, d: int) -> Reciprocal | None:
    for shift in range(w.bits):
        top = 1 << (w.bits + shift)
        factor = -(-top // d)
        if factor > w.mask:
            return None
        if (factor * d - top) * ((1 << n) - 1) < top:
            return Reciprocal(0, factor, shift)
    return None
