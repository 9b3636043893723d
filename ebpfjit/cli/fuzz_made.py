"""`ebpfjit fuzz` without a file: engines are compared on programs that are made."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING

from ebpfjit.cli.fuzz import DEFAULT_SECONDS
from ebpfjit.cli.options import engines_of, names_of
from ebpfjit.cli.output import print_json
from ebpfjit.cli.parameters import WrongUsage

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from ebpfjit.cli.fuzz import Options as Asked
    from ebpfjit.difftest.fuzz import FuzzReport

PROGRESS_SECONDS = 0.5
PROGRESS_LINES_SECONDS = 10.0  # where the progress does not go to a terminal


def run(asked: Asked) -> int:
    """Make programs and compare engines on them; print findings. Return the exit status."""
    _check(asked)
    seconds = asked.seconds
    if asked.until is not None:
        from ebpfjit.cli.fuzz_program import seconds_of

        seconds = seconds_of(asked.until)
    from ebpfjit.difftest.case import read_corpus
    from ebpfjit.difftest.fuzz import Options, fuzz, save
    from ebpfjit.difftest.html import write_page

    corpus = asked.corpus
    options = Options(
        engines=engines_of(asked.engines),
        seed=asked.seed,
        sources=names_of(asked.sources or ""),
        builds=names_of(asked.builds or ""),
        corpus=tuple(read_corpus(corpus)) if corpus is not None else (),
        programs=asked.programs,
        seconds=seconds if seconds is not None or asked.programs is not None else DEFAULT_SECONDS,
        jobs=asked.jobs,
    )
    progress = _Progress()
    result = fuzz(options, progress)
    progress.done()
    saved = save(result.findings, corpus) if corpus is not None else []
    if asked.report is not None:
        write_page(result, asked.report)
    if asked.as_json:
        print_json(_as_json(result))
    else:
        _print(result, saved)
    return 130 if result.interrupted else 1 if result.findings else 0


def _check(asked: Asked) -> None:
    """Raise WrongUsage for what is told of a file where there is none."""
    given = (asked.inputs, asked.map_, asked.variables, asked.check, asked.against, asked.pcap, asked.tests)
    if any(given) or asked.limit is not None or asked.size:
        raise WrongUsage(
            "--inputs, --map, --global, --check, --against, --pcap, --tests, --limit, --size go with FILE"
        )


def _print(result: FuzzReport, saved: Sequence[Path]) -> None:
    from ebpfjit.difftest.report import report_text, times_text

    print(report_text(result))
    for path in saved:
        print(f"saved {path}")
    print(times_text(result), flush=True)


def _as_json(result: FuzzReport) -> dict[str, object]:
    """Return a run as JSON has it: how many programs, and each finding."""
    return {
        "programs": result.total.programs,
        "findings": [
            {"number": each.number, "nature": each.nature, "text": each.text, "file": each.file_name}
            for each in result.findings
        ],
        "interrupted": result.interrupted,
    }


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
