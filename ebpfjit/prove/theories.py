"""Symbolic numbers as the solver reads them: vectors of just enough bits, or integers.

A sum of 64 bits modulo 2**64 is a sum of vectors of 64 bits: what is asked for are the low n bits of a
number, and those of sums, products and the like follow from the low n bits of the operands. Only comparisons,
shifts to the right and divisions need all bits, of which there are as many as the bounds say.

Integers are for products and quotients, where bits are of no use: what is a bit operation there is not said,
but shifts by a constant, and masks.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import z3

from ebpfjit.prove.symbolic import Integer, Memory, Number, Truth, UnsupportedError, constant, is_mask

Term = Any
"""What the solver's Python calls an expression."""


class Theory(Protocol):
    """How numbers are told to the solver."""

    name: str
    is_exact: bool
    """False where numbers were told as any of some kind: then nothing is refuted."""

    def formula(self, truth: Truth | bool) -> Term:
        """Return something that holds or not as a formula. Raises UnsupportedError."""

    def facts(self) -> list[Term]:
        """Return what is known of the variables that were met so far."""


def _number(number: Integer) -> Number:
    return number if isinstance(number, Number) else constant(number)


_JOINING: dict[str, Callable[[list[Term]], Term]] = {
    "and": lambda args: z3.And(*args),
    "or": lambda args: z3.Or(*args),
    "not": lambda args: z3.Not(*args),
    "iff": lambda args: args[0] == args[1],
}


