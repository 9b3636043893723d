"""The routines of maps three ways: in Python, as eBPF in the interpreter, as native functions."""

from __future__ import annotations

import ctypes
import random
from collections.abc import Callable
from functools import cache
from typing import Any

import pytest

from ebpfjit import Program, address_of
from ebpfjit.analysis.verified import Verified, prepare
from ebpfjit.bits import W64
from ebpfjit.interpreter import interpret
from ebpfjit.jit.map_routines import native_routine
from ebpfjit.runtime.environment import Environment
from ebpfjit.runtime.execution import Execution
from ebpfjit.runtime.helpers.names import DELETE, LOOKUP, UPDATE
from ebpfjit.runtime.maps import MapDefinition, MapFlag, MapType, bytecode, create
from ebpfjit.runtime.maps.flat import HEADER_SIZE
from ebpfjit.runtime.maps.hash import fixed_secrets
from ebpfjit.runtime.memory import Region

STEPS = 400
Operation = Callable[[Any, int, bytes, bytes, int], int]
_NATIVE = ctypes.PYFUNCTYPE(ctypes.c_uint64, *[ctypes.c_uint64] * 4)

# r1 points to the four arguments; the routine's own code follows
LOAD_ARGUMENTS = bytes.fromhex("7914180000000000 7913100000000000 7912080000000000 7911000000000000")


def in_python(m: Any, helper: int, key: bytes, value: bytes, flags: int) -> int:
    if helper == LOOKUP:
        return int(m.lookup(key))
    return W64.wrap(m.update(key, value, flags) if helper == UPDATE else m.delete(key))


@cache
def prepared(routine: str) -> Verified:
    return prepare(Program.from_bytes(LOAD_ARGUMENTS + bytecode.routine(routine).code))


def interpreted(m: Any, helper: int, key: bytes, value: bytes, flags: int) -> int:
    name = bytecode.routine_of(m.definition, helper)
    arguments = b"".join(
        number.to_bytes(8, "little") for number in (m.address, address_of(key), address_of(value), flags)
    )
    memory = [m.storage.memory, key, value, arguments]
    regions = [Region.of_buffer("memory", buffer) for buffer in memory]
    return interpret(prepared(name), Execution((regions[-1].start, 0), regions))


def native(m: Any, helper: int, key: bytes, value: bytes, flags: int) -> int:
    name = bytecode.routine_of(m.definition, helper)
    return int(_NATIVE(native_routine(name).address)(m.address, address_of(key), address_of(value), flags))


WAYS: tuple[Operation, ...] = (in_python, interpreted, native)
SHAPES = [
    #                           key value entries
    *(
        (MapType.HASH, key, value, 20)
        for key in (1, 2, 3, 4, 7, 8, 12, 15, 16, 24, 61)
        for value in (1, 4, 8, 29)
    ),
    (MapType.LRU_HASH, 4, 8, 9),
    (MapType.LRU_HASH, 16, 3, 16),
    (MapType.PERCPU_HASH, 4, 12, 20),
    (MapType.LRU_PERCPU_HASH, 8, 8, 9),
    (MapType.ARRAY, 4, 13, 20),
    (MapType.PERCPU_ARRAY, 4, 8, 20),
]


@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: "-".join(map(str, shape)))
def test_all_three_do_the_same(shape: tuple[MapType, int, int, int]) -> None:
    kind, key_size, value_size, entries = shape
    definition = MapDefinition("m", kind, key_size, value_size, entries)
    maps = []
    for _ in WAYS:  # the same memory to start with
        with fixed_secrets(1):
            maps.append(create(definition, environment=Environment(cpus=3, cpu=1)))
    rng = random.Random(str(shape))
    keys = [rng.randbytes(key_size - 1) + bytes([number]) for number in range(26)]
    if kind in bytecode.ARRAYS:
        keys = [number.to_bytes(4, "little") for number in range(26)]
    helpers = [
        helper for helper in (LOOKUP, UPDATE, UPDATE, DELETE) if bytecode.routine_of(definition, helper)
    ]
    for step in range(STEPS):
        helper, key = rng.choice(helpers), rng.choice(keys)
        value, flags = rng.randbytes(value_size), rng.choice((0, 0, 0, 1, 2, 3, 4, 5, 6, 1 << 63))
        results = [way(m, helper, key, value, flags) for way, m in zip(WAYS, maps, strict=True)]
        if helper == LOOKUP:  # an address counts from where the memory of each map starts
            results = [result and result - m.address for result, m in zip(results, maps, strict=True)]
        assert len(set(results)) == 1, (step, helper, results)
    fields = [[m.field(name) for name in ("count", "used", "free")] for m in maps]
    assert fields[0] == fields[1] == fields[2]
    contents = {bytes(m.storage.memory[HEADER_SIZE:]) for m in maps}
    assert len(contents) == 1
    assert kind in bytecode.ARRAYS or len(maps[0]) > 0


@pytest.mark.parametrize("size", [5, 8, 12, 20, 37, 260])
def test_all_three_find_the_longest_prefix(size: int) -> None:
    rng, bits = random.Random(size), 8 * (size - 4)
    m = create(MapDefinition("m", MapType.LPM_TRIE, size, 8, 60, flags=MapFlag.NO_PREALLOC))

    def data() -> bytes:  # a few bits differ, so that prefixes contain each other
        return (rng.choice((0, 5 << bits - 5)) ^ 1 << rng.randrange(bits)).to_bytes(size - 4, "big")

    found = set()
    lengths = [length for length in (0, 1, 7, 8, 9, bits // 2, bits - 1, bits) if length <= bits]
    for step in range(STEPS):
        key = rng.choice(lengths).to_bytes(4, "little") + data()
        if step % 4 == 0:
            m.update(key, rng.randbytes(8))
        if step % 16 == 3:
            m.delete(rng.choice(list(m)))
        key = rng.choice((bits, bits, *lengths)).to_bytes(4, "little") + data()
        results = [way(m, LOOKUP, key, bytes(8), 0) for way in WAYS]
        assert len(set(results)) == 1, (step, key)
        found.add(results[0])
    assert len(found) > 5


def test_routines_are_for_array_and_hash_kinds() -> None:
    shapes = {kind: MapDefinition("m", kind, 4, 8, 4) for kind in MapType}
    routines = {
        (kind.name, helper): bytecode.routine_of(d, helper)
        for kind, d in shapes.items()
        for helper in (1, 2, 3)
    }
    assert {kind for (kind, _), name in routines.items() if name} == {
        "HASH", "LRU_HASH", "PERCPU_HASH", "LRU_PERCPU_HASH", "ARRAY", "PERCPU_ARRAY", "LPM_TRIE",
    }  # fmt: skip
    assert routines["HASH", LOOKUP] == "hash_lookup_4"
    assert bytecode.routine_of(MapDefinition("m", MapType.HASH, 5, 8, 4), LOOKUP) == "hash_lookup"
