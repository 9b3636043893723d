"""A child process that feeds machines whatever bytes: nothing but an EbpfError may come of it.

    python -m tests.differential.crash_worker FIRST LAST PLACE

Before each program its seed and bytes go to the file PLACE, so that the one that killed the child
can be told. Prints each exception that is no EbpfError, and at the end a line `kinds KIND=COUNT ...`.

Every sixth program is one of each of these:

    valid         tests.differential.generate, as it is
    mutated       the same with bits flipped, slots overwritten, dropped, doubled, swapped, spliced
    rows          each slot a row of the table whose free fields are random: registers may be r10,
                  or none; r10 may be written; jumps may go anywhere near
    wild rows     each slot a row, every field that the row leaves open of all 32, 16 or 4 bits
    opcodes       opcodes of the table, everything else random
    bytes         random bytes, of any length
"""

from __future__ import annotations

import os
import random
import sys
import traceback
from collections import Counter
from collections.abc import Callable
from typing import Any

from ebpfjit import EbpfError, EbpfVmRaw
from ebpfjit.isa.spec import Imm, Offset, Reg, Row
from ebpfjit.isa.table import BY_OPCODE, TABLE

from .engines import HELPERS, HelperError
from .generate import EDGES, EXIT, case

SLOT = 8
INSTRUCTION_LIMIT = 2000
SIZES = (0, 1, 7, 8, 64, 100)
OPCODES = tuple(BY_OPCODE)
U32 = 0xFFFFFFFF
RESOLVED = [row for row in TABLE if row.reference is None or row.operation == "LDDW_CODE"]


def word(opcode: int, dst: int, src: int, offset: int, imm: int) -> bytes:
    """A slot with these fields; each is cut to its width."""
    fields = bytes([opcode, (src & 15) << 4 | dst & 15])
    return fields + (offset & 0xFFFF).to_bytes(2, "little") + (imm & U32).to_bytes(4, "little")


def _valid(rng: random.Random) -> bytes:
    return case(rng.getrandbits(48)).code


def _flip(rng: random.Random, slots: list[bytes]) -> None:
    at = rng.randrange(len(slots))
    changed = bytearray(slots[at])
    changed[rng.randrange(SLOT)] ^= 1 << rng.randrange(8)
    slots[at] = bytes(changed)


def _overwrite(rng: random.Random, slots: list[bytes]) -> None:
    slots[rng.randrange(len(slots))] = rng.randbytes(SLOT)


def _reopcode(rng: random.Random, slots: list[bytes]) -> None:
    at = rng.randrange(len(slots))
    slots[at] = bytes([rng.choice(OPCODES)]) + slots[at][1:]


def _drop(rng: random.Random, slots: list[bytes]) -> None:
    if len(slots) > 1:
        del slots[rng.randrange(len(slots))]


def _double(rng: random.Random, slots: list[bytes]) -> None:
    at = rng.randrange(len(slots))
    slots[at:at] = slots[at : at + rng.randrange(1, 5)]


def _swap(rng: random.Random, slots: list[bytes]) -> None:
    a, b = rng.randrange(len(slots)), rng.randrange(len(slots))
    slots[a], slots[b] = slots[b], slots[a]


MUTATIONS = (_flip, _flip, _overwrite, _reopcode, _drop, _double, _swap)


def _mutated(rng: random.Random) -> bytes:
    code = _valid(rng)
    slots = [code[at : at + SLOT] for at in range(0, len(code), SLOT)]
    if rng.random() < 0.2:
        other = _valid(rng)
        cut = rng.randrange(0, len(other), SLOT)
        slots = slots[: rng.randrange(1, len(slots) + 1)]
        slots += [other[at : at + SLOT] for at in range(cut, len(other), SLOT)]
    for _ in range(rng.choice((1, 1, 2, 3, 8))):
        rng.choice(MUTATIONS)(rng, slots)
    return b"".join(slots)


def _near(rng: random.Random, size: int) -> int:
    return rng.randrange(-size - 2, size + 2)