class Vectors:
    """Numbers as vectors of bits, in two's complement."""

    name = "vectors"
    is_exact = True

    def __init__(self) -> None:
        self.known: dict[tuple[int, int], tuple[Number, Term]] = {}
        self.variables: dict[str, Number] = {}
        self.memories: dict[int, tuple[Memory, Term]] = {}

    def facts(self) -> list[Term]:
        """Return the bounds of variables, where they are not those of their bits."""
        found = []
        for number in self.variables.values():
            bits = number.args[1]
            term = self.bits(number, bits)
            if number.low:
                found.append(z3.UGE(term, number.low))
            if not is_mask(number.high) or number.high.bit_length() != bits:
                found.append(z3.ULE(term, number.high))
        return found

    def formula(self, truth: Truth | bool) -> Term:
        """Return something that holds or not as a formula."""
        if isinstance(truth, bool):
            return z3.BoolVal(truth)
        if truth.op == "formula":
            return truth.args[0]
        join = _JOINING.get(truth.op)
        if join is not None:
            return join([self.formula(each) for each in truth.args])
        if truth.op == "same memory":
            return self.memory(truth.args[0]) == self.memory(truth.args[1])
        a, b = map(_number, truth.args)
        if min(a.low, b.low) >= 0:
            n = max(a.high.bit_length(), b.high.bit_length(), 1)
            x, y = self.bits(a, n), self.bits(b, n)
            return x == y if truth.op == "==" else z3.ULT(x, y)
        n = max(size(a), size(b))
        x, y = self.bits(a, n), self.bits(b, n)
        return x == y if truth.op == "==" else x < y

    def bits(self, number: Integer, n: int) -> Term:
        """Return the low n bits of a number."""
        if isinstance(number, int):
            return z3.BitVecVal(number, n)
        key = id(number), n
        known = self.known.get(key)
        if known is None:  # the number is kept, so that no other has its id
            known = self.known[key] = number, self._bits(number, n)
        return known[1]

    def _bits(self, number: Number, n: int) -> Term:
        op, args = number.op, number.args
        match op:
            case "constant":
                return z3.BitVecVal(args[0], n)
            case "variable":
                self.variables[args[0]] = number
                return resized(z3.BitVec(args[0], args[1]), n, signed=False)
            case "vector":
                return resized(args[0], n, signed=False)
            case "signed":
                return resized(self.bits(args[0], args[1]), n, signed=True)
            case "byte":
                found = z3.Select(self.memory(args[0]), self.bits(args[1], 64))
                return resized(found, n, signed=False)
            case "&" if isinstance(args[1], int) and is_mask(args[1]):
                kept = max(args[1].bit_length(), 1)
                return (
                    self.bits(args[0], n) if n <= kept else resized(self.bits(args[0], kept), n, signed=False)
                )
            case "*" if isinstance(args[1], int) and args[1] > 0 and not args[1] & (args[1] - 1):
                return self._shifted((args[0], args[1].bit_length() - 1), n)
            case "+" | "-" | "*" | "&" | "|" | "^":
                return _SAME_BITS[op](self.bits(args[0], n), self.bits(args[1], n))
            case "if":
                return z3.If(self.formula(args[0]), self.bits(args[1], n), self.bits(args[2], n))
            case "<<":
                return self._shifted(args, n)
        whole = self._whole(number)
        return resized(whole, n, signed=number.low < 0)

    def memory(self, memory: Memory) -> Term:
        """Return memory as an array of bytes."""
        known = self.memories.get(id(memory))
        if known is None:
            if memory.args:
                before, address, byte = memory.args
                term = z3.Store(self.memory(before), self.bits(address, 64), self.bits(byte, 8))
            else:
                term = z3.Array("memory", z3.BitVecSort(64), z3.BitVecSort(8))
            known = self.memories[id(memory)] = memory, term
        return known[1]

    def _shifted(self, args: tuple[Any, ...], n: int) -> Term:
        """Return the low bits of a number that is shifted to the left."""
        by = _number(args[1])
        if by.low >= n:
            return z3.BitVecVal(0, n)
        m = max(n, by.high.bit_length())
        return resized(self.bits(args[0], m) << self.bits(by, m), n, signed=False)

    def _whole(self, number: Number) -> Term:
        """Return all bits of what needs all bits of its operands."""
        op, args = number.op, number.args
        a = _number(args[0])
        match op:
            case "abs":
                n = number.high.bit_length()
                return z3.If(self.formula(a < 0), -self.bits(a, n), self.bits(a, n))
            case ">>":
                by = _number(args[1])
                n = max(size(a), size(by))
                if a.low >= 0:
                    n = max(a.high.bit_length(), by.high.bit_length(), 1)
                    return z3.LShR(self.bits(a, n), self.bits(by, n))
                return self.bits(a, n) >> self.bits(by, n)
            case "//" | "%":
                b = _number(args[1])
                n = max(a.high.bit_length(), b.high.bit_length(), 1)
                x, y = self.bits(a, n), self.bits(b, n)
                return z3.UDiv(x, y) if op == "//" else z3.URem(x, y)
            case "bit_length":
                n, m = max(a.high.bit_length(), 1), max(number.high.bit_length(), 1)
                x, found = self.bits(a, n), z3.BitVecVal(0, m)
                for place in range(n):
                    found = z3.If(z3.Extract(place, place, x) == 1, z3.BitVecVal(place + 1, m), found)
                return found
        raise UnsupportedError(op)


_SAME_BITS: dict[str, Callable[[Term, Term], Term]] = {
    "+": lambda a, b: a + b,
    "-": lambda a, b: a - b,
    "*": lambda a, b: a * b,
    "&": lambda a, b: a & b,
    "|": lambda a, b: a | b,
    "^": lambda a, b: a ^ b,
}
"""What gives n low bits of n low bits."""


def size(number: Number) -> int:
    """Return how many bits hold a number in two's complement."""
    return max(number.high.bit_length(), (~number.low).bit_length() if number.low < 0 else 0) + 1


def resized(term: Term, n: int, *, signed: bool) -> Term:
    """Return the low n bits of a vector, which goes on with its sign or with zeros."""
    more = n - term.size()
    if more > 0:
        return z3.SignExt(more, term) if signed else z3.ZeroExt(more, term)
    return term if not more else z3.Extract(n - 1, 0, term)


