"""A program: its bytes, decoded; and back to bytes.

    bytes -> Instruction (fields, and the table row they name) -> bytes

Decoding never fails on an instruction: what no row matches keeps its fields and has `row` None, so
that a verifier can name it and an engine can stop at it. Only a wrong length is a DecodeError.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from functools import cached_property
from typing import TYPE_CHECKING, Any

from ebpfjit.bits import W64
from ebpfjit.errors import DecodeError
from ebpfjit.isa.spec import Kind, Row
from ebpfjit.isa.table import match

if TYPE_CHECKING:
    from ebpfjit.runner import JitFunction, Result
    from ebpfjit.runtime.environment import Environment

SLOT_SIZE = 8
_WORD = struct.Struct("<BBhi")

Buffer = bytes | bytearray | memoryview
"""What is accepted as bytecode (any object with the buffer protocol)."""


@dataclass(frozen=True, slots=True)
class Instruction:
    """One decoded instruction.

    `pc` counts 8-byte slots from the start of the program. `offset`, `imm` and `next_imm` are
    signed; `next_imm` is None for all but the two-slot LDDW. `row` is the table row that matches,
    or None for an unknown encoding. `reserved` is the second word of an LDDW without its
    next_imm: it must be zero.
    """

    pc: int
    opcode: int
    dst_reg: int
    src_reg: int
    offset: int
    imm: int
    next_imm: int | None = None
    row: Row | None = None
    reserved: int = 0

    @property
    def slots(self) -> int:
        """How many 8-byte slots the instruction takes."""
        return 1 if self.next_imm is None else 2

    @property
    def next_pc(self) -> int:
        """The slot after this instruction."""
        return self.pc + self.slots

    @property
    def imm64(self) -> int:
        """The 64-bit constant of an LDDW, unsigned; other instructions: imm, sign-extended, u64."""
        if self.next_imm is None:
            return W64.wrap(self.imm)
        return (self.next_imm & 0xFFFFFFFF) << 32 | (self.imm & 0xFFFFFFFF)

    @property
    def target(self) -> int | None:
        """The slot that a jump or a local call goes to; None for everything else."""
        return None if self.row is None else jump_target(self.row, self.pc, self.offset, self.imm)

    def encode(self) -> bytes:
        """Return the instruction's 8 or 16 bytes."""
        word = _WORD.pack(self.opcode, self.src_reg << 4 | self.dst_reg, self.offset, self.imm)
        if self.next_imm is None:
            return word
        return word + (self.reserved | (self.next_imm & 0xFFFFFFFF) << 32).to_bytes(8, "little")


_TARGET_IN_IMM = ("JA32", "CALL_LOCAL")
_TARGET_KINDS = (Kind.JUMP, Kind.BRANCH, Kind.MAY_GOTO, Kind.CALL_LOCAL)


def jump_target(row: Row, pc: int, offset: int, imm: int) -> int | None:
    """Return the slot that an instruction of `row` at `pc` goes to, None where it goes nowhere."""
    if row.kind not in _TARGET_KINDS:
        return None
    return pc + 1 + (imm if row.operation in _TARGET_IN_IMM else offset)


def decode(code: Buffer) -> tuple[Instruction, ...]:
    """Return the instructions of `code` in order; an LDDW's two slots make one instruction.

    Raises DecodeError where the length is no multiple of 8 or an LDDW lacks its second slot.
    """
    if len(code) % SLOT_SIZE:
        raise DecodeError(
            f"a program is a multiple of {SLOT_SIZE} bytes, this one has {len(code)}",
            len(code) // SLOT_SIZE,
        )
    words = list(_WORD.iter_unpack(code))
    instructions: list[Instruction] = []
    pc = 0
    while pc < len(words):
        opcode, registers, offset, imm = words[pc]
        dst, src = registers & 15, registers >> 4
        row = match(opcode, src, offset, imm)
        if row is None or not row.is_wide:
            instructions.append(Instruction(pc, opcode, dst, src, offset, imm, None, row))
            pc += 1
            continue
        if pc + 1 == len(words):
            raise DecodeError(f"pc {pc}: lddw takes two slots, the program ends after one", pc)
        second = int.from_bytes(code[8 * pc + 8 : 8 * pc + 12], "little")
        next_imm = words[pc + 1][3]
        instructions.append(Instruction(pc, opcode, dst, src, offset, imm, next_imm, row, reserved=second))
        pc += 2
    return tuple(instructions)


