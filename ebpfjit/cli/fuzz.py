"""`ebpfjit fuzz`: generated programs on several engines, or generated inputs for one program.

ebpfjit fuzz            programs that nobody wrote: engines are compared (fuzz_made.py)
ebpfjit fuzz FILE       inputs for a program: what it does with them, where it faults (fuzz_program.py)
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from ebpfjit.cli.options import (
    Btf,
    Engines,
    Json,
    Kconfig,
    MapContents,
    Maps,
    ProgramName,
    Variables,
)
from ebpfjit.cli.parameters import Argument, Option, taking
from ebpfjit.record import dataclass

DEFAULT_SECONDS = 60.0
DEFAULT_LIMIT = 1_000_000


@dataclass(frozen=True)
class Options:
    """What `ebpfjit fuzz` is told."""

    file: Annotated[
        str | None,
        Argument(metavar="FILE", help="A program to find inputs for; without it, programs are made."),
    ] = None
    program: ProgramName = None
    engines: Engines = None
    seconds: Annotated[float | None, Option(min=0.1, help="How long; 60 unless told.")] = None
    programs: Annotated[int | None, Option(min=1, help="How many programs, instead.")] = None
    inputs: Annotated[int | None, Option(min=1, help="How many inputs for the program of FILE, instead.")] = (
        None
    )
    jobs: Annotated[int, Option(min=1, help="Child processes.")] = 1
    seed: Annotated[int, Option(help="The same seed gives the same programs.")] = 1
    corpus: Annotated[
        Path | None,
        Option(metavar="DIR", help="Programs (with FILE: inputs) to start from; findings are saved there."),
    ] = None
    sources: Annotated[
        str | None,
        Option(metavar="NAMES", help="Generators to draw from; those that suit the engines."),
    ] = None
    builds: Annotated[
        str | None,
        Option(metavar="NAMES", help="Ways to make machine code: audit, baseline, ...; the usual ones."),
    ] = None
    check: Annotated[
        str | None,
        Option(metavar="TEXT", help="With FILE: what must hold, as 'action != XDP_ABORTED'."),
    ] = None
    against: Annotated[
        str | None, Option(metavar="OLD", help="With FILE: another version, which must do the same.")
    ] = None
    until: Annotated[str | None, Option(metavar="TIME", help="How long: 60s, 5m, 1h.")] = None
    pcap: Annotated[
        str | None, Option(metavar="FILE", help="With FILE: packets to start from (pcap, pcapng).")
    ] = None
    tests: Annotated[
        Path | None, Option(metavar="PY", help="With FILE: write a pytest file of what was found.")
    ] = None
    limit: Annotated[
        int | None,
        Option(min=1, help="With FILE: instructions of a run, more are a finding; 1000000 unless told."),
    ] = None
    keep_maps: Annotated[
        bool, Option("--keep-maps", help="With FILE: only runs change maps, nobody else.")
    ] = False
    size: Annotated[
        str | None,
        Option(metavar="BYTES", help="With FILE: of packets or memory, as 64, or 60-1500."),
    ] = None
    report: Annotated[
        Path | None, Option(metavar="HTML", help="Write a page that shows what was reached.")
    ] = None
    map_: MapContents = None
    variables: Variables = None
    btf: Btf = None
    kconfig: Kconfig = None
    maps: Maps = None
    as_json: Json = False


@taking(Options)
def fuzz(asked: Options) -> None:
    """Compare engines on generated programs, or find inputs for one program.

    Programs run in child processes, so that a crash or a hang is a finding with its program. Each
    finding is shrunk and printed; with --corpus it is saved as a corpus file. Ctrl-C ends the run with
    the report so far. Exit status 1 where anything was found.

    With FILE, packets (or contexts, or memories) are made and changed; those that go a new way at a branch
    are kept, and changed further; engines are compared on them. Each fault is told once, with its line and
    the smallest input that led to it. What must hold of each run may be told (--check), or another version
    that must do the same (--against); map contents are changed too.
    """
    if asked.file is None:
        from ebpfjit.cli import fuzz_made

        raise SystemExit(fuzz_made.run(asked))
    from ebpfjit.cli import fuzz_program

    raise SystemExit(fuzz_program.run(asked, asked.file))
