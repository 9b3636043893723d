"""The numbered programs that a child runs, what comes of them, and the note of what runs right now."""

from __future__ import annotations

import gc
import mmap
import struct
import time
from dataclasses import field

from ebpfjit.difftest.case import Case, to_text
from ebpfjit.difftest.check import Checker
from ebpfjit.difftest.coverage import Coverage
from ebpfjit.difftest.finding import Finding, found
from ebpfjit.difftest.sources import case_of
from ebpfjit.record import dataclass

NOTE_SIZE = 1 << 22
_HEADER = struct.Struct("<QQ")  # a number that changes with each program, bytes of text

SAMPLED = 4
"""One program in so many is looked at more closely."""


@dataclass(frozen=True, slots=True)
class Assignment:
    """What all programs of a run have in common; `planted` is a bug to put in, for testing the tester."""

    seed: int
    engines: tuple[str, ...]
    sources: tuple[str, ...]
    corpus: tuple[Case, ...] = ()
    planted: str = ""
    builds: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Batch:
    """Programs to run: numbers from `first` to below `stop`."""

    first: int
    stop: int


@dataclass(slots=True)
class BatchResult:
    """What a batch came to. `seconds` is processor time."""

    programs: int = 0
    slots: int = 0
    instructions: int = 0
    seconds: float = 0.0
    coverage: Coverage = field(default_factory=Coverage)
    findings: list[Finding] = field(default_factory=list)

    def add(self, other: BatchResult) -> None:
        """Take over another batch's."""
        self.programs += other.programs
        self.slots += other.slots
        self.instructions += other.instructions
        self.seconds += other.seconds
        self.coverage.add(other.coverage)
        self.findings += other.findings


class Note:
    """The file in which a child notes what it runs; mapped by both, so it outlives a crash."""

    def __init__(self, path: str) -> None:
        with open(path, "r+b") as file:
            self._map = mmap.mmap(file.fileno(), NOTE_SIZE)

    def write(self, count: int, text: str) -> None:
        """Note the program that is run next; `count` is one that was not there before."""
        data = text.encode()[: NOTE_SIZE - _HEADER.size]
        self._map[_HEADER.size : _HEADER.size + len(data)] = data
        _HEADER.pack_into(self._map, 0, count, len(data))

    def read(self) -> tuple[int, str]:
        """Return the count and the text; (0, "") where nothing was noted."""
        count, size = _HEADER.unpack_from(self._map, 0)
        return count, self._map[_HEADER.size : _HEADER.size + size].decode(errors="replace")

    def close(self) -> None:
        """Unmap it."""
        self._map.close()


def run_batch(assignment: Assignment, batch: Batch, note: Note | None = None) -> BatchResult:
    """Check the programs of a batch; cyclic garbage is collected between batches only.

    What stays is not looked at again: tables of what was seen before have hundreds of thousands of
    entries, and going through all of them took a seventh of the time.
    """
    gc.collect()
    gc.freeze()
    gc.disable()
    result = BatchResult()
    started = time.process_time()
    checker = Checker(assignment.engines, result.coverage)
    for number in range(batch.first, batch.stop):
        case = case_of(assignment.seed, number, assignment.sources, assignment.corpus, assignment.builds)
        if note is not None:
            note.write(number + 1, to_text(case, case.inputs[0]))
        problem = checker.check(case, sampled=number % SAMPLED == 0)
        result.programs += 1
        result.slots += len(case.code) // 8
        if problem is not None:
            result.findings.append(found(number, case, problem))
    result.instructions = checker.instructions
    gc.enable()
    result.seconds = time.process_time() - started
    return result
