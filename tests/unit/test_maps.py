"""Maps: the Python mapping, the operations of programs, their memory, and what is refused."""

from __future__ import annotations

import ctypes
import errno
import struct
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from ebpfjit import LoadError, MapError, MapRefused, Program
from ebpfjit.runtime.environment import Environment
from ebpfjit.runtime.maps import BPF_ANY, BPF_EXIST, BPF_NOEXIST, MapDefinition, MapFlag, MapType, create
from ebpfjit.runtime.maps.hash import fixed_secrets
from tests.support.pace import within

EXIT = bytes.fromhex("b700000000000000 9500000000000000".replace(" ", ""))


def make(
    kind: str, key: int = 4, value: int = 8, entries: int = 4, *, cpus: int = 1, cpu: int = 0, **more: Any
) -> Any:
    if kind == "lpm_trie":
        more.setdefault("flags", MapFlag.NO_PREALLOC)
    definition = MapDefinition("m", MapType[kind.upper()], key, value, entries, **more)
    return create(definition, environment=Environment(cpus=cpus, cpu=cpu))


def u32(number: int) -> bytes:
    return number.to_bytes(4, "little")


def u64(number: int) -> bytes:
    return number.to_bytes(8, "little")


def at(address: int, size: int) -> bytes:
    return ctypes.string_at(address, size)


class U32Pair:
    """A codec, as BTF makes them for structs."""

    size = 8

    def decode(self, data: bytes) -> dict[str, int]:
        return dict(zip(("a", "b"), struct.unpack("<II", data), strict=True))

    def encode(self, value: Any) -> bytes:
        return struct.pack("<II", value["a"], value["b"])


# --- hash and array as Python mappings


def test_a_hash_is_a_mapping() -> None:
    m = make("hash")
    assert len(m) == 0
    assert list(m) == []
    m[u32(7)] = u64(70)
    m[8] = 80
    assert m[7] == m[u32(7)] == m[bytearray(u32(7))] == u64(70)
    assert list(m) == [u32(7), u32(8)]
    assert dict(m.items()) == {u32(7): u64(70), u32(8): u64(80)}
    assert list(m.keys()) == [u32(7), u32(8)]
    assert list(m.values()) == [u64(70), u64(80)]
    assert 7 in m
    assert 9 not in m
    assert m.get(9) is None
    assert m.get(9, b"none") == b"none"
    del m[7]
    assert 7 not in m
    assert m.pop(8) == u64(80)
    assert m.pop(8, None) is None
    for operation in (lambda: m[7], lambda: m.pop(7), lambda: m.__delitem__(7)):
        with pytest.raises(KeyError, match=r"map 'm' \(hash\): nothing under 7"):
            operation()
    m[1] = m[2] = 5
    m.clear()
    assert len(m) == 0


def test_an_empty_map_is_still_something() -> None:
    assert make("hash")
    assert make("queue", 0)


def test_an_array_has_every_index_from_the_start() -> None:
    m = make("array", value=3)
    assert len(m) == 4
    assert list(m.values()) == [bytes(3)] * 4
    m[3] = b"abc"
    assert m[3] == b"abc"
    assert list(m) == [u32(index) for index in range(4)]
    assert 4 not in m
    with pytest.raises(KeyError):
        m[4]
    with pytest.raises(MapError, match="outside of an array of 4 entries") as error:
        m[4] = b"abc"
    assert error.value.errno == errno.E2BIG
    with pytest.raises(MapError) as error:
        del m[0]
    assert error.value.errno == errno.EINVAL
    m.clear()
    assert m[3] == bytes(3)


