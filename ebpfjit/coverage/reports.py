"""Reports of coverage: text and lcov with counts; HTML and XML by coverage.py's own reporters.

term     a table: lines, branches, what is missing, for each file
lcov     counts of lines, branches and functions: what genhtml, diff-cover and editors read
html     coverage.py's pages          } by the plugin in `cov_plugin.py`; they need the package `coverage`
xml      Cobertura's format           } (an extra, ebpfjit[cov])
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from ebpfjit.coverage.files import FileCoverage
from ebpfjit.coverage.recording import Coverage
from ebpfjit.errors import InputError

TO = {"term": "", "html": "htmlcov", "lcov": "coverage.lcov", "xml": "coverage.xml"}
"""The reports, and where each is written if nobody says: a folder, a file; the first one is printed."""
KINDS = tuple(TO)


def text(coverage: Coverage) -> str:
    """Return `coverage` as a table, a line for each file; then functions that were never called, and what has
    slots for lines.

    Name          Lines  Miss  Branches  Part  Cover  Missing
    filter.c         12     1         8     1    90%  14
    """
    files = [*coverage.files.values()]
    numbers = [_numbers(file) for file in files]
    sums = [sum(column) for column in zip(*numbers, strict=True)] or [0, 0, 0, 0]
    rows = [["Name", "Lines", "Miss", "Branches", "Part", "Cover", "Missing"]]
    for file, counts in zip(files, numbers, strict=True):
        rows.append([file.shown, *map(str, counts), _percent(file.percent), _missing(file)])
    rows.append(["TOTAL", *map(str, sums), _percent(coverage.percent) if files else "-", ""])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = []
    for row in rows:
        right = "  ".join(text.rjust(width) for text, width in zip(row[1:-1], widths[1:-1], strict=True))
        lines.append(f"{row[0].ljust(widths[0])}  {right}  {row[-1]}".rstrip())
    idle = [(file, one) for file in files for one in file.functions.values() if not one.calls]
    if idle:
        named = (f"{one.name} ({file.shown}:{one.line})" for file, one in idle)
        lines.append(f"never called: {', '.join(named)}")
    bare = [file.shown for file in files if not file.is_a_file]
    if bare:
        lines.append(f"no source is known of {', '.join(bare)}: numbers are slots (pc), counted from 1")
    if not files:
        lines.append("no program was run while coverage was on")
    return "\n".join(lines) + "\n"


def _numbers(file: FileCoverage) -> tuple[int, int, int, int]:
    """Return lines, lines that were missed, ways of branches, branches that went one way only."""
    branches = [branch for line in file.branches.values() for branch in line]
    part = sum((branch.taken > 0) != (branch.not_taken > 0) for branch in branches)
    return len(file.lines), len(file.missing), file.ways[0], part


def _percent(percent: float) -> str:
    """Return whole percents: 100 only where all is executed."""
    return f"{int(percent)}%"


def _missing(file: FileCoverage) -> str:
    """Return lines that were missed, as ranges over those with code, then branches that went one way only."""
    found = [str(first) if first == last else f"{first}-{last}" for first, last in _ranges(file)]
    for line, branches in sorted(file.branches.items()):
        for branch in branches:
            if (branch.taken > 0) != (branch.not_taken > 0):
                found.append(f"{line}->{branch.to[branch.taken > 0] or 'exit'}")
    return ", ".join(dict.fromkeys(found))


def _ranges(file: FileCoverage) -> Iterator[tuple[int, int]]:
    """Yield stretches of missing lines between which no line was executed."""
    first: int | None = None
    last = 0
    for line in sorted(file.lines):
        if not file.lines[line]:
            first, last = line if first is None else first, line
        elif first is not None:
            yield first, last
            first = None
    if first is not None:
        yield first, last


def lcov(coverage: Coverage) -> str:
    """Return the coverage as a tracefile of lcov."""
    return "".join(f"{line}\n" for file in coverage.files.values() for line in _lcov_of(file))


def _lcov_of(file: FileCoverage) -> Iterator[str]:
    yield "TN:"
    yield f"SF:{file.shown}"
    functions = sorted(file.functions.values(), key=lambda one: one.line)
    yield from (f"FN:{one.line},{one.name}" for one in functions)
    yield from (f"FNDA:{one.calls},{one.name}" for one in functions)
    yield f"FNF:{len(functions)}"
    yield f"FNH:{sum(one.calls > 0 for one in functions)}"
    for line, branches in sorted(file.branches.items()):
        for block, branch in enumerate(branches):
            was_executed = branch.taken or branch.not_taken
            for way, count in enumerate((branch.taken, branch.not_taken)):
                yield f"BRDA:{line},{block},{way},{count if was_executed else '-'}"
    ways, gone = file.ways
    yield f"BRF:{ways}"
    yield f"BRH:{gone}"
    yield from (f"DA:{line},{count}" for line, count in sorted(file.lines.items()))
    yield f"LF:{len(file.lines)}"
    yield f"LH:{len(file.lines) - len(file.missing)}"
    yield "end_of_record"


def wanted(said: str) -> list[tuple[str, str | None]]:
    """Return the reports that `said` asks for ("term,lcov:out.lcov"), each with where to, None for the usual.

    Raises InputError for a kind that there is none of.
    """
    found: list[tuple[str, str | None]] = []
    for text in filter(None, map(str.strip, said.split(","))):
        kind, _, to = text.partition(":")
        if kind not in KINDS or (to and kind == "term"):
            raise InputError(
                f"reports of coverage are {', '.join(KINDS)}, the last three with a place if you like "
                f"(lcov:out.lcov); {text!r} is none"
            )
        found.append((kind, to or None))
    return found


def write(coverage: Coverage, kind: str, to: str | os.PathLike[str] | None = None) -> Path:
    """Write a report of a kind ("html", "lcov", "xml") to a file, or a folder, and return where it is.

    Raises InputError for another kind, and where the package `coverage` is needed and not there; OSError
    where it cannot be written.
    """
    if kind not in KINDS[1:]:
        raise InputError(f"no report {kind!r} of coverage can be written; there are {', '.join(KINDS[1:])}")
    path = Path(to if to is not None else TO[kind])
    try:
        _write(coverage, kind, path)
    except OSError as error:
        if error.filename is None:  # a full disk's comes without
            error.filename = os.fspath(path)
        raise
    return path


def _write(coverage: Coverage, kind: str, path: Path) -> None:
    if kind == "lcov":
        path.write_text(lcov(coverage), encoding="utf-8")
        return
    try:
        from ebpfjit.coverage import cov_plugin
    except ModuleNotFoundError as error:
        if error.name != "coverage":
            raise
        raise InputError(
            f"a report as {kind} needs the package coverage: pip install 'ebpfjit[cov]'"
        ) from None
    cov_plugin.report(coverage, kind, path)
