"""Python's integers of which only bounds are known, so that a rule written for integers runs on all of them.

    x = variable("x", 64)                 0 <= x < 2**64
    y = (x + 1) & 0xFF                    Number("&", (x + 1, 255)), 0 <= y <= 255
    y < 256                               True: the bounds say so
    y < 7                                 Truth("<", (y, 7)); asked for a bool, it forks the run (`claims`)

A Number has the operators of `int` and means what `int` means: nothing wraps but where the Python says so.
What is the same number in each case is an `int` again.
"""

from __future__ import annotations

from collections.abc import Callable
from contextvars import ContextVar
from typing import Any

from ebpfjit.bits import Width

Integer = Any
"""An int or a Number: rules are annotated with int, and are given either."""


class UnsupportedError(Exception):
    """Python does something with a symbolic number that the solver is not told of."""


Chooser = Callable[["Truth"], bool]
CHOOSER: ContextVar[Chooser] = ContextVar("CHOOSER")
"""What decides which way a run goes where a Truth is asked for a bool."""

VALUES: ContextVar[dict[str, int] | None] = ContextVar("VALUES", default=None)
"""What variables are, where a run is of numbers that are known."""

KEYS: ContextVar[tuple[int, ...]] = ContextVar("KEYS", default=())
"""The keys of the dictionaries in which a number is looked up."""


class Truth:
    """Whether something holds: an operation on Numbers or Truths."""

    __slots__ = ("args", "op")

    def __init__(self, op: str, args: tuple[Any, ...]) -> None:
        self.op, self.args = op, args

    def __bool__(self) -> bool:
        return CHOOSER.get()(self)

    def __and__(self, other: Truth | bool) -> Truth | bool:
        if isinstance(other, bool):
            return self if other else False
        return Truth("and", (self, other))

    __rand__ = __and__

    def __or__(self, other: Truth | bool) -> Truth | bool:
        if isinstance(other, bool):
            return True if other else self
        return Truth("or", (self, other))

    __ror__ = __or__

    def __invert__(self) -> Truth:
        return Truth("not", (self,))

    def __eq__(self, other: object) -> Any:
        if isinstance(other, bool):
            return self if other else ~self
        return Truth("iff", (self, other)) if isinstance(other, Truth) else NotImplemented

    def __ne__(self, other: object) -> Any:
        same = self.__eq__(other)
        return same if same is NotImplemented else ~same

    __hash__ = object.__hash__


def negated(truth: Truth | bool) -> Truth | bool:
    """Return whether something does not hold."""
    return not truth if isinstance(truth, bool) else ~truth


