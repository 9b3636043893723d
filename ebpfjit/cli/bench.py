"""`ebpfjit bench`: what calls, batches, compiling and kernels cost here."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from ebpfjit.cli.parameters import Argument, Option, WrongUsage
from ebpfjit.record import replace

if TYPE_CHECKING:
    from ebpfjit.bench.benchmark import Benchmark, Plan
    from ebpfjit.bench.report import Progress, Report

OF_KERNELS = frozenset({"kernels", "holdout", "passes"})
"""The benchmarks that run kernels, all of them where they are named."""


def bench(
    names: Annotated[
        list[str] | None,
        Argument(
            metavar="NAME",
            help="calls, helpers, packet-helpers, batch, threads, maps, compile, tiers, everyday, kernels, "
            "holdout, payloads, passes; all unless named.",
        ),
    ] = None,
    rounds: Annotated[
        int | None, Option(min=1, help="Rounds, in each of which all ways take turns; 5 unless told.")
    ] = None,
    seconds: Annotated[
        float | None, Option(min=0.1, help="About how long, instead; one round at least.")
    ] = None,
    kernels: Annotated[
        str | None,
        Option(metavar="A,B", help="C kernels to run; a few unless told, all where the benchmark is named."),
    ] = None,
    full: Annotated[
        bool, Option("--full", help="As for the project's own tables: larger, longer; minutes.")
    ] = False,
    as_json: Annotated[bool, Option("--json", help="Print JSON.")] = False,
    plot: Annotated[
        Path | None, Option(metavar="FILE.svg", help="Draw bars, too; needs 'ebpfjit[plot]'.")
    ] = None,
) -> None:
    """Measure what ebpfjit costs on this machine.

    Ways to do the same take turns, round by round; shown are medians and their ratios. Native code
    stands beside it where gcc or clang is installed. Ctrl-C ends it with what was measured so far.
    """
    from ebpfjit.bench import plot as plots
    from ebpfjit.bench.report import run

    chosen = _benchmarks(names or [])
    if rounds is not None and seconds is not None:
        raise WrongUsage("--rounds and --seconds exclude each other")
    plan = _plan(full, rounds, seconds, kernels, every_kernel=not OF_KERNELS.isdisjoint(names or []))
    if plot is not None:
        plots.check(plot)
    with _progress() as progress:
        report = run(chosen, plan, progress)
    if as_json:
        print(json.dumps(report.as_json(), indent=2))
    else:
        _print(report)
    if plot is not None and report.sections:
        plots.write(report.sections, plot)
    if report.interrupted:
        raise SystemExit(130)


def _benchmarks(names: list[str]) -> tuple[Benchmark, ...]:
    from ebpfjit.bench.catalog import BENCHMARKS, choose

    for name in names:
        if name not in BENCHMARKS:
            raise WrongUsage(f"no benchmark {name!r}; there are: {', '.join(BENCHMARKS)}")
    return choose(names)


def _plan(
    full: bool, rounds: int | None, seconds: float | None, kernels: str | None, *, every_kernel: bool
) -> Plan:
    """Return what the options ask for. Raises BenchError for an unknown kernel."""
    from ebpfjit.bench.benchmark import FULL, SHORT

    plan = FULL if full else SHORT
    if kernels is not None:
        plan = replace(plan, kernels=tuple(kernels.split(",")))
    elif every_kernel:
        plan = replace(plan, kernels=FULL.kernels)
    return replace(plan, rounds=rounds or plan.rounds, seconds=seconds)


@contextmanager
def _progress() -> Iterator[Progress]:
    """Show a bar on standard error while it is a terminal; nothing remains of it."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
    from rich.progress import Progress as RichProgress

    console = Console(stderr=True)
    columns = (BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TextColumn("{task.description}"))
    with RichProgress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("")

        def show(done: int, count: int, title: str) -> None:
            bar.update(task, completed=done, total=count, description=title)

        yield show


def _print(report: Report) -> None:
    from ebpfjit.bench.report import show

    show(report)
    machine = report.machine
    python = f"ebpfjit {machine['ebpfjit']}, {machine['python']}, keystone {machine['keystone']}"
    print(f"{machine['date']}, {machine['cpus']} x {machine['cpu']}, {machine['system']}")
    print(", ".join([python, *machine["compilers"].values()]))
    if report.interrupted:
        print("interrupted: this is what was measured so far")
