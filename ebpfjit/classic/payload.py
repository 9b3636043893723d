"""Where a packet's payload begins, as the ancillary load `poff` says: Linux's flow dissector, for the oracle.

Ethertype -> IP, VLAN, PPPoE, ... -> protocol -> extension headers, tunnels -> the last header that is known

Source: __skb_flow_dissect, __skb_get_poff (net/core/flow_dissector.c), without flags. Numbers are in network
order, `at` is where a header begins.
"""

from __future__ import annotations

from enum import Enum

MOST_HEADERS = 15
"""How many headers are followed (MAX_FLOW_DISSECT_HDRS)."""
IP, IPV6, VLAN, VLAN_OF_PROVIDERS, PPPOE, BATMAN = 0x0800, 0x86DD, 0x8100, 0x88A8, 0x8864, 0x4305
HSR, PRP, ETHERNET_IN_GRE, PPP_IN_GRE = 0x892F, 0x88FB, 0x6558, 0x880B
#        ethertype: bytes that must be there, bytes that count
ENDS = {0x0806: (0, 0), 0x8035: (0, 0), 0x8847: (0, 4), 0x8848: (0, 4), 0x88CA: (16, 0), 0x8902: (0, 0),
        0x88F7: (34, 34), 0x8906: (38, 38)}  # fmt: skip
"""Those that nothing is looked for behind: ARP, RARP, MPLS, TIPC, CFM, PTP, FCoE."""
SHIMS = {VLAN: (4, 2), VLAN_OF_PROVIDERS: (4, 2), HSR: (6, 4), PRP: (6, 4), BATMAN: (24, 22)}
"""Headers in front of another ethertype: their size, and where that is."""
PPP = {0x0021: IP, 0x0057: IPV6, 0x0281: 0x8847, 0x0283: 0x8848}
"""What is in PPP, by its protocol."""
PPP_OF_GRE = {0x0021: IP, 0x0057: IPV6}
EXTENSIONS = (0, 43, 60)
"""IPv6's headers of options: hop-by-hop, routing, destination."""
FRAGMENT, GRE, TCP = 44, 47, 6
TUNNELS = {4: IP, 41: IPV6, 137: 0x8847}
SIZES = {1: 8, 2: 8, 17: 8, 33: 12, 58: 8, 132: 12, 136: 8}
"""What follows ICMP, IGMP, UDP, DCCP, ICMPv6, SCTP and UDP-Lite is payload; of the rest, their header is."""
ROUTED, CHECKSUM, KEY, SEQUENCE, ACKNOWLEDGED, VERSION = 0x4000, 0x8000, 0x2000, 0x1000, 0x0080, 0x0007
"""Flags of GRE."""
BATMAN_UNICAST, PPPOE_SESSION = 0x400F, 0x1100
"""How such headers begin: type and version, and for PPPoE a code."""


class _Short(Exception):  # noqa: N818 - it ends the walk, and is no error
    """A header is not whole, or not what it should be: there is no payload."""


class Next(Enum):
    """What is looked at next: a header by its ethertype, by its protocol inside of IP, or none."""

    KIND, INSIDE, NONE = range(3)


def payload(data: bytes, kind: int, network: int) -> int:
    """Return where the payload of a packet begins, 0 where that is not known.

    `kind` is the packet's ethertype, `network` where its network header is.
    """
    walk, step, headers = _Walk(data, kind, network), Next.KIND, 0
    try:
        while step is not Next.NONE:
            was, step = step, walk.kind_step() if step is Next.KIND else walk.inside_step()
            if (was, step) != (Next.KIND, Next.INSIDE):
                headers += 1
                if headers > MOST_HEADERS:
                    break
        return walk.behind_last()
    except _Short:
        return 0


