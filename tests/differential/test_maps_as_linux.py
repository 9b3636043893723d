"""Random operations on our maps and on the kernel's: the same results, values and error numbers."""

from __future__ import annotations

import errno
import os
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from ebpfjit import MapError, MapRefused, Program, kernel
from ebpfjit.kernel import syscalls
from ebpfjit.runtime.environment import Environment
from ebpfjit.runtime.maps import MapDefinition, MapFlag, MapType, create, rules
from tests.support import kernel_maps
from tests.support.kernel_maps import PERCPU, Answer, RawMap

_REASON = kernel.unavailable_reason()
pytestmark = pytest.mark.skipif(_REASON is not None, reason=str(_REASON))

STEPS = 3000
FLAGS = (0, 0, 0, 0, 1, 1, 2, 2, 3, 4, 5, 8, 1 << 40)


def possible_cpus() -> int:
    last = Path("/sys/devices/system/cpu/possible").read_text().strip().replace(",", "-").split("-")[-1]
    return int(last) + 1


CPUS = possible_cpus() if Path("/sys/devices/system/cpu/possible").exists() else 1


def both(definition: MapDefinition) -> tuple[Any, RawMap]:
    return create(definition, environment=Environment(cpus=CPUS)), RawMap(definition, CPUS)


# -- ours, as bpf(2) would answer


def answered(operation: Callable[[], object]) -> int:
    try:
        operation()
    except KeyError:
        return -errno.ENOENT
    except MapError as error:
        return -error.errno
    return 0


