"""What inputs of one program come to on the interpreter: how each ends, and which instructions it reaches."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import field

from ebpfjit.difftest import typed
from ebpfjit.difftest.case import Case, Input
from ebpfjit.difftest.children import run_forked
from ebpfjit.difftest.engines import on_interpreter, prepared
from ebpfjit.difftest.outcome import attributes_of
from ebpfjit.errors import EbpfError, ExecutionError, InputError
from ebpfjit.interpreter import Watcher, interpret
from ebpfjit.program import Program
from ebpfjit.ready import Ready, environment_of
from ebpfjit.record import dataclass
from ebpfjit.runner import run_on
from ebpfjit.runtime.execution import Execution

ENDED, FAULTED, REFUSED = "ended", "faulted", "refused"
SECONDS = 30.0
"""Of one child's own time: where it takes longer, what it was given is refused."""

Slot = tuple[str, int]
"""A program's name, and a pc of it."""
Way = tuple[str, int, int]
"""A program's name, a pc, and the one that came next."""


@dataclass(frozen=True, slots=True)
class Reached:
    """What one input came to: `how` it ended, in words, the slots that it reached, and on which ways.

    `kind` is the class of a fault, and `pc` where it was.
    """

    how: str
    text: str
    kind: str = ""
    pc: int | None = None
    slots: frozenset[Slot] = frozenset()
    ways: frozenset[Way] = frozenset()


class _Steps:
    """The steps of a run, as the interpreter tells them."""

    def __init__(self) -> None:
        self.ways: set[Way] = set()
        self.last = -1

    def watcher(self, name: str) -> Watcher:
        """Return what is told of the steps of one program."""
        self.last = -1

        def step(pc: int, registers: list[int]) -> None:
            self.ways.add((name, self.last, pc))
            self.last = pc

        return step

    def reached(self) -> tuple[frozenset[Slot], frozenset[Way]]:
        """Return slots and ways."""
        return frozenset((name, pc) for name, _, pc in self.ways), frozenset(self.ways)


@dataclass
class Sum:
    """What many inputs came to: how often each ending was, the slots that any of them reached."""

    endings: Counter[str] = field(default_factory=Counter)
    slots: set[Slot] = field(default_factory=set)
    ways: set[Way] = field(default_factory=set)
    total: int = 0

    def add(self, one: Reached) -> None:
        """Count one input."""
        self.endings[one.how] += 1
        self.slots |= one.slots
        self.ways |= one.ways

    def is_new(self, one: Reached) -> bool:
        """True for an input that went a way that none had gone."""
        return not one.ways <= self.ways

    @property
    def share(self) -> float:
        """Which part of all instructions was reached."""
        return len(self.slots) / self.total if self.total else 0.0

    def as_json(self) -> dict[str, object]:
        """Return the counts as JSON has them."""
        counts = {how: self.endings[how] for how in (ENDED, FAULTED, REFUSED)}
        return {**counts, "reached": len(self.slots), "instructions": self.total}

    def __str__(self) -> str:
        counts = ", ".join(f"{self.endings[how]} {how}" for how in (ENDED, FAULTED, REFUSED))
        reached = f"{len(self.slots)} of {self.total} instructions reached ({100 * self.share:.0f} %)"
        return f"{counts}; {reached}"


def instructions_of(program: Program | Case) -> int:
    """Return how many instructions a program has, with those that it may tail call."""
    if isinstance(program, Case):
        return len(Program.from_bytes(program.code).instructions)
    return sum(len(each.instructions) for each in typed.programs_of(program).values())


def reach(program: Program | Case, inputs: Sequence[Input]) -> list[Reached]:
    """Return what each input comes to, one after the other, on maps that are afterwards as they were.

    It is done in a forked child. Inputs of a child that dies, or takes too long, are refused.
    """
    ended = run_forked(lambda: [_one(program, given) for given in inputs], SECONDS)
    found: list[Reached] | None = ended.value
    if found is not None:
        return found
    if len(inputs) > 1:
        return [one for given in inputs for one in reach(program, [given])]
    reason = "it does not end in time" if ended.hangs else f"the interpreter died ({ended.signal or 'error'})"
    return [Reached(REFUSED, reason, "no answer")]


def _one(program: Program | Case, given: Input) -> Reached:
    return _case(program, given) if isinstance(program, Case) else _typed(program, given)


def _case(case: Case, given: Input) -> Reached:
    """Run plain memory: what the engines of a comparison run."""
    steps = _Steps()
    outcome = on_interpreter(case, prepared(case), steps.watcher(case.name))(given)
    assert outcome is not None  # the interpreter always has an answer
    if outcome.kind == "ok":
        return Reached(ENDED, str(outcome), "", None, *steps.reached())
    return Reached(FAULTED, outcome.message or outcome.kind, outcome.kind, outcome.pc, *steps.reached())


def _typed(program: Program, given: Input) -> Reached:
    """Run a program with a type or maps, as `Program.run` does."""
    steps = _Steps()

    def function(ready: Ready, execution: Execution) -> int:
        return interpret(ready.verified, execution, steps.watcher(ready.program.name or ""))

    data, environment = typed.data_of(program.type, given), environment_of(program)
    try:
        result = run_on(function, program, data, given.limit, None, environment)
    except InputError as error:
        return Reached(REFUSED, str(error), type(error).__name__)
    except ExecutionError as error:
        if not steps.ways:
            return Reached(REFUSED, str(error), type(error).__name__, error.pc)
        pc = dict(attributes_of(error)).get("pc")
        return Reached(FAULTED, str(error), type(error).__name__, pc, *steps.reached())
    except EbpfError as error:
        return Reached(REFUSED, str(error), type(error).__name__)
    return Reached(ENDED, f"r0 = {result.return_value:#x}", "", None, *steps.reached())


def summed(program: Program | Case, found: Iterable[Reached]) -> Sum:
    """Return what inputs came to, together."""
    total = Sum(total=instructions_of(program))
    for one in found:
        total.add(one)
    return total
