"""`ebpfjit fuzz FILE` on a program that is given packets: those that find what is wrong with it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ebpfjit.cli.fuzz_inputs import Progress, seeds, shown
from ebpfjit.cli.options import captured
from ebpfjit.cli.output import print_json
from ebpfjit.cli.parameters import WrongUsage
from ebpfjit.record import dataclass

if TYPE_CHECKING:
    from ebpfjit.fuzzing import Finding, Report
    from ebpfjit.program import Program

MOST_COMPARED = 64
"""Kept packets on which engines are compared."""
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
    engines: tuple[str, ...]
    corpus: Path | None
    pcap: str | None
    tests: Path | None


def seconds_of(text: str) -> float:
    """Return a time as people write it: 60, 60s, 5m, 1h. Raises WrongUsage for anything else."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([smh]?)", text.strip())
    if found is None or not float(found[1]):
        raise WrongUsage("--until takes a time: 60s, 5m, 1h")
    return float(found[1]) * _UNITS[found[2]]


def run(file: str, program: Program, how: How, *, as_json: bool) -> int:
    """Look for packets; print findings. Return the exit status: 1 where anything was found."""
    from ebpfjit.difftest.engines import check_engines
    from ebpfjit.fuzzing import fuzz
    from ebpfjit.ready import ready

    check_engines(how.engines, least=1)
    ready(program).refuse_missing()
    start = seeds(how.corpus)
    start += captured(how.pcap) if how.pcap is not None else []
    report = fuzz(
        program,
        check=how.check,
        against=how.against,
        seconds=how.seconds,
        runs=how.runs,
        seed=how.seed,
        packets=start,
        progress=Progress(lambda each: f"{each.runs:,} runs, {len(each.kept)} kept"),
    )
    differences = _compared(program, report.kept[:MOST_COMPARED], how.engines)
    saved = _save(report, how.corpus)
    name = program.name or ""
    if how.tests is not None:
        parts = [each.pytest(file, name, n, how.against_file) for n, each in enumerate(report.findings, 1)]
        how.tests.write_text("\n\n".join(parts), encoding="utf-8")
    if as_json:
        print_json(_as_json(report, differences, how.seed))
    else:
        _print(report, differences, saved, how)
    return 130 if report.interrupted else 1 if report.findings or differences else 0


def _compared(program: Program, packets: Sequence[bytes], engines: Sequence[str]) -> list[tuple[bytes, str]]:
    """Compare engines on packets; return where they differ."""
    from ebpfjit.difftest.case import Input
    from ebpfjit.difftest.compare import compare_program
    from ebpfjit.fuzzing.fuzz import LIMIT

    found = []
    for packet in packets if len(engines) > 1 else ():
        compared = compare_program(program, [Input(packet, LIMIT)], engines)
        if not compared.agree:
            found.append((packet, str(compared)))
    return found


def _save(report: Report, corpus: Path | None) -> int:
    if corpus is None:
        return 0
    from ebpfjit.cli.fuzz_inputs import save

    return save({*report.kept, *(each.packet for each in report.findings)}, corpus)


def _as_json(report: Report, differences: list[tuple[bytes, str]], seed: int) -> dict[str, Any]:
    said = report.to_json()
    return {
        "seed": seed,
        "inputs": report.runs,
        "ended": report.runs - report.faults,
        "faulted": report.faults,
        "differences": [{"input": packet.hex(), "text": text} for packet, text in differences],
        **said,
    }


def _print(report: Report, differences: list[tuple[bytes, str]], saved: int, how: How) -> None:
    for finding in report.findings:
        _print_finding(finding)
    for packet, text in differences:
        print(f"engines differ on {shown(packet)}")
        print(text)
    if saved:
        print(f"{saved} packets saved")
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
    if report.worst:
        print(f"costliest of those kept: {report.worst_cost} instructions, {shown(report.worst)}")
    print(f"{len(report.findings)} findings, {len(differences)} differences between engines")


def _print_finding(finding: Finding) -> None:
    print(f"{finding.kind}: {finding.text}")
    print(f"  {len(finding.packet)} bytes: {shown(finding.packet)}")
    if finding.scapy:
        print(f"  {finding.scapy}")
    more = []
    if finding.contexts and finding.contexts[-1]:
        print(f"  context: {', '.join(f'{name}={value!r}' for name, value in finding.contexts[-1].items())}")
    if len(finding.packets) > 1:
        more.append(f"behind {len(finding.packets) - 1} other packets")
    if finding.maps:
        more.append(
            "with entries in " + ", ".join(f"{name} ({len(each)})" for name, each in finding.maps.items())
        )
    if more:
        print(f"  {'; '.join(more)}: --tests FILE has them")
