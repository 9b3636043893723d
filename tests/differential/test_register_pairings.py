"""Every row with each pairing of registers, on edge operands: all engines against RFC 9669's text.

A program is a sequence of blocks, one for each choice of registers (and of imm). A block sets all
registers, runs the instruction, and stores all registers, so that one that is spoiled by the way
shows. Memory holds:

    word 0..9    what r0 to r9 are set to        word 10, 11   the operands, for dst and src
    from word 16 on, 12 words a block:  r0..r9 after it (in the place of the block's base register:
                 1 where a jump was taken), the cell that memory instructions work on, zero

Machine code runs in a child process. What is expected is computed from `support.reference`.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, replace
from functools import cache

import pytest
from support import reference
from support.machines import ENGINES, U64, Job, constant, machine_code, run_jobs, word

from ebpfjit.isa.spec import Kind, Row
from ebpfjit.isa.table import BY_NAME, TABLE
from ebpfjit.jit.relocation import LONG_FORMS, SHORT_FORMS, item_spans
from ebpfjit.translators.emitter import Jump, Label
from tests.support.whole import WHOLE, part

HEADER, BLOCK, CELL = 16, 12, 10
STACK_CELL = -16
STACK_POINTER_COPY = -8
MIN64, MAX64, MIN32, MAX32 = 1 << 63, (1 << 63) - 1, 1 << 31, (1 << 31) - 1
CANARIES = tuple(0x1111111111111111 * (x + 1) for x in range(10))

OPERANDS_DST = (0, 1, U64, MIN64, MAX64, MIN32, MAX32, 0x123456789ABCDEF0, 0xDEADBEEF_80000000)
OPERANDS_SRC = (
    0, 1, U64, 31, 32, 33, 63, 64, 65, 3, -3 & U64, MIN64, 1 << 32, 0xFFFFFFFF, MIN32, 0xA5A5A5A5_00000002,
)  # fmt: skip
IMMEDIATES = (0, 1, -1, 7, 31, 32, 64, 127, 128, -128, -129, MAX32, -MIN32)


def operand_pairs() -> list[tuple[int, int]]:
    """Each dst operand with two src operands, in turn; every src operand comes up."""
    size = len(OPERANDS_SRC)
    return [
        (a, OPERANDS_SRC[(5 * row + 3 * column) % size])
        for row, a in enumerate(OPERANDS_DST)
        for column in range(2)
    ]


@dataclass(frozen=True)
class Block:
    """One choice: the instruction's registers and imm, and the block's base register."""

    row: Row
    dst: int
    src: int
    imm: int
    base: int

    @property
    def pointer(self) -> int | None:
        """The register that the instruction takes an address from."""
        if self.row.kind is Kind.LOAD:
            return self.src
        return self.dst if self.row.kind in (Kind.STORE, Kind.ATOMIC) else None


@dataclass(frozen=True)
class State:
    """Registers r0 to r10, the cell, and whether a jump was taken: what an instruction changes."""

    registers: tuple[int, ...]
    cell: int
    taken: bool = False


# --- what is expected ---


@cache
def arithmetic(meaning: str, bits: int, a: int, b: int) -> int:
    return reference.ARITHMETIC[meaning](bits, a, b)


@cache
def comparison(meaning: str, bits: int, a: int, b: int) -> bool:
    return reference.COMPARISONS[meaning](bits, a, b)


def after(block: Block, state: State) -> State:
    """Return the state after the block's instruction, by RFC 9669."""
    row, registers = block.row, list(state.registers)
    bits = row.width.bits
    source = registers[block.src] if row.uses_src else reference.sign_extend(64, 32, block.imm & 0xFFFFFFFF)
    a, b = registers[block.dst] % 2**bits, source % 2**bits
    match row.kind:
        case Kind.BINARY:
            registers[block.dst] = arithmetic(row.meaning, bits, a, b)
        case Kind.MOVE if row.meaning == "MOV":
            registers[block.dst] = b
        case Kind.MOVE:
            registers[block.dst] = reference.sign_extend(bits, int(row.meaning[5:]), b)
        case Kind.UNARY if row.meaning == "NEG":
            registers[block.dst] = reference.negate(bits, a)
        case Kind.UNARY:
            change = reference.truncate if row.meaning.startswith("LE") else reference.swap
            registers[block.dst] = change(int(row.meaning.strip("LEBSWAP")), registers[block.dst])
        case Kind.BRANCH:
            return replace(state, taken=comparison(row.meaning, bits, a, b))
        case Kind.LOAD:
            low = state.cell % 2 ** (8 * row.size)
            registers[block.dst] = reference.sign_extend(64, 8 * row.size, low) if row.signed else low
        case Kind.STORE:
            high = state.cell - state.cell % 2 ** (8 * row.size)
            return replace(state, cell=high + source % 2 ** (8 * row.size))
        case Kind.ATOMIC:
            return after_atomic(block, state)
        case _:
            raise AssertionError(row)
    return replace(state, registers=tuple(registers))


