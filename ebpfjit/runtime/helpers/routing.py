"""Helpers that ask for a way through the network: bpf_fib_lookup and bpf_check_mtu.

They answer from `Environment.network`, which the user fills.
"""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

from ebpfjit.bits import W32
from ebpfjit.runtime import memory
from ebpfjit.runtime.contexts.packet import LINK_HEADER_SIZE, PacketContext
from ebpfjit.runtime.contexts.skb import AF_INET, AF_INET6, SkbContext
from ebpfjit.runtime.helpers.packet import skb_of, xdp_of
from ebpfjit.runtime.helpers.table import helper
from ebpfjit.runtime.network import LOOPBACK, Network, Route, ip_address, mac_bytes
from ebpfjit.runtime.world import World

if TYPE_CHECKING:
    from ebpfjit.runtime.network import IpAddress

FIB_PARAMETERS_SIZE = 64
"""struct bpf_fib_lookup."""

DIRECT, OUTPUT, SKIP_NEIGH, TBID, SRC, MARK = (1 << bit for bit in range(6))
FIB_FLAGS = DIRECT | OUTPUT | SKIP_NEIGH | TBID | SRC | MARK

(
    SUCCESS, BLACKHOLE, UNREACHABLE, PROHIBIT, NOT_FWDED, FWD_DISABLED, UNSUPP_LWT, NO_NEIGH,
    FRAG_NEEDED, NO_SRC_ADDR,
) = range(10)  # fmt: skip

RESULT_OF_KIND = {
    "blackhole": BLACKHOLE, "unreachable": UNREACHABLE, "prohibit": PROHIBIT, "local": NOT_FWDED,
}  # fmt: skip

#  offsets in struct bpf_fib_lookup
_TOT_LEN, _IFINDEX, _METRIC, _SOURCE, _DESTINATION, _VLAN, _SMAC, _DMAC = 6, 8, 12, 16, 32, 48, 52, 58

BPF_MTU_CHK_SEGS = 1
MTU_SUCCESS, MTU_FRAG_NEEDED, MTU_SEGS_TOOBIG = range(3)


def _context(world: World, address: int, name: str) -> PacketContext:
    return (
        skb_of(world, address, name)
        if isinstance(world.context, SkbContext)
        else xdp_of(world, address, name)
    )


@helper("bpf_fib_lookup", gpl=True, differs="answers from Environment.network")
def fib_lookup(world: World, context: int, parameters: int, size: int, flags: int) -> int:
    """Find a packet's next hop, written into struct bpf_fib_lookup; BPF_FIB_LKUP_RET_* or -errno."""
    packet = _context(world, context, "bpf_fib_lookup")
    size, flags = W32.wrap(size), W32.wrap(flags)
    given = memory.read(parameters, size)
    if size < FIB_PARAMETERS_SIZE or flags & ~FIB_FLAGS:
        return -errno.EINVAL
    lookup = _Lookup(world.environment.network, bytearray(given))
    result = lookup.run(flags, packet)
    memory.write(parameters, bytes(lookup.parameters))
    return result


