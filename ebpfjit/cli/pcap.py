"""Captures: reading packets from pcap and pcapng files, and writing pcap.

    pcap     header (24 bytes: byte order, resolution, link type), then [seconds, fraction, sizes][packet] ...
    pcapng   blocks [type, size, ..., size]: sections, interfaces, packets

Formats: draft-ietf-opsawg-pcap, draft-ietf-opsawg-pcapng.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import BinaryIO

from ebpfjit.cli.files import FileError

ETHERNET = 1
RAW_IP = (12, 14, 101, 228, 229)
"""Link types of packets that start with their IP header."""

MAGIC = {
    b"\xd4\xc3\xb2\xa1": ("<", 1_000_000),
    b"\xa1\xb2\xc3\xd4": (">", 1_000_000),
    b"\x4d\x3c\xb2\xa1": ("<", 1_000_000_000),
    b"\xa1\xb2\x3c\x4d": (">", 1_000_000_000),
}
"""First bytes of a pcap file: byte order, and units of time in a second."""

NANOSECONDS = 1_000_000_000
LARGEST_PACKET = 1 << 24
MAX_INTERFACES = 1 << 16

_SECTION, _INTERFACE, _OLD_PACKET, _SIMPLE, _PACKET = 0x0A0D0D0A, 1, 2, 3, 6
_BYTE_ORDER = 0x1A2B3C4D


@dataclass(frozen=True, slots=True)
class Packet:
    """A captured packet as an Ethernet frame: when (nanoseconds), its bytes, its size on the wire.

    `position` is where its record ends in the file, in bytes.
    """

    time: int
    data: bytes
    wire_size: int
    position: int


def read(file: BinaryIO, name: str) -> Iterator[Packet]:
    """Yield the packets of a capture. Raises FileError naming the file and the packet that is damaged."""
    source = _Source(file, name)
    magic = source.take(4)
    if magic in MAGIC:
        yield from _pcap(source, *MAGIC[magic])
    elif magic == _SECTION.to_bytes(4, "little"):
        yield from _pcapng(source)
    else:
        raise FileError(f"{name}: not a capture: neither pcap nor pcapng (starts with {magic.hex(' ')})")


class _Source:
    """The bytes of a file, in order, counted."""

    def __init__(self, file: BinaryIO, name: str) -> None:
        self.file = file
        self.name = name
        self.position = 0
        self.packets = 0

    def take(self, size: int, *, or_end: bool = False) -> bytes:
        """Return the next `size` bytes; where the file ends before them b"" if `or_end`, else FileError."""
        data = self.file.read(size)
        self.position += len(data)
        if len(data) == size or (or_end and not data):
            return data
        raise self.damaged(f"the file ends {size - len(data)} bytes early")

    def damaged(self, reason: str) -> FileError:
        """Return the error for what comes after the packets so far."""
        return FileError(f"{self.name}: packet {self.packets + 1}, byte {self.position}: {reason}")

    def packet(self, time: int, data: bytes, wire_size: int, frame: Callable[[bytes], bytes]) -> Packet:
        """Return a packet that was read."""
        self.packets += 1
        framed = frame(data)
        return Packet(time, framed, wire_size + len(framed) - len(data), self.position)


def _framing(source: _Source, link_type: int) -> Callable[[bytes], bytes]:
    """Return what makes an Ethernet frame of a packet of a link type."""
    if link_type == ETHERNET:
        return bytes
    if link_type in RAW_IP:
        return _with_ethernet_header
    raise FileError(
        f"{source.name}: link type {link_type}; programs run on Ethernet ({ETHERNET}) and raw IP "
        f"({', '.join(map(str, RAW_IP))}) captures"
    )


def _with_ethernet_header(data: bytes) -> bytes:
    ethertype = b"\x86\xdd" if data[:1] and data[0] >> 4 == 6 else b"\x08\x00"
    return bytes(12) + ethertype + data


def _checked_size(source: _Source, size: int) -> int:
    if size > LARGEST_PACKET:
        raise source.damaged(f"a packet of {size} bytes")
    return size


def _pcap(source: _Source, order: str, units: int) -> Iterator[Packet]:
    *_, link_type = struct.unpack(order + "HHiIII", source.take(20))
    frame = _framing(source, link_type & 0xFFFF)
    record = struct.Struct(order + "IIII")
    while head := source.take(16, or_end=True):
        seconds, fraction, size, wire_size = record.unpack(head)
        data = source.take(_checked_size(source, size))
        time = seconds * NANOSECONDS + fraction * (NANOSECONDS // units)
        yield source.packet(time, data, max(wire_size, size), frame)


@dataclass(slots=True)
class _Interface:
    """An interface of a pcapng section: its frames, units of time in a second, bytes it keeps of each."""

    frame: Callable[[bytes], bytes]
    units: int
    snap_size: int


def _pcapng(source: _Source) -> Iterator[Packet]:
    order = "<"
    interfaces: list[_Interface] = []
    head = _SECTION.to_bytes(4, "little")
    while head:
        if int.from_bytes(head, "little") == _SECTION:
            order, body = _section(source)
            interfaces = []
        else:
            kind = struct.unpack(order + "I", head)[0]
            body = _block(source, order)
            if kind == _INTERFACE:
                if len(interfaces) == MAX_INTERFACES:
                    raise source.damaged(f"more than {MAX_INTERFACES} interfaces")
                interfaces.append(_interface(source, order, body))
            elif kind in (_PACKET, _OLD_PACKET, _SIMPLE):
                yield _block_packet(source, order, kind, body, interfaces)
        head = source.take(4, or_end=True)


def _section(source: _Source) -> tuple[str, bytes]:
    size_bytes, magic = source.take(4), source.take(4)
    order = next((o for o in "<>" if struct.unpack(o + "I", magic)[0] == _BYTE_ORDER), None)
    if order is None:
        raise source.damaged(f"a section without a byte order ({magic.hex(' ')})")
    size = struct.unpack(order + "I", size_bytes)[0]
    if size < 28 or size % 4 or size > LARGEST_PACKET:
        raise source.damaged(f"a section header of {size} bytes")
    return order, source.take(size - 12)


def _block(source: _Source, order: str) -> bytes:
    """Return a block's body: what stands between its two sizes."""
    size = struct.unpack(order + "I", source.take(4))[0]
    if size < 12 or size % 4 or size > LARGEST_PACKET + 64:
        raise source.damaged(f"a block of {size} bytes")
    return source.take(size - 8)[:-4]


