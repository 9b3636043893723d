"""Helpers that send a packet elsewhere: they say where, the return value says that it is to go."""

from __future__ import annotations

import errno

from ebpfjit.bits import W32
from ebpfjit.runtime import memory
from ebpfjit.runtime.contexts.outcome import Redirect
from ebpfjit.runtime.contexts.skb import SkbContext
from ebpfjit.runtime.contexts.xdp import XdpContext
from ebpfjit.runtime.helpers.maps import map_of
from ebpfjit.runtime.helpers.packet import skb_of
from ebpfjit.runtime.helpers.table import helper
from ebpfjit.runtime.maps.definition import MapType
from ebpfjit.runtime.world import World

XDP_ABORTED, XDP_REDIRECT = 0, 4
TC_ACT_SHOT, TC_ACT_REDIRECT = 2, 7

BPF_F_INGRESS = 1 << 0
BPF_F_BROADCAST, BPF_F_EXCLUDE_INGRESS = 1 << 3, 1 << 4
ACTION_MASK = 0b11
"""Low bits of bpf_redirect_map's flags: what it returns where the map holds nothing."""

REDIR_NEIGH_SIZE = 20
"""struct bpf_redir_neigh."""

_BROADCASTING = (MapType.DEVMAP, MapType.DEVMAP_HASH)


@helper("bpf_redirect")
def redirect(world: World, ifindex: int, flags: int) -> int:
    """Send the packet out of an interface, or into it (BPF_F_INGRESS; tc only)."""
    ifindex = W32.wrap(ifindex)
    if isinstance(world.context, XdpContext):
        if flags:
            return XDP_ABORTED
        world.context.redirect = Redirect("bpf_redirect", ifindex)
        return XDP_REDIRECT
    if flags & ~BPF_F_INGRESS:
        return TC_ACT_SHOT
    if isinstance(world.context, SkbContext):
        world.context.redirect = Redirect("bpf_redirect", ifindex, flags=flags)
    return TC_ACT_REDIRECT


@helper("bpf_redirect_map")
def redirect_map(world: World, map_address: int, key: int, flags: int) -> int:
    """Send the packet where the map's entry says; without an entry return the flags' low bits."""
    found = map_of(world, map_address, "bpf_redirect_map")
    key = W32.wrap(key)
    broadcasts = BPF_F_BROADCAST | BPF_F_EXCLUDE_INGRESS if found.definition.type in _BROADCASTING else 0
    if flags & ~(ACTION_MASK | broadcasts):
        return XDP_ABORTED
    value = found.lookup(key.to_bytes(4, "little"))
    if not value and not flags & BPF_F_BROADCAST:
        return flags & ACTION_MASK
    ifindex = None
    if value and found.definition.type in _BROADCASTING:
        ifindex = int.from_bytes(memory.read(value, 4), "little")
    if isinstance(world.context, XdpContext):
        world.context.redirect = Redirect("bpf_redirect_map", ifindex, found.name, key, flags)
    return XDP_REDIRECT


@helper("bpf_redirect_peer")
def redirect_peer(world: World, ifindex: int, flags: int) -> int:
    """Send the packet into the peer of a virtual interface."""
    return _redirect_skb(world, "bpf_redirect_peer", ifindex, flags)


@helper("bpf_redirect_neigh")
def redirect_neigh(world: World, ifindex: int, parameters: int, size: int, flags: int) -> int:
    """Send the packet out of an interface with a link header made for its next hop."""
    if W32.wrap(size):
        memory.check(parameters, W32.wrap(size), "load")
        if W32.signed(size) < REDIR_NEIGH_SIZE:
            return TC_ACT_SHOT
    return _redirect_skb(world, "bpf_redirect_neigh", ifindex, flags)


def _redirect_skb(world: World, name: str, ifindex: int, flags: int) -> int:
    if flags:
        return TC_ACT_SHOT
    if isinstance(world.context, SkbContext):
        world.context.redirect = Redirect(name, W32.wrap(ifindex))
    return TC_ACT_REDIRECT


@helper("bpf_clone_redirect", ends_rights=True, differs="keeps the copy for Result.clones")
def clone_redirect(world: World, context: int, ifindex: int, flags: int) -> int:
    """Send a copy of the packet, as it is now, out of an interface; 0 or -EINVAL."""
    skb = skb_of(world, context, "bpf_clone_redirect")
    ifindex = W32.wrap(ifindex)
    if flags & ~BPF_F_INGRESS or world.environment.network.interface(ifindex) is None:
        return -errno.EINVAL
    if not world.leaves(skb.size):
        return -errno.ENOMEM
    skb.clones.append((ifindex, skb.bytes_at(0, skb.size)))
    return 0
