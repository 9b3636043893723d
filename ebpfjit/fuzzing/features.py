"""What may be new of a run: instructions that none executed, ways of branches that none went."""

from __future__ import annotations

from collections.abc import Set

from ebpfjit.coverage.shape import shape_of
from ebpfjit.runtime import counters

Feature = tuple[str, int]


class Features:
    """What may be new of a run, since this was made or begun anew, each a pair.

    ("segment", word)   instructions that are executed one after the other
    ("taken", slot)     the branch there goes this way; ("passed", slot): the other
    """

    def __init__(self, found: counters.Counters) -> None:
        self.found = found
        self.shape = shape_of(found.program)
        self.branches = {pc: (segment, passed) for pc, segment, passed in self.shape.branches}
        self.begin()

    def begin(self) -> None:
        """Count from here on."""
        self.before = list(self.found.words)
        self.faults_before = dict(self.found.faults)

    def count(self, feature: Feature) -> int:
        """Return how often a feature was so."""
        what, place = feature
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

    def gone(self) -> set[Feature]:
        """Return the features of all runs."""
        executed = self.executed
        found: set[Feature] = {("segment", word) for word, _ in self.shape.segments if executed(word)}
        for pc, segment, passed in self.shape.branches:
            not_taken = executed(passed)
            if not_taken:
                found.add(("passed", pc))
            taken = executed(segment) - not_taken
            if taken and taken > self.ended_before(pc):
                found.add(("taken", pc))
        return found

    def open(self, seen: Set[Feature]) -> frozenset[int]:
        """Return the branches that went one way only."""
        return frozenset(pc for pc in self.branches if (("taken", pc) in seen) != (("passed", pc) in seen))

    def cost(self) -> int:
        """Return how many instructions were executed so far, as if none faulted."""
        words = self.found.words
        return sum([words[word] * count for word, count in self.shape.segments])
