"""Many changed packets at once: by numpy where it is there, else one by one.

A batch is one buffer of rows of one size, with how many bytes of each row are the packet.
"""

from __future__ import annotations

import random
from array import array
from collections.abc import Sequence
from typing import Any

from ebpfjit.fuzzing.contexts import Fields
from ebpfjit.fuzzing.samples import Inputs, Sample

ROWS = 1024
ODD = (
    0, 1, 2, 4, 5, 6, 8, 0x10, 0x11, 0x3A, 0x40, 0x45, 0x46, 0x4F, 0x7F, 0x80, 0x81, 0x86, 0xDD, 0xFE, 0xFF,
)  # fmt: skip


class Batch:
    """Packets in one buffer: `data` (a buffer), `offsets` and `lengths` (array("Q"), or numpy's).

    `fields` are those of their contexts, for each packet; empty: no packet has any.
    """

    def __init__(self, data: Any, offsets: Any, lengths: Any, fields: Sequence[Fields] = ()) -> None:
        self.data, self.offsets, self.lengths, self.fields = data, offsets, lengths, fields

    @classmethod
    def of(cls, samples: Sequence[Sample]) -> Batch:
        """Return samples as a batch."""
        fields = [each.fields for each in samples]
        return cls.of_packets([each.data for each in samples], fields if any(fields) else ())

    @classmethod
    def of_packets(cls, packets: Sequence[bytes], fields: Sequence[Fields] = ()) -> Batch:
        """Return packets as a batch."""
        lengths = array("Q", map(len, packets))
        offsets, at = array("Q"), 0
        for length in lengths:
            offsets.append(at)
            at += length
        return cls(b"".join(packets), offsets, lengths, fields)

    def __len__(self) -> int:
        return len(self.lengths)

    def first(self, count: int | None) -> Batch:
        """Return the first packets, so many at most."""
        if count is None or count >= len(self):
            return self
        return Batch(self.data, self.offsets[:count], self.lengths[:count], self.fields[:count])

    def packet(self, index: int) -> bytes:
        """Return a packet."""
        start, size = int(self.offsets[index]), int(self.lengths[index])
        return bytes(memoryview(self.data).cast("B")[start : start + size])

    def sample(self, index: int) -> Sample:
        """Return a packet with what it has beside it."""
        return Sample(self.packet(index), self.fields[index] if self.fields else ())


class Mutator:
    """Changes packets: bytes at random, odd ones, numbers that the program compares with, other lengths."""

    def __init__(self, seed: int, constants: Sequence[bytes], inputs: Inputs) -> None:
        self.rng = random.Random(seed)
        self.constants = list(constants)
        self.inputs = inputs
        self.least = inputs.least
        try:
            import numpy
        except ImportError:
            self._numpy: Any = None
        else:
            self._numpy = numpy
            self._random = numpy.random.Generator(numpy.random.SFC64(seed))
            self._odd = numpy.array(ODD, numpy.uint8)
            self._sizes = numpy.array([len(each) for each in constants], numpy.intp)
            self._longest = max(map(len, constants), default=0)
            padded = b"".join(each.ljust(self._longest, b"\0") for each in constants)
            self._raw = numpy.frombuffer(padded, numpy.uint8).reshape(len(constants), self._longest)

    def batch(self, parents: Sequence[bytes], rows: int = ROWS) -> Batch:
        """Return so many changed packets, each of one of the parents."""
        if self._numpy is None:
            fitting = self.inputs.fitting
            return Batch.of_packets([fitting(self._changed(self.rng.choice(parents))) for _ in range(rows)])
        return self._fast(parents, rows)

    def _fast(self, parents: Sequence[bytes], rows: int) -> Batch:
        np, draw, inputs = self._numpy, self._random, self.inputs
        chosen = [parents[self.rng.randrange(len(parents))][: inputs.most] for _ in range(8)]
        grows = 32 if self.rng.random() < 0.25 and not inputs.is_sized else 0
        width = max(max(map(len, chosen)) + grows, self.least, 1)
        per = -(-rows // len(chosen))
        data = np.zeros((len(chosen) * per, width), np.uint8)
        lengths = np.empty(len(data), np.uint64)
        for index, parent in enumerate(chosen):
            part = slice(index, None, len(chosen))
            data[part, : len(parent)] = np.frombuffer(parent, np.uint8)
            lengths[part] = max(len(parent), self.least)
        every = np.arange(len(data))
        for _ in range(self.rng.choice((1, 1, 2, 3, 4))):
            at = (draw.random(len(data)) * lengths).astype(np.intp)
            kind = self.rng.randrange(3)
            if kind == 0:
                data[every, at] = draw.integers(0, 256, len(data), np.uint8)
            elif kind == 1:
                data[every, at] = self._odd[draw.integers(0, len(ODD), len(data))]
            else:
                data[every, at] ^= np.uint8(1) << draw.integers(0, 8, len(data), np.uint8)
        if self.constants and self.rng.random() < 0.7:
            self._put(data, lengths, every[self.rng.randrange(4) :: 4])
        for start, stop in inputs.zeros:
            data[:, start:stop] = 0
        if self.rng.random() < 0.3 and width > self.least:
            some = draw.random(len(data)) < 0.25
            lengths[some] = draw.integers(self.least, width + 1, int(some.sum()), np.uint64)
        offsets = np.arange(len(data), dtype=np.uint64) * np.uint64(width)
        return Batch(data.reshape(-1), offsets, lengths)

    def _put(self, data: Any, lengths: Any, rows: Any) -> None:
        """Write into each of these rows, where there is room, a number that the program compares with."""
        np, draw = self._numpy, self._random
        which = draw.integers(0, len(self.constants), len(rows))
        room = lengths[rows].astype(np.intp) - self._sizes[which]
        fits = room >= 0
        rows, which, room = rows[fits], which[fits], room[fits]
        at = (draw.random(len(rows)) * (room + 1)).astype(np.intp)
        for byte in range(self._longest):
            has = self._sizes[which] > byte
            data[rows[has], at[has] + byte] = self._raw[which[has], byte]

    def _changed(self, parent: bytes) -> bytes:
        rng, data = self.rng, bytearray(parent[: self.inputs.most])
        for _ in range(rng.choice((1, 1, 2, 3))):
            kind = rng.randrange(5)
            at = rng.randrange(len(data)) if data else 0
            if kind == 0 and data:
                data[at] = rng.randrange(256)
            elif kind == 1 and data:
                data[at] = rng.choice(ODD)
            elif kind == 2 and data:
                data[at] ^= 1 << rng.randrange(8)
            elif kind == 3 and self.constants:
                raw = rng.choice(self.constants)
                data[at : at + len(raw)] = raw
            elif rng.random() < 0.5:
                del data[at:]
            else:
                data += rng.randbytes(rng.choice((1, 4, 16)))
        return bytes(data).ljust(self.least, b"\0")
