"""What each operation means: small pure functions over a width and unsigned operands.

Every function takes and returns unsigned integers, 0 <= x < 2**w.bits. The width is an argument so that
tests can run each one exhaustively at 4 bits. What the interpreter executes most wraps by `& w.mask`, which
is `w.wrap` without a call. RFC 9669, sections 4 and 5, unless cited.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence

from ebpfjit.bits import W8, W16, W32, W64, Width

Binary = Callable[[Width, int, int], int]
Unary = Callable[[Width, int], int]
Condition = Callable[[Width, int, int], bool]

BINARY: dict[str, Binary] = {}
UNARY: dict[str, Unary] = {}
MOVE: dict[str, Unary] = {}
CONDITION: dict[str, Condition] = {}
ATOMIC: dict[str, Binary] = {}


def alu(name: str) -> Callable[[Binary], Binary]:
    """Register the meaning of dst = dst `name` src."""

    def register(function: Binary) -> Binary:
        BINARY[name] = function
        return function

    return register


def condition(name: str) -> Callable[[Condition], Condition]:
    """Register the meaning of a comparison."""

    def register(function: Condition) -> Condition:
        CONDITION[name] = function
        return function

    return register


@alu("ADD")
def add(w: Width, dst: int, src: int) -> int:
    """Sum, wrapped."""
    return dst + src & w.mask


@alu("SUB")
def sub(w: Width, dst: int, src: int) -> int:
    """Difference, wrapped."""
    return dst - src & w.mask


@alu("MUL")
def mul(w: Width, dst: int, src: int) -> int:
    """Low half of the product."""
    return dst * src & w.mask


@alu("DIV")
def div(w: Width, dst: int, src: int) -> int:
    """Unsigned quotient; 0 where src is 0."""
    return dst // src if src else 0


@alu("SDIV")
def sdiv(w: Width, dst: int, src: int) -> int:
    """Signed quotient, truncated toward zero; 0 where src is 0; INT_MIN / -1 wraps to INT_MIN."""
    if src == 0:
        return 0
    a, b = w.signed(dst), w.signed(src)
    quotient = abs(a) // abs(b)
    return w.wrap(quotient if (a < 0) == (b < 0) else -quotient)


@alu("MOD")
def mod(w: Width, dst: int, src: int) -> int:
    """Unsigned remainder; dst where src is 0."""
    return dst % src if src else dst


@alu("SMOD")
def smod(w: Width, dst: int, src: int) -> int:
    """Signed remainder with the sign of dst; dst where src is 0; INT_MIN % -1 is 0."""
    if src == 0:
        return dst
    a, b = w.signed(dst), w.signed(src)
    remainder = abs(a) % abs(b)
    return w.wrap(-remainder if a < 0 else remainder)


@alu("OR")
def or_(w: Width, dst: int, src: int) -> int:
    """Bitwise or."""
    return dst | src


@alu("AND")
def and_(w: Width, dst: int, src: int) -> int:
    """Bitwise and."""
    return dst & src


@alu("XOR")
def xor(w: Width, dst: int, src: int) -> int:
    """Bitwise exclusive or."""
    return dst ^ src


@alu("LSH")
def lsh(w: Width, dst: int, src: int) -> int:
    """Shift left by src modulo the width."""
    return dst << (src % w.bits) & w.mask


@alu("RSH")
def rsh(w: Width, dst: int, src: int) -> int:
    """Logical shift right by src modulo the width."""
    return dst >> (src % w.bits)


@alu("ARSH")
def arsh(w: Width, dst: int, src: int) -> int:
    """Arithmetic shift right by src modulo the width."""
    return w.signed(dst) >> (src % w.bits) & w.mask


@alu("ROTATE")
def rotate(w: Width, dst: int, src: int) -> int:
    """Rotate left by src modulo the width; only optimised code does."""
    by = src % w.bits
    return w.wrap(dst << by) | dst >> (w.bits - by)


@alu("MULHI")
def mulhi(w: Width, dst: int, src: int) -> int:
    """High half of the product, unsigned; only optimised code does."""
    return dst * src >> w.bits


def sum_(w: Width, base: int, index: int, scale: int, offset: int) -> int:
    """An address, wrapped: base + index * scale + offset."""
    return w.wrap(base + index * scale + offset)


def mov(w: Width, src: int) -> int:
    """Copy."""
    return src & w.mask


def _movsx(source: Width) -> Unary:
    def movsx(w: Width, src: int) -> int:
        return w.wrap(source.signed(src))

    movsx.__doc__ = f"Sign-extend the low {source.bits} bits."
    return movsx


MOVE["MOV"] = mov
for _source in (W8, W16, W32):
    MOVE[f"MOVSX{_source.bits}"] = _movsx(_source)


def neg(w: Width, dst: int) -> int:
    """Two's complement negation."""
    return -dst & w.mask


