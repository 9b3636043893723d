"""`ebpfjit fuzz FILE`: inputs that find what is wrong with a program, packets where it is given such."""

from __future__ import annotations

import hashlib
import re
import sys
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ebpfjit.cli.options import captured
from ebpfjit.cli.output import print_json
from ebpfjit.cli.parameters import WrongUsage
from ebpfjit.record import dataclass

if TYPE_CHECKING:
    from ebpfjit.elf.loader import Object
    from ebpfjit.fuzzing import Finding, Report
    from ebpfjit.fuzzing.finding import Entries
    from ebpfjit.fuzzing.written import Origin
    from ebpfjit.program import Program

MOST_COMPARED = 64
"""Kept inputs on which engines are compared that the loop does not have."""
OURS = frozenset({"interpreter", "jit"})
"""Engines that are compared in the loop."""
PROGRESS_SECONDS = 0.5
SHOWN = 64
"""Bytes of an input that are shown."""
_UNITS = {"": 1.0, "s": 1.0, "m": 60.0, "h": 3600.0}


@dataclass(frozen=True, slots=True)
class How:
    """What is asked for: a predicate, another version, how long, what to start from, where findings go."""

    check: str | None
    against: Program | None
    against_file: str
    seconds: float | None
    runs: int | None
    seed: int
    limit: int
    sizes: tuple[int, int] | None
    changes_maps: bool
    engines: tuple[str, ...]
    corpus: Path | None
    pcap: str | None
    tests: Path | None
    load: Mapping[str, Any]
    """What the object is loaded with besides."""


def seconds_of(text: str) -> float:
    """Return a time as people write it: 60, 60s, 5m, 1h. Raises WrongUsage for anything else."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([smh]?)", text.strip())
    if found is None or not float(found[1]):
        raise WrongUsage("--until takes a time: 60s, 5m, 1h")
    return float(found[1]) * _UNITS[found[2]]


def sizes_of(text: str | None) -> tuple[int, int] | None:
    """Return sizes as people write them: 64, 60-1500. Raises WrongUsage for anything else."""
    if text is None:
        return None
    found = re.fullmatch(r"(\d{1,9})(?:-(\d{1,9}))?", text.strip())
    if found is None:
        raise WrongUsage("--size takes a number of bytes, or the least and the most: 64, 60-1500")
    return int(found[1]), int(found[2] or found[1])


def held(program: Program) -> Entries:
    """Return what a program's maps hold, by name."""
    if not program.maps:
        return {}
    from ebpfjit.fuzzing.state import Maps

    return {map_.definition.name: entries for map_, entries in Maps(program).contents()}


def run(file: str, program: Program, obj: Object | None, how: How, fresh: Entries, *, as_json: bool) -> int:
    """Look for inputs; print findings. Return the exit status: 1 where anything was found.

    `fresh` is what maps held before --map and --global.
    """
    from ebpfjit.difftest.engines import check_engines
    from ebpfjit.fuzzing import fuzz
    from ebpfjit.ready import ready

    check_engines(how.engines, least=1)
    ready(program).refuse_missing()  # who wrote it wants to know what is wrong with it, not that inputs are
    start = _seeds(how.corpus)
    start += captured(how.pcap) if how.pcap is not None else []
    begin = held(program)
    report = fuzz(
        program,
        check=how.check,
        against=how.against,
        seconds=how.seconds,
        runs=how.runs,
        seed=how.seed,
        packets=start,
        limit=how.limit,
        sizes=how.sizes,
        changes_maps=how.changes_maps,
        compare_engines=set(how.engines) >= OURS,
        progress=_Progress(),
    )
    differences = _compared(program, report, how)
    saved = _save(report, how.corpus)
    if how.tests is not None and report.findings:
        before = {name: [each for each in now if each not in fresh[name]] for name, now in begin.items()}
        _write_tests(how.tests, _origin(file, program, obj, how, before), report)
    if as_json:
        print_json(_as_json(report, differences, how.seed))
    else:
        _print(report, differences, saved, how)
    return 130 if report.interrupted else 1 if report.findings or differences else 0


def _seeds(corpus: Path | None) -> list[bytes]:
    """Return the inputs of a folder, which is made where it is not there."""
    if corpus is None:
        return []
    corpus.mkdir(parents=True, exist_ok=True)
    return [path.read_bytes() for path in sorted(corpus.glob("*.bin"))]


def _save(report: Report, corpus: Path | None) -> int:
    """Write what was kept and found into a folder; return how many are new."""
    if corpus is None:
        return 0
    return _written({*report.kept, *(each.packet for each in report.findings)}, corpus)


def _written(found: Iterable[bytes], corpus: Path) -> int:
    new = 0
    for data in sorted(found):
        path = corpus / f"{hashlib.sha256(data).hexdigest()[:16]}.bin"
        if not path.exists():
            path.write_bytes(data)
            new += 1
    return new


