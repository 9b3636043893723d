"""Helpers of perf events and stack traces."""

from __future__ import annotations

import errno
from collections.abc import Sequence
from typing import Protocol, cast

from ebpfjit.bits import W32, W64
from ebpfjit.runtime import memory
from ebpfjit.runtime.helpers.maps import map_of
from ebpfjit.runtime.helpers.table import helper
from ebpfjit.runtime.world import World

_INDEX_MASK = CURRENT_CPU = W32.mask
_PACKET_SHIFT, _PACKET_MASK = 32, 0xFFFFF  # BPF_F_CTXLEN_MASK: how many bytes of the packet follow
_VALUE_SIZE = 24  # struct bpf_perf_event_value
_SKIP_MASK, _USER_STACK, _BUILD_ID = 0xFF, 1 << 8, 1 << 11


class PerfEventArray(Protocol):
    """What bpf_perf_event_output asks of a map."""

    def output(self, data: bytes, flags: int) -> int:
        """Take an event for a processor; return 0 or a negative error number."""


class Packet(Protocol):
    """What bpf_perf_event_output asks of a context with a packet."""

    size: int

    def bytes_at(self, offset: int, size: int) -> bytes:
        """Return bytes of the packet."""


class StackTraces(Protocol):
    """What bpf_get_stackid asks of a map."""

    def capture(self, frames: Sequence[int], flags: int) -> int:
        """Store a stack and return its id, or a negative error number."""


@helper("bpf_perf_event_output", "bpf_skb_output", "bpf_xdp_output", gpl=True)
def perf_event_output(world: World, context: int, map_address: int, flags: int, data: int, size: int) -> int:
    """Send an event: `size` bytes of data, then as many bytes of the packet as the flags say.

    Returns 0 or a negative error number.
    """
    found = map_of(world, map_address, "bpf_perf_event_output")
    memory.check(data, size, "load")
    wanted = 0
    if hasattr(world.context, "bytes_at") or context in world.foreign.packets:
        wanted = flags >> _PACKET_SHIFT & _PACKET_MASK
        flags &= ~(_PACKET_MASK << _PACKET_SHIFT)
    if flags & ~_INDEX_MASK:
        return -errno.EINVAL
    if not world.leaves(size + wanted):
        return -errno.ENOSPC  # as where a buffer is full
    head = _head_of_packet(world, context, wanted) if wanted else b""
    if head is None:
        return -errno.EFAULT
    event = memory.read(data, size) + head
    result = cast(PerfEventArray, found).output(event, flags)
    if not result:
        world.events.append((found.name, event))
    return result


def _head_of_packet(world: World, context: int, size: int) -> bytes | None:
    """Return the first bytes of the context's packet, or of a struct's in the kernel; None for too many."""
    if context in world.foreign.packets:
        start, length = world.foreign.packets[context]
        return world.foreign.read(start, size) if size <= length else None
    packet = cast(Packet, world.context)
    if size > getattr(packet, "whole", packet.size):
        return None
    head: bytes = getattr(packet, "load_any", packet.bytes_at)(0, size)
    return head


def _read_counter(world: World, map_address: int, flags: int, name: str) -> int:
    found = map_of(world, map_address, name)
    if flags & ~_INDEX_MASK:
        return -errno.EINVAL
    index = world.environment.cpu if flags == CURRENT_CPU else flags
    return -errno.E2BIG if index >= found.definition.max_entries else -errno.ENOENT


@helper("bpf_perf_event_read", gpl=True, differs="there are no counters: always a negative error number")
def perf_event_read(world: World, map_address: int, flags: int) -> int:
    """Read a counter of the processor."""
    return _read_counter(world, map_address, flags, "bpf_perf_event_read")


@helper(
    "bpf_perf_event_read_value", gpl=True, differs="there are no counters: always a negative error number"
)
def perf_event_read_value(world: World, map_address: int, flags: int, buffer: int, size: int) -> int:
    """Read a counter of the processor with its times."""
    size = W32.wrap(size)
    memory.clear(buffer, size)
    if size != _VALUE_SIZE:
        return -errno.EINVAL
    return _read_counter(world, map_address, flags, "bpf_perf_event_read_value")


@helper("bpf_get_stackid", gpl=True, differs="the stack is Environment.stack")
def get_stackid(world: World, context: int, map_address: int, flags: int) -> int:
    """Keep the stack in a map; return its id there, or a negative error number."""
    found = map_of(world, map_address, "bpf_get_stackid")
    return cast(StackTraces, found).capture(world.environment.stack, flags)


_STACK = "the stack is Environment.stack, without build ids"


@helper("bpf_get_task_stack", differs=_STACK)
@helper("bpf_get_stack", gpl=True, differs=_STACK)
def get_stack(world: World, context: int, buffer: int, size: int, flags: int) -> int:
    """Copy the stack, innermost first, u64 each; return its bytes, or a negative error number."""
    size = W32.wrap(size)
    memory.clear(buffer, size)
    if flags & ~(_SKIP_MASK | _USER_STACK | _BUILD_ID) or flags & _BUILD_ID or size % 8:
        return -errno.EINVAL
    frames = world.environment.stack[flags & _SKIP_MASK :][: size // 8]
    if not frames:
        return -errno.EFAULT
    memory.write(buffer, b"".join(W64.wrap(frame).to_bytes(8, "little") for frame in frames))
    return 8 * len(frames)
