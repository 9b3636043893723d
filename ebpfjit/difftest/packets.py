"""XDP programs with maps, events and tail calls that Linux's verifier accepts, for all three engines.

    r6  the context      r7  data      r8  data_end      r9  all that was seen, mixed

Every step is whole in itself: it starts from r6 to r9, leaves them there, and jumps forward only
within itself. In the end r9 goes into the array, and two bits of it are the verdict.
"""

from __future__ import annotations

import random
import struct
from collections.abc import Callable

from ebpfjit.difftest.generate import EDGES, EXIT, copy, encoded, plain
from ebpfjit.isa.spec import Kind, Reg
from ebpfjit.isa.table import BY_NAME, TABLE
from ebpfjit.program import SLOT_SIZE
from ebpfjit.runtime.helpers.names import DELETE, LOOKUP, NUMBERS, UPDATE

ARRAY, HASH, PROGRAMS, RING, PERF = range(5)
"""The maps, as LDDW_MAP_IDX counts them."""

ARRAY_ENTRIES, HASH_ENTRIES, PROGRAM_ENTRIES = 4, 8, 4
KEY_SIZE, VALUE_SIZE = 4, 8
TAIL = 1
"""Where the array of programs has the one that is tail called; the others are empty."""

TAIL_CALL = NUMBERS["bpf_tail_call"]
RING_OUTPUT, PERF_OUTPUT = NUMBERS["bpf_ringbuf_output"], NUMBERS["bpf_perf_event_output"]
CURRENT_CPU = -1
SMALLEST_FRAME, LARGEST_FRAME = 64, 128
KEY, VALUE = -4, -16
"""Where keys and values are put together, from r10."""

MIXES = [
    row
    for row in TABLE
    if row.kind is Kind.BINARY and row.dst is Reg.UPDATE and row.meaning in ("ADD", "SUB", "XOR", "MUL", "OR")
]
LOADS = [row for row in TABLE if row.kind is Kind.LOAD and not row.is_ordered]
STORES = [row for row in TABLE if row.kind is Kind.STORE and not row.is_ordered]
ADDITIONS = [row for row in TABLE if row.name in ("ATOMIC_ADD64", "ATOMIC_FETCH_ADD64", "ATOMIC_XCHG64")]


def map_of(register: int, index: int) -> bytes:
    """The map with this index, into a register."""
    row = BY_NAME["LDDW_MAP_IDX"]
    low = struct.pack("<BBhi", row.opcode, 5 << 4 | register, 0, index)
    return low + bytes(8)


