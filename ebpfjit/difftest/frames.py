"""Packets as networks have them: Ethernet, VLAN, ARP, IPv4 and IPv6 with TCP, UDP, ICMP; right checksums."""

from __future__ import annotations

import random
import struct

_PORTS = (22, 53, 80, 443, 4789, 6081, 8080)
_FLAGS = (0x02, 0x12, 0x10, 0x18, 0x11, 0x04, 0x00)
TCP, UDP, ICMP, ICMP6 = 6, 17, 1, 58
_VLAN, _ARP, _IPV4, _IPV6 = 0x8100, 0x0806, 0x0800, 0x86DD
LARGEST_PAYLOAD = 64


def frame(rng: random.Random) -> bytes:
    """Return an Ethernet frame, whole but for one of sixteen, which ends early."""
    kind = rng.choice((_IPV4, _IPV4, _IPV4, _IPV6, _IPV6, _ARP))
    body = {_IPV4: _ipv4, _IPV6: _ipv6, _ARP: _arp}[kind](rng)
    tag = struct.pack("!HH", _VLAN, rng.randrange(1, 4095)) if rng.random() < 0.15 else b""
    made = rng.randbytes(12) + tag + struct.pack("!H", kind) + body
    return made[: rng.randrange(14, len(made))] if rng.random() < 1 / 16 else made


def checksum(data: bytes) -> int:
    """Return the Internet checksum of some bytes."""
    words = struct.unpack(f"!{(len(data) + 1) // 2}H", data + bytes(len(data) % 2))
    total: int = sum(words)
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def _address(rng: random.Random) -> bytes:
    return rng.choice((b"\x7f\0\0\x01", b"\x0a\0\0", b"\xc0\xa8\0")).ljust(3, b"\0")[:3] + rng.randbytes(1)


def _arp(rng: random.Random) -> bytes:
    head = struct.pack("!HHBBH", 1, _IPV4, 6, 4, rng.choice((1, 2)))
    return head + rng.randbytes(6) + _address(rng) + rng.randbytes(6) + _address(rng)


def _ipv4(rng: random.Random) -> bytes:
    options = rng.randbytes(4 * rng.randrange(1, 4)) if rng.random() < 0.1 else b""
    protocol = rng.choice((TCP, TCP, UDP, UDP, ICMP))
    source, target = _address(rng), _address(rng)
    size = 20 + len(options)
    body = _payload(rng, protocol, source + target)
    fragment = rng.choice((0x2000, 0x0010)) if rng.random() < 0.1 else 0x4000
    ttl, first = rng.choice((1, 64, 255)), 0x40 | size // 4
    sizes = size + len(body), rng.randrange(1 << 16), fragment
    head = struct.pack("!BBHHHBBH4s4s", first, 0, *sizes, ttl, protocol, 0, source, target)
    right = checksum(head + options)
    return head[:10] + struct.pack("!H", right) + head[12:] + options + body


def _ipv6(rng: random.Random) -> bytes:
    protocol = rng.choice((TCP, UDP, ICMP6))
    source, target = (b"\x20\x01\x0d\xb8" + bytes(11) + rng.randbytes(1) for _ in range(2))
    body = _payload(rng, protocol, source + target)
    return (
        struct.pack("!IHBB", 6 << 28, len(body), protocol, rng.choice((1, 64, 255))) + source + target + body
    )


def _payload(rng: random.Random, protocol: int, addresses: bytes) -> bytes:
    """Return a header of TCP, UDP or ICMP, and bytes behind it; `addresses` are in its checksum."""
    data = rng.randbytes(rng.randrange(LARGEST_PAYLOAD))
    ports = rng.sample((*_PORTS, rng.randrange(1024, 1 << 16)), 2)
    if protocol == UDP:
        head, at = struct.pack("!HHHH", *ports, 8 + len(data), 0), 6
    elif protocol == TCP:
        numbers = rng.randrange(1 << 32), rng.randrange(1 << 32)
        head, at = struct.pack("!HHIIBBHHH", *ports, *numbers, 5 << 4, rng.choice(_FLAGS), 65535, 0, 0), 16
    else:
        kind = rng.choice((0, 3, 8, 11) if protocol == ICMP else (1, 128, 129, 135))
        head, at = struct.pack("!BBHHH", kind, 0, 0, rng.randrange(1 << 16), 1), 2
    size = len(head) + len(data)
    pseudo = b"" if protocol == ICMP else addresses + struct.pack("!II", size, protocol)
    return head[:at] + struct.pack("!H", checksum(pseudo + head + data)) + head[at + 2 :] + data
