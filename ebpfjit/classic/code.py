"""Programs of classic BPF: bytes (struct sock_filter, little-endian) to instructions and back."""

from __future__ import annotations

import reprlib
import struct
from collections.abc import Iterable

from ebpfjit.classic.table import BY_CODE, Row
from ebpfjit.errors import DecodeError
from ebpfjit.record import record

WORD = struct.Struct("<HBBI")


@record
class Instruction:
    """One instruction, at the place `pc`: struct sock_filter.

    `code` is u16, the distances of jumps `jt` and `jf` are u8, the constant `k` is u32. `row` is None where
    no operation has that code.
    """

    pc: int
    code: int
    jt: int
    jf: int
    k: int

    @property
    def row(self) -> Row | None:
        """The row of the table."""
        return BY_CODE.get(self.code)


def decode(code: bytes) -> tuple[Instruction, ...]:
    """Return the instructions of a program, struct sock_filter each, 8 bytes in this machine's order.

    Raises DecodeError where `code` is no whole number of them.
    """
    code = bytes(memoryview(code))
    if len(code) % WORD.size:
        raise DecodeError(f"{len(code)} bytes are no whole number of instructions of {WORD.size} bytes")
    return tuple(Instruction(pc, *fields) for pc, fields in enumerate(WORD.iter_unpack(code)))


def encode(fields: Iterable[tuple[int, int, int, int]]) -> bytes:
    """Return the bytes of instructions: `fields` are code (u16), jt, jf (u8) and k (u32) of each.

    Raises ValueError for fields that are something else.
    """
    made = []
    for pc, each in enumerate(fields):
        try:
            made.append(WORD.pack(*each))
        except (struct.error, TypeError) as error:
            what = f"fields are code (u16), jt, jf (u8) and k (u32), not {reprlib.repr(each)}"
            raise ValueError(f"instruction {pc}: {what}") from error
    return b"".join(made)
