"""A program on every packet of a capture: verdicts counted, passed packets written, a table at the end."""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import IO, Any

from ebpfjit.capture import Batch, Writer, read
from ebpfjit.cli.output import print_columns
from ebpfjit.cli.verdicts import Table
from ebpfjit.errors import CaptureError, ExecutionError, InputError
from ebpfjit.function import JitFunction
from ebpfjit.isa.spec import Kind
from ebpfjit.program import Program
from ebpfjit.runner import Result
from ebpfjit.runtime.contexts import ProgramType, program_type
from ebpfjit.runtime.helpers.names import NUMBERS
from ebpfjit.runtime.maps.definition import MapType

Step = Callable[[int], None]

FAULT, REFUSED, OTHER = "fault", "not run", "other"
MAX_VERDICTS = 1 << 16
"""Rows of the table; without a type r0 is the verdict, and each packet may have one of its own."""


@dataclass(slots=True)
class Count:
    """Packets, and their bytes as captured."""

    packets: int = 0
    bytes: int = 0


@dataclass
class Report:
    """What became of a capture: a count for each verdict, packets written, the first error's text."""

    verdicts: dict[str, Count] = field(default_factory=dict)
    total: Count = field(default_factory=Count)
    written: int | None = None
    seconds: float = 0.0
    error: str | None = None
    output: list[str] = field(default_factory=list)

    def add(self, verdict: str, size: int, packets: int = 1) -> None:
        """Count packets, of so many bytes together."""
        if verdict not in self.verdicts and len(self.verdicts) >= MAX_VERDICTS:
            verdict = OTHER
        for count in (self.verdicts.setdefault(verdict, Count()), self.total):
            count.packets += packets
            count.bytes += size

    def add_all(self, verdicts: Sequence[str], sizes: Iterable[int]) -> None:
        """Count the packets of a batch."""
        totals: dict[str, int] = {}
        for name, size in zip(verdicts, sizes, strict=True):
            totals[name] = totals.get(name, 0) + size
        for name, packets in Counter(verdicts).items():
            self.add(name, totals[name], packets)

    def as_json(self) -> dict[str, Any]:
        """Return the report as JSON has it."""
        return {
            "packets": self.total.packets,
            "bytes": self.total.bytes,
            "verdicts": {
                name: {"packets": count.packets, "bytes": count.bytes}
                for name, count in self.verdicts.items()
            },
            "written": self.written,
            "seconds": round(self.seconds, 6),
            "error": self.error,
            "output": self.output,
        }


def verdict(result: Result) -> str:
    """Return what a table calls a result: the action's name, or r0."""
    return result.action or f"{result.return_value} ({result.return_value:#x})"


def kept(program: Program, result: Result) -> bytes:
    """Return the packet that goes on: with its VLAN tag in it, and for a socket filter cut to r0 bytes."""
    data = result.data
    if result.context.get("vlan_present"):
        protocol, tag = result.context["vlan_proto"], result.context["vlan_tci"]
        assert isinstance(protocol, int)
        assert isinstance(tag, int)
        data = data[:12] + protocol.to_bytes(2, "little") + tag.to_bytes(2, "big") + data[12:]
    return data[: 14 + result.return_value] if program.type == "socket_filter" else data


def run(
    program: Program,
    file: str,
    write: str | None,
    execute: Callable[[bytes], Result],
    *,
    show: bool,
    function: JitFunction | None = None,
    verdicts: str | None = None,
) -> Report:
    """Run `execute` on each packet of `file`; write those that pass to `write`, all verdicts to `verdicts`.

    With a `function`, and nothing to write, whole batches go through that. A packet that the program faults
    on, or that is too short for it, is counted as such. With `show`, lines that the program prints go to
    standard output as they come; else the report has them. What is damaged behind some packets (a capture
    that was cut off) is the report's error. Raises CaptureError for a capture without a packet that can be
    read, OSError.
    """
    report = Report()
    start = time.perf_counter()
    with contextlib.ExitStack() as stack:
        step = stack.enter_context(_progress(os.path.getsize(file) if os.path.isfile(file) else None))
        writer = stack.enter_context(Writer(write)) if write is not None else None
        table = stack.enter_context(Table(verdicts)) if verdicts is not None else None
        this = _Run(program, execute, report, writer, sys.stdout if show else None)
        try:
            for batch in read(file):
                frames = batch.frames()
                names = this.batch(frames, function) if function is not None else this.each(frames)
                if table is not None:
                    table.add(frames, names)
                step(batch.position)
        except CaptureError as damaged:
            if not report.total.packets:
                raise
            report.error = report.error or str(damaged).removeprefix(f"{file}: ")
        report.written = writer.written if writer is not None else None
    report.seconds = time.perf_counter() - start
    return report


