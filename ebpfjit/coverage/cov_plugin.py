"""A plugin of coverage.py: its reporters on files that programs come from. The only module that needs it.

    Coverage -> coverage.CoverageData (lines and ways as arcs), a FileReporter for each file -> html, xml

coverage.py knows of a line whether it was executed, and of a branch which lines it went to. A way is an arc
from the branch's line to a number that stands for it: that of the line, where no other way has it.
"""

from __future__ import annotations

import contextlib
import tempfile
from collections import Counter
from collections.abc import Iterable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import coverage
from coverage.plugin import CodeRegion, CoveragePlugin, FileReporter

from ebpfjit.coverage.files import FileCoverage
from ebpfjit.coverage.recording import Coverage
from ebpfjit.errors import InputError

NAME = "ebpfjit.coverage.cov_plugin"


_at_hand: dict[str, FileReporter] = {}
"""What tells of each file while a report is made, by its absolute path."""


class Plugin(CoveragePlugin):
    """Knows the files of the report that is made."""

    def file_reporter(self, filename: str) -> FileReporter:
        """Return what tells of a file."""
        return _at_hand[filename]


def coverage_init(registry: Any, options: Any) -> None:
    """Register the plugin: coverage.py calls it."""
    registry.add_file_tracer(Plugin())


class _Reporter(FileReporter):
    """What coverage.py asks of a file."""

    def __init__(self, path: str, file: FileCoverage, *, is_page: bool) -> None:
        super().__init__(path)
        self.file, self.is_page = file, is_page

    def relative_filename(self) -> str:
        """Return the name that reports show."""
        return self.file.shown

    def source(self) -> str:
        """Return the text; where the file is gone, or too short for its lines, what the object has."""
        return self._text

    @cached_property
    def _text(self) -> str:
        last = max(self.file.lines, default=0)
        with contextlib.suppress(OSError, ValueError):
            text = Path(self.filename).read_text(encoding="utf-8", errors="replace")
            if text.count("\n") + 1 >= last:
                return text
        texts = self.file.texts
        return "".join(f"{texts.get(line, '')}\n" for line in range(1, last + 1))

    def source_token_lines(self) -> Iterable[list[tuple[str, str]]]:
        """Yield the source as text of one kind: coverage.py's highlighting is Python's."""
        for line in self.source().splitlines():
            yield [("txt", line.expandtabs(8))]

    def lines(self) -> set[int]:
        """Return the lines that have code."""
        return {line for line in self.file.lines if line > 0}

    def executed(self) -> set[int]:
        """Return those that were executed."""
        return {line for line in self.lines() if self.file.lines[line]}

    def ways(self) -> dict[tuple[int, int], int]:
        """Return each way of each branch as an arc, with how often it was gone.

        Pages show a line with two ways at most: one with more has one that was gone if all were, and another.
        """
        found: dict[tuple[int, int], int] = {}
        for line in sorted(self.file.branches.keys() & self.lines()):
            branches = self.file.branches[line]
            if self.is_page and len(branches) > 1:
                counts = [count for branch in branches for count in (branch.taken, branch.not_taken)]
                found |= {(line, -line): min(counts), (line, -line - 1): max(counts)}
                continue
            for branch in branches:
                for to, count in zip(branch.to, (branch.taken, branch.not_taken), strict=True):
                    arc = (line, to) if to > 0 and to != line else (line, -line)
                    while arc in found:  # several ways to one line: the others have numbers of their own
                        arc = (line, min(arc[1], 0) - 1_000_000)
                    found[arc] = count
        return found

    def arcs(self) -> set[tuple[int, int]]:
        """Return the ways that there are."""
        return set(self.ways())

    def exit_counts(self) -> dict[int, int]:
        """Return how many ways lead out of each line."""
        return dict(Counter(line for line, _ in self.ways()))

    def missing_arc_description(
        self, start: int, end: int, executed_arcs: Iterable[tuple[int, int]] | None = None
    ) -> str:
        """Return what a page says of a line with a way that was not gone: of all of them."""
        branches = self.file.branches[start]
        said = []
        for number, branch in enumerate(branches, 1):
            name = f"branch {number} of {len(branches)}" if len(branches) > 1 else "the branch"
            for count, to, what in zip(
                (branch.taken, branch.not_taken), branch.to, ("taken", "passed"), strict=True
            ):
                if not count:
                    said.append(f"{name} was never {what}{f' (to line {to})' if to > 0 else ''}")
        return f"line {start}: {', '.join(said)}"

    def arc_description(self, start: int, end: int) -> str:
        """Return where a way leads."""
        return f"to line {end}" if end > 0 else "the other way"

    def code_regions(self) -> Sequence[CodeRegion]:
        """Return the functions."""
        shown = self.lines()
        functions = [one for one in self.file.functions.values() if one.lines & shown]
        return [CodeRegion("function", one.name, one.line, one.lines & shown) for one in functions]

    def code_region_kinds(self) -> Sequence[tuple[str, str]]:
        """Return the kinds of regions, and their plural."""
        return [("function", "functions")]


def report(recorded: Coverage, kind: str, to: Path) -> None:
    """Write coverage.py's report of a kind, "html" or "xml". Raises InputError where nothing was executed."""
    reporters = {}
    for file in recorded.files.values():
        path = str(Path(file.name).absolute())  # of what is no file too: coverage.py makes it so
        reporters[path] = _Reporter(path, file, is_page=kind == "html")
    reporters = {path: reporter for path, reporter in reporters.items() if reporter.lines()}
    if not reporters:
        why = (
            "what was run has no lines that can be shown"
            if recorded.files
            else "no program was run while it was on"
        )
        raise InputError(f"there is no coverage to report: {why}")
    with tempfile.TemporaryDirectory() as folder:
        data_file = str(Path(folder, "data"))
        data = coverage.CoverageData(data_file)
        for path, reporter in reporters.items():
            gone = [arc for arc, count in reporter.ways().items() if count]
            data.add_arcs({path: [*gone, *((-1, line) for line in reporter.executed())]})
        data.add_file_tracers(dict.fromkeys(reporters, f"{NAME}.Plugin"))
        data.write()
        data.close()

        cov = coverage.Coverage(data_file=data_file, config_file=False, branch=True)
        cov.set_option("run:plugins", [NAME])
        _at_hand.update(reporters)
        try:
            cov.load()
            if kind == "html":
                cov.html_report(directory=str(to), title="Coverage of eBPF programs")
            else:
                cov.xml_report(outfile=str(to))
        except coverage.CoverageException as error:
            raise InputError(f"coverage.py cannot report it: {error}") from None
        finally:
            _at_hand.clear()