def after_atomic(block: Block, state: State) -> State:
    row, registers = block.row, list(state.registers)
    bits = row.width.bits
    memory, src, r0 = (x % 2**bits for x in (state.cell, registers[block.src], registers[0]))
    new, fetched, old = reference.atomic(bits, row.meaning, memory, src, r0)
    if row.meaning == "CMPXCHG":
        registers[0] = old
    elif row.fetch:
        registers[block.src] = fetched
    return replace(state, registers=tuple(registers), cell=state.cell - memory + new)


def before(block: Block, words: tuple[int, ...], cell_address: int, stack_top: int) -> State:
    """Return the state that a block sets before its instruction."""
    loaded = sources(block)
    registers = [words[loaded.get(register, register)] for register in range(10)]
    registers.append(stack_top)
    if block.pointer is not None and block.pointer != 10:
        registers[block.pointer] = cell_address
    return State(tuple(registers), words[10])


def expected_memory(blocks: list[Block], words: tuple[int, ...], start: int, stack_top: int) -> bytes:
    """Return all of memory after the program."""
    memory = list(words)
    for number, block in enumerate(blocks):
        index = HEADER + BLOCK * number
        cell_address = (start + 8 * index + 8 * CELL) & U64
        state = after(block, before(block, words, cell_address, stack_top))
        values = list(state.registers[:10])
        values[block.base] = int(state.taken)
        memory += [*values, state.cell if block.pointer is not None else words[10], 0]
    return struct.pack(f"<{len(memory)}Q", *memory)


def initial_memory(blocks: list[Block], words: tuple[int, ...]) -> bytes:
    cells = [0] * CELL + [words[10], 0]
    return struct.pack(f"<{HEADER + BLOCK * len(blocks)}Q", *words, *(cells * len(blocks)))


# --- the program ---


def sources(block: Block) -> dict[int | None, int]:
    """Return which word of memory each register is loaded from; not those that hold addresses."""
    words: dict[int | None, int] = {register: register for register in range(10)}
    if block.row.uses_src:
        words[block.src] = 11
    words[block.dst] = 10
    for register in (block.base, block.pointer, 10):
        words.pop(register, None)
    return words


def emit(block: Block, number: int) -> bytes:
    """Encode a block."""
    out = 8 * (HEADER + BLOCK * number)
    base, row = block.base, block.row
    code = [word("LDXDW", base, 10, STACK_POINTER_COPY)]
    if block.pointer == 10:
        code += [word("LDXDW", 0, base, 80), word("STXDW", 10, 0, STACK_CELL)]
    code += [word("LDXDW", register, base, 8 * index) for register, index in sources(block).items()]
    offset = STACK_CELL if block.pointer == 10 else 0
    if block.pointer is not None and block.pointer != 10:
        code += [word("MOV64_X", block.pointer, base), word("ADD64_K", block.pointer, imm=out + 8 * CELL)]
    if row.kind is Kind.BRANCH:
        code.append(word("STDW", base, offset=out + 8 * base, imm=1))
        code.append(word(row.name, block.dst, block.src, 1, block.imm))
        code.append(word("STDW", base, offset=out + 8 * base, imm=0))
    else:
        code.append(word(row.name, block.dst, block.src, offset, block.imm))
    code += [word("STXDW", base, x, out + 8 * x) for x in range(10) if x != base]
    if block.pointer == 10:
        code += [word("LDXDW", 0, 10, STACK_CELL), word("STXDW", base, 0, out + 8 * CELL)]
    return b"".join(code)


