"""A dozen packets of all sorts, as Ethernet frames."""

from __future__ import annotations

from functools import cache


@cache
def packets() -> dict[str, bytes]:
    """Return the packets by name; the kernel's test run takes every one."""
    from scapy.layers.inet import ICMP, IP, TCP, UDP
    from scapy.layers.inet6 import IPv6
    from scapy.layers.l2 import ARP, GRE, Dot1Q, Ether
    from scapy.packet import Raw

    link = Ether(src="02:00:00:00:00:01", dst="02:00:00:00:00:02")
    ip = IP(src="10.0.0.1", dst="10.0.0.2", ttl=63, id=7)
    ip6 = IPv6(src="2001:db8::1", dst="2001:db8::2", hlim=63)
    text = Raw(b"the quick brown fox jumps over the lazy dog")
    made = {
        "tcp": link / ip / TCP(sport=1234, dport=80, flags="S", seq=1),
        "tcp_data": link / ip / TCP(sport=1234, dport=443, flags="PA", seq=2) / text,
        "udp": link / ip / UDP(sport=5353, dport=53) / text,
        "udp_without_checksum": link / ip / UDP(sport=1, dport=2, chksum=0) / text,
        "icmp": link / ip / ICMP() / text,
        "tcp6": link / ip6 / TCP(sport=1234, dport=80, flags="S"),
        "udp6": link / ip6 / UDP(sport=5353, dport=53) / text,
        "vlan": link / Dot1Q(vlan=5, prio=3) / ip / UDP(sport=1, dport=2) / text,
        "two_vlans": link / Dot1Q(vlan=5, type=0x8100) / Dot1Q(vlan=6) / ip / UDP() / text,
        "ipip": link / ip / IP(src="192.168.0.1", dst="192.168.0.2") / UDP(dport=53) / text,
        "gre": link / ip / GRE() / IP(src="192.168.0.1", dst="192.168.0.2") / ICMP(),
        "arp": Ether(src="02:00:00:00:00:01", dst="ff:ff:ff:ff:ff:ff") / ARP(pdst="10.0.0.9"),
        "llc": Ether(src="02:00:00:00:00:01", dst="01:80:c2:00:00:00", type=38) / Raw(bytes(range(38))),
        "large": link / ip / UDP(sport=1, dport=2) / Raw(bytes(range(256)) * 5),
        "smallest": Ether(src="02:00:00:00:00:01", dst="00:00:00:00:00:00", type=0x9000),
    }
    return {name: bytes(packet) for name, packet in made.items()}
