"""Step by step: the registers before each instruction, and the first pc where two engines part.

The interpreter tells of every step. Machine code records one before each instruction: of baseline code, where
each has a place of its own.
"""

from __future__ import annotations

import ctypes
import mmap
import struct
from collections.abc import Mapping, Sequence
from dataclasses import replace

from ebpfjit.analysis.liveness import live_before
from ebpfjit.analysis.verified import Verified
from ebpfjit.difftest.arena import arena
from ebpfjit.difftest.case import Case, Input
from ebpfjit.difftest.engines import compiled_case, on_interpreter, outcome_of
from ebpfjit.difftest.outcome import Outcome
from ebpfjit.isa.spec import REGISTER_COUNT
from ebpfjit.record import dataclass
from ebpfjit.runtime.memory import STACK_SIZE
from ebpfjit.translators.x86_64.trace import RECORD_SIZE, RECORD_WORDS

MOST_STEPS = 20_000
HEADER_SIZE = 16
MOST_PARTS = 40
"""Linux has 33 tail calls in a run."""

NAME_SIZE = 48
_MARK = struct.Struct(f"<QQ{NAME_SIZE}s")
STACK_TOP = 0x2000_0000_0000
"""Where stacks end as they are shown."""


@dataclass(frozen=True, slots=True)
class Step:
    """The state before the instruction at `pc`: r0 to r10."""

    pc: int
    registers: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Parting:
    """Where two traces part: `pc` is the instruction that ran last on both, None at the very start.

    `steps` are the states after it, by engine; None where that engine made no further step. `registers`
    are the numbers of those that differ and may be read later. `program` is the name of the program
    that the pc is of, where more than one ran.
    """

    pc: int | None
    steps: tuple[Step | None, Step | None]
    registers: tuple[int, ...]
    program: str = ""


@dataclass(frozen=True, slots=True)
class Part:
    """The steps of one program of a run: with tail calls there are several. `name` says which it is."""

    name: str
    steps: tuple[Step, ...]


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
    """What instrumented code writes: shared with child processes, so that it outlives a crash.

    Behind the records there are marks: which program starts where, and the top of its stack.
    """

    def __init__(self) -> None:
        self._marks = HEADER_SIZE + MOST_STEPS * RECORD_SIZE
        self._space = mmap.mmap(-1, self._marks + MOST_PARTS * _MARK.size)
        self._pin = ctypes.c_char.from_buffer(self._space)
        self.address = ctypes.addressof(self._pin)
        start = self.address + HEADER_SIZE
        struct.pack_into("<QQ", self._space, 0, start, start + MOST_STEPS * RECORD_SIZE)

    def start_part(self, name: str, stack_top: int) -> None:
        """Note that a program starts; what is recorded from now on is its."""
        for place in range(self._marks, self._marks + MOST_PARTS * _MARK.size, _MARK.size):
            if not _MARK.unpack_from(self._space, place)[1]:
                count = len(self.steps())
                _MARK.pack_into(self._space, place, count, stack_top, name.encode()[:NAME_SIZE])
                return

    def parts(self) -> list[Part]:
        """Return what was recorded, by program."""
        marks = [mark for mark in _MARK.iter_unpack(self._space[self._marks :]) if mark[1]]
        steps = self.steps()
        stops = [*(mark[0] for mark in marks[1:]), len(steps)]
        return [
            part_of(name.rstrip(b"\0").decode(errors="replace"), top, steps[start:stop])
            for (start, top, name), stop in zip(marks, stops, strict=True)
        ]

    def steps(self) -> list[Step]:
        """Return what was recorded."""
        size = struct.unpack_from("<Q", self._space, 0)[0] - self.address - HEADER_SIZE
        records = struct.iter_unpack(f"<{RECORD_WORDS}Q", self._space[HEADER_SIZE : HEADER_SIZE + size])
        return [Step(pc, tuple(values)) for pc, *values in records]


def part_of(name: str, stack_top: int, steps: Sequence[Step]) -> Part:
    """Return a program's steps, addresses in its stack as if all stacks ended at STACK_TOP.

    Where a tail call has its stack differs from run to run.
    """

    def shown(value: int) -> int:
        return value - stack_top + STACK_TOP if 0 <= stack_top - value <= STACK_SIZE else value

    return Part(name, tuple(Step(step.pc, tuple(map(shown, step.registers))) for step in steps))


def parting_of_parts(
    programs: Mapping[str, Verified],
    one: Sequence[Part],
    other: Sequence[Part],
) -> Parting | None:
    """Return where two runs of one or more programs part; programs are known by name."""
    for a, b in zip(one, other, strict=False):
        if a.name != b.name:
            return Parting(None, (_first(a), _first(b)), (), a.name)
        found = parting(programs[a.name], a.steps, b.steps)
        if found is not None:
            return replace(found, program=a.name)
    longer = one[len(other) :] or other[len(one) :]
    if not longer:
        return None
    first = _first(longer[0])
    return Parting(None, (first, None) if len(one) > len(other) else (None, first), (), longer[0].name)


def _first(part: Part) -> Step | None:
    return part.steps[0] if part.steps else None


def trace_jit(
    case: Case, verified: Verified, given: Input, trace: Trace | None = None
) -> tuple[Outcome, list[Step]]:
    """Run instrumented machine code: the outcome, its first MOST_STEPS steps."""
    trace = trace or Trace()
    place = arena()
    compiled = compiled_case(case, verified, trace=trace.address)
    outcome = outcome_of(compiled.run, place.start(given), place)
    return outcome, trace.steps()


def parting(verified: Verified, one: Sequence[Step], other: Sequence[Step]) -> Parting | None:
    """Return where two traces part, None where they do not.

    A register that nothing reads any more may differ. Traces that are full say nothing of what
    comes after.
    """
    live = live_before(verified.liveness)
    last: int | None = None
    for a, b in zip(one, other, strict=False):
        if a.pc != b.pc:
            return Parting(last, (a, b), _differing(a, b, -1))
        wrong = _differing(a, b, live[a.pc] if a.pc < len(live) else -1)
        if wrong:
            return Parting(last, (a, b), wrong)
        last = a.pc
    if len(one) == len(other) or MOST_STEPS in (len(one), len(other)):
        return None
    longer, index = (one, 0) if len(one) > len(other) else (other, 1)
    step = longer[min(len(one), len(other))]
    return Parting(last, (step, None) if index == 0 else (None, step), ())


def _differing(a: Step, b: Step, live: int) -> tuple[int, ...]:
    return tuple(n for n in range(REGISTER_COUNT) if live >> n & 1 and a.registers[n] != b.registers[n])