@pytest.mark.parametrize(
    ("value", "exception"),
    [
        (b"1234567", ValueError),
        (b"123456789", ValueError),
        (1 << 64, ValueError),
        (-(1 << 63) - 1, ValueError),
        ("text", TypeError),
        (1.5, TypeError),
        (None, TypeError),
    ],
)
def test_values_of_the_wrong_kind_are_refused(value: object, exception: type[Exception]) -> None:
    m = make("hash")
    with pytest.raises(exception, match="value"):
        m[1] = value
    typed = make("hash", value_type=U32Pair())
    with pytest.raises(
        exception, match=f"{typed.definition}".replace("(", ".").replace(")", ".") + ":.* value"
    ):
        typed[1] = value
    assert len(m) == len(typed) == 0
    with pytest.raises(ValueError, match="key has 4 bytes, this one has 3"):
        m[b"abc"]
    with pytest.raises(ValueError, match="key"):
        m[1 << 32] = 1


def test_ints_are_little_endian_and_may_be_negative() -> None:
    m = make("hash", key=2, value=4)
    m[0x0102] = -2
    assert dict(m.items()) == {b"\x02\x01": b"\xfe\xff\xff\xff"}
    with pytest.raises(TypeError, match="is 3 bytes, not int"):
        make("hash", value=3)[1] = 5


def test_flags_of_an_update() -> None:
    m = make("hash")
    m.put(1, 10, BPF_NOEXIST)
    with pytest.raises(MapError, match="BPF_NOEXIST") as error:
        m.put(1, 11, BPF_NOEXIST)
    assert error.value.errno == errno.EEXIST
    with pytest.raises(MapError) as error:
        m.put(2, 11, BPF_EXIST)
    assert error.value.errno == errno.ENOENT
    with pytest.raises(MapError) as error:
        m.put(1, 11, 3)
    assert error.value.errno == errno.EINVAL
    m.put(1, 12, BPF_EXIST)
    assert dict(m.items()) == {u32(1): u64(12)}


def test_a_full_hash_says_so_and_still_updates_what_it_has() -> None:
    m = make("hash")
    for key in range(4):
        m[key] = key
    with pytest.raises(MapError, match="full with 4 entries") as error:
        m[4] = 4
    assert error.value.errno == errno.E2BIG
    m[3] = 33
    del m[0]
    m[4] = 4
    assert [int.from_bytes(key, "little") for key in m] == [4, 1, 2, 3]


@pytest.mark.parametrize("size", [4, 100])
def test_more_keys_than_a_map_keeps_the_chains_of(size: int) -> None:
    m = make("hash", key=size, entries=3000)
    keys = [number.to_bytes(size, "little") for number in range(3000)]
    for number, key in enumerate(keys):
        m[key] = number
    for key in keys[::3]:
        del m[key]
    assert [m.get(key) for key in keys] == [u64(at) if at % 3 else None for at in range(3000)]


def test_maps_that_python_may_not_write_or_read() -> None:
    m = make("hash", flags=MapFlag.RDONLY)
    with pytest.raises(MapError) as error:
        m[1] = 1
    assert error.value.errno == errno.EPERM
    with pytest.raises(MapError) as error:
        make("array", flags=MapFlag.WRONLY)[1]
    assert error.value.errno == errno.EPERM


def test_typed_decodes_what_has_a_type() -> None:
    m = make("hash", key=8, value_type=U32Pair(), key_type=U32Pair())
    m[{"a": 1, "b": 2}] = {"a": 3, "b": 4}
    m.typed[u64(5)] = 6
    assert m[u64(1 | 2 << 32)] == u64(3 | 4 << 32)
    assert list(m.typed.items()) == [
        ({"a": 1, "b": 2}, {"a": 3, "b": 4}),
        ({"a": 5, "b": 0}, {"a": 6, "b": 0}),
    ]
    assert m.typed[{"a": 1, "b": 2}] == m.typed.get(u64(1 | 2 << 32)) == {"a": 3, "b": 4}
    assert m.typed.get(99) is None
    assert len(m.typed) == 2
    assert list(m.typed) == list(m.typed.keys())
    assert m.typed.pop(5) == {"a": 6, "b": 0}
    assert m.typed.pop(5, None) is None
    del m.typed[{"a": 1, "b": 2}]
    assert list(m.typed.values()) == []
    plain = make("array")
    plain.typed[1] = 5
    assert plain.typed[1] == u64(5)


