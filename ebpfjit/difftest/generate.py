"""Random programs from the rows of the table: valid encodings with hostile operands.

Jumps mostly go forward, so that programs end; pointers mostly point somewhere near memory, so that
accesses both hit and miss; helpers (one hands out memory), local calls, recursion and the rare
illegal word are in. All of it is drawn from a `random.Random`: its seed names the program.
"""

from __future__ import annotations

import random
import struct

from ebpfjit.bits import U64_MASK, W32
from ebpfjit.difftest.arena import GRANT, HAND_BACK, MISSING, RAISE, SUM
from ebpfjit.isa.spec import Imm, Kind, Offset, Reg, Row
from ebpfjit.isa.table import BY_NAME, TABLE
from ebpfjit.program import Instruction

MEMORY_SIZE = 64
"""Bytes of memory that these programs expect behind r1."""

EDGES = (0, 1, -1, 2, -2, 5, 7, 8, 15, 16, 31, 32, 33, 63, 64, 127, 128, -128, -129, 255, 256,
         0x7FFF, 0x8000, 0xFFFF, 0x7FFFFFFF, -0x80000000, 0x12345678)  # fmt: skip
WIDE_EDGES = (*EDGES, 1 << 31, 0xFFFFFFFF, 1 << 32, (1 << 63) - 1, 1 << 63, (1 << 63) + 1)
"""Numbers where mistakes show: those that fit an imm, and others of 64 bits."""

POINTERS = (6, 6, 6, 6, 6, 6, 6, 6, 9, 9, 9, 9, 9, 9, 10, 10, 10, 10, 1)
HITS = (0, 0, 8, 4, 16, 24, 32, 40, 1, 2, 3, -1, -4, -8)
NEAR = (-8, -4, -1, 0, 1, 2, 3, 4, 8, 16)
MISSES = (-512, -513, -8, -1, 56, 57, 63, 64, 126, 127, 128, -127, -128, -129, 0x7FFF, -0x8000)
HELPERS = (SUM, SUM, GRANT, GRANT, GRANT, RAISE, HAND_BACK, MISSING)

_WORD = struct.Struct("<BBhi")
UNRESOLVED = [row for row in TABLE if row.reference is not None and row.operation != "LDDW_CODE"]
ROWS = [row for row in TABLE if row not in UNRESOLVED and row.kind is not Kind.CAST]
EXIT = Instruction(0, BY_NAME["EXIT"].opcode, 0, 0, 0, 0).encode()
SIGNED_DIVISIONS = [row for row in TABLE if row.meaning in ("SDIV", "SMOD")]
BRANCHES_X = [row for row in TABLE if row.kind is Kind.BRANCH and row.uses_src]
ARITHMETIC = [row for row in TABLE if row.kind in (Kind.BINARY, Kind.UNARY, Kind.MOVE)]
ACCESSES = [row for row in TABLE if row.kind in (Kind.LOAD, Kind.STORE, Kind.ATOMIC)]
ACCESSES_BY_KIND = {
    kind: [row for row in ACCESSES if row.kind is kind] for kind in (Kind.LOAD, Kind.STORE, Kind.ATOMIC)
}
PACKET_LOADS = [row for row in TABLE if row.kind is Kind.PACKET_LOAD and not row.uses_src]
SHIFTS = ("LSH", "RSH", "ARSH")
KEPT = range(-504, -72, 8)
"""Where in the frame results are kept: what is compared even where the program faults later."""

RARE = frozenset({Kind.EXIT, Kind.CALL_REGISTER, Kind.PACKET_LOAD, Kind.CALL_KFUNC, Kind.CALL_LOCAL})


def constant(register: int, value: int) -> bytes:
    """An LDDW of a 64-bit value."""
    row = BY_NAME["LDDW"]
    low, high = W32.signed(W32.wrap(value)), W32.signed(W32.wrap(value >> 32))
    return Instruction(0, row.opcode, register, 0, 0, low, high, row).encode()


def copy(dst: int, src: int) -> bytes:
    """A 64-bit register move."""
    return plain("MOV64_X", dst, src)


def add(dst: int, imm: int) -> bytes:
    """A 64-bit addition of a constant."""
    return plain("ADD64_K", dst, imm=imm)


