"""Packets moved into another buffer: behind an Ethernet header, or as records of a file."""

from __future__ import annotations

import struct
from dataclasses import replace

from ebpfjit.capture import routine
from ebpfjit.capture.batch import Batch
from ebpfjit.capture.links import ETHERNET
from ebpfjit.capture.spare import Spare

MOVE = struct.Struct("<6Q")
"""struct move of routines.c: address, size, count, position, link, whether some are chosen."""

Bytes = bytes | bytearray

ETHERNET_HEADER, RECORD_HEADER, BLOCK = 14, 16, 35
"""Bytes that a packet takes besides its own, at most."""
SLACK = 8


def frames(batch: Batch) -> Batch:
    """Return a copy of a batch whose packets are Ethernet frames."""
    columns, view = _moved("frames", batch, ETHERNET_HEADER, batch.link_type, spare=Spare(0))
    return replace(batch.with_columns(columns), buffer=view, link_type=ETHERNET)


def records(batch: Batch, keep: Bytes | None = None, *, spare: Spare) -> memoryview:
    """Return a batch as records of a pcap file with nanoseconds, without packets whose `keep` is 0.

    They are in memory of `spare`.
    """
    return _moved("records", batch, RECORD_HEADER, spare=spare, keep=keep)[1]


def blocks(batch: Batch, keep: Bytes | None = None, *, interface: int, spare: Spare) -> memoryview:
    """Return a batch as blocks of a pcapng file, of an interface with nanoseconds; the rest as above."""
    return _moved("blocks", batch, BLOCK, interface, spare=spare, keep=keep)[1]


def _moved(
    name: str, batch: Batch, header: int, link: int = 0, *, spare: Spare, keep: Bytes | None = None
) -> tuple[tuple[memoryview, ...], memoryview]:
    """Return the columns, and the bytes, that a routine made of a batch."""
    count = len(batch)
    behind = MOVE.size + 4 * 8 * count
    start = behind if keep is None else behind + (count + 7) // 8 * 8
    room = sum(batch.lengths) + header * count + SLACK
    work = spare.take(start + room)
    MOVE.pack_into(work, 0, 0, 0, count, 0, link, keep is not None)
    columns = memoryview(work)[MOVE.size : behind].cast("Q")
    views = tuple(columns[n * count : (n + 1) * count] for n in range(4))
    for view, column in zip(views, batch.columns, strict=True):
        view[:] = column
    if keep is not None:
        work[behind : behind + count] = keep
    routine.run(name, batch.buffer, work)
    position = MOVE.unpack_from(work)[3]
    return views, memoryview(work)[start : start + position]