def _interface(source: _Source, order: str, body: bytes) -> _Interface:
    if len(body) < 8:
        raise source.damaged("an interface without a link type")
    link_type, _, snap_size = struct.unpack_from(order + "HHI", body)
    units = 1_000_000
    at = 8
    while at + 4 <= len(body):
        code, size = struct.unpack_from(order + "HH", body, at)
        if code == 0:
            break
        if code == 9 and size == 1:  # if_tsresol: a power of 10, or of 2 with the high bit
            exponent = body[at + 4]
            units = 1 << (exponent & 0x7F) if exponent & 0x80 else 10**exponent
        at += 4 + (size + 3) // 4 * 4
    return _Interface(_framing(source, link_type), units, snap_size)


def _block_packet(
    source: _Source, order: str, kind: int, body: bytes, interfaces: list[_Interface]
) -> Packet:
    fixed = {_PACKET: "IIIII", _OLD_PACKET: "HHIIII", _SIMPLE: "I"}[kind]
    start = struct.calcsize(order + fixed)
    if len(body) < start:
        raise source.damaged("a packet block without its header")
    numbers = struct.unpack_from(order + fixed, body)
    index = 0 if kind == _SIMPLE else numbers[0]
    if index >= len(interfaces):
        raise source.damaged(f"interface {index}, and the section has {len(interfaces)}")
    interface = interfaces[index]
    if kind == _SIMPLE:
        size = wire_size = numbers[0]
        size = min(size, interface.snap_size or size, len(body) - start)
        time = 0
    else:
        high, low, size, wire_size = numbers[-4:]
        time = (high << 32 | low) * NANOSECONDS // interface.units
    if start + size > len(body):
        raise source.damaged(f"{size} bytes in a block of {len(body)}")
    return source.packet(time, body[start : start + size], max(wire_size, size), interface.frame)


class Writer:
    """Writes Ethernet frames into a pcap file with nanoseconds."""

    _RECORD = struct.Struct("<IIII")

    def __init__(self, file: BinaryIO) -> None:
        self.file = file
        self.written = 0
        file.write(b"\x4d\x3c\xb2\xa1" + struct.pack("<HHiIII", 2, 4, 0, 0, LARGEST_PACKET, ETHERNET))

    def write(self, time: int, data: bytes, wire_size: int) -> None:
        """Write one packet; `time` in nanoseconds."""
        seconds, fraction = divmod(time, NANOSECONDS)
        head = self._RECORD.pack(seconds & 0xFFFFFFFF, fraction, len(data), max(wire_size, len(data)))
        self.file.write(head + data)
        self.written += 1
