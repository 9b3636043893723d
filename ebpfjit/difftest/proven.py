"""Programs that the verifier accepts: their machine code relies on it, and is held against the interpreter.

Programs for verdicts (`difftest.verdicts`), half of them with something left out or off by one, until one is
accepted. Where that is wrong, the interpreter faults and machine code goes on: what the verifier proved has
no check there. Audit builds name the access.
"""

from __future__ import annotations

import random
import struct
from collections.abc import Mapping

from ebpfjit.difftest.case import Case, Input
from ebpfjit.difftest.operation_maps import REFERRING
from ebpfjit.difftest.verdicts import soundness
from ebpfjit.difftest.verdicts.generate import SECTIONS, sample
from ebpfjit.difftest.verdicts.maps import CONSTANTS, DEFINITIONS
from ebpfjit.difftest.verdicts.sample import Sample
from ebpfjit.difftest.verdicts.writer import DATA, LETTERS
from ebpfjit.program import SLOT_SIZE, Program
from ebpfjit.ready import environment_of, ready
from ebpfjit.relied import relied_on
from ebpfjit.verifier import verify

TYPES = ("xdp", "xdp", "tc", "tc", "cgroup_skb", "lwt_xmit", "socket_filter")
MAPS = "verdicts"
"""What `Case.maps` calls the maps of such programs."""

AIMED = 0.6
"""The share of programs that hang on one rule."""

RULES: Mapping[str, str] = {
    "the packet's end": "r0 = *({letter} *)(r7 + {last})",
    "what moves packets": "r1 = r6; r2 = 4; call 44; r0 = *(u8 *)(r7 + 0)",
    "what shortens packets": "r1 = r6; r2 = {less}; call 65; r0 = *({letter} *)(r7 + {last})",
    "stores at a place that varies": """
        *(u64 *)(r10 - 8) = 0; *(u64 *)(r10 - 16) = 0; r8 &= {place}; r4 = r10; r4 += -16; r4 += r8
        *(u64 *)(r4 + 0) = {far}; r1 = *(u64 *)(r10 - 8); r2 = r10; r2 += -64; r2 += r1
        r0 = *(u8 *)(r2 + 0)""",
    "what helpers write": """
        *(u64 *)(r10 - 8) = 0; r1 = r6; r2 = 0; r3 = r10; r3 += -8; r4 = 8; call 26
        r1 = *(u64 *)(r10 - 8); r2 = r10; r2 += -64; r2 += r1; r0 = *(u8 *)(r2 + 0)""",
    "signs": """
        r8 = (s8)r8; if r8 s> 7 goto out; r2 = r10; r2 += -512; r2 += r8; *(u8 *)(r2 + 0) = 1""",
    "numbers on two ways": """
        r1 = {far}; if r8 != 0 goto meet; r1 = 0; meet: {padding}; if r8 == 1 goto over; r8 = 3
        over: r2 = r10; r2 += -64; r2 += r1; r0 = *(u8 *)(r2 + 0)""",
    "kinds on two ways": """
        *(u64 *)(r10 - 8) = 0; r2 = r7; if r8 != 0 goto meet; r2 = r10; r2 += -8; meet: {padding}
        if r8 == 1 goto over; r8 = 3; over: r0 = *({letter} *)(r2 + 0)""",
    "whether a value is there": """
        *(u64 *)(r10 - 8) = 7; r2 = r10; r2 += -8; r1 = map[hash]; call 1; if r8 == 5 goto there
        if r0 == 0 goto out; there: r0 = *(u8 *)(r0 + 8)""",
}
"""What follows where r7 points to bytes of a packet, of which r8 is the first, and r6 to the context."""

MOST_TRIED = 40
"""Programs that are made until one is accepted."""

WALKED = 20_000
"""Instructions that the verifier walks at most."""

PACKETS = 2
"""Packets that a program is run on besides."""


def case(rng: random.Random) -> Case:
    """Return a program that is accepted, with packets at the edges of what it compares."""
    for _ in range(MOST_TRIED):
        size = rng.randrange(14, 64)
        made = _aimed(rng, size) if rng.random() < AIMED else sample(rng.getrandbits(32), TYPES)
        if not (made.kfuncs or made.globals) and verify(made.program(), limit=WALKED):
            break
    lengths = soundness.lengths_of(Program.from_bytes(made.code))
    packets = (
        bytes(size),
        b"\xff" * size,
        rng.randbytes(size + 1),
        *(soundness.packet(rng, lengths) for _ in range(PACKETS)),
    )
    given = tuple(Input(packet, soundness.LIMIT) for packet in packets)
    return Case(_counted(made), given, type=made.type, maps=MAPS, relies=True)


def _aimed(rng: random.Random, size: int) -> Sample:
    """Return a program that hangs on one rule: there is one byte more, or a number is another one."""
    body = rng.choice(tuple(RULES.values()))
    width = rng.choice((1, 2, 4, 8))
    numbers = {
        "size": size,
        "letter": LETTERS[width],
        "last": size - width + rng.choice((0, 0, 1)),
        "far": rng.choice((0, 8, 300)),
        "place": rng.choice((0, 8)),
        "less": -rng.choice((1, 4, 8)),
        "padding": "; ".join(["r9 = 0"] * 12),
    }
    type_ = "tc" if "call 26" in body else "xdp"
    data, end, _ = DATA[type_]
    text = "\n".join((
        f"r6 = r1; r7 = *(u32 *)(r6 + {data}); r3 = *(u32 *)(r6 + {end})",
        f"r4 = r7; r4 += {size}; if r4 > r3 goto out; r8 = *(u8 *)(r7 + 0)",
        body.format(**numbers),
        "out: r0 = 1; exit",
    ))  # fmt: skip
    return Sample.of_text(type_, text.replace(";", "\n"), SECTIONS[type_])


def _counted(made: Sample) -> bytes:
    """Return the bytecode of a sample that counts all maps there are."""
    names, code = list(DEFINITIONS), bytearray(made.code)
    for insn in Program.from_bytes(made.code).instructions:
        if insn.row is not None and insn.row.operation in REFERRING and 0 <= insn.imm < len(made.maps):
            struct.pack_into("<i", code, insn.pc * SLOT_SIZE + 4, names.index(made.maps[insn.imm]))
    return bytes(code)


def fill(program: Program) -> None:
    """Put values into a program's maps that follow from its code; constants are those of all."""
    for map_ in program.maps:
        if map_.definition.is_readonly and not map_.is_frozen:
            map_[0] = CONSTANTS
    soundness.fill(random.Random(program.code), program)


def rely(program: Program) -> None:
    """Have all machine code of a program rely on its verdict from now on, where it is accepted.

    Its maps are filled, the same each time. Raises VerifierError, as `ready`.
    """
    fill(program)
    start = ready(program)
    verdict = verify(program, limit=WALKED)
    if verdict:
        start.proven = relied_on(program, start, verdict, environment_of(program)).pcs
