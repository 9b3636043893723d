"""Keys and values taken from inside of maps, of frames and of packets, for operations on the same maps.

    r6  the context      r7  a value's address      r8  another's      r9  all that was seen, mixed

Entries are deleted, and put out by others, while their addresses are held; an LRU map is full all the time.
"""

from __future__ import annotations

import random

from ebpfjit.difftest.case import Case, Input
from ebpfjit.difftest.hostile.writer import Writer
from ebpfjit.difftest.packets import ARRAY, HASH
from ebpfjit.runtime.helpers.names import DELETE, LOOKUP, NUMBERS, UPDATE

LRU, LONG_KEYS, PER_CPU, QUEUE = range(5, 9)
"""Maps of the hostile set beside those of `packets`."""

KEY_SIZES = {ARRAY: 4, HASH: 8, LRU: 4, LONG_KEYS: 20, PER_CPU: 4}
VALUE_SIZES = {ARRAY: 24, HASH: 24, LRU: 16, LONG_KEYS: 8, PER_CPU: 24, QUEUE: 24}
KEYED = tuple(KEY_SIZES)
PUSH, POP, PEEK = (NUMBERS[f"bpf_map_{name}_elem"] for name in ("push", "pop", "peek"))
LIMIT = 600


class _Overlaps(Writer):
    """Writes one program; `filled` are the maps that have entries."""

    def __init__(self, rng: random.Random) -> None:
        super().__init__(rng)
        self.filled = rng.sample(KEYED, k=rng.choice((1, 1, 1, 2)))

    def key(self, map_: int, number: int) -> None:
        """Put a key together at r10 - 24."""
        self.emit(f"stdw [r10-24], {number}", f"lddw r1, map[idx:{map_}]", "mov r2, r10", "add r2, -24")

    def fill(self) -> None:
        """Entries whose bytes are all different, one of them held in r7, one in r8."""
        rng = self.rng
        self.emit("stdw [r10-16], 0", "stdw [r10-8], 0", "stdw [r10-24], 0", "mov r7, r10", "add r7, -64")
        self.emit("mov r8, r10", "add r8, -96")
        number = rng.getrandbits(60)
        for map_ in self.filled:
            keys = range(2) if map_ in (LRU, LONG_KEYS, PER_CPU) else range(3)
            for key in keys:
                for word in range(3):
                    number = number * 0x5851F42D4C957F2D + 1 & (1 << 64) - 1
                    self.emit(f"lddw r0, {number:#x}", f"stxdw [r10-{96 - 8 * word}], r0")
                self.key(map_, key)
                self.emit("mov r3, r10", "add r3, -96", "mov r4, 0", f"call {UPDATE}")
            for register, key in zip(("r7", "r8"), rng.sample(keys, k=2), strict=True):
                if self.chance(0.85):
                    self.look_up(map_, key, register)

    def look_up(self, map_: int, key: int, register: str) -> None:
        """Hold a value's address, if there is one."""
        missing = self.label()
        self.key(map_, key)
        self.emit(f"call {LOOKUP}", f"jeq r0, 0, {missing}", f"mov {register}, r0", f"{missing}:")

    def pointer(self, register: str) -> None:
        """An address inside of what is held, or of the frame, near something."""
        rng = self.rng
        base = rng.choice(("r7", "r7", "r7", "r7", "r8", "r8", "r8", "r10"))
        offset = (
            -96 + 8 * rng.randrange(10)
            if base == "r10"
            else rng.choice((0, 0, 1, 2, 4, 8, 8, 12, 16, -8, -4, -1))
        )
        self.emit(f"mov {register}, {base}", f"add {register}, {offset}")

    def operation(self) -> None:
        """One operation of a map with such addresses."""
        rng = self.rng
        map_ = rng.choice(self.filled if self.chance(0.8) else KEYED)
        match rng.randrange(12):
            case 0 | 1 | 2 | 3 | 4:
                self.key(map_, rng.randrange(3))
                if self.chance(0.25):
                    self.pointer("r2")
                self.pointer("r3")
                self.emit(f"mov r4, {rng.choice((0, 0, 0, 1, 2, 3))}", f"call {UPDATE}")
            case 5 | 6:
                self.key(map_, rng.randrange(4))
                if self.chance(0.3):
                    self.pointer("r2")
                self.emit(f"call {DELETE}")
            case 7:
                self.key(map_, rng.randrange(4))
                self.pointer("r2")
                missing = self.label()
                self.emit(f"call {LOOKUP}", f"jeq r0, 0, {missing}", "mov r7, r0", f"{missing}:", "mov r0, 0")
            case 8:
                self.look_up(map_, rng.randrange(4), rng.choice(("r7", "r8")))
                self.emit("mov r0, 0")
            case 9:
                self.emit(f"lddw r1, map[idx:{QUEUE}]")
                self.pointer("r2")
                self.emit("mov r3, 0", f"call {rng.choice((PUSH, PUSH, POP, PEEK))}")
            case 10:
                self.access(f"{rng.choice(('r7', 'r8'))}{rng.choice((0, 4, 8, 16)):+}", "r9")
            case _:
                self.emit(f"ldxdw r0, [{rng.choice(('r7', 'r8'))}+0]")
        if self.chance(0.8):
            self.emit("add r9, r0", "mul r9, 31")


def case(rng: random.Random) -> Case:
    """A program on the hostile maps."""
    writer = _Overlaps(rng)
    writer.emit("mov r6, r1", "mov r9, 0")
    writer.fill()
    for _ in range(rng.randrange(1, 6)):
        writer.operation()
    writer.emit("mov r0, r9", "exit")
    return Case(
        writer.code(), (Input(rng.randbytes(64), LIMIT),), type=rng.choice(("xdp", "tc")), maps="hostile"
    )
