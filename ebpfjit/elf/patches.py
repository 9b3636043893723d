"""What the linker writes into code: where calls and wide loads point, what they give.

`pc` counts the slots of the code, which holds a call or a wide load there.
"""

from __future__ import annotations

import struct

from ebpfjit.elf.relocation import Use
from ebpfjit.isa.spec import Reference
from ebpfjit.program import SLOT_SIZE
from ebpfjit.runtime.faults import WEAK_POISON

PSEUDO_CALL = 1
"""src_reg of a local call."""
PSEUDO_KFUNC_CALL = 2
"""src_reg of a call of a kernel function; its imm is a BTF id."""


def point(code: bytearray, pc: int, use: Use, target: int) -> None:
    """Let the call or wide load at `pc` point at slot `target`: imm counts from the next slot."""
    struct.pack_into("<i", code, pc * SLOT_SIZE + 4, target - pc - 1)
    if use is Use.ADDRESS:
        registers = code[pc * SLOT_SIZE + 1] & 0x0F
        code[pc * SLOT_SIZE + 1] = registers | Reference.CODE.value << 4
        struct.pack_into("<i", code, pc * SLOT_SIZE + 12, 0)
    else:
        code[pc * SLOT_SIZE + 1] = PSEUDO_CALL << 4  # LLVM before 6 left it 0


def refer(code: bytearray, pc: int, index: int, offset: int | None) -> None:
    """Let the wide load at `pc` refer to a map of the program, or to byte `offset` of its value."""
    reference = Reference.MAP_BY_INDEX if offset is None else Reference.MAP_VALUE_BY_INDEX
    registers = code[pc * SLOT_SIZE + 1] & 0x0F
    code[pc * SLOT_SIZE + 1] = registers | reference.value << 4
    struct.pack_into("<i", code, pc * SLOT_SIZE + 4, index)
    struct.pack_into("<I", code, pc * SLOT_SIZE + 12, (offset or 0) & 0xFFFF_FFFF)


def leave_out(code: bytearray, pc: int, use: Use) -> None:
    """Let a wide load of a weak symbol give 0, and a call of one fail when it is reached."""
    if use is Use.CALL:
        struct.pack_into("<BBhi", code, pc * SLOT_SIZE, 0x85, 0, 0, WEAK_POISON)
        return
    code[pc * SLOT_SIZE + 1] &= 0x0F
    struct.pack_into("<i", code, pc * SLOT_SIZE + 4, 0)
    struct.pack_into("<i", code, pc * SLOT_SIZE + 12, 0)


def give(code: bytearray, pc: int, number: int) -> None:
    """Let the wide load at `pc` give a number (u64)."""
    code[pc * SLOT_SIZE + 1] &= 0x0F
    struct.pack_into("<I", code, pc * SLOT_SIZE + 4, number & 0xFFFF_FFFF)
    struct.pack_into("<I", code, pc * SLOT_SIZE + 12, number >> 32)


def call_kernel(code: bytearray, pc: int, use: Use, id: int) -> None:
    """Let the call at `pc` be one of a kernel function; a wide load gives a number that is not 0."""
    if use is Use.CALL:
        struct.pack_into("<BBhi", code, pc * SLOT_SIZE, 0x85, PSEUDO_KFUNC_CALL << 4, 0, id)
        return
    code[pc * SLOT_SIZE + 1] &= 0x0F
    struct.pack_into("<i", code, pc * SLOT_SIZE + 4, id)
    struct.pack_into("<i", code, pc * SLOT_SIZE + 12, 0)
