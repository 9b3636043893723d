"""Helpers that read and change what a socket buffer is beside its bytes: type, hash, time, owner."""

from __future__ import annotations

import errno

from ebpfjit.bits import W32
from ebpfjit.runtime import memory
from ebpfjit.runtime.contexts.skb import (
    ETH_P_IP,
    ETH_P_IPV6,
    PACKET_OTHERHOST,
    SkbContext,
)
from ebpfjit.runtime.helpers.maps import map_of
from ebpfjit.runtime.helpers.packet import skb_of
from ebpfjit.runtime.helpers.table import helper
from ebpfjit.runtime.world import World

TSTAMP_TYPES = range(3)
"""BPF_SKB_CLOCK_REALTIME, _MONOTONIC, _TAI."""


@helper("bpf_skb_change_type")
def skb_change_type(world: World, context: int, type: int) -> int:
    """Set pkt_type, as far as the link layer's four go; 0 or -EINVAL."""
    skb = skb_of(world, context, "bpf_skb_change_type")
    type = W32.wrap(type)
    if type > PACKET_OTHERHOST or skb.get("pkt_type") > PACKET_OTHERHOST:
        return -errno.EINVAL
    skb.set("pkt_type", type)
    return 0


@helper("bpf_get_hash_recalc", differs="Linux hashes with a random key; here equal flows have equal hashes")
def get_hash_recalc(world: World, context: int) -> int:
    """Return the packet's hash, made from its flow where there is none; never 0."""
    skb = skb_of(world, context, "bpf_get_hash_recalc")
    if not skb.get("hash"):
        import zlib  # few programs ask for it

        skb.set("hash", zlib.crc32(_flow(skb)) or 1)
    return skb.get("hash")


def _flow(skb: SkbContext) -> bytes:
    """Return what names the packet's flow: protocol, addresses and ports; all of it where there are none."""
    start = skb.network_header - skb.data
    header = skb.bytes_at(start, min(44, skb.data_end - skb.network_header))
    if skb.protocol == ETH_P_IP and len(header) >= 20:
        size = (header[0] & 15) * 4
        is_fragment = (header[6] << 8 | header[7]) & 0x3FFF
        ports = b"" if is_fragment else header[size : size + 4]
        return bytes([header[9]]) + header[12:20] + (ports if header[9] in (6, 17, 132) else b"")
    if skb.protocol == ETH_P_IPV6 and len(header) >= 40:
        return bytes([header[6]]) + header[8:40] + (header[40:44] if header[6] in (6, 17, 132) else b"")
    return skb.protocol.to_bytes(2, "big") + skb.bytes_at(0, skb.size)


@helper("bpf_set_hash")
def set_hash(world: World, context: int, value: int) -> int:
    """Set the packet's hash (u32)."""
    skb_of(world, context, "bpf_set_hash").set("hash", value)
    return 0


@helper("bpf_set_hash_invalid")
def set_hash_invalid(world: World, context: int) -> int:
    """Forget the packet's hash: the next reader makes it anew."""
    skb_of(world, context, "bpf_set_hash_invalid").set("hash", 0)
    return 0


@helper("bpf_skb_set_tstamp")
def skb_set_tstamp(world: World, context: int, tstamp: int, type: int) -> int:
    """Set the packet's time (ns) and its clock; 0 or a negative error number."""
    skb = skb_of(world, context, "bpf_skb_set_tstamp")
    type = W32.wrap(type)
    if skb.protocol not in (ETH_P_IP, ETH_P_IPV6):
        return -errno.EOPNOTSUPP
    if type not in TSTAMP_TYPES or (type and not tstamp):
        return -errno.EINVAL
    skb.set("tstamp", tstamp)
    skb.set("tstamp_type", type)
    return 0


@helper("bpf_get_socket_uid")
def get_socket_uid(world: World, context: int) -> int:
    """Return the user that the packet's socket belongs to: root, as in Linux's test run."""
    skb_of(world, context, "bpf_get_socket_uid")
    return 0