# --- what programs see


@pytest.mark.parametrize("kind", ["hash", "array", "percpu_hash", "percpu_array", "lru_hash"])
def test_pointers_lead_to_the_memory_that_python_reads(kind: str) -> None:
    m = make(kind, value=6)
    assert m.update(u32(2), b"abcdef") == 0
    address = m.lookup(u32(2))
    assert at(address, 6) == b"abcdef"
    ctypes.memmove(address, b"XY", 2)
    value = m[2]
    assert (value[0] if isinstance(value, list) else value) == b"XYcdef"
    (region,) = m.regions
    assert region.contains(address, 6)
    assert region.writable
    assert not region.start <= m.address < region.stop
    assert m.lookup(u32(77)) == 0


def test_a_pointer_to_a_deleted_value_reads_on() -> None:
    m = make("hash")
    m[1] = 11
    address = m.lookup(u32(1))
    assert m.delete(u32(1)) == 0
    assert m.delete(u32(1)) == -errno.ENOENT
    assert at(address, 8) == u64(11)
    assert m.regions[0].contains(address, 8)


@pytest.mark.parametrize(
    ("kind", "key", "value", "stride"),
    [("array", 4, 1, 8), ("array", 4, 9, 16), ("hash", 4, 4, 4), ("hash", 4, 3, 4), ("hash", 4, 9, 16),
     ("hash", 3, 8, 8), ("percpu_hash", 4, 4, 8), ("percpu_array", 4, 4, 8)],
)  # fmt: skip
def test_values_lie_side_by_side_and_aligned(kind: str, key: int, value: int, stride: int) -> None:
    m = make(kind, key, value, cpus=2)
    keys = [number.to_bytes(key, "little") for number in range(4)]
    for one in keys:
        assert m.update(one, bytes(value)) == 0
    addresses = [m.lookup(one) for one in keys]
    assert {after - before for before, after in pairwise(addresses)} == {stride}
    assert addresses[0] == m.regions[0].start
    assert addresses[0] % 8 == 0


def test_entries_are_what_for_each_visits() -> None:
    for kind in ("hash", "array", "percpu_hash", "lpm_trie"):
        m = make(kind, key=8 if kind == "lpm_trie" else 4)
        if kind != "array":
            m[m.definition.key_size * b"\0"] = 5
        for key, address in m.entries():
            assert m.lookup(key) == address
        assert len(list(m.entries())) == len(m)


def test_readonly_maps_have_readonly_regions() -> None:
    assert not make("array", is_readonly=True).regions[0].writable
    assert not make("array", flags=MapFlag.RDONLY_PROG).regions[0].writable
    assert not make("devmap").regions[0].writable


# --- per-CPU kinds


@pytest.mark.parametrize("kind", ["percpu_hash", "percpu_array", "lru_percpu_hash"])
def test_percpu_values_are_lists_and_programs_see_their_own(kind: str) -> None:
    m = make(kind, cpus=3, cpu=1)
    m[2] = 5
    assert m[2] == [u64(5)] * 3
    m[2] = [1, 2, 3]
    assert at(m.lookup(u32(2)), 8) == u64(2)
    assert m.update(u32(2), u64(20)) == 0
    assert m[2] == [u64(1), u64(20), u64(3)]
    m.use_cpu(2)
    assert at(m.lookup(u32(2)), 8) == u64(3)
    assert at(m.lookup_percpu(u32(2), 0), 8) == u64(1)
    assert m.lookup_percpu(u32(2), 3) == 0
    assert all(m.regions[0].contains(m.lookup_percpu(u32(2), cpu), 8) for cpu in range(3))
    with pytest.raises(ValueError, match="3 processors"):
        m[2] = [1, 2]
    with pytest.raises(ValueError, match="3 processors"):
        m.use_cpu(3)


