"""What is known of numbers in relation to the length of the memory behind r1, where r2 is that length.

    jge r3, r2, out        behind it: r3 + 1 <= length
    r4 = r1;  r4 += r3     r4 is the argument's start plus r3's symbol
    r0 = *(u8 *)(r4 + 0)   lies inside

For a symbol s the largest k is kept with s + k <= length, as plain integers: nothing wraps. The length
itself has 0, and under CONSTANT stands the least that the length can be.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from ebpfjit.analysis.values import CONSTANT, LARGEST_OFFSET, Origin, Value, constant
from ebpfjit.bits import U64_MASK, W64
from ebpfjit.isa.spec import Row
from ebpfjit.program import Instruction

Limits = dict[int, int]
"""By symbol; empty where r2 is not known to be the length."""

LARGEST_LENGTH = 1 << 40  # of what is written down; anything longer is longer than that

ZERO, ONE = constant(0), constant(1)

#                     dst ? src where it holds, and where it does not
RELATIONS: dict[str, tuple[str, str]] = {
    "JLT": ("<", ">="),
    "JLE": ("<=", ">"),
    "JGT": (">", "<="),
    "JGE": (">=", "<"),
    "JEQ": ("==", "!="),
    "JNE": ("!=", "=="),
}


def start(length: int) -> Limits:
    """Return what is known at the start; `length` is the symbol of r2."""
    return {CONSTANT: 0, length: 0}


def limit_of(limits: Limits, value: Value) -> int | None:
    """Return a k with value + k <= length, None where there is none."""
    if value.origin is not Origin.SCALAR:
        return None
    if value.symbol == CONSTANT:
        return limits[CONSTANT] - value.offset if value.offset < LARGEST_LENGTH else None
    known = limits.get(value.symbol)
    # Below its symbol a value may be below zero, which is a large number.
    return None if known is None or value.offset < 0 else known - value.offset


def learnt(
    limits: Limits, registers: Sequence[Value], insn: Instruction, row: Row, *, holds: bool
) -> Limits | None:
    """Return the limits behind a comparison that held, or did not; None where that tells nothing."""
    relation = RELATIONS[row.meaning][0 if holds else 1]
    if row.width is not W64:
        return None
    a = registers[insn.dst_reg]
    b = registers[insn.src_reg] if row.uses_src else constant(insn.imm & U64_MASK)
    if relation == "!=":
        return _bounded(limits, registers, ONE, a, 0) if b == ZERO else None
    if relation in (">", ">="):
        a, b = b, a
    least = 1 if relation in ("<", ">") else 0
    found = _bounded(limits, registers, a, b, least)
    if found is None and relation == "==":
        return _bounded(limits, registers, b, a, least)
    return found


def _bounded(
    limits: Limits, registers: Sequence[Value], lower: Value, upper: Value, least: int
) -> Limits | None:
    """Return the limits where lower + least <= upper."""
    known = limit_of(limits, upper) if upper.symbol != CONSTANT else None
    if known is None or lower.origin is not Origin.SCALAR or lower.symbol < CONSTANT:
        return None
    symbol, offset = lower.symbol, lower.offset
    if symbol == CONSTANT and offset >= LARGEST_LENGTH:
        return None
    # The number is small, so symbol + offset has not wrapped below zero, where it would be large.
    if symbol != CONSTANT and offset > 0 and symbol not in limits and not _is_small(registers, symbol):
        return None
    limit = offset + least + known
    if abs(limit) > LARGEST_OFFSET or limit <= limits.get(symbol, limit - 1):
        return None
    return {**limits, symbol: limit}


def _is_small(registers: Sequence[Value], symbol: int) -> bool:
    """True where a register shows that a symbol is far from wrapping."""
    return any(
        value.symbol == symbol
        and value.origin is Origin.SCALAR
        and not value.offset
        and value.bounds is not None
        and value.bounds[1] >> 63 == 0
        for value in registers
    )


def is_within(limits: Limits, length: int, pointer: Value, offset: int, size: int) -> bool:
    """True where `size` bytes at a pointer into the argument plus `offset` lie inside."""
    bounds, index = pointer.bounds, pointer.index
    if bounds is not None and bounds[0] + offset >= 0 and bounds[1] + offset + size <= limits[CONSTANT]:
        return True
    if index is None:
        return False
    symbol, first = index[0], index[1] + pointer.offset + offset
    known = limits.get(symbol)
    if known is None or first + size > known:
        return False
    return first >= 0 or (symbol == length and -first <= limits[CONSTANT])


def joined(
    old: Limits,
    new: Limits,
    values: Iterable[tuple[int, Value, Value]],
    own: range,
    *,
    widen: bool,
) -> Limits:
    """Return what is known where two paths meet.

    `values` are the registers that have a symbol of the block: that symbol, and what they hold on
    either path; `own` are all symbols that the block may give, which mean something else from here on.
    With `widen`, what is less than it was is forgotten.
    """
    limits = {
        symbol: min(limit, new[symbol])
        for symbol, limit in old.items()
        if symbol in new and symbol not in own
    }
    for symbol, a, b in values:
        right = limit_of(new, b)
        if right is None or right < 0:
            continue  # what may be above the length is not followed any further
        left = right if b is a and new is old else limit_of(old, a)
        if left is not None and left >= 0:
            limits[symbol] = min(left, right)
    if widen:
        limits = {s: limit for s, limit in limits.items() if limit >= old.get(s, limit)}
        limits.setdefault(CONSTANT, 0)
    return limits