@dataclass(slots=True)
class _Run:
    """A program on batches: packet by packet, or all at once."""

    program: Program
    execute: Callable[[bytes], Result]
    report: Report
    writer: Writer | None
    output: IO[str] | None

    def each(self, batch: Batch) -> list[str]:
        """Run a batch packet by packet; return what became of each."""
        rows = zip(batch, batch.timestamps, batch.wire_lengths, strict=True)
        return [self._one(bytes(data), time, wire) for data, time, wire in rows]

    def _one(self, data: bytes, time: int, wire_size: int) -> str:
        report, writer = self.report, self.writer
        try:
            result = self.execute(data)
        except (ExecutionError, InputError) as error:
            name = REFUSED if isinstance(error, InputError) else FAULT
            report.add(name, len(data))
            report.error = report.error or f"packet {report.total.packets}: {error}"
            return name
        name = verdict(result)
        report.add(name, len(data))
        for line in result.output:
            if self.output is not None:
                print(line, file=self.output)
            else:
                report.output.append(line)
        if writer is not None and result.passes:
            passed = kept(self.program, result)
            writer.add(passed, time, wire_size + len(passed) - len(data))
        return name

    def batch(self, batch: Batch, function: JitFunction) -> list[str]:
        """Run a batch in one native loop; return what became of each packet."""
        faults: list[ExecutionError | InputError] = []
        values = function.map(batch, on_fault=0, faults=faults)
        type_ = program_type(self.program.type) if self.program.type is not None else None
        named = {value: _named(value, type_) for value in set(values)}
        names = [named[value] for value in values]
        for error in faults:
            assert error.index is not None  # a batch's have one
            names[error.index] = REFUSED if isinstance(error, InputError) else FAULT
        if faults and self.report.error is None:
            first = faults[0]
            said = str(first).removeprefix(f"packet {first.index}: ")
            self.report.error = f"packet {batch.first + (first.index or 0) + 1}: {said}"
        self.report.add_all(names, batch.lengths)
        return names


def _named(value: int, type_: ProgramType | None) -> str:
    action = type_.action(value) if type_ is not None else None
    return action or f"{value} ({value:#x})"


TAKING = frozenset({MapType.RINGBUF, MapType.PERF_EVENT_ARRAY, MapType.PROG_ARRAY})
"""Types of maps that take what a run then has as its events, or programs that may."""
PRINTING = frozenset(NUMBERS[name] for name in ("bpf_trace_printk", "bpf_trace_vprintk"))


def leaves_values_only(program: Program) -> bool:
    """True where nothing but r0 and maps is left of a run: no line printed, no event sent, no tail call."""
    kinds = {map_.definition.type for map_ in program.maps}
    return not kinds & TAKING and not any(
        insn.imm in PRINTING
        for insn in program.instructions
        if insn.row is not None and insn.row.kind is Kind.CALL_HELPER
    )


@contextlib.contextmanager
def _progress(size: int | None) -> Iterator[Step]:
    """Show a bar on standard error, where that is a terminal; what it gives takes the bytes done."""
    if not sys.stderr.isatty():
        yield lambda done: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TaskProgressColumn, TimeRemainingColumn

    columns = (BarColumn(), TaskProgressColumn(), DownloadColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("packets", total=size)
        yield lambda done: progress.update(task, completed=done)


def print_table(report: Report) -> None:
    """Print the verdicts, most frequent first, and their total."""
    total = report.total
    counts = sorted(report.verdicts.items(), key=lambda item: -item[1].packets)
    rows = [
        (name, str(count.packets), str(count.bytes), f"{100 * count.packets / total.packets:.1f} %")
        for name, count in counts
    ]
    rows.append(("total", str(total.packets), str(total.bytes), "100.0 %" if total.packets else ""))
    print_columns(("verdict", "packets", "bytes", "share"), rows)
    if total.packets and report.seconds:
        print(f"{total.packets / report.seconds:,.0f} packets a second")
