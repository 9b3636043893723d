"""Helpers of dynptrs: 16 bytes of the program's memory that stand for a buffer and its size.

    0  address (u64, 0: an invalid one)    8  size (u24), read-only (bit 31)    12  unused

A program could write these bytes itself: what they say is held against its memory at each use, so
that it gains nothing.
"""

from __future__ import annotations

import errno
import struct
from dataclasses import dataclass

from ebpfjit.bits import W32
from ebpfjit.runtime import memory
from ebpfjit.runtime.helpers import ringbuf
from ebpfjit.runtime.helpers.table import helper
from ebpfjit.runtime.world import World

SIZE = 16
MAX_SIZE = (1 << 24) - 1
_READ_ONLY = 1 << 31
_LAYOUT = struct.Struct("<QIxxxx")


@dataclass(frozen=True, slots=True)
class Dynptr:
    """A buffer of `size` bytes at `address`."""

    address: int
    size: int
    readonly: bool = False

    @classmethod
    def at(cls, place: int) -> Dynptr:
        """Return the dynptr in the program's memory."""
        address, size = _LAYOUT.unpack(memory.read(place, SIZE))
        return cls(address, size & MAX_SIZE, bool(size & _READ_ONLY))

    def packed(self) -> bytes:
        """Return its 16 bytes."""
        return _LAYOUT.pack(self.address, self.size | (_READ_ONLY if self.readonly else 0))

    def store(self, place: int) -> None:
        """Write it into the program's memory."""
        memory.write(place, self.packed())

    def has(self, offset: int, size: int) -> bool:
        """True where `size` bytes at `offset` lie inside."""
        return size <= self.size and offset <= self.size - size


INVALID = Dynptr(0, 0)


@helper("bpf_dynptr_from_mem")
def dynptr_from_mem(world: World, data: int, size: int, flags: int, place: int) -> int:
    """Make a dynptr of memory; 0 or a negative error number."""
    size = W32.wrap(size)
    memory.check(data, size, "store")
    result = -errno.E2BIG if size > MAX_SIZE else -errno.EINVAL if flags else 0
    (INVALID if result else Dynptr(data, size)).store(place)
    return result


@helper("bpf_dynptr_read")
def dynptr_read(world: World, destination: int, size: int, place: int, offset: int, flags: int) -> int:
    """Copy out of a dynptr; 0 or a negative error number."""
    size, offset, source = W32.wrap(size), W32.wrap(offset), Dynptr.at(place)
    memory.check(destination, size, "store")
    if not source.address or flags:
        return -errno.EINVAL
    if not source.has(offset, size):
        return -errno.E2BIG
    memory.write(destination, memory.read(source.address + offset, size))
    return 0


@helper("bpf_dynptr_write")
def dynptr_write(world: World, place: int, offset: int, data: int, size: int, flags: int) -> int:
    """Copy into a dynptr; 0 or a negative error number."""
    size, offset, target = W32.wrap(size), W32.wrap(offset), Dynptr.at(place)
    content = memory.read(data, size)
    if not target.address or target.readonly or flags:
        return -errno.EINVAL
    if not target.has(offset, size):
        return -errno.E2BIG
    memory.write(target.address + offset, content)
    return 0


@helper("bpf_dynptr_data")
def dynptr_data(world: World, place: int, offset: int, size: int) -> int:
    """Return the address of `size` bytes of a dynptr, 0 where they are not to be had."""
    offset, size, source = W32.wrap(offset), W32.wrap(size), Dynptr.at(place)
    if not source.address or source.readonly or not source.has(offset, size):
        return 0
    return source.address + offset


@helper("bpf_ringbuf_reserve_dynptr")
def ringbuf_reserve_dynptr(world: World, map_address: int, size: int, flags: int, place: int) -> int:
    """Reserve a record as a dynptr; 0 or a negative error number, and an invalid dynptr."""
    size = W32.wrap(size)
    INVALID.store(place)
    if flags:
        return -errno.EINVAL
    if size > MAX_SIZE:
        return -errno.E2BIG
    address = ringbuf.reserve(world, map_address, size, 0, "bpf_ringbuf_reserve_dynptr")
    if not address:
        return -errno.EINVAL
    Dynptr(address, size).store(place)
    return 0


@helper("bpf_ringbuf_submit_dynptr")
def ringbuf_submit_dynptr(world: World, place: int, flags: int) -> int:
    """Hand over a record; an invalid dynptr is no matter."""
    address = Dynptr.at(place).address
    INVALID.store(place)
    if address:
        ringbuf.submit(world, address, "bpf_ringbuf_submit_dynptr")
    return 0


@helper("bpf_ringbuf_discard_dynptr")
def ringbuf_discard_dynptr(world: World, place: int, flags: int) -> int:
    """Drop a record; an invalid dynptr is no matter."""
    address = Dynptr.at(place).address
    INVALID.store(place)
    if address:
        ringbuf.discard(world, address, "bpf_ringbuf_discard_dynptr")
    return 0