def encode(instructions: Iterable[Instruction]) -> bytes:
    """Return the bytes of `instructions`, one after the other."""
    return b"".join(instruction.encode() for instruction in instructions)


@dataclass(frozen=True, slots=True)
class SourceLine:
    """A line of source: `line` and `column` count from 1 (column 0: not known), `text` is its text."""

    file: str
    line: int
    column: int
    text: str


@dataclass(frozen=True)
class Program:
    """A program: bytecode, and what is known about it.

    `name` and `section` are those of the object file, None for raw bytecode. `type` is "xdp",
    "tc", ...; None where nothing tells. `functions` maps the slot where a function starts to its
    name; slot 0 is always there. `symbols` are the names that are known, `references` the values
    (u64) of the LDDWs that refer to something outside of the program, both by pc. `maps` are the
    maps (`ebpfjit.runtime.maps`) that LDDW_MAP_IDX and LDDW_MAP_IDX_VALUE count, `lines` the source
    lines, by the pc where their code starts. `environment` is the `Environment` of its runs where
    they are given none, None for the default.
    Raises DecodeError where `code` is not a whole number of slots.
    """

    code: bytes
    name: str | None = None
    section: str | None = None
    type: str | None = None
    symbols: dict[int, str] = field(default_factory=dict)
    references: dict[int, int] = field(default_factory=dict)
    maps: tuple[Any, ...] = ()
    lines: dict[int, SourceLine] = field(default_factory=dict)
    environment: Any = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "code", bytes(self.code))
        self.instructions  # noqa: B018 - decode now, so that a wrong length is said here

    @classmethod
    def from_bytes(cls, code: Buffer, *, name: str | None = None, type: str | None = None) -> Program:
        """Make a program from raw little-endian bytecode."""
        return cls(bytes(code), name=name, type=type)

    def to_bytes(self) -> bytes:
        """Return the bytecode."""
        return self.code

    @cached_property
    def instructions(self) -> tuple[Instruction, ...]:
        """The decoded instructions, in order of pc."""
        return decode(self.code)

    @cached_property
    def slots(self) -> tuple[Instruction | None, ...]:
        """The instruction that starts at each slot; None at the second slot of an LDDW."""
        slots: list[Instruction | None] = [None] * (len(self.code) // SLOT_SIZE)
        for instruction in self.instructions:
            slots[instruction.pc] = instruction
        return tuple(slots)

    @cached_property
    def functions(self) -> dict[int, str]:
        """The slot where each function starts, in order, and its name.

        Slot 0, every symbol's start and every target of a local call or a code reference, where
        an instruction starts there.
        """
        starts = {0, *self.symbols}
        for instruction in self.instructions:
            row = instruction.row
            if row is None:
                continue
            if row.kind is Kind.CALL_LOCAL or row.operation == "LDDW_CODE":
                starts.add(instruction.pc + 1 + instruction.imm)
        slots = self.slots
        inside = sorted(pc for pc in starts if 0 <= pc < len(slots) and slots[pc] is not None)
        return {pc: self.symbols.get(pc, f"function_{pc}" if pc else "main") for pc in inside}

    def __getstate__(self) -> dict[str, Any]:
        """What a copy needs: the fields. What was made from them is made anew."""
        return {each.name: self.__dict__[each.name] for each in fields(self)}

    def run(
        self,
        data: Any = b"",
        *,
        engine: str = "jit",
        limit: int | None = None,
        context: Mapping[str, Any] | None = None,
        environment: Environment | None = None,
    ) -> Result:
        """Run the program once on a copy of `data`, on "jit", "interpreter" or "kernel".

        A program with a type gets its context, for which `context` may set fields; one without
        gets the data's address in r1 and its length in r2. See `ebpfjit.runner.run`.
        """
        # A door upwards, for the one who holds a Program: the engines stand on this module.
        from ebpfjit import runner

        return runner.run(self, data, engine=engine, limit=limit, context=context, environment=environment)

    def compile(self, **options: Any) -> JitFunction:
        """Compile the program into a function of one buffer.

        `options` are those of `ebpfjit.runner.compile`: helpers, limit, checked, harden.
        """
        from ebpfjit import runner

        return runner.compile(self, **options)

    def __len__(self) -> int:
        """The number of 8-byte slots."""
        return len(self.code) // SLOT_SIZE
