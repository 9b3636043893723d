"""Helpers of dynptrs: 16 bytes of the program's memory that stand for a buffer and its size.

    0  address (u64, 0: an invalid one)    8  size (u24), of the packet (bit 28), read-only (bit 31)
   12  of the packet: where it begins there (u32)

A program could write these bytes itself: what they say is held against its memory at each use, so
that it gains nothing.
"""

from __future__ import annotations

import errno
import struct

from ebpfjit.bits import W32, W64
from ebpfjit.record import dataclass
from ebpfjit.runtime import memory
from ebpfjit.runtime.contexts.packet import PacketContext
from ebpfjit.runtime.helpers import ringbuf
from ebpfjit.runtime.helpers.table import helper
from ebpfjit.runtime.world import World

SIZE = 16
MAX_SIZE = (1 << 24) - 1
_PACKET, _READ_ONLY = 1 << 28, 1 << 31
_LAYOUT = struct.Struct("<QII")


@dataclass(frozen=True, slots=True)
class Dynptr:
    """A buffer of `size` bytes at `address`; or, in the packet wherever that is, behind `start` bytes."""

    address: int
    size: int
    readonly: bool = False
    in_packet: bool = False
    start: int = 0

    @classmethod
    def at(cls, place: int) -> Dynptr:
        """Return the dynptr in the program's memory."""
        address, size, start = _LAYOUT.unpack(memory.read(place, SIZE))
        return cls(address, size & MAX_SIZE, bool(size & _READ_ONLY), bool(size & _PACKET), start)

    def packed(self) -> bytes:
        """Return its 16 bytes."""
        flags = (_READ_ONLY if self.readonly else 0) | (_PACKET if self.in_packet else 0)
        return _LAYOUT.pack(W64.wrap(self.address), self.size | flags, self.start)

    def store(self, place: int) -> None:
        """Write it into the program's memory."""
        memory.write(place, self.packed())

    def has(self, offset: int, size: int) -> bool:
        """True where `size` bytes at `offset` lie inside."""
        return size <= self.size and offset <= self.size - size

    def read(self, world: World, offset: int, size: int) -> bytes | None:
        """Return bytes that lie inside; None where the packet has them no more."""
        if not self.in_packet:
            return memory.read(self.address + offset, size)
        packet = _packet_of(world)
        if packet is None or self.start + offset + size > packet.whole:
            return None
        memory.pay(size)
        return packet.load_any(self.start + offset, size)

    def may_store(self, world: World, offset: int, size: int) -> bool:
        """True where bytes that lie inside may be written, in a packet: where it still has them.

        Raises MemoryFault where they are not the program's.
        """
        if not self.in_packet:
            memory.check(self.address + offset, size, "store")
            return True
        packet = _packet_of(world)
        return packet is not None and may_write(packet) and self.start + offset + size <= packet.whole

    def write(self, world: World, offset: int, data: bytes) -> bool:
        """Write bytes that lie inside; False, or a fault, as `may_store` says."""
        if not self.may_store(world, offset, len(data)):
            return False
        packet = _packet_of(world)
        if packet is None or not self.in_packet:
            memory.write(self.address + offset, data)
        else:
            memory.pay(len(data))
            packet.store_any(self.start + offset, data)
        return True

    def pointer(self, world: World, offset: int, size: int) -> int:
        """Return the address of bytes that lie inside, 0 where they are not in one piece."""
        if not self.in_packet:
            return self.address + offset
        packet, first = _packet_of(world), self.start + offset
        if packet is None or not packet.type.reads_packet or first + size > packet.size:
            return 0
        return packet.memory.start + packet.data + first


def _packet_of(world: World) -> PacketContext | None:
    return world.context if isinstance(world.context, PacketContext) else None


def may_write(packet: PacketContext) -> bool:
    """True where programs may write the packet."""
    return packet.packet is not None and packet.packet.writable


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
    data = source.read(world, offset, size)
    if data is None:
        return -errno.EFAULT
    memory.write(destination, data)
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
    return 0 if target.write(world, offset, content) else -errno.EFAULT


@helper("bpf_dynptr_data")
def dynptr_data(world: World, place: int, offset: int, size: int) -> int:
    """Return the address of `size` bytes of a dynptr, 0 where they are not to be had."""
    offset, size, source = W32.wrap(offset), W32.wrap(size), Dynptr.at(place)
    if not source.address or source.readonly or source.in_packet or not source.has(offset, size):
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
