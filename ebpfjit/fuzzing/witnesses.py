"""Witnesses of a verdict: inputs with which runs really go wrong where the verifier says that they may."""

from __future__ import annotations

from dataclasses import replace

from ebpfjit.errors import BudgetExhausted, ExecutionError
from ebpfjit.fuzzing.find import LIMIT, Wanted, find_inputs
from ebpfjit.program import Program
from ebpfjit.verifier.verdict import Refusal, Verdict

LOOKED_FOR = frozenset(
    {"memory", "null", "type", "uninitialised", "termination", "stack", "lock", "reference"}
)
"""Kinds of errors that a run may show. Results, leaks and dead code harm nobody but the kernel."""

_IN_PYTHON = 2_000
"""Instructions of a run that calls kernel functions: these take microseconds, and no run is broken off."""


def with_witnesses(program: Program, verdict: Verdict, seconds: float) -> Verdict:
    """Return a verdict with a witness for each error of which one was found within so many seconds."""
    wanted = {index: _wanted(error) for index, error in enumerate(verdict.errors) if error.kind in LOOKED_FOR}
    if not wanted or seconds <= 0:
        return verdict
    limit = _IN_PYTHON if program.kfuncs else LIMIT
    found = find_inputs(program, dict.fromkeys(wanted.values()), seconds=seconds, limit=limit)
    errors = [
        replace(error, looked=index in wanted, witness=found.get(wanted[index]) if index in wanted else None)
        for index, error in enumerate(verdict.errors)
    ]
    return replace(verdict, errors=tuple(errors))


def _wanted(error: Refusal) -> Wanted:
    return _ends_never if error.kind == "termination" else error.pc


def _ends_never(error: ExecutionError) -> bool:
    return isinstance(error, BudgetExhausted)
