"""What is claimed, and what the solver says of it.

    def statement() -> Truth:
        x, y = variable("x", 64), variable("y", 64)
        assume(x <= 15)
        return algebra.something(W64, x, y) == semantics.BINARY["MUL"](W64, x, y)

A claim is Python that states it, run on symbolic numbers. Where it asks whether something holds, it is run
once for either answer that is possible; what it returns must hold at the end of each such path. What the
solver says against it is tried: the same Python, on the numbers it has found.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextvars import ContextVar
from dataclasses import field
from enum import Enum

import z3

from ebpfjit.prove.symbolic import CHOOSER, KEYS, VALUES, Integer, Truth, UnsupportedError, bounds
from ebpfjit.prove.theories import Integers, Term, Theory, Vectors
from ebpfjit.record import dataclass

Statement = Callable[[], Truth | bool]

LOOK_MILLISECONDS = 100
"""How long it is looked whether a path is possible; where that is not found out it is."""
DEFAULT_SECONDS = 20.0


class Verdict(Enum):
    """What the solver says."""

    PROVEN = "proven"
    UNDECIDED = "undecided"
    REFUTED = "refuted"


@dataclass(frozen=True)
class Claim:
    """Something that holds for all values of its variables.

    `room` is what it is about, for who reads the report, `name` says which. Each of `theories` is asked until
    one knows. `keys` are those of dictionaries in which its numbers are looked up. What `is_of_python` alone
    can be tried with the numbers that are found against it.
    """

    room: str
    name: str
    statement: Statement
    theories: tuple[type[Theory], ...] = (Vectors,)
    keys: tuple[int, ...] = ()
    is_of_python: bool = True


@dataclass(frozen=True)
class Result:
    """What was found out of a claim: along how many paths, in how many seconds, and numbers against it."""

    claim: Claim
    verdict: Verdict
    paths: int
    seconds: float
    against: dict[str, int] = field(default_factory=dict)

    @property
    def text(self) -> str:
        """The claim's name, and the numbers against it."""
        numbers = ", ".join(f"{name} = {number:#x}" for name, number in sorted(self.against.items()))
        return f"{self.claim.name}{': ' if numbers else ''}{numbers}"


class _ImpossibleError(Exception):
    """A path on which an assumption does not hold."""


@dataclass
class _Step:
    """An answer that a run was given, and whether the other one is possible as well."""

    answer: bool
    has_other: bool


class _Run:
    """One path of a statement: the answers that were given, and what is so because of them."""

    def __init__(self, steps: list[_Step]) -> None:
        self.steps = steps
        self.at = 0
        self.conditions: list[Truth] = []
        self.theory = Vectors()
        self.solver = z3.Solver()
        self.solver.set("timeout", LOOK_MILLISECONDS)
        self.facts = 0

    def may_be(self, term: Term) -> bool:
        """Return whether something may hold as well, as far as can be seen."""
        facts = self.theory.facts()
        return bool(self.solver.check(term, *facts) != z3.unsat)

    def choose(self, truth: Truth) -> bool:
        """Answer whether something holds."""
        term = z3.simplify(self.theory.formula(truth))
        if z3.is_true(term) or z3.is_false(term):
            return bool(z3.is_true(term))
        if self.at == len(self.steps):
            possible = [self.may_be(term), self.may_be(z3.Not(term))]
            self.steps.append(_Step(possible[0], all(possible)))
        answer = self.steps[self.at].answer
        self.at += 1
        self.add(truth if answer else ~truth)
        return answer

    def add(self, truth: Truth) -> None:
        """Have something hold from here on."""
        self.conditions.append(truth)
        self.solver.add(self.theory.formula(truth))

    def assume(self, truth: Truth | bool) -> None:
        """Have something hold, or drop the path."""
        if isinstance(truth, Truth):
            self.add(truth)
        if truth is False or not self.may_be(z3.BoolVal(True)):
            raise _ImpossibleError


_RUN: ContextVar[_Run | None] = ContextVar("_RUN", default=None)