def test_a_new_percpu_value_is_zero_on_the_other_cpus() -> None:
    m = make("percpu_hash", cpus=2, entries=1)
    m[1] = [11, 12]
    del m[1]
    assert m.update(u32(2), u64(5)) == 0
    assert m[2] == [u64(5), u64(0)]


# --- LRU


def test_an_lru_is_never_full_and_keeps_what_is_looked_up() -> None:
    m = make("lru_hash", entries=4)
    for key in range(4):
        m[key] = key
    assert m.lookup(u32(0))
    m[4] = 4
    assert [int.from_bytes(key, "little") for key in m] == [0, 4, 2, 3]
    for key in range(100, 200):
        assert m.update(u32(key), u64(key)) == 0
        assert m[key] == u64(key)
        assert len(m) == 4


def test_reading_an_lru_from_python_does_not_count_as_use() -> None:
    m = make("lru_hash", entries=2)
    m[1] = m[2] = 0
    assert m[1] == u64(0)
    m[3] = 0
    assert 1 not in m


def test_what_takes_a_freed_place_in_an_lru_is_not_the_next_to_go() -> None:
    m = make("lru_hash", entries=3)
    for key in (1, 2, 3):
        m[key] = 0
    del m[1]
    m[4] = 0
    m[5] = 0
    assert 4 in m
    assert 2 not in m


# --- longest prefix match


def prefix(text: str) -> bytes:
    address, length = text.split("/")
    return u32(int(length)) + bytes(map(int, address.split(".")))


def test_lpm_finds_the_longest_prefix() -> None:
    m = make("lpm_trie", key=8, entries=5)
    routes = {"0.0.0.0/0": 1, "10.0.0.0/8": 2, "10.1.0.0/16": 3, "10.1.2.3/32": 4}
    for route, value in routes.items():
        m[prefix(route)] = value
    for address, value in [("10.1.2.3", 4), ("10.1.2.4", 3), ("10.2.0.0", 2), ("11.0.0.0", 1)]:
        assert m[prefix(f"{address}/32")] == u64(value)
        assert at(m.lookup(prefix(f"{address}/32")), 8) == u64(value)
    assert m[prefix("10.1.2.3/31")] == u64(3)
    assert m[prefix("10.1.9.9/8")] == u64(2)
    del m[prefix("0.0.0.0/0")]
    assert prefix("11.0.0.0/32") not in m
    assert m.lookup(u32(33) + bytes(4)) == 0
    assert sorted(m) == sorted(map(prefix, list(routes)[1:]))


def test_lpm_refuses_as_the_kernel_does() -> None:
    m = make("lpm_trie", key=8, entries=1)
    assert m.update(u32(33) + bytes(4), u64(1)) == -errno.EINVAL
    assert m.delete(u32(33) + bytes(4)) == -errno.EINVAL
    assert m.delete(prefix("1.0.0.0/8")) == -errno.ENOENT
    m[prefix("1.2.3.4/8")] = 1
    assert m.update(prefix("1.9.9.9/8"), u64(2), BPF_NOEXIST) == -errno.EEXIST
    with pytest.raises(MapError, match="full with 1 prefixes") as error:
        m[prefix("2.0.0.0/8")] = 2
    assert error.value.errno == errno.ENOSPC


# --- programs and maps as values


def test_a_prog_array_holds_programs() -> None:
    m = make("prog_array", value=4)
    program = Program.from_bytes(EXIT)
    m[1] = program
    assert m[1] is program
    assert m.program_at(1) is program
    assert m[0] is None
    assert m.program_at(99) is None
    assert m.lookup(u32(1)) == 0
    assert len(m) == 1
    assert list(m.items()) == [(u32(1), program)]
    assert 1 in m
    assert 0 not in m
    with pytest.raises(KeyError):
        m[4]
    with pytest.raises(TypeError, match="Program or None, not bytes"):
        m[0] = b"1234"
    with pytest.raises(MapError) as error:
        m[4] = program
    assert error.value.errno == errno.E2BIG
    assert m.delete(u32(0)) == -errno.ENOENT
    assert m.delete(u32(64)) == -errno.E2BIG
    del m[1]
    assert m[1] is None


