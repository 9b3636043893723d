"""What is tried next: samples that wait, ones made anew, changed ones of those that went new ways."""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from typing import Any

from ebpfjit.difftest.inputs import compared_with
from ebpfjit.fuzzing.batches import Batch, Mutator
from ebpfjit.fuzzing.contexts import Fields
from ebpfjit.fuzzing.samples import Inputs, Sample
from ebpfjit.fuzzing.side import ROWS, Side
from ebpfjit.program import Program

FRESH, FEW = 128, 16
"""Packets that are made anew at a time, and where each is run slowly."""
RECENT = 8
"""Those kept last, which are changed more often than others."""
IDLE = 8
"""Batches of one kind, one after the other, that brought nothing new: then there are half as many."""


class Turn:
    """When it is a kind of batch's turn: each so many batches, fewer (`most`) once they bring nothing new."""

    def __init__(self, every: int, most: int) -> None:
        self.first = self.every = every
        self.most = most
        self._due = 1
        self._idle = 0

    def has_come(self, number: int) -> bool:
        """Return whether a batch is one of the kind."""
        if number < self._due:
            return False
        self._due = number + self.every
        return True

    def brought(self, *, new: bool) -> None:
        """Note whether one of the kind went a new way."""
        self._idle = 0 if new else self._idle + 1
        if new:
            self.every = self.first
        elif self._idle == IDLE:
            self._idle, self.every = 0, min(2 * self.every, self.most)


class Supply:
    """The samples of a run: `pool` are those that went new ways, `queue` those that are tried next.

    A search that `watches` runs one by one takes its time for each.
    """

    def __init__(self, side: Side, inputs: Inputs, seed: int, *, watches: bool) -> None:
        self.side, self.inputs, self.watches = side, inputs, watches
        self.rng = random.Random(seed)
        self.mutator = Mutator(seed, _constants(side.program), inputs)
        self.pool: list[Sample] = []
        self.queue: list[Sample] = []
        self.is_fast = side.rows() == ROWS
        self._fresh = Turn(4, 4) if watches else Turn(16, 128)  # where runs take long, making one does not
        # beside a struct's bytes is what these cannot say, what its pointers point to
        self._fields = Turn(2, 2) if not self.is_fast else Turn(8, 64) if inputs.has_packet else Turn(2, 16)
        self._turn: Turn | None = None

    def begin(self, given: Iterable[Sample]) -> None:
        """Try these first, and what all programs are tried with."""
        self.queue = [*given, *self.inputs.first(), *self.fresh()]

    def batch(self, number: int) -> Batch:
        """Return what is tried as the batch of this number."""
        self._turn = None
        if self.queue:
            return self._from_queue()
        if not self.pool:
            return Batch.of(self.fresh())
        if self._fresh.has_come(number):
            self._turn = self._fresh
            return Batch.of(self.fresh())
        has_fields = bool(self.inputs.usual)
        if not has_fields and self.inputs.read and self._fields.has_come(number):
            self._turn, has_fields = self._fields, True
        return self._changed(has_fields=has_fields)

    def brought(self, *, new: bool) -> None:
        """Note whether the batch went a new way."""
        if self._turn is not None:
            self._turn.brought(new=new)

    def keep(self, sample: Sample) -> None:
        """Change a sample further from now on."""
        self.pool.append(sample)
        if len(sample.data) < self.inputs.most:  # what is behind it may be reached with more bytes
            longer = sample.data.ljust(min(2 * len(sample.data) + 16, self.inputs.most), b"\0")
            self.queue.append(self.inputs.sample(longer, sample.fields))

    def fresh(self) -> list[Sample]:
        """Return some that are made anew."""
        count = FEW if not self.is_fast else 4 * FRESH if self.watches else FRESH
        return [self.inputs.fresh(self.rng) for _ in range(count)]

    def _changed(self, *, has_fields: bool) -> Batch:
        """Return changed ones, with fields or without."""
        recent = self.pool[-RECENT:] if self.rng.random() < 0.4 else self.pool
        rows = self.side.rows(with_fields=has_fields)
        rows = FEW if self.is_fast and self.inputs.has_packet and rows != ROWS else rows
        changed = self.mutator.batch([each.data for each in recent], rows)
        if not has_fields and not self.inputs.is_linked:
            return changed
        samples = [
            self.inputs.sample(changed.packet(index), self._some_fields(recent)) for index in range(rows)
        ]
        return Batch.of(samples)

    def _some_fields(self, recent: Sequence[Sample]) -> Fields:
        """Return fields for a run: new ones, or those of one that was kept, with fewer bytes perhaps."""
        if self.rng.random() < 0.5:
            return self.inputs.contexts(self.rng)
        fields = self.rng.choice(recent).fields
        if self.inputs.has_packet or self.inputs.described is not None or self.rng.random() < 0.5:
            return fields
        return tuple((name, self._cut(value)) for name, value in fields)

    def _cut(self, value: Any) -> Any:
        """Return fewer of the bytes that a pointer points to."""
        return value[: self.rng.randrange(len(value) + 1)] if isinstance(value, bytes) else value

    def _from_queue(self) -> Batch:
        """Return the first ones that wait, all with fields or all without."""
        with_fields = bool(self.queue[0].fields)
        rows = self.side.rows(with_fields=with_fields)
        chosen, others = list[Sample](), list[Sample]()
        for each in self.queue:
            (chosen if bool(each.fields) is with_fields and len(chosen) < rows else others).append(each)
        self.queue = others
        return Batch.of(chosen)


def _constants(program: Program) -> list[bytes]:
    """Return the numbers that a program compares with, and those next to them, as bytes in either order."""
    found: dict[bytes, None] = {}
    for compared in sorted(compared_with(program)):
        for number in (compared, compared + 1, compared - 1):
            unsigned = number & 0xFFFFFFFF
            size = 1 if unsigned < 256 else 2 if unsigned < 1 << 16 else 4
            found[unsigned.to_bytes(size, "little")] = None
            found[unsigned.to_bytes(max(size, 2), "big")] = None
    return list(found)
