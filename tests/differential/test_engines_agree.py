"""Interpreter and machine code agree on generated programs: value, fault, memory, stack, budget.

EBPFJIT_PROGRAMS sets how many (1,000 unless told); machine code runs in child processes. Some of the
programs are audit builds, and what the optimizer knows of values is held against runs of its code; `make
nightly` runs more.
"""

from __future__ import annotations

import os

import pytest

from ebpfjit.difftest.coverage import BRANCH, ENDING, ENDINGS, FACT, ROW
from ebpfjit.difftest.fuzz import Options, fuzz
from ebpfjit.difftest.report import report_text

PROGRAMS = int(os.environ.get("EBPFJIT_PROGRAMS", "1000"))
JOBS = 2
SOME, ENOUGH = 1000, 3400
"""So many programs reach nearly every, or every, row, ending and way of checking."""

PROOFS = ("frame", "argument", "length", "one at pc n covers it", "made before the loop at pc n")


def test_engines_agree_on_generated_programs() -> None:
    report = fuzz(Options(("interpreter", "jit", "gate"), programs=PROGRAMS, jobs=JOBS))
    assert report.findings == [], report_text(report)
    assert report.total.programs == PROGRAMS
    if PROGRAMS < SOME:
        return
    spare = 0 if PROGRAMS >= ENOUGH else 2
    coverage = report.coverage
    assert len(coverage.missing(ROW)) <= spare, coverage.missing(ROW)
    assert len(coverage.missing(BRANCH)) <= 4
    assert [ending for ending in ENDINGS if not coverage.counts[ENDING, ending]] == []
    facts = coverage.of(FACT)
    assert sum(f"no check: {proof}" not in facts for proof in PROOFS) <= spare, facts


def test_what_is_proven_holds() -> None:
    """Programs full of pointers, more than the other test has: what analysis proves of them is true."""
    engines = ("interpreter", "optimized", "jit")
    report = fuzz(Options(engines, programs=PROGRAMS // 20, jobs=JOBS, seed=2, sources=("pointers",)))
    assert report.findings == [], report_text(report)


def test_runs_go_on_in_other_code(monkeypatch: pytest.MonkeyPatch) -> None:
    """Baseline code up to where a slice ends, optimised code from there on: as the interpreter does."""
    monkeypatch.setenv("EBPFJIT_TIERS", "on")
    report = fuzz(Options(("interpreter", "tiered"), programs=PROGRAMS // 10, jobs=JOBS, seed=3))
    assert report.findings == [], report_text(report)
