"""Loops whose counters, pointers and tests fit each other, or nearly do.

    counters      up and down by 1 to 8, on 32 and 64 bits, from numbers near both ends of their range
    pointers      that step beside a counter: in the memory, in the frame; that were spilled to the frame
    bounds        the memory's size, something more or less or a part of it, its end, numbers, a word of it
    tests         before, in the middle or at the end of a round; of the counter, or of something beside it
    ways          into the middle; around a step; two tests, two jumps back, by parts elsewhere; a loop
                  inside, or around

What is known of a counter in all rounds must be so in the first and the last one, and in those that follow
after it has wrapped. Some loops are plain.
"""

from __future__ import annotations

import random

from ebpfjit.difftest.case import Case, Input
from ebpfjit.difftest.hostile.writer import U64, Writer, border

LIMITS = (40, 150, 150, 400)
SIZES = (8, 16, 17, 24, 32, 40, 64, 64)
COUNTER, BOUND, POINTER, OUTER = "r6", "r7", "r8", "r9"
STAYING = ("jlt", "jlt", "jlt", "jle", "jne", "jne", "jgt", "jge", "jslt", "jsgt", "jsle", "jsge", "jeq")
STEPS = (1, 1, 1, 1, 2, 4, 4, 8, 3, -1, -1, -1, -2, -4)


