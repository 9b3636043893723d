"""Mutations: a program with a few slots changed, or spliced with another one."""

from __future__ import annotations

import random
from collections.abc import Callable

from ebpfjit.difftest.raw import OPCODES
from ebpfjit.program import SLOT_SIZE

Slots = list[bytes]


def _flip(rng: random.Random, slots: Slots) -> None:
    """Change a bit."""
    at = rng.randrange(len(slots))
    changed = bytearray(slots[at])
    changed[rng.randrange(SLOT_SIZE)] ^= 1 << rng.randrange(8)
    slots[at] = bytes(changed)


def _overwrite(rng: random.Random, slots: Slots) -> None:
    """Put random bytes in the place of a slot."""
    slots[rng.randrange(len(slots))] = rng.randbytes(SLOT_SIZE)


def _reopcode(rng: random.Random, slots: Slots) -> None:
    """Change an opcode to another of the table."""
    at = rng.randrange(len(slots))
    slots[at] = bytes([rng.choice(OPCODES)]) + slots[at][1:]


def _registers(rng: random.Random, slots: Slots) -> None:
    """Change both registers."""
    at = rng.randrange(len(slots))
    slots[at] = slots[at][:1] + bytes([rng.randrange(11) << 4 | rng.randrange(11)]) + slots[at][2:]


def _drop(rng: random.Random, slots: Slots) -> None:
    """Take a slot out."""
    if len(slots) > 1:
        del slots[rng.randrange(len(slots))]


def _double(rng: random.Random, slots: Slots) -> None:
    """Repeat up to four slots."""
    at = rng.randrange(len(slots))
    slots[at:at] = slots[at : at + rng.randrange(1, 5)]


def _swap(rng: random.Random, slots: Slots) -> None:
    """Exchange two slots."""
    a, b = rng.randrange(len(slots)), rng.randrange(len(slots))
    slots[a], slots[b] = slots[b], slots[a]


MUTATIONS: tuple[Callable[[random.Random, Slots], None], ...] = (
    _flip, _flip, _overwrite, _reopcode, _registers, _drop, _double, _swap,
)  # fmt: skip


def to_slots(code: bytes) -> Slots:
    """The slots of a program; what is no whole slot at its end is left out."""
    whole = len(code) // SLOT_SIZE * SLOT_SIZE
    return [code[at : at + SLOT_SIZE] for at in range(0, whole, SLOT_SIZE)]


def mutated(rng: random.Random, code: bytes, other: bytes) -> bytes:
    """`code` with some mutations, a fifth of the time continued by the end of `other`."""
    slots = to_slots(code) or [bytes(SLOT_SIZE)]
    if rng.random() < 0.2 and other:
        tail = to_slots(other)
        slots = slots[: rng.randrange(1, len(slots) + 1)] + tail[rng.randrange(len(tail)) :]
    for _ in range(rng.choice((1, 1, 2, 3, 8))):
        rng.choice(MUTATIONS)(rng, slots)
    return b"".join(slots)
