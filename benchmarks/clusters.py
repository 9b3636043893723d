"""A filter over a capture larger than its workers' memory, on Dask: two processes beside one.

python benchmarks/clusters.py [--packets N] [--rounds N] [--write]
"""

from __future__ import annotations

import argparse
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

REPEATED = 1_000_000
LIMIT = 1 << 30
PART = 64 << 20
WORDS = """
`ebpfjit.dask.run` of `examples/packets/xdp_port_filter.o`, its counters summed, over a capture of {packets:,}
packets ({size} MiB, in parts of {part} MiB), on a `LocalCluster` of one process and of two, each with one
thread and {limit} MiB of memory. Medians of {rounds} rounds in which both take turns. `processor` is what the
workers took together: where processors are free, two processes are as many times faster as `with free
processors` says. `wall` hangs on what else this machine does. Memory is a worker's at its peak, with all that
it imports.
"""


def used() -> tuple[float, int]:
    """Return seconds and bytes of the worker that asks."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime, usage.ru_maxrss * 1024


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


def timed(client: Client, program: Any, path: Path, packets: int) -> tuple[float, float]:
    """Return seconds of the workers, and of the clock."""
    before = sum(seconds for seconds, _ in client.run(used).values())
    start = time.perf_counter()
    answer = ebpfjit.dask.run(program, str(path), merge={"counters": "sum"}, part_size=PART)
    wall = time.perf_counter() - start
    assert answer.counts.packets.sum() == packets
    return sum(seconds for seconds, _ in client.run(used).values()) - before, wall


def measured(path: Path, packets: int, rounds: int) -> tuple[dict[int, list[tuple[float, float]]], int]:
    """Return the times of each round, by the number of processes, and the bytes of the largest worker."""
    obj = load(OBJECT)
    for port in BLOCKED:
        obj.maps["blocked"][port] = 1
    program = obj.programs["port_filter"]
    times: dict[int, list[tuple[float, float]]] = {1: [], 2: []}
    peak = 0
    clusters = {
        count: LocalCluster(
            n_workers=count,
            threads_per_worker=1,
            processes=True,
            memory_limit=LIMIT,
            dashboard_address=None,
            silence_logs=50,
        )
        for count in times
    }
    clients = {count: Client(cluster, set_as_default=False) for count, cluster in clusters.items()}
    for turn in range(rounds + 1):
        for count, client in clients.items():
            with client.as_current():
                found = timed(client, program, path, packets)
            if turn:  # the first one imports and compiles
                times[count].append(found)
            peak = max(peak, *(size for _, size in client.run(used).values()))
    for count, client in clients.items():
        client.close()
        clusters[count].close()
    return times, peak


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--packets", type=int, default=4_000_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--write", action="store_true", help="replace the part of RESULTS.md")
    arguments = parser.parse_args()
    folder = Path(tempfile.mkdtemp())
    try:
        path = folder / "traffic.pcap"
        capture(path, arguments.packets)
        size = path.stat().st_size >> 20
        times, peak = measured(path, arguments.packets, arguments.rounds)
    finally:
        shutil.rmtree(folder)
    seconds = {n: [median(column) for column in zip(*found, strict=True)] for n, found in times.items()}
    processor, wall = seconds[1]
    rows = [
        (str(n), f"{p:.2f}", f"{n * processor / p:.2f}", f"{w:.2f}", f"{wall / w:.2f}")
        for n, (p, w) in seconds.items()
    ]
    headings = ("processes", "processor, s", "faster, with free processors", "wall, s", "faster, here")
    shown = table(headings, "rrrrr", rows)
    remark = f"- The largest worker has {peak >> 20} MiB at its peak (asked: 1024 MiB, 1.8 times faster)."
    said = WORDS.format(
        packets=arguments.packets, size=size, part=PART >> 20, limit=LIMIT >> 20, rounds=arguments.rounds
    )
    print(shown, remark, sep="\n")
    if arguments.write:
        write("clusters", part("Two processes", "python benchmarks/clusters.py --write", said, shown, remark))
    return 0


if __name__ == "__main__":
    sys.exit(main())
