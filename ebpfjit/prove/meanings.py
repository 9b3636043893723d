"""What rows mean, of symbolic numbers: `isa.semantics` at a row's width, without forks where it has signs."""

from __future__ import annotations

from ebpfjit.isa import semantics
from ebpfjit.isa.spec import Kind, Row
from ebpfjit.prove.symbolic import Integer, SymbolicWidth, Truth

WIDTHS = {bits: SymbolicWidth(bits) for bits in (8, 16, 32, 64)}


def result_of(row: Row, a: Integer, b: Integer) -> Integer | Truth:
    """Return what an instruction makes of dst and of src or imm; of a jump, whether it is taken."""
    w = WIDTHS[row.width.bits]
    a, b = w.wrap(a), w.wrap(b)
    match row.kind:
        case Kind.BINARY:
            return semantics.BINARY[row.meaning](w, a, b)
        case Kind.MOVE:
            return moved(row, b)
        case Kind.UNARY:
            return negated_or_swapped(row, a)
        case _:
            return semantics.CONDITION[row.meaning](w, a, b)


def moved(row: Row, value: Integer) -> Integer:
    """Return what a move makes, its sign without a fork."""
    w = WIDTHS[row.width.bits]
    if row.meaning == "MOV":
        return semantics.mov(w, value)
    return w.wrap(SymbolicWidth(int(row.meaning.removeprefix("MOVSX"))).signed(value))


def negated_or_swapped(row: Row, value: Integer) -> Integer:
    """Return what a unary operation makes; `semantics.swap` says it with bytes, which no number has."""
    if row.meaning == "NEG":
        return semantics.neg(WIDTHS[row.width.bits], value)
    size = int(row.meaning.lstrip("BELSWAP")) // 8
    return value & (1 << 8 * size) - 1 if row.meaning.startswith("LE") else swapped(size, value)


def swapped(size: int, value: Integer) -> Integer:
    """Return a number of so many bytes in the other order; a test holds it against `semantics.swap`."""
    parts = [(value >> 8 * place & 0xFF) << 8 * (size - 1 - place) for place in range(size)]
    found = parts[0]
    for part in parts[1:]:
        found = found | part
    return found
