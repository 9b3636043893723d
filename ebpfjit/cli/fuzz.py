"""`ebpfjit fuzz`: generated programs on several engines, or generated inputs for one program.

ebpfjit fuzz            programs that nobody wrote: engines are compared
ebpfjit fuzz FILE       inputs for a program: what it does with them, where it faults
"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from ebpfjit.cli.options import (
    Btf,
    Json,
    Kconfig,
    MapContents,
    Maps,
    ProgramName,
    Variables,
    loading,
    one_of,
)
from ebpfjit.cli.output import print_json
from ebpfjit.cli.parameters import Argument, Option, WrongUsage

if TYPE_CHECKING:
    from ebpfjit.difftest.fuzz import FuzzReport
    from ebpfjit.program import Program

DEFAULT_SECONDS = 60.0
DEFAULT_LIMIT = 1_000_000
PROGRESS_SECONDS = 0.5
PROGRESS_LINES_SECONDS = 10.0  # where the progress does not go to a terminal


def fuzz(
    file: Annotated[
        str | None,
        Argument(metavar="FILE", help="A program to find inputs for; without it, programs are made."),
    ] = None,
    program: ProgramName = None,
    engines: Annotated[
        str | None,
        Option(
            metavar="NAMES",
            help="Of interpreter, optimized, jit, gate, tiered, kernel; interpreter,jit unless told.",
        ),
    ] = None,
    seconds: Annotated[float | None, Option(min=0.1, help="How long; 60 unless told.")] = None,
    programs: Annotated[int | None, Option(min=1, help="How many programs, instead.")] = None,
    inputs: Annotated[
        int | None, Option(min=1, help="How many inputs for the program of FILE, instead.")
    ] = None,
    jobs: Annotated[int, Option(min=1, help="Child processes.")] = 1,
    seed: Annotated[int, Option(help="The same seed gives the same programs.")] = 1,
    corpus: Annotated[
        Path | None,
        Option(metavar="DIR", help="Programs (with FILE: inputs) to start from; findings are saved there."),
    ] = None,
    sources: Annotated[
        str | None,
        Option(metavar="NAMES", help="Generators to draw from; those that suit the engines."),
    ] = None,
    builds: Annotated[
        str | None,
        Option(metavar="NAMES", help="Ways to make machine code: audit, baseline, ...; the usual ones."),
    ] = None,
    check: Annotated[
        str | None,
        Option(metavar="TEXT", help="With FILE: what must hold, as 'action != XDP_ABORTED'."),
    ] = None,
    against: Annotated[
        str | None, Option(metavar="OLD", help="With FILE: another version, which must do the same.")
    ] = None,
    until: Annotated[str | None, Option(metavar="TIME", help="How long: 60s, 5m, 1h.")] = None,
    pcap: Annotated[
        str | None, Option(metavar="FILE", help="With FILE: packets to start from (pcap, pcapng).")
    ] = None,
    tests: Annotated[
        Path | None, Option(metavar="PY", help="With FILE: write a pytest file of what was found.")
    ] = None,
    limit: Annotated[
        int | None,
        Option(min=1, help="With FILE: instructions of a run, more are a finding; 1000000 unless told."),
    ] = None,
    keep_maps: Annotated[
        bool, Option("--keep-maps", help="With FILE: only runs change maps, nobody else.")
    ] = False,
    size: Annotated[
        str | None,
        Option(metavar="BYTES", help="With FILE: of packets or memory, as 64, or 60-1500."),
    ] = None,
    report: Annotated[
        Path | None, Option(metavar="HTML", help="Write a page that shows what was reached.")
    ] = None,
    map_: MapContents = None,
    variables: Variables = None,
    btf: Btf = None,
    kconfig: Kconfig = None,
    maps: Maps = None,
    as_json: Json = False,
) -> None:
    """Compare engines on generated programs, or find inputs for one program.

    Programs run in child processes, so that a crash or a hang is a finding with its program. Each
    finding is shrunk and printed; with --corpus it is saved as a corpus file. Ctrl-C ends the run with
    the report so far. Exit status 1 where anything was found.

    With FILE, packets (or contexts, or memories) are made and changed; those that go a new way at a branch
    are kept, and changed further; engines are compared on them. Each fault is told once, with its line and
    the smallest input that led to it. What must hold of each run may be told (--check), or another version
    that must do the same (--against); map contents are changed too.
    """
    if file is not None:
        other = {"sources": sources, "builds": builds, "report": report, "programs": programs}
        refused = [name for name, value in other.items() if value is not None]
        if refused:
            raise WrongUsage(f"--{refused[0]} is for programs that are made, not for one of a file")
        from ebpfjit.cli import fuzz_program, state

        told = loading(btf, kconfig, maps)
        found, obj = one_of(file, program, told)
        if tests is not None and file == "-":
            raise WrongUsage("--tests needs a FILE, which the tests read")
        if pcap is not None and not is_given_packets(found):
            raise WrongUsage("--pcap is for programs that are given packets")
        fresh = fuzz_program.held(found)
        state.prepare(obj, file, map_ or (), variables or ())
        seconds = fuzz_program.seconds_of(until) if until is not None else seconds
        asked = fuzz_program.How(
            check=check,
            against=None if against is None else one_of(against, program or found.name, told)[0],
            against_file=against or "",
            seconds=DEFAULT_SECONDS if seconds is None and inputs is None else seconds,
            runs=inputs,
            seed=seed,
            limit=DEFAULT_LIMIT if limit is None else limit,
            sizes=fuzz_program.sizes_of(size),
            changes_maps=not keep_maps,
            engines=engines_of(engines),
            corpus=corpus,
            pcap=pcap,
            tests=tests,
            load=told | ({"btf": btf} if btf is not None else {}),
        )
        raise SystemExit(fuzz_program.run(file, found, obj, asked, fresh, as_json=as_json))
    if inputs or map_ or variables or check or against or pcap or tests or limit is not None or size:
        raise WrongUsage(
            "--inputs, --map, --global, --check, --against, --pcap, --tests, --limit, --size go with FILE"
        )
    if until is not None:
        from ebpfjit.cli.fuzz_program import seconds_of

        seconds = seconds_of(until)
    from ebpfjit.difftest.case import read_corpus
    from ebpfjit.difftest.fuzz import Options, save
    from ebpfjit.difftest.fuzz import fuzz as run
    from ebpfjit.difftest.html import write_page
    from ebpfjit.difftest.report import report_text, times_text

    options = Options(
        engines=engines_of(engines),
        seed=seed,
        sources=names_of(sources) if sources else (),
        builds=names_of(builds) if builds else (),
        corpus=tuple(read_corpus(corpus)) if corpus is not None else (),
        programs=programs,
        seconds=seconds if seconds is not None or programs is not None else DEFAULT_SECONDS,
        jobs=jobs,
    )
    progress = _Progress()
    result = run(options, progress)
    progress.done()
    saved = save(result.findings, corpus) if corpus is not None else []
    if report is not None:
        write_page(result, report)
    if as_json:
        print_json(_as_json(result))
    else:
        print(report_text(result))
        for path in saved:
            print(f"saved {path}")
        print(times_text(result), flush=True)
    if result.interrupted:
        raise SystemExit(130)
    if result.findings:
        raise SystemExit(1)


def is_given_packets(program: Program) -> bool:
    """True for a program that runs on packets."""
    from ebpfjit.runtime.contexts.types import program_type

    return program.type is not None and program_type(program.type).has_packet


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


def engines_of(text: str | None) -> tuple[str, ...]:
    """Return the engines of a list; those that are usual here where there is none."""
    from ebpfjit.difftest.engines import default_engines

    return default_engines() if text is None else names_of(text)


def names_of(text: str) -> tuple[str, ...]:
    """Return the names of a list, each once."""
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
