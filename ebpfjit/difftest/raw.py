"""Programs that nobody would write: any bytes, any fields, rows of the table with any free field.

rows          each slot a row whose free fields are random: registers may be r10, or none;
              r10 may be one that would be written; jumps may go anywhere near
wild rows     each slot a row, every field that the row leaves open of all its bits
opcodes       opcodes of the table, everything else random
bytes         random bytes, of any length
"""

from __future__ import annotations

import random

from ebpfjit.difftest.generate import EDGES, EXIT, ROWS, copy
from ebpfjit.isa.spec import Imm, Offset, Reg, Row
from ebpfjit.isa.table import BY_OPCODE, TABLE
from ebpfjit.program import SLOT_SIZE

OPCODES = tuple(BY_OPCODE)
DISPLACEMENTS = (0, 0, 0, 1, -1, 8, -8, 56, 63, 64, -64, -512, -513, 0x7FFF, -0x8000)
FIELD_BITS = {"dst": 4, "src": 4, "offset": 16, "imm": 32, "next_imm": 32}


def word(opcode: int, dst: int, src: int, offset: int, imm: int) -> bytes:
    """A slot with these fields; each is cut to its width."""
    fields = bytes([opcode, (src & 15) << 4 | dst & 15])
    return fields + (offset & 0xFFFF).to_bytes(2, "little") + (imm & 0xFFFFFFFF).to_bytes(4, "little")


def of_fields(row: Row, fields: dict[str, int]) -> bytes:
    """The slot, or two, of a row with these fields."""
    code = word(row.opcode, fields["dst"], fields["src"], fields["offset"], fields["imm"])
    return code + word(0, 0, 0, 0, fields["next_imm"]) if row.is_wide else code


def field(rng: random.Random, role: object, bits: int, size: int) -> int:
    """What goes into a field of this role; `size` is about how many slots the program has."""
    match role:
        case int(fixed):
            return fixed
        case Offset.TARGET | Imm.TARGET:
            return rng.randrange(-size - 2, size + 2)
        case Imm.HELPER | Imm.BTF_ID:
            return rng.choice((5, 6, 7, 99, -1))
        case Reg():
            return rng.randrange(16) if rng.random() < 0.02 else rng.randrange(11)
        case Offset.DISPLACEMENT:
            return rng.choice(DISPLACEMENTS)
        case _:
            return rng.choice(EDGES) if rng.random() < 0.6 else rng.getrandbits(bits)


def row_slots(rng: random.Random, row: Row, size: int) -> bytes:
    """One instruction of a row, its free fields random."""
    return of_fields(
        row, {name: field(rng, getattr(row, name), bits, size) for name, bits in FIELD_BITS.items()}
    )


def rows(rng: random.Random) -> bytes:
    """Rows that may run for a while: r6 and r9 start as pointers."""
    size = rng.randrange(1, 60)
    return (
        copy(6, 1)
        + copy(9, 10)
        + b"".join(row_slots(rng, rng.choice(ROWS), size) for _ in range(size))
        + EXIT
    )


def wild_rows(rng: random.Random) -> bytes:
    """Rows whose open fields have any bits."""

    def any_bits(role: object, bits: int) -> int:
        return role if isinstance(role, int) else rng.getrandbits(bits)

    return b"".join(
        of_fields(row, {name: any_bits(getattr(row, name), bits) for name, bits in FIELD_BITS.items()})
        for row in (rng.choice(TABLE) for _ in range(rng.randrange(1, 40)))
    )


def opcodes(rng: random.Random) -> bytes:
    """Opcodes of the table before random fields."""
    return b"".join(bytes([rng.choice(OPCODES)]) + rng.randbytes(7) for _ in range(rng.randrange(1, 60)))


def any_bytes(rng: random.Random) -> bytes:
    """Random bytes; now and then no whole number of slots."""
    return rng.randbytes(rng.randrange(1, 200) if rng.random() < 0.1 else SLOT_SIZE * rng.randrange(1, 60))
