"""A program on every packet of a capture: verdicts counted, passed packets written, a table at the end."""

from __future__ import annotations

import contextlib
import os
import sys
import time
from array import array
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import IO, Any

from ebpfjit.capture import Batch, Writer, read
from ebpfjit.capture.causes import Causes
from ebpfjit.capture.tally import Tally
from ebpfjit.capture.windows import GZIP, ZSTD
from ebpfjit.cli.output import clearing_up, print_columns
from ebpfjit.cli.verdicts import Table
from ebpfjit.errors import CaptureError, EbpfError, ExecutionError, InputError
from ebpfjit.function import JitFunction
from ebpfjit.program import Program
from ebpfjit.record import dataclass, field, replace
from ebpfjit.runner import Result
from ebpfjit.runtime.changed import NO_REASON, Changed
from ebpfjit.runtime.contexts import ProgramType, program_type
from ebpfjit.runtime.contexts.outcome import with_tag
from ebpfjit.runtime.contexts.packet import LINK_HEADER_SIZE

Step = Callable[[int], None]

FAULT, REFUSED, OTHER = "fault", "not run", "other"
MAX_REASONS = 10
MAX_VERDICTS = 1 << 16
"""Rows of the table; without a type r0 is the verdict, and each packet may have one of its own."""


@dataclass(slots=True)
class Count:
    """Packets, and their bytes as captured."""

    packets: int = 0
    bytes: int = 0


@dataclass
class Report:
    """What became of a capture: a count for each verdict, packets written, the first error's text.

    `events` counts what went to ring and perf buffers, by the map. `reasons` are (verdict, line of source,
    packets) of what did not pass, None where nobody asked.
    """

    verdicts: dict[str, Count] = field(default_factory=dict)
    total: Count = field(default_factory=Count)
    written: int | None = None
    seconds: float = 0.0
    error: str | None = None
    output: list[str] = field(default_factory=list)
    events: dict[str, int] = field(default_factory=dict)
    reasons: list[tuple[str, str, int]] | None = None

    def print(self, line: str, file: IO[str] | None) -> None:
        """Print a line that the program printed, or keep it."""
        if file is not None:
            print(line, file=file)
        else:
            self.output.append(line)

    def count_events(self, names: Iterable[str]) -> None:
        """Count events by the map that they went to."""
        for name in names:
            self.events[name] = self.events.get(name, 0) + 1

    def add(self, verdict: str, size: int, packets: int = 1) -> None:
        """Count packets, of so many bytes together."""
        if verdict not in self.verdicts and len(self.verdicts) >= MAX_VERDICTS:
            verdict = OTHER
        for count in (self.verdicts.setdefault(verdict, Count()), self.total):
            count.packets += packets
            count.bytes += size

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
            "events": self.events,
            **({} if self.reasons is None else {"reasons": [*map(list, self.reasons)]}),
        }


def verdict(result: Result) -> str:
    """Return what a table calls a result: the action's name, or r0."""
    return result.action or f"{result.return_value} ({result.return_value:#x})"


def kept(program: Program, result: Result) -> bytes:
    """Return the packet that goes on: with its VLAN tag in it, and for a socket filter cut to r0 bytes."""
    data = with_tag(result.data, result.context)
    return data[: LINK_HEADER_SIZE + result.return_value] if program.type == "socket_filter" else data


