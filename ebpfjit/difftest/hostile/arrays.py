"""Loops that put elements of arrays together, as they should be for many rounds at once, and not quite.

totals     sums, or, and, xor, on 32 and 64 bits, of elements or of products; of what has changed
addresses  pointers that step by the size of an element, or nearly; indexes of 32 bits that wrap
tests      up to a number, the memory's size, down to zero; met or passed over
besides    a store, a second test, an element that is used once more
"""

from __future__ import annotations

import random

from ebpfjit.difftest.case import Case, Input
from ebpfjit.difftest.hostile.rounds import STAYING
from ebpfjit.difftest.hostile.writer import WIDTHS, Writer

LIMITS = (100, 1000, 3000, 20000)
SIZES = (16, 100, 300, 600, 1200)
COUNTER, BOUND, FIRST, SECOND, START = "r6", "r7", "r8", "r9", "r5"
OPERATIONS = ("add", "add", "add", "xor", "or", "and", "sub")


class _Arrays(Writer):
    """Writes one program; its arrays have elements of `size` bytes."""

    def start(self) -> None:
        """Give everything what it has before the first round."""
        rng = self.rng
        self.emit(f"mov r0, {rng.choice((0, 0, -1))}", f"mov {FIRST}, r1", f"mov {SECOND}, r1")
        for pointer in (FIRST, SECOND):
            self.emit(f"add {pointer}, {rng.choice((0, 0, 0, 8, 16, 1) if self.chance(0.95) else (-1,))}")
        start = rng.choice((0, 0, 1, 5))
        self.wraps = self.by == 1 and self.chance(0.2)
        if self.wraps:  # the index, in the middle of the array
            start = -rng.choice((1, 9, 16, 17, 40))
            self.constant("r4", ((start & 0xFFFFFFFF) * self.size))
            self.emit(f"sub {FIRST}, r4")
        self.emit(f"mov32 {START}, {start}")
        falls = self.by < 0
        if falls:
            self.bound(COUNTER)
            self.emit(f"mov {BOUND}, {rng.choice((0, 0, 0, 1, 2, -1))}")
        else:
            self.bound(BOUND)
            self.emit(f"mov {COUNTER}, {rng.choice((0, 0, 0, 1, 2, -1))}")

    def bound(self, register: str) -> None:
        """Give a register a number of rounds."""
        rng = self.rng
        match rng.randrange(4):
            case 0:
                self.emit(f"mov {register}, {rng.choice((1, 15, 16, 17, 31, 32, 33, 64, 65, 66, 100, 130))}")
            case 1:
                self.load(register, "r1", (1,))
            case _:
                self.emit(f"mov {register}, r2", f"rsh {register}, {WIDTHS_LOG[self.size]}")
                if self.chance(0.9):
                    self.emit(f"sub {register}, {rng.choice((2, 10, 17, 20))}")

    def element(self, to: str, pointer: str) -> None:
        """Load an element, by a pointer or an index."""
        rng = self.rng
        if self.wraps or self.chance(0.3):
            narrow = "32" if self.wraps or self.chance(0.7) else ""
            self.emit(f"mov{narrow} r4, {COUNTER}")
            if self.wraps or self.chance(0.8):
                self.emit(f"add{narrow} r4, {START}")
            self.emit(f"lsh r4, {WIDTHS_LOG[self.size]}", f"add r4, {FIRST}")
            pointer = "r4"
        size = self.size if self.chance(0.93) else rng.choice((1, 2, 4, 8))
        self.emit(f"ldx{WIDTHS[size]} {to}, [{pointer}{rng.choice((0, 0, 0, 0, 4, 8)):+}]")

    def total(self, register: str) -> None:
        """Put an element together with what there is, or a product."""
        rng = self.rng
        narrow = rng.choice(("", "32"))
        self.element("r3", FIRST)
        if self.chance(0.4):
            self.element("r4", SECOND)
            self.emit(f"mul{narrow if self.chance(0.8) else '32'} r3, r4")
        if self.chance(0.08):
            self.emit(rng.choice(("and r3, 255", "xor r3, -1", f"add r3, {register}", "rsh r3, 1")))
        operation = rng.choice(OPERATIONS) if self.chance(0.5) else "add"
        self.emit(f"{operation}{narrow} {register}, r3")

    def program(self) -> bytes:
        """Return a program of one loop, perhaps in another one."""
        rng = self.rng
        self.size = rng.choice((1, 2, 4, 4, 8))
        self.by = rng.choice((1, 1, 1, 1, 2, -1, -1, -2))
        head, out, again = self.label(), self.label(), self.label()
        self.start()
        self.emit(f"stxdw [r10-8], {COUNTER}", "mov32 r4, 2", "stxdw [r10-16], r4", f"{again}:")
        self.emit(f"{head}:")
        self.total("r0")
        if self.chance(0.2):
            self.total("r2")
        if self.chance(0.05):
            self.emit(f"stx{WIDTHS[self.size]} [{SECOND}+0], r3")
        if self.chance(0.05):
            self.emit(f"jeq r3, {rng.randrange(4)}, {out}")
        for pointer in (FIRST, SECOND):
            step = self.size if self.chance(0.9) else rng.choice((1, 2, 4, 8, 16, -4))
            self.emit(f"add {pointer}, {step}")
        narrow = "32" if self.chance(0.2) else ""
        self.emit(f"add{narrow} {COUNTER}, {self.by}")
        staying = rng.choice(STAYING) if self.chance(0.3) else "jne" if self.by < 0 else "jlt"
        narrow = narrow or ("32" if self.chance(0.1) else "")
        other = "0" if self.by < 0 and self.chance(0.5) else BOUND
        self.emit(f"{staying}{narrow} {COUNTER}, {other}, {head}", f"{out}:")
        if self.chance(0.2):
            self.emit("ldxdw r4, [r10-16]", "sub r4, 1", "stxdw [r10-16], r4")
            self.emit(f"ldxdw {COUNTER}, [r10-8]", f"jne r4, 0, {again}")
        if self.chance(0.3):
            self.emit(f"add r0, {COUNTER}", "add r0, r3")
        self.emit("exit")
        return self.code()


WIDTHS_LOG = {1: 0, 2: 1, 4: 2, 8: 3}


def case(rng: random.Random) -> Case:
    """A program on memories of a few sizes."""
    code = _Arrays(rng).program()
    inputs = [
        Input(rng.randbytes(rng.choice(SIZES)), rng.choice(LIMITS), rng.random() < 0.1) for _ in range(5)
    ]
    return Case(code, tuple(inputs))
