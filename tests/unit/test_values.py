"""Translators of rows that only optimised code has: run on random registers, some the same, and memory."""

from __future__ import annotations

import ctypes
import os
import pickle
import random
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from types import SimpleNamespace

import pytest

from ebpfjit.bits import W64
from ebpfjit.isa import semantics
from ebpfjit.isa.spec import Kind, Reg, Row
from ebpfjit.isa.unencoded import UNENCODED
from ebpfjit.jit.assembler import assemble_parts
from ebpfjit.jit.code_buffer import CodeBuffer
from ebpfjit.optimizer.check import ARGUMENTS, SCALED, SOURCES
from ebpfjit.translators import registry
from ebpfjit.translators.emitter import NO_PC, Emitter, Line
from ebpfjit.translators.x86_64.target import HOST_SAVED, NAME, VALUE_REGISTERS

NO_VALUE = (Kind.BOUND, Kind.ALIGNED, Kind.PAY, Kind.LEAVE, Kind.COUNT)
ROWS = [row for row in UNENCODED.values() if row.kind not in NO_VALUE]
ADDRESSED = SCALED - {Kind.BOUND, Kind.SUM}
"""Kinds that touch memory."""
COUNT = 12
SIZE = 128
NUMBERS = (
    0,
    1,
    2,
    5,
    0x7F,
    0x80,
    0xFF,
    0x7FFF,
    0x8000,
    0x7FFFFFFF,
    1 << 31,
    0xFFFFFFFF,
    1 << 63,
    (1 << 64) - 1,
)
IMMEDIATES = (0, 1, -1, 5, 127, 128, -128, -129, 255, 0x7FFF, 0x8000, 0x7FFFFFFF, -0x80000000)
OFFSETS = (0, 0, 8, -8, 127, 128, -128, -129, 0x7FFF, 1 << 29, -(1 << 29))
LETTERS = {1: "B", 2: "H", 4: "I", 8: "Q"}
"""How `struct` calls elements of so many bytes."""
BUDGET, TAKEN = COUNT, COUNT + 1
"""Where behind the registers r9 is, and whether a branch was taken."""


class Recorder(Emitter):
    """What the translators of these rows ask of their context."""

    def __init__(self, features: frozenset[str]) -> None:
        super().__init__()
        self.settings = SimpleNamespace(features=features, harden=False)
        self.begin(NO_PC)

    def emit_constant(
        self, template: str, imm: int | None, imm_sizes: tuple[int, ...] = (8, 32), offset: int | None = None
    ) -> None:
        self.emit(template, imm=imm, imm_sizes=imm_sizes, offset=offset)

    def goto(self, mnemonic: str, target: int) -> None:
        """Note whether a branch would be taken."""
        self.emit(f"set{mnemonic.removeprefix('j')} byte ptr [r12+$offset]", offset=8 * TAKEN)


@dataclass
class Operation:
    """One operation with registers, and what these and the memory start as."""

    row: Row
    args: tuple[int, ...]
    results: tuple[int, ...]
    imm: int
    offset: int
    scale: int
    registers: list[int] = field(default_factory=list)
    pc: int = 0
    stores: bool = False
    region: str = ""


def operation(rng: random.Random, row: Row, start: int) -> Operation:
    """An operation whose bytes lie in the memory at `start`; registers are few, so that some are the same."""
    kind = row.kind
    must = kind is Kind.SUM or row.name.startswith("INDEXED")
    scale = rng.choice((1, 2, 4, 8)) if must or (kind in SCALED and rng.random() < 0.5) else 0
    count = ARGUMENTS[kind] + (kind in SOURCES and row.uses_src) + (scale != 0)
    pool = rng.sample(range(COUNT), rng.choice((2, 3, 4)))
    args = tuple(rng.choice(pool) for _ in range(count))
    results = (rng.choice(pool),) if row.dst in (Reg.WRITE, Reg.UPDATE) else ()
    offset = rng.choice(OFFSETS) if kind in ADDRESSED or kind is Kind.SUM else 0
    imm = rng.choice((16, 64)) // row.size if kind is Kind.REDUCE else rng.choice(IMMEDIATES)
    made = Operation(row, args, results, imm, offset, scale)
    made.registers = [
        rng.choice(NUMBERS) if rng.random() < 0.5 else rng.getrandbits(64) for _ in range(COUNT)
    ]
    if kind is Kind.REDUCE:
        made.offset = rng.choice(OFFSETS) if len({*args}) == len(args) else 0
        for arg, offset in reversed([*zip(args, (made.offset, 0), strict=False)]):
            made.registers[arg] = W64.wrap(start + rng.randrange(SIZE - 64) - offset)
    elif kind in ADDRESSED:
        place, base = start + rng.randrange(40, 80), args[0]
        index = args[1] if scale else base
        if scale and index == base:
            made.registers[base] = (place - offset) // (1 + scale)
        else:
            made.registers[index] = rng.choice((0, 1, 3, W64.wrap(-2), 1 << 40)) if scale else 0
            made.registers[base] = W64.wrap(place - offset - made.registers[index] * scale)
    return made


