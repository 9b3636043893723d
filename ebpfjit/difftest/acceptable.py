"""Random programs that the kernel's verifier accepts: scalars from memory, forward jumps, tame pointers.

r6 points to the memory all along; every other register holds a scalar. Immediate divisors are not
zero and immediate shift counts are below the width, because Linux refuses those (docs/differences.md).
"""

from __future__ import annotations

import random

from ebpfjit.bits import U64_MASK
from ebpfjit.difftest.generate import (
    ACCESSES,
    ARITHMETIC,
    EDGES,
    EXIT,
    MEMORY_SIZE,
    SHIFTS,
    WIDE_EDGES,
    constant,
    copy,
    divided_extremes,
    encoded,
    plain,
)
from ebpfjit.isa.spec import Kind, Reg, Row
from ebpfjit.isa.table import TABLE

SCALARS = (0, 2, 3, 4, 5, 7, 8, 9)
MEMORY_POINTER = 6
BRANCHES = [row for row in TABLE if row.kind is Kind.BRANCH]
DIVISIONS = ("DIV", "SDIV", "MOD", "SMOD")


def _imm(rng: random.Random, row: Row) -> int:
    """A constant that the verifier takes for this row."""
    if row.meaning in SHIFTS:
        return 0 if rng.random() < 0.2 else rng.randrange(row.width.bits)
    imm = rng.choice(EDGES) if rng.random() < 0.6 else rng.randrange(-(2**31), 2**31)
    return 3 if imm == 0 and row.meaning in DIVISIONS else imm


def _access(rng: random.Random, row: Row) -> bytes:
    """A load, store or atomic that hits the memory."""
    offset = rng.randrange(MEMORY_SIZE // row.size) * row.size
    base, scalar = MEMORY_POINTER, rng.choice(SCALARS)
    if row.kind is Kind.LOAD:
        return encoded(row, scalar, base, offset, 0)
    code = encoded(row, base, scalar, offset, _imm(rng, row))
    if row.name == "ATOMIC_CMPXCHG32":  # Linux 6.18 does not always extend r0 (docs/differences.md)
        code += plain("MOV32_X", 0, 0)
    return code


def _step(rng: random.Random, left: int) -> bytes:
    """An instruction, or some that belong together; `left` are the steps behind it."""
    kind = rng.random()
    if kind < 0.05 and left > 4:  # equal in the low half, and mostly not in the upper one
        a, b = rng.sample(SCALARS, 2)
        row = rng.choice([row for row in BRANCHES if row.uses_src])
        return plain("MOV32_X", b, a) + encoded(row, a, b, rng.randrange(1, 4))
    if kind < 0.06:
        return divided_extremes(rng, *rng.sample(SCALARS, 2))
    if kind < 0.075:  # the low half, extended and scaled
        a, b = rng.sample(SCALARS, 2)
        down = plain(rng.choice(("RSH64_K", "ARSH64_K")), b, imm=rng.choice((32, 32, 31, 29)))
        return plain("MOV64_X", b, a) + plain("LSH64_K", b, imm=32) + down
    if kind < 0.6:
        row = rng.choice(ARITHMETIC)
        dst = rng.choice(SCALARS)
        return encoded(row, dst, dst if rng.random() < 0.1 else rng.choice(SCALARS), 0, _imm(rng, row))
    if kind < 0.8:
        row = rng.choice(BRANCHES)
        return encoded(
            row, rng.choice(SCALARS), rng.choice(SCALARS), rng.randrange(min(4, left)), _imm(rng, row)
        )
    return _access(rng, rng.choice(ACCESSES))


def _function(rng: random.Random) -> bytes:
    """A local function of r1 to r5 whose frame and r6 to r9 are its own."""
    rows = [row for row in ARITHMETIC if row.dst is Reg.UPDATE]
    code = copy(0, 1) + copy(7, 2) + copy(8, 3) + copy(9, 4)
    for _ in range(rng.randrange(1, 8)):
        row = rng.choice(rows)
        code += encoded(row, rng.choice((0, 1, 7, 8, 9)), rng.choice((0, 2, 3, 4, 5)), 0, _imm(rng, row))
    return code + EXIT


def program(rng: random.Random) -> tuple[bytes, bytes]:
    """Return bytecode, and memory for it."""
    start = copy(MEMORY_POINTER, 1)
    for index, register in enumerate(SCALARS):
        if rng.random() < 0.5:
            start += plain("LDXDW", register, MEMORY_POINTER, 8 * index)
        else:
            start += constant(register, rng.choice(WIDE_EDGES) & U64_MASK)
    steps = rng.randrange(1, 70)
    body = b"".join(_step(rng, steps - index) for index in range(steps))
    spilled = b"".join(plain("STXDW", MEMORY_POINTER, r, 8 * index) for index, r in enumerate(SCALARS))
    if rng.random() < 0.3:
        call = copy(1, 0) + plain("CALL_LOCAL", imm=4)
        saved = b"".join(plain("STXDW", MEMORY_POINTER, r, 8 * SCALARS.index(r)) for r in (7, 8, 9))
        body += spilled + call + saved + EXIT + _function(rng)
    else:
        body += spilled + EXIT
    words = [
        rng.choice((0, 0, *WIDE_EDGES)) & U64_MASK if rng.random() < 0.6 else rng.getrandbits(64)
        for _ in range(8)
    ]
    return start + body, b"".join(word.to_bytes(8, "little") for word in words)
