"""Records of a window, as columns: what the routines that walk a capture are given, and what they say."""

from __future__ import annotations

import struct
from enum import IntEnum

from ebpfjit.capture import routine
from ebpfjit.capture.spare import Spare
from ebpfjit.record import dataclass, record

WORK = struct.Struct("<5Q4I2Q")
"""struct work of routines.c: address, size, position, capacity, count; status, swapped, link, interfaces;
the largest packet, where to stop."""

INTERFACE = struct.Struct("<2I3Q")
"""struct interface: link type, bytes kept of a packet, divisor and units of its times, where these start."""

LARGEST_PACKET = 1 << 24
LEAST_RECORD = 16
"""Bytes of the shortest record with a packet: a header of pcap."""

MOST_UNUSED = 4
"""Columns have memory for so many times as many packets as there are; else they are copied."""

NEVER = (1 << 64) - 1
FINEST = 1 << 33
"""Units of a second that a routine can count in nanoseconds; finer times lose their last bits."""


class Status(IntEnum):
    """Why a walk ended: enum status of routines.c."""

    END = 0
    FULL = 1
    PARTIAL = 2
    HEADER = 3
    OTHER_LINK = 4
    BAD_SIZE = 5
    BAD_INTERFACE = 6
    BAD_TRAILER = 7
    SHORT_BLOCK = 8
    STOPPED = 9


_STATUS = tuple(Status)
WRONG = {
    Status.BAD_SIZE: f"a record of more than {LARGEST_PACKET} bytes, or of no possible size",
    Status.BAD_INTERFACE: "a packet of an interface that its section does not describe",
    Status.BAD_TRAILER: "a block whose two sizes differ",
    Status.SHORT_BLOCK: "a block that is too short for the packet in it",
}


@dataclass(frozen=True, slots=True)
class Interface:
    """An interface: its link type, bytes it keeps of each packet (0: all), units of time in a second.

    Times are `divisor` times as fine as the units, and start at `start` nanoseconds.
    """

    link_type: int
    kept: int = 0
    units: int = 1_000_000
    divisor: int = 1
    start: int = 0

    @property
    def packed(self) -> bytes:
        """The interface as a routine reads it."""
        return INTERFACE.pack(self.link_type, self.kept, self.divisor, self.units, self.start)


@record
class Walked:
    """What a walk found: columns of `count` packets, the position of the next record, why it ended."""

    columns: tuple[memoryview, ...]
    count: int
    position: int
    status: Status


def walk(
    name: str, window: memoryview, position: int, interfaces: bytes | bytearray, link: int, *,
    swapped: bool, capacity: int, spare: Spare, stop: int = NEVER,
) -> Walked:  # fmt: skip
    """Walk the records of a window from a position in it, at most so many packets of one link type.

    `interfaces` are `packed`. A record at `stop` or behind it is left. The columns are in memory of `spare`.
    """
    capacity = min(capacity, (len(window) - position) // LEAST_RECORD + 1)
    start, stop_at = WORK.size + 4 * 8 * capacity, WORK.size + 4 * 8 * capacity + len(interfaces)
    work = spare.take(stop_at)
    work[start:stop_at] = interfaces
    WORK.pack_into(
        work, 0, 0, 0, position, capacity, 0, 0, swapped, link, len(interfaces) // INTERFACE.size,
        LARGEST_PACKET, stop,
    )  # fmt: skip
    routine.run(name, window, work)
    _, _, position, _, count, status, *_ = WORK.unpack_from(work)
    words = memoryview(work)[WORK.size : start].cast("Q")
    columns = tuple(words[first : first + count] for first in range(0, 4 * capacity, capacity))
    if MOST_UNUSED * count < capacity:
        columns = tuple(memoryview(bytearray(column)).cast("Q") for column in columns)
    return Walked(columns, count, position, _STATUS[status])
