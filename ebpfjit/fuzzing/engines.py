"""Engines held against each other while a program is fuzzed: one copy of it, run by each on the same maps.

contents -> maps -> interpreter -> Result, maps
contents -> maps -> jit         -> Result, maps     the same?
"""

from __future__ import annotations

import copy
import random
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from ebpfjit.difftest.case import Case, Input
from ebpfjit.difftest.compare import compare_case, compare_program
from ebpfjit.errors import ExecutionError, InputError
from ebpfjit.fuzzing.samples import Sample
from ebpfjit.fuzzing.side import counting
from ebpfjit.fuzzing.state import Contents, Maps
from ebpfjit.literals import EngineName
from ebpfjit.program import Program
from ebpfjit.ready import is_plain
from ebpfjit.runtime.environment import Clock, Environment

NAMES: tuple[EngineName, EngineName] = ("interpreter", "jit")


class Engines:
    """The interpreter and machine code, on a copy of a program; a run takes up to `limit` instructions."""

    def __init__(self, program: Program, limit: int) -> None:
        self.program = copy.deepcopy(program)
        self.limit = limit
        self.maps = Maps(self.program)

    def difference(self, contents: Contents, samples: Sequence[Sample]) -> str:
        """Return in words how engines differ on the last of some samples, on maps of these contents.

        "" where they do not, or where that depends on what neither of them decides (addresses).
        """
        first, second = (self._left(engine, contents, samples) for engine in NAMES)
        if first == second or self._left(NAMES[0], contents, samples) != first:
            return ""
        if len(samples) == 1 and not samples[0].fields and not self._is_confirmed(contents, samples[0]):
            return ""
        what = next(what for what, one in first.items() if second.get(what) != one)
        return f"{what}: {first[what]!r} (interpreter), {second.get(what)!r} (jit)"

    def _left(self, engine: EngineName, contents: Contents, samples: Sequence[Sample]) -> dict[str, Any]:
        """Return what the last of some runs leaves: how it ends, its result, maps."""
        self.maps.put_back(self._translated(contents))
        left: dict[str, Any] = {}
        world = self._world()
        for sample in samples:
            given: dict[str, Any] = {"context": sample.context, "limit": self.limit, "environment": world}
            try:
                with counting():  # faults are counted in any case
                    result = self.program.run(sample.data, engine=engine, **given)
                left = {"result": replace(result, instructions=None)}
            except (ExecutionError, InputError) as error:
                left = {"result": (type(error).__name__, getattr(error, "pc", None))}
        held = {map_.definition.name: sorted(entries) for map_, entries in self.maps.contents()}
        return left | {f"map {name!r}": entries for name, entries in held.items()}

    def _translated(self, contents: Contents) -> Contents:
        by_name = {map_.definition.name: entries for map_, entries in contents}
        return [(map_, by_name[map_.definition.name]) for map_ in (*self.maps.keyed, *self.maps.flat)]

    def _world(self) -> Environment | None:
        """Return a world in which time and random numbers are the same each time."""
        if self.program.environment is not None:
            return None
        numbers = random.Random(1)
        return Environment(clock=Clock(1), random=lambda: numbers.getrandbits(32))

    def _is_confirmed(self, contents: Contents, sample: Sample) -> bool:
        """Return whether engines differ in processes of their own too, where memory is at the same places."""
        given = Input(sample.data, self.limit)
        if is_plain(self.program):
            return not compare_case(Case(self.program.code, (given,)), NAMES).agree
        self.maps.put_back(self._translated(contents))
        return not compare_program(self.program, [given], NAMES).agree
