"""A filter over a capture of 1,000,000 packets: read, run, written; beside packets in memory, and tcpdump.

python benchmarks/captures.py [--packets N] [--rounds N] [--write]       beside tcpdump where it is installed
"""

from __future__ import annotations

import argparse
import os
import resource
import shutil
import subprocess
import sys
import tempfile
from array import array
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
from results import part, table, write
from traffic import BLOCKED, OBJECT
from traffic import write as make

from ebpfjit import arrow, capture, load
from ebpfjit.bench.measure import Rounds, in_turn, median
from ebpfjit.capture.reader import Reader, first_state
from ebpfjit.capture.windows import SIZE, FileWindows
from ebpfjit.cli.capture import run
from ebpfjit.compiling import with_reasons

ROUNDS = 5
EXPRESSION = "not port 25 and not port 5060 and not port 6881"
WORDS = """
Processor time a packet, medians of {rounds} rounds in which all take turns: {packets:,} packets of mixed
traffic (`benchmarks/traffic.py`, {size} MiB, in the page cache), `examples/packets/xdp_port_filter.o`
with three ports blocked. The file was read from the disk, as any capture is that was not written a moment
ago: what a system reads ahead lies in large stretches of memory, and is copied from there in less than
half the time. "Just written" is the same file as its writer left it. `fn.map, in memory` is given a
buffer, offsets and lengths that are there; the others start from the file. `preadv` reads the file, a
megabyte at a time, and does nothing with it: what of the time of all below it is the kernel's. `ebpfjit
run` is what the command does behind its start. tcpdump's expression tells the same packets:
`{expression}`. Memory is what a process of its own has at its peak above what it had when all was
imported and compiled.
"""


def compiled() -> Any:
    obj = load(OBJECT)
    for port in BLOCKED:
        obj.maps["blocked"][port] = 1
    return obj.programs["port_filter"].compile(optimize=True)


def timed(
    work: Callable[[], object], who: int = resource.RUSAGE_SELF, *, made: Path | None = None
) -> Callable[[], float]:
    """Return what takes nanoseconds of the processor; what was `made` by a round before is gone before it."""

    def way() -> float:
        if made is not None:
            made.unlink(missing_ok=True)
        before = resource.getrusage(who)
        work()
        after = resource.getrusage(who)
        return (after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime) * 1e9

    return way


def settle(path: Path) -> None:
    """Have the page cache hold a file as reading it from the disk leaves it."""
    with path.open("rb") as file:
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        while file.read(SIZE):
            pass


def ways(path: Path, written_now: Path, folder: Path) -> dict[str, Callable[[], float]]:
    fn = compiled()
    buffer = memoryview(path.read_bytes())
    whole = pa.array([bytes(packet) for batch in capture.read(path) for packet in batch], pa.large_binary())
    places = _places(path)
    reasoned = with_reasons(fn.program)

    def written() -> None:
        with capture.Writer(folder / "out.pcap") as writer:
            for batch in capture.read(path):
                verdicts = fn.map(batch)
                writer.write(batch, [verdict == 2 for verdict in verdicts])

    found = {
        "fn.map, in memory": timed(lambda: fn.map(buffer, offsets=places[0], lengths=places[1])),
        "arrow.map, in memory": timed(lambda: arrow.map(fn, whole)),
        "preadv": timed(lambda: _read_only(path)),
        "capture.read": timed(lambda: sum(len(batch) for batch in capture.read(path))),
        "read and fn.map": timed(lambda: [Counter(fn.map(batch)) for batch in capture.read(path)]),
        "read, fn.map and Writer": timed(written, made=folder / "out.pcap"),
        "ebpfjit run --pcap": timed(
            lambda: run(fn.program, str(path), None, _nobody, show=False, function=fn)
        ),
        "ebpfjit run --pcap --reasons": timed(
            lambda: run(fn.program, str(path), None, _nobody, show=False, function=reasoned, reasons=True)
        ),
        "ebpfjit run --pcap --write": timed(
            lambda: run(fn.program, str(path), str(folder / "o.pcap"), _nobody, show=False, function=fn),
            made=folder / "o.pcap",
        ),
        "preadv, just written": timed(lambda: _read_only(written_now)),
        "ebpfjit run --pcap, just written": timed(
            lambda: run(fn.program, str(written_now), None, _nobody, show=False, function=fn)
        ),
    }
    if shutil.which("tcpdump"):
        command = ["tcpdump", "-r", str(path), "-w", "/dev/null", EXPRESSION]
        found["tcpdump -r -w /dev/null"] = timed(
            lambda: subprocess.run(command, check=True, stderr=subprocess.DEVNULL), resource.RUSAGE_CHILDREN
        )
    return found


