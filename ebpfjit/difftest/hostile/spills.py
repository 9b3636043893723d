"""Programs that keep much in their frame at r10 and a number, as compilers do for want of registers.

    slots         of all sizes, apart, side by side and overlapping; read before they are written, or never
    ways          loops around them, branches that write one or not, ways into the middle of loops
    exits         accesses that fault between two writes, budgets that end anywhere
    functions     with slots of their own, called between writes
    pressure      more values than registers; a few programs let r10 escape after all
    closed        some touch nothing but their frames, through copies of r10 too: nothing is checked

A slot is a value as long as nothing else can see it; when a run leaves optimised code, or comes in, it is
in the frame.
"""

from __future__ import annotations

import random

from ebpfjit.difftest.case import Case, Input
from ebpfjit.difftest.hostile.writer import U64, WIDTHS, Writer, border

LIMITS = (25, 60, 150, 300)
KEPT = ("r0", "r3", "r4", "r5", "r6", "r7", "r8", "r9")
OPERATIONS = ("add", "sub", "xor", "or", "and", "mul", "lsh", "rsh", "arsh")
COMPARISONS = ("jeq", "jne", "jlt", "jge", "jsgt", "jsle", "jset")


class _Spills(Writer):
    """Writes one program."""

    def places(self) -> list[tuple[int, int]]:
        """Return where slots are: bytes from r10, and sizes."""
        found, at = [], 0
        for _ in range(self.rng.randrange(1, 9)):
            size = self.rng.choice((1, 2, 4, 4, 8, 8, 8, 8))
            at -= size + self.rng.choice((0, 0, 0, 8, 1, 24))
            found.append((at, size))
        if self.chance(0.15):
            at, size = self.rng.choice(found)
            found.append((at, self.rng.choice((1, 2, 4, 8))))
        return [(at, size) for at, size in found if at + size <= 0 or self.chance(0.1)]

    def slot(self) -> None:
        """Load a slot, or store to it."""
        at, size = self.rng.choice(self.slots)
        width, register = WIDTHS[size], self.rng.choice(KEPT)
        match self.rng.randrange(7):
            case 0:
                self.emit(f"st{width} [r10{at:+}], {self.rng.choice((0, 1, -1, 100, 0x7FFFFFFF))}")
            case 1 | 2 | 3:
                self.emit(f"stx{width} [r10{at:+}], {register}")
            case 4 if size < 8:
                self.emit(f"ldxs{width} {register}, [r10{at:+}]")
            case _:
                self.emit(f"ldx{width} {register}, [r10{at:+}]")

    def work(self) -> None:
        """Something else: arithmetic, a constant, an access to the memory, a branch, a call, an escape."""
        rng, one, other = self.rng, self.rng.choice(KEPT), self.rng.choice(KEPT)
        match rng.randrange(24):
            case 0 | 1 | 2 | 3 | 4:
                self.emit(f"{rng.choice(OPERATIONS)}{rng.choice(('', '32'))} {one}, {other}")
            case 5 | 6:
                self.emit(f"add {one}, {rng.choice((1, -1, 7, 255))}")
            case 7:
                self.constant(one, border(rng))
            case 8 | 9 | 10 if self.is_closed:
                at, other = rng.choice((-8, -16, -24, -64)), rng.choice(KEPT)
                self.emit(f"mov {one}, r10")
                self.access(f"{one}{at:+}", other, stores=self.chance(0.3))
            case 8 | 9 | 10:
                self.access(f"r1{rng.choice((0, 0, 1, 4, 8, 8, 16, 24, -1)):+}", one)
            case 11 | 12 | 13 | 14:
                skip = self.label()
                self.emit(f"{rng.choice(COMPARISONS)} {one}, {rng.choice((0, 1, 3, 200))}, {skip}")
                self.several(2)
                self.emit(f"{skip}:")
            case 15 if self.called:
                self.emit(
                    "stxdw [r10-256], r1", "mov r1, r0", f"call local {self.called}", "ldxdw r1, [r10-256]"
                )
                self.emit(*(f"mov {register}, r0" for register in ("r3", "r4", "r5")))
            case 16 if self.escapes:
                self.emit(f"mov {one}, r10", f"ldxdw {one}, [{one}-8]")
            case _:
                self.slot()

    def several(self, most: int) -> None:
        """Some of both."""
        for _ in range(self.rng.randrange(1, most + 1)):
            if self.chance(0.55):
                self.slot()
            else:
                self.work()

    def loop(self, depth: int, counter: str) -> None:
        """A loop that ends after some rounds."""
        head, middle = self.label(), self.label()
        at, size = self.rng.choice(self.slots)
        kept = self.chance(0.5) and size == 8 and at + size <= 0
        self.emit(f"mov {counter}, {self.rng.randrange(2, 6)}")
        if kept:  # the counter is in the frame
            self.emit(f"stxdw [r10{at:+}], {counter}")
        if self.chance(0.15):
            self.emit(f"ja {middle}")
        self.emit(f"{head}:")
        self.several(4)
        if depth and self.chance(0.5):
            self.loop(depth - 1, "r7")
        self.emit(f"{middle}:")
        self.several(4)
        if kept:
            self.emit(f"ldxdw {counter}, [r10{at:+}]")
        self.emit(f"sub {counter}, 1")
        if kept:
            self.emit(f"stxdw [r10{at:+}], {counter}")
        self.emit(f"jsgt {counter}, 0, {head}")

    def function(self, called: str) -> None:
        """A function, with slots of its own."""
        self.slots, self.called = self.places() or [(-8, 8)], called
        self.emit(*(f"mov {register}, {self.rng.choice(('r1', 'r2', '0', '-1', '77'))}" for register in KEPT))
        self.several(4)
        if self.chance(0.8):
            self.loop(1, "r9")
        self.several(6)
        at, size = self.rng.choice(self.slots)
        if at + size <= 0:
            self.emit(f"ldx{WIDTHS[size]} r3, [r10{at:+}]", "add r0, r3")
        self.emit("exit")

    def program(self) -> bytes:
        """Return a program, of two functions now and then."""
        self.escapes = self.chance(0.1)
        self.is_closed = self.chance(0.15)
        has_function = self.chance(0.35)
        self.function("other" if has_function else "")
        if has_function:
            self.emit("other:")
            self.function("")
        return self.code()


def case(rng: random.Random) -> Case:
    """A program on a few memories."""
    code = _Spills(rng).program()
    inputs = []
    for _ in range(4):
        memory = bytes(rng.choice((0, 1, 3, 127, 128, 255)) for _ in range(rng.choice((8, 16, 17, 32))))
        if rng.random() < 0.4:
            memory = (border(rng) & U64).to_bytes(8, "little") + memory[8:]
        inputs.append(Input(memory, rng.choice(LIMITS), rng.random() < 0.1))
    return Case(code, tuple(inputs))
