"""Packets between the ends that contexts say, in line and in loops; pointers that are taken for theirs.

    r6  the context      r7  data, or another end      r8  the packet's end      r9  all that was seen, mixed

What the optimizer asks of packets at once must hold for each size and place: of pointers that were the
packet's before a helper moved it, and of those that are made of one and lead to the context, to the frame or
to a map. Programs without a type do the same to their memory.
"""

from __future__ import annotations

import random

from ebpfjit.difftest.case import UNTYPED, Case, Input
from ebpfjit.difftest.hostile.writer import WIDTHS, Writer
from ebpfjit.runtime.helpers.names import NUMBERS

LIMIT = 600
DATA, END, SEEN = "r7", "r8", "r9"
TYPES = ("xdp", "xdp", "xdp", "tc", "tc", "cgroup_skb", "lwt_xmit", UNTYPED)
FIELDS = {"xdp": (0, 4, 8)}
SKB_FIELDS = (76, 80, 140)
"""Where data, data_end and data_meta are in a context."""
STEPS = (1, 1, 1, 2, 2, 3, 4, 4, 8, -1, -1, -2, -4)
TESTS = ("jgt", "jgt", "jge", "jge", "jne", "jlt", "jsgt")
PLACES = (0, 0, 0, 1, 2, 4, 8, 12, 14, 16, 18, 30, 34, 36)
SIZES = (1, 2, 4, 8)