def inner(name: str = "inner", entries: int = 2, kind: MapType = MapType.ARRAY) -> MapDefinition:
    return MapDefinition(name, kind, 4, 8, entries)


@pytest.mark.parametrize("kind", ["array_of_maps", "hash_of_maps"])
def test_maps_hold_maps(kind: str) -> None:
    m = make(kind, value=4, inner=inner())
    one, two = create(inner("one")), create(inner("two"))
    m[1] = one
    m[3] = two
    assert m[1] is one
    assert m.lookup(u32(1)) == one.address
    assert m.lookup(u32(2)) == 0
    assert set(m.inner_maps) == {one, two}
    assert dict(m.items()) == {u32(1): one, u32(3): two}
    assert 2 not in m
    assert 3 in m
    assert m.regions == ()
    with pytest.raises(TypeError, match="Map or None"):
        m[0] = 5
    with pytest.raises(MapError, match="template") as error:
        m[0] = create(inner("larger", 3))
    assert error.value.errno == errno.EINVAL
    m[1] = None
    assert m.lookup(u32(1)) == 0
    del m[3]
    assert m.inner_maps == ()
    m[1] = one
    m.clear()
    assert m.inner_maps == ()


def test_inner_hashes_may_have_any_number_of_entries() -> None:
    m = make("array_of_maps", value=4, inner=inner(kind=MapType.HASH))
    m[0] = create(inner(entries=99, kind=MapType.HASH))
    with pytest.raises(MapRefused, match="template") as error:
        make("array_of_maps", value=4)
    assert error.value.errno == errno.EBADF
    with pytest.raises(MapRefused):
        make("array_of_maps", value=4, inner=inner(kind=MapType.PROG_ARRAY))


# --- devices, CPUs, sockets


@pytest.mark.parametrize("kind", ["devmap", "cpumap", "xskmap", "sockmap", "cgroup_array"])
def test_slots_hold_something_or_nothing(kind: str) -> None:
    m = make(kind, value=4)
    assert len(m) == 0
    assert m.lookup(u32(2)) == 0
    m[2] = 7
    assert dict(m.items()) == {u32(2): u32(7)}
    assert at(m.lookup(u32(2)), 4) == u32(7)
    with pytest.raises(MapError) as error:
        m[4] = 7
    assert error.value.errno == errno.E2BIG
    del m[2]
    assert 2 not in m
    m[1] = 9
    m.clear()
    assert list(m) == []


@pytest.mark.parametrize("kind", ["devmap_hash", "sockhash"])
def test_slots_by_hash(kind: str) -> None:
    m = make(kind, value=4, entries=1)
    m[700] = 7
    assert at(m.lookup(u32(700)), 4) == u32(7)
    with pytest.raises(MapError) as error:
        m[701] = 8
    assert error.value.errno == errno.E2BIG


def test_a_device_of_number_zero_empties() -> None:
    m = make("devmap", value=8)
    m[0] = u32(3) + u32(0)
    assert m[0] == u32(3) + u32(0)
    m[0] = 0
    assert 0 not in m
    with pytest.raises(MapError):
        make("devmap_hash", value=8)[0] = 0


# --- queue, stack, bloom filter


@pytest.mark.parametrize(("kind", "order"), [("queue", [1, 2, 3]), ("stack", [3, 2, 1])])
def test_queue_and_stack(kind: str, order: list[int]) -> None:
    m = make(kind, key=0, entries=3)
    for number in (1, 2, 3):
        m.push(number)
    assert len(m) == 3
    assert list(m) == [u64(number) for number in order]
    with pytest.raises(MapError, match="pop some") as error:
        m.push(4)
    assert error.value.errno == errno.E2BIG
    assert m.peek() == m.pop() == u64(order[0])
    assert m.pop_value() == u64(order[1])
    assert m.push_value(u64(9), BPF_NOEXIST) == -errno.EINVAL
    m.clear()
    assert m.pop_value() is m.peek_value() is None
    with pytest.raises(IndexError, match="empty"):
        m.pop()
    assert m.delete(b"") == -errno.EINVAL
    assert m.lookup(b"") == 0


