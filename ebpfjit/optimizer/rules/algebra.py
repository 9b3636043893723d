"""What operations with constants come to: small functions over a width, in tables by meaning.

Constants are unsigned, 0 <= k < 2**bits. A function returns the meaning (`isa.semantics.BINARY`) and constant
that do the same, or one of

    (SAME, 0)        the first operand
    (CONSTANT, k)    k, whatever the operand is
    (NEGATED, 0)     minus the operand
    (SIGNED, n)      the low n bits with their sign
    (UNSIGNED, n)    the low n bits

and None where there is nothing better. Nothing here depends on the width being 32 or 64.
"""

from __future__ import annotations

from collections.abc import Callable

from ebpfjit.bits import Width

Simpler = tuple[str, int]
SAME, CONSTANT, NEGATED, SIGNED, UNSIGNED = "same", "constant", "negated", "signed", "unsigned"
ITSELF: Simpler = (SAME, 0)
NOTHING: Simpler = (CONSTANT, 0)

COMMUTATIVE = frozenset({"ADD", "MUL", "OR", "AND", "XOR"})
"""Operations whose operands may be exchanged."""

OF_ITSELF: dict[str, Simpler] = {"SUB": NOTHING, "XOR": NOTHING, "AND": ITSELF, "OR": ITSELF}
"""What x op x is."""


def _shift_of(k: int) -> int:
    """Return which power of two k is, -1 where it is none."""
    return k.bit_length() - 1 if k and not k & (k - 1) else -1


def _subtract(w: Width, k: int) -> Simpler | None:
    return ("ADD", w.wrap(-k))


def _multiply(w: Width, k: int) -> Simpler | None:
    if k == 0:
        return NOTHING
    if k == w.mask:
        return (NEGATED, 0)
    shift = _shift_of(k)
    return None if shift < 0 else ("LSH", shift)


def _divide(w: Width, k: int) -> Simpler | None:
    if k == 0:
        return NOTHING
    shift = _shift_of(k)
    return None if shift < 0 else ("RSH", shift)


def _remain(w: Width, k: int) -> Simpler | None:
    if k == 0:
        return ITSELF
    return None if _shift_of(k) < 0 else ("AND", k - 1)


def _divide_signed(w: Width, k: int) -> Simpler | None:
    return {0: NOTHING, 1: ITSELF, w.mask: (NEGATED, 0)}.get(k)


def _remain_signed(w: Width, k: int) -> Simpler | None:
    return {0: ITSELF, 1: NOTHING, w.mask: NOTHING}.get(k)


def _shift(w: Width, k: int) -> Simpler | None:
    return None if k % w.bits else ITSELF


#   meaning  with a constant
WITH_CONSTANT: dict[str, Callable[[Width, int], Simpler | None]] = {
    "ADD": lambda w, k: None if k else ITSELF,
    "SUB": _subtract,
    "MUL": _multiply,
    "DIV": _divide,
    "SDIV": _divide_signed,
    "MOD": _remain,
    "SMOD": _remain_signed,
    "OR": lambda w, k: {0: ITSELF, w.mask: (CONSTANT, w.mask)}.get(k),
    "AND": lambda w, k: {0: NOTHING, w.mask: ITSELF}.get(k),
    "XOR": lambda w, k: None if k else ITSELF,
    "LSH": _shift,
    "RSH": _shift,
    "ARSH": _shift,
    "ROTATE": _shift,
}


def _shifted(meaning: str) -> Callable[[Width, int, int], Simpler | None]:
    def both(w: Width, j: int, k: int) -> Simpler:
        by = j % w.bits + k % w.bits
        return (meaning, by) if by < w.bits else NOTHING

    return both


def _shifted_signed(w: Width, j: int, k: int) -> Simpler:
    return ("ARSH", min(j % w.bits + k % w.bits, w.bits - 1))


def _low_part(w: Width, j: int, k: int) -> Simpler | None:
    """(x << j) >> k: the low bits where both are the same."""
    return (UNSIGNED, w.bits - j % w.bits) if j % w.bits == k % w.bits else None


