"""Headers of captures: of a pcap file, of sections and interfaces of pcapng.

    pcap     header (24 bytes: byte order, resolution, link type), then [seconds, fraction, sizes][packet] ...
    pcapng   blocks [type, size, ..., size]: sections, interfaces, packets

Formats: draft-ietf-opsawg-pcap, draft-ietf-opsawg-pcapng.
"""

from __future__ import annotations

import struct

from ebpfjit.capture.walk import FINEST, LARGEST_PACKET, WRONG, Interface, Status

NANOSECONDS = 1_000_000_000
PCAP_HEADER, RECORD_HEADER, BLOCK_LEAST = 24, 16, 12
PCAP = {
    b"\xd4\xc3\xb2\xa1": ("<", 1_000_000),
    b"\xa1\xb2\xc3\xd4": (">", 1_000_000),
    b"\x4d\x3c\xb2\xa1": ("<", NANOSECONDS),
    b"\xa1\xb2\x3c\x4d": (">", NANOSECONDS),
}
"""First bytes of a pcap file: byte order, and units of time in a second."""

MODIFIED = (b"\x34\xcd\xb2\xa1", b"\xa1\xb2\xcd\x34")
"""First bytes of a pcap file whose records have longer headers, of a libpcap of 1999 that was patched."""

PCAP_VERSION, RESERVED = (2, 4), 0x03FF0000
PCAPNG, PCAPNG_VERSIONS = 0x0A0D0D0A, ((1, 0), (1, 2))
INTERFACE, OLD_PACKET, PACKET = 1, 2, 6
_BYTE_ORDER = b"\x4d\x3c\x2b\x1a"
MAX_INTERFACES = 1 << 14
"""Interfaces of a section: each walk is given all of them."""

IF_TSRESOL, IF_TSOFFSET = 9, 14
OPTIONS = {IF_TSRESOL: 1, IF_TSOFFSET: 8}
"""Bytes of the options of interfaces that matter."""


class Damaged(Exception):  # noqa: N818 - the reader says where, and makes a CaptureError of it
    """What is wrong with a header."""


def record_size(form: str, order: str, head: bytes) -> int:
    """Return how many bytes a record of pcap, or a block of pcapng, has, as far as its first bytes say."""
    if form == "pcap":
        known = len(head) >= RECORD_HEADER
        return RECORD_HEADER + (int(struct.unpack_from(f"{order}I", head, 8)[0]) if known else 0)
    return max(struct.unpack_from(f"{order}I", head, 4)[0] if len(head) >= 8 else 0, BLOCK_LEAST)


def pcap_interface(header: bytes) -> tuple[str, Interface]:
    """Return the byte order of a pcap file, and what its header says of all packets. Raises Damaged."""
    order, units = PCAP[header[:4]]
    version = struct.unpack_from(f"{order}HH", header, 4)
    if version != PCAP_VERSION:
        raise Damaged(f"pcap of version {version[0]}.{version[1]}, which is not 2.4")
    (link_type,) = struct.unpack_from(f"{order}I", header, 20)
    if link_type & RESERVED:
        raise Damaged(f"a link type of {link_type:#x}, with bits that are reserved")
    return order, Interface(link_type & 0xFFFF, units=units)


def check_block(order: str, block: bytes) -> None:
    """Raise Damaged for a section or an interface whose two sizes differ, and for unknown versions."""
    kind, size = struct.unpack_from(f"{order}II", block)
    if struct.unpack_from(f"{order}I", block, len(block) - 4)[0] != size:
        raise Damaged(WRONG[Status.BAD_TRAILER])
    version = struct.unpack_from(f"{order}HH", block, 12)
    if kind == PCAPNG and version not in PCAPNG_VERSIONS:
        raise Damaged(f"a section of version {version[0]}.{version[1]}, which is not 1.0")


def section_order(block: bytes) -> str:
    """Return the byte order of the section that the first 12 bytes of a block begin."""
    order = {_BYTE_ORDER: "<", _BYTE_ORDER[::-1]: ">"}.get(block[8:12])
    if order is None:
        raise Damaged(f"a section without a byte order ({block[8:12].hex(' ')})")
    return order


def block_size(order: str, head: bytes, least: int) -> int:
    """Return the size of a block by its first 8 bytes."""
    size: int = struct.unpack_from(f"{order}I", head, 4)[0]
    if size < least or size % 4 or size > LARGEST_PACKET + 64:
        raise Damaged(f"a block of {size} bytes")
    return size


def interface_of(order: str, head: bytes) -> int:
    """Return the number of the interface of a packet, by the first 12 bytes of its block."""
    kind, _, number = struct.unpack(f"{order}III", head)
    if kind == PACKET:
        return int(number)
    return int(struct.unpack_from(f"{order}H", head, 8)[0]) if kind == OLD_PACKET else 0


def interface(order: str, block: bytes) -> Interface:
    """Return the interface that a whole block describes. Raises Damaged."""
    link_type, _, kept = struct.unpack_from(f"{order}HHI", block, 8)
    units, start, at, end = 1_000_000, 0, 16, len(block) - 4
    while at + 4 <= end:
        code, size = struct.unpack_from(f"{order}HH", block, at)
        if code == 0:
            break
        if at + 4 + -(-size // 4) * 4 > end:
            raise Damaged(f"an option of {size} bytes, which ends behind its block")
        if size != OPTIONS.get(code, size):
            raise Damaged(f"an interface whose option {code} has {size} bytes, and not {OPTIONS[code]}")
        if code == IF_TSRESOL:  # a power of 10, or of 2 with the high bit
            exponent = block[at + 4]
            units = 1 << (exponent & 0x7F) if exponent & 0x80 else 10 ** min(exponent, 19)
        elif code == IF_TSOFFSET:
            start = struct.unpack_from(f"{order}q", block, at + 4)[0] * NANOSECONDS
        at += 4 + (size + 3) // 4 * 4
    divisor = 1
    while units > FINEST:
        step = 2 if units % 10 else 10
        units, divisor = units // step, divisor * step
    return Interface(link_type, kept, units, min(divisor, (1 << 64) - 1), start % (1 << 64))