def run(
    program: Program,
    file: str,
    write: str | None,
    execute: Callable[[bytes], Result],
    *,
    show: bool,
    function: JitFunction | None = None,
    verdicts: str | None = None,
    reasons: bool = False,
) -> Report:
    """Run `execute` on each packet of `file`; write those that pass to `write`, all verdicts to `verdicts`.

    With a `function` whole batches go through that. A packet that the program faults on, or that is too short
    for it, is counted as such. With `show`, lines that the program prints go to standard output as they come,
    to standard error where packets go there;
    else the report has them. What is damaged behind some packets (a capture that was cut off) is the report's
    error. With `reasons`, a function that remembers them, the lines that decided are in it too. Raises
    CaptureError for a capture without a packet that can be read, OSError.
    """
    report = Report()
    start = time.perf_counter()
    with contextlib.ExitStack() as stack:
        stack.enter_context(clearing_up())
        step = stack.enter_context(_progress(_size(file)))
        writer = stack.enter_context(Writer(write)) if write is not None else None
        table = stack.enter_context(Table(verdicts)) if verdicts is not None else None
        output = (sys.stderr if write == "-" else sys.stdout) if show else None
        this: _Each | _Batches = _Each(program, execute, report, writer, output, table)
        if function is not None:
            this = _Batches(program, function, report, writer, output, table, reasons=reasons)
        try:
            for batch in read(file):
                this.run(batch.frames())
                step(batch.position)
                del batch  # the next one has its memory, which is in the processor's cache
        except CaptureError as damaged:
            if not report.total.packets and not this.packets:
                raise
            report.error = report.error or str(damaged).removeprefix(f"{file}: ")
        this.end()
        report.written = writer.written if writer is not None else None
    report.seconds = time.perf_counter() - start
    return report


@dataclass(slots=True)
class _Each:
    """A program on batches, packet by packet."""

    program: Program
    execute: Callable[[bytes], Result]
    report: Report
    writer: Writer | None
    output: IO[str] | None
    table: Table | None
    packets: int = 0

    def run(self, batch: Batch) -> None:
        """Run a batch."""
        rows = zip(batch, batch.timestamps, batch.wire_lengths, strict=True)
        names = [self._one(bytes(data), time, wire) for data, time, wire in rows]
        if self.table is not None:
            self.table.add(batch, names)

    def end(self) -> None:
        """All packets were counted."""

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
            report.print(line, self.output)
        report.count_events(event for event, _ in result.events)
        if writer is not None and result.passes:
            passed = kept(self.program, result)
            writer.add(passed, time, wire_size + len(passed) - len(data))
        return name


