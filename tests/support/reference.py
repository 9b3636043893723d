"""What RFC 9669 says each operation does, written from its text and not from `isa.semantics`.

Operands and results are bit patterns: 0 <= x < 2**bits. Signed numbers are taken apart and put
together by arithmetic on exact fractions, never by the masks that the library uses.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from fractions import Fraction

Operation = Callable[[int, int, int], int]
Test = Callable[[int, int, int], bool]


def number(bits: int, pattern: int) -> int:
    """Read a pattern as a two's complement number: the top bit counts -2**(bits - 1)."""
    half = 2 ** (bits - 1)
    return pattern % half - (half if pattern // half % 2 else 0)


def pattern(bits: int, value: int) -> int:
    """Wrap: "the 64-bit or 32-bit value will wrap" (4.1)."""
    return value % 2**bits


def _bitwise(bits: int, a: int, b: int, truth: Callable[[bool, bool], bool]) -> int:
    return sum(2**i for i in range(bits) if truth(bool(a // 2**i % 2), bool(b // 2**i % 2)))


def _count(bits: int, b: int) -> int:
    """A shift's count: "a mask of 0x3F (63) for 64-bit operations and 0x1F (31) for 32-bit" (4.1)."""
    return {64: b & 0x3F, 32: b & 0x1F, 4: b & 0x3}[bits]


def _signed_divide(bits: int, a: int, b: int) -> int:
    if b == 0:
        return 0
    return pattern(bits, math.trunc(Fraction(number(bits, a), number(bits, b))))


def _signed_modulo(bits: int, a: int, b: int) -> int:
    """A % n = a - n * trunc(a / n)."""
    if b == 0:
        return a
    dividend, divisor = number(bits, a), number(bits, b)
    return pattern(bits, dividend - divisor * math.trunc(Fraction(dividend, divisor)))


ARITHMETIC: dict[str, Operation] = {
    "ADD": lambda bits, a, b: pattern(bits, a + b),
    "SUB": lambda bits, a, b: pattern(bits, a + 2**bits - b),
    "MUL": lambda bits, a, b: pattern(bits, number(bits, a) * number(bits, b)),
    "DIV": lambda bits, a, b: math.floor(Fraction(a, b)) if b else 0,
    "SDIV": _signed_divide,
    "MOD": lambda bits, a, b: a - b * math.floor(Fraction(a, b)) if b else a,
    "SMOD": _signed_modulo,
    "OR": lambda bits, a, b: _bitwise(bits, a, b, lambda x, y: x or y),
    "AND": lambda bits, a, b: _bitwise(bits, a, b, lambda x, y: x and y),
    "XOR": lambda bits, a, b: _bitwise(bits, a, b, lambda x, y: x != y),
    "LSH": lambda bits, a, b: pattern(bits, a * 2 ** _count(bits, b)),
    "RSH": lambda bits, a, b: math.floor(Fraction(a, 2 ** _count(bits, b))),
    "ARSH": lambda bits, a, b: pattern(bits, math.floor(Fraction(number(bits, a), 2 ** _count(bits, b)))),
    "MULHI": lambda bits, a, b: math.floor(Fraction(a * b, 2**bits)),
    "ROTATE": lambda bits, a, b: pattern(bits, a * 2 ** _count(bits, b)) + a // 2 ** (bits - _count(bits, b)),
}
"""RFC 9669, 4.1: dst and src give the new dst."""

COMPARISONS: dict[str, Test] = {
    "JEQ": lambda bits, a, b: pattern(bits, a - b) == 0,
    "JNE": lambda bits, a, b: pattern(bits, a - b) != 0,
    "JSET": lambda bits, a, b: _bitwise(bits, a, b, lambda x, y: x and y) != 0,
    "JGT": lambda bits, a, b: a - b > 0,
    "JGE": lambda bits, a, b: a - b >= 0,
    "JLT": lambda bits, a, b: b - a > 0,
    "JLE": lambda bits, a, b: b - a >= 0,
    "JSGT": lambda bits, a, b: number(bits, a) - number(bits, b) > 0,
    "JSGE": lambda bits, a, b: number(bits, a) - number(bits, b) >= 0,
    "JSLT": lambda bits, a, b: number(bits, b) - number(bits, a) > 0,
    "JSLE": lambda bits, a, b: number(bits, b) - number(bits, a) >= 0,
}
"""RFC 9669, 4.3: whether the jump is taken."""


def negate(bits: int, a: int) -> int:
    """Dst = -dst."""
    return pattern(bits, -a)


def sign_extend(bits: int, source_bits: int, a: int) -> int:
    """Copy the low bits, "set the remaining bits to the value of the most-significant bit" (2.3)."""
    low = a % 2**source_bits
    fill = 2**bits - 2**source_bits if low >= 2 ** (source_bits - 1) else 0
    return low + fill


def swap(bits: int, a: int) -> int:
    """Bswap16, bswap32, bswap64 of the low bits; the others become zero (4.2)."""
    octets = [a // 256**i % 256 for i in range(bits // 8)]
    return sum(octet * 256 ** (len(octets) - 1 - i) for i, octet in enumerate(octets))


def truncate(bits: int, a: int) -> int:
    """Htole16, htole32, htole64 on a little-endian host: a u16, u32 or u64 remains (4.2)."""
    return a % 2**bits


ATOMIC_UPDATES = {"ADD": "ADD", "OR": "OR", "AND": "AND", "XOR": "XOR"}


def atomic(bits: int, name: str, memory: int, src: int, r0: int) -> tuple[int, int, int]:
    """Return what memory, a fetched register and r0 are afterwards; operands are `bits` wide (5.3).

    CMPXCHG leaves src alone; the others leave r0 alone (returned as given).
    """
    if name == "CMPXCHG":
        return (src if memory == r0 else memory), src, memory
    if name == "XCHG":
        return src, memory, r0
    return ARITHMETIC[name](bits, memory, src), memory, r0


def edges(bits: int) -> list[int]:
    """Patterns where mistakes show: 0, 1, -1, INT_MIN, INT_MAX, powers of two, shift counts."""
    powers = {2**i for i in range(bits)}
    around = {*powers, *(p - 1 for p in powers), *(p + 1 for p in powers)}
    signs = {pattern(bits, -p) for p in around}
    return sorted({pattern(bits, x) for x in {*around, *signs, bits - 1, bits, bits + 1, 2 * bits}})
