"""user_ringbuf: samples from Python to programs, which a program drains one by one.

    consumer position    pending                    producer position
    |  [8|sample] [8|sample, still written] [8|sample, dropped]  |   ...  consumer + size

Positions, lengths and states are kept in Python; as in the kernel's layout a sample takes 8 bytes more than
it has, rounded up to 8. The memory is twice the ring, so that a sample that starts before its end goes on
behind it. A program touches a sample's bytes while it is called with them, and no others.
"""

from __future__ import annotations

import errno
import os
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from ebpfjit.runtime.environment import Environment
from ebpfjit.runtime.maps.definition import MapDefinition
from ebpfjit.runtime.maps.events import MAX_RECORDS, RECORD_HEADER, RecordState, Unkeyed
from ebpfjit.runtime.maps.storage import Storage, changing
from ebpfjit.runtime.memory import Region, flat_view

LENGTH_BITS = 30
"""Of a sample's header; the two bits above say that it is still written, or dropped."""


class Sample:
    """Room that Python has reserved in a user ring buffer: write to `data`, then `submit` or `discard`.

    Samples behind it wait for it.
    """

    __slots__ = ("_ring", "data", "length", "offset", "state")

    def __init__(self, ring: UserRingBuffer, offset: int, data: memoryview, length: int) -> None:
        self._ring = ring
        self.offset = offset
        self.data = data
        self.length = length  # with header, rounded up to 8: what it takes of the ring
        self.state = RecordState.RESERVED

    def submit(self) -> None:
        """Let programs have it. Raises ValueError where it was submitted, or discarded, before."""
        self._end(RecordState.SUBMITTED)

    def discard(self) -> None:
        """Let programs pass over it. Raises ValueError where it was submitted, or discarded, before."""
        self._end(RecordState.DISCARDED)

    def _end(self, state: RecordState) -> None:
        if self.state is not RecordState.RESERVED:
            raise ValueError(f"{self._ring.definition}: this sample was {self.state.value} before")
        self.state = state


class UserRingBuffer(Unkeyed):
    """user_ringbuf: Python submits samples, programs drain them (bpf_user_ringbuf_drain)."""

    carried = ("_producer", "_consumer", "ended_samples")
    regions = ()
    reasons = {  # noqa: RUF012 - a table, never changed
        errno.E2BIG: "a sample and its 8 bytes of header have at most the ring's {entries} bytes",
        errno.ENOSPC: "there is no room in the ring's {entries} bytes before programs have drained some",
    }

    def __init__(self, definition: MapDefinition, environment: Environment) -> None:
        self.definition = definition
        self.size = definition.max_entries
        self._storage = Storage(definition, 2 * self.size)
        self.address = self._storage.address
        self._producer = self._consumer = 0
        self._samples: deque[Sample] = deque()
        self._drainer = 0

    @property
    def stays_because(self) -> str:
        """Why there can be no copy now, "" where there can."""
        if any(sample.state is RecordState.RESERVED for sample in self._samples):
            return "a sample of it is reserved, and neither submitted nor discarded"
        return super().stays_because

    @property
    def ended_samples(self) -> list[tuple[int, int, int, RecordState]]:
        """Of each sample where its data is, of how many bytes, what it takes of the ring, its state."""
        return [(each.offset, len(each.data), each.length, each.state) for each in self._samples]

    @ended_samples.setter
    def ended_samples(self, samples: list[tuple[int, int, int, RecordState]]) -> None:
        for offset, size, length, state in samples:
            sample = Sample(self, offset, self._storage.view[offset : offset + size], length)
            sample.state = state
            self._samples.append(sample)

    # -- what Python does -------------------------------------------------------------------------

    def reserve(self, size: int) -> Sample:
        """Return room for a sample of `size` bytes, which are zero, to be filled in and submitted.

        Raises MapError as libbpf does: E2BIG for one that never fits, ENOSPC where there is no room now.
        """
        if size < 0:
            raise ValueError(f"{self.definition}: a sample of {size} bytes")
        length = -(-(size + RECORD_HEADER) // 8) * 8
        if size >> LENGTH_BITS or length > self.size:
            self.refuse(-errno.E2BIG, f"a sample of {size} bytes")
        with changing.held:
            taken = self._producer - self._consumer
            is_full = taken + length > self.size or len(self._samples) >= MAX_RECORDS
            if not is_full:
                offset = self._producer % self.size + RECORD_HEADER
                data = self._storage.view[offset : offset + size]
                data[:] = bytes(size)
                sample = Sample(self, offset, data, length)
                self._producer += length
                self._samples.append(sample)
        if is_full:
            self.refuse(-errno.ENOSPC, f"a sample of {size} bytes")
        return sample

    def submit(self, data: Any) -> None:
        """Put a sample in: a bytes-like object. Raises MapError as `reserve`."""
        view = flat_view(data)
        sample = self.reserve(view.nbytes)
        sample.data[:] = view
        sample.submit()

    def pending(self) -> list[bytes]:
        """Return the samples that a program would get now, and leave them in."""
        found = []
        with changing.held:
            for sample in self._samples:
                if sample.state is RecordState.RESERVED:
                    break
                if sample.state is RecordState.SUBMITTED:
                    found.append(bytes(sample.data))
        return found

    def __len__(self) -> int:
        return len(self.pending())

    def __repr__(self) -> str:
        return f"<{self.definition}: {self.size} bytes, {len(self._samples)} samples>"

    # -- what programs do -------------------------------------------------------------------------

    @contextmanager
    def draining(self) -> Iterator[bool]:
        """Be the only one who drains meanwhile; yields False where somebody does already."""
        process = os.getpid()  # a child does not wait for what its parent does
        with changing.held:
            is_ours = self._drainer != process
            self._drainer = process
        try:
            yield is_ours
        finally:
            if is_ours:
                self._drainer = 0

    def peek(self) -> Sample | None:
        """Return the next sample, None where there is none, or where it is still written."""
        with changing.held:
            first = self._samples[0] if self._samples else None
        return first if first is not None and first.state is not RecordState.RESERVED else None

    def release(self, sample: Sample) -> None:
        """Take out the next sample: its room is free."""
        with changing.held:
            if self._samples and self._samples[0] is sample:
                self._samples.popleft()
                self._consumer += sample.length

    def region_of(self, sample: Sample) -> Region:
        """Return a sample's bytes as memory that a program may touch."""
        size = sample.data.nbytes
        return self._storage.region(f"a sample of {self.definition}", sample.offset, size, writable=True)

    @property
    def samples(self) -> tuple[Sample, ...]:
        """All that is in the ring, in order; what becomes of it is up to `release`."""
        return tuple(self._samples)
