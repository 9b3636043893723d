"""One case, quickly: run on every engine, compared, without traces; what went wrong, if anything."""

from __future__ import annotations

import os
import traceback
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING

from ebpfjit.analysis import verifier
from ebpfjit.analysis.verified import Verified
from ebpfjit.difftest import classic, typed
from ebpfjit.difftest.case import Case, Input
from ebpfjit.difftest.compare import differences
from ebpfjit.difftest.coverage import Coverage
from ebpfjit.difftest.engines import (
    CALLED,
    ENGINES,
    compiled_case,
    depends_on_addresses,
    depends_on_stack,
    on_interpreter,
    on_tiered,
    prepared,
    runner_of,
    through_the_gate,
)
from ebpfjit.difftest.outcome import AUDIT_FAILURE, WRONG_CODE, Outcome, Runner
from ebpfjit.errors import DecodeError, EbpfError, LoadError, VerifierError
from ebpfjit.interpreter import Watcher
from ebpfjit.record import dataclass

if TYPE_CHECKING:
    from ebpfjit.jit.entry import Compiled

DIFFERS, TWIN, RAISED, CRASH, HANG = "differs", "differs from its twin", "raised", "crash", "hang"
AUDIT, WRONG = "audit failure", "wrong code"
NATURES = {AUDIT_FAILURE: AUDIT, WRONG_CODE: WRONG}
"""By the kind of an outcome that is wrong by itself."""

OUTSIDE = "outside of its memory"


@dataclass(frozen=True, slots=True)
class Problem:
    """What is wrong with a case: its nature, the input it shows on, and what is seen, in one line."""

    nature: str
    given: Input
    text: str


class Checker:
    """Checks cases on some engines, and counts what they reach."""

    def __init__(self, engines: Sequence[str], coverage: Coverage | None = None) -> None:
        self.engines = tuple(engines)
        self.coverage = coverage
        self.instructions = 0
        self.sampled = True
        os.environ["EBPFJIT_FAILURES"] = "raise"  # what users get over is a finding

    def check(self, case: Case, *, sampled: bool = True) -> Problem | None:
        """Return what is wrong, None where the engines agree or take no such program.

        Only of a `sampled` program the verifier is tried, the machine code looked at, and the change of tier
        made at every place: all take long.
        """
        self.sampled = sampled
        try:
            return self._typed(case) if case.type else self._plain(case)
        except EbpfError as error:
            return Problem(RAISED, case.inputs[0], _first_line(error))
        except Exception as error:
            place = traceback.extract_tb(error.__traceback__)[-1]
            where = f"{place.filename.rpartition('/')[2]}:{place.lineno}"
            return Problem(RAISED, case.inputs[0], f"{type(error).__name__}: {error} ({where})")

    def _plain(self, case: Case) -> Problem | None:
        """Compare a case without a type."""
        try:
            verified = prepared(case)
        except (VerifierError, DecodeError, LoadError):
            self._note({}, None)
            return None
        if self.sampled:
            _verify(verified)
        return self._compare(case, verified)

    def _typed(self, case: Case) -> Problem | None:
        """Compare a case with a type."""
        seen = typed.Seen()
        runners = {name: typed.runner(case, name, seen) for name in self.engines}
        for given in case.inputs:
            try:
                outcomes = {name: runner(given) for name, runner in runners.items()}
            except (VerifierError, DecodeError, LoadError):
                self._note({}, None)
                return None
            self._note(outcomes, next(iter(outcomes.values())))
            self._note_typed(seen)
            wrong = _wrong(outcomes, given)
            if wrong is not None:
                return wrong
            differing = differences(outcomes)
            if differing and not typed.depends_on_addresses(case, given):
                outcomes = typed.at_the_same_addresses(case, given, outcomes)
                differing = differences(outcomes)
                if (
                    not outcomes.keys().isdisjoint(CALLED)
                    and differing
                    and typed.depends_on_stack(case, given)
                ):
                    differing = differences(_not_called(outcomes))
                if differing:
                    return Problem(DIFFERS, given, _said(outcomes, differing))
        return None

    def _note_typed(self, seen: typed.Seen) -> None:
        """Count what programs with a type went through."""
        if self.coverage is None:
            return
        for verified, pcs in seen.steps:
            self.coverage.executed(verified, pcs)
            self.instructions += len(pcs)
        if self.sampled:
            for compiled in seen.compiled:
                self.coverage.compiled(compiled)

    def _note(self, outcomes: dict[str, Outcome | None], first: Outcome | None) -> None:
        """Count how a run ended; without a first outcome nobody takes the program."""
        if self.coverage is None:
            return
        if first is None:
            self.coverage.refused()
            return
        self.coverage.ended(first)
        for name in (name for name, outcome in outcomes.items() if outcome is None):
            self.coverage.unanswered(name)

    def _runners(self, case: Case, verified: Verified, pcs: list[int] | None) -> dict[str, Runner]:
        """Return what runs a case on each engine; the interpreter notes its steps in `pcs`."""
        runners: dict[str, Runner] = {}
        compiled: Compiled | None = None
        for name in self.engines:
            if name == "interpreter":
                runners[name] = on_interpreter(case, verified, _noting(pcs))
            elif name == "jit" or (name == "gate" and not case.promised):
                compiled = compiled or self._compiled(case, verified)
                runners[name] = runner_of(compiled) if name == "jit" else through_the_gate(compiled)
            elif name == "tiered":
                runners[name] = on_tiered(case, verified, every=self.sampled)
            else:
                runners[name] = ENGINES[name](case, verified)
        return runners

    def _compiled(self, case: Case, verified: Verified) -> Compiled:
        """Compile a case; it is looked at where it is sampled."""
        compiled = compiled_case(case, verified)
        if self.coverage is not None and self.sampled:
            self.coverage.compiled(compiled)
        return compiled

    def _compare(self, case: Case, verified: Verified) -> Problem | None:
        """Compare a case without a type, and with its twin."""
        pcs: list[int] | None = [] if self.coverage is not None else None
        runners = self._runners(case, verified, pcs) | classic.judges(case)
        twins: dict[str, Runner] = {}
        if case.twin:
            twin = replace(case, code=case.twin, classic=b"")
            other = prepared(twin)
            twins = {name: ENGINES[name](twin, other) for name in self.engines}
        for given in case.inputs:
            outcomes = {name: runner(given) for name, runner in runners.items()}
            wrong = _wrong(outcomes, given)
            if wrong is not None:
                return wrong
            differing = differences(outcomes)
            if differing and "kernel" in outcomes and depends_on_addresses(verified, given):
                outcomes["kernel"] = None
                differing = differences(outcomes)
            if differing and not outcomes.keys().isdisjoint(CALLED) and depends_on_stack(verified, given):
                differing = differences(_not_called(outcomes))
            first = next(iter(outcomes.values()))
            if self.coverage is not None and pcs is not None and first is not None:
                self._note(outcomes, first)
                self.coverage.executed(verified, pcs)
                self.instructions += len(pcs)
                pcs.clear()
            if differing:
                return Problem(DIFFERS, given, _said(outcomes, differing))
            for name, runner in twins.items():
                outcome = runner(given)
                if first is not None and outcome is not None and not _equal(first, outcome):
                    return Problem(TWIN, given, _said({"it": first, f"twin on {name}": outcome}, ()))
        return None


