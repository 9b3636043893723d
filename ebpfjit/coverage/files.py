"""What was executed, by file and line: as people read it."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import field
from itertools import zip_longest

from ebpfjit.coverage.covered import Covered
from ebpfjit.record import dataclass


@dataclass
class Branch:
    """A conditional jump of a line: how often it was `taken`, `not_taken`, and `to` which lines it leads."""

    taken: int
    not_taken: int
    to: tuple[int, int]


@dataclass
class Function:
    """A function by `name`: the `line` where its code starts, its `calls`, the `lines` of its code."""

    name: str
    line: int
    calls: int
    lines: set[int]


@dataclass
class FileCoverage:
    """A source file: how often each line that has code was executed, its branches and functions.

    A line was executed as often as that of its instructions that was executed most often. Where several
    programs have code of one line, counts are summed; their branches are taken for the same, in their order.
    `texts` are lines as the object knows them. A program without lines is a file of its own whose name is in
    angle brackets: its slots are the lines, from 1 on.
    """

    name: str
    lines: dict[int, int] = field(default_factory=dict)
    branches: dict[int, list[Branch]] = field(default_factory=dict)
    functions: dict[str, Function] = field(default_factory=dict)
    texts: dict[int, str] = field(default_factory=dict)

    @property
    def is_a_file(self) -> bool:
        """False of a program without lines."""
        return not self.name.startswith("<")

    @property
    def shown(self) -> str:
        """The name as reports have it: from here, where it lies below."""
        name = self.name if self.name.isprintable() else repr(self.name)
        here = f"{os.getcwd()}{os.sep}"
        return name.removeprefix(here)

    @property
    def missing(self) -> list[int]:
        """The lines that were not executed, in order."""
        return sorted(line for line, count in self.lines.items() if not count)

    @property
    def ways(self) -> tuple[int, int]:
        """How many ways its branches have, two each; how many of them were gone."""
        ways = [way for line in self.branches.values() for one in line for way in (one.taken, one.not_taken)]
        return len(ways), sum(map(bool, ways))

    @property
    def percent(self) -> float:
        """How much of lines and ways was executed, in percent (as coverage.py counts with branches)."""
        ways, gone = self.ways
        whole = len(self.lines) + ways
        return 100 * (len(self.lines) - len(self.missing) + gone) / whole if whole else 100.0

    def add(self, other: FileCoverage) -> None:
        """Add what another program (`other`) says of the same file."""
        for line, count in other.lines.items():
            self.lines[line] = self.lines.get(line, 0) + count
        for line, branches in other.branches.items():
            pairs = zip_longest(self.branches.get(line, ()), branches)
            self.branches[line] = [_sum(one, another) for one, another in pairs]
        for name, function in other.functions.items():
            known = self.functions.setdefault(name, Function(name, function.line, 0, set()))
            known.line, known.calls = min(known.line, function.line), known.calls + function.calls
            known.lines |= function.lines
        self.texts |= other.texts


def _sum(one: Branch | None, other: Branch | None) -> Branch:
    if one is None or other is None:
        found = one or other
        assert found is not None  # zip_longest gives one at least
        return found
    return Branch(one.taken + other.taken, one.not_taken + other.not_taken, one.to)


def by_file(programs: Iterable[Covered]) -> dict[str, FileCoverage]:
    """Return what was executed of programs by the names of their files, in their order."""
    files: dict[str, FileCoverage] = {}
    for covered in programs:
        for part in _files_of(covered):
            files.setdefault(part.name, FileCoverage(part.name)).add(part)
    return dict(sorted(files.items()))


def _files_of(covered: Covered) -> Iterator[FileCoverage]:
    """Yield what one program says of each file that it has lines of."""
    has_lines, files = bool(covered.places), dict[str, FileCoverage]()
    places = covered.places if has_lines else {pc: (covered.label, pc + 1) for pc in covered.executed}
    for pc, count in covered.executed.items():
        if pc in places:  # what stands before the first line is nobody's
            name, line = places[pc]
            file = files.setdefault(name, FileCoverage(name, texts=dict(covered.texts.get(name, {}))))
            file.lines[line] = max(file.lines.get(line, 0), count)
    for pc in sorted(covered.branches.keys() & places.keys()):
        name, line = places[pc]
        to = tuple(places.get(way, (name, 0))[1] for way in (covered.targets.get(pc, -1), pc + 1))
        files[name].branches.setdefault(line, []).append(Branch(*covered.branches[pc], (to[0], to[1])))
    starts = sorted(covered.functions)
    for start, stop in zip_longest(starts, starts[1:], fillvalue=1 << 62):
        inside = [pc for pc in covered.executed if start <= pc < stop and pc in places]
        if inside:
            name, line = places[inside[0]]
            lines = {places[pc][1] for pc in inside if places[pc][0] == name}
            made = Function(covered.functions[start], line, covered.executed[inside[0]], lines)
            files[name].functions[made.name] = made
    yield from files.values()
