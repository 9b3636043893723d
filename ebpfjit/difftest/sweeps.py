"""Loops over memory, whose checks analysis makes once before them: near every bound there is.

Pointers and indexes step through the memory, up or down, by amounts that fit together or not; a
comparison of one of them ends the loop, at its top, at its bottom or in the middle, and some loops end
earlier, come round in several places, or change what should not change.
"""

from __future__ import annotations

import random

from ebpfjit.assembler import assemble
from ebpfjit.difftest.arena import MEMORY
from ebpfjit.difftest.case import Case, Input

BYTES = (0, 1, 2, 4, 7, 8, 16, 31, 255)
BYTE_WEIGHTS = (6, 1, 1, 1, 2, 2, 2, 2, 3)
SIZES = (0, 8, 24, 31, 32, 33, 40, 56, 63, 64)
STEPS = (1, 1, 1, 2, 4, 4, 8, 3, 5, -1, -1, -2, -4, -8, -3)
CONDITIONS = ("jlt", "jlt", "jle", "jne", "jne", "jgt", "jge", "jslt", "jsle", "jsgt", "jsge", "jeq")
NUMBERS = (0, 0, 1, 3, 4, 7, 8, 15, 16, 24, 31, 32, 40, 56, 60, 63, 64, 65, 80, -1, -2, -4, -8, 0x7FFFFFFF)
UPWARDS = ("jlt", "jlt", "jle", "jne", "jne", "jslt", "jsle")
DOWNWARDS = ("jgt", "jge", "jge", "jne", "jne", "jsgt", "jsge")
INVERSE = {
    "jlt": "jge", "jle": "jgt", "jgt": "jle", "jge": "jlt", "jne": "jeq", "jeq": "jne",
    "jslt": "jsge", "jsle": "jsgt", "jsgt": "jsle", "jsge": "jslt",
}  # fmt: skip
SIZE_SUFFIX = {1: "b", 2: "h", 4: "w", 8: "dw"}
LIMIT = 600

COUNTER, BOUND, INDEX, ROUNDS, POINTER, OTHER, SCRATCH = "r3", "r4", "r0", "r9", "r7", "r8", "r5"


