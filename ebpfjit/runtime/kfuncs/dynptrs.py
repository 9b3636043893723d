"""Kernel functions: dynptrs of packets, and what is done to any dynptr (`ebpfjit.runtime.helpers.dynptr`)."""

from __future__ import annotations

import errno

from ebpfjit.bits import W32
from ebpfjit.record import replace
from ebpfjit.runtime import memory
from ebpfjit.runtime.contexts.netfilter import NetfilterContext
from ebpfjit.runtime.contexts.packet import PacketContext
from ebpfjit.runtime.helpers.dynptr import INVALID, MAX_SIZE, Dynptr, may_write
from ebpfjit.runtime.helpers.packet import skb_of, xdp_of
from ebpfjit.runtime.kfuncs.table import kfunc
from ebpfjit.runtime.world import World


def _of_packet(packet: PacketContext, flags: int, place: int) -> int:
    size = packet.whole
    result = -errno.EINVAL if flags else -errno.E2BIG if size > MAX_SIZE else 0
    made = Dynptr(1, size, readonly=not may_write(packet), in_packet=True)
    (INVALID if result else made).store(place)
    return result


@kfunc("bpf_dynptr_from_skb")
def dynptr_from_skb(world: World, context: int, flags: int, place: int) -> int:
    """Make a dynptr of the packet; 0 or a negative error number."""
    hooked = world.context
    if isinstance(hooked, NetfilterContext):
        packet = hooked.packet_at(context)
        made = INVALID if flags else Dynptr(packet.start, packet.size, readonly=True)
        made.store(place)
        return -errno.EINVAL if flags else 0
    return _of_packet(skb_of(world, context, "bpf_dynptr_from_skb"), flags, place)


@kfunc("bpf_dynptr_from_skb_meta", differs="a packet has no metadata, as in a test run of Linux")
def dynptr_from_skb_meta(world: World, context: int, flags: int, place: int) -> int:
    """Make a dynptr of what is in front of the packet, which is nothing; 0 or a negative error number."""
    packet = skb_of(world, context, "bpf_dynptr_from_skb_meta")
    (INVALID if flags else Dynptr(1, 0, readonly=not may_write(packet), in_packet=True)).store(place)
    return -errno.EINVAL if flags else 0


@kfunc("bpf_dynptr_from_xdp")
def dynptr_from_xdp(world: World, context: int, flags: int, place: int) -> int:
    """Make a dynptr of the packet, all of its buffers; 0 or a negative error number."""
    return _of_packet(xdp_of(world, context, "bpf_dynptr_from_xdp"), flags, place)


def _slice(world: World, source: Dynptr, offset: int, buffer: int, size: int) -> int:
    if not source.has(offset, size):
        return 0
    pointer = source.pointer(world, offset, size)
    if pointer or not buffer:
        return pointer
    data = source.read(world, offset, size)
    if data is None:
        return 0
    memory.write(buffer, data)
    return buffer


@kfunc("bpf_dynptr_slice")
def dynptr_slice(world: World, place: int, offset: int, buffer: int, size: int) -> int:
    """Return the address of bytes to read, in `buffer` where they are in pieces; 0 where there are none."""
    source = Dynptr.at(place)
    return _slice(world, source, W32.wrap(offset), buffer, W32.wrap(size)) if source.address else 0


@kfunc("bpf_dynptr_slice_rdwr")
def dynptr_slice_rdwr(world: World, place: int, offset: int, buffer: int, size: int) -> int:
    """Return the address of bytes to write, in `buffer` where they are in pieces; 0 where there are none."""
    source = Dynptr.at(place)
    if not source.address or source.readonly:
        return 0
    return _slice(world, source, W32.wrap(offset), buffer, W32.wrap(size))


@kfunc("bpf_dynptr_adjust")
def dynptr_adjust(world: World, place: int, start: int, end: int) -> int:
    """Let a dynptr be its bytes from `start` up to `end`; 0 or a negative error number."""
    this, start, end = Dynptr.at(place), W32.wrap(start), W32.wrap(end)
    if not this.address or start > end:
        return -errno.EINVAL
    if end > this.size:
        return -errno.ERANGE
    if this.in_packet:
        replace(this, size=end - start, start=W32.wrap(this.start + start)).store(place)
    else:
        replace(this, size=end - start, address=this.address + start).store(place)
    return 0


@kfunc("bpf_dynptr_is_null")
def dynptr_is_null(world: World, place: int) -> int:
    """Return 1 for an invalid dynptr."""
    return int(not Dynptr.at(place).address)


@kfunc("bpf_dynptr_is_rdonly")
def dynptr_is_rdonly(world: World, place: int) -> int:
    """Return 1 for a dynptr that may only be read."""
    this = Dynptr.at(place)
    return int(bool(this.address) and this.readonly)


@kfunc("bpf_dynptr_size")
def dynptr_size(world: World, place: int) -> int:
    """Return the bytes of a dynptr, -EINVAL for an invalid one."""
    this = Dynptr.at(place)
    return this.size if this.address else -errno.EINVAL


@kfunc("bpf_dynptr_clone")
def dynptr_clone(world: World, place: int, other: int) -> int:
    """Make a second dynptr of the same bytes; 0 or -EINVAL."""
    this = Dynptr.at(place)
    (this if this.address else INVALID).store(other)
    return 0 if this.address else -errno.EINVAL


@kfunc("bpf_dynptr_copy")
def dynptr_copy(world: World, to: int, to_offset: int, source: int, source_offset: int, size: int) -> int:
    """Copy bytes from one dynptr to another; 0 or a negative error number."""
    target, origin = Dynptr.at(to), Dynptr.at(source)
    to_offset, source_offset, size = W32.wrap(to_offset), W32.wrap(source_offset), W32.wrap(size)
    if not target.address or not origin.address or target.readonly:
        return -errno.EINVAL
    if not target.has(to_offset, size) or not origin.has(source_offset, size):
        return -errno.E2BIG
    data = origin.read(world, source_offset, size)
    return 0 if data is not None and target.write(world, to_offset, data) else -errno.EFAULT


@kfunc("bpf_dynptr_memset")
def dynptr_memset(world: World, place: int, offset: int, size: int, value: int) -> int:
    """Fill bytes of a dynptr; 0 or a negative error number."""
    this, offset, size = Dynptr.at(place), W32.wrap(offset), W32.wrap(size)
    if not this.address or this.readonly:
        return -errno.EINVAL
    if not this.has(offset, size):
        return -errno.E2BIG
    if not this.may_store(world, offset, size):  # asked before the bytes are made
        return -errno.EFAULT
    this.write(world, offset, bytes([value & 0xFF]) * size)
    return 0
