"""Packets of IP: whether bytes are a frame, or begin with the IP header."""

from __future__ import annotations

from ebpfjit.record import dataclass
from ebpfjit.runtime.contexts.packet import LINK_HEADER_SIZE
from ebpfjit.runtime.contexts.skb import ETH_P_IP, ETH_P_IPV6

NFPROTO_IPV4, NFPROTO_IPV6 = 2, 10


@dataclass(frozen=True, slots=True)
class Family:
    """A version of IP: how frames name it, and the bytes of its header without options."""

    ethertype: int
    version: int
    header: int


FAMILIES = {NFPROTO_IPV4: Family(ETH_P_IP, 4, 20), NFPROTO_IPV6: Family(ETH_P_IPV6, 6, 40)}


def _is_whole(data: bytes, family: Family) -> bool:
    """True where the bytes are an IP packet as long as its header says, or one of IPv4 without options."""
    if data[0] == 0x45:  # where it is an address, it is that of a group, which is hardly ever one
        return family.version == 4
    if len(data) < family.header or data[0] >> 4 != family.version:
        return False
    says = data[2:4] if family.version == 4 else data[4:6]
    return int.from_bytes(says, "big") + (0 if family.version == 4 else family.header) == len(data)


def family_of_frame(data: bytes) -> int:
    """Return NFPROTO_* of a frame of IP, 0 for what begins with the IP header, or is neither."""
    for number, family in FAMILIES.items():
        is_said = int.from_bytes(data[12:14], "big") == family.ethertype
        if is_said and len(data) > LINK_HEADER_SIZE and data[LINK_HEADER_SIZE] >> 4 == family.version:
            return 0 if any(_is_whole(data, each) for each in FAMILIES.values()) else number
    return 0
