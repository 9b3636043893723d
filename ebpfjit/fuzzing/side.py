"""A copy of a program with maps of its own, which counts what its runs execute."""

from __future__ import annotations

import copy
from array import array
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

from ebpfjit.engines import best_engine
from ebpfjit.errors import ExecutionError, InputError
from ebpfjit.fuzzing.batches import Batch
from ebpfjit.fuzzing.handlers import handlers_of
from ebpfjit.fuzzing.observed import state_of
from ebpfjit.fuzzing.samples import Sample
from ebpfjit.fuzzing.state import Maps
from ebpfjit.program import Program
from ebpfjit.ready import ready
from ebpfjit.runner import Result
from ebpfjit.runtime import counters
from ebpfjit.runtime.changed import Changed
from ebpfjit.runtime.maps.definition import MapType
from ebpfjit.sealed import inside

FAULT = (1 << 64) - 0xF417
"""What stands for a fault among verdicts."""
ROWS = 1024
SLOW_ROWS = 64
"""Runs of a batch where each is prepared in Python."""
FIRST_ROWS = 128
MOST_TOLD = 16
"""Faults of so many first runs of a batch, from which on those of the others are not told: it costs much."""


@contextmanager
def counting() -> Iterator[None]:
    """Have what is prepared and interpreted meanwhile count what it executes."""
    counters.start()
    try:
        yield
    finally:
        counters.stop()


def everywhere(program: Program) -> list[Program]:
    """Return a program, and those that its runs may come to by tail calls."""
    found = [program]
    for each in found:  # it grows meanwhile
        for map_ in each.maps:
            if map_.definition.type == MapType.PROG_ARRAY:
                found += [other for other in map_.values() if not any(other is known for known in found)]
    return found


class Side:
    """A program of which each run counts what it executes: in machine code, where that is to be had.

    It has a copy of the program's maps; `helpers` stand for helpers, as `Program.run` takes them.
    """

    def __init__(
        self,
        program: Program,
        limit: int,
        helpers: Mapping[int | str, Callable[..., Any]] | None = None,
        *,
        optimize: bool = True,
    ) -> None:
        self.program = copy.deepcopy(program)
        self.programs = everywhere(self.program)
        """It, and those that it may tail-call."""
        self.limit = limit
        self.helpers = dict(helpers or {})
        self.engine = best_engine()
        self.compiled = None
        """In machine code that is called without preparing runs in Python, None where there is none."""
        with counting():
            if self.engine == "jit":
                made = self.program.compile(limit=limit, optimize=optimize, helpers=self.helpers)
                self.compiled = made if inside(made).gate is not None else None
            else:
                ready(self.program)  # which raises for what cannot be run, as compiling does
        maps = {id(map_): map_ for each in self.programs for map_ in each.maps}
        self.handlers = handlers_of(self.program, maps.values())
        """What somebody has put into its program arrays."""
        self.state = state_of(self.program, maps.values())
        """What predicates may read of its maps and variables."""
        self.all_told = True
        """Whether the faults of the last batch were told, all of them."""
        self.maps = Maps(self.program, maps.values())
        self.start = self.maps.contents()

    def rows(self, *, with_fields: bool = False) -> int:
        """Return how many runs a batch has, where contexts are given fields or where they are not."""
        return ROWS if self.compiled is not None and not with_fields else SLOW_ROWS

    def verdict(self, sample: Sample) -> int:
        """Return what a run returns; raises as `Program.run`."""
        if self.compiled is not None and not sample.fields:
            with self._as_whole():
                return self.compiled(bytearray(sample.data))
        return self.run(sample).return_value

    def frame_after(self, sample: Sample) -> bytes:
        """Return the packet that a run leaves, as it is on the wire; raises as `Program.run`."""
        if self.compiled is None or sample.fields:
            return self.run(sample).data
        changed = Changed()
        with self._as_whole():
            self.compiled.map([bytearray(sample.data)], changed=changed)
        return bytes(changed.buffer)

    def _as_whole(self) -> AbstractContextManager[None]:
        """Have programs counted that are compiled when they are tail-called first."""
        return counting() if len(self.programs) > 1 else nullcontext()

    def run(self, sample: Sample) -> Result:
        """Return all of a run; raises as `Program.run`."""
        with counting():
            return self.program.run(
                sample.data,
                engine=self.engine,
                limit=self.limit,
                context=sample.context,
                helpers=self.helpers,
            )

    def verdicts(self, batch: Batch, faults: list[Any]) -> array[int]:
        """Run a batch; faults are added to the list, with their number. Where many fault, only some are."""
        self.all_told = True
        if self.compiled is None or batch.fields:
            return array("Q", [self._one(batch.sample(index), index, faults) for index in range(len(batch))])
        first = self._part(batch, 0, FIRST_ROWS, faults)
        if len(batch) <= FIRST_ROWS:
            return first
        told = faults if len(faults) <= MOST_TOLD else None
        self.all_told = told is not None
        count = len(faults)
        first += self._part(batch, FIRST_ROWS, len(batch), told)
        for fault in faults[count:]:
            fault.index += FIRST_ROWS
        return first

    def _part(self, batch: Batch, start: int, stop: int, faults: list[Any] | None) -> array[int]:
        assert self.compiled is not None  # it was looked at
        with self._as_whole():
            return self.compiled.map(
                batch.data,
                offsets=batch.offsets[start:stop],
                lengths=batch.lengths[start:stop],
                on_fault=FAULT,
                faults=faults,
            )

    def _one(self, sample: Sample, index: int, faults: list[Any]) -> int:
        try:
            return self.verdict(sample)
        except (ExecutionError, InputError) as error:
            error.index = index
            faults.append(error)
            return FAULT
