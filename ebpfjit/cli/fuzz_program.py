"""`ebpfjit fuzz FILE`: inputs that find what is wrong with a program, packets where it is given such."""

from __future__ import annotations

import hashlib
import re
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ebpfjit.cli import state
from ebpfjit.cli.fuzz import DEFAULT_LIMIT, DEFAULT_SECONDS
from ebpfjit.cli.options import captured, engines_of, loading, one_of
from ebpfjit.cli.output import print_json, write_file
from ebpfjit.cli.parameters import WrongUsage

if TYPE_CHECKING:
    from ebpfjit.cli.fuzz import Options
    from ebpfjit.elf.loader import Object
    from ebpfjit.fuzzing import Finding, Report
    from ebpfjit.fuzzing.finding import Entries
    from ebpfjit.fuzzing.written import Origin
    from ebpfjit.keywords import FuzzOptions, LoadOptions
    from ebpfjit.program import Program

MOST_COMPARED = 64
"""Kept inputs on which engines are compared that the loop does not have."""
OURS = frozenset({"interpreter", "jit"})
"""Engines that are compared in the loop."""
PROGRESS_SECONDS = 0.5
SHOWN = 64
"""Bytes of an input that are shown."""
_UNITS = {"": 1.0, "s": 1.0, "m": 60.0, "h": 3600.0}


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


def run(asked: Options, file: str) -> int:
    """Look for inputs of a file's program; print findings. Return the exit status, 1 where there are any."""
    from ebpfjit.fuzzing import fuzz

    _check(asked)
    told = loading(asked.btf, asked.kconfig, asked.maps)
    program, obj = one_of(file, asked.program, told)
    if asked.pcap is not None and not is_given_packets(program):
        raise WrongUsage("--pcap is for programs that are given packets")
    fresh = held(program)  # what maps hold before --map and --global
    state.prepare(obj, file, asked.map_ or (), asked.variables or ())
    begin = held(program)
    engines = engines_of(asked.engines)
    options = _options(asked, program, told, engines)
    report = fuzz(program, progress=_Progress(), **options)
    differences = _compared(program, report, engines, options["limit"])
    saved = _save(report, asked.corpus)
    if asked.tests is not None and report.findings:
        from ebpfjit.fuzzing.written import pytest_file

        before = {name: [each for each in now if each not in fresh[name]] for name, now in begin.items()}
        origin = _origin(asked, program, obj, told, before)
        write_file(asked.tests, pytest_file(report.findings, origin))
    if asked.as_json:
        print_json(_as_json(report, differences, asked.seed))
    else:
        _print(report, differences, saved, asked.tests)
    if report.failure:
        print(f"ebpfjit fuzz: {report.failure}; this is what was found so far", file=sys.stderr)
    is_wrong = report.findings or differences or report.failure
    return 130 if report.interrupted else 1 if is_wrong else 0


def _check(asked: Options) -> None:
    """Raise WrongUsage for what does not go with a file, or with this one."""
    for name in ("sources", "builds", "report", "programs"):
        if getattr(asked, name) is not None:
            raise WrongUsage(f"--{name} is for programs that are made, not for one of a file")
    if asked.tests is not None and asked.file == "-":
        raise WrongUsage("--tests needs a FILE, which the tests read")
    if asked.tests is not None and (asked.tests.is_dir() or not asked.tests.parent.is_dir()):
        # said before the time is spent: findings would be lost
        raise WrongUsage(f"--tests takes a file in a folder that is there, not {asked.tests}")


def _options(asked: Options, program: Program, told: LoadOptions, engines: tuple[str, ...]) -> FuzzOptions:
    """Return what the options say to `fuzz`."""
    from ebpfjit.difftest.engines import check_engines
    from ebpfjit.ready import ready

    seconds = seconds_of(asked.until) if asked.until is not None else asked.seconds
    against = None
    if asked.against is not None:
        against, _ = one_of(asked.against, asked.program or program.name, told)
    sizes = sizes_of(asked.size)
    check_engines(engines, least=1)
    ready(program).refuse_missing()  # who wrote it wants to know what is wrong with it, not that inputs are
    return {
        "check": asked.check,
        "against": against,
        "seconds": DEFAULT_SECONDS if seconds is None and asked.inputs is None else seconds,
        "runs": asked.inputs,
        "seed": asked.seed,
        "packets": _seeds(asked.corpus) + (captured(asked.pcap) if asked.pcap is not None else []),
        "limit": DEFAULT_LIMIT if asked.limit is None else asked.limit,
        "changes_maps": not asked.keep_maps,
        "sizes": sizes,
        "compare_engines": set(engines) >= OURS,
    }


def is_given_packets(program: Program) -> bool:
    """True for a program that runs on packets."""
    from ebpfjit.runtime.contexts.types import program_type

    return program.type is not None and program_type(program.type).has_packet


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
            write_file(path, data)
            new += 1
    return new


def _compared(
    program: Program, report: Report, engines: tuple[str, ...], limit: int
) -> list[tuple[bytes, str]]:
    """Compare engines that the loop has not on inputs that were kept; return where they differ."""
    if len(engines) < 2 or set(engines) == OURS:
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
        given = Input(data, limit)
        if case is not None:
            problem = examine(replace(case, inputs=(given,)), engines)
            text = "" if problem is None else problem.text
        else:
            compared = compare_program(program, [given], engines)
            text = "" if compared.agree else str(compared)
        if text:
            found.append((data, text))
    return found


def _origin(
    asked: Options, program: Program, obj: Object | None, told: LoadOptions, before: Entries
) -> Origin:
    """Return where a test has the program from."""
    from ebpfjit.cli.files import FileKind, kind_of, read_bytes
    from ebpfjit.fuzzing.written import Origin, Source

    file = asked.file or ""
    kind = FileKind.OBJECT if obj is not None else kind_of(file, read_bytes(file))
    load = {**told, **({"btf": asked.btf} if asked.btf is not None else {})}  # a test reads the file anew
    return Origin(
        file, program.name or "", asked.against or "", source=Source[kind.name], load=load, before=before
    )


def _as_json(report: Report, differences: list[tuple[bytes, str]], seed: int) -> dict[str, Any]:
    return {
        "seed": seed,
        "inputs": report.runs,
        "ended": report.runs - report.faults - report.refused,
        "faulted": report.faults,
        "differences": [{"input": packet.hex(), "text": text} for packet, text in differences],
        **report.to_json(),
    }


def _print(report: Report, differences: list[tuple[bytes, str]], saved: int, tests: Path | None) -> None:
    for finding in report.findings:
        _print_finding(finding)
    for data, text in differences:
        print(f"engines differ on {_shown(data)}")
        print(text)
    if saved:
        print(f"{saved} inputs saved")
    if tests is not None and report.findings:
        print(f"tests written: {tests}")
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
