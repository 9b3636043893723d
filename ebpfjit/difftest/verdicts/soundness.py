"""Runs of what a verifier accepted: on packets, contexts, maps and helpers' answers that are hard on bounds.

A fault of these runs, other than the limit of instructions, is the verifier's mistake.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from ebpfjit.difftest.verdicts.sample import Sample
from ebpfjit.errors import BudgetExhausted, EbpfError, ExecutionError, InputError
from ebpfjit.program import Program
from ebpfjit.runtime.environment import Environment
from ebpfjit.runtime.maps.definition import MapType

LIMIT = 20_000
"""Instructions of a run: what is accepted ends, but may take longer than a test has time for."""

_NUMBERS = (
    0,
    1,
    2,
    3,
    7,
    8,
    15,
    31,
    40,
    63,
    64,
    127,
    255,
    256,
    4095,
    2**15,
    2**16,
    2**31 - 1,
    2**31,
    2**32 - 1,
)
_LENGTHS = (14, 15, 20, 34, 42, 54, 60, 64, 128, 1500)
_FIELDS: Mapping[str, tuple[str, ...]] = {
    "xdp": ("ingress_ifindex", "rx_queue_index"),
    "tc": ("mark", "priority", "queue_mapping", "tc_index", "hash", "ifindex", "vlan_tci"),
    "socket_filter": ("mark", "priority", "queue_mapping", "hash", "ifindex"),
    "cgroup_skb": ("mark", "priority", "queue_mapping", "hash", "ifindex"),
}  # fmt: skip
_STRUCTS: Mapping[str, int] = {
    "kprobe": 168, "tracepoint": 8192, "raw_tracepoint": 96, "perf_event": 184, "cgroup_sock_addr": 80,
    "cgroup_device": 12, "cgroup_sysctl": 8, "cgroup_sockopt": 40, "sock_ops": 240, "sk_lookup": 72,
    "sk_msg": 88, "sk_reuseport": 64,
}  # fmt: skip
"""Bytes of the context, of types whose runs are given it instead of a packet."""

_FILLED = 16
"""Runs of machine code after which maps are filled anew."""

_KEYED = (MapType.ARRAY, MapType.HASH, MapType.LRU_HASH, MapType.PERCPU_ARRAY, MapType.PERCPU_HASH)


@dataclass(frozen=True, slots=True)
class Fault:
    """A run that went wrong: its packet and context, and how."""

    data: bytes
    context: Mapping[str, int]
    error: ExecutionError


def number(rng: random.Random) -> int:
    """Return a number of 32 bits, likely one at an edge."""
    kind = rng.random()
    if kind < 0.7:
        return (rng.choice(_NUMBERS) + rng.choice((0, 0, 0, 1, -1))) % 2**32
    return rng.getrandbits(32 if kind < 0.9 else 6)


def lengths_of(program: Program) -> tuple[int, ...]:
    """Return lengths of packets at the edges of what the program compares: its constants, and beside them."""
    found = {insn.imm for insn in program.instructions if 0 < insn.imm < 300}
    found |= {insn.imm + step for insn in program.instructions for step in (13, 14, 15) if 0 < insn.imm < 300}
    return (*_LENGTHS, *sorted(found))


def packet(rng: random.Random, lengths: tuple[int, ...]) -> bytes:
    """Return the bytes of a packet."""
    size = max(rng.choice(lengths) + rng.choice((0, 0, 1, -1)), 14)
    kind = rng.randrange(4)
    if kind == 0:
        return bytes([rng.choice((0, 1, 0x45, 255, rng.randrange(256)))]) * size
    if kind == 1:
        return bytes(rng.choices((0, 1, 4, 5, 6, 8, 15, 31, 0x45, 255), k=size))
    return rng.randbytes(size)


def context(rng: random.Random, size: int) -> bytes:
    """Return the bytes of a context: words, likely at an edge."""
    return b"".join(number(rng).to_bytes(4, "little") for _ in range(min(size, 256) // 4)).ljust(size, b"\0")


def fill(rng: random.Random, program: Program) -> None:
    """Put values at the edges into a program's maps, under the keys that generated programs ask for."""
    for map_ in program.maps:
        definition = map_.definition
        if definition.type not in _KEYED or definition.is_readonly or definition.special:
            continue
        for _ in range(2):
            key = b"".join(
                rng.randrange(3).to_bytes(8, "little") for _ in range(-(-definition.key_size // 8))
            )
            value = b"".join(number(rng).to_bytes(4, "little") for _ in range(-(-definition.value_size // 4)))
            value = value[: definition.value_size]
            is_percpu = "PERCPU" in MapType(definition.type).name
            with suppress(EbpfError):  # an array has not all keys
                map_[key[: definition.key_size]] = [value] if is_percpu else value


def environment(rng: random.Random) -> Environment:
    """Return clock and randomness at the edges."""
    return Environment(clock=lambda: number(rng) << rng.choice((0, 0, 32)), random=lambda: number(rng))


Given = tuple[bytes, Mapping[str, int], Environment]
"""A packet, fields of the context, and what surrounds a run."""


def given(rng: random.Random, sample: Sample, program: Program, count: int) -> Iterator[Given]:
    """Yield what a program is run with, `count` times; its maps are filled anew before each."""
    around = environment(rng)
    lengths = lengths_of(program)
    size = _STRUCTS.get(sample.type)
    for _ in range(count):
        fill(rng, program)
        fields = {name: number(rng) for name in _FIELDS.get(sample.type, ()) if rng.random() < 0.7}
        yield (packet(rng, lengths) if size is None else context(rng, size)), fields, around


def runs(sample: Sample, seed: int, count: int, engine: Any = "interpreter") -> Fault | None:
    """Run a program `count` times; return the first run that faults, None where none does."""
    program = sample.program()
    for data, context, around in given(random.Random(seed), sample, program, count):
        try:
            program.run(data, engine=engine, limit=LIMIT, context=context, environment=around)
        except BudgetExhausted:
            continue
        except InputError:
            continue
        except ExecutionError as error:
            return Fault(data, context, error)
    return None


def compiled_runs(sample: Sample, seed: int, count: int) -> Fault | None:
    """Run machine code of a program on `count` packets; return the first run that faults, or None.

    Its context and what surrounds it stay as they are, its maps for some runs: so that there may be many.
    """
    rng = random.Random(seed)
    program = sample.program()
    lengths, size = lengths_of(program), _STRUCTS.get(sample.type)
    fields = {name: number(rng) for name in _FIELDS.get(sample.type, ()) if rng.random() < 0.7}
    call = program.compile(limit=LIMIT, environment=environment(rng), context=fields, optimize=True)
    data = bytearray()
    try:
        for index in range(count):
            if index % _FILLED == 0:
                fill(rng, program)
            data = bytearray(packet(rng, lengths) if size is None else context(rng, size))
            with suppress(BudgetExhausted):
                call(data)
    except InputError:
        return None
    except ExecutionError as error:
        return Fault(bytes(data), fields, error)
    return None