def _nobody(packet: bytes) -> Any:
    raise AssertionError("no packet is run by itself")


def _read_only(path: Path) -> None:
    data = memoryview(bytearray(SIZE))
    with path.open("rb", buffering=0) as file:
        while file.readinto(data):
            pass


def _places(path: Path) -> tuple[Any, Any]:
    """Return offsets and lengths of all packets, counted from the start of the file."""
    offsets, lengths = array("Q"), array("Q")
    with path.open("rb") as file:
        windows = FileWindows(file)
        reader = Reader(windows, str(path), first_state(windows, str(path)), 1 << 16)
        for batch in reader.batches():
            start = reader.position - (batch.offsets[-1] + batch.lengths[-1])
            offsets.extend(start + offset for offset in batch.offsets)
            lengths.extend(batch.lengths)
    return offsets, lengths


PEAK = """
import resource, sys
sys.path.insert(0, sys.argv[2])
from captures import compiled
from ebpfjit.cli.capture import run
fn = compiled()
fn(bytes(60))
list(fn.map([bytes(60)]))
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
run(fn.program, sys.argv[1], None, None, show=False, function=fn)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


def peak(path: Path) -> float:
    """Return MiB that reading and running takes at its peak."""
    command = [sys.executable, "-c", PEAK, str(path), str(Path(__file__).parent)]
    return int(subprocess.run(command, check=True, capture_output=True, text=True).stdout) / 1024


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--packets", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--write", action="store_true", help="replace the part of RESULTS.md")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        path, written_now = Path(name) / "traffic.pcap", Path(name) / "written.pcap"
        make(written_now, arguments.packets, 1)
        shutil.copyfile(written_now, path)
        settle(path)
        size = path.stat().st_size >> 20
        times = in_turn(ways(path, written_now, Path(name)), Rounds(arguments.rounds))
        memory = peak(path)
    figures = {way: median(each) / arguments.packets for way, each in times.items()}
    base, tcpdump = figures["fn.map, in memory"], figures.get("tcpdump -r -w /dev/null")
    rows = [
        (way, f"{ns:.0f}", f"{1e3 / ns:.2f}", f"{base / ns:.2f}", f"{tcpdump / ns:.2f}" if tcpdump else "")
        for way, ns in figures.items()
    ]
    headings = ("", "ns a packet", "million packets a second", "of fn.map", "of tcpdump")
    shown = table(headings, "lrrrr", rows)
    remark = f"- `ebpfjit run` takes {memory:.0f} MiB at its peak (at most 64 are asked)."
    bounds = [base / (base + figures[way]) for way in ("preadv", "preadv, just written")]
    remark += (
        "\n- At least 0.5 of `fn.map` is asked of `ebpfjit run`. The kernel's copy of the file and `fn.map`"
        f" alone would be {bounds[0]:.2f}, of one just written {bounds[1]:.2f}; mapping the file costs more"
        " than copying it."
    )
    said = WORDS.format(rounds=arguments.rounds, packets=arguments.packets, size=size, expression=EXPRESSION)
    print(shown, remark, sep="\n")
    if arguments.write:
        write("captures", part("Captures", "python benchmarks/captures.py --write", said, shown, remark))
    return 0


if __name__ == "__main__":
    sys.exit(main())
