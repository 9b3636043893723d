"""XDP programs that do to each type of map what programs may: all results, for all three engines.

    r6  the context      r9  all that was seen, mixed
    r10-8   a key, or the first half of one      r10-16   a value, what is popped, a record

As in `packets` every step is whole in itself. Linux's verifier accepts all of them. The LRU maps are so large
that none evicts: what Linux evicts, and when, is its own (`tests/differential/test_maps_as_linux.py`).
"""

from __future__ import annotations

import random
from collections.abc import Callable

from ebpfjit.difftest.generate import EXIT, copy, encoded, plain
from ebpfjit.difftest.packets import ADDITIONS, MIXES, STORES, guarded, map_of
from ebpfjit.runtime.helpers.names import NUMBERS
from ebpfjit.runtime.maps.bytecode import DELETE, LOOKUP, UPDATE
from ebpfjit.runtime.maps.definition import MapDefinition, MapFlag, MapType

SEVERAL, MANY = 4, 256
"""Entries of maps that are to be full, and of those that are not."""

_INNER = MapDefinition("inner", MapType.HASH, 4, 8, SEVERAL)

DEFINITIONS = (
    MapDefinition("array", MapType.ARRAY, 4, 8, SEVERAL),
    MapDefinition("percpu_array", MapType.PERCPU_ARRAY, 4, 8, SEVERAL),
    MapDefinition("hash", MapType.HASH, 4, 8, SEVERAL),
    MapDefinition("late_hash", MapType.HASH, 4, 8, SEVERAL, MapFlag.NO_PREALLOC),
    MapDefinition("percpu_hash", MapType.PERCPU_HASH, 4, 8, SEVERAL),
    MapDefinition("lru_hash", MapType.LRU_HASH, 4, 8, MANY),
    MapDefinition("lru_percpu_hash", MapType.LRU_PERCPU_HASH, 4, 8, MANY),
    MapDefinition("lpm_trie", MapType.LPM_TRIE, 8, 8, SEVERAL, MapFlag.NO_PREALLOC),
    MapDefinition("devmap", MapType.DEVMAP, 4, 4, SEVERAL),
    MapDefinition("devmap_hash", MapType.DEVMAP_HASH, 4, 4, SEVERAL),
    MapDefinition("queue", MapType.QUEUE, 0, 8, SEVERAL),
    MapDefinition("stack", MapType.STACK, 0, 8, SEVERAL),
    MapDefinition("bloom_filter", MapType.BLOOM_FILTER, 0, 8, 4096),
    MapDefinition("ring", MapType.RINGBUF, 0, 0, 4096),
    MapDefinition("array_of_maps", MapType.ARRAY_OF_MAPS, 4, 4, 3, inner=_INNER),
    MapDefinition("hash_of_maps", MapType.HASH_OF_MAPS, 4, 4, 3, inner=_INNER),
)
_INDEX = {definition.type: index for index, definition in enumerate(DEFINITIONS)}
OF_MAPS = (MapType.ARRAY_OF_MAPS, MapType.HASH_OF_MAPS)
HOLDS = (0, 2)
"""Keys under which the maps of maps hold one each."""

_KEYED = tuple(
    index for index, each in enumerate(DEFINITIONS) if each.type <= MapType.LPM_TRIE and each.value_size == 8
)
_EMPTY = tuple(_INDEX[kind] for kind in (MapType.DEVMAP, MapType.DEVMAP_HASH))
_PERCPU = tuple(_INDEX[kind] for kind in (MapType.PERCPU_ARRAY, MapType.PERCPU_HASH, MapType.LRU_PERCPU_HASH))
_ENDS = (_INDEX[MapType.QUEUE], _INDEX[MapType.STACK])
_BLOOM, _RING = _INDEX[MapType.BLOOM_FILTER], _INDEX[MapType.RINGBUF]

