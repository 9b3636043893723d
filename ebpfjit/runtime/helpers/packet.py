"""Helpers that read and write packets, and that move their ends: for XDP and for socket buffers.

Offsets and sizes are those of Linux (net/core/filter.c): u32, counted from the packet's data.
"""

from __future__ import annotations

import errno

from ebpfjit.bits import W32
from ebpfjit.errors import ExecutionError
from ebpfjit.runtime import memory
from ebpfjit.runtime.contexts.frags import FragsContext
from ebpfjit.runtime.contexts.named import NamedContext
from ebpfjit.runtime.contexts.packet import LINK_HEADER_SIZE
from ebpfjit.runtime.contexts.skb import SkbContext
from ebpfjit.runtime.contexts.xdp import LARGEST_METADATA, XDP_FRAME_SIZE, XdpContext
from ebpfjit.runtime.helpers.table import helper
from ebpfjit.runtime.world import World

INT_MAX = (1 << 31) - 1
LARGEST_OFFSET = 0xFFFF

BPF_F_RECOMPUTE_CSUM, BPF_F_INVALIDATE_HASH = 1, 2
BPF_HDR_START_MAC, BPF_HDR_START_NET = 0, 1


def skb_of(world: World, address: int, name: str) -> SkbContext:
    """Return the run's __sk_buff, which `address` must be. Raises ExecutionError."""
    context = world.context
    if not isinstance(context, SkbContext):
        raise ExecutionError(f"{name} needs a struct __sk_buff as context; the program's type has none")
    _check_address(context.memory.start, address, name)
    return context


def xdp_of(world: World, address: int, name: str) -> XdpContext:
    """Return the run's xdp_md, which `address` must be. Raises ExecutionError."""
    context = world.context
    if not isinstance(context, XdpContext):
        raise ExecutionError(f"{name} needs a struct xdp_md as context; the program's type has none")
    _check_address(context.memory.start, address, name)
    return context


def _check_address(start: int, address: int, name: str) -> None:
    if address != start:
        raise ExecutionError(f"{name}: r1 is {address:#x}, and the context is at {start:#x}")


# -- socket buffers: reading and writing ----------------------------------------------------------


def _clear(address: int, size: int) -> int:
    """Zero what a failed read was to fill, as Linux does."""
    memory.clear(address, size)
    return -errno.EFAULT


@helper("bpf_skb_load_bytes")
def skb_load_bytes(world: World, context: int, offset: int, to: int, size: int) -> int:
    """Copy bytes of the packet to memory; -EFAULT, and zeros there, where they are not all in it."""
    skb = _datagram(world, context) or skb_of(world, context, "bpf_skb_load_bytes")
    offset, size = W32.wrap(offset), W32.wrap(size)
    memory.check(to, size, "store")
    if offset > INT_MAX or offset + size > skb.size:
        return _clear(to, size)
    memory.write(to, skb.bytes_at(offset, size))
    return 0


def _datagram(world: World, address: int) -> NamedContext | None:
    """Return the run's sk_reuseport_md, where it is at `address`: what it has of its packet is the data."""
    context = world.context
    if isinstance(context, NamedContext) and context.type.name == "sk_reuseport":
        return context if context.start == address else None
    return None


@helper("bpf_skb_load_bytes_relative", differs="of sk_reuseport: its data have no headers, always -EFAULT")
def skb_load_bytes_relative(world: World, context: int, offset: int, to: int, size: int, start: int) -> int:
    """Copy bytes as bpf_skb_load_bytes, counted from the link or the network header."""
    if _datagram(world, context) is not None:
        memory.check(to, W32.wrap(size), "store")
        return _clear(to, W32.wrap(size))
    skb = skb_of(world, context, "bpf_skb_load_bytes_relative")
    offset, size = W32.wrap(offset), W32.wrap(size)
    memory.check(to, size, "store")
    headers = {BPF_HDR_START_MAC: skb.mac_header, BPF_HDR_START_NET: skb.network_header}
    header = headers.get(W32.wrap(start))
    if header is None or offset > LARGEST_OFFSET or header + offset + size > skb.data_end:
        return _clear(to, size)
    memory.write(to, skb.bytes_at(header + offset - skb.data, size))
    return 0


@helper("bpf_skb_store_bytes", ends_rights=True)
def skb_store_bytes(world: World, context: int, offset: int, source: int, size: int, flags: int) -> int:
    """Copy memory into the packet; 0 or a negative error number."""
    skb = skb_of(world, context, "bpf_skb_store_bytes")
    offset, size = W32.wrap(offset), W32.wrap(size)
    data = memory.read(source, size)
    if flags & ~(BPF_F_RECOMPUTE_CSUM | BPF_F_INVALIDATE_HASH):
        return -errno.EINVAL
    if offset > INT_MAX or offset + size > skb.size:
        return -errno.EFAULT
    skb.store_at(offset, data)
    if flags & BPF_F_INVALIDATE_HASH:
        skb.set("hash", 0)
    return 0


