"""How far counters of loops get, and which bytes checks stand for in all rounds: sums of values before them.

v3 + 2, each round 4 more       Linear(((v3, 1),), 2, 4)
compared with v2 - 1            Trip: it gets v2 - 1 - (v3 + 2) further
4 bytes at v9 + v3              Swept: from v9 + v3 on, so many and 4
"""

from __future__ import annotations

from ebpfjit.record import record

LARGEST_FACTOR, LARGEST_OFFSET = 1 << 12, 1 << 30
"""Of sums that are followed."""
LONGEST_SPAN = 4096
"""Bytes that checks stand for which are put together."""


@record
class Linear:
    """A sum of values in front of a loop, times numbers, plus a number; each round it is `step` more."""

    terms: tuple[tuple[int, int], ...]
    number: int
    step: int


@record
class Trip:
    """How far a counter gets: a test on the way to the block `target` compares it with a bound.

    By `step` it gets further each round (below zero: downwards), while it is not past `bound`; where it
    `stops_at` the bound, while it is not there. What it is `compared` with must be `needed` away from where
    numbers wrap. Of a loop's tests that with the lowest `rank` says best how far it gets.
    """

    counter: Linear
    bound: Linear
    step: int
    stops_at: bool
    target: int
    compared: Linear
    needed: int
    rank: int

    @property
    def said(self) -> int:
        """Up to where what is counted from is inside, in a round that goes on (downwards: from where on)."""
        strict = 1 if self.stops_at else abs(self.compared.number - self.bound.number)
        return self.counter.number + (strict if self.step > 0 else -strict)


@record
class Swept:
    """The bytes that checks stand for in all rounds: those from `low` to `high` behind a sum, in the first.

    For each step of the counter they are `factor` steps further; where they step by the value `stride`, it is
    that in each round, and the factor is 1. `is_early` where the checks are made before the test of a round,
    which is then once more than it is passed. `checks` are these, by block and index.
    """

    terms: tuple[tuple[int, int], ...]
    factor: int
    low: int
    high: int
    stores: bool
    region: str
    is_early: bool
    checks: tuple[tuple[int, int], ...]
    stride: int | None = None


def is_beyond(trip: Trip, at: Linear, low: int, high: int, is_early: bool) -> bool:
    """True for bytes of which the test of a trip does not say that they are inside."""
    if (at.terms, at.step) != (trip.counter.terms, trip.step):
        return False
    said = trip.said - trip.step if is_early else trip.said
    return high > said if trip.step > 0 else low < said


def way_of(trip: Trip) -> Linear | None:
    """Return how far a counter gets, in the round whose test is the first that fails; None: too far."""
    pair = (trip.bound, trip.counter) if trip.step > 0 else (trip.counter, trip.bound)
    way = added(*pair, -1)
    return way if trip.stops_at else shifted(way, abs(trip.step))


def shifted(linear: Linear | None, number: int) -> Linear | None:
    """Return a sum plus a number, None where that gets too large."""
    if linear is None or abs(linear.number + number) > LARGEST_OFFSET:
        return None
    return Linear(linear.terms, linear.number + number, linear.step)


def added(a: Linear, b: Linear, sign: int) -> Linear | None:
    """Return a sum plus another one, or less it; None where that gets too large."""
    terms = dict(a.terms)
    for value, factor in b.terms:
        terms[value] = terms.get(value, 0) + sign * factor
    left = tuple((value, factor) for value, factor in sorted(terms.items()) if factor)
    return shifted(Linear(left, a.number, a.step + sign * b.step), sign * b.number)


def multiplied(a: Linear, by: int) -> Linear | None:
    """Return so many times a sum, None where that gets too large."""
    if not 0 < by <= LARGEST_FACTOR or any(abs(factor * by) > LARGEST_FACTOR for _, factor in a.terms):
        return None
    terms = tuple((value, factor * by) for value, factor in a.terms)
    return shifted(Linear(terms, 0, a.step * by), a.number * by)


def joined(a: Swept, b: Swept) -> Swept | None:
    """Return what two checks stand for that go through memory side by side."""
    low, high = min(a.low, b.low), max(a.high, b.high)
    if high - low > LONGEST_SPAN:
        return None
    region = a.region if a.region == b.region else ""
    stores, checks = a.stores or b.stores, a.checks + b.checks
    return Swept(a.terms, a.factor, low, high, stores, region, a.is_early, checks, a.stride)