def program(blocks: list[Block]) -> bytes:
    start = [word("STXDW", 10, 1, STACK_POINTER_COPY)]
    body = [emit(block, number) for number, block in enumerate(blocks)]
    return b"".join([*start, *body, word("MOV64_K", 0), word("EXIT")])


def base_for(dst: int, src: int) -> int:
    """Return a register that a block can address memory with: one the instruction does not use."""
    return next(x for x in (9, 8, 6) if x not in (dst, src))


# --- the choices ---

REGISTERS = (0, 1, 3, 4, 5, 6, 7)
"""rax, rdi, rdx, rcx, r8, rbx, r13: all that x86-64 treats specially, and some that it does not."""
TESTED = (Kind.BINARY, Kind.MOVE, Kind.UNARY, Kind.BRANCH, Kind.LOAD, Kind.STORE, Kind.ATOMIC)
ROWS = [row for row in TABLE if row.kind in TESTED]


MACHINE_REGISTERS = ("LSH", "RSH", "ARSH", "DIV", "MOD", "SDIV", "SMOD")
"""Operations for which x86-64 wants operands in registers of its own; atomics that fetch do, too."""


def blocks_of(row: Row) -> list[Block]:
    """Return choices of registers of a row: a third, but where registers of the machine's play a part all."""
    every = every_choice(row)
    if row.meaning in MACHINE_REGISTERS or (
        row.kind is Kind.ATOMIC and (row.fetch or row.meaning == "CMPXCHG")
    ):
        return every
    return list(part(every, 3, ROWS.index(row)))


def every_choice(row: Row) -> list[Block]:
    """Return every choice of registers of a row, r10 included where it can be a base address."""
    takes_address = row.kind in (Kind.LOAD, Kind.STORE, Kind.ATOMIC)
    bases = (*REGISTERS, 10) if takes_address else REGISTERS
    if row.kind is Kind.LOAD:
        return [Block(row, d, s, 0, base_for(d, s)) for d in REGISTERS for s in bases]
    if row.uses_src:
        return [Block(row, d, s, 0, base_for(d, s)) for d in bases for s in REGISTERS]
    immediates = (0,) if row.kind is Kind.UNARY else IMMEDIATES
    return [Block(row, d, 0, imm, base_for(d, 0)) for d in bases for imm in immediates]


def inputs_of(row: Row) -> list[tuple[int, ...]]:
    """Return the first 16 words of memory, one for each choice of operands.

    A third of them for each row, others for the next: a family of rows has them all.
    """
    pairs = part(operand_pairs() if row.uses_src else [(a, 0) for a in OPERANDS_DST], 3, ROWS.index(row))
    if row.kind in (Kind.LOAD, Kind.STORE):
        pairs = [(0x8877665544332211, 0xF1F2F3F4F5F6F7F8), (0x1122334455667788, 0x0102030405060708), (U64, 0)]
    found = [(*CANARIES, a, b, 0, 0, 0, 0) for a, b in pairs]
    if row.meaning == "CMPXCHG":  # with r0 that matches: all of it, its low half, none of it
        found = [
            (match, *words[1:])
            for words in found[:: 4 if WHOLE else 1][:5]
            for match in (words[10], words[10] ^ 1 << 40, 7)
        ]
    return found


def job(row: Row) -> Job:
    blocks = blocks_of(row)
    inputs = tuple(initial_memory(blocks, words) for words in inputs_of(row))
    return Job(row.name, program(blocks), inputs, engines_for(row))