class _Lookup:
    """One lookup: reads and writes the bytes of struct bpf_fib_lookup."""

    def __init__(self, network: Network, parameters: bytearray) -> None:
        self.network = network
        self.parameters = parameters

    def _number(self, offset: int, size: int) -> int:
        return int.from_bytes(self.parameters[offset : offset + size], "little")

    def _set(self, offset: int, data: bytes) -> None:
        self.parameters[offset : offset + len(data)] = data

    def _set_number(self, offset: int, size: int, number: int) -> None:
        self._set(offset, (number & (1 << 8 * size) - 1).to_bytes(size, "little"))

    def run(self, flags: int, packet: PacketContext) -> int:
        """Look up; return what the helper returns."""
        family = self.parameters[0]
        if family not in (AF_INET, AF_INET6):
            return -errno.EAFNOSUPPORT
        width = 4 if family == AF_INET else 16
        incoming = self.network.interface(self._number(_IFINDEX, 4))
        if incoming is None:
            return -errno.ENODEV
        if not incoming.forwards:
            return FWD_DISABLED
        destination = ip_address(bytes(self.parameters[_DESTINATION : _DESTINATION + width]))
        table = self._number(_VLAN, 4) if flags & DIRECT and flags & TBID else None
        leaving_by = self._number(_IFINDEX, 4) if flags & OUTPUT else None
        route = self.network.route(destination, table=table, ifindex=leaving_by)
        if route is None and family == AF_INET6:  # where the interface is a wish, not a condition
            route = self.network.route(destination, table=table)
        if route is None:
            return NOT_FWDED
        if route.kind != "unicast":
            return RESULT_OF_KIND[route.kind]
        return self._follow(route, destination, flags, packet)

    def _follow(self, route: Route, destination: IpAddress, flags: int, packet: PacketContext) -> int:
        outgoing = self.network.interface(route.ifindex)
        if outgoing is None:
            return -errno.ENODEV
        mtu = route.mtu or outgoing.mtu
        tot_len = self._number(_TOT_LEN, 2)
        if tot_len > mtu:
            self._set_number(_TOT_LEN, 2, mtu)
            return FRAG_NEEDED
        next_hop = ip_address(route.gateway) if route.gateway else destination
        if flags & SRC:
            if route.source is None:
                return NO_SRC_ADDR
            self._set(_SOURCE, ip_address(route.source).packed)
        self._set_number(_METRIC, 4, route.metric)
        self._set_number(_IFINDEX, 4, route.ifindex)
        self.parameters[0] = AF_INET if next_hop.version == 4 else AF_INET6
        self._set(_DESTINATION, next_hop.packed)
        if not flags & SKIP_NEIGH:
            link_address = self.network.link_address(next_hop)
            if link_address is None:
                return NO_NEIGH
            self._set(_DMAC, link_address)
            self._set(_SMAC, mac_bytes(outgoing.mac))
        self._set(_VLAN, bytes(4))
        if tot_len or not isinstance(packet, SkbContext):
            self._set_number(_TOT_LEN, 2, mtu)
        else:
            self._set_number(_TOT_LEN, 2, outgoing.mtu)
            if packet.size > outgoing.mtu + LINK_HEADER_SIZE and not packet.get("gso_size"):
                return FRAG_NEEDED
        return SUCCESS


@helper("bpf_check_mtu", gpl=True)
def check_mtu(world: World, context: int, ifindex: int, mtu_at: int, difference: int, flags: int) -> int:
    """Tell whether the packet fits an interface's MTU, stored behind r3; BPF_MTU_CHK_RET_* or -errno."""
    packet = _context(world, context, "bpf_check_mtu")
    ifindex, difference = W32.wrap(ifindex), W32.signed(difference)
    given = int.from_bytes(memory.read(mtu_at, 4), "little")
    on_skb = isinstance(packet, SkbContext)
    if flags & ~(BPF_MTU_CHK_SEGS if on_skb else 0):
        return -errno.EINVAL
    if flags & BPF_MTU_CHK_SEGS and (difference or given):
        return -errno.EINVAL
    own = packet.get("ifindex") if on_skb else packet.get("ingress_ifindex")
    interface = world.environment.network.interface(ifindex or own or LOOPBACK)
    if interface is None:
        return -errno.ENODEV
    size = (given + LINK_HEADER_SIZE if given else packet.size) + difference
    memory.write(mtu_at, interface.mtu.to_bytes(4, "little"))
    if size <= interface.mtu + LINK_HEADER_SIZE:
        return MTU_SUCCESS
    segmented = on_skb and packet.get("gso_size")
    if not segmented:
        return MTU_FRAG_NEEDED
    fits = packet.get("gso_size") <= interface.mtu
    return MTU_SUCCESS if fits or not flags & BPF_MTU_CHK_SEGS else MTU_SEGS_TOOBIG
