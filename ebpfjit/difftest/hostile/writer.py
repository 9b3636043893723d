"""Text of a program, line by line, with labels of its own; and the numbers where mistakes show."""

from __future__ import annotations

import random

from ebpfjit.assembler import assemble

POWERS = (7, 8, 15, 16, 31, 31, 32, 32, 32, 33, 47, 62, 63, 64)
NEAR = (-9, -8, -4, -2, -1, 0, 0, 0, 1, 2, 4, 7, 8)
WIDTHS = {1: "b", 2: "h", 4: "w", 8: "dw"}
FRAME = 512

U64 = (1 << 64) - 1


def border(rng: random.Random) -> int:
    """A number at a border of some width, of either sign, modulo 2**64."""
    return rng.choice((1, 1, 1, -1)) * (1 << rng.choice(POWERS)) + rng.choice(NEAR) & U64


def signed32(number: int) -> int:
    """The low 32 bits of a number as an imm has them."""
    return ((number & 0xFFFFFFFF) ^ 0x80000000) - 0x80000000


class Writer:
    """Writes the text of one program."""

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng
        self.lines: list[str] = []
        self._labels = 0

    def label(self) -> str:
        """Return a label of its own."""
        self._labels += 1
        return f"l{self._labels}"

    def emit(self, *lines: str) -> None:
        """Add lines."""
        self.lines += lines

    def chance(self, share: float) -> bool:
        """True in so many cases."""
        return self.rng.random() < share

    def load(self, to: str, place: str, sizes: tuple[int, ...] = (1, 2, 4, 8)) -> None:
        """A load of any size."""
        self.emit(f"ldx{WIDTHS[self.rng.choice(sizes)]} {to}, [{place}]")

    def access(self, place: str, to: str = "r0", *, stores: bool = True) -> None:
        """A load or a store (where it may be one) of any size; `to` is what is loaded, or stored."""
        width = WIDTHS[self.rng.choice((1, 1, 2, 4, 8))]
        match self.rng.randrange(0 if stores else 2, 6):
            case 0:
                self.emit(f"st{width} [{place}], {self.rng.randrange(1, 100)}")
            case 1:
                self.emit(f"stx{width} [{place}], {to}")
            case _:
                self.emit(f"ldx{width} {to}, [{place}]")

    def constant(self, register: str, number: int) -> None:
        """Give a register a number of 64 bits, in one of the ways there are."""
        number &= U64
        if number == signed32(number) & U64 and self.chance(0.7):
            self.emit(f"mov {register}, {signed32(number)}")
        elif number & (number - 1) == 0 and number and self.chance(0.3):
            self.emit(f"mov {register}, 1", f"lsh {register}, {number.bit_length() - 1}")
        else:
            self.emit(f"lddw {register}, {number:#x}")

    def code(self) -> bytes:
        """Return the program."""
        return assemble("\n".join(self.lines))