KEY, VALUE = -8, -16
FLAGS = (0, 0, 0, 0, 1, 1, 2, 2, 3, 4, 5, 6, 8, -1)
PUSH_FLAGS = (0, 0, 0, 2, 2, 1, 3, 4)
PREFIXES = (0, 1, 8, 24, 31, 32, 33, 99)
NO_CPU = 4000
PUSH, POP, PEEK, LOOKUP_PERCPU = (
    NUMBERS[f"bpf_map_{name}_elem"] for name in ("push", "pop", "peek", "lookup_percpu")
)
OUTPUT, RESERVE, SUBMIT, DISCARD, QUERY = (
    NUMBERS[f"bpf_ringbuf_{name}"] for name in ("output", "reserve", "submit", "discard", "query")
)


def _seen(register: int) -> bytes:
    """A number, mixed into what was seen."""
    return plain("MUL64_K", 9, imm=31) + plain("XOR64_X", 9, register)


def _address(register: int, offset: int) -> bytes:
    return copy(register, 10) + plain("ADD64_K", register, imm=offset)


def _number(rng: random.Random, register: int, most: int) -> bytes:
    """A number up to `most` (2**n - 1), known or one that was seen."""
    if rng.random() < 0.6:
        return plain("MOV64_K", register, imm=rng.randrange(most + 1))
    return copy(register, 9) + plain("AND64_K", register, imm=most)


def _key(rng: random.Random, index: int) -> bytes:
    """A key, at r10-8; its address in r2."""
    if DEFINITIONS[index].type == MapType.LPM_TRIE:
        data = rng.choice((0x0000000A, 0xFF02010A, 0x00000080)) ^ rng.randrange(4) << 24
        code = plain("STW", 10, 0, KEY, rng.choice(PREFIXES))
        return code + plain("STW", 10, 0, KEY + 4, data - (data >> 31 << 32)) + _address(2, KEY)
    return _number(rng, 2, 7) + plain("STXW", 10, 2, KEY) + _address(2, KEY)


def _with_value(rng: random.Random) -> bytes:
    """What is done with a value that was found: read, and stored to in some way."""
    row = rng.choice(STORES)
    change = copy(3, 9) + encoded(rng.choice(ADDITIONS), 0, 3)
    return plain("LDXDW", 1, 0) + _seen(1) + (change if rng.random() < 0.5 else encoded(row, 0, 9, 0, 77))


def _on_map(rng: random.Random, index: int, load_map: bytes) -> bytes:
    """An operation on a map with keys, whose address is put into r1 behind everything else."""
    operation = rng.choice((LOOKUP, LOOKUP, UPDATE, UPDATE, UPDATE, DELETE))
    code = _key(rng, index)
    if operation == UPDATE:
        code += plain("STXDW", 10, 9, VALUE) + _address(3, VALUE)
        code += plain("MOV64_K", 4, imm=rng.choice(FLAGS))
    code += load_map + plain("CALL", imm=operation)
    if operation == LOOKUP:
        return code + guarded(plain("JEQ_K", 0), _with_value(rng))
    return code + _seen(0)


def _keyed(rng: random.Random) -> bytes:
    index = rng.choice(_KEYED)
    return _on_map(rng, index, map_of(1, index))


def _inside(rng: random.Random) -> bytes:
    """A map inside of another, and an operation on it."""
    outer = _INDEX[rng.choice(OF_MAPS)]
    body = copy(7, 0) + _on_map(rng, _INDEX[MapType.HASH], copy(1, 7))
    code = _key(rng, outer) + map_of(1, outer) + plain("CALL", imm=LOOKUP)
    return code + guarded(plain("JEQ_K", 0), body)


def _empty(rng: random.Random) -> bytes:
    """A lookup where only user space stores, and has not."""
    index = rng.choice(_EMPTY)
    found = plain("MOV64_K", 9, imm=1)
    code = _key(rng, index) + map_of(1, index) + plain("CALL", imm=LOOKUP)
    return code + guarded(plain("JEQ_K", 0), found)


def _of_a_cpu(rng: random.Random) -> bytes:
    """The value that a processor has: the one that runs, or one that is not there."""
    index = rng.choice(_PERCPU)
    cpu = plain("MOV64_K", 3, imm=rng.choice((0, 0, NO_CPU)))
    code = _key(rng, index) + map_of(1, index) + cpu + plain("CALL", imm=LOOKUP_PERCPU)
    return code + guarded(plain("JEQ_K", 0), _with_value(rng))


