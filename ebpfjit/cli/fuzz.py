"""`ebpfjit fuzz`: generated programs on several engines, until there are enough or time is up."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from ebpfjit.difftest.fuzz import FuzzReport

DEFAULT_SECONDS = 60.0
PROGRESS_SECONDS = 0.5
PROGRESS_LINES_SECONDS = 10.0  # where the progress does not go to a terminal


def fuzz(
    engines: Annotated[
        str,
        typer.Option(metavar="NAMES", help="Engines: interpreter, optimized, jit, gate, tiered, kernel."),
    ] = "interpreter,jit",
    seconds: Annotated[float | None, typer.Option(min=0.1, help="How long; 60 unless told.")] = None,
    programs: Annotated[int | None, typer.Option(min=1, help="How many programs, instead.")] = None,
    jobs: Annotated[int, typer.Option(min=1, help="Child processes.")] = 1,
    seed: Annotated[int, typer.Option(help="The same seed gives the same programs.")] = 1,
    corpus: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Programs to mutate; findings are saved there."),
    ] = None,
    sources: Annotated[
        str | None,
        typer.Option(metavar="NAMES", help="Generators to draw from; those that suit the engines."),
    ] = None,
    builds: Annotated[
        str | None,
        typer.Option(
            metavar="NAMES", help="Ways to make machine code: audit, baseline, ...; the usual ones."
        ),
    ] = None,
    report: Annotated[
        Path | None, typer.Option(metavar="HTML", help="Write a page that shows what was reached.")
    ] = None,
) -> None:
    """Compare engines on generated programs.

    Programs run in child processes, so that a crash or a hang is a finding with its program. Each
    finding is shrunk and printed; with --corpus it is saved as a corpus file. Ctrl-C ends the run with
    the report so far. Exit status 1 where anything was found.
    """
    from ebpfjit.difftest.case import read_corpus
    from ebpfjit.difftest.fuzz import Options, save
    from ebpfjit.difftest.fuzz import fuzz as run
    from ebpfjit.difftest.html import write_page
    from ebpfjit.difftest.report import report_text, times_text

    options = Options(
        engines=_names(engines),
        seed=seed,
        sources=_names(sources) if sources else (),
        builds=_names(builds) if builds else (),
        corpus=tuple(read_corpus(corpus)) if corpus is not None else (),
        programs=programs,
        seconds=seconds if seconds is not None or programs is not None else DEFAULT_SECONDS,
        jobs=jobs,
    )
    progress = _Progress()
    result = run(options, progress)
    progress.done()
    print(report_text(result))
    if corpus is not None:
        for path in save(result.findings, corpus):
            print(f"saved {path}")
    if report is not None:
        write_page(result, report)
    print(times_text(result), flush=True)
    if result.interrupted:
        raise typer.Exit(130)
    if result.findings:
        raise typer.Exit(1)


def _names(text: str) -> tuple[str, ...]:
    return tuple(dict.fromkeys(name for name in text.replace(",", " ").split()))


class _Progress:
    """The progress line on standard error: rewritten on a terminal, now and then elsewhere."""

    def __init__(self) -> None:
        self.terminal = sys.stderr.isatty()
        self.last = time.monotonic()
        self.width = 0

    def __call__(self, report: FuzzReport) -> None:
        """Show where the run is."""
        from ebpfjit.difftest.report import progress_text

        now = time.monotonic()
        if now - self.last < (PROGRESS_SECONDS if self.terminal else PROGRESS_LINES_SECONDS):
            return
        self.last = now
        text = progress_text(report)
        if self.terminal:
            self.width = max(self.width, len(text))
            print(f"\r{text:{self.width}}", end="", file=sys.stderr, flush=True)
        else:
            print(text, file=sys.stderr, flush=True)

    def done(self) -> None:
        """Clear the line."""
        if self.terminal and self.width:
            print(f"\r{'':{self.width}}\r", end="", file=sys.stderr, flush=True)
