"""Helpers of lwt_seg6local programs: the segment routing header of a packet (net/core/filter.c).

[ IPv6 ][ ... ][ SRH: next, length, 4, left, last entry, flags, tag | segments | TLVs ][ ... ]
                 ^ srh                                     5      6   8
"""

from __future__ import annotations

import errno

from ebpfjit.bits import W32
from ebpfjit.errors import ExecutionError
from ebpfjit.record import dataclass
from ebpfjit.runtime import memory
from ebpfjit.runtime.contexts.skb import SkbContext
from ebpfjit.runtime.helpers.packet import skb_of
from ebpfjit.runtime.helpers.table import helper
from ebpfjit.runtime.world import World

IPV6_SIZE, SRH_SIZE, SEGMENT_SHIFT = 40, 8, 4
_FLAGS_AT, _LAST_ENTRY_AT, _LENGTH_AT = 5, 4, 1
HOP_BY_HOP, ROUTING, FRAGMENT, AUTHENTICATION, DESTINATION = 0, 43, 44, 51, 60
_EXTENSIONS = frozenset({HOP_BY_HOP, ROUTING, FRAGMENT, AUTHENTICATION, DESTINATION})
_STATE = "segment routing header"
_BEHIND = "what Linux does behind the program is not done: the header's length is not set, nor is it checked"


@dataclass(slots=True)
class _Header:
    """Where the header is in the packet, and the bytes behind its first 8 (struct seg6_bpf_srh_state)."""

    at: int
    size: int

    @property
    def end(self) -> int:
        """Where it ends."""
        return self.at + SRH_SIZE + self.size


def _find(skb: SkbContext) -> int | None:
    """Return where the routing header is, None where there is none (ipv6_find_hdr)."""
    if skb.size < IPV6_SIZE:
        return None
    kind, at = skb.bytes_at(6, 1)[0], IPV6_SIZE
    while kind in _EXTENSIONS and at + SRH_SIZE <= skb.size:
        if kind == ROUTING:
            return at
        following, length = skb.bytes_at(at, 2)
        memory.spend(1)
        at += {FRAGMENT: 8, AUTHENTICATION: (length + 2) << 2}.get(kind, (length + 1) << 3)
        kind = following
    return None


def _header(world: World, context: int, name: str) -> tuple[SkbContext, _Header | None]:
    """Return the packet and its header as this run knows it. Raises ExecutionError for other programs."""
    skb = skb_of(world, context, name)
    if skb.type.name != "lwt_seg6local":
        raise ExecutionError(f"{name} is for lwt_seg6local programs, this one is {skb.type.name}")
    if _STATE not in world.kept:
        at = _find(skb)
        world.kept[_STATE] = None if at is None else _Header(at, skb.bytes_at(at + _LENGTH_AT, 1)[0] << 3)
    known: _Header | None = world.kept[_STATE]
    if known is not None and known.at + SRH_SIZE > skb.size:
        return skb, None
    return skb, known


def _first_segments(skb: SkbContext, header: _Header) -> int:
    """Return the bytes of the segments."""
    return (skb.bytes_at(header.at + _LAST_ENTRY_AT, 1)[0] + 1) << SEGMENT_SHIFT


@helper("bpf_lwt_seg6_store_bytes", ends_rights=True, differs=_BEHIND)
def lwt_seg6_store_bytes(world: World, context: int, offset: int, source: int, size: int) -> int:
    """Write flags and tag of the segment routing header, or its TLVs; 0 or a negative error number."""
    skb, header = _header(world, context, "bpf_lwt_seg6_store_bytes")
    offset, size = W32.wrap(offset), W32.wrap(size)
    data = memory.read(source, size)
    if header is None:
        return -errno.EINVAL
    # Linux counts from the header's first byte here, and not from its segments.
    in_tlvs = header.at + _first_segments(skb, header) <= offset and offset + size <= header.end
    in_flags = header.at + _FLAGS_AT <= offset and offset + size <= header.at + SRH_SIZE
    if not (in_tlvs or in_flags) or offset + size > skb.size:
        return -errno.EFAULT
    at = _find(skb)
    if at is None:
        return -errno.EINVAL
    header.at = at
    skb.store_at(offset, data)
    return 0


@helper("bpf_lwt_seg6_adjust_srh", ends_rights=True, differs=_BEHIND)
def lwt_seg6_adjust_srh(world: World, context: int, offset: int, difference: int) -> int:
    """Make room, of zeros, among the TLVs of the segment routing header, or take some; 0 or -errno."""
    skb, header = _header(world, context, "bpf_lwt_seg6_adjust_srh")
    offset, difference = W32.wrap(offset), W32.signed(difference)
    if header is None:
        return -errno.EINVAL
    tlvs = header.at + SRH_SIZE + _first_segments(skb, header)
    if not tlvs <= offset <= header.end or (difference < 0 and offset - difference > header.end):
        return -errno.EFAULT
    moved = skb.insert(offset, difference) if difference > 0 else skb.remove(offset, -difference)
    if not moved:
        return -errno.ENOMEM
    skb.shift_headers(-difference)
    skb.store_at(4, (skb.size - IPV6_SIZE & 0xFFFF).to_bytes(2, "big"))
    skb.moved()
    at = _find(skb)
    if at is None:
        return -errno.EINVAL
    header.at, header.size = at, (header.size + difference) & 0xFFFF
    return 0
