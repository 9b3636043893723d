"""A program on every packet of a capture: verdicts counted, passed packets written, a table at the end."""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import IO, Any

from ebpfjit.cli import pcap
from ebpfjit.cli.files import FileError
from ebpfjit.cli.output import print_columns
from ebpfjit.errors import ExecutionError, InputError
from ebpfjit.program import Program
from ebpfjit.runner import Result

Step = Callable[[int], None]

FAULT, REFUSED, OTHER = "fault", "not run", "other"
MAX_VERDICTS = 1 << 16
"""Rows of the table; without a type r0 is the verdict, and each packet may have one of its own."""


@dataclass(slots=True)
class Count:
    """Packets, and their bytes as captured."""

    packets: int = 0
    bytes: int = 0

    def add(self, size: int) -> None:
        """Count one more packet."""
        self.packets += 1
        self.bytes += size


@dataclass
class Report:
    """What became of a capture: a count for each verdict, packets written, the first error's text."""

    verdicts: dict[str, Count] = field(default_factory=dict)
    total: Count = field(default_factory=Count)
    written: int | None = None
    seconds: float = 0.0
    error: str | None = None
    output: list[str] = field(default_factory=list)

    def add(self, verdict: str, size: int) -> None:
        """Count a packet."""
        if verdict not in self.verdicts and len(self.verdicts) >= MAX_VERDICTS:
            verdict = OTHER
        self.verdicts.setdefault(verdict, Count()).add(size)
        self.total.add(size)

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
    program: Program, file: str, write: str | None, execute: Callable[[bytes], Result], *, show: bool
) -> Report:
    """Run `execute` on each packet of `file`; write those that pass to `write`.

    A packet that the program faults on, or that is too short for it, is counted as such. With
    `show`, lines that the program prints go to standard output as they come; else the report has
    them. What is damaged behind some packets (a capture that was cut off) is the report's error. Raises
    FileError for a capture without a packet that can be read, OSError.
    """
    report = Report()
    start = time.perf_counter()
    with contextlib.ExitStack() as stack:
        source = stack.enter_context(open(file, "rb"))
        size = os.fstat(source.fileno()).st_size
        step = stack.enter_context(_progress(size))
        writer = pcap.Writer(stack.enter_context(open(write, "wb"))) if write is not None else None
        try:
            for packet in pcap.read(source, file):
                _one(program, packet, execute, report, writer, sys.stdout if show else None)
                step(packet.position)
        except FileError as damaged:
            if not report.total.packets:
                raise
            report.error = report.error or str(damaged).removeprefix(f"{file}: ")
        report.written = writer.written if writer is not None else None
    report.seconds = time.perf_counter() - start
    return report


def _one(
    program: Program,
    packet: pcap.Packet,
    execute: Callable[[bytes], Result],
    report: Report,
    writer: pcap.Writer | None,
    output: IO[str] | None,
) -> None:
    try:
        result = execute(packet.data)
    except (ExecutionError, InputError) as error:
        report.add(REFUSED if isinstance(error, InputError) else FAULT, len(packet.data))
        report.error = report.error or f"packet {report.total.packets}: {error}"
        return
    report.add(verdict(result), len(packet.data))
    for line in result.output:
        if output is not None:
            print(line, file=output)
        else:
            report.output.append(line)
    if writer is not None and result.passes:
        data = kept(program, result)
        writer.write(packet.time, data, packet.wire_size + len(data) - len(packet.data))


@contextlib.contextmanager
def _progress(size: int) -> Iterator[Step]:
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
