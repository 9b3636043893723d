"""What one path has found out about a number, believed on another: dead registers, copies, joins.

    numbers       of the memory, negated or not, each in a few registers
    paths         2 to 4 of them, each after comparisons of some copy, each leaving something else behind
    what follows  a copy plus something compared with r2 (the memory's size) or a constant; an access

The paths may lie in a loop, and may be entered in the middle.
"""

from __future__ import annotations

import random

from ebpfjit.difftest.case import Case, Input
from ebpfjit.difftest.hostile.writer import U64, Writer

LIMIT = 300
SIZES = (16, 24, 32, 32, 33, 48)
COPIES = ("r3", "r7", "r8", "r9")
"""What may hold a number; r0, r4 and r5 are for what is made of it, r6 counts rounds."""

CONDITIONS = ("jlt", "jle", "jgt", "jge", "jlt", "jgt", "jslt", "jsgt", "jsle", "jsge", "jeq", "jne")
SMALL = (0, 1, 4, 7, 8, 16, 24, 31, 32, 100, 255)


class _Paths(Writer):
    """Writes one program."""

    def fresh(self, register: str) -> None:
        """Give a register a number of its own."""
        rng = self.rng
        match rng.randrange(8):
            case 0:
                self.emit(f"mov {register}, {rng.choice(SMALL)}")
            case 1:
                self.load(register, f"r1+{rng.randrange(8)}", (1, 2, 4))
            case 2:
                self.emit(f"mov {register}, r2")
            case _:
                self.emit(f"ldxdw {register}, [r1+{rng.choice((0, 0, 0, 8))}]")
                if self.chance(0.5):
                    self.emit(rng.choice((f"neg {register}", f"xor {register}, -1", f"mul {register}, -1")))

    def start(self) -> None:
        """One or two numbers, and copies of them."""
        first, *others = self.rng.sample(COPIES, k=len(COPIES))
        self.fresh(first)
        for other in others:
            if self.chance(0.75):
                self.emit(f"mov {other}, {first}")
            else:
                self.fresh(other)

    def compare(self, target: str) -> None:
        """A comparison of a copy that says something about it."""
        rng = self.rng
        condition, one = rng.choice(CONDITIONS), rng.choice(COPIES)
        match rng.randrange(8):
            case 0 | 1:
                self.emit(f"{condition} {one}, r2, {target}")
            case 2:
                self.emit(f"{condition} {one}, {rng.choice(COPIES)}, {target}")
            case 3:
                self.emit(f"{condition}32 {one}, {rng.choice(SMALL)}, {target}")
            case _:
                self.emit(f"{condition} {one}, {rng.choice(SMALL)}, {target}")

    def left_behind(self) -> None:
        """What a path leaves: registers given up, redefined, moved, or as they are."""
        rng = self.rng
        self.emit(f"mov r5, {rng.randrange(4)}")
        while self.chance(0.35):
            register = rng.choice(COPIES)
            match rng.randrange(6):
                case 0:
                    self.fresh(register)
                case 1:
                    self.emit(f"mov {register}, {rng.choice(COPIES)}")
                case 2:
                    self.emit(f"add {register}, {rng.choice((1, 4, 8, -4, -8))}")
                case 3:
                    self.emit(f"and {register}, {rng.choice((7, 15, 31, 255))}")
                case _:
                    self.emit(f"mov r4, {rng.choice(COPIES)}", f"add r4, {rng.choice((1, 4, 8))}")

    def paths(self) -> None:
        """Paths that part and meet again."""
        rng = self.rng
        arms = [self.label() for _ in range(rng.choice((1, 1, 1, 2, 3)))]
        middles = [self.label() for _ in arms]
        join = self.label()
        if self.chance(0.15):  # into the middle of one
            self.compare(rng.choice(middles))
        for arm in arms:
            self.compare(arm)
        self.left_behind()
        self.emit(f"ja {join}")
        for arm, middle in zip(arms, middles, strict=True):
            self.emit(f"{arm}:")
            if self.chance(0.2):
                self.compare(join)
            self.left_behind()
            self.emit(f"{middle}:", f"ja {join}" if self.chance(0.8) else f"mov r5, {rng.randrange(4)}")
        self.emit(f"{join}:")

    def use(self, out: str) -> None:
        """An access at a number, behind a comparison that is enough, or is with what is believed."""
        rng = self.rng
        number = rng.choice(COPIES)
        past = rng.choice((out, out, self.label()))
        self.emit(f"mov r4, {number}")
        if self.chance(0.85):
            self.emit(f"add r4, {rng.choice((1, 2, 4, 8, 8, 8, 12, 16, 24))}")
        match rng.randrange(6):
            case 0:
                self.emit(f"{rng.choice(('jgt', 'jge', 'jsgt'))} r4, {rng.choice((8, 16, 32))}, {past}")
            case 1:
                self.emit(f"jlt r2, r4, {past}")
            case _:
                self.emit(f"{rng.choice(('jgt', 'jgt', 'jge', 'jsgt'))} r4, r2, {past}")
        below = self.chance(0.2)
        self.emit(
            f"mov r5, {'r10' if below else 'r1'}", f"add r5, {rng.choice((number, number, number, 'r4'))}"
        )
        self.access(f"r5{rng.choice((-64, -40, -16)) if below else rng.choice((0, 0, 0, 1, 4, 8, -8)):+}")
        if past != out:
            self.emit(f"{past}:")

    def program(self) -> bytes:
        """Return a program of some joins."""
        again, out = self.label(), self.label()
        loops = self.chance(0.25)
        self.emit("mov r0, 0", f"mov r6, {self.rng.randrange(1, 4)}")
        starts_inside = loops and self.chance(0.5)
        if not starts_inside:
            self.start()
        if loops:
            self.emit(f"{again}:")
        if starts_inside:
            self.start()
        for _ in range(self.rng.choice((1, 1, 2))):
            self.paths()
        for _ in range(self.rng.choice((1, 1, 2))):
            self.use(out)
        if loops:
            self.emit("sub r6, 1", f"jne r6, 0, {again}")
        self.emit("exit", f"{out}:", "mov r0, 1", "exit")
        return self.code()


def _word(rng: random.Random) -> int:
    """A number that is small, of either sign: added to, it wraps; as a distance, it is near."""
    return rng.choice((rng.randrange(40), -rng.randrange(1, 17), rng.randrange(1, 17))) & U64


def case(rng: random.Random) -> Case:
    """A program on memories of a few sizes and contents."""
    code = _Paths(rng).program()
    inputs = []
    for _ in range(6):
        memory = b"".join(_word(rng).to_bytes(8, "little") for _ in range(2)) + rng.randbytes(32)
        inputs.append(Input(memory[: rng.choice(SIZES)], LIMIT, rng.random() < 0.1))
    return Case(code, tuple(inputs))
