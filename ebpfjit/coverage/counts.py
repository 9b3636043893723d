"""From what engines counted of a program to how often each instruction was executed, each branch taken."""

from __future__ import annotations

from ebpfjit.coverage.shape import shape_of
from ebpfjit.record import record
from ebpfjit.runtime.counters import Counters


@record
class Counts:
    """How often each instruction was executed, by its slot; each branch, how often it was (taken, not taken).

    An instruction that faulted was executed. A branch to what is behind it is none.
    """

    executed: dict[int, int]
    branches: dict[int, tuple[int, int]]


def counts_of(counters: Counters) -> Counts:
    """Return what was counted of a program so far."""
    words, shape = counters.words, shape_of(counters.program)
    executed: dict[int, int] = {}
    segment, undone = -1, 0
    for pc, word in shape.words.items():
        undone = undone if word == segment else 0
        segment = word
        executed[pc] = words[word] - undone
        undone += counters.faults.get(pc, 0)
    branches = {}
    for pc, _, word in shape.branches:
        passed = words[word]
        branches[pc] = executed[pc] - passed, passed
    return Counts(executed, branches)
