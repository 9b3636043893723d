"""Captures of every form, made by hand, with what is to be read of them."""

from __future__ import annotations

import random
import struct
from dataclasses import dataclass, field

BILLION = 10**9


@dataclass
class Capture:
    """The bytes of a capture; its packets (time, bytes, size on the wire, link type), where records end."""

    data: bytes
    packets: list[tuple[int, bytes, int, int]] = field(default_factory=list)
    ends: list[int] = field(default_factory=list)


def pcap(
    packets: list[bytes], *, link: int = 1, order: str = "<", nano: bool = True, start: int = 0
) -> Capture:
    """Return a pcap file, a packet each second."""
    units = BILLION if nano else 10**6
    made = Capture(
        struct.pack(f"{order}IHHiIII", 0xA1B23C4D if nano else 0xA1B2C3D4, 2, 4, 0, 0, 65535, link)
    )
    for number, data in enumerate(packets):
        seconds, fraction = start + number, (number * 37) % units
        made.data += struct.pack(f"{order}IIII", seconds, fraction, len(data), len(data) + number) + data
        time = seconds * BILLION + fraction * (BILLION // units)
        made.packets.append((time, data, len(data) + number, link))
        made.ends.append(len(made.data))
    return made


def block(order: str, kind: int, body: bytes) -> bytes:
    """Return a block of pcapng."""
    body += bytes(-len(body) % 4)
    size = len(body) + 12
    return struct.pack(f"{order}II", kind, size) + body + struct.pack(f"{order}I", size)


def section(order: str) -> bytes:
    """Return the block that begins a section."""
    return block(order, 0x0A0D0D0A, struct.pack(f"{order}IHHq", 0x1A2B3C4D, 1, 0, -1))


def interface(
    order: str, link: int, *, resolution: int | None = None, offset: int = 0, snap: int = 0
) -> bytes:
    """Return the block of an interface; `resolution` is if_tsresol's byte."""
    options = b""
    if resolution is not None:
        options += struct.pack(f"{order}HHB3x", 9, 1, resolution)
    if offset:
        options += struct.pack(f"{order}HHq", 14, 8, offset)
    options += struct.pack(f"{order}HH", 0, 0) if options else b""
    return block(order, 1, struct.pack(f"{order}HHI", link, 0, snap) + options)


def pcapng(chosen: random.Random) -> Capture:
    """Return sections of either byte order, with interfaces, packets of all three forms, and other blocks."""
    made = Capture(b"")
    for _ in range(chosen.randrange(1, 3)):
        order = chosen.choice("<>")
        made.data += section(order)
        known = []
        for _ in range(chosen.randrange(1, 4)):
            link, resolution, snap = chosen.choice([1, 1, 101]), chosen.choice([None, 6, 9, 0x80 | 10]), 70
            offset = chosen.choice([0, 1000])
            made.data += interface(order, link, resolution=resolution, offset=offset, snap=snap)
            units = {None: 10**6, 6: 10**6, 9: BILLION, 0x80 | 10: 1 << 10}[resolution]
            known.append((link, units, snap, offset))
        for _ in range(chosen.randrange(12)):
            number, data = chosen.randrange(len(known)), chosen.randbytes(chosen.randrange(90))
            link, units, snap, offset = known[number]
            ticks, size = chosen.randrange(1 << 40), len(data)
            time = ticks // units * BILLION + ticks % units * BILLION // units + offset * BILLION
            kind = chosen.choice([6, 6, 6, 2, 3, 5, 99])
            if kind == 6:
                head = struct.pack(f"{order}5I", number, ticks >> 32, ticks & 0xFFFFFFFF, size, size + 3)
                made.packets.append((time, data, size + 3, link))
            elif kind == 2:
                head = struct.pack(f"{order}HH4I", number, 0, ticks >> 32, ticks & 0xFFFFFFFF, size, size + 3)
                made.packets.append((time, data, size + 3, link))
            elif kind == 3:
                head = struct.pack(f"{order}I", size)
                made.packets.append((0, data[: known[0][2]], size, known[0][0]))
            else:
                head = b""
            made.data += block(order, kind, head + data)
            if kind in (2, 3, 6):
                made.ends.append(len(made.data))
    return made