def engines_for(row: Row) -> tuple[str, ...]:
    """Those that differ: by features, hardened (checked), and baseline code where memory is touched.

    Audit builds add checks to what the others do; vectors and the fuzzer run those.
    """
    if row.kind in (Kind.LOAD, Kind.STORE, Kind.ATOMIC):
        if WHOLE:
            return tuple(name for name in ENGINES if not name.startswith("audit"))
        return ("interpreter", "checked", "hardened", "baseline", "unchecked-plain")
    return ("interpreter", "hardened", "unchecked", "unchecked-plain")


def differences(blocks: list[Block], words: tuple[int, ...], got: bytes, wanted: bytes) -> str:
    """Name the first block that differs, and how."""
    for number, block in enumerate(blocks):
        place = slice(8 * (HEADER + BLOCK * number), 8 * (HEADER + BLOCK * (number + 1)))
        if got[place] != wanted[place]:
            names = [*(f"r{x}" for x in range(10)), "cell", "unused"]
            names[block.base] = "jump taken"
            values = zip(
                names, struct.unpack("<12Q", got[place]), struct.unpack("<12Q", wanted[place]), strict=True
            )
            wrong = ", ".join(f"{name} is {g:#x}, expected {w:#x}" for name, g, w in values if g != w)
            operands = f"operands {words[10]:#x} {words[11]:#x}"
            return f"dst r{block.dst}, src r{block.src}, imm {block.imm}, {operands}: {wrong}"
    return "memory outside of the blocks differs"


GROUPS: dict[str, list[Row]] = {}
for _row in ROWS:
    GROUPS.setdefault(f"{_row.kind.name.lower()} {_row.group}", []).append(_row)


@pytest.mark.parametrize("group", GROUPS)
def test_register_pairings(group: str) -> None:
    rows = GROUPS[group]
    complaints: list[str] = []
    for row, result in zip(rows, run_jobs(job(row) for row in rows), strict=True):
        blocks, inputs = blocks_of(row), inputs_of(row)
        assert set(result) == set(engines_for(row))
        for number, words in enumerate(inputs):
            one = result["interpreter"][number]
            wanted = expected_memory(blocks, words, one.start, one.stack_top)
            for engine, outcomes in result.items():
                outcome = outcomes[number]
                if outcome.error:
                    complaints.append(f"{row.name}: {engine}: {outcome}")
                elif outcome.memory != wanted:
                    text = differences(blocks, words, outcome.memory, wanted)
                    complaints.append(f"{row.name}: {engine}: {text}")
    assert not complaints, "\n".join(complaints[:20])


def test_all_kinds_and_pairings_are_there() -> None:
    """What is left out: rows whose registers play no part, or that other tests are for."""
    left_out = {row.kind for row in TABLE} - set(TESTED)
    assert left_out == {
        Kind.LOAD_IMM64, Kind.PACKET_LOAD, Kind.JUMP, Kind.MAY_GOTO, Kind.EXIT,
        Kind.CALL_HELPER, Kind.CALL_LOCAL, Kind.CALL_KFUNC, Kind.CALL_REGISTER, Kind.CAST,
    }  # fmt: skip
    pairs = {(block.dst, block.src) for block in blocks_of(BY_NAME["SDIV64_X"])}
    assert len(pairs) == len(REGISTERS) ** 2
    assert {src for _, src in operand_pairs()} == set(OPERANDS_SRC)
    assert (10, 4) in {(block.dst, block.src) for block in blocks_of(BY_NAME["ATOMIC_FETCH_OR32"])}


# --- packet loads and constants: one register ---