def _compared(program: Program, report: Report, how: How) -> list[tuple[bytes, str]]:
    """Compare engines that the loop has not on inputs that were kept; return where they differ."""
    if len(how.engines) < 2 or set(how.engines) == OURS:
        return []
    from dataclasses import replace

    from ebpfjit.difftest.case import Case, Input
    from ebpfjit.difftest.compare import compare_program
    from ebpfjit.difftest.finding import examine
    from ebpfjit.ready import is_plain

    found = []
    kept = [data for data, context in zip(report.kept, report.contexts, strict=True) if not context]
    case = Case(program.code, ()) if is_plain(program) else None
    for data in kept[:MOST_COMPARED]:
        given = Input(data, how.limit)
        if case is not None:
            problem = examine(replace(case, inputs=(given,)), how.engines)
            text = "" if problem is None else problem.text
        else:
            compared = compare_program(program, [given], how.engines)
            text = "" if compared.agree else str(compared)
        if text:
            found.append((data, text))
    return found


def _write_tests(path: Path, origin: Origin, report: Report) -> None:
    """Write a test for each finding."""
    from ebpfjit.fuzzing.written import pytest_file

    path.write_text(pytest_file(report.findings, origin), encoding="utf-8")


def _origin(file: str, program: Program, obj: Object | None, how: How, before: Entries) -> Origin:
    """Return where a test has the program from."""
    from ebpfjit.cli.files import FileKind, kind_of, read_bytes
    from ebpfjit.fuzzing.written import Origin, Source

    kind = FileKind.OBJECT if obj is not None else kind_of(file, read_bytes(file) if file != "-" else b"")
    name = program.name or ""
    return Origin(file, name, how.against_file, source=Source[kind.name], load=how.load, before=before)


def _as_json(report: Report, differences: list[tuple[bytes, str]], seed: int) -> dict[str, Any]:
    return {
        "seed": seed,
        "inputs": report.runs,
        "ended": report.runs - report.faults - report.refused,
        "faulted": report.faults,
        "differences": [{"input": packet.hex(), "text": text} for packet, text in differences],
        **report.to_json(),
    }


def _print(report: Report, differences: list[tuple[bytes, str]], saved: int, how: How) -> None:
    for finding in report.findings:
        _print_finding(finding)
    for data, text in differences:
        print(f"engines differ on {_shown(data)}")
        print(text)
    if saved:
        print(f"{saved} inputs saved")
    if how.tests is not None and report.findings:
        print(f"tests written: {how.tests}")
    if report.interrupted:
        print("interrupted: this is what was found so far")
    rate = report.runs / report.seconds if report.seconds else 0.0
    print(
        f"{report.runs:,} runs in {report.seconds:.1f} s ({rate:,.0f} a second), {len(report.kept)} kept; "
        f"{report.reached} of {report.instructions} instructions, "
        f"{report.ways} of {report.all_ways} ways of branches"
    )
    if report.refused:
        print(f"{report.refused:,} of them did not begin: no context is like that")
    if report.worst_cost:
        print(f"costliest of those kept: {report.worst_cost} instructions, {_shown(report.worst)}")
    print(f"{len(report.findings)} findings, {len(differences)} differences between engines")


def _print_finding(finding: Finding) -> None:
    print(f"{finding.kind}: {finding.text}")
    print(f"  {len(finding.packet)} bytes: {_shown(finding.packet)}")
    if finding.scapy:
        print(f"  {finding.scapy}")
    if finding.context:
        print(f"  context: {', '.join(f'{name}={value!r}' for name, value in finding.context.items())}")
    more = []
    if len({*finding.packets}) == 1 < len(finding.packets):
        more.append(f"{len(finding.packets)} times")
    elif len(finding.packets) > 1:
        more.append(f"behind {len(finding.packets) - 1} other {'packets' if finding.frames else 'inputs'}")
    if finding.cleared:
        more.append(f"without entries in {', '.join(finding.cleared)}")
    if finding.maps:
        more.append(
            "with entries in " + ", ".join(f"{name} ({len(each)})" for name, each in finding.maps.items())
        )
    if more:
        print(f"  {'; '.join(more)}: --tests FILE has them")


def _shown(data: bytes) -> str:
    """Return an input in hex, cut where it is long."""
    more = f"... ({len(data)} bytes)" if len(data) > SHOWN else ""
    return (data[:SHOWN].hex() or "(empty)") + more


class _Progress:
    """The progress line on standard error, where that is a terminal."""

    def __init__(self) -> None:
        self.last = time.monotonic()

    def __call__(self, report: Report) -> None:
        """Show where the run is."""
        now = time.monotonic()
        if sys.stderr.isatty() and now - self.last >= PROGRESS_SECONDS:
            self.last = now
            text = f"{report.runs:,} runs, {len(report.kept)} kept, {len(report.findings)} findings"
            print(f"\r{text}\x1b[K", end="\r", file=sys.stderr, flush=True)