def encoded(row: Row, dst: int = 0, src: int = 0, offset: int = 0, imm: int = 0) -> bytes:
    """One slot of a row; fields that the row fixes keep its values."""
    dst = row.dst if isinstance(row.dst, int) else dst
    src = row.src if isinstance(row.src, int) else src
    offset = row.offset if isinstance(row.offset, int) else offset
    return _WORD.pack(row.opcode, src << 4 | dst, offset, row.imm if isinstance(row.imm, int) else imm)


def plain(name: str, dst: int = 0, src: int = 0, offset: int = 0, imm: int = 0) -> bytes:
    """One slot of the row called `name`; fields that the row fixes keep its values."""
    return encoded(BY_NAME[name], dst, src, offset, imm)


def divided_extremes(rng: random.Random, dst: int, src: int) -> bytes:
    """The most negative number of a width, divided by -1: on many machines that traps."""
    row = rng.choice(SIGNED_DIVISIONS)
    least = plain("MOV64_K", dst, imm=1) + plain("LSH64_K", dst, imm=row.width.bits - 1)
    return least + plain("MOV64_K", src, imm=-1) + encoded(row, dst, src, imm=-1)


def spilled(rng: random.Random, registers: range) -> bytes:
    """Mostly: registers into the frame, where they are compared when the program has ended.

    Not always: where pointers into a frame are stored, analysis gives up on frames.
    """
    if rng.random() < 0.4:
        return b""
    return b"".join(plain("STXDW", 10, register, -8 * (register + 1)) for register in registers)


