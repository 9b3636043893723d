"""Claims: what translators write for rows that only Code has does what the interpreter of Code does.

Bytes are loaded from, and stored at, base + index * scale + offset, whatever is in the registers; of what
lies there any number is loaded. Results may be in any register, that of an argument too.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import field

import z3

from ebpfjit.isa.spec import Kind, Row
from ebpfjit.isa.table import BY_NAME
from ebpfjit.isa.unencoded import UNENCODED
from ebpfjit.optimizer.code import Op
from ebpfjit.prove.claims import Claim
from ebpfjit.prove.code import OPS, Run, formula_of, is_taken
from ebpfjit.prove.machine import Example, Path
from ebpfjit.prove.stencils import (
    ALL_FEATURES,
    SCRATCH,
    TAKEN,
    context,
    guest,
    is_left_as_it_was,
    paths_through,
    taken_path,
    verified_of,
)
from ebpfjit.prove.symbolic import Integer, Truth, variable, vector
from ebpfjit.record import dataclass
from ebpfjit.translators import registry
from ebpfjit.translators.x86_64.target import FLAGS, NAME, VALUES, register

ROOM = "values"
FIRST, APART = 0x2000_0000, 0x0100_0000
LOADED = "loaded"
NO_FEATURES = frozenset[str]()
IN_MEMORY = frozenset(
    {Kind.INDEXED_LOAD, Kind.INDEXED_STORE, Kind.BINARY_LOAD, Kind.UPDATE, Kind.BRANCH_LOAD}
)
NUMBERS = (0, 1, -1, 127, 128, -128, 0x7FFFFFFF, -0x80000000)
OFFSETS = ((0, 1), (8, 4), (-128, 8), (1 << 20, 2))
"""Displacements, and how often the index is added."""


@dataclass
class _OnMachine(Run):
    """An operation of Code on registers: it loads any number, and what it asked for is written down."""

    loads: list[tuple[Integer, int]] = field(default_factory=list)

    def load(self, op: Op) -> Integer:
        """Return any number of so many bytes."""
        self.loads.append((self.address(op), op.row.size))
        return variable(LOADED, 8 * op.row.size)


def value_translators() -> Iterator[Claim]:
    """Yield the claims of rows without an encoding, and of jumps that need no comparison; each once."""
    yield from {claim.name: claim for claim in _claims()}.values()


def _claims() -> Iterator[Claim]:
    for row in UNENCODED.values():
        match row.kind:
            case Kind.BINARY if row.meaning == "ROTATE":
                for dst, src in ((1, 1), (0, 4), (9, 3), (11, 2)):
                    for by in (0, 1, 13, row.width.bits - 1, 32):
                        yield from _on_both(Op(row, (src,), by, 0, 0, (dst,)))
            case Kind.BINARY:
                for a, b, dst in ((1, 2, 6), (1, 2, 1), (3, 1, 1), (1, 3, 3), (3, 3, 3), (0, 3, 0), (2, 0, 3),
                                  (0, 0, 11), (4, 9, 0), (3, 0, 8)):  # fmt: skip
                    yield from _on_both(Op(row, (a, b), 0, 0, 0, (dst,)))
            case Kind.SUM:
                for base, index, dst in ((1, 2, 3), (1, 2, 1), (1, 2, 2), (7, 7, 7), (10, 4, 8), (9, 9, 0)):
                    for offset, scale in OFFSETS:
                        yield _claim(Op(row, (base, index), 0, offset, 0, (dst,), scale=scale))
            case Kind.SELECT:
                yield from _selects(row)
            case kind if kind in IN_MEMORY:
                yield from _in_memory(row)
    yield from _without_comparison()


def _selects(row: Row) -> Iterator[Claim]:
    for args, dst in (((1, 2), 6), ((1, 2), 1), ((1, 2), 2), ((0, 4), 3), ((3, 3), 3), ((8, 11), 9)):
        if row.uses_src:
            for others in ((3, 4), (args[0], dst), (dst, args[1]), args):
                yield _claim(Op(row, (*args, *others), 0, 0, 0, (dst,)))
        else:
            for imm in NUMBERS[:: 1 if dst == 6 else 3]:
                yield _claim(Op(row, (args[0], *args), imm, 0, 0, (dst,)))


def _in_memory(row: Row) -> Iterator[Claim]:
    """Yield the claims of an access: with an index and without, results where arguments are."""
    takes_value = row.kind is Kind.BINARY_LOAD or (row.uses_src and row.kind is not Kind.INDEXED_LOAD)
    makes = row.kind in (Kind.INDEXED_LOAD, Kind.BINARY_LOAD)
    for base, index, value, dst in ((1, 2, 3, 6), (1, 2, 3, 1), (1, 2, 3, 2), (1, 2, 3, 3), (7, 10, 0, 0),
                                    (8, 8, 8, 8), (9, 4, 11, 3)):  # fmt: skip
        for offset, scale in OFFSETS if dst == 6 else ((8, 4), (0, 0)):
            address = (base, index) if scale else (base,)
            args = (*address, value) if takes_value else address
            numbers = (0,) if takes_value or makes else (1, -1, 127) if row.size == 1 else NUMBERS[1:]
            for imm in numbers if (dst, scale) == (6, 4) else numbers[:1]:
                op = Op(row, args, imm, offset, 0, (dst,) if makes else (), scale=scale)
                yield from _on_both(op) if "SWAPPED" in row.name else (_claim(op),)
    if not takes_value and not makes:
        yield _claim(Op(row, (1,), 100, 8, 0, ()), harden=True)


def _on_both(op: Op) -> Iterator[Claim]:
    """Yield the claims of an operation that older processors do otherwise."""
    for features in (ALL_FEATURES, NO_FEATURES):
        yield _claim(op, features)


def _text(op: Op) -> str:
    made = f" -> r{op.results[0]}" if op.results else ""
    args = ", ".join(f"r{value}" for value in op.args)
    return f"{op.row.name} {args}{made}, {op.imm}, {op.offset:+} * {op.scale}"


def _example(op: Op) -> Example:
    """Return registers that hold addresses far apart, and the bytes that an operation finds there."""
    registers = {register(number): FIRST + APART * number for number in range(VALUES.count)}
    base, *others = (FIRST + APART * number for number in op.args)
    address = base + op.offset + (others[0] * op.scale if op.scale else 0)
    return Example(registers, ((address & (1 << 64) - 1, op.row.size, LOADED),))


def _claim(op: Op, features: frozenset[str] = ALL_FEATURES, *, harden: bool = False) -> Claim:
    found: list[Path] = []
    row, is_access = op.row, op.row.kind in IN_MEMORY

    def lifted() -> list[Path]:
        cx = context(verified_of(b""), features, harden=harden)
        cx.insn = op  # type: ignore[assignment]  # it has what translators ask of instructions
        example = _example(op) if is_access else Example()
        return paths_through(cx, lambda: registry.translator_of(NAME, row)(op, cx), example)

    def statement() -> Truth | bool:
        if not found:
            found.extend(lifted())
        path = taken_path(found)
        state = _OnMachine({number: guest(number) for number in range(VALUES.count)})
        if row.kind is Kind.BRANCH_LOAD:
            same = is_left_as_it_was(path, SCRATCH) & ((path.end == TAKEN) == is_taken(state, op))
            return same & _accesses(path, state)
        OPS[row.kind](state, op)
        same = is_left_as_it_was(path, SCRATCH | {register(value) for value in op.results})
        for value in op.results:
            same = same & formula_of(vector(path.registers[register(value)], 64) == state.values[value])
        return same & _accesses(path, state)

    name = f"{_text(op)}{'' if features else ', old processor'}{', blinded' if harden else ''}"
    return Claim(ROOM, name, statement, is_of_python=False)


def _accesses(path: Path, state: _OnMachine) -> Truth | bool:
    """Return whether a path loads and stores the bytes that an operation does."""
    same: Truth | bool = True
    loads = [access for access in path.accesses if access.stored is None]
    stores = [access for access in path.accesses if access.stored is not None]
    if [access.size for access in loads] != [size for _, size in state.loads]:
        return False
    for access, (address, _) in zip(loads, state.loads, strict=True):
        same = same & formula_of(vector(access.address, 64) == address)
    memory = state.memory
    for access in reversed(stores):
        for place in reversed(range(access.size)):
            if not memory.args:
                return False
            memory, address, byte = memory.args
            stored = z3.Extract(8 * place + 7, 8 * place, access.stored)
            same = same & formula_of(vector(stored, 8) == byte)
            same = same & formula_of(vector(access.address + place, 64) == address)
    return same & (not memory.args)


def _without_comparison() -> Iterator[Claim]:
    """Yield the claims of jumps that read the flags of an operation, whose result they compare with 0."""
    for meaning, jumps in FLAGS.items():
        for bits, ending in ((64, ""), (32, "32")):
            for jump in sorted(jumps):
                first = Op(BY_NAME[f"{meaning}{bits}_X"], (1, 2), 0, 0, 0, (1,))
                yield _flags_claim(first, BY_NAME[f"{jump}{ending}_K"])


def _flags_claim(first: Op, jump: Row) -> Claim:
    found: list[Path] = []
    end = Op(jump, (1,), 0, 0, 0)

    def lifted() -> list[Path]:
        cx = context(verified_of(b""), ALL_FEATURES)

        def write() -> None:
            insn = _Placed(first.row, 1, 2, 0)
            cx.insn = insn  # type: ignore[assignment]  # as lowering has it
            registry.translator_of(NAME, first.row)(insn, cx)
            insn = _Placed(jump, 1, 0, 0)
            cx.insn, cx.has_flags = insn, True  # type: ignore[assignment]
            registry.translator_of(NAME, jump)(insn, cx)

        return paths_through(cx, write)

    def statement() -> Truth | bool:
        if not found:
            found.extend(lifted())
        path = taken_path(found)
        state = _OnMachine({1: guest(1), 2: guest(2)})
        OPS[first.row.kind](state, first)
        return (path.end == TAKEN) == is_taken(state, end)

    return Claim(
        ROOM, f"{first.row.name}, then {jump.name} without a comparison", statement, is_of_python=False
    )


@dataclass(frozen=True)
class _Placed:
    """What translators ask of an instruction."""

    row: Row
    dst_reg: int
    src_reg: int
    imm: int
    target: int = 0
