"""Programs full of copied and moved pointers: what analysis proves of them must hold.

They have few registers, loops, joins, and many accesses near the bounds of memory that lies in the
middle of what is mapped: an access that a wrong proof lets through is seen as a fault that is
missing, or as a byte changed outside.
"""

from __future__ import annotations

import random
from typing import Any

from ebpfjit.difftest.arena import GRANT, GRANTED, HAND_BACK, MEMORY, SUM
from ebpfjit.difftest.case import Case, Input
from ebpfjit.difftest.generate import plain, spilled
from ebpfjit.isa.spec import Reg
from ebpfjit.isa.table import BY_NAME

POINTERS = (0, 1, 2, 3, 6, 7)
COUNTERS = (4, 8, 9)
ALL = (*POINTERS, *COUNTERS)

LOADS = ("LDXB", "LDXH", "LDXW", "LDXDW", "LDXSW", "LOAD_ACQW")
STORES = ("STB", "STH", "STW", "STDW", "STXB", "STXH", "STXW", "STXDW")
ATOMICS = ("ATOMIC_ADD64", "ATOMIC_FETCH_ADD64", "ATOMIC_XCHG32", "ATOMIC_CMPXCHG64", "ATOMIC_FETCH_OR32")
SIZE = {"B": 1, "H": 2, "W": 4, "DW": 8}
BRANCHES = ("JEQ", "JNE", "JGT", "JGE", "JLT", "JLE", "JSGT", "JSLT", "JSET")
SCALAR_OPERATIONS = ("AND", "OR", "XOR", "LSH", "RSH", "ARSH", "MUL", "DIV", "MOD", "SDIV", "ADD", "SUB")


LIMIT = 150
BYTES = (0, 1, 2, 4, 7, 8, 16, 31, 255)
BYTE_WEIGHTS = (6, 1, 1, 1, 2, 2, 2, 2, 3)
SIZES = (0, 12, 16, 20, 24, 32, 33, 40, 47, 64)


