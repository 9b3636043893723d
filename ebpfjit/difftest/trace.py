"""Step by step: the registers before each instruction, and the first pc where two engines part.

The interpreter tells of every step. Machine code records one at each pc that has code of its own:
a few instructions that were fused into one have a state before the first only, and of a conditional
jump translated together with the one instruction it skips the second has none. Such steps are left
out of the interpreter's trace before the two are held against each other. Merged checks stay as
they are: what goes on in the copy that checks one by one is recorded there.
"""

from __future__ import annotations

import ctypes
import mmap
import struct
from collections.abc import Sequence
from dataclasses import dataclass

from ebpfjit.analysis.liveness import live_before
from ebpfjit.analysis.verified import Verified
from ebpfjit.difftest.arena import arena
from ebpfjit.difftest.case import Case, Input
from ebpfjit.difftest.engines import compiled_case, on_interpreter, outcome_of
from ebpfjit.difftest.outcome import Outcome
from ebpfjit.isa.spec import REGISTER_COUNT
from ebpfjit.translators.x86_64.trace import RECORD_SIZE, RECORD_WORDS

MOST_STEPS = 20_000
HEADER_SIZE = 16


@dataclass(frozen=True, slots=True)
class Step:
    """The state before the instruction at `pc`: r0 to r10."""

    pc: int
    registers: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Parting:
    """Where two traces part: `pc` is the instruction that ran last on both, None at the very start.

    `steps` are the states after it, by engine; None where that engine made no further step. `registers`
    are the numbers of those that differ and may be read later.
    """

    pc: int | None
    steps: tuple[Step | None, Step | None]
    registers: tuple[int, ...]


def trace_interpreter(case: Case, verified: Verified, given: Input) -> tuple[Outcome, list[Step]]:
    """Run on the interpreter and return the outcome and its first MOST_STEPS steps."""
    steps: list[Step] = []

    def watch(pc: int, registers: list[int]) -> None:
        if len(steps) < MOST_STEPS:
            steps.append(Step(pc, tuple(registers)))

    outcome = on_interpreter(case, verified, watch)(given)
    assert outcome is not None  # the interpreter runs everything
    return outcome, steps


class Trace:
    """What instrumented code writes: shared with child processes, so that it outlives a crash."""

    def __init__(self) -> None:
        self._space = mmap.mmap(-1, HEADER_SIZE + MOST_STEPS * RECORD_SIZE)
        self._pin = ctypes.c_char.from_buffer(self._space)
        self.address = ctypes.addressof(self._pin)
        start = self.address + HEADER_SIZE
        struct.pack_into("<QQ", self._space, 0, start, start + MOST_STEPS * RECORD_SIZE)

    def steps(self) -> list[Step]:
        """Return what was recorded."""
        size = struct.unpack_from("<Q", self._space, 0)[0] - self.address - HEADER_SIZE
        records = struct.iter_unpack(f"<{RECORD_WORDS}Q", self._space[HEADER_SIZE : HEADER_SIZE + size])
        return [Step(pc, tuple(values)) for pc, *values in records]


def trace_jit(
    case: Case, verified: Verified, given: Input, trace: Trace | None = None
) -> tuple[Outcome, list[Step], frozenset[int]]:
    """Run instrumented machine code: the outcome, its first MOST_STEPS steps, the pcs it records."""
    trace = trace or Trace()
    place = arena()
    compiled = compiled_case(case, verified, trace.address)
    outcome = outcome_of(compiled.run, place.start(given), place)
    return outcome, trace.steps(), compiled.listing.traced


def parting(
    verified: Verified, one: Sequence[Step], other: Sequence[Step], recorded: frozenset[int]
) -> Parting | None:
    """Return where two traces part, None where they do not; `recorded` are the pcs that both have.

    A register that nothing reads any more may differ. Traces that are full say nothing of what
    comes after.
    """
    first = [step for step in one if step.pc in recorded]
    second = [step for step in other if step.pc in recorded]
    live = live_before(verified.liveness)
    last: int | None = None
    for a, b in zip(first, second, strict=False):
        if a.pc != b.pc:
            return Parting(last, (a, b), _differing(a, b, -1))
        wrong = _differing(a, b, live[a.pc] if a.pc < len(live) else -1)
        if wrong:
            return Parting(last, (a, b), wrong)
        last = a.pc
    if len(first) == len(second) or MOST_STEPS in (len(one), len(other)):
        return None
    longer, index = (first, 0) if len(first) > len(second) else (second, 1)
    step = longer[min(len(first), len(second))]
    return Parting(last, (step, None) if index == 0 else (None, step), ())


def _differing(a: Step, b: Step, live: int) -> tuple[int, ...]:
    return tuple(n for n in range(REGISTER_COUNT) if live >> n & 1 and a.registers[n] != b.registers[n])