def test_a_full_queue_drops_its_oldest_where_asked_to() -> None:
    m = make("queue", key=0, entries=2)
    for number in range(5):
        m.push(number, BPF_EXIST)
    assert list(m) == [u64(3), u64(4)]


def test_a_bloom_filter_never_forgets() -> None:
    m = make("bloom_filter", key=0, entries=1000)
    for number in range(1000):
        m.push(number)
    assert all(number in m for number in range(1000))
    assert sum(number in m for number in range(1000, 11000)) < 2500
    assert m.push_value(u64(1), BPF_EXIST) == -errno.EINVAL


def test_a_bloom_filter_has_the_hash_functions_that_map_extra_says() -> None:
    wrong = {}
    for extra in (0, 1, 5, 15):
        m = make("bloom_filter", key=0, entries=1000, extra=extra)
        for number in range(1000):
            m.push(number)
        assert all(number in m for number in range(1000))
        wrong[extra] = sum(number in m for number in range(1000, 11000))
    assert wrong[0] == wrong[5]
    assert wrong[15] < wrong[5] < wrong[1]


# --- events


def test_ring_buffer_records_come_out_in_the_order_of_their_reservation() -> None:
    m = make("ringbuf", key=0, value=0, entries=4096)
    first, second = m.reserve(3), m.reserve(8)
    ctypes.memmove(first, b"abc", 3)
    ctypes.memmove(second, b"12345678", 8)
    assert m.regions[0].contains(first, 3)
    assert m.record_size(second) == 8
    assert m.submit(second) == b"12345678"
    assert m.submit(second) is None
    assert m.consume() == []
    assert m.submit(first) == b"abc"
    assert m.discard(m.reserve(5))
    assert m.output(b"more") == 0
    assert m.events() == [b"abc", b"12345678", b"more"]
    assert len(m) == 3
    assert [m.query(what) for what in range(5)] == [64, 4096, 0, 64, 0]
    assert m.consume() == [b"abc", b"12345678", b"more"]
    assert m.consume() == []
    assert [m.query(what) for what in range(4)] == [0, 4096, 64, 64]


def test_a_ring_buffer_is_full_one_byte_before_its_size() -> None:
    m = make("ringbuf", key=0, value=0, entries=4096)
    assert m.reserve(4096 - 8) == 0
    assert m.reserve(1, flags=1) == 0
    assert m.output(bytes(4080)) == 0
    assert m.output(b"") == -errno.EAGAIN
    assert m.output(b"", 4) == -errno.EINVAL
    m.consume()
    for number in range(1000):  # records that go round the end keep their bytes
        data = number.to_bytes(2, "little") * 500
        assert m.output(data) == 0
        assert m.consume() == [data]


def test_perf_events_go_to_the_running_cpu() -> None:
    m = make("perf_event_array", value=4, entries=0, cpus=3, cpu=1)
    assert m.definition.max_entries == 3
    assert m.output(b"one") == 0
    assert m.output(b"two", 1) == 0
    assert m.output(b"", 0) == -errno.EOPNOTSUPP
    assert m.output(b"", 3) == -errno.E2BIG
    assert m.output(b"", 1 << 32) == -errno.EINVAL
    m.close(1)
    assert m.output(b"") == -errno.ENOENT
    m.open(1)
    assert m.events() == m.consume() == [b"one", b"two"]
    assert len(m) == 0


