"""A run of proofs as a table, and below it each claim that is refuted, and each that is left open."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from ebpfjit.prove.claims import Verdict
from ebpfjit.prove.run import Report

if TYPE_CHECKING:
    from rich.table import Table


def draw(report: Report) -> Table:
    """Return the table: a line for each room."""
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD if sys.stdout.isatty() else None)  # no lines into pipes
    table.add_column("claims about")
    for verdict in Verdict:
        table.add_column(verdict.value, justify="right")
    for heading in ("paths", "seconds", "slowest"):
        table.add_column(heading, justify="right")
    for room in dict.fromkeys(result.claim.room for result in report.results):
        here = [result for result in report.results if result.claim.room == room]
        counts = [str(sum(result.verdict is verdict for result in here)) for verdict in Verdict]
        times = [result.seconds for result in here]
        paths = sum(result.paths for result in here)
        table.add_row(room, *counts, str(paths), f"{sum(times):.0f}", f"{max(times):.1f}")
    return table


def as_json(report: Report) -> dict[str, Any]:
    """Return a report as JSON has it: each claim, and what the solver says."""
    claims = [
        {"room": each.claim.room, "name": each.claim.name, "verdict": each.verdict.value, "text": each.text}
        for each in report.results
    ]
    return {"claims": claims, "seconds": round(report.seconds, 1), "interrupted": report.interrupted}


def show(report: Report) -> None:
    """Print a report."""
    from rich.console import Console

    Console().print(draw(report))
    for verdict in (Verdict.REFUTED, Verdict.UNDECIDED):
        found = report.of(verdict)
        if found:
            print(f"{verdict.value}:")
        for result in found:
            print(f"  {result.claim.room}: {result.text}")
    print(f"{len(report.results)} claims in {report.seconds:.0f} s")
