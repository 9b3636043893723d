"""Helpers that make socket buffers longer or shorter: room for headers, VLAN tags, other protocols.

tc sees     [ link header ][ network header ][ ... ]
              ^ data         ^ network_header
"""

from __future__ import annotations

import errno

from ebpfjit.bits import W32
from ebpfjit.runtime.contexts.packet import LINK_HEADER_SIZE
from ebpfjit.runtime.contexts.skb import (
    ETH_P_802_2,
    ETH_P_802_3,
    ETH_P_8021AD,
    ETH_P_8021Q,
    ETH_P_IP,
    ETH_P_IPV6,
    LARGEST_SIZE,
    SMALLEST_ETHERTYPE,
    SkbContext,
)
from ebpfjit.runtime.helpers.checksum import ENOTSUPP
from ebpfjit.runtime.helpers.packet import skb_of
from ebpfjit.runtime.helpers.table import helper
from ebpfjit.runtime.world import World

BPF_ADJ_ROOM_NET, BPF_ADJ_ROOM_MAC = 0, 1
LARGEST_ROOM = 0xFFF

FIXED_GSO, ENCAP_L3_IPV4, ENCAP_L3_IPV6, ENCAP_L4_GRE, ENCAP_L4_UDP = (1 << bit for bit in range(5))
NO_CSUM_RESET, ENCAP_L2_ETH, DECAP_L3_IPV4, DECAP_L3_IPV6 = (1 << bit for bit in range(5, 9))
ENCAP_L2_SHIFT = 56
ENCAP_L3 = ENCAP_L3_IPV4 | ENCAP_L3_IPV6
DECAP_L3 = DECAP_L3_IPV4 | DECAP_L3_IPV6
SHRINK_FLAGS = FIXED_GSO | DECAP_L3 | NO_CSUM_RESET
ROOM_FLAGS = SHRINK_FLAGS | ENCAP_L3 | ENCAP_L4_GRE | ENCAP_L4_UDP | ENCAP_L2_ETH | 0xFF << ENCAP_L2_SHIFT

NETWORK_HEADER_SIZE = {ETH_P_IP: 20, ETH_P_IPV6: 40}
VLAN_SIZE = 4
ADDRESSES_SIZE = 12


def _network_offset(skb: SkbContext) -> int:
    return skb.network_header - skb.data


# -- both ends ------------------------------------------------------------------------------------


@helper("bpf_skb_change_head", ends_rights=True)
def skb_change_head(world: World, context: int, room: int, flags: int) -> int:
    """Put zeros before the packet, for a link header; 0 or a negative error number."""
    skb = skb_of(world, context, "bpf_skb_change_head")
    room = W32.wrap(room)
    if flags or W32.signed(room) < 0 or (not skb.get("gso_size") and skb.size + room > LARGEST_SIZE):
        return -errno.EINVAL
    if not skb.insert(0, room):
        return -errno.ENOMEM
    skb.mac_header = skb.data
    skb.moved()
    return 0


@helper("bpf_skb_change_tail", ends_rights=True)
def skb_change_tail(world: World, context: int, size: int, flags: int) -> int:
    """Make the packet `size` bytes long, new ones being zero; 0 or a negative error number."""
    skb = skb_of(world, context, "bpf_skb_change_tail")
    size = W32.wrap(size)
    if flags or size > LARGEST_SIZE or size < max(_network_offset(skb), 0):
        return -errno.EINVAL
    if skb.encapsulated:
        return -ENOTSUPP
    if not skb.resize(size):
        return -errno.ENOMEM
    if skb.get("gso_size"):
        skb.set("gso_size", 0)
        skb.set("gso_segs", 0)
    skb.moved()
    return 0


# -- room between headers -------------------------------------------------------------------------


