"""What is known of a number: known bits, and ranges at both widths, unsigned and signed.

    r1 = *(u8 *)(r2 + 0)     umin 0   umax 255   smin 0   smax 255   bits ........xxxxxxxx
    r1 &= 0xf0               umin 0   umax 240                       bits ........xxxx0000

The abstract domain of Linux's verifier. Rules for unsigned ranges are the optimizer's
(`optimizer.intervals`); those for known bits and signed ranges are here. All are over widths, so that tests
try each at few bits, whole.
"""

from __future__ import annotations

from collections.abc import Callable

from ebpfjit.bits import Width
from ebpfjit.isa import semantics
from ebpfjit.optimizer import intervals
from ebpfjit.optimizer.intervals import Interval

Bits = tuple[int, int]
"""Known bits: the value of those that are known, and a mask of those that are not."""


# -- known bits -------------------------------------------------------------------------------------------


def _add(w: Width, a: Bits, b: Bits) -> Bits:
    value = a[0] + b[0]
    carried = (value + a[1] + b[1] ^ value) | a[1] | b[1]
    return value & ~carried & w.mask, carried & w.mask


def _sub(w: Width, a: Bits, b: Bits) -> Bits:
    difference = a[0] - b[0] & w.mask
    borrowed = (difference + a[1] & w.mask ^ difference - b[1] & w.mask) | a[1] | b[1]
    return difference & ~borrowed & w.mask, borrowed & w.mask


def _mul(w: Width, a: Bits, b: Bits) -> Bits:
    """Low bits: those known of both from the lowest on; and the zeros below both."""
    known = intervals.zeros_of(a[1] | b[1], w.bits)
    zeros = intervals.zeros_of(a[0] | a[1], w.bits) + intervals.zeros_of(b[0] | b[1], w.bits)
    product, sure = a[0] * b[0], max(known, min(zeros, w.bits))
    mask = w.mask & ~((1 << sure) - 1)
    return product & ~mask & w.mask, mask


def _and(w: Width, a: Bits, b: Bits) -> Bits:
    ones = a[0] & b[0]
    return ones, (a[0] | a[1]) & (b[0] | b[1]) & ~ones


def _or(w: Width, a: Bits, b: Bits) -> Bits:
    ones = a[0] | b[0]
    return ones, (a[1] | b[1]) & ~ones


def _xor(w: Width, a: Bits, b: Bits) -> Bits:
    mask = a[1] | b[1]
    return (a[0] ^ b[0]) & ~mask, mask


def _any(w: Width, a: Bits, b: Bits) -> Bits:
    return 0, w.mask


def _lsh(w: Width, a: Bits, b: Bits) -> Bits:
    by = b[0] % w.bits
    return (a[0] << by & w.mask, a[1] << by & w.mask) if not b[1] else (0, w.mask)


def _rsh(w: Width, a: Bits, b: Bits) -> Bits:
    by = b[0] % w.bits
    return (a[0] >> by, a[1] >> by) if not b[1] else (0, w.mask)


def _arsh(w: Width, a: Bits, b: Bits) -> Bits:
    by = b[0] % w.bits
    if b[1]:
        return 0, w.mask
    value, mask = (w.signed(each) >> by & w.mask for each in a)
    return value & ~mask, mask


BITS: dict[str, Callable[[Width, Bits, Bits], Bits]] = {
    "ADD": _add,
    "SUB": _sub,
    "MUL": _mul,
    "AND": _and,
    "OR": _or,
    "XOR": _xor,
    "LSH": _lsh,
    "RSH": _rsh,
    "ARSH": _arsh,
}
"""The known bits of dst op src, by meaning; of others nothing is known."""


def _least(value: int, mask: int, bound: int) -> int:
    """Return the least number of these known bits from `bound` on; a larger one where there is none."""
    found = value | bound & mask
    if found == bound:
        return found
    place = (found ^ bound).bit_length() - 1  # here they differ first
    below = (1 << place) - 1
    if found > bound:
        return found & ~below | value & below
    known = ~mask & (1 << mask.bit_length()) - 1  # a carry goes through these
    raised = (found & mask | known | below | 1 << place) + 1
    return raised & mask | value if raised < 1 << mask.bit_length() else (value | mask) + 1