def test_stacks_are_stored_under_their_hash() -> None:
    m = make("stack_trace", value=16, entries=60)
    number = m.capture([1, 2, 3])
    assert number == m.capture([1, 2])
    assert m[number] == u64(1) + u64(2)
    assert m[m.capture([7], 0x400)] == u64(7) + u64(0)
    assert m.capture([]) == -errno.EFAULT
    assert m.capture([1], 1 << 20) == -errno.EINVAL
    assert {m.capture([n]) for n in range(200)} >= {-errno.EEXIST}
    assert m.capture([8], 0x400) >= 0
    with pytest.raises(MapError):
        m[0] = bytes(16)
    del m[number]
    assert m.delete(u32(number)) == -errno.ENOENT
    assert m.delete(u32(64)) == -errno.E2BIG


# --- creation


@pytest.mark.parametrize(
    ("make_it", "message", "number"),
    [
        (lambda: make("array", key=8), r"map 'm' \(array\): key_size is 8, it must be 4", errno.EINVAL),
        (lambda: make("array", entries=0), "max_entries is 0", errno.EINVAL),
        (lambda: make("array", value=0), "value_size is 0, it must be 1 or more", errno.EINVAL),
        (lambda: make("hash", value=1 << 22), "too many for one element", errno.E2BIG),
        (lambda: make("hash", flags=MapFlag.MMAPABLE), "MMAPABLE", errno.EINVAL),
        (lambda: make("lru_hash", flags=MapFlag.NO_PREALLOC), "BPF_F_NO_PREALLOC", 524),
        (lambda: make("lpm_trie", key=8, flags=0), "add BPF_F_NO_PREALLOC", errno.EINVAL),
        (lambda: make("lpm_trie", key=4), "5 to 260", errno.EINVAL),
        (lambda: make("ringbuf", 0, 0, 5000), "power of two", errno.EINVAL),
        (lambda: make("ringbuf", 0, 0, 2048), "multiple of 4096", errno.EINVAL),
        (lambda: make("percpu_array", value=40000), "32768", errno.E2BIG),
        (lambda: make("array", value=1 << 30, entries=(1 << 32) - 1), "smaller .ENOMEM", errno.ENOMEM),
        (lambda: make("bloom_filter", key=0, extra=16), "up to 15 hash functions", errno.EINVAL),
        (lambda: make("array", extra=1), "only bloom filters", errno.EINVAL),
        (lambda: make("array", entries=1 << 32), "no u32", errno.EINVAL),
        (lambda: make("array", key=-1), "no u32", errno.EINVAL),
        (lambda: create(MapDefinition("o", 99, 4, 4, 1)), r"'o' \(type 99\): there is no such", errno.EINVAL),
        (lambda: create(MapDefinition("t", MapType.TASK_STORAGE, 4, 4, 0)), "task_storage", errno.EINVAL),
    ],
)  # fmt: skip
def test_refused_maps_say_why(make_it: Callable[[], Any], message: str, number: int) -> None:
    with pytest.raises(MapRefused, match=message) as error:
        make_it()
    assert error.value.errno == number
    assert isinstance(error.value, LoadError)


def resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


@pytest.mark.parametrize(
    ("kind", "limit"), [("array", 1.1), ("hash", 2.0), ("lru_hash", 2.5)]
)  # 8 bytes each for its age
def test_a_million_entries_cost_little(kind: str, limit: float) -> None:
    entries, key, value = 1_000_000, 4, 8
    before, start = resident(), time.process_time()
    m = make(kind, key, value, entries)
    assert within(1, time.process_time() - start)
    assert resident() - before < 1 << 20
    step = 16 if kind == "array" else 8  # touches nearly every page of a table
    for number in range(0, entries, step):
        m.update(u32(number), u64(number), BPF_ANY)
    size = entries // step * (value if kind == "array" else key + value)
    mapped = len(m.storage.memory)
    assert mapped < limit * entries * (value if kind == "array" else key + value)
    assert resident() - before < limit * size * step


def test_the_same_operations_leave_the_same_memory() -> None:
    def contents() -> bytes:
        with fixed_secrets(3):
            m = make("hash", entries=50)
        for number in range(300):
            m.update(u32(number * 7 % 60), u64(number))
            m.delete(u32(number * 11 % 60))
        return bytes(m.storage.memory[128:])

    assert contents() == contents()