def _wrong(outcomes: dict[str, Outcome | None], given: Input) -> Problem | None:
    """Return what is wrong whatever the others say: what was proven, or memory that is not the run's."""
    for name, outcome in outcomes.items():
        if outcome is None:
            continue
        if outcome.kind in NATURES:
            return Problem(NATURES[outcome.kind], given, f"{name}: {outcome}")
        if outcome.outside:
            return Problem(OUTSIDE, given, f"{name}: {outcome.outside}; it ended with {outcome}")
    return None


def _noting(pcs: list[int] | None) -> Watcher | None:
    """Return what notes the steps of a run, None where nobody wants them."""
    return None if pcs is None else lambda pc, registers: pcs.append(pc)


def _not_called(outcomes: dict[str, Outcome | None]) -> dict[str, Outcome | None]:
    """Return the outcomes of engines that are given a stack; a call has the thread's."""
    return {name: outcome for name, outcome in outcomes.items() if name not in CALLED}


def _first_line(error: Exception) -> str:
    return f"{type(error).__name__}: {error}".splitlines()[0]


def _verify(verified: Verified) -> None:
    """Let the verifier look at it: whatever it says, it may raise nothing but VerifierError."""
    with suppress(VerifierError):
        verifier.check(verified.program)


def _equal(one: Outcome, other: Outcome) -> bool:
    """True where a program and its twin did the same: pcs, budget and dead stack may differ."""
    return (one.kind, one.value, one.memory) == (other.kind, other.value, other.memory)


def _said(outcomes: dict[str, Outcome | None], differing: Sequence[str]) -> str:
    answers = "; ".join(f"{name}: {outcome}" for name, outcome in outcomes.items())
    return f"{answers} ({', '.join(differing)})" if differing else answers
