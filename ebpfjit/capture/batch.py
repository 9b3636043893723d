"""A batch of packets: one buffer, and columns that say where in it each packet is."""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Sequence
from dataclasses import field, replace
from itertools import accumulate

from ebpfjit.capture.links import ETHERNET, check_link, link_name
from ebpfjit.record import dataclass

WIRE_LENGTH_SIZE = 8
"""Bytes in front of a packet that say how long it was on the wire."""


@dataclass(frozen=True, slots=True, eq=False)
class Batch:
    """Packets of a capture, in the order in which they are there, all of one link type.

    `buffer` holds them (part of the file, as it is); `offsets` and `lengths` are bytes, `timestamps`
    nanoseconds since 1970, `wire_lengths` how many bytes packets had before the capture cut them off: each a
    memoryview of u64, which numpy and Arrow take without a copy. `link_type` is the number that captures have
    for what packets begin with (1: Ethernet). `first` is the number of the first packet, counted from 0,
    `position` the byte of the file behind the last, `name` what messages call the capture.

    A batch is a sequence of memoryviews, and `fn.map(batch)` takes it as it is.
    """

    buffer: memoryview = field(repr=False)
    offsets: memoryview = field(repr=False)
    lengths: memoryview = field(repr=False)
    timestamps: memoryview = field(repr=False)
    wire_lengths: memoryview = field(repr=False)
    link_type: int = ETHERNET
    first: int = 0
    position: int = 0
    name: str = ""

    def __len__(self) -> int:
        return len(self.offsets)

    def __getitem__(self, index: int) -> memoryview:
        start = self.offsets[index]
        return self.buffer[start : start + self.lengths[index]]

    def __iter__(self) -> Iterator[memoryview]:
        for start, length in zip(self.offsets, self.lengths, strict=True):
            yield self.buffer[start : start + length]

    def __repr__(self) -> str:
        last = self.first + len(self) - 1
        return f"<batch of {len(self)} packets, {self.first} to {last}, {link_name(self.link_type)}>"

    @property
    def columns(self) -> tuple[memoryview, memoryview, memoryview, memoryview]:
        """Offsets, lengths, timestamps, lengths on the wire."""
        return self.offsets, self.lengths, self.timestamps, self.wire_lengths

    def with_columns(self, columns: Sequence[memoryview]) -> Batch:
        """Return a batch with other columns, in the order of `columns`."""
        offsets, lengths, times, wires = columns
        return replace(self, offsets=offsets, lengths=lengths, timestamps=times, wire_lengths=wires)

    def slice(self, start: int, stop: int) -> Batch:
        """Return the packets from `start` up to `stop`, as counted in the batch, as Python's slices count."""
        there = range(len(self))[start:stop]
        some = self.with_columns([each[start:stop] for each in self.columns])
        return replace(some, first=self.first + there.start)

    def with_wire_lengths(self) -> Batch:
        """Return a copy whose packets each follow 8 bytes: their length on the wire (u64, little-endian).

        That is what filters take which were compiled with `lengths="wire"`. `lengths` are of both together.
        """
        heads = (wire.to_bytes(WIRE_LENGTH_SIZE, "little") for wire in self.wire_lengths)
        buffer = b"".join(part for both in zip(heads, self, strict=True) for part in both)
        lengths = array("Q", [length + WIRE_LENGTH_SIZE for length in self.lengths])
        offsets = array("Q", accumulate(lengths, initial=0))[:-1]
        columns = memoryview(offsets), memoryview(lengths), self.timestamps, self.wire_lengths
        return replace(self.with_columns(columns), buffer=memoryview(buffer))

    def frames(self) -> Batch:
        """Return the packets as Ethernet frames: itself, or a copy where they begin with something else.

        Raw IP, Linux cooked (both versions) and BSD loopback packets get a header with zeros for addresses.
        Raises CaptureError for other link types.
        """
        if self.link_type == ETHERNET:
            return self
        check_link(self.link_type, f"{self.name}: packet {self.first + 1}: " if self.name else "")
        from ebpfjit.capture.moves import frames

        return frames(self)
