"""Planted bugs: how much processor time the fuzzer takes to find each, its child process's start included.

    python benchmarks/planted_bugs.py [NAME ...] [--seconds N] [--write]

Each bug of `ebpfjit.difftest.planted` is put into one child process, which runs the programs of seed
1 until engines disagree. Exit status 1 where a bug was not found in time.
"""

from __future__ import annotations

import argparse
import resource
import sys
from collections.abc import Sequence
from dataclasses import dataclass

from results import part, table, write

from ebpfjit.difftest.fuzz import Options, fuzz
from ebpfjit.difftest.planted import PLANTED, PlantedBug

SECONDS = 20.0
PATIENCE = 6
"""How often that may pass meanwhile on a clock, where other work is going on."""
HANG_SECONDS = 4.0


@dataclass(frozen=True)
class Search:
    """How a bug was found: after how many seconds, with which program, and as what; None: not at all."""

    bug: PlantedBug
    programs: int
    seconds: float | None
    number: int | None
    nature: str


def processor_seconds() -> float:
    """Return the processor time of all child processes that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def search(bug: PlantedBug, seconds: float) -> Search:
    options = Options(
        bug.engines,
        sources=bug.sources,
        seconds=PATIENCE * seconds,
        planted=bug.name,
        stop_at=1,
        shrink=0,
        hang_seconds=HANG_SECONDS,
    )
    before = processor_seconds()
    report = fuzz(options)
    took = processor_seconds() - before
    first = report.findings[0] if report.findings and took <= seconds else None
    found = took if first is not None else None
    number = first.number if first is not None else None
    return Search(
        bug, report.total.programs, found, number, first.nature if first is not None else "not found"
    )


def section(searches: Sequence[Search], seconds: float) -> str:
    times = [one.seconds for one in searches if one.seconds is not None]
    slowest = f"the slowest after {max(times):.1f} s" if times else "none"
    narrow = ", ".join(
        f"{one.bug.name} ({', '.join(one.bug.sources)})" for one in searches if one.bug.sources
    )
    words = (
        f"{len(searches)} bugs (`ebpfjit/difftest/planted.py`), each put, in memory, into a child process\n"
        "of its own; `ebpfjit fuzz` with one job, seed 1 and all its sources of programs, but for what\n"
        f"names its own: {narrow}. Seconds are\n"
        "of processor time, the child's start (about 0.3 s) included; a program hangs after "
        f"{HANG_SECONDS:g} s of its own.\n`program` is the number of the program that showed it. "
        f"Found: {len(times)} of {len(searches)}, {slowest}; the limit is {seconds:g} s."
    )
    rows = [
        (
            one.bug.name,
            one.bug.what,
            "" if one.number is None else str(one.number),
            "" if one.seconds is None else f"{one.seconds:.1f}",
            one.nature,
        )
        for one in searches
    ]
    headings = ("bug", "what is wrong", "program", "seconds", "seen as")
    title, command = (
        "Planted bugs: how long until they are found",
        "python benchmarks/planted_bugs.py --write",
    )
    return part(title, command, words, table(headings, "llrrl", rows))


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("bugs", nargs="*", metavar="NAME", help="bugs to plant; all of them unless named")
    parser.add_argument("--seconds", type=float, default=SECONDS, help="time for each")
    parser.add_argument("--write", action="store_true", help="replace the section in RESULTS.md")
    arguments = parser.parse_args()
    known = {bug.name: bug for bug in PLANTED}
    unknown = [name for name in arguments.bugs if name not in known]
    if unknown or (arguments.write and arguments.bugs):
        parser.error(f"no such bugs: {unknown}" if unknown else "--write is for all bugs")
    searches = []
    for bug in [known[name] for name in arguments.bugs] or PLANTED:
        searches.append(search(bug, arguments.seconds))
        one = searches[-1]
        when = "not found" if one.seconds is None else f"{one.seconds:5.1f} s, program {one.number}"
        print(f"{bug.name:24} {when}  ({one.nature})", flush=True)
    if arguments.write:
        write("planted bugs", section(searches, arguments.seconds))
    return 0 if all(one.seconds is not None for one in searches) else 1


if __name__ == "__main__":
    sys.exit(main())
