"""Small functions that are called again and again: those that are inlined, and those that are almost such.

before each call     r1 to r5 any numbers; r7 and r8 too, which a function may write, and gives back
a function           arithmetic, choices, returns in the middle; seldom a loop, an access, r10, another call
behind each call     r0 to r5 as the function left them

Limits end runs in the middle of functions, at each of their blocks.
"""

from __future__ import annotations

import random

from ebpfjit.difftest.case import Case, Input
from ebpfjit.difftest.hostile.idioms import JUMPS, VALUES, Idioms
from ebpfjit.difftest.hostile.writer import border

ARGUMENTS = ("r1", "r2", "r3", "r4", "r5")


class _Calls(Idioms):
    """Writes a program with functions, by name."""

    def __init__(self, rng: random.Random) -> None:
        super().__init__(rng)
        self.functions = [self.label() for _ in range(rng.randrange(1, 4))]

    def value(self) -> str:
        """Return one of the registers that may differ."""
        return self.rng.choice((*VALUES, "r1", "r2"))

    def call(self) -> None:
        """A call, with other numbers."""
        for name in self.rng.sample(ARGUMENTS, self.rng.randrange(3)):
            self.emit(f"mov {name}, {self.rng.choice(('r7', 'r8', str(self.number())))}")
        self.emit(f"call {self.rng.choice(self.functions)}")

    def oddity(self, after: list[str]) -> None:
        """What keeps a function from being inlined."""
        match self.rng.randrange(4):
            case 0:
                again = self.label()
                self.emit("mov r9, 2", f"{again}:", "add r0, r1", "sub r9, 1", f"jne r9, 0, {again}")
            case 1:
                self.emit(f"ldxb r3, [r6+{self.rng.randrange(64)}]")
            case 2:
                self.emit("mov r4, r10")
            case _ if after:
                self.emit(f"call {self.rng.choice(after)}")

    def function(self, index: int) -> None:
        """A function: a few parts, and returns."""
        self.emit(f"{self.functions[index]}:")
        if self.chance(0.9):
            self.emit(f"mov r0, {self.value()}")
        for _ in range(self.rng.randrange(1, 4)):
            match self.rng.randrange(6):
                case 0 | 1:
                    self.arithmetic()
                case 2:
                    self.select()
                case 3 if self.chance(0.3):
                    self.oddity(self.functions[index + 1 :])
                case 4:
                    out = self.label()
                    self.emit(f"{self.rng.choice(JUMPS)} {self.value()}, {self.number()}, {out}")
                    self.arithmetic()
                    self.emit("exit", f"{out}:")
                case _:
                    self.emit(f"{self.rng.choice(('add', 'xor', 'mul'))} r0, {self.value()}")
        self.emit("exit")

    def round(self) -> None:
        """A few calls, and what idioms have, in between."""
        for _ in range(self.rng.randrange(1, 4)):
            self.call()
            if self.chance(0.5):
                self.emit(f"stxdw [{self.place()}], {self.value()}")
            match self.rng.randrange(4):
                case 0:
                    self.arithmetic()
                case 1:
                    self.select()
                case 2:
                    self.operand()


def case(rng: random.Random) -> Case:
    """A program that calls functions, in a loop or not."""
    writer = _Calls(rng)
    writer.emit("mov r6, r1")
    for index, name in enumerate((*VALUES, "r1", "r2")):
        writer.emit(f"ldxdw {name}, [r6+{8 * index}]")
    if writer.chance(0.6):
        again = writer.label()
        writer.emit(f"mov r9, {rng.randrange(1, 6)}", f"{again}:")
        writer.round()
        writer.emit("sub r9, 1", f"jne r9, 0, {again}")
    writer.round()
    for name in (*VALUES[1:], "r1", "r2"):
        writer.emit("mul r0, 31", f"add r0, {name}")
    writer.emit("exit")
    for index in range(len(writer.functions)):
        writer.function(index)
    memories = [
        b"".join(
            rng.choice((rng.randrange(256), border(rng), rng.getrandbits(64))).to_bytes(8, "little")
            for _ in range(8)
        )
        for _ in range(3)
    ]
    limits = (rng.randrange(20, 60), rng.randrange(20, 200), 4000)
    return Case(writer.code(), tuple(Input(*each) for each in zip(memories, limits, strict=True)))
