"""RESULTS.md: a part of it for each benchmark, between two lines that name it; and what scripts share.

<!-- NAME: begin -->
## a title, the command, date and machine, words, tables
<!-- NAME: end -->
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import replace
from datetime import date
from pathlib import Path

from rich.console import Console

from ebpfjit import EbpfError
from ebpfjit.bench.benchmark import FULL, Benchmark, Plan, Section
from ebpfjit.bench.machine import machine_line
from ebpfjit.bench.report import run, show

RESULTS = Path(__file__).resolve().parent / "RESULTS.md"


def write(name: str, text: str) -> None:
    """Put a text into RESULTS.md: in the place of the one before, or at the end."""
    begin, end = f"<!-- {name}: begin -->", f"<!-- {name}: end -->"
    results = RESULTS.read_text()
    before, found, rest = results.partition(begin)
    after = rest.partition(end + "\n")[2] if found else ""
    before = before if found else results.rstrip("\n") + "\n\n"
    RESULTS.write_text(f"{before}{begin}\n{text.strip()}\n{end}\n{after}")


def part(title: str, command: str, words: str, *blocks: str) -> str:
    """Return a part of RESULTS.md, measured here and now."""
    head = [f"## {title}", f"    {command}", f"{date.today()}, {machine_line()}.", words.strip()]
    return "\n\n".join([*head, *blocks])


def table(headings: Sequence[str], align: str, rows: Sequence[Sequence[str]]) -> str:
    """Return a table in Markdown; `align` has "l" or "r" for each column."""
    lines = [headings, [":--" if side == "l" else "--:" for side in align], *rows]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)


def of_section(section: Section) -> list[str]:
    """Return a benchmark's section as blocks of Markdown."""
    blocks = [f"{section.title}:", table(section.headings, section.align, section.rows)]
    return [*blocks, "\n".join(f"- {remark}" for remark in section.remarks)] if section.remarks else blocks


def parser(description: str) -> argparse.ArgumentParser:
    """Return the options that every script has which measures with `ebpfjit.bench`."""
    options = argparse.ArgumentParser(description=description.splitlines()[0])
    options.add_argument("--rounds", type=int, default=FULL.rounds, help=f"default: {FULL.rounds}")
    options.add_argument("--json", type=Path, metavar="FILE", help="write what was measured")
    options.add_argument("--write", action="store_true", help="replace the part of RESULTS.md")
    return options


def measure(
    name: str, title: str, words: str, benchmarks: Sequence[Benchmark], arguments: argparse.Namespace,
    plan: Plan = FULL,
) -> int:  # fmt: skip
    """Measure, show, and write what was asked for; return the exit status."""
    if arguments.rounds < 1:
        sys.exit("--rounds is at least 1")
    plan = replace(plan, rounds=arguments.rounds)
    try:
        with Console(stderr=True).status("") as status:
            report = run(benchmarks, plan, lambda done, all_, what: status.update(f"{done}/{all_} {what}"))
    except EbpfError as error:
        sys.exit(str(error))
    show(report)
    if arguments.json:
        arguments.json.write_text(json.dumps(report.as_json(), indent=1) + "\n")
    if report.interrupted:
        return 130
    if arguments.write:
        words = words.format(rounds=plan.rounds, packets=plan.packets)
        blocks = [block for section in report.sections for block in of_section(section)]
        write(name, part(title, f"python {sys.argv[0]} --write", words, *blocks))
    return 0