def swap(source: Width, value: int) -> int:
    """Reverse the low bytes of `value`; the bytes above become zero."""
    return int.from_bytes(source.wrap(value).to_bytes(source.bytes, "little"), "big")


def _byte_order(source: Width, *, swaps: bool) -> Unary:
    def convert(w: Width, dst: int) -> int:
        return swap(source, dst) if swaps else source.wrap(dst)

    return convert


UNARY["NEG"] = neg
for _source in (W16, W32, W64):
    # Programs are little-endian here, so LE only truncates.
    UNARY[f"LE{_source.bits}"] = _byte_order(_source, swaps=False)
    UNARY[f"BE{_source.bits}"] = _byte_order(_source, swaps=True)
    UNARY[f"BSWAP{_source.bits}"] = _byte_order(_source, swaps=True)


@condition("JEQ")
def jeq(w: Width, dst: int, src: int) -> bool:
    """Equal."""
    return dst == src


@condition("JNE")
def jne(w: Width, dst: int, src: int) -> bool:
    """Not equal."""
    return dst != src


@condition("JSET")
def jset(w: Width, dst: int, src: int) -> bool:
    """Some bit in common."""
    return dst & src != 0


@condition("JGT")
def jgt(w: Width, dst: int, src: int) -> bool:
    """Unsigned greater."""
    return dst > src


@condition("JGE")
def jge(w: Width, dst: int, src: int) -> bool:
    """Unsigned greater or equal."""
    return dst >= src


@condition("JLT")
def jlt(w: Width, dst: int, src: int) -> bool:
    """Unsigned less."""
    return dst < src


@condition("JLE")
def jle(w: Width, dst: int, src: int) -> bool:
    """Unsigned less or equal."""
    return dst <= src


@condition("JSGT")
def jsgt(w: Width, dst: int, src: int) -> bool:
    """Signed greater."""
    return w.signed(dst) > w.signed(src)


@condition("JSGE")
def jsge(w: Width, dst: int, src: int) -> bool:
    """Signed greater or equal."""
    return w.signed(dst) >= w.signed(src)


@condition("JSLT")
def jslt(w: Width, dst: int, src: int) -> bool:
    """Signed less."""
    return w.signed(dst) < w.signed(src)


@condition("JSLE")
def jsle(w: Width, dst: int, src: int) -> bool:
    """Signed less or equal."""
    return w.signed(dst) <= w.signed(src)


# An atomic's meaning gives the new value in memory from the old one and src. CMPXCHG compares
# with r0 first, which the engine does.
def xchg(w: Width, memory: int, src: int) -> int:
    """Replace the value in memory."""
    return src


ATOMIC.update(ADD=add, OR=or_, AND=and_, XOR=xor, XCHG=xchg, CMPXCHG=xchg)


def reduced(w: Width, meaning: str, elements: Sequence[int], others: Sequence[int] = ()) -> int:
    """Return what elements are put together, at least one; "DOT": the sum of their products with `others`."""
    if meaning == "DOT":
        return w.wrap(sum(a * b for a, b in zip(elements, others, strict=True)))
    return functools.reduce(functools.partial(BINARY[meaning], w), elements)