@pytest.mark.parametrize("name", ["LDINDB", "LDINDH", "LDINDW", "LDINDDW"])
def test_packet_loads_by_every_register(name: str) -> None:
    size = BY_NAME[name].size
    packet = bytes(range(0xF0, 0x100)) + bytes(8)
    jobs = [
        Job(
            f"{name} r{src} imm {imm}",
            constant(src, index) + word(name, src=src, imm=imm) + word("EXIT"),
            (packet,),
        )
        for src in range(10)
        for index, imm in ((0, 3), (5, -2), (0xFFFFFFFF_00000001, 0), (24 - size, 0), (25 - size, 0), (1, -2))
    ]
    wanted = []
    for at in (3, 3, 1, 24 - size, 25 - size, -1):
        inside = 0 <= at <= 24 - size
        wanted.append(int.from_bytes(packet[at : at + size], "big") if inside else 0)
    for one, result, value in zip(jobs, run_jobs(jobs), wanted * 10, strict=True):
        assert {engine: runs[0].value for engine, runs in result.items()} == dict.fromkeys(ENGINES, value), (
            one.name
        )


def test_constants_in_every_register() -> None:
    values = (
        0,
        1,
        MAX32,
        MIN32,
        0xFFFFFFFF,
        1 << 32,
        U64,
        U64 - MAX32,
        U64 - MAX32 - 1,
        U64 - MIN32,
        MIN64,
        MAX64,
    )
    jobs = [
        Job(f"lddw r{dst} {value:#x}", constant(dst, value) + word("MOV64_X", 0, dst) + word("EXIT"))
        for dst in range(10)
        for value in values
    ]
    for one, result, value in zip(jobs, run_jobs(jobs), values * 10, strict=True):
        assert {engine: runs[0].value for engine, runs in result.items()} == dict.fromkeys(ENGINES, value), (
            one.name
        )


# --- displacements at the borders of disp8, disp32 and the offset field ---

MIDDLE = 1 << 15
SPAN = 2 * MIDDLE + 8
STACK = 512
BASES = (0, 1, 3, 4, 6, 7)
DISPLACEMENTS = (-32768, -32767, -129, -128, -127, -1, 0, 1, 126, 127, 128, 129, 255, 256, 32760, 32767)
BELOW_R10 = (-8, -16, -120, -127, -128, -129, -130, -136, -255, -256, -264, -504, -512)
VALUE, LOADED, SUM, MEMORY = 2, 5, 8, 9
"""Registers of the programs below: what is stored, what was loaded, all that was seen, the memory."""


def placed(row: Row) -> list[tuple[int, int]]:
    """Return (base register, offset): atomics and their like are aligned."""
    aligned = row.kind is Kind.ATOMIC or row.group == "linux"
    ends = [(base, at) for base in BASES for at in DISPLACEMENTS] + [(10, at) for at in BELOW_R10]
    return list(dict.fromkeys((base, at - at % row.size if aligned else at) for base, at in ends))


def seen_registers(row: Row, base: int) -> list[int]:
    """Return the registers whose value after the instruction goes into the sum."""
    if row.kind is Kind.LOAD:
        return [LOADED]
    compared = [0] if base != 0 or row.meaning == "CMPXCHG" else []
    return [VALUE, *compared] if row.kind is Kind.ATOMIC else [VALUE]


def displaced(row: Row) -> bytes:
    """A program with every base and offset; memory, stack and the sum of what it saw are compared."""
    code = [word("MOV64_X", MEMORY, 1)]
    for number, (base, at) in enumerate(placed(row)):
        code.append(constant(VALUE, value_of(number)))
        code.append(word("MOV64_K", 0, imm=number))
        if base != 10:
            code += [word("MOV64_X", base, MEMORY), word("ADD64_K", base, imm=MIDDLE)]
        dst, src = (LOADED, base) if row.kind is Kind.LOAD else (base, VALUE)
        code.append(word(row.name, dst, src, at, number - 100))
        for register in seen_registers(row, base):
            code += [word("MUL64_K", SUM, imm=31), word("ADD64_X", SUM, register)]
    code += [word("MOV64_X", 3, MEMORY), word("ADD64_K", 3, imm=SPAN)]
    for at in range(0, STACK, 8):
        code += [word("LDXDW", 4, 10, at - STACK), word("STXDW", 3, 4, at)]
    return b"".join([*code, word("MOV64_X", 0, SUM), word("EXIT")])