def assume(truth: Truth | bool) -> None:
    """Claim what follows only where something holds."""
    run = _RUN.get()
    if run is not None:
        run.assume(truth)
    else:
        assert truth  # the numbers against a claim are such


def each_of(number: Integer) -> int:
    """Return what a number is, once for each that it may be: for those with few values."""
    low, high = bounds(number)
    for value in range(low, high):
        if number == value:
            return value
    return high


def paths(claim: Claim) -> Iterator[tuple[list[Truth], Truth | bool]]:
    """Yield the paths of a claim: what holds on each, and what is claimed there."""
    steps: list[_Step] = []
    keys = KEYS.set(claim.keys)
    while True:
        run = _Run(steps)
        tokens = CHOOSER.set(run.choose), _RUN.set(run)
        try:
            claimed = claim.statement()
        except _ImpossibleError:
            claimed = None
        except ZeroDivisionError:  # on a path that is not possible, if nobody has seen that yet
            claimed = False
        finally:
            CHOOSER.reset(tokens[0])
            _RUN.reset(tokens[1])
        if claimed is not None:
            yield run.conditions, claimed
        while steps and not steps[-1].has_other:
            steps.pop()
        if not steps:
            break
        steps[-1] = _Step(not steps[-1].answer, False)
    KEYS.reset(keys)


def decide(claim: Claim, seconds: float = DEFAULT_SECONDS) -> Result:
    """Ask the solver of a claim, so many seconds for each path and theory."""
    start = time.monotonic()
    count, verdict = 0, Verdict.PROVEN
    for conditions, claimed in paths(claim):
        count += 1
        found, against = _on_path(claim, conditions, claimed, seconds)
        if found is Verdict.REFUTED:
            _try(claim, against)
            return Result(claim, found, count, time.monotonic() - start, against)
        if found is Verdict.UNDECIDED:
            verdict = found
    assert count, f"{claim.name}: no path is possible, so nothing is claimed"
    return Result(claim, verdict, count, time.monotonic() - start)


def _on_path(
    claim: Claim, conditions: Sequence[Truth], claimed: Truth | bool, seconds: float
) -> tuple[Verdict, dict[str, int]]:
    """Return what the solver says of what is claimed on a path, and numbers against it."""
    if claimed is True:
        return Verdict.PROVEN, {}
    for kind in claim.theories:
        theory = kind()
        known = [term for term in (_formula(theory, each) for each in conditions) if term is not None]
        wanted = _formula(theory, claimed)
        if wanted is None:
            continue
        solver = z3.SolverFor("QF_ABV") if kind is Vectors else z3.Solver()
        solver.set("timeout", int(1000 * seconds))
        solver.add(*known, z3.Not(wanted), *theory.facts())
        answer = solver.check()
        if answer == z3.unsat:
            return Verdict.PROVEN, {}
        if answer == z3.sat and theory.is_exact and len(known) == len(conditions):
            return Verdict.REFUTED, _numbers(solver.model())
    return Verdict.UNDECIDED, {}


def _formula(theory: Theory, truth: Truth | bool) -> Term | None:
    """Return what a theory tells of a truth, None where it cannot: what is proven without it holds."""
    try:
        return theory.formula(truth)
    except UnsupportedError:
        return None


def _numbers(model: z3.ModelRef) -> dict[str, int]:
    """Return what variables are in a model."""
    values = {declared.name(): model[declared] for declared in model.decls()}
    return {name: value.as_long() for name, value in values.items() if hasattr(value, "as_long")}


def _try(claim: Claim, against: dict[str, int]) -> None:
    """See that what is claimed is wrong of these numbers; if not, they are told wrongly to the solver."""
    if not claim.is_of_python:
        return
    token = VALUES.set(against)
    try:
        assert not claim.statement(), f"{claim.name}: the solver is wrong of {against}"
    finally:
        VALUES.reset(token)


__all__ = ["Claim", "Integers", "Result", "Vectors", "Verdict", "assume", "decide", "each_of", "paths"]
