"""What may be new of a run: instructions that none executed, ways of branches that none went.

A program and those that it tail-calls are counted each by itself.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Set

from ebpfjit.coverage.shape import shape_of
from ebpfjit.program import Program
from ebpfjit.runtime import counters

Feature = tuple[int, str, int]
Branch = tuple[bytes, int]
"""A program's code, and a slot of it."""


class Features:
    """What may be new of a run, since this was made or begun anew: each with the number of its program.

    (0, "segment", word)   instructions that are executed one after the other
    (0, "taken", slot)     the branch there goes this way; (0, "passed", slot): the other
    """

    def __init__(self, programs: Iterable[Program]) -> None:
        self.parts = [_Part(counters.counters_of(each.own())) for each in programs]

    def begin(self) -> None:
        """Count from here on."""
        for part in self.parts:
            part.begin()

    def count(self, feature: Feature) -> int:
        """Return how often a feature was so."""
        number, what, place = feature
        return self.parts[number].count(what, place)

    def gone(self) -> set[Feature]:
        """Return the features of all runs."""
        return {(number, *each) for number, part in enumerate(self.parts) for each in part.gone()}

    def open(self, seen: Set[Feature]) -> frozenset[Branch]:
        """Return the branches that went one way only."""
        return frozenset(
            (part.found.program.code, pc)
            for number, part in enumerate(self.parts)
            for pc in part.branches
            if ((number, "taken", pc) in seen) != ((number, "passed", pc) in seen)
        )

    def cost(self) -> int:
        """Return how many instructions were executed so far, as if none faulted."""
        return sum(part.cost() for part in self.parts)

    def segments(self) -> Iterator[tuple[Feature, int]]:
        """Yield each segment as a feature, and how many instructions it has."""
        for number, part in enumerate(self.parts):
            yield from (((number, "segment", word), count) for word, count in part.shape.segments)

    @property
    def ways(self) -> int:
        """Ways that all branches have together."""
        return sum(2 * len(part.branches) for part in self.parts)


class _Part:
    """What may be new in one program."""

    def __init__(self, found: counters.Counters) -> None:
        self.found = found
        self.shape = shape_of(found.program)
        self.branches = {pc: (segment, passed) for pc, segment, passed in self.shape.branches}
        self.begin()

    def begin(self) -> None:
        self.before = list(self.found.words)
        self.faults_before = dict(self.found.faults)

    def count(self, what: str, place: int) -> int:
        if what == "segment":
            return self.executed(place)
        segment, passed = self.branches[place]
        if what == "passed":
            return self.executed(passed)
        return self.executed(segment) - self.executed(passed) - self.ended_before(place)

    def executed(self, word: int) -> int:
        """Return what was added to a word."""
        added: int = self.found.words[word] - self.before[word]
        return added

    def ended_before(self, branch: int) -> int:
        """Return how many runs a fault ended in a branch's segment, before they came to it."""
        words, before = self.shape.words, self.faults_before
        return sum(
            count - before.get(pc, 0)
            for pc, count in self.found.faults.items()
            if pc < branch and words.get(pc) == words[branch]
        )

    def gone(self) -> Iterator[tuple[str, int]]:
        executed = self.executed
        yield from (("segment", word) for word, _ in self.shape.segments if executed(word))
        for pc, segment, passed in self.shape.branches:
            not_taken = executed(passed)
            if not_taken:
                yield "passed", pc
            taken = executed(segment) - not_taken
            if taken and taken > self.ended_before(pc):
                yield "taken", pc

    def cost(self) -> int:
        words = self.found.words
        return sum([words[word] * count for word, count in self.shape.segments])