def value_of(number: int) -> int:
    return (0x9E3779B97F4A7C15 * (number + 1)) & U64


def after_displaced(row: Row, memory: bytearray, start: int, top: int) -> int:
    """Do to `memory` (its last 512 bytes stand for the stack) what `displaced` does; return r0."""
    total = 0
    for number, (base, at) in enumerate(placed(row)):
        registers = [0] * 11
        registers[0], registers[VALUE] = number, value_of(number)
        registers[base] = top if base == 10 else start + MIDDLE
        index = SPAN + STACK + at if base == 10 else MIDDLE + at
        cell = int.from_bytes(memory[index : index + row.size], "little")
        dst, src = (LOADED, base) if row.kind is Kind.LOAD else (base, VALUE)
        state = after(Block(row, dst, src, number - 100, MEMORY), State(tuple(registers), cell))
        memory[index : index + row.size] = state.cell.to_bytes(row.size, "little")
        for register in seen_registers(row, base):
            total = (total * 31 + state.registers[register]) & U64
    return total


@pytest.mark.parametrize("kind", [Kind.LOAD, Kind.STORE, Kind.ATOMIC], ids=lambda kind: kind.name.lower())
def test_displacements(kind: Kind) -> None:
    """Base + offset over all of the offset field, in memory that is large enough; and the stack."""
    rows = [row for row in ROWS if row.kind is kind]
    content = bytes((7 * index + index // 251) % 256 for index in range(SPAN)) + bytes(STACK)
    complaints = []
    for row, result in zip(
        rows,
        run_jobs(Job(row.name, displaced(row), (content,), engines_for(row)) for row in rows),
        strict=True,
    ):
        for engine, (outcome,) in result.items():
            memory = bytearray(content)
            value = after_displaced(row, memory, outcome.start, outcome.stack_top)
            if outcome.error or outcome.value != value or outcome.memory != memory:
                wrong = next(
                    (i for i, (a, b) in enumerate(zip(outcome.memory, memory, strict=True)) if a != b), None
                )
                complaints.append(
                    f"{row.name}: {engine}: {outcome}, expected {value:#x}; memory differs at {wrong}"
                )
    assert not complaints, "\n".join(complaints)


# --- jumps at the borders of rel8 and rel32 ---

FILLERS = {3: word("ADD64_X", 8, 9), 4: word("ADD64_K", 8, imm=1)}
"""Instructions whose machine code has 3 and 4 bytes: together they make any length from 6 on."""
JUMPS = {
    "JA": word("JA"), "JA32": word("JA32"), "JEQ_X": word("JEQ_X", 1, 1), "JEQ32_K": word("JEQ32_K", 3),
    "JSGE_X": word("JSGE_X", 4, 4), "JSET_K": word("JSET_K", 2, imm=-1), "JLT32_X": word("JLT32_X", 3, 2),
}  # fmt: skip


def filler(size: int) -> tuple[bytes, int]:
    """Return instructions whose machine code has `size` bytes, and how often they add 1 to r8."""
    fours = size % 3
    threes = (size - 4 * fours) // 3
    return FILLERS[4] * fours + FILLERS[3] * threes, fours  # the other way round they are fused


def aimed(name: str, distance: int) -> bytes:
    """Return the jump with its offset, or imm, set; all of them are taken."""
    code = bytearray(JUMPS[name])
    field = struct.pack("<i", distance) if name == "JA32" else struct.pack("<h", distance)
    place = 4 if name == "JA32" else 2
    code[place : place + len(field)] = field
    return bytes(code)


def forward(name: str, size: int) -> bytes:
    """A jump over filler: r0 = 1 where it is taken, and r8 stays 0."""
    pad, _ = filler(size)
    return b"".join([
        word("MOV64_K", 2, imm=5), word("MOV64_K", 9, imm=1000), word("MOV64_K", 0, imm=1),
        aimed(name, len(pad) // 8 + 1), pad, word("MOV64_K", 0, imm=2), word("ADD64_X", 0, 8), word("EXIT"),
    ])  # fmt: skip


def backward(name: str, size: int) -> bytes:
    """A jump back over filler that ran once: r0 = what it did."""
    pad, _ = filler(size)
    back = [word("MOV64_X", 0, 8), word("EXIT")]
    start = [word("MOV64_K", 2, imm=5), word("MOV64_K", 9, imm=1000), word("JA", offset=len(back))]
    return b"".join([*start, *back, pad, aimed(name, -(len(pad) // 8) - len(back) - 1), word("EXIT")])


def distances(code: bytes) -> dict[tuple[str, bool], set[int]]:
    """Return the distances in bytes of the jumps between instructions: by mnemonic, and if short."""
    compiled = machine_code(code)
    spans = item_spans(compiled.listing, compiled.image)
    items = [item for piece in compiled.listing.pieces for item in piece.items]
    # A label is behind the padding that aligns it.
    places = {item.name: spans[index + 1] for index, item in enumerate(items) if isinstance(item, Label)}
    found: dict[tuple[str, bool], set[int]] = {}
    for index, item in enumerate(items):
        if isinstance(item, Jump) and item.label.startswith("pc_"):
            start, end = spans[index], spans[index + 1]
            short = item.mnemonic in SHORT_FORMS and end - start == len(SHORT_FORMS[item.mnemonic]) + 1
            assert short or end - start == len(LONG_FORMS[item.mnemonic]) + 4
            found.setdefault((item.mnemonic, short), set()).add(places[item.label] - end)
    return found


@pytest.mark.parametrize("name", JUMPS)
def test_jumps_at_the_borders_of_short_and_long(name: str) -> None:
    ahead = range(56, 160) if WHOLE else (56, 73, *range(116, 136))
    sizes = range(56, 160) if WHOLE else (56, 73, *range(100, 160))
    forwards = [forward(name, size) for size in ahead]
    backwards = [backward(name, size) for size in sizes]
    engines = ENGINES if WHOLE else ("interpreter", "checked", "hardened", "baseline")
    jobs = [
        Job(f"{name} {index}", code, engines=engines) for index, code in enumerate([*forwards, *backwards])
    ]
    wanted = [1] * len(forwards) + [1000 * ((s - 4 * (s % 3)) // 3) + s % 3 for s in sizes]
    for code, result, value in zip(jobs, run_jobs(jobs), wanted, strict=True):
        got = {engine: str(runs[0]) for engine, runs in result.items()}
        assert got == dict.fromkeys(engines, f"r0 = {value:#x}"), code.name
    short: set[int] = set()
    long: set[int] = set()
    for code in [*forwards, *backwards]:
        for (_, is_short), found in distances(code).items():
            (short if is_short else long).update(found)
    assert {126, 127} <= short
    assert {128, 129} <= long
    assert all(-128 <= distance <= 127 for distance in short)
    # Back to a loop that is aligned a jump may be long although it would just reach.
    assert {distance for distance in short if distance < -80}
    assert set(range(-160, -136)) <= long
    assert not {distance for distance in long if -80 <= distance <= 127}


def test_a_jump_farther_than_an_offset_holds() -> None:
    """gotol over 33,000 instructions, and back to run them."""
    count = 33_000
    pad = word("ADD64_K", 8, imm=1) * count
    code = word("MOV64_K", 0, imm=1) + word("JA32", imm=count + 1) + pad + word("MOV64_X", 0, 8)
    code += word("JEQ_K", 0, offset=1, imm=1) + word("EXIT") + word("JA32", imm=-count - 4) + word("EXIT")
    engines = ("interpreter", "checked", "unchecked")
    (result,) = run_jobs([Job("far", code, engines=engines)])
    assert {engine: runs[0].value for engine, runs in result.items()} == dict.fromkeys(engines, count)
