"""One instruction: its bytes, decoded; and back to bytes.

    bytes -> Instruction (fields, and the table row they name) -> bytes

Decoding never fails on an instruction: what no row matches keeps its fields and has `row` None, so
that a verifier can name it and an engine can stop at it. Only a wrong length is a DecodeError.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable

from ebpfjit.bits import W32, W64
from ebpfjit.collector import collector_paused
from ebpfjit.errors import DecodeError
from ebpfjit.isa.spec import Row
from ebpfjit.isa.table import match
from ebpfjit.memo import Memo
from ebpfjit.record import record

SLOT_SIZE = 8
MAX_SLOTS = 2_000_000
"""Slots of a program: the verifier takes a million instructions, of which LDDW has two slots."""
_WORD = struct.Struct("<BBhi")

Buffer = bytes | bytearray | memoryview
"""What is accepted as bytecode (any object with the buffer protocol)."""


@record
class Instruction:
    """One decoded instruction.

    `pc` counts 8-byte slots from the start of the program. `opcode` is the first byte, `dst_reg` and
    `src_reg` are 4 bits each: registers r0 to r10, or what tells operations apart. `offset`, `imm` and
    `next_imm` are signed; `next_imm` is None for all but the two-slot LDDW. `row` is the table row that
    matches, or None for an unknown encoding. `reserved` is the second word of an LDDW without its next_imm:
    it must be zero.
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
        return self.pc + (1 if self.next_imm is None else 2)

    @property
    def imm64(self) -> int:
        """The 64-bit constant of an LDDW, unsigned; other instructions: imm, sign-extended, u64."""
        if self.next_imm is None:
            return W64.wrap(self.imm)
        return (self.next_imm & 0xFFFFFFFF) << 32 | (self.imm & 0xFFFFFFFF)

    @property
    def target(self) -> int | None:
        """The slot that a jump or a local call goes to; None for everything else."""
        row = self.row
        if row is None or not row.has_target:
            return None
        return self.pc + 1 + (self.imm if row.imm_is_target else self.offset)

    def encode(self) -> bytes:
        """Return the instruction's 8 or 16 bytes."""
        word = _WORD.pack(self.opcode, self.src_reg << 4 | self.dst_reg, self.offset, self.imm)
        if self.next_imm is None:
            return word
        return word + (self.reserved | (self.next_imm & 0xFFFFFFFF) << 32).to_bytes(8, "little")


_Fields = tuple[int, int, int, int, int, int | None, Row | None]
"""The fields of an `Instruction` that follow from one word: opcode to row."""

_known_words: Memo[int, _Fields] = Memo()


def decode(code: Buffer) -> tuple[Instruction, ...]:
    """Return the instructions of `code` in order; an LDDW's two slots make one instruction.

    Raises DecodeError where the length is no multiple of 8, or that of more than `MAX_SLOTS` slots,
    and where an LDDW lacks its second slot.
    """
    return decode_words(words_of(code))


def words_of(code: Buffer) -> tuple[int, ...]:
    """Return the 8-byte words of `code`. Raises DecodeError where that is no whole number, or too many."""
    if len(code) > MAX_SLOTS * SLOT_SIZE:
        raise DecodeError(f"a program has at most {MAX_SLOTS} slots, this one {len(code) // SLOT_SIZE}")
    if len(code) % SLOT_SIZE:
        raise DecodeError(
            f"a program is a multiple of {SLOT_SIZE} bytes, this one has {len(code)}",
            len(code) // SLOT_SIZE,
        )
    return struct.unpack(f"<{len(code) // SLOT_SIZE}Q", code)


def decode_words(words: tuple[int, ...]) -> tuple[Instruction, ...]:
    """Decode words; most of a program's have been seen before, and are looked up."""
    _known_words.trim(len(words))
    known = _known_words.get
    instructions: list[Instruction] = []
    second_half = False
    with collector_paused():
        for pc, word in enumerate(words):
            if second_half:
                second_half = False
                continue
            fields = known(word) or _fields_of(word)
            row = fields[6]
            if row is not None and row.is_wide:
                instructions.append(_wide(pc, fields, words))
                second_half = True
            else:
                instructions.append(Instruction(pc, *fields))
    return tuple(instructions)


def _fields_of(word: int) -> _Fields:
    opcode, registers, offset, imm = _WORD.unpack(word.to_bytes(SLOT_SIZE, "little"))
    dst, src = registers & 15, registers >> 4
    fields = _known_words[word] = (opcode, dst, src, offset, imm, None, match(opcode, src, offset, imm))
    return fields


def _wide(pc: int, fields: _Fields, words: tuple[int, ...]) -> Instruction:
    """Return an LDDW, whose second word follows."""
    if pc + 1 == len(words):
        raise DecodeError(f"pc {pc}: lddw takes two slots, the program ends after one", pc)
    opcode, dst, src, offset, imm, _, row = fields
    second = words[pc + 1]
    next_imm = W32.signed(second >> 32)
    return Instruction(pc, opcode, dst, src, offset, imm, next_imm, row, second & W32.mask)


def encode(instructions: Iterable[Instruction]) -> bytes:
    """Return the bytes of `instructions`, one after the other."""
    return b"".join(instruction.encode() for instruction in instructions)
