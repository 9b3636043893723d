"""How often what of a program was executed: counted by all engines of ours, while somebody asks for it.

    Counters.words     for each slot two u64, which machine code (`translators/x86_64/counts.py`) and the
                       interpreter add to:
                       how often the segment that starts there was executed, how often the branch there was
                       not taken (`ebpfjit/analysis/segments.py`)
    Counters.faults    by slot, how many runs a fault there ended: what is behind it in its segment was not
                       executed

There is one for each program of a process, by what it is, as objects may be loaded again and again. It is
never given back, since machine code has its address, nor set to zero: who counts looks before and after.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterator

from ebpfjit.errors import BudgetExhausted, ExecutionError, Stopped
from ebpfjit.program import Program

Key = tuple[str | None, str | None, bytes, str | None]
_all: dict[Key, Counters] = {}
OURS = "<ebpfjit>"
"""The origin of programs of the library's own, which are nobody's to cover."""
_asking = 0
at_exit: list[Callable[[], None]] = []
"""What children that end without Python's own exit call before: they leave what they counted."""


class Counters:
    """Those of one program, `program`."""

    def __init__(self, program: Program) -> None:
        self.program = program
        self.words = (ctypes.c_uint64 * (2 * len(program)))()
        self.faults: dict[int, int] = {}

    @property
    def address(self) -> int:
        """Where the words are."""
        return ctypes.addressof(self.words)


def segment_word(pc: int) -> int:
    """Return which word says how often the segment that starts at a slot was executed."""
    return 2 * pc


def branch_word(pc: int) -> int:
    """Return which word says how often the branch at a slot was not taken, where that is counted."""
    return 2 * pc + 1


def start() -> None:
    """Count from now on: what is prepared for an engine meanwhile. It may be asked for several times."""
    global _asking
    _asking += 1


def stop() -> None:
    """Take one `start` back; machine code that counts goes on doing so."""
    global _asking
    _asking -= 1


def are_on() -> bool:
    """True while somebody counts."""
    return _asking > 0


def counters_of(program: Program) -> Counters:
    """Return a program's counters."""
    key = program.name, program.section, program.code, program.origin
    found = _all.get(key)
    return found if found is not None else _all.setdefault(key, Counters(program))


def all_counters() -> Iterator[Counters]:
    """Yield those of all programs of users that anybody counted."""
    yield from [each for each in [*_all.values()] if each.program.origin != OURS]


def note_fault(error: ExecutionError, program: Program) -> None:
    """Count a fault that ends a run. A limit ends runs where nothing of a segment was executed, or all."""
    if _all and error.pc is not None and not isinstance(error, BudgetExhausted | Stopped):
        faults = counters_of(program).faults
        faults[error.pc] = faults.get(error.pc, 0) + 1
