"""Records of a window, as columns: what the routines that walk a capture are given, and what they say."""

from __future__ import annotations

import struct
from enum import IntEnum

from ebpfjit.capture import routine
from ebpfjit.record import dataclass

WORK = struct.Struct("<5Q4I2Q")
"""struct work of routines.c: address, size, position, capacity, count; status, swapped, link, interfaces;
the largest packet, where to stop."""

INTERFACE = struct.Struct("<2I3Q")
"""struct interface: link type, bytes kept of a packet, divisor and units of its times, where these start."""

LARGEST_PACKET = 1 << 24
LEAST_RECORD = 16
"""Bytes of the shortest record with a packet: a header of pcap."""

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


@dataclass(frozen=True, slots=True)
class Walked:
    """What a walk found: columns of `count` packets, the position of the next record, why it ended."""

    columns: tuple[memoryview, memoryview, memoryview, memoryview]
    count: int
    position: int
    status: Status


def walk(
    name: str, window: memoryview, position: int, interfaces: bytes | bytearray, link: int, *,
    swapped: bool, capacity: int, work: bytearray, stop: int = NEVER,
) -> Walked:  # fmt: skip
    """Walk the records of a window from a position in it, at most so many packets of one link type.

    `interfaces` are `packed`. A record at `stop` or behind it is left. `work` is memory for the walk, which
    may be that of the one before.
    """
    capacity = min(capacity, (len(window) - position) // LEAST_RECORD + 1)
    start, stop_at = WORK.size + 4 * 8 * capacity, WORK.size + 4 * 8 * capacity + len(interfaces)
    if len(work) < stop_at:
        work.extend(bytes(stop_at - len(work)))
    work[start:stop_at] = interfaces
    WORK.pack_into(
        work, 0, 0, 0, position, capacity, 0, 0, swapped, link, len(interfaces) // INTERFACE.size,
        LARGEST_PACKET, stop,
    )  # fmt: skip
    routine.run(name, window, work)
    _, _, position, _, count, status, *_ = WORK.unpack_from(work)
    with memoryview(work) as whole, whole[WORK.size : start].cast("Q") as words:
        columns = [
            memoryview(bytearray(words[n * capacity : n * capacity + count])).cast("Q") for n in range(4)
        ]
    offsets, lengths, times, wires = columns
    return Walked((offsets, lengths, times, wires), count, position, Status(status))
