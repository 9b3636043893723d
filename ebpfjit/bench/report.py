"""A run of benchmarks, and its results as a table for the terminal and as JSON."""

from __future__ import annotations

import math
import sys
import textwrap
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from ebpfjit.bench.benchmark import Benchmark, Plan, Section
from ebpfjit.bench.machine import describe
from ebpfjit.bench.measure import Rounds, stoppable, warm_up
from ebpfjit.record import dataclass

if TYPE_CHECKING:
    from rich.table import Table

REMARK_WIDTH = 100
UNLIMITED = 1000

Progress = Callable[[int, int, str], None]
"""progress(done, all, title): so many of all steps are done, and this one starts."""


@dataclass(frozen=True, slots=True)
class Report:
    """What was measured, on what machine; `interrupted` where Ctrl-C ended it early."""

    machine: dict[str, Any]
    sections: tuple[Section, ...]
    interrupted: bool

    def as_json(self) -> dict[str, Any]:
        """Return everything, as the json module takes it: what could not be measured is None."""
        sections = {section.name: {"title": section.title, **section.data} for section in self.sections}
        shown: dict[str, Any] = _without_nan(
            {"machine": self.machine, "interrupted": self.interrupted, "benchmarks": sections}
        )
        return shown


def run(benchmarks: Sequence[Benchmark], plan: Plan, progress: Progress = lambda *_: None) -> Report:
    """Measure. Raises BenchError where engines disagree, JitUnavailable where there is no machine code."""
    steps = [(number, step) for number, one in enumerate(benchmarks) for step in one.steps(plan)]
    results: list[list[Any]] = [[] for _ in benchmarks]
    machine, interrupted = describe(), False
    stop = None if plan.seconds is None else time.perf_counter() + plan.seconds
    try:
        with stoppable():
            warm_up()
            for done, (number, step) in enumerate(steps):
                progress(done, len(steps), f"{benchmarks[number].name}: {step.title}")
                seconds = None if stop is None else (stop - time.perf_counter()) / (len(steps) - done)
                results[number] += step.run(Rounds(plan.rounds, seconds))
            progress(len(steps), len(steps), "")
    except KeyboardInterrupt:
        interrupted = True
    sections = (one.section(found) for one, found in zip(benchmarks, results, strict=True) if found)
    return Report(machine, tuple(sections), interrupted)


def draw(section: Section) -> Table:
    """Return a section as a table for the terminal."""
    from rich import box
    from rich.table import Table

    lines = box.SIMPLE_HEAD if sys.stdout.isatty() else None  # no lines into pipes
    table = Table(title=section.title, title_justify="left", title_style="bold", box=lines)
    for number, (heading, align) in enumerate(zip(section.headings, section.align, strict=True)):
        shown = heading if number == 0 else heading.replace(", ", "\n").replace("/", "/\n")
        table.add_column(shown, justify="left" if align == "l" else "right", no_wrap=True)
    last = len(section.rows) - section.closing - 1
    for number, row in enumerate(section.rows):
        table.add_row(*row, end_section=bool(section.closing) and number == last)
    return table


def show(report: Report) -> None:
    """Print all tables and remarks; tables are as wide as they have to be."""
    from rich.console import Console
    from rich.measure import Measurement

    console = Console()
    unlimited = console.options.update(width=UNLIMITED)
    for section in report.sections:
        table = draw(section)
        width = Measurement.get(console, unlimited, table).maximum
        Console(width=max(console.width, width)).print(table)
        for remark in section.remarks:
            print(textwrap.fill(remark, REMARK_WIDTH, initial_indent="  ", subsequent_indent="    "))
        print()


def _without_nan(value: Any) -> Any:
    match value:
        case dict():
            return {key: _without_nan(one) for key, one in value.items()}
        case list() | tuple():
            return [_without_nan(one) for one in value]
        case float() if math.isnan(value):
            return None
        case _:
            return value