def between(low: int, high: int) -> Bits:
    """Return the bits that all numbers from `low` to `high` share."""
    mask = (1 << (low ^ high).bit_length()) - 1
    return low & ~mask, mask


# -- signed ranges ----------------------------------------------------------------------------------------


def _fitting(w: Width, *corners: int) -> Interval:
    low, high, half = min(corners), max(corners), 1 << w.bits - 1
    return (low, high) if -half <= low and high < half else (-half, half - 1)


def _signed_lsh(w: Width, a: Interval, b: Interval) -> Interval:
    if b[0] != b[1]:
        return _fitting(w, -w.mask)
    by = (b[0] & w.mask) % w.bits
    return _fitting(w, a[0] << by, a[1] << by)


def _signed_arsh(w: Width, a: Interval, b: Interval) -> Interval:
    if b[0] != b[1]:
        return min(a[0], 0), max(a[1], 0)
    by = (b[0] & w.mask) % w.bits
    return a[0] >> by, a[1] >> by


def _signed_div(w: Width, a: Interval, b: Interval) -> Interval:
    most = max(abs(a[0]), abs(a[1]))
    return _fitting(w, -most if a[0] < 0 or b[0] < 0 else 0, most)


def _signed_mod(w: Width, a: Interval, b: Interval) -> Interval:
    return min(a[0], 0), max(a[1], 0)


SIGNED: dict[str, Callable[[Width, Interval, Interval], Interval]] = {
    "ADD": lambda w, a, b: _fitting(w, a[0] + b[0], a[1] + b[1]),
    "SUB": lambda w, a, b: _fitting(w, a[0] - b[1], a[1] - b[0]),
    "MUL": lambda w, a, b: _fitting(w, a[0] * b[0], a[0] * b[1], a[1] * b[0], a[1] * b[1]),
    "LSH": _signed_lsh,
    "ARSH": _signed_arsh,
    "SDIV": _signed_div,
    "SMOD": _signed_mod,
}
"""The signed range of dst op src, by meaning, from signed ranges; of others nothing is known."""

LOW_HALF = frozenset({"ADD", "SUB", "MUL", "AND", "OR", "XOR"})
"""Operations of which the low half of the result follows from the low halves."""


# -- numbers ----------------------------------------------------------------------------------------------


class Number:
    """What is known of one number; not to be changed.

    `value` and `mask` are its known bits. It lies in `umin` to `umax`, as signed in `smin` to `smax`; its low
    half, as a number of its own, in `umin32` to `umax32` and `smin32` to `smax32`.
    """

    __slots__ = ("mask", "smax", "smax32", "smin", "smin32", "umax", "umax32", "umin", "umin32", "value")

    def __init__(
        self, value: int, mask: int, umin: int, umax: int, smin: int, smax: int,
        umin32: int, umax32: int, smin32: int, smax32: int,
    ) -> None:  # fmt: skip
        self.value = value
        self.mask = mask
        self.umin = umin
        self.umax = umax
        self.smin = smin
        self.smax = smax
        self.umin32 = umin32
        self.umax32 = umax32
        self.smin32 = smin32
        self.smax32 = smax32

    @property
    def is_known(self) -> bool:
        """True where it is one number."""
        return not self.mask

    def has(self, number: int, domain: Domain) -> bool:
        """True where it may be `number` (unsigned)."""
        low = number & domain.half.mask
        return (
            number & ~self.mask == self.value
            and self.umin <= number <= self.umax
            and self.smin <= domain.full.signed(number) <= self.smax
            and self.umin32 <= low <= self.umax32
            and self.smin32 <= domain.half.signed(low) <= self.smax32
        )

    def within(self, other: Number) -> bool:
        """True where all that it may be `other` may be, too."""
        return self is other or (
            other.umin <= self.umin
            and self.umax <= other.umax
            and other.smin <= self.smin
            and self.smax <= other.smax
            and other.umin32 <= self.umin32
            and self.umax32 <= other.umax32
            and other.smin32 <= self.smin32
            and self.smax32 <= other.smax32
            and not self.mask & ~other.mask
            and self.value & ~other.mask == other.value
        )

    def fields(self) -> tuple[int, ...]:
        """Return all that is known, in the order of `Domain.number`."""
        return (
            self.value, self.mask, self.umin, self.umax, self.smin, self.smax,
            self.umin32, self.umax32, self.smin32, self.smax32,
        )  # fmt: skip

    def __repr__(self) -> str:
        return f"<Number {self.fields()}>"


