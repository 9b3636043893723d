"""`ebpfjit fuzz FILE`: inputs for one program, guided by what they reach."""

from __future__ import annotations

import hashlib
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ebpfjit.cli.output import print_json
from ebpfjit.record import dataclass

if TYPE_CHECKING:
    from ebpfjit.difftest.guided import GuidedReport
    from ebpfjit.program import Program

PROGRESS_SECONDS = 0.5
SHOWN = 64
"""Bytes of an input that are shown."""


@dataclass(frozen=True, slots=True)
class How:
    """What a run is asked for: engines, what its inputs are drawn from, how long, a folder of inputs."""

    engines: tuple[str, ...]
    seed: int
    seconds: float | None
    inputs: int | None
    corpus: Path | None


def run(file: str, program: Program, how: How, *, as_json: bool) -> int:
    """Find inputs for a program; print the report. Return the exit status: 1 where anything was found."""
    from ebpfjit.difftest.case import Case
    from ebpfjit.difftest.engines import check_engines
    from ebpfjit.difftest.guided import fuzz_program
    from ebpfjit.ready import is_plain, ready

    check_engines(how.engines, least=1)
    start = ready(program)  # who wrote it wants to know what is wrong with it, not that inputs are refused
    start.refuse_missing()
    report = fuzz_program(
        Case(program.code, (), name=file) if is_plain(program) else program,
        engines=how.engines,
        seed=how.seed,
        seconds=how.seconds,
        inputs=how.inputs,
        given=seeds(how.corpus),
        progress=Progress(lambda report: f"{report.tried} inputs: {report.sum}"),
    )
    found = {*report.kept, *(fault.given for fault in report.faults.values())}
    saved = save(found, how.corpus) if how.corpus is not None else 0
    if as_json:
        print_json(report.as_json())
    else:
        _print(report, program, saved)
    return 130 if report.interrupted else 1 if report.found else 0


def seeds(corpus: Path | None) -> list[bytes]:
    """Return the inputs of a folder, which is made where it is not there."""
    if corpus is None:
        return []
    corpus.mkdir(parents=True, exist_ok=True)
    return [path.read_bytes() for path in sorted(corpus.glob("*.bin"))]


def save(found: Iterable[bytes], corpus: Path) -> int:
    """Write inputs into a folder; return how many are new."""
    new = 0
    for data in sorted(found):
        path = corpus / f"{hashlib.sha256(data).hexdigest()[:16]}.bin"
        if not path.exists():
            path.write_bytes(data)
            new += 1
    return new


def _print(report: GuidedReport, program: Program, saved: int) -> None:
    for fault in report.faults.values():
        line = program.line_at(fault.pc)
        print(f"{fault.text}{'' if line is None or str(line) in fault.text else f' ({line})'}")
        print(f"  {fault.count} times; ebpfjit run ... --hex {shown(fault.given)}")
    for given, text in report.differences:
        print(f"engines differ on {shown(given)}")
        print(text)
    if saved:
        print(f"{saved} inputs saved")
    if report.interrupted:
        print("interrupted: this is what was found so far")
    counts = f"{len(report.kept)} kept, {report.compared} compared"
    print(f"{report.tried} inputs in {report.seconds:.1f} s, {counts}: {report.sum}")
    print(f"{len(report.faults)} faults, {len(report.differences)} differences between engines")


def shown(data: bytes) -> str:
    """Return an input in hex, cut where it is long."""
    more = f"... ({len(data)} bytes)" if len(data) > SHOWN else ""
    return (data[:SHOWN].hex() or "(empty)") + more


class Progress:
    """The progress line on standard error, where that is a terminal; `text` says what there is to say."""

    def __init__(self, text: Callable[[Any], str]) -> None:
        self.text = text
        self.last = time.monotonic()

    def __call__(self, report: Any) -> None:
        """Show where the run is."""
        now = time.monotonic()
        if sys.stderr.isatty() and now - self.last >= PROGRESS_SECONDS:
            self.last = now
            print(f"\r{self.text(report)}\x1b[K", end="\r", file=sys.stderr, flush=True)