class Writer:
    """Writes one program, slot by slot; every instruction takes one slot, so jumps may go anywhere."""

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng
        self.slots: list[bytes] = []
        self.size = 0
        self.near = rng.choice((8, 16, 24, 32))
        self.writes_frame_pointer = rng.random() < 0.04
        self.functions: list[int] = []
        self.stores_what_was_loaded = False
        # Some programs are about frames that other functions had before: calls, and no helpers, which
        # would see all frames.
        self.calls_functions = rng.random() < 0.2
        # Some compare numbers with the size of the memory, which r2 is at the start and r5 stays.
        self.measures = not self.calls_functions and rng.random() < 0.5

    def emit(self, *args: Any, **fields: Any) -> None:
        """Add the slot of a row, named, with its fields."""
        if self.measures and self.keeps(*args) and self.rng.random() < 0.95:
            args = (args[0], self.rng.choice((0, 3, 6, 7)), *args[2:])
        self.slots.append(plain(*args, **fields))

    def keeps(self, name: str, *registers: int) -> bool:
        """True where an instruction would write what programs that measure had better keep."""
        return registers[:1] in ((1,), (2,), (5,)) and BY_NAME[name].dst in (Reg.WRITE, Reg.UPDATE)

    def start(self) -> None:
        """Give registers something to start from: mostly copies of r1, so that accesses hit."""
        chance = self.rng.random()
        if chance < 0.4:
            self.indexed(at_start=True)
        elif chance < 0.7:
            self.shown_before()
        elif chance < 0.8:
            self.tables()
        if self.measures:
            self.slots.append(plain("MOV64_X", 5, 2))
        for register in POINTERS:
            if register != 1 and not (register == 2 and self.measures):
                is_stack = self.rng.random() < 0.2
                self.emit("MOV64_X", register, 10 if is_stack else 1)
                if is_stack:
                    self.emit("ADD64_K", register, imm=-self.rng.choice((8, 16, 24, 504, 512)))
        if self.rng.random() < 0.4:
            self.fresh_value(self.rng.choice(POINTERS))
        if self.rng.random() < 0.5:
            self.emit("MOV64_K", 9, imm=self.rng.randrange(1, 5))

    def fresh_value(self, register: int) -> None:
        """Give a register a value of another kind."""
        match self.rng.randrange(12):
            case 0 | 1 | 2 | 3 | 4 | 5:
                self.emit("MOV64_X", register, self.rng.choice(POINTERS))
            case 6 | 7 | 8:
                self.emit("MOV64_X", register, 10)
                if self.rng.random() < 0.8:
                    self.emit("ADD64_K", register, imm=-self.rng.choice((8, 16, 24, 504, 505, 512, 513)))
            case 9:
                # The memory holds two pointers: to itself and to more that is allowed.
                self.emit("LDXDW", register, self.rng.choice(POINTERS), self.rng.choice((0, 0, 8)))
            case 10:
                self.emit("LDXB", register, self.rng.choice(POINTERS), self.rng.randrange(0, 20))
            case _:
                self.emit("MOV64_K", register, imm=self.rng.choice((0, 1, 2, 7, 8, 16, 31, -1, -8, 511)))

    def access(self) -> None:
        """A load, store or atomic, mostly near a bound."""
        rng = self.rng
        name = rng.choice(rng.choice((LOADS, LOADS, STORES, STORES, ATOMICS)))
        row = BY_NAME[name]
        base = 10 if rng.random() < 0.15 else rng.choice(POINTERS)
        if base == 10:
            offset = -rng.choice((8, 8, 16, 16, 24, 32, 504, 505, 508, 512))
            if rng.random() < 0.05:
                offset = rng.choice((-1, 0, 8, -513))
        elif rng.random() < 0.9:
            offset = rng.choice((0, 0, 0, 1, 2, 4, 8, 8, 16))
        else:
            offset = rng.choice((self.near, self.near - row.size, self.near - row.size + 1, -1, -8, 24, 32))
        if row.is_ordered and rng.random() < 0.98:
            offset -= offset % row.size
        loads = name in LOADS
        other = rng.choice(COUNTERS if loads and rng.random() < 0.9 else ALL)
        self.emit(name, other if loads else base, base if loads else other, offset, rng.randrange(0, 100))

    def indexed(self, *, at_start: bool = False) -> None:
        """An access to the frame at an index that is bounded somehow, mostly well enough."""
        rng = self.rng
        index, pointer = rng.choice(COUNTERS), rng.choice(POINTERS)
        most = rng.choice((3, 7, 15, 31))
        if at_start:
            pointer = rng.choice((0, 3, 6, 7))
        if at_start and rng.random() < 0.5:
            self.emit("MOV64_X", index, 2)  # the size of the memory
        else:
            # What lies before 16 are the two pointers: mostly zeros.
            place = rng.choice((16, 17, 18, 19, rng.randrange(0, 20)))
            self.emit("LDXB", index, 1 if at_start else rng.choice((1, 1, pointer)), place)
        name = rng.choice(("STXB", "STXDW", "STH", "LDXB", "LDXW"))
        row = BY_NAME[name]
        bits = rng.choice((32, 64))
        match rng.randrange(5):
            case 0 | 1:
                self.emit(f"AND{bits}_K", index, imm=most)
            case 2:
                self.emit(f"MOD{bits}_K", index, imm=most + 1)
            case 3:
                condition = rng.choice(("JGT", "JGT", "JGE", "JLT", "JLE", "JEQ", "JNE"))
                self.emit(f"{condition}{rng.choice(('', '32'))}_K", index, 0, 4, most)
            case _:
                self.emit(rng.choice(("JLT_K", "JLE32_K")), index, 0, 1, most + 1)
                self.emit("MOV64_K", index, imm=0)
        room = rng.choice((most + row.size, most + 1, most + 8, *[(most + 1) // 2 + row.size] * 2))
        self.emit("MOV64_X", pointer, 10)
        self.emit("ADD64_K", pointer, imm=-room)
        self.emit("ADD64_X", pointer, index)
        loads = name.startswith("LD")
        self.emit(name, index if loads else pointer, pointer if loads else index, 0, 77)

    def tables(self) -> None:
        """Look-ups in the memory at bounded distances, loads and stores, in one block or two."""
        rng = self.rng
        most, scale = rng.choice((3, 7, 15)), rng.choice((0, 0, 1, 2))
        pointer, other = rng.sample((0, 3, 6, 7), 2)
        for _ in range(rng.randrange(2, 5)):
            index = rng.choice(COUNTERS)
            if rng.random() < 0.7:
                self.emit("LDXB", index, 1, rng.randrange(20))
            else:
                self.emit("RSH64_K", index, imm=rng.randrange(8))
            self.emit(rng.choice(("AND64_K", "AND64_K", "AND32_K", "MOD64_K")), index, imm=most)
            if scale:
                self.emit("LSH64_K", index, imm=scale)
            self.emit("MOV64_X", pointer, 1)
            self.emit("ADD64_X", pointer, index)
            name, offset = rng.choice((*LOADS[:4], *STORES)), rng.choice((0, 0, 4, 8, 16, self.near))
            loads = name in LOADS
            self.emit(name, other if loads else pointer, pointer if loads else other, offset, 55)
            if rng.random() < 0.2:
                self.emit("JEQ_K", other, offset=rng.randrange(2), imm=rng.choice(BYTES))
                self.emit("MOV64_X", other, index)

    def shown_before(self) -> None:
        """An access behind another one, which shows less than it needs: other rights, place, path."""
        rng = self.rng
        pointer, other = rng.choice((0, 2, 3, 6, 7)), rng.choice(COUNTERS)
        load, store = rng.choice(LOADS[:4]), rng.choice(STORES)
        room, by = rng.choice((0, 8, 16, 24, 32, 40, 56)), rng.choice((1, 4, 8, 16))
        self.emit("MOV64_X", pointer, 1)
        match rng.randrange(3):
            case 0:  # a load, then a store in another block
                self.emit("LDXDW", other, pointer, room)
                self.emit(f"{rng.choice(BRANCHES)}_K", other, offset=rng.randrange(2), imm=rng.choice(BYTES))
                self.emit("ADD64_K", other, imm=1)
            case 1:  # the pointer moves
                self.emit("LDXDW", other, pointer, by)
                self.emit(rng.choice(("SUB64_K", "SUB64_K", "ADD64_K")), pointer, imm=by)
                room = rng.choice((0, 0, 0, -by, by))
            case _:  # one of two ways has a load
                way, no_way = ("LDXDW", other, pointer, room), ("ADD64_K", other, 0, 0, 1)
                ways = (way, no_way) if rng.random() < 0.7 else (no_way, way)
                self.emit("LDXB", other, pointer, rng.choice((0, 1, 4)))
                self.emit(
                    f"{rng.choice(BRANCHES)}_K", rng.choice((2, other)), offset=2, imm=rng.choice(BYTES)
                )
                self.emit(*ways[0])
                self.emit("JA", offset=1)
                self.emit(*ways[1])
        name = rng.choice((load, store))
        self.stores_what_was_loaded |= name == store
        self.emit(name, other if name == load else pointer, pointer if name == load else other, room, 66)

    def measured(self) -> None:
        """An access at an index that was compared with the size of the memory, mostly well enough."""
        rng = self.rng
        index, size = rng.choice(COUNTERS), rng.choice((2, 5, 5))
        name = rng.choice(("LDXB", "LDXB", "STB", "STXB", "LDXW", "STXW", "LDXDW", "STXDW", "ATOMIC_ADD64"))
        row = BY_NAME[name]
        by = rng.choice((0, 0, 1, row.size, row.size, row.size - 1, 8))
        pointer = rng.choice((0, 3, 6, 7))
        match rng.randrange(9):
            case 0:
                self.emit("MOV64_K", index, imm=rng.choice((0, 0, 1, 8, 16)))
            case 1 | 2:
                self.emit("LDXB", index, 1, rng.choice((0, 7, 16, 17, 18)))
            case 3:
                self.emit("ADD64_K", index, imm=rng.choice((1, 2, 8, -1, -8)))
            case 5 | 6:
                self.emit("LDXB", index, 1, rng.randrange(16, 20))
                by = by or rng.choice((row.size, 8, 16))
                self.emit("NEG64", index)  # wraps where something is added
            case 4:
                self.emit("MOV64_X", index, size)
                self.emit("ADD64_K", index, imm=rng.choice((-1, -row.size, -8, -16, 1)))
        loads = name.startswith("LD")
        body: list[tuple[Any, ...]] = [
            ("MOV64_X", pointer, rng.choice((1, 1, 1, 1, 3))),
            ("ADD64_X", pointer, index),
        ]
        offset = rng.choice((0, 0, 0, by - row.size, by - row.size + 1, -1, -row.size, 1))
        for at in (offset, offset + row.size)[: rng.choice((1, 1, 2))]:
            other = rng.choice((4, 8, 9)) if loads else rng.choice(COUNTERS)
            registers = (other, pointer) if loads else (pointer, other)
            body.append((name, *registers, at, 77 if name == "STB" else 0))
        compared = index
        if by and rng.random() < 0.8:
            compared = rng.choice((0, 3))
            self.emit("MOV64_X", compared, index)
            self.emit("ADD64_K", compared, imm=by)
        skip = len(body) + rng.choice((0, 0, 0, 1))
        match rng.randrange(8):
            case 0 | 1 | 2:
                self.emit(rng.choice(("JGT_X", "JGT_X", "JGE_X", "JNE_X")), compared, size, skip)
            case 3 | 4:
                self.emit(rng.choice(("JLT_X", "JLT_X", "JLE_X", "JEQ_X")), size, compared, skip)
            case 5:
                self.emit(rng.choice(("JLT_K", "JLE_K", "JNE_K")), size, 0, skip, rng.choice((8, 16, 17, 24)))
            case 6:  # a loop
                start = len(self.slots)
                for args in body:
                    self.emit(*args)
                self.emit("ADD64_K", index, imm=rng.choice((1, 1, row.size)))
                jump = start - len(self.slots) - 1
                self.emit(rng.choice(("JLT_X", "JLT_X", "JLE_X")), index, size, jump)
                return
            case _:
                self.emit(rng.choice(("JGT32_X", "JSGT_X", "JSGE_X")), compared, size, skip)
        for args in body:
            self.emit(*args)

    def move(self) -> None:
        """Copy or move a pointer."""
        rng = self.rng
        dst = rng.choice(POINTERS)
        match rng.randrange(40):
            case n if n < 15:
                self.emit("MOV64_X", dst, rng.choice(POINTERS))
            case n if n < 30:
                by = rng.choice((1, 1, 2, 4, 8, 8, 16, -1, -2, -4, -8, -8, -16))
                if rng.random() < 0.75:
                    self.emit("ADD64_K", dst, imm=by)
                else:
                    self.emit("SUB64_K", dst, imm=-by)
            case n if n < 35:
                self.emit(rng.choice(("ADD64_X", "SUB64_X")), dst, rng.choice(COUNTERS))
            case 35:
                self.emit(rng.choice(("ADD64_X", "SUB64_X", "ADD32_X")), dst, rng.choice(ALL))
            case 36:
                self.emit("SUB64_K", dst, imm=rng.choice((1, 4, 8, -8, 0x7FFFFFFF, -0x80000000)))
            case 37:
                self.emit(rng.choice(("MOV32_X", "MOVSX64_32", "BE64", "NEG64")), dst, rng.choice(POINTERS))
            case _:
                self.fresh_value(dst)

    def count(self) -> None:
        """Something with a scalar whose bounds are kept."""
        rng = self.rng
        dst = rng.choice(COUNTERS)
        match rng.randrange(6):
            case 0:
                self.emit("MOV64_K", dst, imm=rng.choice((0, 1, 2, 3, 4, 8, 8, 500, -1)))
            case 1:
                self.emit("LDXB", dst, rng.choice(POINTERS), rng.randrange(0, 8))
                self.emit("AND64_K", dst, imm=rng.choice((1, 3, 7, 15, 8)))
            case 2 | 3:
                width = rng.choice((32, 64))
                operation = rng.choice(SCALAR_OPERATIONS)
                self.emit(f"{operation}{width}_K", dst, imm=rng.choice((0, 1, 2, 3, 7, 8, 15, 248, -1, 504)))
            case 4:
                operation = rng.choice(SCALAR_OPERATIONS)
                self.emit(f"{operation}{rng.choice((32, 64))}_X", dst, rng.choice(COUNTERS))
            case _:
                self.emit(rng.choice(("MOV64_X", "MOV32_X", "MOVSX64_8")), dst, rng.choice(ALL))

    def branch(self) -> None:
        """A jump, often back."""
        rng = self.rng
        here = len(self.slots)
        if rng.random() < 0.45:
            target = rng.randrange(0, here + 1)  # a loop, or into the middle of one
        else:
            target = min(here + rng.randrange(2, 9), self.size - 1)
        offset = target - here - 1
        suffix = rng.choice(("", "", "32"))
        match rng.randrange(8):
            case 0:
                self.emit("JA", offset=offset)
            case 1:
                self.emit("MAY_GOTO", offset=max(offset, 0))
            case 2 | 3:
                self.emit("SUB64_K", 9, imm=1)
                self.emit("JNE_K", 9, offset=offset - 1, imm=0)
            case 4:
                name = f"{rng.choice(BRANCHES)}{suffix}_X"
                self.emit(name, rng.choice(ALL), rng.choice(ALL), offset)
            case _:
                name = f"{rng.choice(BRANCHES)}{suffix}_K"
                imm = rng.choice((0, 0, 1, 3, 8, 16, 64, 500, -1))
                self.emit(name, rng.choice(ALL if rng.random() < 0.3 else COUNTERS), 0, offset, imm)

    def choice(self) -> None:
        """A jump over a move, or over a move and a jump to where the first goes too."""
        rng = self.rng
        here = len(self.slots)
        back = rng.random() < 0.4
        target = rng.randrange(0, here + 1) if back else min(here + rng.randrange(3, 7), self.size - 1)
        goes = rng.random() < 0.6
        condition = f"{rng.choice(BRANCHES)}{rng.choice(('', '32'))}"
        offset = target - here - 1 if goes else 1
        if rng.random() < 0.5:
            self.emit(f"{condition}_X", rng.choice(ALL), rng.choice(ALL), offset)
        else:
            self.emit(f"{condition}_K", rng.choice(COUNTERS), 0, offset, rng.choice((0, 1, 3, 8, -1)))
        move = rng.choice(("MOV64_X", "MOV64_X", "MOV32_X", "MOV64_K", "MOV32_K"))
        self.emit(move, rng.choice(ALL), rng.choice(ALL) if move.endswith("X") else 0, 0,
                  0 if move.endswith("X") else rng.choice((0, 1, 16, -1)))  # fmt: skip
        if goes:
            self.emit("JA", offset=target - here - 3)

    def call(self) -> None:
        """A helper, or a function of the program."""
        rng = self.rng
        if self.measures and rng.random() < 0.7:
            self.measured()
            return
        if self.calls_functions:
            self.emit("CALL_LOCAL", imm=rng.choice(self.functions) - len(self.slots) - 1)
            return
        if self.functions and rng.random() < 0.5:
            target = rng.choice((*self.functions, *self.functions, *self.functions, 0))
            self.emit("CALL_LOCAL", imm=target - len(self.slots) - 1)
            return
        self.emit("CALL", imm=rng.choice((GRANT, HAND_BACK, SUM)))
        for register in (1, 2, 3):
            if rng.random() < 0.8:
                self.emit("MOV64_X", register, rng.choice((0, 6, 7, 10)))

    def instruction(self) -> None:
        """One instruction, or a few that belong together."""
        chance = self.rng.random()
        if self.calls_functions and chance < 0.09:
            self.call()
        elif self.measures and chance < 0.2:
            self.measured()
        elif chance < 0.40:
            self.access()
        elif chance < 0.43:
            self.indexed()
        elif chance < 0.66:
            self.move()
        elif chance < 0.78:
            self.count()
        elif chance < 0.91:
            self.branch()
        elif chance < 0.93:
            self.choice()
        elif chance < 0.97:
            self.call()
        elif self.writes_frame_pointer:
            self.emit("ADD64_K", 10, imm=self.rng.choice((8, -8, 0, 512, -512)))
        elif chance < 0.975:
            self.emit("EXIT")

    def program(self) -> bytes:
        """The whole program."""
        rng = self.rng
        length = rng.randrange(8, 60)
        self.size = length + 12
        if self.calls_functions:
            self.functions = [self.size // 3, 2 * self.size // 3]
        elif rng.random() < 0.3:  # functions start behind main, wherever
            self.functions = [rng.randrange(length // 2, self.size) for _ in range(rng.randrange(1, 3))]
        self.start()
        while len(self.slots) < self.size - 2:
            if self.calls_functions and len(self.slots) + 1 in self.functions:
                self.emit("EXIT")
            else:
                self.instruction()
        self.emit("MOV64_X", 0, rng.choice(COUNTERS))
        return b"".join(self.slots) + spilled(rng, range(10)) + plain("EXIT")


def case(rng: random.Random) -> Case:
    """A program on two sizes of memory, whose first words point to it and to what is granted."""
    writer = Writer(rng)
    promised = rng.choice((0, 0, 0, 16, 24))
    writer.near = promised or writer.near
    code = writer.program()
    read_only = not promised and rng.random() < (0.7 if writer.stores_what_was_loaded else 0.35)
    inputs = []
    sizes = rng.sample(SIZES, 2)
    for size in (promised, sizes[0]) if promised else sizes:
        content = rng.choices(BYTES, BYTE_WEIGHTS, k=64)
        pointers = MEMORY.to_bytes(8, "little") + GRANTED.to_bytes(8, "little")
        memory = (pointers + bytes(content))[: max(size, promised)]
        inputs.append(Input(memory, LIMIT, read_only))
    return Case(code, tuple(inputs), promised=promised)
