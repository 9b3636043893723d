"""What compilers write for one thing that the machine does, as it should be, and not quite.

arithmetic   constants that are nothing, chains of them, shifts up and down, copies of 32 bits
rotations    two shifts of a value, joined; by what does not add up, of what has changed
bytes        numbers put together of bytes, taken apart, in either order; stored to in between
addresses    an index, scaled and added; used once more, or out of bounds
selects      a jump over a move, or over two
remainders   a number without its quotient times the divisor; of another one, or by another one
operands     what is loaded is added, compared, or changed and stored; where it was, or next to it
"""

from __future__ import annotations

import random

from ebpfjit.difftest.arena import SUM
from ebpfjit.difftest.case import Case, Input
from ebpfjit.difftest.hostile.writer import FRAME, WIDTHS, Writer, border, signed32

SIZE = 64
LIMITS = (40, 400, 4000, 4000)
VALUES = ("r0", "r3", "r4", "r5", "r7", "r8")
OPERATIONS = ("add", "sub", "mul", "div", "mod", "or", "and", "xor", "lsh", "rsh", "arsh", "sdiv", "smod")
CONSTANTS = (
    0,
    0,
    1,
    1,
    -1,
    2,
    3,
    5,
    7,
    8,
    9,
    15,
    16,
    31,
    32,
    33,
    48,
    56,
    63,
    64,
    255,
    256,
    0xFFFF,
    0x7FFFFFFF,
)
EXTENSIONS = ("mov32", "movsx864", "movsx1664", "movsx3264", "movsx832", "movsx1632")
JUMPS = ("jeq", "jne", "jgt", "jge", "jlt", "jle", "jsgt", "jsge", "jslt", "jsle", "jset")


