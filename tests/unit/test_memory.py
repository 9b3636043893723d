from __future__ import annotations

import array
import ctypes
import sys

import pytest

from ebpfjit import MemoryFault, address_of
from ebpfjit.runtime import memory
from ebpfjit.runtime.memory import AddressSpace, Region, Stack


def test_address_of_is_where_the_bytes_are() -> None:
    data = bytearray(b"abc")
    assert ctypes.string_at(address_of(data), 3) == b"abc"
    assert ctypes.string_at(address_of(b"xyz"), 3) == b"xyz"
    assert address_of(memoryview(data)[1:]) == address_of(data) + 1


def test_address_of_refuses_what_is_no_buffer() -> None:
    with pytest.raises(TypeError):
        address_of(5)
    with pytest.raises(BufferError, match="contiguous"):
        address_of(memoryview(b"abcdef")[::2])


def test_address_of_leaves_no_export_behind() -> None:
    data = bytearray(8)
    count = sys.getrefcount(data)
    address_of(data)
    data.append(1)  # BufferError while exported
    assert sys.getrefcount(data) == count


@pytest.mark.parametrize("size", [1, 2, 4, 8])
@pytest.mark.parametrize(("offset", "inside"), [(-1, False), (0, True), (8, True), (9, False)])
def test_accesses_are_exact_at_both_ends(size: int, offset: int, inside: bool) -> None:
    region = Region.of_buffer("mem", bytearray(8 + size))
    space = AddressSpace([region])
    address = region.start + offset
    if inside:
        space.store(3, address, size, 0x1122334455667788)
        assert space.load(3, address, size) == 0x1122334455667788 & ((1 << 8 * size) - 1)
        return
    for access in (lambda: space.load(3, address, size), lambda: space.store(3, address, size, 0)):
        with pytest.raises(MemoryFault) as caught:
            access()
        assert (caught.value.pc, caught.value.address, caught.value.size) == (3, address, size)


def test_no_straddling_from_one_region_into_its_neighbour() -> None:
    data = bytearray(16)
    left, right = (
        Region.of_buffer("left", memoryview(data)[:8]),
        Region.of_buffer("right", memoryview(data)[8:]),
    )
    space = AddressSpace([left, right])
    assert space.load(0, left.start + 4, 4) == 0
    with pytest.raises(MemoryFault, match=r"outside left \(8 bytes\), right \(8 bytes\)"):
        space.load(0, left.start + 4, 8)


def test_nothing_wraps_around() -> None:
    space = AddressSpace([Region.of_buffer("mem", bytearray(8))])
    with pytest.raises(MemoryFault):
        space.load(0, 2**64 - 4, 8)


def test_a_read_only_region_refuses_stores_by_name() -> None:
    region = Region.of_buffer("mem", b"abcd")
    with pytest.raises(MemoryFault, match=r"pc 7: store of 2 bytes .*: mem is read-only") as caught:
        AddressSpace([region]).store(7, region.start, 2, 0)
    assert caught.value.access == "store"


@pytest.mark.parametrize("items", [array.array("I", [1, 2]), memoryview(array.array("H", [5])), bytearray()])
def test_any_contiguous_buffer_makes_a_region(items: object) -> None:
    region = Region.of_buffer("mem", items)
    assert region.size == memoryview(items).nbytes
    assert region.writable


def test_frames_are_zeroed_and_limited() -> None:
    stack = Stack()
    assert stack.push(512)
    stack.region.view[:] = b"x" * 512
    first = stack.start
    assert stack.push(512)
    assert stack.start == first - 512
    assert bytes(stack.region.view) == bytes(512) + b"x" * 512
    assert all(stack.push(512) for _ in range(6))
    assert not stack.push(16)


def test_helpers_read_through_the_running_program_only() -> None:
    mine, other = bytearray(b"mine"), bytearray(b"other")
    space = AddressSpace([Region.of_buffer("mem", mine)])
    with memory.active(space):
        assert memory.read(address_of(mine), 4) == b"mine"
        memory.write(address_of(mine), b"M")
        with pytest.raises(MemoryFault):
            memory.read(address_of(other), 1)
        with pytest.raises(MemoryFault):
            memory.write(address_of(other), b"x")
    assert mine == b"Mine"
    assert memory.read(address_of(other), 5) == b"other"
