"""What is counted of a program, and what a trace of the interpreter has it be."""

from __future__ import annotations

from collections import Counter

from ebpfjit.analysis.verified import Verified
from ebpfjit.coverage.counts import Counts, counts_of
from ebpfjit.difftest import engines
from ebpfjit.difftest.case import Case
from ebpfjit.difftest.outcome import Outcome
from ebpfjit.program import Program
from ebpfjit.runtime import counters


def counted(program: Program) -> Counts:
    """What was counted of a program so far, which is forgotten."""
    found = counters.counters_of(program)
    counts = counts_of(found)
    for index in range(len(found.words)):
        found.words[index] = 0
    found.faults.clear()
    return counts


def traced(case: Case, verified: Verified) -> tuple[Counts, list[Outcome | None]]:
    """The same from a trace of the interpreter, and how each run ends."""
    executed: Counter[int] = Counter()
    steps: Counter[tuple[int, int]] = Counter()
    last = -1

    def watch(pc: int, registers: list[int]) -> None:
        nonlocal last
        executed[pc] += 1
        steps[last, pc] += 1
        last = pc

    run = engines.on_interpreter(case, verified, watch)
    outcomes = []
    for given in case.inputs:
        last = -1
        outcomes.append(run(given))
    shape = counted(verified.program)
    branches = {}
    for pc in shape.branches:
        insn = verified.program.slots[pc]
        assert insn is not None
        assert insn.target is not None
        branches[pc] = steps[pc, insn.target], steps[pc, pc + 1]
    return Counts({pc: executed[pc] for pc in shape.executed}, branches), outcomes


def came_to_its_end(outcomes: list[Outcome | None]) -> bool:
    """True where no limit ended a run: behind its last branch nothing shows which way that went."""
    return all(outcome is not None and outcome.kind == "ok" for outcome in outcomes)