@helper("bpf_skb_adjust_room", ends_rights=True)
def skb_adjust_room(world: World, context: int, difference: int, mode: int, flags: int) -> int:
    """Make or take room behind the link header (mode 1) or the network header (mode 0)."""
    skb = skb_of(world, context, "bpf_skb_adjust_room")
    difference, mode = W32.signed(difference), W32.wrap(mode)
    amount = abs(difference)
    shrinks = difference < 0
    if flags & ~ROOM_FLAGS:
        return -errno.EINVAL
    if amount > LARGEST_ROOM:
        return -errno.EFAULT
    header_size = NETWORK_HEADER_SIZE.get(skb.protocol)
    if header_size is None or mode not in (BPF_ADJ_ROOM_NET, BPF_ADJ_ROOM_MAC):
        return -ENOTSUPP
    at = skb.network_header - skb.mac_header + (header_size if mode == BPF_ADJ_ROOM_NET else 0)
    smallest = header_size
    if flags & DECAP_L3:
        if not shrinks or flags & DECAP_L3 == DECAP_L3:
            return -errno.EINVAL
        smallest = NETWORK_HEADER_SIZE[ETH_P_IP if flags & DECAP_L3_IPV4 else ETH_P_IPV6]
    size = skb.size - _network_offset(skb)
    if shrinks and (amount >= size or size - amount < smallest):
        return -ENOTSUPP
    if not shrinks and skb.size + amount > LARGEST_SIZE and not skb.get("gso_size"):
        return -ENOTSUPP
    refusal = _shrink(skb, at, amount, flags) if shrinks else _grow(skb, at, amount, flags)
    if not refusal and not flags & NO_CSUM_RESET:
        skb.checksums = None
    skb.moved()
    return refusal


def _grow(skb: SkbContext, at: int, amount: int, flags: int) -> int:
    inner_link_size = flags >> ENCAP_L2_SHIFT
    if skb.get("gso_size"):
        return -ENOTSUPP  # segments of a test run are of no protocol, so none that this could go on with
    both_l3 = flags & ENCAP_L3 == ENCAP_L3
    both_l4 = flags & ENCAP_L4_GRE and flags & ENCAP_L4_UDP
    link_size = skb.network_header - skb.mac_header
    if flags & ENCAP_L3:
        if both_l3 or both_l4 or (flags & ENCAP_L2_ETH and inner_link_size < LINK_HEADER_SIZE):
            return -errno.EINVAL
        if skb.encapsulated:
            return -errno.EALREADY
        if inner_link_size > amount:
            return -errno.EINVAL
    if not skb.insert(at, amount):
        return -errno.ENOMEM
    skb.shift_headers(-amount)
    if flags & ENCAP_L3:
        skb.encapsulated = True
        skb.network_header = skb.data + link_size
        skb.protocol = ETH_P_IP if flags & ENCAP_L3_IPV4 else ETH_P_IPV6
    return 0


def _shrink(skb: SkbContext, at: int, amount: int, flags: int) -> int:
    if flags & ~SHRINK_FLAGS:
        return -errno.EINVAL
    if skb.get("gso_size"):
        return -ENOTSUPP
    if not skb.remove(at, amount):
        return -errno.ENOMEM
    skb.shift_headers(amount)
    if flags & DECAP_L3:
        skb.protocol = ETH_P_IP if flags & DECAP_L3_IPV4 else ETH_P_IPV6
    return 0


@helper("bpf_skb_change_proto", ends_rights=True)
def skb_change_proto(world: World, context: int, protocol: int, flags: int) -> int:
    """Turn IPv4 into IPv6 or back, as far as the header's size goes; 0 or a negative error number."""
    skb = skb_of(world, context, "bpf_skb_change_proto")
    wanted = int.from_bytes((protocol & 0xFFFF).to_bytes(2, "little"), "big")
    if flags:
        return -errno.EINVAL
    if {skb.protocol, wanted} != {ETH_P_IP, ETH_P_IPV6} or skb.get("gso_size"):
        return -ENOTSUPP
    at = skb.network_header - skb.mac_header
    amount = NETWORK_HEADER_SIZE[ETH_P_IPV6] - NETWORK_HEADER_SIZE[ETH_P_IP]
    grows = wanted == ETH_P_IPV6
    if not (skb.insert(at, amount) if grows else skb.remove(at, amount)):
        return -errno.ENOMEM
    skb.shift_headers(-amount if grows else amount)
    skb.protocol = wanted
    skb.set("hash", 0)
    skb.moved()
    return 0