class Idioms(Writer):
    """Writes a program in which r6 points to memory, r9 counts rounds and the others are any numbers."""

    def value(self) -> str:
        """Return one of the registers."""
        return self.rng.choice(VALUES)

    def others(self, count: int) -> list[str]:
        """Return different registers."""
        return self.rng.sample(VALUES, count)

    def number(self) -> int:
        """Return a constant."""
        return self.rng.choice(CONSTANTS) if self.chance(0.8) else signed32(border(self.rng))

    def place(self, size: int = 8) -> str:
        """Return where in memory, or in the frame, an access has room."""
        if self.chance(0.2):
            return f"r10-{self.rng.choice((8, 16, 24, 32))}"
        return f"r6+{self.rng.randrange(SIZE - size)}"

    # -- the parts --

    def arithmetic(self) -> None:
        """Operations on few registers, so that each meets what the one before made."""
        names = self.others(2)
        for _ in range(self.rng.randrange(1, 7)):
            dst, src = self.rng.choice(names), self.rng.choice(names)
            wide = self.rng.choice(("", "", "32"))
            match self.rng.randrange(10):
                case 0:
                    self.emit(f"{self.rng.choice(EXTENSIONS)} {dst}, {src}")
                case 1:
                    self.constant(dst, border(self.rng) if self.chance(0.5) else self.number())
                case 2:
                    self.emit(f"neg{wide} {dst}")
                case 3:
                    self.emit(
                        f"{self.rng.choice(('be', 'le', 'bswap'))}{self.rng.choice((16, 32, 64))} {dst}"
                    )
                case 4 | 5:
                    self.emit(f"{self.rng.choice(OPERATIONS)}{wide} {dst}, {src}")
                case 6:
                    up = self.rng.choice((8, 16, 24, 31, 32, 32, 48, 56))
                    down = self.rng.choice((up, up, up, up - 3, up + 1, 30))
                    self.emit(f"lsh {dst}, {up}", f"{self.rng.choice(('rsh', 'arsh'))} {dst}, {down}")
                case _:
                    self.emit(f"{self.rng.choice(OPERATIONS)}{wide} {dst}, {self.number()}")

    def masked(self) -> None:
        """A number of few bits, and what is cut off behind an operation with it."""
        value, mask = self.value(), self.rng.choice((1, 15, 255, 255, 0xFFFF))
        self.emit(f"and {value}, {mask}")
        operand = self.value() if self.chance(0.2) else str(self.rng.choice((1, mask, mask // 2, 3)))
        if self.chance(0.7):
            self.emit(f"{self.rng.choice(('add', 'add', 'mul', 'or', 'lsh', 'xor'))} {value}, {operand}")
        match self.rng.randrange(3):
            case 0:
                self.emit(f"and {value}, {self.rng.choice((mask, 255, 0xFFFF))}")
            case 1:
                self.emit(f"rsh {value}, {mask.bit_length()}")
            case _:
                self.emit(f"stx{self.rng.choice(('b', 'h', 'w', 'dw'))} [{self.place()}], {value}")
                self.emit(f"mov {value}, {self.number()}")

    def rotation(self) -> None:
        """Two shifts of one value, joined."""
        wide, bits = self.rng.choice((("", 64), ("32", 32)))
        value, other, result = self.others(3)
        by = self.rng.randrange(1, bits)
        rest = bits - by if self.chance(0.85) else self.rng.randrange(bits)
        first, second = self.rng.choice((("lsh", "rsh"), ("rsh", "lsh")))
        if wide and self.chance(0.3):
            self.emit(f"mov32 {value}, {value}")
        copies = "mov" if self.chance(0.7) else "mov32"
        self.emit(f"{copies} {other}, {value}", f"{first}{wide} {other}, {by}")
        if self.chance(0.2):
            self.arithmetic()
        self.emit(f"mov{wide} {result}, {value}")
        self.emit(f"{second}{wide if self.chance(0.9) else ''} {result}, {rest}")
        joined = f"{self.rng.choice(('or', 'or', 'xor', 'add'))}{wide if self.chance(0.9) else ''}"
        self.emit(f"{joined} {result}, {other}")

    def gathered(self) -> None:
        """Bytes, loaded one by one and put together, perhaps of two pieces."""
        size = self.rng.choice((2, 2, 4, 4, 8))
        piece = self.rng.choice((1, 1, 1, 2)) if size > 2 else 1
        start = self.rng.randrange(SIZE - size)
        places = [*range(0, size, piece)]
        order = places if self.chance(0.5) else places[::-1]
        result, byte = self.others(2)
        wide = "32" if size <= 4 and self.chance(0.4) else ""
        mistake = self.rng.randrange(12)
        ways = [*zip(order, places, strict=True)]
        if self.chance(0.5):
            self.rng.shuffle(ways)
        changed = self.rng.randrange(len(ways) - 1) if 1 < mistake < 6 and len(ways) > 1 else None
        for index, (place, at) in enumerate(ways):
            to = byte if index else result
            shift = 8 * at + (8 if mistake == 0 and not index else 0)
            self.emit(f"ldx{WIDTHS[piece]} {to}, [r6+{start + place + (mistake == 1 and index == 1)}]")
            if shift:
                self.emit(f"lsh{wide} {to}, {shift}")
            if index == changed:  # to what was loaded before, mostly
                at = start + self.rng.choice((*[way[0] for way in ways[: index + 1]], ways[-1][0]))
                stored = self.rng.choice((self.value(), str(self.rng.randrange(128))))
                self.emit(
                    f"st{'x' if stored[0] == 'r' else ''}{self.rng.choice('bbbhw')} [r6+{at}], {stored}"
                )
            if index:
                self.emit(f"{self.rng.choice(('or', 'or', 'add', 'xor'))}{wide} {result}, {byte}")
        if self.chance(0.3):
            self.emit(f"be{self.rng.choice((16, 32, 64))} {result}")

    def swapped(self) -> None:
        """Bytes in network order, loaded or stored."""
        size = self.rng.choice((2, 4, 8))
        value, place = self.value(), self.place()
        bits = 8 * size if self.chance(0.8) else self.rng.choice((16, 32, 64))
        swap = f"{self.rng.choice(('be', 'bswap'))}{bits} {value}"
        if self.chance(0.5):
            self.emit(f"ldx{WIDTHS[size]} {value}, [{place}]", swap)
        else:
            self.emit(swap, f"stx{WIDTHS[size]} [{place}], {value}")

    def address(self) -> None:
        """An element of an array: base, index and scale, each of which may be used again."""
        index, sum_, other = self.others(3)
        shift = self.rng.choice((0, 1, 2, 3, 3, 4))
        if self.chance(0.97):
            self.emit(f"and {index}, {self.rng.choice((1, 3, 3, 7))}")
        elif self.chance(0.5):
            self.emit(f"mov32 {index}, {index}")
        self.emit(f"mov {other}, {index}")
        if self.chance(0.2):
            self.emit(f"lsh {other}, 32", f"{self.rng.choice(('rsh', 'arsh'))} {other}, {32 - shift}")
        elif shift and self.chance(0.8):
            self.emit(f"lsh {other}, {shift}")
        elif shift:
            self.emit(f"mul {other}, {1 << shift}")
        lines = [f"add {sum_}, {other}"]
        if self.chance(0.3):
            steps = (1, 1, 2, 8, -1, -8, 0x7FFFFFFF) if self.chance(0.3) else (1, 4)
            lines.append(f"add {sum_}, {self.rng.choice(steps)}")
            self.rng.shuffle(lines)
        in_frame = self.chance(0.2)
        self.emit(f"mov {sum_}, {'r10' if in_frame else 'r6'}", *lines)
        low = -64 if in_frame else -FRAME if self.chance(0.03) else 0
        for _ in range(self.rng.randrange(1, 4)):
            self.access(f"{sum_}{low + self.rng.choice((0, 0, 0, 4, 8)):+}", self.value())

    def select(self) -> None:
        """A jump over a move, or two; perhaps both ways have one."""
        dst, src, other = self.others(3)
        over, out = self.label(), self.label()
        wide = self.rng.choice(("", "32"))
        operand = self.rng.choice((other, src, dst, str(self.number())))
        has_else, compared = self.chance(0.3), self.value()
        if self.chance(0.15):
            self.emit(f"mov {compared}, {self.rng.choice((0, 255, 0x7FFFFFFF, self.number()))}")
            operand = self.value()
        self.emit(f"{self.rng.choice(JUMPS)}{wide} {compared}, {operand}, {over}")
        for _ in range(self.rng.choice((1, 1, 1, 2))):
            moved = self.rng.choice((src, src, other, str(self.number())))
            self.emit(
                f"{self.rng.choice(('mov', 'mov', 'mov32', 'add'))} {self.rng.choice((dst, other))}, {moved}"
            )
        if has_else:
            self.emit(f"ja {out}", f"{over}:", f"mov {dst}, {self.number()}", f"{out}:")
        else:
            self.emit(f"{over}:")

    def operand(self) -> None:
        """What is loaded is used once, perhaps behind a store to where it was."""
        size = self.rng.choice((1, 2, 4, 4, 8, 8))
        value, other = self.others(2)
        place, width = self.place(), WIDTHS[size]
        wide = self.rng.choice(("", "32"))
        self.emit(f"ldx{width} {value}, [{place}]")
        if self.chance(0.15):
            self.emit(f"stx{self.rng.choice('bhw')} [{place}], {other}")
        if self.chance(0.1):
            self.arithmetic()
        operand = self.rng.choice((other, str(self.number())))
        match self.rng.randrange(4):
            case 0:
                self.emit(f"{self.rng.choice(OPERATIONS)}{wide} {other}, {value}")
            case 1:
                self.emit(f"{self.rng.choice(OPERATIONS)}{wide} {value}, {operand}")
                where = place if self.chance(0.9) else self.place()
                self.emit(f"stx{width if self.chance(0.9) else 'b'} [{where}], {value}")
            case _:
                over = self.label()
                pair = (other, value) if self.chance(0.3) else (value, operand)
                self.emit(f"{self.rng.choice(JUMPS)}{wide} {pair[0]}, {pair[1]}, {over}")
                self.emit(f"xor {self.value()}, {self.value()}", f"{over}:")
        if self.chance(0.7):
            self.emit(f"mov {value}, {self.number()}")

    def remainder(self) -> None:
        """What a number is more than a multiple of another one; of two more numbers now and then."""
        number, by, quotient, other = self.others(4)
        wide = self.rng.choice(("", "32"))
        mistake = self.rng.randrange(10)
        self.emit(f"mov{wide if self.chance(0.9) else ''} {quotient}, {number}")
        self.emit(f"{self.rng.choice(('div', 'div', 'div', 'sdiv'))}{wide} {quotient}, {by}")
        if mistake == 0:
            self.emit(f"mov {other}, {quotient}")
        if mistake == 1:
            self.emit(f"add{wide} {self.rng.choice((number, by, quotient))}, 1")
        self.emit(f"mul{wide if mistake != 2 else ''} {quotient}, {other if mistake == 3 else by}")
        self.emit(f"sub{wide} {other if mistake == 4 else number}, {quotient}")
        if self.chance(0.7):
            self.emit(f"mov {quotient}, {self.number()}")

    def called(self) -> None:
        """A call, behind which little is kept."""
        self.emit(f"call {SUM}", *(f"mov {name}, r7" for name in ("r3", "r4", "r5")))

    def body(self) -> None:
        """Some of the parts."""
        parts = (
            *(self.arithmetic, self.masked, self.rotation, self.gathered, self.swapped),
            *(self.address, self.select, self.operand, self.remainder),
        )
        for _ in range(self.rng.randrange(2, 8)):
            (self.called if self.chance(0.03) else self.rng.choice(parts))()


def case(rng: random.Random) -> Case:
    """A program on two memories; what its registers hold in the end is stored."""
    writer = Idioms(rng)
    writer.emit("mov r6, r1")
    for index, name in enumerate(VALUES):
        writer.emit(f"ldxdw {name}, [r6+{8 * index}]")
    for offset in (8, 16, 24, 32):
        writer.emit(f"stxdw [r10-{offset}], {writer.value()}")
    if writer.chance(0.3):
        again = writer.label()
        writer.emit("mov r9, 3", f"{again}:")
        writer.body()
        writer.emit("sub r9, 1", f"jne r9, 0, {again}")
    writer.body()
    for name in VALUES[1:]:
        writer.emit("mul r0, 31", f"add r0, {name}")
    writer.emit("exit")
    memories = [
        b"".join(
            rng.choice((rng.randrange(256), border(rng), rng.getrandbits(64))).to_bytes(8, "little")
            for _ in range(8)
        )
        for _ in range(2)
    ]
    return Case(writer.code(), tuple(Input(memory, rng.choice(LIMITS)) for memory in memories))