@helper("bpf_skb_pull_data", ends_rights=True)
def skb_pull_data(world: World, context: int, size: int) -> int:
    """Make the first bytes readable, which here all are; -ENOMEM where there are not as many."""
    skb = skb_of(world, context, "bpf_skb_pull_data")
    return -errno.ENOMEM if W32.wrap(size) > skb.size else 0


# -- XDP: reading and writing ---------------------------------------------------------------------


def _refusal(xdp: XdpContext, offset: int, size: int) -> int:
    """Return 0 where the bytes are in the packet, else a negative error number."""
    if offset > LARGEST_OFFSET or size > LARGEST_OFFSET:
        return -errno.EFAULT
    return -errno.EINVAL if offset + size > xdp.whole else 0


@helper("bpf_xdp_load_bytes")
def xdp_load_bytes(world: World, context: int, offset: int, to: int, size: int) -> int:
    """Copy bytes of the packet to memory; 0 or a negative error number."""
    xdp = xdp_of(world, context, "bpf_xdp_load_bytes")
    offset, size = W32.wrap(offset), W32.wrap(size)
    memory.check(to, size, "store")
    refusal = _refusal(xdp, offset, size)
    if not refusal:
        memory.write(to, xdp.load_any(offset, size))
    return refusal


@helper("bpf_xdp_store_bytes")
def xdp_store_bytes(world: World, context: int, offset: int, source: int, size: int) -> int:
    """Copy memory into the packet; 0 or a negative error number."""
    xdp = xdp_of(world, context, "bpf_xdp_store_bytes")
    offset, size = W32.wrap(offset), W32.wrap(size)
    data = memory.read(source, size)
    refusal = _refusal(xdp, offset, size)
    if not refusal:
        xdp.store_any(offset, data)
    return refusal


@helper("bpf_xdp_get_buff_len")
def xdp_get_buff_len(world: World, context: int) -> int:
    """Return the bytes of the packet, all of its buffers together."""
    return xdp_of(world, context, "bpf_xdp_get_buff_len").whole


# -- XDP: moving the ends ---------------------------------------------------------------------------


@helper("bpf_xdp_adjust_head", ends_rights=True)
def xdp_adjust_head(world: World, context: int, distance: int) -> int:
    """Move the packet's start, its metadata with it; 0 or -EINVAL."""
    xdp = xdp_of(world, context, "bpf_xdp_adjust_head")
    distance = W32.signed(distance)
    metadata = xdp.data - xdp.data_meta
    data = xdp.data + distance
    if data < xdp.first + XDP_FRAME_SIZE + metadata or data > xdp.data_end - LINK_HEADER_SIZE:
        return -errno.EINVAL
    content = xdp.bytes_at(-metadata, metadata)
    xdp.move(data, xdp.data_end, data - metadata)
    xdp.store_at(-metadata, content)
    xdp.moved()
    return 0


@helper("bpf_xdp_adjust_tail", ends_rights=True)
def xdp_adjust_tail(world: World, context: int, distance: int) -> int:
    """Move the packet's end, new bytes being zero; 0 or -EINVAL."""
    xdp = xdp_of(world, context, "bpf_xdp_adjust_tail")
    if isinstance(xdp, FragsContext) and xdp.fragments:
        return _adjust_last_fragment(xdp, W32.signed(distance))
    end = xdp.data_end + W32.signed(distance)
    if end > xdp.hard_end or end < xdp.data + LINK_HEADER_SIZE:
        return -errno.EINVAL
    if not xdp.resize(end - xdp.data):
        return -errno.EINVAL
    xdp.moved()
    return 0


def _adjust_last_fragment(xdp: FragsContext, distance: int) -> int:
    """Make the last fragment longer, or the packet shorter; 0 or -EINVAL."""
    if not (
        xdp.grow_last(distance) if distance >= 0 else xdp.shrink(W32.signed(-distance))
    ):  # as Linux: INT_MIN stays
        return -errno.EINVAL
    xdp.moved()
    return 0


@helper("bpf_xdp_adjust_meta", ends_rights=True)
def xdp_adjust_meta(world: World, context: int, distance: int) -> int:
    """Move the start of the metadata before the packet; 0 or a negative error number."""
    xdp = xdp_of(world, context, "bpf_xdp_adjust_meta")
    start = xdp.data_meta + W32.signed(distance)
    if start < xdp.first + XDP_FRAME_SIZE or start > xdp.data:
        return -errno.EINVAL
    size = xdp.data - start
    if size % 4 or size > LARGEST_METADATA:
        return -errno.EACCES
    xdp.move(xdp.data, xdp.data_end, start)
    xdp.moved()
    return 0