class Generator:
    """Writes one program."""

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng

    def _register(self, role: int | Reg) -> int:
        if isinstance(role, int):
            return role
        if role is Reg.READ:
            return self.rng.randrange(11)
        # r6 and r9 hold pointers; they are seldom overwritten, or every access would fault.
        return (
            self.rng.randrange(10) if self.rng.random() < 0.1 else self.rng.choice((0, 1, 2, 3, 4, 5, 7, 8))
        )

    def _base(self, role: int | Reg) -> int:
        """A register that often holds a pointer: r1, r6 (memory), r9 (stack), r10."""
        if role is not Reg.READ or self.rng.random() < 0.015:
            return self._register(role)
        if self.rng.random() < 0.03:
            return 0  # what helper 6 returned, or nothing of the kind
        return self.rng.choice(POINTERS)

    def _jump(self, pc: int, size: int) -> int:
        if self.rng.random() < 0.03:
            return self.rng.randrange(-pc - 2, size - pc + 1)
        return self.rng.randrange(max(1, min(6, size - pc - 1)))

    def _offset(self, row: Row, base: int, pc: int, size: int) -> int:
        match row.offset:
            case int(fixed):
                return fixed
            case Offset.TARGET:
                return self._jump(pc, size)
            case Offset.DISPLACEMENT:
                return self._displacement(row, base)
            case _:
                return 0

    def _displacement(self, row: Row, base: int) -> int:
        if self.rng.random() < 0.02:
            return self.rng.choice(MISSES)
        hit = self.rng.choice(HITS)
        if row.group in ("atomic32", "atomic64", "linux") and self.rng.random() < 0.95:
            hit -= hit % row.size
        return -8 - hit if base == 10 else hit

    def _imm(self, row: Row, pc: int, size: int) -> int:
        match row.imm:
            case int(fixed):
                return fixed
            case Imm.TARGET:
                return self._jump(pc, size)
            case Imm.HELPER | Imm.BTF_ID:
                return self.rng.choice(HELPERS)
            case Imm.PACKET:
                return self.rng.choice((0, 1, 60, 61, 63, 64, -1, 0x7FFFFFFF))
            case _ if self.rng.random() < 0.7:
                return self.rng.choice(EDGES)
            case _:
                return W32.signed(self.rng.getrandbits(32))

    def instruction(self, row: Row, pc: int, size: int) -> bytes:
        """One instruction of `row` with random free fields."""
        is_memory = row.offset is Offset.DISPLACEMENT
        loads = row.kind is Kind.LOAD
        dst = self._base(row.dst) if is_memory and not loads else self._register(row.dst)
        src = self._base(row.src) if is_memory and loads else self._register(row.src)
        next_imm = None
        if row.next_imm is not None:
            next_imm = row.next_imm if isinstance(row.next_imm, int) else self.rng.choice(EDGES)
        base = src if loads else dst
        fields = (self._offset(row, base, pc, size), self._imm(row, pc, size), next_imm)
        return Instruction(0, row.opcode, dst, src, *fields).encode()

    def idiom(self) -> bytes:
        """Some instructions in a row that machine code may do as one: each with its near misses."""
        pick = self.rng.random()
        if pick < 0.4:
            return self.memory_idiom() if pick < 0.25 else self.bytes_put_together()
        a, b, c = (self.rng.choice((0, 2, 3, 4, 5, 7, 8)) for _ in range(3))
        bits = self.rng.choice((32, 64))
        up = self.rng.randrange(bits)
        down = bits - up if self.rng.random() < 0.8 else self.rng.randrange(bits)
        shifts = [(f"LSH{bits}_K", up), (f"RSH{bits}_K", down % bits)]
        self.rng.shuffle(shifts)
        (first, n), (second, m) = shifts
        move, join = f"MOV{bits}_X", self.rng.choice((f"OR{bits}_X", f"XOR{bits}_X", f"ADD{bits}_X"))
        k = self.rng.choice((32, 30, 29, 33, 1))
        sign = self.rng.choice(("RSH64_K", "ARSH64_K"))
        value = self.rng.choice(EDGES)
        branch = self.rng.choice([row for row in TABLE if row.kind is Kind.BRANCH])
        jump = self.instruction(branch, 0, 1000)
        over = jump[:2] + (1).to_bytes(2, "little") + jump[4:]
        near = self.rng.choice([row for row in BRANCHES_X if row.width.bits == 32 or self.rng.random() < 0.5])
        place, up32 = self.rng.choice((0, 8, 16)), self.rng.choice(EDGES) << 32
        return self.rng.choice((
            # Equal in the low half, and mostly not in the upper one.
            plain("MOV32_X", b, a) + encoded(near, a, b, 1) + plain("MOV64_K", c, imm=value),
            plain("MOV32_X", b, a) + encoded(near, a, b, 2) + plain("XOR64_K", c, imm=value)
            + plain("NEG64", a),
            divided_extremes(self.rng, a, b),
            encoded(self.rng.choice(PACKET_LOADS), 0, b, imm=self.rng.randrange(MEMORY_SIZE))
            + plain("STXDW", 10, 0, self.rng.choice(KEPT)),
            plain("LDXW", 0, 6, place) + constant(c, up32 & U64_MASK) + plain("OR64_X", 0, c)
            + plain(f"ATOMIC_CMPXCHG{bits}", 6, b, place) + plain("STXDW", 10, 0, self.rng.choice(KEPT)),
            plain(move, b, a) + plain(first, b, imm=n) + plain(second, a, imm=m) + plain(join, a, b),
            plain(move, b, a) + plain(first, b, imm=n) + plain(move, c, a) + plain(second, c, imm=m)
            + plain(join, *self.rng.choice(((c, b), (b, c)))),
            plain("MOV64_X", b, a) + plain("LSH64_K", b, imm=32) + plain(sign, b, imm=k),
            plain("LSH64_K", a, imm=32) + plain(sign, a, imm=k),
            plain("MOV64_X", b, a) + plain("ADD64_X", b, c),
            plain("MOV64_X", b, a) + plain("ADD64_K", b, imm=value),
            over + plain(self.rng.choice(("MOV64_X", "MOV32_X")), b, a),
            over + plain(self.rng.choice(("MOV64_K", "MOV32_K")), b, imm=value),
            over + plain("JA", offset=self.rng.randrange(3)),
        ))  # fmt: skip

    def memory_idiom(self) -> bytes:
        """A load and what is done with it, mostly not read later; a jump by what was just calculated."""
        rng = self.rng
        a, b, c = rng.sample((0, 2, 3, 4, 5, 7, 8), 3)
        bits = rng.choice((32, 64))
        load, store = ("LDXW", "STXW") if (bits == 32) is (rng.random() < 0.95) else ("LDXDW", "STXDW")
        base, place = rng.choice(((6, 0), (6, 8), (6, 16), (9, 0), (10, -8), (10, -16), (6, MEMORY_SIZE - 8)))
        x = b if rng.random() < 0.95 else a
        operation = rng.choice(("ADD", "SUB", "AND", "OR", "XOR", "MUL"))
        operand = plain(f"{operation}{bits}_X", a, x)
        if rng.random() < 0.5:
            operand = plain(f"{operation}{bits}_K", a, imm=rng.choice(EDGES))
        narrow = "32" if bits == 32 else ""
        condition = rng.choice(
            ("JEQ", "JNE", "JGT", "JGE", "JLT", "JLE", "JSGT", "JSGE", "JSLT", "JSLE", "JSET")
        )
        jump = rng.choice((
            plain(f"{condition}{narrow}_X", a, b, 2), plain(f"{condition}{narrow}_X", b, a, 2),
            plain(f"{condition}{narrow}_K", a, 0, 2, rng.choice(EDGES)),
        ))  # fmt: skip
        by_zero = plain(rng.choice(("JEQ_K", "JNE_K", "JEQ32_K", "JNE32_K")), rng.choice((a, a, b)), 0, 1)
        moved = plain("MOV64_K", c, imm=rng.choice(EDGES))
        last = plain("MOV64_K", a, imm=1) if rng.random() < 0.85 else b""
        index = plain("AND64_K", b, imm=rng.choice((7, 15, 31)))
        return index * (rng.random() < 0.1) + rng.choice((
            plain(load, a, base, place) + plain(f"{operation}{bits}_X", b, a) + last,
            plain(load, a, base, place) + jump + moved + plain("NEG64", c) + last,
            plain(load, a, base, place) + operand + plain(store, base, a, place) + last,
            index + plain("ADD64_X", b, 6) + plain(load, rng.choice((a, b)), b, rng.choice((0, 8))) + last,
            index + plain("MOV64_X", a, 6) + plain("ADD64_X", a, b) + plain(store, a, b) + last,
            operand + by_zero + moved,
            operand + by_zero[:2] + b"\2\0" + by_zero[4:] + plain("NEG64", b) + moved + last,
        ))  # fmt: skip

    def bytes_put_together(self) -> bytes:
        """A number made of bytes in memory, in either order, with something in between now and then."""
        rng = self.rng
        whole, part, other = rng.sample((0, 2, 3, 4, 5, 7, 8), 3)
        base, place = rng.choice(((6, 0), (6, 8), (6, 3), (9, 0), (10, -8), (10, -16), (6, MEMORY_SIZE - 12)))
        count = rng.choice((2, 2, 4, 4, 4, 8))
        offsets = [place + at for at in range(count)]
        if rng.random() < 0.4:
            offsets.reverse()
        if rng.random() < 0.1:
            offsets[rng.randrange(count)] += rng.choice((-1, 1))
        bytes_ = list(enumerate(offsets))
        if rng.random() < 0.6:
            rng.shuffle(bytes_)
        bits = 64 if count == 8 or rng.random() < 0.6 else 32
        between = (
            plain("STXB", base, other, place), plain("STB", base, 0, place + 1, 7),
            plain("MOV64_X", other, part), plain("STXDW", 10, part, rng.choice(KEPT)),
            plain("MOV64_X", other, whole), plain("ADD64_K", part, imm=1), plain("LDXB", other, base, place),
            plain("LDXDW", other, base, place + rng.choice((0, 8, 40))), plain("JNE_K", other, 0, 0),
            plain("MOV64_X", whole, base), plain("ADD64_X", other, other), plain("XOR64_K", other, imm=5),
        )  # fmt: skip
        spot = rng.randrange(count) if rng.random() < 0.45 else -1
        code = b""
        for number, (at, offset) in enumerate(bytes_):
            into = part if number else whole
            code += plain("LDXB", into, base, offset)
            if number == spot:
                later = rng.choice(bytes_[number:])[1]
                code += (
                    plain("STB", base, 0, later, rng.randrange(128))
                    if rng.random() < 0.4
                    else rng.choice(between)
                )
            if at:
                code += plain(f"LSH{bits}_K", into, imm=8 * at + (rng.random() < 0.01))
            if number:
                code += plain(f"{'OR' if rng.random() < 0.98 else 'ADD'}{bits}_X", whole, part)
        if rng.random() < 0.9:
            code += plain("MOV64_K", part, imm=1)
        return code + plain("STXDW", 10, whole, rng.choice(KEPT))

    def arithmetic(self) -> bytes:
        """An operation on hostile operands, its result kept: what comes later does not cover it up."""
        rng = self.rng
        row = rng.choice(ARITHMETIC)
        dst, src = (rng.choice((0, 2, 3, 4, 5, 7, 8)) for _ in range(2))
        value = rng.choice(WIDE_EDGES) & U64_MASK if rng.random() < 0.5 else rng.getrandbits(64)
        code = constant(dst, value)
        if row.uses_src and src != dst:
            code += constant(src, rng.choice((0, *WIDE_EDGES)) & U64_MASK)
        imm = rng.choice((0, 1, 31, 32, 63) if row.meaning in SHIFTS else EDGES)
        return code + encoded(row, dst, src, imm=imm) + plain("STXDW", 10, dst, rng.choice(KEPT))

    def memory_access(self) -> bytes:
        """An access near r6, what it loads kept too."""
        rng = self.rng
        kind = rng.choice((Kind.LOAD, Kind.LOAD, Kind.STORE, Kind.ATOMIC))
        row = rng.choice(ACCESSES_BY_KIND[kind])
        register, hit = rng.choice((0, 2, 3, 4, 5, 7, 8)), rng.choice(NEAR)
        if row.kind is Kind.ATOMIC or row.is_ordered:
            hit -= hit % row.size
        keep = plain("STXDW", 10, register, rng.choice(KEPT))
        if row.kind is Kind.LOAD:
            return encoded(row, register, 6, hit) + keep
        return (
            constant(register, rng.getrandbits(64)) + encoded(row, 6, register, hit, rng.choice(EDGES)) + keep
        )

    def called(self) -> bytes:
        """A call, and what it leaves in the registers of its arguments kept."""
        given = [plain("MOV64_K", register, imm=self.rng.choice(EDGES)) for register in range(1, 6)]
        kept = [plain("STXDW", 10, register, self.rng.choice(KEPT)) for register in range(6)]
        return b"".join(given) + plain("CALL", imm=SUM) + b"".join(kept)

    def by_the_dozen(self) -> bytes:
        """A program of operations, accesses and calls, all of which are executed."""
        made = (*[self.memory_access, self.arithmetic] * 4, self.bytes_put_together, self.called)
        parts = [self.rng.choice(made)() for _ in range(self.rng.randrange(1, 25))]
        return copy(6, 1) + add(6, 8) + copy(9, 10) + add(9, -64) + b"".join(parts) + EXIT

    def prologue(self) -> bytes:
        """Registers to start from: pointers in r6 and r9, edges in the others."""
        code = copy(6, 1) + copy(9, 10)
        if self.rng.random() < 0.8:
            code += add(6, self.rng.choice((8, 8, 8, 8, 16, 16, 16, 16, 16, 24, 63, -8)))
        code += add(9, self.rng.choice((-64, -64, -64, -64, -128, -128, -256, -256, -504, -512, -512, -8)))
        for register in (0, 3, 4, 5, 7, 8):
            edge = self.rng.choice(WIDE_EDGES) if self.rng.random() < 0.7 else self.rng.getrandbits(64)
            if self.rng.random() < 0.6:
                code += constant(register, edge & U64_MASK)
        return code

    def program(self) -> bytes:
        """A program of up to 130 slots or so that ends in exit; a third have a function to call."""
        code, function = b"", None
        if self.rng.random() < 0.35:
            return self.by_the_dozen()
        if self.rng.random() < 0.33:
            function = 1
            body = self.body(b"", 1, self.rng.randrange(1, 12), function)
            code = plain("JA", offset=len(body) // 8 + 1) + body + EXIT
        start = len(code) // 8
        prologue = self.prologue()
        return (
            code
            + self.body(prologue, start, self.rng.randrange(2, 80), function)
            + spilled(self.rng, range(9))
            + EXIT
        )

    def body(self, code: bytes, start: int, count: int, function: int | None) -> bytes:
        """`code` and about `count` slots more; it stands at slot `start`."""
        size = start + len(code) // 8 + count
        while start + len(code) // 8 < size:
            pc = start + len(code) // 8
            row = self.rng.choice(ROWS)
            if function is not None and self.rng.random() < 0.08:
                code += plain("CALL_LOCAL", imm=function - pc - 1)
                continue
            if row.kind in RARE and self.rng.random() < 0.6:
                continue
            if self.rng.random() < 0.16:
                code += self.idiom()
                continue
            if self.rng.random() < 0.07:
                code += self.arithmetic()
                continue
            if self.rng.random() < 0.003:
                code += self.rng.randbytes(8)
            code += self.instruction(row, pc, size)
        return code