class _Ends(Writer):
    """Writes one program."""

    def __init__(self, rng: random.Random, type_: str) -> None:
        super().__init__(rng)
        self.type = type_
        self.fields = FIELDS.get(type_, SKB_FIELDS)
        self.writes = type_ in ("xdp", "tc", UNTYPED) or self.chance(0.2)

    def ends(self) -> None:
        """Ask the context where the packet is; without one it is the memory."""
        rng, (data, end, meta) = self.rng, self.fields
        if self.type == UNTYPED:
            self.emit(f"mov {DATA}, r6", f"ldxdw {END}, [r10-8]", f"add {END}, r6")
        else:
            start = meta if self.chance(0.1) and self.type in ("xdp", "tc") else data
            lines = [f"ldxw {DATA}, [r6+{start}]", f"ldxw {END}, [r6+{end}]"]
            if self.chance(0.5):
                lines.reverse()
            self.emit(*lines)
        if self.chance(0.15):
            self.astray()
        if self.chance(0.06):  # the other way round
            self.emit(
                f"mov r2, {DATA}", f"mov {DATA}, {END}", f"mov {END}, r2", f"add {END}, {rng.randrange(9)}"
            )

    def astray(self) -> None:
        """Have the pointer lead elsewhere, by a number that nobody follows."""
        rng = self.rng
        match rng.randrange(4):
            case 0:
                self.emit("mov r2, r10", f"add r2, {-rng.choice((64, 16, 8))}")
            case 1:
                self.emit("lddw r2, map[idx:0]")
            case _:
                self.emit("mov r2, r6", f"add r2, {self.field() - rng.choice((0, 0, 0, 2, 4))}")
        self.emit(f"sub r2, {DATA}", f"xor r2, {SEEN}", f"xor r2, {SEEN}")
        if self.chance(0.5):
            self.emit(f"mov {END}, {DATA}", f"add {END}, r2", f"add {END}, {rng.choice((2, 4, 8, 40))}")
        self.emit(f"add {DATA}, r2")

    def touch(self, base: str, offset: int, size: int = 0) -> None:
        """A load or a store of some size."""
        rng = self.rng
        width = WIDTHS[size or rng.choice(SIZES)]
        if self.writes and self.chance(0.3):
            self.emit(f"stx{width} [{base}{offset:+}], {SEEN}")
        else:
            self.emit(f"ldx{width} r0, [{base}{offset:+}]", f"add {SEEN}, r0")

    def field(self) -> int:
        """Return where a field of the context starts."""
        return self.rng.choice((*self.fields, 0, 4, 8, 16, 48, 144, 168))

    def halves(self, base: str, offset: int) -> None:
        """Two that lie side by side: together they are as long as another access may be."""
        size = self.rng.choice((1, 2, 2, 4))
        self.touch(base, offset, size)
        self.touch(base, offset + size, size)

    def context(self) -> None:
        """Accesses to the context, in its own sizes and in others; perhaps by an address that hides it."""
        base = self.rng.choice(("r6", "r3", "r3"))
        if base == "r3":
            start = DATA if self.chance(0.7) else "r10"
            self.emit("mov r2, r6", f"sub r2, {start}", f"xor r2, {SEEN}", f"xor r2, {SEEN}")
            self.emit(f"mov r3, {start}", "add r3, r2")
        if self.chance(0.6):
            self.halves(base, self.field())
        else:
            self.touch(base, self.field(), 4)
            self.touch(base, self.field())

    def parse(self, out: str) -> None:
        """A comparison with the end, and accesses that it is enough for, or nearly."""
        rng = self.rng
        room = rng.choice((1, 2, 4, 14, 20, 34, 40, 54))
        self.emit(
            f"mov r2, {DATA}", f"add r2, {room}", f"{rng.choice(('jgt', 'jgt', 'jge'))} r2, {END}, {out}"
        )
        if self.chance(0.2):  # both ways touch the same
            other, on = self.label(), self.label()
            place, size = rng.choice(PLACES), rng.choice(SIZES)
            self.emit(f"jset {SEEN}, {rng.choice((1, 2))}, {other}")
            self.touch(DATA, place, size)
            self.emit(f"ja {on}", f"{other}:")
            self.touch(DATA, place, size)
            self.emit(f"{on}:")
            self.touch(DATA, place, size)
        if self.chance(0.3):
            self.halves(DATA, rng.choice((0, 0, *PLACES)))
        for _ in range(rng.choice((1, 2, 3, 4))):
            size = rng.choice(SIZES)
            inside = max(0, rng.randrange(room) - size + 1)
            self.touch(DATA, inside if self.chance(0.85) else rng.choice(PLACES), size)
            if self.chance(0.2):
                self.emit(f"jset {SEEN}, {rng.choice((1, 2, 4))}, {out}")
        if self.chance(0.3):
            self.emit(f"ldxb r2, [{DATA}+{rng.randrange(room)}]", f"and r2, {rng.choice((3, 15, 31))}")
            self.emit(f"add {DATA}, r2")

    def loop(self) -> None:
        """Rounds over the packet, to its end or so often."""
        rng = self.rng
        step, head, out = rng.choice(STEPS), self.label(), self.label()
        pointer, number = "r3", "r4"
        self.emit(f"mov {pointer}, {DATA if step > 0 else END}", f"mov {number}, 0")
        by = rng.choice((0, 0, 14, 1, 2, 34, -1)) if step > 0 else -rng.choice((1, 1, 2, 4, 8, 0))
        self.emit(f"add {pointer}, {by}")
        limit = rng.choice((3, 8, 16, 20, 40))
        ahead = rng.choice((abs(step), abs(step), 1, 0, 2, 4))
        is_indexed = self.chance(0.25)

        def test() -> None:
            if self.chance(0.75):
                target, condition = (
                    (END, rng.choice(TESTS)) if step > 0 else (DATA, rng.choice(("jlt", "jle", "jeq")))
                )
                self.emit(f"mov r5, {pointer}", f"add r5, {ahead if step > 0 else 0}")
                if is_indexed:
                    self.emit(f"add r5, {number}")
                self.emit(f"{condition} r5, {target}, {out}")
            else:
                self.emit(f"{rng.choice(('jge', 'jgt', 'jeq'))} {number}, {limit}, {out}")

        early = self.chance(0.5)
        self.emit(f"{head}:")
        if early:
            test()
        for _ in range(rng.choice((1, 1, 2, 3))):
            skip = self.label()
            skips = self.chance(0.2)
            if skips:
                self.emit(f"jset r0, {rng.choice((1, 4))}, {skip}")
            if is_indexed:
                self.emit(f"mov r5, {pointer}", f"add r5, {number}")
            self.touch("r5" if is_indexed else pointer, rng.choice((0, 0, 0, 1, 2, 3, 4, -1)))
            if skips:
                self.emit(f"{skip}:")
        if not is_indexed:
            self.emit(f"add {pointer}, {step}")
        self.emit(f"add {number}, {rng.choice((1, 1, 1, abs(step)))}")
        if not early or self.chance(0.2):
            test()
        self.emit(f"{rng.choice(('jlt', 'jne'))} {number}, {limit * 4}, {head}", f"{out}:")

    def move(self) -> None:
        """Have a helper move the packet; what points to it may be left as it was."""
        rng = self.rng
        by = rng.choice((-1, 1)) * rng.choice((1, 4, 14, 20))
        if self.type == "xdp":
            name = rng.choice(("bpf_xdp_adjust_head", "bpf_xdp_adjust_tail", "bpf_xdp_adjust_meta"))
            self.emit("mov r1, r6", f"mov r2, {by}", f"call {NUMBERS[name]}")
        elif self.type == "tc":
            self.emit("mov r1, r6", f"mov r2, {rng.choice((20, 34, 60))}", "mov r3, 0")
            self.emit(f"call {NUMBERS['bpf_skb_change_tail']}")
        if self.chance(0.7):
            self.ends()

    def program(self) -> bytes:
        """Return a program of a few such parts."""
        rng = self.rng
        self.emit("mov r6, r1", "stxdw [r10-8], r2", f"mov {SEEN}, 0", "mov r0, 0")
        self.ends()
        out = self.label()
        for _ in range(rng.choice((1, 2, 2, 3))):
            match rng.randrange(8):
                case 0 | 1 | 2:
                    self.parse(out)
                case 3:
                    self.move()
                case 4 if self.chance(0.5):
                    self.context()
                case _:
                    self.loop()
        self.emit(f"{out}:", f"mov r0, {SEEN}", "exit")
        return self.code()


def case(rng: random.Random) -> Case:
    """A program on a packet, on packets of a few lengths."""
    type_ = rng.choice(TYPES)
    frame = rng.randbytes(12) + b"\x08\x00\x45" + rng.randbytes(100)
    lengths = rng.sample((14, 15, 20, 33, 34, 35, 40, 53, 54, 55, 64, 100), 3)
    inputs = tuple(Input(frame[:length], rng.choice((LIMIT, LIMIT, 60))) for length in lengths)
    return Case(_Ends(rng, type_).program(), inputs, type=type_)