class Domain:
    """Numbers of some width, and of half of it: what operations and comparisons make of them."""

    def __init__(self, bits: int = 64) -> None:
        self.full, self.half = Width(bits), Width(bits // 2)
        self.widest, self.least, self.most = self.full.mask, -(1 << bits - 1), (1 << bits - 1) - 1
        half = bits // 2
        self.least32, self.most32 = -(1 << half - 1), (1 << half - 1) - 1
        self.unknown = Number(
            0, self.widest, 0, self.widest, self.least, self.most,
            0, self.half.mask, self.least32, self.most32,
        )  # fmt: skip
        self._known: dict[int, Number] = {}

    def known(self, number: int) -> Number:
        """Return the number that is `number` (taken modulo the width)."""
        number &= self.widest
        found = self._known.get(number)
        if found is None:
            low, signed = number & self.half.mask, self.full.signed(number)
            signed_low = self.half.signed(low)
            found = Number(number, 0, number, number, signed, signed, low, low, signed_low, signed_low)
            if len(self._known) < 4096:
                self._known[number] = found
        return found

    def number(
        self, value: int, mask: int, umin: int, umax: int, smin: int, smax: int,
        umin32: int, umax32: int, smin32: int, smax32: int,
    ) -> Number | None:  # fmt: skip
        """Return the number of which all of this is so, as exactly as each allows; None: there is none."""
        full, half, low_mask = self.full, self.half, self.half.mask
        top, top32 = self.most + 1, self.most32 + 1
        high_mask = self.widest & ~low_mask
        while True:
            before = (mask, umin, umax, smin, smax, umin32, umax32, smin32, smax32)
            # known bits -> ranges
            if (umin ^ value) & ~mask & self.widest:
                umin = _least(value, mask, umin)
            if (umax ^ value) & ~mask & self.widest:
                umax = self.widest ^ _least(~(value | mask) & self.widest, mask, self.widest ^ umax)
            if umin > umax or umax < 0:
                return None
            smin = max(smin, full.signed(value | mask & top))
            smax = min(smax, full.signed(value | mask & ~top))
            low, low_unknown = value & low_mask, mask & low_mask
            umin32, umax32 = max(umin32, low), min(umax32, low | low_unknown)
            smin32 = max(smin32, half.signed(low | low_unknown & top32))
            smax32 = min(smax32, half.signed(low | low_unknown & ~top32))
            # a range of the whole -> those of its low half, where that goes round once at most
            for low, high in ((umin, umax), (smin, smax)):
                if high - low <= low_mask:
                    first, last = low & low_mask, high & low_mask
                    if first <= last:
                        umin32, umax32 = max(umin32, first), min(umax32, last)
                    first, last = half.signed(first), half.signed(last)
                    if first <= last:
                        smin32, smax32 = max(smin32, first), min(smax32, last)
            # unsigned and signed are the same where no sign is between
            if umin32 >= top32 or umax32 < top32:
                smin32, smax32 = max(smin32, half.signed(umin32)), min(smax32, half.signed(umax32))
            if smin32 >= 0 or smax32 < 0:
                umin32, umax32 = max(umin32, smin32 & low_mask), min(umax32, smax32 & low_mask)
            elif umax32 < smin32 & low_mask:  # the signed range has two ends, and only one is in the other's
                smin32, umax32 = umin32, min(umax32, smax32)
            elif smax32 < umin32:
                umin32, smax32 = max(umin32, smin32 & low_mask), half.signed(umax32)
            # the low half -> the whole
            umin = max(umin, umin & high_mask | umin32)
            umax = min(umax, umax & high_mask | umax32)
            if smin >= self.least32 and smax <= self.most32:  # it is its low half, sign-extended
                smin, smax = max(smin, smin32), min(smax, smax32)
            if umin >= top or umax < top:
                smin, smax = max(smin, full.signed(umin)), min(smax, full.signed(umax))
            if smin >= 0 or smax < 0:
                umin, umax = max(umin, smin & self.widest), min(umax, smax & self.widest)
            elif umax < smin & self.widest:
                smin, umax = umin, min(umax, smax)
            elif smax < umin:
                umin, smax = max(umin, smin & self.widest), full.signed(umax)
            if umin > umax or smin > smax or umin32 > umax32 or smin32 > smax32:
                return None
            # ranges -> known bits
            for (base, unknown), others in ((between(umin, umax), 0), (between(umin32, umax32), high_mask)):
                unknown |= others
                if (value ^ base) & ~mask & ~unknown & self.widest:
                    return None
                value, mask = (value | base) & ~(mask & unknown), mask & unknown
            if (mask, umin, umax, smin, smax, umin32, umax32, smin32, smax32) == before:
                break
        if not mask:
            return self.known(value)
        return Number(value, mask, umin, umax, smin, smax, umin32, umax32, smin32, smax32)

    def some(self, **known: int) -> Number:
        """Return the number of which that is known; of the rest, nothing."""
        found = self.number(*(known.get(name, getattr(self.unknown, name)) for name in _FIELDS))
        assert found is not None  # whoever asks has seen such a number
        return found

    def unsigned(self, low: int, high: int) -> Number:
        """Return the numbers from `low` to `high`."""
        return self.some(umin=low, umax=high)

    def sized(self, size: int) -> Number:
        """Return what a load of so many bytes gives."""
        return self._sized(8 * size)

    def _sized(self, bits: int) -> Number:
        return self.unknown if bits >= self.full.bits else self.unsigned(0, (1 << bits) - 1)

    def both(self, a: Number, b: Number) -> Number | None:
        """Return what is both; None: nothing."""
        if a is b:
            return a
        if (a.value ^ b.value) & ~(a.mask | b.mask):
            return None
        mask = a.mask & b.mask
        return self.number(
            (a.value | b.value) & ~mask, mask,
            max(a.umin, b.umin), min(a.umax, b.umax), max(a.smin, b.smin), min(a.smax, b.smax),
            max(a.umin32, b.umin32), min(a.umax32, b.umax32),
            max(a.smin32, b.smin32), min(a.smax32, b.smax32),
        )  # fmt: skip

    def either(self, a: Number, b: Number) -> Number:
        """Return what is one of both."""
        differing = a.mask | b.mask | (a.value ^ b.value)
        found = self.number(
            a.value & ~differing, differing,
            min(a.umin, b.umin), max(a.umax, b.umax), min(a.smin, b.smin), max(a.smax, b.smax),
            min(a.umin32, b.umin32), max(a.umax32, b.umax32),
            min(a.smin32, b.smin32), max(a.smax32, b.smax32),
        )  # fmt: skip
        assert found is not None
        return found

    # -- operations ---------------------------------------------------------------------------------------

    def binary(self, meaning: str, is_full: bool, a: Number, b: Number) -> Number:
        """Return dst op src, of the whole numbers or of their low halves, zero-extended."""
        w = self.full if is_full else self.half
        if not a.mask and not b.mask:
            return self.known(semantics.BINARY[meaning](w, a.value & w.mask, b.value & w.mask))
        if not is_full:
            bits, (low, high), (slow, shigh) = self._low_half(meaning, a, b)
            found = self.number(*bits, low, high, 0, self.most, low, high, slow, shigh)
        else:
            bits = BITS.get(meaning, _any)(w, (a.value, a.mask), (b.value, b.mask))
            low, high = intervals.BINARY[meaning](w, (a.umin, a.umax), (b.umin, b.umax))
            signed = SIGNED.get(meaning)
            slow, shigh = signed(w, (a.smin, a.smax), (b.smin, b.smax)) if signed else (self.least, self.most)
            unsigned32, signed32 = (0, self.half.mask), (self.least32, self.most32)
            if meaning in LOW_HALF:
                _, unsigned32, signed32 = self._low_half(meaning, a, b)
            found = self.number(*bits, low, high, slow, shigh, *unsigned32, *signed32)
        assert found is not None, (meaning, a, b)
        return found

    def _low_half(self, meaning: str, a: Number, b: Number) -> tuple[Bits, Interval, Interval]:
        w = self.half
        bits = BITS.get(meaning, _any)(
            w, (a.value & w.mask, a.mask & w.mask), (b.value & w.mask, b.mask & w.mask)
        )
        unsigned = intervals.BINARY[meaning](w, (a.umin32, a.umax32), (b.umin32, b.umax32))
        rule = SIGNED.get(meaning)
        signed = rule(w, (a.smin32, a.smax32), (b.smin32, b.smax32)) if rule else (self.least32, self.most32)
        return bits, unsigned, signed

    def low_half(self, a: Number) -> Number:
        """Return the low half, zero-extended: what a move of 32 bits makes."""
        if a.umax <= self.half.mask:
            return a
        found = self.number(
            a.value & self.half.mask, a.mask & self.half.mask, a.umin32, a.umax32, 0, self.most,
            a.umin32, a.umax32, a.smin32, a.smax32,
        )  # fmt: skip
        assert found is not None
        return found

    def truncated(self, a: Number, bits: int) -> Number:
        """Return the low bits, zero-extended."""
        if bits >= self.full.bits or a.umax < 1 << bits:
            return a
        return self.binary("AND", True, a, self.known((1 << bits) - 1))

    def extended(self, a: Number, bits: int, is_full: bool) -> Number:
        """Return the low bits, sign-extended to the whole, or to the low half and then zero-extended."""
        half, width = 1 << bits - 1, self.full.bits if is_full else self.half.bits
        if bits >= width:
            return a if is_full else self.low_half(a)
        if -half <= a.smin and a.smax < half:
            return a if is_full else self.low_half(a)
        by = self.known(self.full.bits - bits)
        found = self.binary("ARSH", True, self.binary("LSH", True, a, by), by)
        return found if is_full else self.low_half(found)

    def unary(self, meaning: str, is_full: bool, a: Number) -> Number:
        """Return op dst: NEG, and what orders bytes (LE, BE, BSWAP, with a number of bits)."""
        if meaning == "NEG":
            return self.binary("SUB", is_full, self.known(0), a)
        function = semantics.UNARY[meaning]
        if not a.mask:
            return self.known(function(self.full, a.value))
        # Bytes change places: each bit is known where the one that comes there was.
        value = function(self.full, a.value)
        return self.some(value=value, mask=function(self.full, a.value | a.mask) ^ value)

    # -- comparisons --------------------------------------------------------------------------------------

    def decide(self, meaning: str, is_full: bool, a: Number, b: Number) -> bool | None:
        """Return how a comparison ends, None where it may end either way."""
        holds = self.assume(meaning, is_full, a, b, holds=True)
        if holds is None:
            return False
        return True if self.assume(meaning, is_full, a, b, holds=False) is None else None

    def assume(
        self, meaning: str, is_full: bool, a: Number, b: Number, *, holds: bool
    ) -> tuple[Number, Number] | None:
        """Return what is known of dst and src where a comparison holds, or not; None: it cannot end so."""
        if meaning == "JSET":
            return self._assume_bits(is_full, a, b, holds)
        relation = intervals.RELATIONS[meaning][not holds]
        signed = meaning in intervals.SIGNED
        if relation == "==":
            return self._assume_equal(is_full, a, b)
        first, second = (_SIGNED_RANGE if signed else _UNSIGNED_RANGE)[is_full]
        range_a, range_b = (getattr(a, first), getattr(a, second)), (getattr(b, first), getattr(b, second))
        found_a = intervals.related(relation, range_a, range_b)
        found_b = intervals.related(intervals.MIRRORED[relation], range_b, range_a)
        if found_a is None or found_b is None:
            return None
        now_a, now_b = self._ranged(a, first, second, found_a), self._ranged(b, first, second, found_b)
        if relation == "!=" and not signed:  # the ends of signed ranges may go as well
            now_a = self._without(is_full, now_a, now_b)
            now_b = self._without(is_full, now_b, now_a)
        return None if now_a is None or now_b is None else (now_a, now_b)

    def _without(self, is_full: bool, number: Number | None, other: Number | None) -> Number | None:
        """Return a number that is not equal to another one, by its signed range."""
        if number is None or other is None:
            return None
        first, second = _SIGNED_RANGE[is_full]
        limits = getattr(number, first), getattr(number, second)
        found = intervals.related("!=", limits, (getattr(other, first), getattr(other, second)))
        return None if found is None else self._ranged(number, first, second, found)

    def _ranged(self, a: Number, first: str, second: str, found: Interval) -> Number | None:
        if found == (getattr(a, first), getattr(a, second)):
            return a
        known = dict(zip(_FIELDS, a.fields(), strict=True))
        known[first], known[second] = found
        return self.number(*known.values())

    def _assume_equal(self, is_full: bool, a: Number, b: Number) -> tuple[Number, Number] | None:
        if is_full:
            both = self.both(a, b)
            return None if both is None else (both, both)
        ours, theirs = self._with_low_half(a, b), self._with_low_half(b, a)
        return None if ours is None or theirs is None else (ours, theirs)

    def _with_low_half(self, a: Number, b: Number) -> Number | None:
        """Return `a` if its low half is that of `b`."""
        low, upper = self.half.mask, self.widest & ~self.half.mask
        if (a.value ^ b.value) & ~(a.mask | b.mask) & low:
            return None
        mask = a.mask & (b.mask | upper)
        return self.number(
            (a.value | b.value & low) & ~mask, mask, a.umin, a.umax, a.smin, a.smax,
            max(a.umin32, b.umin32), min(a.umax32, b.umax32),
            max(a.smin32, b.smin32), min(a.smax32, b.smax32),
        )  # fmt: skip

    def _assume_bits(self, is_full: bool, a: Number, b: Number, holds: bool) -> tuple[Number, Number] | None:
        seen = self.widest if is_full else self.half.mask
        if (a.value & b.value & seen and not holds) or (
            holds and not (a.value | a.mask) & (b.value | b.mask) & seen
        ):
            return None
        if b.mask:
            return a, b
        tested = b.value & seen
        if not holds:  # all tested bits are zero
            found = self._bits(a, 0, a.mask & ~tested)
            return None if found is None else (found, b)
        if not tested & tested - 1:  # the one bit is set
            found = self._bits(a, tested, a.mask & ~tested)
            return None if found is None else (found, b)
        return a, b

    def _bits(self, a: Number, ones: int, mask: int) -> Number | None:
        return self.number(a.value & ~mask | ones, mask, *a.fields()[2:])


_FIELDS = ("value", "mask", "umin", "umax", "smin", "smax", "umin32", "umax32", "smin32", "smax32")
_UNSIGNED_RANGE = ("umin32", "umax32"), ("umin", "umax")
_SIGNED_RANGE = ("smin32", "smax32"), ("smin", "smax")

DOMAIN = Domain()
"""Numbers of 64 bits, with halves of 32."""