def _number(rng: random.Random, role: Any, bits: int, size: int) -> int:
    """What goes into a field whose row leaves it open, or which the row fixes."""
    match role:
        case int(fixed):
            return fixed
        case Offset.TARGET | Imm.TARGET:
            return _near(rng, size)
        case Imm.HELPER | Imm.BTF_ID:
            return rng.choice((5, 6, 7, 99, -1))
        case Reg():
            return rng.randrange(16) if rng.random() < 0.02 else rng.randrange(11)
        case Offset.DISPLACEMENT:
            return rng.choice((0, 0, 0, 1, -1, 8, -8, 56, 63, 64, -64, -512, -513, 0x7FFF, -0x8000))
        case _:
            return rng.choice(EDGES) if rng.random() < 0.6 else rng.getrandbits(bits)


def _of_row(rng: random.Random, row: Row, size: int) -> bytes:
    fields = (row.dst, row.src, row.offset, row.imm)
    dst, src, offset, imm = (
        _number(rng, field, bits, size) for field, bits in zip(fields, (4, 4, 16, 32), strict=True)
    )
    code = word(row.opcode, dst, src, offset, imm)
    return code + word(0, 0, 0, 0, _number(rng, row.next_imm, 32, size)) if row.is_wide else code


def _rows(rng: random.Random) -> bytes:
    size = rng.randrange(1, 40)
    start = bytes.fromhex("bf16000000000000 bfa9000000000000")  # r6 = r1; r9 = r10
    return start + b"".join(_of_row(rng, rng.choice(RESOLVED), size) for _ in range(size)) + EXIT


def _wild_rows(rng: random.Random) -> bytes:
    def field(role: Any, bits: int) -> int:
        return role if isinstance(role, int) else rng.getrandbits(bits)

    rows = [rng.choice(TABLE) for _ in range(rng.randrange(1, 40))]
    return b"".join(
        word(row.opcode, field(row.dst, 4), field(row.src, 4), field(row.offset, 16), field(row.imm, 32))
        + (word(0, 0, 0, 0, field(row.next_imm, 32)) if row.is_wide else b"")
        for row in rows
    )


def _opcodes(rng: random.Random) -> bytes:
    return b"".join(bytes([rng.choice(OPCODES)]) + rng.randbytes(7) for _ in range(rng.randrange(1, 60)))


def _bytes(rng: random.Random) -> bytes:
    return rng.randbytes(rng.randrange(1, 200) if rng.random() < 0.1 else SLOT * rng.randrange(1, 60))


WRITERS: tuple[Callable[[random.Random], bytes], ...] = (
    _valid,
    _mutated,
    _rows,
    _wild_rows,
    _opcodes,
    _bytes,
)


def program(seed: int) -> bytes:
    """The bytes that a seed names."""
    return WRITERS[seed % len(WRITERS)](random.Random(seed))


def attempt(code: bytes, size: int, *, permissive: bool, harden: bool) -> str:
    """Load, compile and run; return what came of it, by name. Raises what is no EbpfError."""
    memory = bytearray(size)
    vm = EbpfVmRaw(instruction_limit=INSTRUCTION_LIMIT, harden=harden)
    for number, function in HELPERS.items():
        vm.register_helper(number, function)
        vm.register_kfunc(number, function)
    if permissive:
        vm.set_verifier(lambda prog: None)
    try:
        vm.set_program(code)
        vm.jit_compile()
        vm.execute_program_jit(memory)
    except EbpfError as error:
        return type(error).__name__
    except HelperError:
        return "HelperError"
    return "ok"


def main(first: int, last: int, place: str) -> int:
    kinds: Counter[str] = Counter()
    found = 0
    where = os.open(place, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    for seed in range(first, last):
        code = program(seed)
        size = SIZES[seed // len(WRITERS) % len(SIZES)]
        # Two in turn of (permissive, hardened) for each program: one of each verifier.
        for permissive in (False, True):
            harden = (seed // len(WRITERS) + permissive) % 2 == 0
            note = f"seed {seed} permissive={permissive} harden={harden}\n{code.hex()}\n".encode()
            os.ftruncate(where, 0)
            os.pwrite(where, note, 0)
            try:
                kinds[attempt(code, size, permissive=permissive, harden=harden)] += 1
            except Exception:
                found += 1
                print(note.decode(), traceback.format_exc(limit=-4), flush=True)
    print("kinds", *(f"{kind}={count}" for kind, count in sorted(kinds.items())), flush=True)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]))