# -- VLAN tags: the outermost stands beside the packet, those inside of it in the packet ------------


def _put_tag(skb: SkbContext, protocol: int, tag: int) -> None:
    skb.set("vlan_present", 1)
    skb.set("vlan_tci", tag)
    skb.set("vlan_proto", int.from_bytes(protocol.to_bytes(2, "big"), "little"))


def _tag_protocol(skb: SkbContext) -> int:
    return int.from_bytes(skb.get("vlan_proto").to_bytes(2, "little"), "big")


@helper("bpf_skb_vlan_push", ends_rights=True)
def skb_vlan_push(world: World, context: int, protocol: int, tag: int) -> int:
    """Put a VLAN tag beside the packet; one that is there moves into it."""
    skb = skb_of(world, context, "bpf_skb_vlan_push")
    wanted = int.from_bytes((protocol & 0xFFFF).to_bytes(2, "little"), "big")
    if wanted not in (ETH_P_8021Q, ETH_P_8021AD):
        wanted = ETH_P_8021Q
    if skb.get("vlan_present"):
        outer = _tag_protocol(skb)
        if not skb.insert(ADDRESSES_SIZE, VLAN_SIZE):
            return -errno.ENOMEM
        skb.store_at(ADDRESSES_SIZE, outer.to_bytes(2, "big") + skb.get("vlan_tci").to_bytes(2, "big"))
        skb.shift_headers(-VLAN_SIZE)
        skb.protocol = outer
    _put_tag(skb, wanted, tag & 0xFFFF)
    skb.moved()
    return 0


@helper("bpf_skb_vlan_pop", ends_rights=True)
def skb_vlan_pop(world: World, context: int) -> int:
    """Take the outermost VLAN tag away; the next one moves out of the packet."""
    skb = skb_of(world, context, "bpf_skb_vlan_pop")
    refusal = 0
    if skb.get("vlan_present"):
        for name in ("vlan_present", "vlan_tci", "vlan_proto"):
            skb.set(name, 0)
    elif not _is_tagged(skb):
        return 0
    else:
        refusal, _ = _take_tag(skb)
    if not refusal and _is_tagged(skb):
        protocol = skb.protocol
        refusal, tag = _take_tag(skb)
        if not refusal:
            _put_tag(skb, protocol, tag)
    skb.moved()
    return refusal


def _is_tagged(skb: SkbContext) -> bool:
    return skb.protocol in (ETH_P_8021Q, ETH_P_8021AD)


def _take_tag(skb: SkbContext) -> tuple[int, int]:
    """Take the tag behind the addresses out of the packet; return (0 or -errno, the tag)."""
    if skb.size < LINK_HEADER_SIZE + VLAN_SIZE:
        return -errno.ENOMEM, 0
    tag = int.from_bytes(skb.bytes_at(LINK_HEADER_SIZE, 2), "big")
    inside = int.from_bytes(skb.bytes_at(LINK_HEADER_SIZE + 2, 2), "big")
    if inside < SMALLEST_ETHERTYPE:
        behind = LINK_HEADER_SIZE + VLAN_SIZE
        novell = skb.size >= behind + 2 and skb.bytes_at(behind, 2) == b"\xff\xff"
        inside = ETH_P_802_3 if novell else ETH_P_802_2
    if not skb.remove(ADDRESSES_SIZE, VLAN_SIZE):
        return -errno.ENOMEM, 0
    skb.mac_header += VLAN_SIZE
    skb.network_header = max(skb.network_header, skb.data + LINK_HEADER_SIZE)
    skb.protocol = inside
    return 0, tag