class Number:
    """An integer, `low` <= it <= `high`: an operation on Numbers and ints."""

    __slots__ = ("args", "high", "low", "op")

    def __init__(self, op: str, args: tuple[Any, ...], low: int, high: int) -> None:
        self.op, self.args, self.low, self.high = op, args, low, high

    # -- arithmetic --

    def __add__(self, other: Integer) -> Integer:
        other = plain(other)
        low, high = bounds(other)
        return _made("+", (self, other), self.low + low, self.high + high)

    def __sub__(self, other: Integer) -> Integer:
        other = plain(other)
        low, high = bounds(other)
        return _made("-", (self, other), self.low - high, self.high - low)

    def __mul__(self, other: Integer) -> Integer:
        corners = [a * b for a in bounds(self) for b in bounds(other)]
        return _made("*", (self, other), min(corners), max(corners))

    __radd__, __rmul__ = __add__, __mul__

    def __rsub__(self, other: Integer) -> Integer:
        low, high = bounds(other)
        return _made("-", (other, self), low - self.high, high - self.low)

    def __neg__(self) -> Integer:
        return 0 - self

    def __abs__(self) -> Integer:
        if self.low >= 0:
            return self
        return -self if self.high < 0 else _made("abs", (self,), 0, max(-self.low, self.high))

    def __floordiv__(self, other: Integer) -> Integer:
        least, most = self._divisible(other)
        return _made("//", (self, other), self.low // most, self.high // least)

    def __mod__(self, other: Integer) -> Integer:
        if isinstance(other, int) and other > 0 and not other & (other - 1):
            return self & (other - 1)
        _, most = self._divisible(other)
        return _made("%", (self, other), 0, min(self.high, most - 1))

    def __rfloordiv__(self, other: int) -> Integer:
        return constant(other) // self

    def __rmod__(self, other: int) -> Integer:
        return constant(other) % self

    def _divisible(self, other: Integer) -> tuple[int, int]:
        """Return the bounds of a divisor, which is not 0. Raises ZeroDivisionError where it may be."""
        low, high = bounds(other)
        if self.low < 0 or low < 0:
            raise UnsupportedError("a division of negative numbers")
        if low == 0 and other == 0:
            raise ZeroDivisionError
        return max(low, 1), max(high, 1)

    # -- bits --

    def __and__(self, other: Integer) -> Integer:
        low, high = bounds(other)
        if low < 0 and self.low < 0:
            raise UnsupportedError("and of negative numbers")
        highs = [most for least, most in ((self.low, self.high), (low, high)) if least >= 0]
        if isinstance(other, int) and self.low >= 0 and is_mask(other) and self.high <= other:
            return self
        return _made("&", (self, other), 0, min(highs))

    def __or__(self, other: Integer) -> Integer:
        return self._joined("|", other, max(self.low, bounds(other)[0]))

    def __xor__(self, other: Integer) -> Integer:
        return self._joined("^", other, 0)

    __rand__, __ror__, __rxor__ = __and__, __or__, __xor__

    def _joined(self, op: str, other: Integer, low: int) -> Integer:
        least, most = bounds(other)
        if self.low < 0 or least < 0:
            raise UnsupportedError(f"{op} of negative numbers")
        return _made(op, (self, other), low, (1 << max(self.high, most).bit_length()) - 1)

    def __invert__(self) -> Integer:
        return -1 - self

    def __lshift__(self, by: Integer) -> Integer:
        low, high = _shift(by)
        corners = [a << b for a in bounds(self) for b in (low, high)]
        return _made("<<", (self, by), min(corners), max(corners))

    def __rshift__(self, by: Integer) -> Integer:
        low, high = _shift(by)
        corners = [a >> b for a in bounds(self) for b in (low, high)]
        return _made(">>", (self, by), min(corners), max(corners))

    def __rlshift__(self, other: int) -> Integer:
        return constant(other) << self

    def __rrshift__(self, other: int) -> Integer:
        return constant(other) >> self

    def bit_length(self) -> Integer:
        """As of an int."""
        if self.low < 0:
            raise UnsupportedError("the length of a negative number")
        return _made("bit_length", (self,), self.low.bit_length(), self.high.bit_length())

    # -- comparisons --

    def __lt__(self, other: Integer) -> Any:
        return less(self, other)

    def __le__(self, other: Integer) -> Any:
        return negated(less(other, self))

    def __gt__(self, other: Integer) -> Any:
        return less(other, self)

    def __ge__(self, other: Integer) -> Any:
        return negated(less(self, other))

    def __eq__(self, other: object) -> Any:
        if not isinstance(other, (int, Number)):
            return NotImplemented
        low, high = bounds(other)
        if self is other:
            return True
        return False if self.high < low or high < self.low else Truth("==", (self, other))

    def __ne__(self, other: object) -> Any:
        same = self.__eq__(other)
        return same if same is NotImplemented else negated(same)

    def __bool__(self) -> bool:
        return bool(self != 0)

    def __hash__(self) -> int:
        """Return that of the key of a dictionary that the number is, or of none of them."""
        for key in KEYS.get():
            if self == key:
                return hash(key)
        return object.__hash__(self)


def plain(operand: Integer | Truth) -> Integer:
    """Return an operand as a number: 1 where a truth holds, else 0."""
    return int(bool(operand)) if isinstance(operand, Truth) else operand


def _made(op: str, args: tuple[Any, ...], low: int, high: int) -> Integer:
    return low if low == high else Number(op, args, low, high)


class Memory:
    """Bytes at all addresses: those at the start, or those of another one with some that were stored."""

    __slots__ = ("args",)

    def __init__(self, args: tuple[Memory, Integer, Integer] | tuple[()] = ()) -> None:
        self.args = args

    def load(self, address: Integer, size: int) -> Integer:
        """Return the bytes from an address on, the first one lowest."""
        found: Integer = 0
        for place in range(size):
            byte = Number("byte", (self, address + place & _ADDRESSES), 0, 255)
            found = found | byte << 8 * place if place else byte
        return found

    def store(self, address: Integer, size: int, value: Integer) -> Memory:
        """Return memory with the low bytes of a value at an address."""
        memory = self
        for place in range(size):
            memory = Memory((memory, address + place & _ADDRESSES, value >> 8 * place & 0xFF))
        return memory


_ADDRESSES = (1 << 64) - 1


def constant(number: int) -> Number:
    """Return a Number that is always this one."""
    return Number("constant", (number,), number, number)


def variable(name: str, bits: int) -> Integer:
    """Return any number of so many bits."""
    return within(name, 0, (1 << bits) - 1)


def within(name: str, low: int, high: int) -> Integer:
    """Return any number from `low` to `high`, which is not below 0."""
    values = VALUES.get()
    if values is not None:
        return values.get(name, low)
    return Number("variable", (name, max(high.bit_length(), 1)), low, high)


def vector(term: Any, bits: int) -> Number:
    """Return the number that a solver's vector of so many bits is, unsigned."""
    return Number("vector", (term, bits), 0, (1 << bits) - 1)


def formula(term: Any) -> Truth:
    """Return whether a solver's formula holds."""
    return Truth("formula", (term,))


def chosen(condition: Truth | bool, one: Integer, other: Integer) -> Integer:
    """Return one of two numbers, without forking the run."""
    if isinstance(condition, bool):
        return one if condition else other
    (a, b), (c, d) = bounds(one), bounds(other)
    return Number("if", (condition, one, other), min(a, c), max(b, d))


def bounds(number: Integer) -> tuple[int, int]:
    """Return between which numbers one lies."""
    if isinstance(number, Number):
        return number.low, number.high
    return int(number), int(number)


def _shift(by: Integer) -> tuple[int, int]:
    low, high = bounds(by)
    if low < 0:
        raise UnsupportedError("a shift by a negative number")
    return low, high


def less(a: Integer, b: Integer) -> Truth | bool:
    """Return whether a < b."""
    (low, high), (least, most) = bounds(a), bounds(b)
    if high < least:
        return True
    return False if low >= most else Truth("<", (a, b))


def is_mask(number: int) -> bool:
    """Return whether a number is 2**n - 1."""
    return number >= 0 and not number & (number + 1)


class SymbolicWidth(Width):
    """A width that reads numbers as signed without forking the run: the same, as `range_rules` proves."""

    def signed(self, value: Integer) -> Integer:
        """Return the low bits of `value` read as a two's complement number."""
        if isinstance(value, int):
            return super().signed(value)
        half = 1 << self.bits - 1
        return Number("signed", (value & self.mask, self.bits), -half, half - 1)


W32, W64 = SymbolicWidth(32), SymbolicWidth(64)