def _ends(rng: random.Random) -> bytes:
    """Push, pop or peek."""
    index = rng.choice(_ENDS)
    code = plain("STXDW", 10, 9, VALUE) + map_of(1, index) + _address(2, VALUE)
    if rng.random() < 0.5:
        return code + plain("MOV64_K", 3, imm=rng.choice(PUSH_FLAGS)) + plain("CALL", imm=PUSH) + _seen(0)
    code += plain("CALL", imm=rng.choice((POP, PEEK))) + _seen(0)
    return code + plain("LDXDW", 1, 10, VALUE) + _seen(1)


def _bloom(rng: random.Random) -> bytes:
    """A value put into a Bloom filter, or asked for."""
    code = _number(rng, 1, 7) + plain("STXDW", 10, 1, VALUE) + map_of(1, _BLOOM) + _address(2, VALUE)
    if rng.random() < 0.5:
        return (
            code
            + plain("MOV64_K", 3, imm=rng.choice((0, 0, 0, 1, 2, 4)))
            + plain("CALL", imm=PUSH)
            + _seen(0)
        )
    return code + plain("CALL", imm=PEEK) + _seen(0)


def _ring(rng: random.Random) -> bytes:
    """A record put in whole, or reserved and handed over or dropped; a question."""
    pick = rng.random()
    if pick < 0.3:
        code = map_of(1, _RING) + plain("MOV64_K", 2, imm=rng.randrange(6)) + plain("CALL", imm=QUERY)
        return code + _seen(0)
    if pick < 0.6:
        code = plain("STXDW", 10, 9, VALUE) + map_of(1, _RING) + _address(2, VALUE)
        code += plain("MOV64_K", 3, imm=rng.randrange(1, 9)) + plain("MOV64_K", 4)
        return code + plain("CALL", imm=OUTPUT) + _seen(0)
    size = rng.choice((8, 16, 24, 1000, 4080, 4089))
    filled = (
        b"".join(plain("STXDW", 0, 9, 8 * word) for word in range(size // 8))
        if size < 100
        else plain("STXDW", 0, 9)
    )
    if size >= 100:
        return (
            map_of(1, _RING)
            + plain("MOV64_K", 2, imm=size)
            + plain("MOV64_K", 3)
            + plain("CALL", imm=RESERVE)
            + guarded(plain("JEQ_K", 0), copy(1, 0) + plain("MOV64_K", 2) + plain("CALL", imm=DISCARD))
        )
    body = filled + copy(1, 0) + plain("MOV64_K", 2) + plain("CALL", imm=rng.choice((SUBMIT, DISCARD)))
    code = map_of(1, _RING) + plain("MOV64_K", 2, imm=size) + plain("MOV64_K", 3) + plain("CALL", imm=RESERVE)
    return code + guarded(plain("JEQ_K", 0), body)


def _arithmetic(rng: random.Random) -> bytes:
    """Some operation on what was seen."""
    return copy(1, 9) + encoded(rng.choice(MIXES), 9, 1, imm=rng.randrange(1, 1 << 31) | 1)


STEPS: tuple[tuple[Callable[[random.Random], bytes], int], ...] = (
    (_keyed, 12),
    (_inside, 3),
    (_empty, 1),
    (_of_a_cpu, 2),
    (_ends, 3),
    (_bloom, 1),
    (_ring, 2),
    (_arithmetic, 1),
)
"""What programs consist of, and how often."""


def program(rng: random.Random) -> bytes:
    """Return an XDP program on all the maps; the first entry of the array is what it has seen."""
    start = copy(6, 1) + plain("MOV64_K", 9, imm=rng.randrange(1 << 31)) + plain("STDW", 10, 0, KEY)
    steps, weights = zip(*STEPS, strict=True)
    body = b"".join(step(rng) for step in rng.choices(steps, weights, k=rng.randrange(2, 24)))
    last = plain("STW", 10, 0, KEY) + map_of(1, 0) + _address(2, KEY)
    last += plain("CALL", imm=LOOKUP) + guarded(plain("JEQ_K", 0), plain("STXDW", 0, 9))
    return start + body + last + copy(0, 9) + plain("AND64_K", 0, imm=3) + EXIT
