"""Functions that are entered in every way there is: called, by address, by a helper; main as well.

    main            calls back, by bpf_loop or bpf_for_each_map_elem: itself, others, what is no function
    each function   does with its registers what the start of main, or an earlier call, would allow

What a function is given is what the caller chose: a distance, a pointer, a number at a border.
"""

from __future__ import annotations

import random

from ebpfjit.difftest.case import UNTYPED, Case, Input
from ebpfjit.difftest.hostile import frames
from ebpfjit.difftest.hostile.writer import FRAME, WIDTHS, Writer, border
from ebpfjit.difftest.packets import ARRAY, HASH
from ebpfjit.runtime.execution import CODE_ADDRESS
from ebpfjit.runtime.helpers.names import NUMBERS, UPDATE

LIMIT = 600
LOOP, FOR_EACH = NUMBERS["bpf_loop"], NUMBERS["bpf_for_each_map_elem"]
TYPES = ("xdp", "xdp", "tc", "kprobe", UNTYPED)
CONTEXT_SIZE = {"xdp": 24, "tc": 192, "kprobe": 64, UNTYPED: 64}

AT_THE_START = ("r2", "r3", "r4", "r3", "r4", "r7", "r8", "r9")
"""Registers that are zero where a run starts."""


class _Callbacks(Writer):
    """Writes one program of some functions; `functions` are their labels, main's first."""

    def __init__(self, rng: random.Random, type_: str) -> None:
        super().__init__(rng)
        self.functions = [self.label() for _ in range(rng.choice((1, 2, 2, 3, 3, 4)))]
        self.type = type_

    def function_address(self, register: str) -> None:
        """The address of a function, or of something that looks like one."""
        rng = self.rng
        pick = rng.random()
        if pick < 0.06:
            self.emit(f"lddw {register}, {CODE_ADDRESS + rng.randrange(-2, 60):#x}")
        elif pick < 0.1:
            self.emit(f"lddw {register}, {rng.choice((0, 1, border(rng))):#x}")
        else:
            name = self.functions[0] if self.chance(0.4) else rng.choice(self.functions)
            self.emit(f"lddw {register}, {name}")
            if self.chance(0.04):  # into its middle
                self.emit(f"add {register}, {rng.choice((1, 2, 3, -1))}")

    def gift(self, register: str) -> None:
        """What a callback is given."""
        rng = self.rng
        match rng.randrange(8):
            case 0 | 1 | 2 | 3:
                near = rng.choice((8, 64, FRAME, 1024, 4096, 1 << 16, 1 << 20, border(rng)))
                self.constant(register, rng.choice((1, 1, 1, -1)) * near + rng.choice((0, 0, 8, -8)))
            case 4:
                self.emit(f"mov {register}, r10", f"add {register}, {-rng.choice((8, 64, FRAME))}")
            case 5:
                self.emit(f"mov {register}, r6")
            case _:
                self.emit(f"mov {register}, {rng.choice((0, 1, 7, 8, 16))}")

    def call_back(self) -> None:
        """A helper that calls a function of the program."""
        rng = self.rng
        if self.chance(0.5):
            self.function_address("r2")
            self.gift("r3")
            self.emit(f"mov r1, {rng.choice((1, 1, 1, 2, 3, 0))}", "mov r4, 0", f"call {LOOP}")
            return
        self.function_address("r2")
        self.gift("r3")
        self.emit(
            f"lddw r1, map[idx:{rng.choice((ARRAY, ARRAY, ARRAY, HASH))}]", "mov r4, 0", f"call {FOR_EACH}"
        )

    def call(self) -> None:
        """A call of a function, by its name or its address."""
        rng = self.rng
        for register in rng.sample(("r1", "r2", "r3", "r4"), k=2):
            self.gift(register)
        if self.chance(0.5):
            self.emit(f"call {rng.choice(self.functions[1:] or self.functions)}")
        else:
            self.function_address("r5")
            if self.chance(0.3):  # by way of the frame
                self.emit("stxdw [r10-64], r5", "ldxdw r5, [r10-64]")
            self.emit("callx r5")

    def use(self, alive: tuple[str, ...], *, tame: bool = False) -> None:
        """An access that is right if a register is what it may be taken for.

        Where it is `tame` it is right at the start of a run.
        """
        rng = self.rng
        register = rng.choice(alive)
        match rng.randrange(6 if tame else 8):
            case 0 | 1 | 2:  # a number from the start of the run, which would be zero
                self.emit("mov r5, r10", f"add r5, {register}")
                self.access(f"r5{rng.choice((-8, -8, -16, -64, -FRAME)):+}")
            case 3:
                self.emit(f"mov r5, {'r1' if tame else rng.choice(('r1', 'r6'))}", f"add r5, {register}")
                self.access(f"r5{rng.choice((0, 0, 4, 8)):+}", stores=not tame)
            case 4 | 5:  # the context, or what somebody put in its place
                most = CONTEXT_SIZE[self.type]
                size = rng.choice((4, 4, 8))
                place = rng.randrange(most // size) * size
                self.emit(
                    f"ldx{WIDTHS[size]} r0, [{'r1' if tame else rng.choice(('r1', 'r1', 'r6'))}{place:+}]"
                )
            case 6:
                self.access(f"{register}{rng.choice((0, 0, 4, 8, 60)):+}")
            case _:
                self.access(f"r10{rng.choice((-8, -16, -64, -FRAME)):+}")

    def body(self, index: int) -> None:
        """What a function does; in main it is asked first whether it was called back."""
        rng = self.rng
        alive = (
            ("r2", "r3", "r4", "r3", "r4", "r7", "r8", "r9") if index == 0 else ("r1", "r2", "r3", "r4", "r6")
        )
        asked = rng.choice(("r2", "r3", "r4", "r4"))
        called = self.label()
        if index == 0 and self.chance(0.85):
            what = rng.choice(("jne", "jne", "jeq")) if asked == "r2" else "jne"
            self.emit(f"{what} {asked}, {0 if what == 'jne' else 1}, {called}")
        elif index == 0:
            self.use(alive, tame=True)
        if self.chance(0.4):
            self.use(alive, tame=index == 0)
        self.emit("mov r6, r1")
        if self.chance(0.15):
            frames.find_frame(self, "r7", "r5")
            self.emit(f"add r7, {-FRAME * rng.choice((0, 1, 1, 2)) + rng.choice((-8, 0, 8, -64))}")
            self.access("r7+0", "r0")
            self.put("r0")
        for _ in range(rng.choice((1, 1, 2)) if index == 0 else rng.choice((0, 0, 1))):
            if self.chance(0.75):
                self.call_back()
            else:
                self.call()
            if self.chance(0.3):
                self.put("r0")
        if self.chance(0.4):
            self.use(("r6", "r7", "r8", "r9"), tame=self.chance(0.5))
        self.end()
        self.emit(f"{called}:")
        for _ in range(rng.choice((1, 1, 2))):
            self.use(alive)
        self.end()

    def put(self, register: str) -> None:
        """Leave a register's value in the array, where it is compared."""
        place = self.rng.randrange(4)
        self.emit(
            f"stxdw [r10-32], {register}", f"stw [r10-4], {place}",
            f"lddw r1, map[idx:{ARRAY}]", "mov r2, r10", "add r2, -4", "mov r3, r10",
            "add r3, -32", "mov r4, 0", f"call {UPDATE}",
        )  # fmt: skip

    def end(self) -> None:
        """Leave a function; what it returns ends a helper's loop, or not."""
        self.emit(f"mov r0, {self.rng.choice((0, 0, 0, 1))}" if self.chance(0.6) else "and r0, 1", "exit")

    def program(self) -> bytes:
        """Return the program."""
        for index, name in enumerate(self.functions):
            self.emit(f"{name}:")
            self.body(index)
        return self.code()


def case(rng: random.Random) -> Case:
    """A program of some type, and its packet or context."""
    type_ = rng.choice(TYPES)
    code = _Callbacks(rng, type_).program()
    return Case(code, (Input(rng.randbytes(64), LIMIT),), type=type_)