def lookup(m: Any, key: bytes) -> Answer:
    try:
        value = m[key]
    except KeyError:
        return -errno.ENOENT, None
    if isinstance(value, list):
        room = -(-m.definition.value_size // 8) * 8
        value = b"".join(one.ljust(room, b"\0") for one in value)
    return 0, value


def update(m: Any, key: bytes, value: bytes, flags: int) -> int:
    given: Any = value
    if m.definition.type in PERCPU:
        size, room = m.definition.value_size, -(-m.definition.value_size // 8) * 8
        given = [value[room * cpu :][:size] for cpu in range(CPUS)]
    return answered(lambda: m.put(key, given, flags))


def delete(m: Any, key: bytes) -> int:
    return answered(lambda: m.__delitem__(key))


# -- keyed kinds


def small_key(rng: random.Random, size: int) -> bytes:
    return rng.randrange(12).to_bytes(size, "little")


def prefix_key(rng: random.Random, size: int) -> bytes:
    data = rng.choice((0x0A000000, 0x0A010000, 0x0A0102FF, 0xFF000000)) ^ rng.randrange(4)
    return rng.choice((0, 1, 8, 9, 16, 24, 31, 32, 33, 99)).to_bytes(4, "little") + data.to_bytes(4, "big")


def interface(rng: random.Random, size: int) -> bytes:
    return rng.choice((0, 1, 1, 1)).to_bytes(4, "little") + bytes(size - 4)  # number 1 is always there


def queue_length(rng: random.Random, size: int) -> bytes:
    return rng.choice((0, 1, 5, 16384, 16385)).to_bytes(4, "little") + bytes(size - 4)


def any_value(rng: random.Random, size: int) -> bytes:
    return rng.randbytes(size)


NO_PREALLOC = int(MapFlag.NO_PREALLOC)
KEYED = {
    #                        type               key value entries flags
    "hash": (MapType.HASH, 4, 8, 8, 0),
    "hash without preallocation": (MapType.HASH, 4, 8, 8, NO_PREALLOC),
    "hash of odd sizes": (MapType.HASH, 7, 5, 8, 0),
    "hash of long keys": (MapType.HASH, 60, 33, 8, 0),
    "array": (MapType.ARRAY, 4, 8, 8, 0),
    "array of odd values": (MapType.ARRAY, 4, 13, 8, 0),
    "percpu_array": (MapType.PERCPU_ARRAY, 4, 12, 8, 0),
    "percpu_hash": (MapType.PERCPU_HASH, 4, 12, 8, 0),
    "lru_hash": (MapType.LRU_HASH, 4, 8, 1000, 0),
    "lru_percpu_hash": (MapType.LRU_PERCPU_HASH, 4, 8, 1000, 0),
    "lpm_trie": (MapType.LPM_TRIE, 8, 4, 12, NO_PREALLOC),
    "devmap": (MapType.DEVMAP, 4, 4, 8, 0),
    "devmap with programs": (MapType.DEVMAP, 4, 8, 8, 0),
    "devmap_hash": (MapType.DEVMAP_HASH, 4, 8, 8, 0),
    "cpumap": (MapType.CPUMAP, 4, 4, CPUS, 0),
}  # fmt: skip
KEYS = {"lpm_trie": prefix_key}
VALUES = {
    "devmap": interface, "devmap with programs": interface, "devmap_hash": interface, "cpumap": queue_length,
}  # fmt: skip
HASHES_IN_ANY_ORDER = set(KEYED) - {"lpm_trie"}


@pytest.mark.parametrize("name", KEYED)
def test_keyed_maps_answer_as_linux_does(name: str) -> None:
    definition = MapDefinition("m", *KEYED[name])
    ours, theirs = both(definition)
    rng = random.Random(name)
    key_of, value_of = KEYS.get(name, small_key), VALUES.get(name, any_value)
    seen: set[tuple[str, int]] = set()
    for step in range(STEPS):
        key = key_of(rng, definition.key_size)
        what = rng.choice(("lookup", "update", "update", "delete"))
        flags = 0
        if what == "lookup":
            mine, linux = lookup(ours, key), theirs.element(syscalls.MAP_LOOKUP, key)
        elif what == "delete":
            mine, linux = (delete(ours, key), None), theirs.element(3, key, b"")
        else:
            flags = rng.choice(FLAGS)
            value = value_of(rng, theirs.copied)
            mine = update(ours, key, value, flags), None
            linux = theirs.element(syscalls.MAP_UPDATE, key, value, flags)
        mine = (mine[0], _comparable(definition, mine[1]))
        linux = (linux[0], _comparable(definition, linux[1]))
        assert mine == linux, f"step {step}: {what} {key.hex(' ')} flags {flags}: ours {mine}, Linux {linux}"
        seen.add((what, linux[0]))
    assert {("lookup", 0), ("update", 0), ("update", -errno.EINVAL)} <= seen
    if name in HASHES_IN_ANY_ORDER and definition.type != MapType.CPUMAP:
        assert sorted(ours) == sorted(_kernel_keys(theirs, definition))


def _comparable(definition: MapDefinition, value: bytes | None) -> bytes | None:
    """Return what both must agree on: the padding of per-CPU values is nobody's."""
    if value is None or definition.type not in PERCPU:
        return value
    size, room = definition.value_size, -(-definition.value_size // 8) * 8
    return b"".join(value[start : start + size] for start in range(0, len(value), room))


def _kernel_keys(theirs: RawMap, definition: MapDefinition) -> list[bytes]:
    keys = []
    key = syscalls.map_next_key(theirs.fd, None, definition.key_size)
    while key is not None:
        if theirs.element(syscalls.MAP_LOOKUP, key)[0] == 0:
            keys.append(key)
        key = syscalls.map_next_key(theirs.fd, key, definition.key_size)
    return keys


# -- LRU kinds

LISTS = {"one list": 0, "a list each": int(MapFlag.NO_COMMON_LRU)}
ONE_CPU = {next(iter(os.sched_getaffinity(0)))}


@pytest.fixture
def one_processor() -> Iterator[None]:
    """Stay on one: Linux's LRU maps have lists of their own for each."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, ONE_CPU)
    yield
    os.sched_setaffinity(0, before)


@pytest.mark.usefixtures("one_processor")
@pytest.mark.parametrize("entries", [10, 64, 512])
@pytest.mark.parametrize("lists", LISTS)
@pytest.mark.parametrize("kind", [MapType.LRU_HASH, MapType.LRU_PERCPU_HASH])
def test_what_an_lru_keeps_is_the_youngest_as_in_linux(kind: MapType, lists: str, entries: int) -> None:
    ours, theirs = both(MapDefinition("m", kind, 4, 8, entries, LISTS[lists]))
    rng = random.Random(f"{kind} {lists} {entries}")
    ages: dict[bytes, None] = {}  # from the oldest on, evicted or not
    for number in range(STEPS):
        key = number.to_bytes(4, "little")
        update(ours, key, bytes(theirs.copied), 0)
        theirs.element(syscalls.MAP_UPDATE, key, bytes(theirs.copied))
        ages[key] = None
        if rng.random() < 0.3:
            gone = rng.choice(list(ages)[-entries:])
            del ages[gone]
            delete(ours, gone)
            theirs.element(3, gone, b"")
    kept = [key for key in ages if key in ours]
    linux = [key for key in ages if theirs.element(syscalls.MAP_LOOKUP, key)[0] == 0]
    assert kept == list(ages)[-len(kept) :]
    assert linux == list(ages)[-len(linux) :]  # Linux takes some at a time, so it may keep fewer
    assert 0 < len(linux) <= len(kept) <= entries


@pytest.mark.usefixtures("one_processor")
def test_what_is_updated_all_the_time_stays_in_an_lru_as_in_linux() -> None:
    ours, theirs = both(MapDefinition("m", MapType.LRU_HASH, 4, 8, 64))
    busy = (1 << 31).to_bytes(4, "little")
    for number in range(STEPS):
        for key in (number.to_bytes(4, "little"), busy):
            update(ours, key, bytes(8), 0)
            theirs.element(syscalls.MAP_UPDATE, key, bytes(8))
        assert busy in ours
        assert theirs.element(syscalls.MAP_LOOKUP, busy)[0] == 0


# -- queues, stacks, Bloom filters


@pytest.mark.parametrize("kind", [MapType.QUEUE, MapType.STACK])
def test_queues_and_stacks_answer_as_linux_does(kind: MapType) -> None:
    ours, theirs = both(MapDefinition("m", kind, 0, 8, 5))
    rng = random.Random(kind.name)
    for step in range(STEPS):
        what = rng.choice(("push", "push", "peek", "pop", "delete"))
        if what == "push":
            value, flags = rng.randbytes(8), rng.choice((0, 0, 1, 2, 3, 8))
            mine: Answer = (answered(lambda v=value, f=flags: ours.push(v, f)), None)
            linux = theirs.element(syscalls.MAP_UPDATE, b"", value, flags)
        elif what == "delete":
            mine, linux = (ours.delete(b""), None), (theirs.element(3, b"", b"")[0], None)
        else:
            taken = ours.peek_value() if what == "peek" else ours.pop_value()
            mine = (0, taken) if taken is not None else (-errno.ENOENT, None)
            command = syscalls.MAP_LOOKUP if what == "peek" else kernel_maps.LOOKUP_AND_DELETE
            linux = theirs.element(command, b"")
        assert mine == linux, f"step {step}: {what}: ours {mine}, Linux {linux}"


def test_bloom_filters_answer_as_linux_does() -> None:
    ours, theirs = both(MapDefinition("m", MapType.BLOOM_FILTER, 0, 8, 100))
    rng = random.Random(1)
    for _ in range(100):
        value, flags = rng.randbytes(8), rng.choice((0, 0, 1, 2, 4))
        mine = answered(lambda v=value, f=flags: ours.push(v, f))
        linux, _ = theirs.element(syscalls.MAP_UPDATE, b"", value, flags)
        assert mine == linux
        if mine == 0:
            assert value in ours
            assert theirs.element(syscalls.MAP_LOOKUP, b"", value)[0] == 0
    assert ours.delete(b"") == theirs.element(3, b"", b"")[0]
    misses = sum(rng.randbytes(8) in ours for _ in range(2000))
    theirs_misses = sum(
        theirs.element(syscalls.MAP_LOOKUP, b"", rng.randbytes(8))[0] == 0 for _ in range(2000)
    )
    assert misses < 4 * max(theirs_misses, 25)


# -- references


def test_prog_arrays_answer_as_linux_does() -> None:
    ours, theirs = both(MapDefinition("m", MapType.PROG_ARRAY, 4, 4, 4))
    program = Program.from_bytes(bytes.fromhex("b7000000000000009500000000000000"))
    with kernel.LoadedProgram(program.code, 1) as loaded:
        descriptor = loaded.fd.to_bytes(4, "little")
        rng = random.Random(2)
        for _ in range(500):
            key = rng.randrange(6).to_bytes(4, "little")
            if rng.random() < 0.5:
                flags = rng.choice((0, 0, 0, 1, 2))
                mine = answered(lambda k=key, f=flags: ours.put(k, program, f))
                linux = theirs.element(syscalls.MAP_UPDATE, key, descriptor, flags)[0]
            else:
                mine, linux = delete(ours, key), theirs.element(3, key, b"")[0]
            assert mine == linux
            assert (key in ours) == (theirs.element(syscalls.MAP_LOOKUP, key)[0] == 0)


INNER = MapDefinition("inner", MapType.ARRAY, 4, 8, 2)
INSIDE = (INNER, MapDefinition("larger", MapType.ARRAY, 4, 8, 3), MapDefinition("h", MapType.HASH, 4, 8, 2))


@pytest.mark.parametrize("kind", [MapType.ARRAY_OF_MAPS, MapType.HASH_OF_MAPS])
def test_maps_of_maps_answer_as_linux_does(kind: MapType) -> None:
    template = RawMap(INNER, CPUS)
    definition = MapDefinition("m", kind, 4, 4, 4, inner=INNER)
    ours, theirs = create(definition), RawMap(definition, CPUS, template.fd)
    pairs = [both(inside) for inside in INSIDE]
    rng = random.Random(3)
    for _ in range(1000):
        key = rng.randrange(6).to_bytes(4, "little")
        if rng.random() < 0.6:
            inner, raw = rng.choice(pairs)
            flags = rng.choice((0, 0, 0, 1, 2, 3))
            mine = answered(lambda k=key, i=inner, f=flags: ours.put(k, i, f))
            linux = theirs.element(syscalls.MAP_UPDATE, key, raw.fd.to_bytes(4, "little"), flags)[0]
        else:
            mine, linux = delete(ours, key), theirs.element(3, key, b"")[0]
        assert mine == linux
        assert (key in ours) == (theirs.element(syscalls.MAP_LOOKUP, key)[0] == 0)


# -- creation

SIZES = (0, 1, 2, 4, 5, 8, 12, 260, 261, 513, 1016, 1024, 32768, 32769, 4194248, 4194256, 4194304, 1 << 31)
ENTRIES = (0, 1, 3, 64, 4096, 5000)
LISTED = sorted(
    kind.name for kind in rules.SHAPES if not kind.name.endswith("OF_MAPS") and kind not in rules.STORAGES
)
"""Local storage needs BTF: see tests/unit/test_local_storage.py."""
USUAL = {
    "RINGBUF": (0, 0), "USER_RINGBUF": (0, 0), "QUEUE": (0, 8), "STACK": (0, 8),
    "BLOOM_FILTER": (0, 8), "LPM_TRIE": (8, 8), "CGROUP_STORAGE": (8, 8), "PERCPU_CGROUP_STORAGE": (16, 8),
    "ARENA": (0, 0),
}  # fmt: skip
NO_MEMORY = (-errno.ENOMEM, -errno.ENOSPC)


@pytest.mark.parametrize("name", LISTED)
def test_the_kernel_refuses_what_we_refuse(name: str) -> None:
    kind = MapType[name]
    rng = random.Random(name)
    outcomes = set()
    # How many processors a cpumap may have is the kernel's configuration.
    entries = (0, 1, CPUS) if kind is MapType.CPUMAP else ENTRIES
    for _ in range(400):
        usual_key, usual_value = USUAL.get(name, (4, 8))
        key = rng.choice((usual_key, rng.choice(SIZES)))
        value = rng.choice((usual_value, 4, rng.choice(SIZES)))
        usual = {MapType.LPM_TRIE: NO_PREALLOC, MapType.ARENA: MapFlag.MMAPABLE}.get(kind, 0)
        flags = rng.choice((usual, usual, usual, usual, 0, 1 << rng.randrange(13), rng.randrange(1 << 13)))
        if flags & MapFlag.NUMA_NODE and kind in PERCPU:
            continue
        extra = rng.choice((0, 0, 0, 0, 0, 1, 15, 16, 1 << 40))
        definition = MapDefinition("m", kind, key, value, rng.choice(entries), flags, extra=extra)
        if kind is MapType.PERF_EVENT_ARRAY and not definition.max_entries:
            continue  # libbpf makes it as many as there are CPUs, so do we
        if definition.max_entries * (key + value) > 1 << 20 and definition.max_entries > 1:
            continue  # the kernel may be out of such memory for now
        fd = kernel_maps.create(definition)
        if fd >= 0:
            os.close(fd)
        if fd in NO_MEMORY:
            continue
        mine = 0
        try:
            create(definition)
        except MapRefused as error:
            mine = -error.errno
        assert mine == min(fd, 0), f"{definition!r}: ours {mine}, Linux {fd}"
        outcomes.add(mine)
    assert {0, -errno.EINVAL} <= outcomes