class _Walk:
    """A walk from one header to the next, which is at `at`."""

    def __init__(self, data: bytes, kind: int, at: int) -> None:
        self.data, self.kind, self.at = data, kind, at
        self.protocol = 0
        self.is_rest = False  # of a fragment that is not the first

    def number(self, size: int, place: int, at: int | None = None) -> int:
        """Return a number of the header, in network order; all of it must be there."""
        start = (self.at if at is None else at) + place
        if start + size > len(self.data):
            raise _Short
        return int.from_bytes(self.data[start : start + size], "big")

    def needs(self, size: int) -> None:
        """Raise _Short where so many bytes are not there."""
        if self.at + size > len(self.data):
            raise _Short

    def kind_step(self) -> Next:
        """Look at a header by its ethertype."""
        kind = self.kind
        if kind == IP:
            return self._ip()
        if kind == IPV6:
            self.needs(40)
            self.protocol = self.number(1, 6)
            self.at += 40
            return Next.INSIDE
        if kind == PPPOE:
            return self._pppoe()
        if kind in SHIMS:
            size, place = SHIMS[kind]
            self.needs(size)
            if kind == BATMAN and self.number(2, 0) != BATMAN_UNICAST:
                raise _Short
            self.kind = self.number(2, place)
            self.at += size
            return Next.KIND
        if kind not in ENDS:
            raise _Short
        there, counts = ENDS[kind]
        self.needs(there)
        self.at += counts
        return Next.NONE

    def _ip(self) -> Next:
        self.needs(20)
        size, fragment = 4 * (self.number(1, 0) & 15), self.number(2, 6)
        if size < 20:
            raise _Short
        self.protocol = self.number(1, 9)
        self.at += size
        self.is_rest = fragment & 0x1FFF != 0
        return Next.NONE if fragment & 0x3FFF else Next.INSIDE

    def _pppoe(self) -> Next:
        self.needs(8)
        if self.number(2, 0) != PPPOE_SESSION:
            raise _Short
        inner = self.number(2, 6)
        self.at += 8
        if inner in PPP:
            self.kind = PPP[inner]
            return Next.KIND
        if inner & 0x0101 != 0x0001:  # a protocol that is cut to a byte is none to Linux
            raise _Short
        return Next.NONE

    def inside_step(self) -> Next:
        """Look at what is inside of IP."""
        protocol = self.protocol
        if protocol == GRE:
            return self._gre()
        if protocol in TUNNELS:
            self.kind = TUNNELS[protocol]
            return Next.KIND
        if self.kind != IPV6 or protocol not in (FRAGMENT, *EXTENSIONS):
            return Next.NONE
        if protocol == FRAGMENT:
            self.needs(8)
            self.protocol, self.is_rest = self.number(1, 0), self.number(2, 2) & 0xFFF8 != 0
            self.at += 8
            return Next.NONE
        self.needs(2)
        self.protocol, more = self.number(1, 0), self.number(1, 1)
        self.at += 8 * (more + 1)
        return Next.INSIDE

    def _gre(self) -> Next:
        self.needs(4)
        flags, inner = self.number(2, 0), self.number(2, 2)
        version = flags & VERSION
        if flags & ROUTED or version > 1:
            return Next.NONE
        self.kind = inner
        if version and not (inner == PPP_IN_GRE and flags & KEY):
            return Next.NONE
        size = 4 + (4 if flags & CHECKSUM else 0)
        if flags & KEY:
            self.needs(size + 4)
            size += 4
        size += 4 if flags & SEQUENCE else 0
        if version:
            size += 4 if flags & ACKNOWLEDGED else 0
            self.needs(size + 4)
            self.kind = PPP_OF_GRE.get(self.number(2, size + 2), inner)
            size += 4
        elif inner == ETHERNET_IN_GRE:
            self.needs(size + 14)
            self.kind = self.number(2, size + 12)
            size += 14
        self.at += size
        return Next.KIND

    def behind_last(self) -> int:
        """Return the end of the last header, or its start where its end is not looked for."""
        start = min(self.at & 0xFFFF, len(self.data) & 0xFFFF)
        if self.is_rest:
            return start
        if self.protocol == TCP:
            is_there = start + 13 <= len(self.data)
            return start + max(20, self.number(1, 12, start) >> 2 & 0x3C) if is_there else start
        return start + SIZES.get(self.protocol, 0)