class Writer:
    """Writes the text of one program. r1 and r6 are the memory, r2 its size."""

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng
        self.lines: list[str] = []
        self.labels = 0
        self.by = self.scale = 1
        self.makes_sense = False
        self.telling = ""  # the comparison that shows most, where a loop nearly goes wrong
        self.ends: list[int] = []  # where loops end in the memory, or a little behind

    def label(self) -> str:
        """Return a label of its own."""
        self.labels += 1
        return f"l{self.labels}"

    def number(self, register: str) -> None:
        """Give a register a number: near the memory's size, of the memory, or any."""
        rng = self.rng
        match rng.randrange(8):
            case 0 | 1 | 2:
                self.lines += [
                    f"mov {register}, r2",
                    f"add {register}, {rng.choice((0, 0, 1, -1, -4, -8, 4))}",
                ]
            case 3:
                self.lines += [f"ldxb {register}, [r6+{rng.randrange(16, 24)}]"]
            case 4 | 5 | 6:
                self.lines += [f"mov {register}, {rng.choice(NUMBERS)}"]
            case _:
                self.lines += [f"mov {register}, {rng.choice(NUMBERS)}", f"neg {register}"]

    def pointer(self, register: str) -> None:
        """Give a register an address near one of the memory's ends."""
        rng = self.rng
        self.lines.append(f"mov {register}, r1" if rng.random() < 0.85 else f"ldxdw {register}, [r1]")
        if rng.random() < 0.4:
            self.lines.append(f"add {register}, r2")
        self.lines.append(f"add {register}, {rng.choice((0, 0, 0, 8, 16, 24, -1, -4, -8, 1, 4))}")

    def access(self) -> None:
        """A load or a store somewhere."""
        rng = self.rng
        base, offset = (
            rng.choice((POINTER, POINTER, POINTER, OTHER)),
            rng.choice((0, 0, 0, 0, 1, 4, 8, -1, -4, -8)),
        )
        if rng.random() < 0.35:
            index, by = rng.choice((COUNTER, COUNTER, INDEX)), rng.choice((0, 0, 1, 2, 3))
            self.lines.append(f"mov {SCRATCH}, {index}")
            if by:
                self.lines.append(f"lsh {SCRATCH}, {by}")
            self.lines.append(f"add {SCRATCH}, {rng.choice(('r1', 'r6', POINTER, OTHER))}")
            base = SCRATCH
        size = rng.choice((1, 1, 2, 4, 4, 8))
        place, suffix = f"[{base}{offset:+}]", SIZE_SUFFIX[size]
        match rng.randrange(10):
            case 0 | 1 | 2:
                self.lines.append(f"stx{suffix} {place}, {rng.choice((COUNTER, ROUNDS))}")
            case 3:
                self.lines.append(f"st{suffix} {place}, {rng.randrange(100)}")
            case 4 | 5:  # a load, then a store to the same bytes
                self.lines += [f"ldx{suffix} r5, {place}", "add r5, 1"] if base != SCRATCH else []
                self.lines.append(f"stx{suffix} {place}, {rng.choice((COUNTER, 'r5'))}")
            case _:
                self.lines.append(f"ldx{suffix} r5, {place}")
                if rng.random() < 0.3:
                    self.lines.append("stxdw [r10-8], r5")

    def begin(self) -> None:
        """Choose what a loop does, and give its registers something to start from."""
        rng = self.rng
        self.makes_sense = rng.random() < 0.8
        if not self.makes_sense:
            self.by, self.scale = rng.choice(STEPS), rng.choice((1, 1, 1, 2, 4, 8, -1, 3))
            self.number(BOUND)
            if rng.random() < 0.3:
                self.pointer(BOUND)
            self.number(COUNTER)
            self.pointer(POINTER)
            self.pointer(OTHER)
            if rng.random() < 0.15:
                self.lines.append(f"mov {COUNTER}, {POINTER}")
            return
        # A few rounds, that get to one of the memory's ends or nearly.
        size, way = rng.choice((1, 1, 2, 4, 4, 8, 3)), rng.choice((1, 1, -1))
        self.by, self.scale = size * way, rng.choice((1, 1, 1, 2, 4, -1, -2))
        rounds = rng.randrange(1, max(2, 56 // (size * abs(self.scale))))
        near = rng.choice((0, 0, 0, 0, 1, -1, size - 1, -size))
        self.telling = "jne" if near % size else ""
        start = rng.choice((0, 0, 0, 1, 24, -size * rounds, -size * rounds - 1))
        first, last = (
            (start, start + size * rounds + near) if way > 0 else (start + size * rounds, start - near)
        )
        wraps = rng.random() < 0.3
        if wraps:  # or nearly: the last number is close to where numbers end
            close, by = rng.randrange(size), size * rounds + rng.randrange(-size, size + 1)
            first, last = (-1 - close - by, -1 - close) if way > 0 else (close + by, close)
            self.telling = rng.choice(("jlt", "jle", "jle") if way > 0 else ("jgt", "jge", "jge"))
        self.lines.append(f"mov {COUNTER}, {first}")
        if rng.random() < (0.1 if wraps else 0.4):
            self.lines.append(f"mov {BOUND}, {last}")
        else:  # a number that analysis does not follow
            self.lines += [f"stdw [r10-16], {last}", f"ldxdw {BOUND}, [r10-16]"]
        length = size * rounds * abs(self.scale)
        end = rng.choice((24, 31, 32, 33, 40, 56, 63, 64)) - length + rng.choice((0, 0, 0, 1, -1, -4, size))
        place = end if self.by * self.scale > 0 else length + rng.choice((0, 0, 1, -1, -4, -size))
        if self.by * self.scale > 0 and rng.random() < 0.3:
            place = rng.choice((0, -1, -1, -size))  # the other end is what matters
        if self.scale == 1 and way > 0 and rng.random() < 0.2:  # the counter is a pointer as well
            self.lines += [f"add {register}, r1" for register in (COUNTER, BOUND)]
            place = first
        self.lines += [f"mov {POINTER}, r1", f"add {POINTER}, {place}"]
        self.lines += [f"mov {OTHER}, r1", f"add {OTHER}, {rng.choice((0, 8, 16, 24, place))}"]
        farthest = place + (length - size * abs(self.scale) if self.by * self.scale > 0 else 0)
        self.ends += [farthest + width for width in (1, 2, 4, 8)]

    def body(self, out: str, again: str) -> None:
        """Some accesses, perhaps not in all rounds, perhaps with a way out or round."""
        rng = self.rng
        for _ in range(rng.randrange(1, 4)):
            chance = rng.random()
            if chance < 0.3:
                over = self.label()
                register = rng.choice((COUNTER, SCRATCH, INDEX))
                self.lines.append(
                    f"{rng.choice(CONDITIONS)} {register}, {rng.choice((0, 4, 8, 255))}, {over}"
                )
                self.access()
                self.lines.append(f"{over}:")
            elif chance < 0.4:
                self.lines.append(f"jeq {SCRATCH}, {rng.choice(BYTES)}, {rng.choice((out, out, again))}")
            else:
                self.access()

    def step(self) -> None:
        """What changes from round to round."""
        rng = self.rng
        lines = []
        by = rng.choice(STEPS)
        scale = rng.choice((1, 1, 1, 2, 4, 8, -1, 3))
        lines.append(f"add {COUNTER}, {by}")
        if rng.random() < 0.8:
            lines.append(
                f"add {POINTER}, {rng.choice((by * scale, by * scale, by * scale, rng.choice(STEPS)))}"
            )
        if rng.random() < 0.3:
            lines.append(f"add {OTHER}, {rng.choice(STEPS)}")
        if rng.random() < 0.3:
            lines.append(f"add {INDEX}, {rng.choice((by, 1, rng.choice(STEPS)))}")
        if rng.random() < 0.06:
            lines.append(f"add {rng.choice((BOUND, 'r6', POINTER))}, {rng.choice(('1', INDEX, 'r5'))}")
        rng.shuffle(lines)
        self.lines += lines

    def test(self, stay: str, out: str) -> None:
        """A comparison that ends the loop, or nearly."""
        rng = self.rng
        condition = rng.choice(CONDITIONS)
        if self.makes_sense:
            condition = rng.choice(UPWARDS if self.by > 0 else DOWNWARDS)
            if self.telling and rng.random() < 0.5:
                condition = self.telling
        suffix = "32" if rng.random() < 0.03 else ""
        if self.makes_sense and rng.random() < 0.95:
            if rng.random() < 0.5:
                self.lines += [f"{condition}{suffix} {COUNTER}, {BOUND}, {stay}", f"ja {out}"]
            else:
                self.lines += [f"{INVERSE[condition]}{suffix} {COUNTER}, {BOUND}, {out}", f"ja {stay}"]
            return
        other = BOUND if rng.random() < 0.7 else str(rng.choice(NUMBERS))
        a, b = rng.choice(((COUNTER, other), (COUNTER, other), (BOUND, COUNTER), (POINTER, BOUND)))
        where = (stay, out) if rng.random() < 0.5 else (out, stay)
        self.lines += [f"{condition}{suffix} {a}, {b}, {where[0]}", f"ja {where[1]}"]

    def loop(self) -> None:
        """A loop that tests at its top, at its bottom, or is entered in the middle."""
        rng = self.rng
        top, middle, out, inside = (self.label() for _ in range(4))
        kind = rng.randrange(4)
        if kind == 0:
            self.lines.append(f"{top}:")
            self.test(inside, out)
            self.lines.append(f"{inside}:")
            self.body(out, top if rng.random() < 0.3 else out)
            self.step()
            self.lines.append(f"ja {top}")
        elif kind == 1:
            self.lines.append(f"{top}:")
            self.body(out, top if rng.random() < 0.3 else out)
            self.step()
            self.test(top, out)
        elif kind == 2:
            self.lines += [f"ja {middle}", f"{top}:"]
            self.step()
            self.test(middle, out)
            self.lines.append(f"{middle}:")
            self.body(out, top)
            self.lines.append(f"ja {top}")
        else:
            self.lines.append(f"{top}:")
            self.body(out, out)
            self.test(inside, out)
            self.lines.append(f"{inside}:")
            self.body(out, out)
            self.step()
            self.lines.append(f"ja {top}")
        self.lines.append(f"{out}:")

    def program(self) -> bytes:
        """The whole program: a loop or two, perhaps inside another."""
        rng = self.rng
        self.lines += ["mov r6, r1", "mov r0, 0", "mov r5, 0"]
        outer = self.label()
        nested = rng.random() < 0.3
        if nested:
            self.lines += [f"mov {ROUNDS}, {rng.randrange(1, 4)}"]
            if rng.random() < 0.5:
                self.lines.append(f"{outer}:")
        for _ in range(rng.choice((1, 1, 2))):
            self.begin()
            self.loop()
        if nested:
            label = f"{outer}:"
            self.lines.append(f"sub {ROUNDS}, 1")
            if label in self.lines:
                self.lines.append(f"jne {ROUNDS}, 0, {outer}")
        self.lines += [f"mov r0, {rng.choice((COUNTER, 'r5', INDEX))}", "exit"]
        return assemble("\n".join(self.lines))


def case(rng: random.Random) -> Case:
    """A program on some sizes of memory, near where its loops end; its first word points to it."""
    writer = Writer(rng)
    code = writer.program()
    promised = rng.choice((0, 0, 0, 0, 24))
    inputs = []
    likely = [size + by for size in writer.ends for by in (-1, 0, 0, 1) if 8 <= size + by <= max(SIZES)]
    for size in sorted({*rng.choices(likely or SIZES, k=7), rng.choice(SIZES)}):
        content = rng.choices(BYTES, BYTE_WEIGHTS, k=64)
        memory = (MEMORY.to_bytes(8, "little") + bytes(content))[: max(size, promised)]
        inputs.append(Input(memory, LIMIT, not promised and rng.random() < 0.35))
    return Case(code, tuple(inputs), promised=promised)
