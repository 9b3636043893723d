"""What is known of a register: where its value comes from, and between which numbers it lies.

A value is a symbol plus a constant offset. Two registers with the same symbol differ by a constant
that is known, so an access through one says something about an access through the other:

    r2 = r1            r2 is  r1's symbol + 0
    r2 += 14           r2 is  r1's symbol + 14
    *(u8 *)(r2 + 9)    is     r1's symbol + 23, 1 byte

Besides, a scalar has bounds (unsigned), and a pointer into the stack has bounds of its distance
from r10. The rules for bounds are a table, one small function for each operation that keeps any.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum
from functools import lru_cache

from ebpfjit.bits import U64_MASK, W8, W16, W32, W64, Width
from ebpfjit.isa.spec import Row
from ebpfjit.record import record

Bounds = tuple[int, int]
"""Lowest and highest value, inclusive."""

ANY: Bounds = (0, U64_MASK)
FULL: dict[int, Bounds] = {64: ANY, 32: (0, W32.mask), 16: (0, W16.mask), 8: (0, W8.mask)}
"""The bounds of which nothing is known but the width in bits; always these very objects."""

SUMS = ("ADD", "SUB")
"""The operations that move a pointer."""

LARGEST_OFFSET = 1 << 30


class Origin(Enum):
    """What a value most likely addresses: which region a check looks at first."""

    SCALAR = "scalar"
    STACK = "stack"
    ARGUMENT = "argument"  # what r1 points to at the start: the packet, or the metadata buffer
    PACKET = "packet"
    MAP_VALUE = "map value"  # what a lookup found, or zero


MEASURED = (Origin.STACK, Origin.ARGUMENT)


@record
class Value:
    """What a register holds: `symbol` + `offset`, modulo 2**64.

    `symbol` is CONSTANT for a known number (`offset` is the number), FRAME for r10 of the running
    function, UNKNOWN where two values must not be taken for the same. `bounds` are those of the
    value itself for a scalar, and of its distance from r10 or from the argument's start for a
    pointer that is MEASURED (None: not known); they say nothing of other pointers. `index` (symbol and
    offset) is what the pointer's symbol is behind the argument's start, where that is known.
    """

    symbol: int
    offset: int
    origin: Origin = Origin.SCALAR
    bounds: Bounds | None = ANY
    index: tuple[int, int] | None = None


def join_symbol(pc: int, register: int) -> int:
    """Return the symbol of a register at the start of a block where paths bring different values."""
    return 32 * pc + 2 * register + 3  # odd, from 3 on


CONSTANT = 0  # symbols that accesses are remembered by are greater
FRAME = -1
UNKNOWN = -2
ANYTHING = Value(UNKNOWN, 0)
FRAME_VALUE = Value(FRAME, 0, Origin.STACK, (0, 0))


@lru_cache(4096)
def constant(value: int) -> Value:
    """Return the value of a known number (u64)."""
    return Value(CONSTANT, value, Origin.SCALAR, (value, value))


def _add(w: Width, a: Bounds, b: Bounds) -> Bounds | None:
    return (a[0] + b[0], a[1] + b[1]) if a[1] + b[1] <= w.mask else None


def _sub(w: Width, a: Bounds, b: Bounds) -> Bounds | None:
    return (a[0] - b[1], a[1] - b[0]) if a[0] >= b[1] else None


def _mul(w: Width, a: Bounds, b: Bounds) -> Bounds | None:
    return (a[0] * b[0], a[1] * b[1]) if a[1] * b[1] <= w.mask else None


def _and(w: Width, a: Bounds, b: Bounds) -> Bounds | None:
    return 0, min(a[1], b[1])


def _or(w: Width, a: Bounds, b: Bounds) -> Bounds | None:
    return max(a[0], b[0]), (1 << max(a[1].bit_length(), b[1].bit_length())) - 1


def _xor(w: Width, a: Bounds, b: Bounds) -> Bounds | None:
    return 0, (1 << max(a[1].bit_length(), b[1].bit_length())) - 1


def _lsh(w: Width, a: Bounds, b: Bounds) -> Bounds | None:
    if b[0] != b[1] or a[1] << (b[0] % w.bits) > w.mask:
        return None
    return a[0] << (b[0] % w.bits), a[1] << (b[0] % w.bits)


def _rsh(w: Width, a: Bounds, b: Bounds) -> Bounds | None:
    if b[0] != b[1]:
        return 0, a[1]
    return a[0] >> (b[0] % w.bits), a[1] >> (b[0] % w.bits)


def _div(w: Width, a: Bounds, b: Bounds) -> Bounds | None:
    return (a[0] // b[1], a[1] // b[0]) if b[0] else (0, a[1])


def _mod(w: Width, a: Bounds, b: Bounds) -> Bounds | None:
    return (0, min(a[1], b[1] - 1)) if b[0] else (0, a[1])


BOUNDS: dict[str, Callable[[Width, Bounds, Bounds], Bounds | None]] = {
    "ADD": _add,
    "SUB": _sub,
    "MUL": _mul,
    "AND": _and,
    "OR": _or,
    "XOR": _xor,
    "LSH": _lsh,
    "RSH": _rsh,
    "DIV": _div,
    "MOD": _mod,
}
"""Bounds of dst op src from the bounds of both, at the width; None where nothing is known."""


def at_width(w: Width, bounds: Bounds | None) -> Bounds:
    """Return the bounds of the low part of a value with these bounds."""
    return bounds if bounds is not None and bounds[1] <= w.mask else FULL[w.bits]


def bounds_of(row: Row, dst: Value, src: Value) -> Bounds:
    """Return the bounds of what a BINARY row makes of two values."""
    full = FULL[row.width.bits]
    a = at_width(row.width, dst.bounds) if dst.origin is Origin.SCALAR else full
    b = at_width(row.width, src.bounds) if src.origin is Origin.SCALAR else full
    if a is full and b is full:
        return full
    rule = BOUNDS.get(row.meaning)
    bounds = rule(row.width, a, b) if rule is not None else None
    return bounds if bounds is not None else full


def loaded_bounds(row: Row) -> Bounds:
    """Return the bounds of what a LOAD row reads."""
    return ANY if row.signed or row.size == 8 else (0, row.width.mask)


def moved(dst: Value, src: Value, meaning: str) -> Value | None:
    """Return dst plus or minus a constant, as the same symbol with another offset."""
    if src.symbol == CONSTANT and dst.symbol != CONSTANT:
        base, by = dst, W64.signed(src.offset)
    elif dst.symbol == CONSTANT and src.symbol != CONSTANT and meaning == "ADD":
        base, by = src, W64.signed(dst.offset)
    else:
        return None
    by = by if meaning == "ADD" else -by
    offset = base.offset + by
    if abs(offset) > LARGEST_OFFSET:
        return None
    bounds = base.bounds
    if bounds is not None:
        bounds = bounds[0] + by, bounds[1] + by
        if base.origin not in MEASURED and not 0 <= bounds[0] <= bounds[1] <= U64_MASK:
            bounds = ANY
    return Value(base.symbol, offset, base.origin, bounds, base.index)


def moved_bounds(pointer: Value, scalar: Value, meaning: str) -> Bounds | None:
    """Return the bounds of a pointer plus or minus a scalar."""
    by = scalar.bounds
    if pointer.origin not in MEASURED:
        return ANY
    if pointer.bounds is None or by is None or by[1] > LARGEST_OFFSET:
        return None
    low, high = by if meaning == "ADD" else (-by[1], -by[0])
    bounds = pointer.bounds[0] + low, pointer.bounds[1] + high
    return bounds if abs(bounds[0]) <= LARGEST_OFFSET and abs(bounds[1]) <= LARGEST_OFFSET else None


def _upper(limit: Callable[[int], int]) -> Callable[[Bounds, int], Bounds | None]:
    def refine(bounds: Bounds, imm: int) -> Bounds | None:
        high = min(bounds[1], limit(imm))
        return (bounds[0], high) if bounds[0] <= high else None

    return refine


def _lower(limit: Callable[[int], int]) -> Callable[[Bounds, int], Bounds | None]:
    def refine(bounds: Bounds, imm: int) -> Bounds | None:
        low = max(bounds[0], limit(imm))
        return (low, bounds[1]) if low <= bounds[1] else None

    return refine


def _exactly(bounds: Bounds, imm: int) -> Bounds | None:
    return (imm, imm) if bounds[0] <= imm <= bounds[1] else None


_below, _at_most = _upper(lambda imm: imm - 1), _upper(lambda imm: imm)
_above, _at_least = _lower(lambda imm: imm + 1), _lower(lambda imm: imm)

#            condition  (bounds where it holds, bounds where it does not)
REFINEMENTS: dict[str, tuple[Callable[[Bounds, int], Bounds | None] | None, ...]] = {
    "JEQ": (_exactly, None),
    "JNE": (None, _exactly),
    "JGT": (_above, _at_most),
    "JGE": (_at_least, _below),
    "JLT": (_below, _at_least),
    "JLE": (_at_most, _above),
}
