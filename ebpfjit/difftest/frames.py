"""Packets as networks have them, with right lengths and checksums.

Ethernet  VLAN, QinQ  ARP
IPv4 (options, fragments)  IPv6 (extension headers, fragments)
TCP  UDP  ICMP  GRE  IP in IP
VXLAN, Geneve: a frame inside
"""

from __future__ import annotations

import random
import struct
from collections.abc import Callable, Collection, Mapping, Sequence, Set
from dataclasses import dataclass

NETWORK, TRANSPORT = ("ipv4", "ipv6", "arp"), ("tcp", "udp", "icmp", "gre", "ipip")
MORE = ("vlan", "qinq", "vxlan", "geneve", "options", "extensions", "fragments", "cut")
LAYERS = frozenset((*NETWORK, *TRANSPORT, *MORE))
"""What packets may have: headers by name, `cut` for a frame that ends early."""
TCP, UDP, ICMP, ICMP6, IPV4_INSIDE, IPV6_INSIDE, GRE = 6, 17, 1, 58, 4, 41, 47
HOP_BY_HOP, ROUTING, FRAGMENT, OPTIONS, NOTHING_MORE = 0, 43, 44, 60, 59
VXLAN_PORT, GENEVE_PORT = 4789, 6081
LARGEST_PAYLOAD = 64
MOST_INSIDE = 2
"""How many headers of IP there are in one packet, at most, one in the other."""
_PORTS = (22, 53, 80, 443, 4789, 6081, 8080)
_FLAGS = (0x02, 0x12, 0x10, 0x18, 0x11, 0x04, 0x00)
_VLAN, _QINQ, _ARP, _IPV4, _IPV6, _ETHERNET = 0x8100, 0x88A8, 0x0806, 0x0800, 0x86DD, 0x6558
_KINDS = {"ipv4": _IPV4, "ipv6": _IPV6, "arp": _ARP}


def frame(rng: random.Random, layers: Collection[str] = LAYERS) -> bytes:
    """Return an Ethernet frame that has no other `layers` than these; of 16 one ends early.

    Where none of ipv4, ipv6, arp is among them, both kinds of IP may be there, and where no transport is,
    TCP, UDP and ICMP. Raises ValueError for a name that is no layer.
    """
    unknown = set(layers) - LAYERS
    if unknown:
        raise ValueError(f"no layer {min(unknown)!r}; there are {', '.join(sorted(LAYERS))}")
    given = {*layers}
    given |= {"ipv4", "ipv6"} if given.isdisjoint(NETWORK) else set()
    given |= {"tcp", "udp", "icmp"} if given.isdisjoint(TRANSPORT) else set()
    made = _Frames(rng, given).frame(1)
    cut = "cut" in layers and rng.random() < 1 / 16
    return made[: rng.randrange(14, len(made))] if cut else made


def checksum(data: bytes) -> int:
    """Return the Internet checksum of some bytes."""
    words = struct.unpack(f"!{(len(data) + 1) // 2}H", data + bytes(len(data) % 2))
    total: int = sum(words)
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