def expected(it: Operation, memory: bytearray, start: int) -> tuple[list[int], bool]:
    """What registers and the branch are afterwards; memory is changed in place."""
    row, registers = it.row, it.registers.copy()
    width, values = row.width, [it.registers[arg] for arg in it.args]
    base, index = values[0], values[1] if it.scale else 0
    rest = values[2 if it.scale else 1 :]
    address = semantics.sum_(W64, base, index, it.scale, it.offset) - start
    size, taken, made = row.size, False, 0
    operand = width.wrap(rest[-1] if rest and row.uses_src else it.imm)
    loaded = int.from_bytes(memory[address : address + size], "little") if row.kind in ADDRESSED else 0
    match row.kind:
        case Kind.BINARY:
            second = values[1] if row.uses_src else it.imm
            made = semantics.BINARY[row.meaning](width, width.wrap(base), width.wrap(second))
        case Kind.SUM:
            made = width.wrap(base + index * it.scale + it.offset)
        case Kind.SELECT:
            y = width.wrap(values[1] if row.uses_src else it.imm)
            holds = semantics.CONDITION[row.meaning](width, width.wrap(base), y)
            made = values[-2 if holds else -1]
        case Kind.INDEXED_LOAD:
            made = semantics.UNARY[row.meaning](width, loaded) if row.meaning else loaded
            made = W64.wrap(width.signed(loaded)) if row.signed else made
        case Kind.INDEXED_STORE:
            value = semantics.UNARY[row.meaning](width, operand) if row.meaning else operand
            memory[address : address + size] = value.to_bytes(size, "little")
        case Kind.BINARY_LOAD:
            made = semantics.BINARY[row.meaning](width, width.wrap(rest[-1]), loaded)
        case Kind.UPDATE:
            value = semantics.BINARY[row.meaning](width, loaded, operand)
            memory[address : address + size] = value.to_bytes(size, "little")
        case Kind.BRANCH_LOAD:
            taken = semantics.CONDITION[row.meaning](width, loaded, operand)
        case Kind.REDUCE:
            places = [address, *(other - start for other in values[1:])]
            streams = [struct.unpack_from(f"<{it.imm}{LETTERS[size]}", memory, place) for place in places]
            made = semantics.reduced(width, row.meaning, *streams)
    if it.results:
        registers[it.results[0]] = made
    return registers, taken


def machine_code(it: Operation, features: frozenset[str]) -> list[Line]:
    """Lines that load the registers, do the operation, and store the registers."""
    cx = Recorder(features)
    for name in HOST_SAVED:
        cx.emit(f"push {name}")
    cx.emit("mov r12, rdi")
    names = [row[0] for row in VALUE_REGISTERS[:COUNT]] + ["r9"]
    for place, name in enumerate(names):
        cx.emit(f"mov {name}, qword ptr [r12+$offset]", offset=8 * place)
    registry.translator_of(NAME, it.row)(it, cx)
    for place, name in enumerate(names):
        cx.emit(f"mov qword ptr [r12+$offset], {name}", offset=8 * place)
    for name in reversed(HOST_SAVED):
        cx.emit(f"pop {name}")
    cx.emit("ret")
    parts = cx.text().parts
    lines = [item for item in parts if isinstance(item, Line)]
    assert len(lines) == len(parts)
    return lines


def complaints(features: frozenset[str]) -> Iterator[str]:
    """Run each row a few times; yield what came out otherwise than it is meant to."""
    rng = random.Random(f"values {sorted(features)}")
    memory = (ctypes.c_uint8 * SIZE)()
    start = ctypes.addressof(memory)
    todo = [operation(rng, row, start) for row in ROWS for _ in range(8)]
    codes = [machine_code(it, features) for it in todo]
    assemble_parts(line for lines in codes for line in lines)
    code, places = b"", []
    for lines in codes:
        places.append(len(code))
        code += b"".join(line.code for line in lines)
    buffer = CodeBuffer(code)
    for it, place in zip(todo, places, strict=True):
        before = bytearray(rng.randbytes(SIZE))
        memory[:] = before
        registers, taken = expected(it, before, start)
        state = (ctypes.c_uint64 * (COUNT + 2))(*it.registers, 100, 0)
        ctypes.CFUNCTYPE(None, ctypes.c_void_p)(buffer.address + place)(ctypes.addressof(state))
        wanted = [*registers, 100, int(taken)]
        if list(state) != wanted or bytes(memory) != before:
            yield f"{it}: {[*map(hex, state)]}, not {[*map(hex, wanted)]}; memory {bytes(memory) == before}"


def in_a_child(work: Callable[[], object]) -> object:
    """Return what work in a child process gives: what it runs may crash."""
    reader, writer = os.pipe()
    child = os.fork()
    if not child:
        try:
            os.write(writer, pickle.dumps(work()))
        finally:
            os._exit(0)
    os.close(writer)
    with os.fdopen(reader, "rb") as pipe:
        said = pipe.read()
    _, status = os.waitpid(child, 0)
    assert said, f"the child died: {status:#x}"
    return pickle.loads(said)


@pytest.mark.parametrize("features", [(), ("bmi2", "movbe")], ids=["plain", "newer"])
def test_each_row_does_what_it_means(features: tuple[str, ...]) -> None:
    assert in_a_child(lambda: [*complaints(frozenset(features))][:10]) == []