def guarded(condition: bytes, body: bytes) -> bytes:
    """A conditional jump (its offset still 0) over `body`."""
    return condition[:2] + struct.pack("<h", len(body) // 8) + condition[4:] + body


def _mix(rng: random.Random, register: int) -> bytes:
    """Mix a register into r9."""
    row = rng.choice(MIXES)
    return encoded(row, 9, register, imm=rng.choice(EDGES) | 1)


def _constant_access(rng: random.Random) -> bytes:
    """Loads and stores at known offsets, behind one comparison with the packet's end."""
    size = rng.choice((14, 20, 34, 54, 60, 64, 65, 100))
    body = b""
    for _ in range(rng.randrange(1, 5)):
        if rng.random() < 0.7:
            row = rng.choice(LOADS)
            body += encoded(row, 1, 7, rng.randrange(size - row.size + 1)) + _mix(rng, 1)
        else:
            row = rng.choice(STORES)
            body += encoded(row, 7, 9, rng.randrange(size - row.size + 1), rng.choice(EDGES))
    return copy(2, 7) + plain("ADD64_K", 2, imm=size) + guarded(plain("JGT_X", 2, 8), body)


def _variable_access(rng: random.Random) -> bytes:
    """A load at an offset that the packet says, as of a header behind options."""
    row = rng.choice(LOADS)
    mask = rng.choice((0x0F, 0x1F, 0x3C))
    inner = encoded(row, 4, 2) + _mix(rng, 4)
    body = plain("LDXB", 1, 7, rng.randrange(14)) + plain("AND64_K", 1, imm=mask)
    body += copy(2, 7) + plain("ADD64_X", 2, 1) + copy(3, 2) + plain("ADD64_K", 3, imm=row.size)
    body += guarded(plain("JGT_X", 3, 8), inner)
    return copy(2, 7) + plain("ADD64_K", 2, imm=14) + guarded(plain("JGT_X", 2, 8), body)


def _key(rng: random.Random, most: int) -> bytes:
    """A key below r10: a number, or one of what was seen."""
    if rng.random() < 0.5:
        return plain("STW", 10, 0, KEY, rng.randrange(most + 1))
    return copy(1, 9) + plain("AND64_K", 1, imm=most) + plain("STXW", 10, 1, KEY)


def _key_address() -> bytes:
    """The address of the key, into r2."""
    return copy(2, 10) + plain("ADD64_K", 2, imm=KEY)


def _lookup(rng: random.Random) -> bytes:
    """A value found, read and changed; nothing where there is none."""
    which = rng.choice((ARRAY, HASH))
    body = plain("LDXDW", 1, 0) + _mix(rng, 1)
    if rng.random() < 0.5:
        body += copy(3, 9) + encoded(rng.choice(ADDITIONS), 0, 3)
    else:
        body += encoded(rng.choice(STORES), 0, 9, 0, rng.choice(EDGES))
    call = _key(rng, 7) + map_of(1, which) + _key_address() + plain("CALL", imm=LOOKUP)
    return call + guarded(plain("JEQ_K", 0), body)


def _update(rng: random.Random) -> bytes:
    """A value put in: anew, or only where there is one, or only where there is none."""
    code = _key(rng, 15) + plain("STXDW", 10, 9, VALUE) + map_of(1, rng.choice((ARRAY, HASH)))
    code += _key_address() + copy(3, 10) + plain("ADD64_K", 3, imm=VALUE)
    return (
        code + plain("MOV64_K", 4, imm=rng.randrange(3)) + plain("CALL", imm=UPDATE) + plain("ADD64_X", 9, 0)
    )


def _delete(rng: random.Random) -> bytes:
    """A key taken out, there or not."""
    code = _key(rng, 15) + map_of(1, rng.choice((ARRAY, HASH, HASH))) + _key_address()
    return code + plain("CALL", imm=DELETE) + plain("ADD64_X", 9, 0)


def _loop(rng: random.Random) -> bytes:
    """A loop of a few rounds."""
    body = plain("MUL64_K", 9, imm=31) + plain("ADD64_X", 9, 1) + plain("ADD64_K", 1, imm=-1)
    return plain("MOV64_K", 1, imm=rng.randrange(1, 6)) + body + plain("JNE_K", 1, 0, -4)


def _arithmetic(rng: random.Random) -> bytes:
    """Some operations on r9."""
    return b"".join(copy(1, 9) + _mix(rng, 1) for _ in range(rng.randrange(1, 4)))


def _tail_call(rng: random.Random) -> bytes:
    """A tail call that comes back where there is no program, or there were too many."""
    index = plain("MOV64_K", 3, imm=rng.choice((0, TAIL, TAIL, PROGRAM_ENTRIES)))
    return copy(1, 6) + map_of(2, PROGRAMS) + index + plain("CALL", imm=TAIL_CALL)


def _event(rng: random.Random) -> bytes:
    """A record for user space, in the ring or in the perf buffer, of what was seen."""
    size = rng.randrange(1, 9)
    data = plain("STXDW", 10, 9, VALUE)
    if rng.random() < 0.5:
        code = map_of(1, RING) + copy(2, 10) + plain("ADD64_K", 2, imm=VALUE)
        code += plain("MOV64_K", 3, imm=size) + plain("MOV64_K", 4) + plain("CALL", imm=RING_OUTPUT)
    else:
        code = copy(1, 6) + map_of(2, PERF) + plain("MOV32_K", 3, imm=CURRENT_CPU)
        code += copy(4, 10) + plain("ADD64_K", 4, imm=VALUE)
        code += plain("MOV64_K", 5, imm=size) + plain("CALL", imm=PERF_OUTPUT)
    return data + code + plain("ADD64_X", 9, 0)


STEPS: tuple[tuple[Callable[[random.Random], bytes], int], ...] = (
    (_constant_access, 5),
    (_variable_access, 3),
    (_lookup, 4),
    (_update, 3),
    (_delete, 1),
    (_loop, 1),
    (_arithmetic, 3),
    (_tail_call, 2),
    (_event, 1),
)
"""What programs consist of, and how often."""


def program(rng: random.Random) -> bytes:
    """Return an XDP program on the five maps."""
    start = copy(6, 1) + plain("LDXW", 7, 1, 0) + plain("LDXW", 8, 1, 4)
    start += plain("MOV64_K", 9, imm=rng.choice(EDGES))
    steps, weights = zip(*STEPS, strict=True)
    body = b"".join(step(rng) for step in rng.choices(steps, weights, k=rng.randrange(1, 6)))
    last = plain("STW", 10, 0, KEY, ARRAY_ENTRIES - 1) + map_of(1, ARRAY) + _key_address()
    last += plain("CALL", imm=LOOKUP) + guarded(plain("JEQ_K", 0), plain("STXDW", 0, 9))
    return start + body + last + copy(0, 9) + plain("AND64_K", 0, imm=3) + EXIT


def unguarded(rng: random.Random, code: bytes) -> bytes:
    """Return a program without half of its comparisons with the packet's end; Linux takes no such one."""
    slots = [code[at : at + SLOT_SIZE] for at in range(0, len(code), SLOT_SIZE)]
    ends = [plain("JGT_X", register, 8)[:2] for register in (2, 3)]
    return b"".join(plain("JA") if slot[:2] in ends and rng.random() < 0.5 else slot for slot in slots)


def frame(rng: random.Random) -> bytes:
    """Return a frame to run it on."""
    return rng.randbytes(rng.randrange(SMALLEST_FRAME, LARGEST_FRAME + 1))