class _Rounds(Writer):
    """Writes one program."""

    is_plain = False
    """Whether it is one loop as compilers write them, so that all passes apply, and has nothing odd."""

    def chance(self, share: float) -> bool:
        """True in so many cases; never for what is odd in plain programs."""
        return super().chance(share) and not (self.is_plain and share < 0.25)

    def number(self, register: str) -> None:
        """Give a register a number to start from or to stop at."""
        rng = self.rng
        match rng.randrange(11):
            case 0 | 1:
                self.emit(f"mov {register}, r2")
            case 2:
                self.emit(f"mov {register}, r2", f"add {register}, {rng.choice((-8, -4, -2, -1, 1, 2, 8))}")
            case 3 | 4:
                self.shift = rng.choice((1, 2, 3))
                part = (
                    f"rsh {register}, {self.shift}"
                    if self.chance(0.7)
                    else f"div {register}, {1 << self.shift}"
                )
                self.emit(f"mov {register}, r2", part)
            case 5:
                self.constant(register, border(rng))
            case 6:
                self.load(register, f"r1+{rng.randrange(3)}")
                if self.chance(0.7):
                    self.emit(f"and {register}, {rng.choice((7, 15, 63))}")
            case _:
                self.emit(f"mov {register}, {rng.choice((0, 0, 0, 1, 2, 4, 7, 8, 15, 16, 32))}")

    def start(self) -> None:
        """Give everything what it has before the first round."""
        rng = self.rng
        self.emit("mov r0, 0")
        self.number(COUNTER)
        self.number(BOUND)
        if self.is_plain:  # there are rounds to be done
            self.emit(f"mov {COUNTER if self.by > 0 else BOUND}, {rng.randrange(3)}")
        if self.chance(0.3):  # the end of the memory
            self.emit(f"mov {BOUND}, r1", f"add {BOUND}, r2")
            self.is_end = True
        self.emit(f"mov {POINTER}, {'r1' if self.in_memory else 'r10'}")
        by = (
            rng.choice((0, 0, 0, 1, 4, 8, -1)) if self.in_memory else rng.choice((-64, -32, -16, -8, -512, 0))
        )
        if by:
            self.emit(f"add {POINTER}, {by}")
        if self.chance(0.2):
            self.emit(f"add {POINTER}, {COUNTER}")

    def address(self) -> str:
        """Make an address of the counter; return it with a displacement."""
        rng = self.rng
        if self.chance(0.4 if not self.spilled else 0.25):
            return f"{POINTER}{0 if self.is_plain else rng.choice((0, 0, 0, 1, -1, 4, -8)):+}"
        narrow = "32" if self.chance(0.2) else ""
        self.emit(f"mov{narrow} r5, {COUNTER}")
        match rng.randrange(6):
            case 0 | 3 if self.shift:
                self.emit(f"lsh{narrow} r5, {self.shift}")
            case 0:
                self.emit(f"lsh{narrow} r5, {rng.choice((1, 2, 3))}")
            case 1:
                self.emit(f"and r5, {rng.choice((1, 3, 7, 15))}")
            case 2:
                self.emit(f"add{narrow} r5, {rng.choice((1, -1, 2, 8))}")
        if self.spilled and self.chance(0.6):
            self.emit(f"ldxdw r4, [r10{self.spilled}]", "add r5, r4")
            return "r5+0"
        if self.is_plain:
            self.emit("add r5, r1")
            return "r5+0"
        in_frame = self.chance(0.2)
        self.emit(f"add r5, {'r10' if in_frame else rng.choice(('r1', 'r1', 'r1', POINTER))}")
        return f"r5{rng.choice((-16, -32, -8)) if in_frame else rng.choice((0, 0, 0, 1, 4, -1, 8)):+}"

    def step(self) -> None:
        """Go on by a step, perhaps not always."""
        rng, skip = self.rng, self.label()
        skips = self.chance(0.12)
        if skips:
            self.emit(f"jset r0, {rng.choice((1, 2, 128))}, {skip}")
        narrow = "32" if self.is_narrow else ""
        self.emit(f"add{narrow} {COUNTER}, {self.by}")
        if self.chance(0.06):
            self.emit(f"add{narrow} {COUNTER}, {rng.choice(STEPS)}")
        if skips and self.chance(0.5):
            self.emit(f"{skip}:")
            skips = False
        if self.chance(0.12):
            self.emit(f"add {POINTER}, {self.stride}")
        elif self.chance(0.85):
            self.emit(f"add {POINTER}, {self.by * rng.choice((1, 1, 1, 2, 4, 8, -1))}")
        if skips:
            self.emit(f"{skip}:")

    def test(self, target: str, *, leaves: bool) -> None:
        """A comparison of the counter, the pointer, or something beside them; another one where it leaves."""
        rng = self.rng
        condition = rng.choice(
            STAYING if not self.is_plain else ("jlt", "jne") if self.by > 0 else ("jgt", "jne")
        )
        narrow = "32" if self.is_narrow or self.chance(0.1) else ""
        one = POINTER if self.is_end and self.chance(0.85) else COUNTER
        if self.chance(0.2):
            self.emit(f"mov{narrow} r4, {one}", f"add{narrow} r4, {rng.choice((1, -1, 2, 3, 8))}")
            one = "r4"
        other = BOUND if self.chance(0.8) else str(rng.choice((0, 1, 8, 16, 31)))
        if leaves:
            opposite = {"jlt": "jge", "jle": "jgt", "jgt": "jle", "jge": "jlt", "jne": "jeq", "jeq": "jne"}
            condition = opposite.get(condition, condition)
        if other == BOUND and self.chance(0.15):
            one, other = other, one
        self.emit(f"{condition}{'' if self.is_end else narrow} {one}, {other}, {target}")

    def body(self, out: str) -> None:
        """What a round does."""
        rng = self.rng
        if self.spilled and self.chance(0.5):  # next to it, or there
            self.emit(f"mov r5, {COUNTER}", f"and r5, {rng.choice((1, 3, 7, 15))}", "add r5, r10")
            near = self.spilled - rng.choice((1, 2, 4, 8, 16, 24, 24))
            self.emit(f"st{rng.choice('bhw')} [r5{near:+}], {rng.randrange(1, 100)}")
        for _ in range(rng.choice((1, 1, 2, 3))):
            skip = self.label()
            skips = self.chance(0.15)
            if skips:
                self.emit(f"jset r0, {rng.choice((1, 4))}, {skip}")
            self.access(self.address(), "r0", stores=not self.spilled or self.chance(0.25))
            if skips:
                self.emit(f"{skip}:")
        if self.chance(0.25):
            self.beside()
        if self.chance(0.25):
            self.test(out, leaves=True)
        if self.spilled and self.chance(0.1):
            self.emit(f"stxdw [r10{self.spilled}], {rng.choice((POINTER, 'r1'))}")
        if self.chance(0.05):
            self.emit("mov r1, r6", "call 5", "exit")

    def beside(self) -> None:
        """A part of a round that lies behind the program, from where a jump leads back."""
        aside, back = self.label(), self.label()
        self.emit(f"jset r0, {self.rng.choice((1, 4, 7))}, {aside}", f"{back}:")
        inside, self.lines = self.lines, [f"{aside}:"]
        self.access(self.address(), "r0")
        self.emit(f"ja {back}")
        self.behind += self.lines
        self.lines = inside

    def loop(self, depth: int) -> None:
        """A loop, with another one inside where there may be."""
        head, middle, out = self.label(), self.label(), self.label()
        if self.chance(0.5):  # as compilers guard them
            self.test(out, leaves=True)
        if self.chance(0.15):
            self.test(middle, leaves=False)
        self.emit(f"{head}:")
        if self.chance(0.3):
            self.test(out, leaves=True)
        self.body(out)
        if depth and self.chance(0.6):
            self.loop(depth - 1)
        steps_first = self.chance(0.15)
        if self.chance(0.15):  # another jump back
            self.step()
            self.test(head, leaves=False)
        self.emit(f"{middle}:")
        if steps_first:
            self.body(out)
        self.step()
        self.test(head, leaves=False)
        self.emit(f"{out}:")

    def program(self) -> bytes:
        """Return a program of one loop, or two."""
        rng = self.rng
        self.is_plain = self.chance(0.3)
        self.in_memory, self.is_narrow, self.by = self.chance(0.7), self.chance(0.2), rng.choice(STEPS)
        self.is_end, self.shift, self.stride = False, 0, rng.choice((BOUND, "r2", "r2", "r0"))
        self.behind: list[str] = []
        self.start()
        self.spilled = -8 * rng.randrange(1, 6) if self.chance(0.25) else 0
        if self.spilled:
            self.emit(f"stxdw [r10{self.spilled}], r1")
        again = self.label()
        around = self.chance(0.2)
        if around:
            self.emit(f"mov {OUTER}, {rng.randrange(1, 4)}", f"{again}:")
            if self.chance(0.7):
                self.number(COUNTER)
        self.loop(1 if self.chance(0.2) else 0)
        if around:
            self.emit(f"sub {OUTER}, 1", f"jne {OUTER}, 0, {again}")
        self.emit("exit", *self.behind)
        return self.code()


def case(rng: random.Random) -> Case:
    """A program on memories of a few sizes."""
    code = _Rounds(rng).program()
    inputs = []
    for _ in range(5):
        memory = bytes(rng.choice((0, 1, 3, 7, 8, 15, 255)) for _ in range(rng.choice(SIZES)))
        if rng.random() < 0.3:
            memory = (border(rng) & U64).to_bytes(8, "little") + memory[8:]
        inputs.append(Input(memory, rng.choice(LIMITS), rng.random() < 0.1))
    return Case(code, tuple(inputs))