@helper("bpf_get_route_realm", "bpf_get_cgroup_classid", "bpf_skb_cgroup_classid")
def nothing_known(world: World, context: int) -> int:
    """Return 0: packets here come from no route, and from no class of a cgroup."""
    skb_of(world, context, "a helper of cgroups or routes")
    return 0


@helper("bpf_skb_cgroup_id", "bpf_skb_ancestor_cgroup_id", differs="the number of Environment.task's cgroup")
def skb_cgroup_id(world: World, context: int) -> int:
    """Return the number of the cgroup that the packet's socket is in."""
    skb_of(world, context, "bpf_skb_cgroup_id")
    return world.environment.current_task.cgroup_id


def _under_cgroup(world: World, map_address: int, index: int, name: str) -> int:
    """Return 1 where the task's cgroup is the one at an index of the map, 0 where not, or -errno."""
    found = map_of(world, map_address, name)
    index = W32.wrap(index)
    if index >= found.definition.max_entries:
        return -errno.E2BIG
    address = found.lookup(index.to_bytes(4, "little"))
    if not address:
        return -errno.EAGAIN
    number = int.from_bytes(memory.read(address, found.definition.value_size), "little")
    return int(number == world.environment.current_task.cgroup_id)


@helper("bpf_skb_under_cgroup", differs="the cgroup of Environment.task, and no hierarchy of them")
def skb_under_cgroup(world: World, context: int, map_address: int, index: int) -> int:
    """Tell whether the packet's socket is in the cgroup at an index of the map; 1, 0 or -errno."""
    skb_of(world, context, "bpf_skb_under_cgroup")
    return _under_cgroup(world, map_address, index, "bpf_skb_under_cgroup")


@helper("bpf_current_task_under_cgroup", differs="the cgroup of Environment.task, and no hierarchy of them")
def current_task_under_cgroup(world: World, map_address: int, index: int) -> int:
    """Tell whether the process is in the cgroup at an index of the map; 1, 0 or -errno."""
    return _under_cgroup(world, map_address, index, "bpf_current_task_under_cgroup")


@helper("bpf_skb_get_xfrm_state", differs="no packet here came by IPsec: always -EINVAL, and zeros")
def skb_get_xfrm_state(world: World, context: int, index: int, buffer: int, size: int, flags: int) -> int:
    """Write what is known of one of the packet's IPsec transformations; 0 or -EINVAL."""
    skb_of(world, context, "bpf_skb_get_xfrm_state")
    memory.clear(buffer, W32.wrap(size))
    return -errno.EINVAL


@helper("bpf_skb_ecn_set_ce", ends_rights=True)
def skb_ecn_set_ce(world: World, context: int) -> int:
    """Mark congestion in the IP header of a packet that allows it; 1 where it is marked now."""
    skb = skb_of(world, context, "bpf_skb_ecn_set_ce")
    start = skb.network_header - skb.data
    room = skb.data_end - skb.network_header
    if skb.protocol == ETH_P_IP and room >= 20:
        return _mark_ipv4(skb, start)
    if skb.protocol == ETH_P_IPV6 and room >= 40:
        return _mark_ipv6(skb, start)
    return 0


def _mark_ipv4(skb: SkbContext, start: int) -> int:
    header = bytearray(skb.bytes_at(start, 20))
    if header[1] & 3 in (0, 3):
        return int(header[1] & 3 == 3)
    checksum = int.from_bytes(header[10:12], "big") + (header[1] & 3) - 3
    checksum = (checksum & 0xFFFF) + (checksum >> 16)
    header[1] |= 3
    header[10:12] = (checksum & 0xFFFF).to_bytes(2, "big")
    skb.store_at(start, bytes(header))
    return 1


def _mark_ipv6(skb: SkbContext, start: int) -> int:
    word = int.from_bytes(skb.bytes_at(start, 4), "big")
    ecn = word >> 20 & 3
    if ecn in (0, 3):
        return int(ecn == 3)
    skb.store_at(start, (word | 3 << 20).to_bytes(4, "big"))
    return 1