class _Batches:
    """A program on batches, each in one native loop."""

    def __init__(
        self, program: Program, function: JitFunction, report: Report, writer: Writer | None,
        output: IO[str] | None, table: Table | None, *, reasons: bool,
    ) -> None:  # fmt: skip
        self.type = program_type(program.type) if program.type is not None else None
        self.function, self.report, self.writer, self.table = function, report, writer, table
        self.output = output
        self.packets = 0
        self.tally = Tally()
        self.faults: Counter[str] = Counter()
        self.bytes_of_faults: Counter[str] = Counter()
        self.changed = Changed() if writer is not None else None
        self.program = program
        self.causes = Causes() if reasons else None

    def run(self, batch: Batch) -> None:
        """Run a batch."""
        faults: list[ExecutionError | InputError] = []
        events: list[tuple[int, str, bytes]] = []
        lines: list[tuple[int, str]] = []
        causes = array("Q") if self.causes is not None else None
        values = self.function.map(
            batch, on_fault=0, faults=faults, changed=self.changed, events=events, output=lines,
            reasons=causes,
        )  # fmt: skip
        if causes is not None and self.causes is not None:
            self.causes.add(values, causes)
        self.packets += len(batch)
        self.tally.add(values, batch.lengths)
        for _, line in lines:
            self.report.print(line, self.output)
        if events:
            self.report.count_events(name for _, name, _ in events)
        faulted = {error.index or 0: error for error in faults}
        for index, error in faulted.items():
            self._count_fault(batch, index, error)
        if self.table is not None:
            self.table.add(batch, self._names(values, faulted))
        if self.writer is not None:
            self._write(batch, values, faulted)

    def end(self) -> None:
        """Put what was counted into the report."""
        for value, packets, size in self.tally:
            self.report.add(_named(value, self.type), size, packets)
        for name, packets in self.faults.items():
            self.report.add(name, self.bytes_of_faults[name], packets)
        if self.causes is not None:
            self.report.reasons = self._reasons(self.causes)

    def _reasons(self, causes: Causes) -> list[tuple[str, str, int]]:
        """Return (verdict, line of source, packets) of what does not pass, most frequent first."""
        lines: Counter[tuple[str, str]] = Counter()
        for value, pc, packets in causes:
            if pc != NO_REASON and (self.type is None or not self.type.lets_pass(value)):
                where = self.program.line_at(pc)
                lines[_named(value, self.type), f"pc {pc}" if where is None else str(where)] += packets
        return [(*both, packets) for both, packets in lines.most_common()]

    def _count_fault(self, batch: Batch, index: int, error: ExecutionError | InputError) -> None:
        name, size = _fault_name(error), batch.lengths[index]
        self.tally.take_off(0, size)  # what stands in its place
        self.faults[name] += 1
        self.bytes_of_faults[name] += size
        if self.report.error is None:
            said = str(error).removeprefix(f"packet {index}: ")
            self.report.error = f"packet {batch.first + index + 1}: {said}"

    def _names(self, values: array[int], faulted: Mapping[int, EbpfError]) -> list[str]:
        """Return what became of each packet."""
        places = self.tally.places
        if places is not None:
            rows = [_named(value, self.type) for value in self.tally.rows]
            names = [rows[place] for place in places]
        else:
            names = [_named(value, self.type) for value in values]
        for index, error in faulted.items():
            names[index] = _fault_name(error)
        return names

    def _write(self, batch: Batch, values: array[int], faulted: Mapping[int, EbpfError]) -> None:
        """Write what passes, as the runs left it."""
        assert self.writer is not None
        assert self.changed is not None
        assert self.type is not None  # else nobody knows what passes
        passes, places = self.type.lets_pass, self.tally.places
        if places is not None:
            table = bytes(map(passes, self.tally.rows))
            keep = bytearray(places.translate(table.ljust(256, b"\0")))
        else:
            keep = bytearray(map(passes, values))
        for index in faulted:
            keep[index] = 0
        lengths = self.changed.lengths
        if self.type.name == "socket_filter":
            rows = zip(lengths, values, strict=True)
            lengths = memoryview(array("Q", [min(size, LINK_HEADER_SIZE + value) for size, value in rows]))
        wires = batch.wire_lengths
        if lengths.cast("B") != batch.lengths.cast("B"):
            sizes = zip(wires, lengths, batch.lengths, strict=True)
            wires = memoryview(array("Q", [wire + now - before for wire, now, before in sizes]))
        columns = (self.changed.offsets, lengths, batch.timestamps, wires)
        self.writer.write(replace(batch.with_columns(columns), buffer=self.changed.buffer), keep)


def _fault_name(error: EbpfError) -> str:
    return REFUSED if isinstance(error, InputError) else FAULT


def _named(value: int, type_: ProgramType | None) -> str:
    action = type_.action(value) if type_ is not None else None
    return action or f"{value} ({value:#x})"


def _size(file: str) -> int | None:
    """Return how many bytes will be read, None where that is not known: of a stream, or compressed."""
    if not os.path.isfile(file):
        return None
    with open(file, "rb") as head:
        is_packed = head.read(4).startswith((GZIP, ZSTD))
    return None if is_packed else os.path.getsize(file)


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
    if report.reasons:
        top = report.reasons[:MAX_REASONS]
        print()
        print_columns(("decided at", "verdict", "packets"), [(where, name, str(n)) for name, where, n in top])
        if len(report.reasons) > len(top):
            print(f"... and at {len(report.reasons) - len(top)} more lines")
    for name, events in report.events.items():
        print(f"{events} events of {name!r}")
    if total.packets and report.seconds >= 1:  # in less it is compiling that takes the time
        print(f"{total.packets / report.seconds:,.0f} packets a second")