class Integers:
    """Numbers as integers."""

    name = "integers"

    def __init__(self) -> None:
        self.variables: dict[str, Number] = {}
        self.defined: list[Term] = []
        self.divided: dict[tuple[int, int], tuple[Term, Term]] = {}
        self.powers: dict[int, tuple[Number, Term]] = {}
        self.is_exact = True

    def facts(self) -> list[Term]:
        """Return the bounds of variables, and what quotients are."""
        found = []
        for name, number in self.variables.items():
            found += [z3.Int(name) >= number.low, z3.Int(name) <= number.high]
        return found + self.defined

    def formula(self, truth: Truth | bool) -> Term:
        """Return something that holds or not as a formula. Raises UnsupportedError."""
        if isinstance(truth, bool):
            return z3.BoolVal(truth)
        join = _JOINING.get(truth.op)
        if join is not None:
            return join([self.formula(each) for each in truth.args])
        if truth.op == "formula":
            raise UnsupportedError("bits as integers")
        a, b = map(self.integer, truth.args)
        return a == b if truth.op == "==" else a < b

    def integer(self, number: Integer) -> Term:
        """Return a number. Raises UnsupportedError where it is made of bits."""
        if isinstance(number, int):
            return z3.IntVal(number)
        op, args = number.op, number.args
        match op:
            case "constant":
                return z3.IntVal(args[0])
            case "signed":
                x, half = self.integer(args[0]), 1 << args[1] - 1
                return z3.If(x >= half, x - 2 * half, x)
            case "abs":
                x = self.integer(args[0])
                return z3.If(x < 0, -x, x)
            case "variable":
                self.variables[args[0]] = number
                return z3.Int(args[0])
            case "+":
                return self.integer(args[0]) + self.integer(args[1])
            case "-":
                return self.integer(args[0]) - self.integer(args[1])
            case "*":
                return self.integer(args[0]) * self.integer(args[1])
            case "//" | "%":
                x, y = self.integer(args[0]), self.integer(args[1])
                return self._divided(x, y, op == "//")
            case "<<":
                return self.integer(args[0]) * self._power(args[1])
            case ">>":
                return self._divided(self.integer(args[0]), self._power(args[1]), True)
            case "&" if isinstance(args[1], int) and is_mask(args[1]):
                return self._divided(self.integer(args[0]), z3.IntVal(args[1] + 1), False)
            case "if":
                return z3.If(self.formula(args[0]), self.integer(args[1]), self.integer(args[2]))
        raise UnsupportedError(f"{op} of integers")

    def _divided(self, x: Term, y: Term, is_quotient: bool) -> Term:
        """Return a quotient or remainder, by what they are: x == q * y + r, 0 <= r < y."""
        key = x.get_id(), y.get_id()
        known = self.divided.get(key)
        if known is None:  # the terms are kept, so that no others have their ids
            index = len(self.divided)
            q, r = z3.Int(f"quotient_{index}"), z3.Int(f"remainder_{index}")
            self.defined.append(z3.And(x == q * y + r, r >= 0, r < y, z3.Or(x < 0, q >= 0)))
            known = self.divided[key] = q, r
        return known[0 if is_quotient else 1]

    def _power(self, exponent: Integer) -> Term:
        """Return 2**exponent: of sums a product, else some number that is 1 at least."""
        if isinstance(exponent, int):
            return z3.IntVal(1 << exponent)
        if exponent.op == "+":
            return self._power(exponent.args[0]) * self._power(exponent.args[1])
        known = self.powers.get(id(exponent))
        if known is None:
            self.is_exact = False
            power = z3.Int(f"power_{len(self.powers)}")
            known = self.powers[id(exponent)] = exponent, power
            self.defined.append(power >= 1)
            if exponent.op == "bit_length":
                self.defined.append(self.integer(exponent.args[0]) < power)
        return known[1]