def _signed_part(w: Width, j: int, k: int) -> Simpler | None:
    """(x << j) s>> k."""
    return (SIGNED, w.bits - j % w.bits) if j % w.bits == k % w.bits else None


def _high_part(w: Width, j: int, k: int) -> Simpler | None:
    """(x >> j) << k: the high bits where both are the same."""
    return ("AND", w.wrap(w.mask << k % w.bits)) if j % w.bits == k % w.bits else None


#    first   then     with constants j, k
CHAINS: dict[tuple[str, str], Callable[[Width, int, int], Simpler | None]] = {
    ("ADD", "ADD"): lambda w, j, k: ("ADD", w.wrap(j + k)),
    ("MUL", "MUL"): lambda w, j, k: ("MUL", w.wrap(j * k)),
    ("LSH", "MUL"): lambda w, j, k: ("MUL", w.wrap(k << j % w.bits)),
    ("MUL", "LSH"): lambda w, j, k: ("MUL", w.wrap(j << k % w.bits)),
    ("AND", "AND"): lambda w, j, k: ("AND", j & k),
    ("OR", "OR"): lambda w, j, k: ("OR", j | k),
    ("XOR", "XOR"): lambda w, j, k: ("XOR", j ^ k),
    ("LSH", "LSH"): _shifted("LSH"),
    ("RSH", "RSH"): _shifted("RSH"),
    ("ARSH", "ARSH"): _shifted_signed,
    ("LSH", "RSH"): _low_part,
    ("LSH", "ARSH"): _signed_part,
    ("RSH", "LSH"): _high_part,
    ("ROTATE", "ROTATE"): lambda w, j, k: ("ROTATE", (j + k) % w.bits),
}
"""What an operation with a constant is behind another one."""

#   meaning  how many low bits at most are not 0, where of x they are n
BITS: dict[str, Callable[[Width, int, int], int]] = {
    "ADD": lambda w, n, k: max(n, k.bit_length()) + 1,
    "MUL": lambda w, n, k: n + k.bit_length(),
    "DIV": lambda w, n, k: n,
    "MOD": lambda w, n, k: min(n, k.bit_length()) if k else n,
    "OR": lambda w, n, k: max(n, k.bit_length()),
    "XOR": lambda w, n, k: max(n, k.bit_length()),
    "AND": lambda w, n, k: min(n, k.bit_length()),
    "LSH": lambda w, n, k: n + k % w.bits,
    "RSH": lambda w, n, k: max(n - k % w.bits, 0),
}
"""With a constant k; what is above the width is the width."""

#   meaning  the same, where of the other operand they are m
BITS_OF_TWO: dict[str, Callable[[int, int], int]] = {
    "ADD": lambda n, m: max(n, m) + 1,
    "MUL": lambda n, m: n + m,
    "DIV": lambda n, m: n,
    "MOD": lambda n, m: n,
    "OR": max,
    "XOR": max,
    "AND": min,
    "RSH": lambda n, m: n,
}


#   meaning  with a constant k, where only the low n bits of x may be not 0
OF_FEW_BITS: dict[str, Callable[[Width, int, int], Simpler | None]] = {
    "AND": lambda w, n, k: None if ~k & ((1 << n) - 1) else ITSELF,
    "RSH": lambda w, n, k: NOTHING if k % w.bits >= n else None,
    "DIV": lambda w, n, k: NOTHING if k >> n else None,
    "MOD": lambda w, n, k: ITSELF if k >> n else None,
    "ARSH": lambda w, n, k: ("RSH", k % w.bits) if n < w.bits else None,
}


def of_few_bits_shifted(w: Width, n: int, j: int, k: int) -> Simpler | None:
    """Return what (x << j) >> k comes to where only the low n bits of x may be not 0: nothing is lost."""
    left, right = j % w.bits, k % w.bits
    if n + left > w.bits:
        return None
    if left == right:
        return ITSELF
    return ("LSH", left - right) if left > right else ("RSH", right - left)
