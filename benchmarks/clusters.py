"""A filter over a capture larger than its workers' memory, on Dask: two processes beside one.

python benchmarks/clusters.py [--packets N] [--times N] [--rounds N] [--write]
"""

from __future__ import annotations

import argparse
import os
import resource
import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from distributed import Client, LocalCluster
from results import part, table, write
from traffic import BLOCKED, HEADER, OBJECT
from traffic import write as make

import ebpfjit.dask
from ebpfjit import load
from ebpfjit.bench.measure import median
from ebpfjit.capture.parts import SIZE

REPEATED = 1_000_000
LIMIT = 1 << 30
WORDS = """
`ebpfjit.dask.run` of `examples/packets/xdp_port_filter.o`, its counters summed, over {times} captures of
{packets:,} packets ({size} MiB each, in parts of {part} MiB), on a `LocalCluster` of one process and of two,
each with one thread and {limit} MiB of memory. {rounds} rounds, in which one takes its turn behind the other,
on a cluster of its own: one that waits would still take time, for its scheduler's and workers' clocks.
Times are medians, less those of a capture of one packet on the same cluster (the way in: {way_in}).
`processor` is what the workers took together: where processors are free, two processes are as many times
faster as `with free processors` says. `clock` hangs on what else this machine does: `faster` is the median of
the rounds' ratios, `best` that of the least times. Each worker is a session of its own: Linux shares
processors between sessions (`sched_autogroup`), so that two workers of one session get no more than one where
other work wants them too. Memory is a worker's at its peak, with all that it imports.
"""


def used() -> tuple[float, int]:
    """Return seconds and bytes of the worker that asks."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime, usage.ru_maxrss * 1024


def alone() -> None:
    """Make the worker that asks a session of its own, to which the scheduler gives a share of its own."""
    os.setsid()


def capture(path: Path, packets: int) -> None:
    """Write a capture: the same million packets, again and again."""
    count = min(packets, REPEATED)
    make(path, count, 1)
    with path.open("rb") as once, path.open("ab") as file:
        size = path.stat().st_size
        for _ in range(packets // count - 1):
            once.seek(len(HEADER))
            while once.tell() < size:
                file.write(once.read(min(1 << 24, size - once.tell())))


def timed(client: Client, program: Any, paths: list[str], packets: int) -> tuple[float, float]:
    """Return seconds of the workers, and of the clock."""
    before = sum(seconds for seconds, _ in client.run(used).values())
    start = time.perf_counter()
    answer = ebpfjit.dask.run(program, paths, merge={"counters": "sum"})
    wall = time.perf_counter() - start
    assert answer.counts.packets.sum() == packets
    return sum(seconds for seconds, _ in client.run(used).values()) - before, wall


Times = dict[int, list[tuple[float, float]]]
"""Seconds of the workers and of the clock in each round, by the number of processes."""


def measured(paths: list[str], packets: int, small: str, rounds: int) -> tuple[Times, Times, int]:
    """Return the times of all captures, and of a `small` one; the bytes of the largest worker."""
    obj = load(OBJECT)
    for port in BLOCKED:
        obj.maps["blocked"][port] = 1
    program = obj.programs["port_filter"]
    times: Times = {1: [], 2: []}
    ways_in: Times = {1: [], 2: []}
    peak = 0
    for _ in range(rounds):
        for count in times:
            with (
                LocalCluster(
                    n_workers=count,
                    threads_per_worker=1,
                    processes=True,
                    memory_limit=LIMIT,
                    dashboard_address=None,
                    silence_logs=50,
                ) as cluster,
                Client(cluster) as client,
            ):
                client.run(alone)
                timed(client, program, paths[:1], packets // len(paths))  # the first one imports and compiles
                ways_in[count].append(timed(client, program, [small], 1))
                times[count].append(timed(client, program, paths, packets))
                peak = max(peak, *(size for _, size in client.run(used).values()))
    return times, ways_in, peak


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--packets", type=int, default=4_000_000)
    parser.add_argument("--times", type=int, default=24, help="how many captures of them there are")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--write", action="store_true", help="replace the part of RESULTS.md")
    arguments = parser.parse_args()
    folder = Path(tempfile.mkdtemp())
    try:
        path, small = folder / "traffic.pcap", folder / "small.pcap"
        capture(path, arguments.packets)
        make(small, 1, 1)
        paths = [str(folder / f"{n}.pcap") for n in range(arguments.times)]
        for name in paths:  # the same bytes under many names: none is in memory as a whole
            Path(name).hardlink_to(path)
        size = path.stat().st_size >> 20
        packets = arguments.packets * arguments.times
        times, ways_in, peak = measured(paths, packets, str(small), arguments.rounds)
    finally:
        shutil.rmtree(folder)
    way_in = {n: [median(column) for column in zip(*found, strict=True)] for n, found in ways_in.items()}
    net = {n: [(p - way_in[n][0], w - way_in[n][1]) for p, w in found] for n, found in times.items()}
    processor = median([p for p, _ in net[1]])
    rows = []
    for n, found in net.items():
        p, w = (median(column) for column in zip(*found, strict=True))
        faster = median([one / this for (_, one), (_, this) in zip(net[1], found, strict=True)])
        best = min(w for _, w in net[1]) / min(w for _, w in found)
        row = (p, n * processor / p, w, faster, best)
        rows.append((str(n), *(f"{number:.2f}" for number in row)))
    headings = ("processes", "processor, s", "faster, with free processors", "clock, s", "faster", "best")
    shown = table(headings, "rrrrrr", rows)
    remark = f"- The largest worker has {peak >> 20} MiB at its peak (asked: 1024 MiB, 1.8 times faster)."
    said = WORDS.format(
        packets=arguments.packets, times=arguments.times, size=size, part=SIZE >> 20, limit=LIMIT >> 20,
        rounds=arguments.rounds, way_in=", ".join(f"{w:.2f} s with {n}" for n, (_, w) in way_in.items()),
    )  # fmt: skip
    print(said, shown, remark, sep="\n")
    if arguments.write:
        write("clusters", part("Two processes", "python benchmarks/clusters.py --write", said, shown, remark))
    return 0


if __name__ == "__main__":
    sys.exit(main())