@dataclass(frozen=True, slots=True)
class _Frames:
    rng: random.Random
    layers: Set[str]

    def frame(self, depth: int) -> bytes:
        """Return an Ethernet frame with its addresses; `depth` headers of IP may be around the next one."""
        rng = self.rng
        kind = self.one(("ipv4", "ipv4", "ipv4", "ipv6", "ipv6", "arp"))
        body = self.arp() if kind == "arp" else self.ip(kind, depth)
        tags = b""
        if self.may("vlan", 0.12):
            tags = struct.pack("!HH", _VLAN, self.tag())
        elif self.may("qinq", 0.05):
            tags = struct.pack("!HHHH", _QINQ, self.tag(), _VLAN, self.tag())
        return rng.randbytes(12) + tags + struct.pack("!H", _KINDS[kind]) + body

    def may(self, layer: str, chance: float) -> bool:
        """Return whether a layer that may be there is there."""
        return layer in self.layers and self.rng.random() < chance

    def one(self, usual: Sequence[str], rare: Sequence[str] = ()) -> str:
        """Return one of those layers that may be there: at least one may."""
        usual = [each for each in usual if each in self.layers]
        rare = [each for each in rare if each in self.layers]
        is_rare = rare and (not usual or self.rng.random() < 0.1)
        return self.rng.choice(rare if is_rare else usual)

    def tag(self) -> int:
        return self.rng.randrange(1, 4095)

    def address(self) -> bytes:
        known = self.rng.choice((b"\x7f\0\0\x01", b"\x0a\0\0", b"\xc0\xa8\0"))
        return known.ljust(3, b"\0")[:3] + self.rng.randbytes(1)

    def arp(self) -> bytes:
        rng = self.rng
        head = struct.pack("!HHBBH", 1, _IPV4, 6, 4, rng.choice((1, 2)))
        return head + rng.randbytes(6) + self.address() + rng.randbytes(6) + self.address()

    def ip(self, kind: str, depth: int) -> bytes:
        """Return a packet of IP, "ipv4" or "ipv6"."""
        return self.ipv4(depth) if kind == "ipv4" else self.ipv6(depth)

    def ipv4(self, depth: int) -> bytes:
        rng = self.rng
        options = rng.randbytes(4 * rng.randrange(1, 4)) if self.may("options", 0.1) else b""
        source, target = self.address(), self.address()
        size = 20 + len(options)
        protocol, body = self.inside(ICMP, source + target, depth)
        fragment = 0x4000
        if self.may("fragments", 0.1):
            fragment = rng.choice((0x2000, 0x0010, 0x2010))
        ttl, first = rng.choice((1, 64, 255)), 0x40 | size // 4
        sizes = size + len(body), rng.randrange(1 << 16), fragment
        head = struct.pack("!BBHHHBBH4s4s", first, 0, *sizes, ttl, protocol, 0, source, target)
        right = checksum(head + options)
        return head[:10] + struct.pack("!H", right) + head[12:] + options + body

    def ipv6(self, depth: int) -> bytes:
        rng = self.rng
        source, target = (b"\x20\x01\x0d\xb8" + bytes(11) + rng.randbytes(1) for _ in range(2))
        protocol, body = self.inside(ICMP6, source + target, depth)
        for _ in range(rng.randrange(1, 4) if self.may("extensions", 0.15) else 0):
            protocol, body = self.extended(protocol, body)
        if self.may("fragments", 0.05):
            place = rng.choice((0x0001, 0x0008, 0x0009))
            head = struct.pack("!BBHI", protocol, 0, place, rng.randrange(1 << 32))
            protocol, body = FRAGMENT, head + body
        ttl = rng.choice((1, 64, 255))
        return struct.pack("!IHBB", 6 << 28, len(body), protocol, ttl) + source + target + body

    def extended(self, protocol: int, body: bytes) -> tuple[int, bytes]:
        """Return the number of an extension header, and that header before a body."""
        rng = self.rng
        kind, size = rng.choice((HOP_BY_HOP, ROUTING, OPTIONS)), rng.choice((0, 0, 1, 2))
        room = 6 + 8 * size
        content = bytes([1, room - 2]) + bytes(room - 2) if kind != ROUTING else bytes(room)
        return kind, bytes([protocol, size]) + content + body

    def inside(self, icmp: int, addresses: bytes, depth: int) -> tuple[int, bytes]:
        """Return what a packet of IP carries, as (protocol, bytes); `addresses` are in its checksum."""
        rare = ("gre", "ipip") if depth < MOST_INSIDE else ()
        usual = ("tcp", "tcp", "udp", "udp", "icmp")
        if self.layers.isdisjoint(usual) and not rare:
            return NOTHING_MORE, b""
        kind = self.one(usual, rare)
        if kind == "gre":
            return GRE, self.gre(depth + 1)
        if kind == "ipip":
            within = self.one(("ipv4", "ipv6"))
            return IPV4_INSIDE if within == "ipv4" else IPV6_INSIDE, self.ip(within, depth + 1)
        protocol = {"tcp": TCP, "udp": UDP, "icmp": icmp}[kind]
        return protocol, _TRANSPORT[kind](self, protocol, addresses, depth)

    def gre(self, depth: int) -> bytes:
        rng = self.rng
        flags = rng.choice((0, 0x2000, 0x1000, 0x8000, 0xB000))
        fields = (0x8000, 0), (0x2000, rng.randrange(1 << 32)), (0x1000, 1)
        words = [word for bit, word in fields if flags & bit]
        within = self.one(("ipv4", "ipv6"))
        kind = _ETHERNET if rng.random() < 0.3 else _KINDS[within]
        body = self.frame(depth) if kind == _ETHERNET else self.ip(within, depth)
        return struct.pack("!HH", flags, kind) + struct.pack(f"!{len(words)}I", *words) + body

    def data(self) -> bytes:
        return self.rng.randbytes(self.rng.randrange(LARGEST_PAYLOAD))

    def ports(self) -> list[int]:
        return self.rng.sample((*_PORTS, self.rng.randrange(1024, 1 << 16)), 2)

    def tcp(self, protocol: int, addresses: bytes, depth: int) -> bytes:
        rng = self.rng
        numbers = rng.randrange(1 << 32), rng.randrange(1 << 32)
        options = rng.randbytes(4 * rng.randrange(1, 4)) if self.may("options", 0.1) else b""
        first = 5 + len(options) // 4 << 4
        head = struct.pack("!HHIIBBHHH", *self.ports(), *numbers, first, rng.choice(_FLAGS), 65535, 0, 0)
        return _summed(head + options + self.data(), 16, protocol, addresses)

    def udp(self, protocol: int, addresses: bytes, depth: int) -> bytes:
        ports, data = self.ports(), self.data()
        tunnels = [each for each in ("vxlan", "geneve") if each in self.layers and depth < MOST_INSIDE]
        if tunnels and self.rng.random() < 0.1:
            tunnel = self.rng.choice(tunnels)
            number = self.rng.randrange(1 << 24) << 8
            if tunnel == "vxlan":
                ports[1], head = VXLAN_PORT, struct.pack("!II", 0x08 << 24, number)
            else:
                ports[1], head = GENEVE_PORT, struct.pack("!BBHI", 0, 0, _ETHERNET, number)
            data = head + self.frame(depth + 1)
        return _summed(struct.pack("!HHHH", *ports, 8 + len(data), 0) + data, 6, protocol, addresses)

    def icmp(self, protocol: int, addresses: bytes, depth: int) -> bytes:
        kind = self.rng.choice((0, 3, 8, 11) if protocol == ICMP else (1, 128, 129, 135))
        head = struct.pack("!BBHHH", kind, 0, 0, self.rng.randrange(1 << 16), 1)
        return _summed(head + self.data(), 2, protocol, b"" if protocol == ICMP else addresses)


_TRANSPORT: Mapping[str, Callable[[_Frames, int, bytes, int], bytes]] = {
    "tcp": _Frames.tcp,
    "udp": _Frames.udp,
    "icmp": _Frames.icmp,
}


def _summed(data: bytes, at: int, protocol: int, addresses: bytes) -> bytes:
    """Return a header and what is behind it, with its checksum, at a byte."""
    pseudo = addresses + struct.pack("!II", len(data), protocol) if addresses else b""
    return data[:at] + struct.pack("!H", checksum(pseudo + data)) + data[at + 2 :]
