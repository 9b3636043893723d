"""A capture of mixed traffic: the same packets for the same seed, as many as are asked for.

python benchmarks/traffic.py FILE [--packets N] [--seed N] [--plot FILE.svg]

TCP, UDP, ICMP, ARP, IPv6 and VLAN, of the sizes that networks have, over a day whose nights are quiet. With
--plot the firewall of examples/packets runs over it, and what it lets through and drops is drawn by time.
"""

from __future__ import annotations

import argparse
import random
import struct
import sys
from collections.abc import Iterator
from pathlib import Path

from ebpfjit import capture, load

ROOT = Path(__file__).resolve().parents[1]
OBJECT = ROOT / "examples" / "packets" / "xdp_port_filter.o"
DAY = 86_400
START = 1_700_000_000
PORTS = (53, 80, 123, 443, 443, 443, 8080, 22, 25, 5060, 6881, 51820)
BLOCKED = (25, 5060, 6881)
SIZES = (64, 64, 64, 90, 128, 300, 576, 1514, 1514)
HEADER = struct.pack("<IHHiIII", 0xA1B23C4D, 2, 4, 0, 0, 65535, 1)


def packets(count: int, seed: int) -> Iterator[tuple[int, bytes]]:
    """Yield (nanoseconds, frame) of each packet, in order of time."""
    chosen = random.Random(seed)
    payload = chosen.randbytes(1 << 16)
    times = sorted(_time(chosen) for _ in range(count))
    for time in times:
        size, at = chosen.choice(SIZES), chosen.randrange(len(payload) - 1600)
        yield time, _frame(chosen, size, payload[at : at + 1600])


def _time(chosen: random.Random) -> int:
    """Return a moment of the day: four times as likely at noon as at night."""
    while True:
        second = chosen.random() * DAY
        if chosen.random() < (0.25 if second < DAY / 4 or second > 7 * DAY / 8 else 1):
            return int((START + second) * 1e9)


def _frame(chosen: random.Random, size: int, payload: bytes) -> bytes:
    """Return an Ethernet frame of some size."""
    kind = chosen.random()
    ethernet = chosen.randbytes(12)
    if kind < 0.02:
        return ethernet + b"\x08\x06" + payload[:28].ljust(46, b"\0")
    tag = struct.pack(">HH", 0x8100, chosen.randrange(1, 4095)) if kind > 0.95 else b""
    ports = struct.pack(">HH", chosen.randrange(1024, 65536), chosen.choice(PORTS))
    protocol = 6 if kind < 0.6 else 17 if kind < 0.92 else 1
    above = (ports if protocol != 1 else b"\x08\0\0\0") + payload
    if kind < 0.12:
        header = struct.pack(">IHBB", 6 << 28, max(size - 54, 8), protocol, 64) + chosen.randbytes(32)
        return (ethernet + tag + b"\x86\xdd" + header + above)[: max(size, 64)]
    header = struct.pack(">BBHHHBBH", 0x45, 0, max(size - 14, 28), 1, 0x4000, 64, protocol, 0)
    return (ethernet + tag + b"\x08\0" + header + chosen.randbytes(8) + above)[: max(size, 64)]


def write(path: Path, count: int, seed: int) -> None:
    """Write a capture (pcap, nanoseconds)."""
    with path.open("wb") as file:
        file.write(HEADER)
        for time, frame in packets(count, seed):
            seconds, fraction = divmod(time, 10**9)
            file.write(struct.pack("<4I", seconds, fraction, len(frame), len(frame)) + frame)


def plot(path: Path, picture: Path, bins: int = 96) -> None:
    """Draw what the firewall passes and drops, by time."""
    import numpy as np
    from matplotlib.figure import Figure

    obj = load(OBJECT)
    for port in BLOCKED:
        obj.maps["blocked"][port] = 1
    verdict_of = obj.programs["port_filter"].compile().map
    edges = np.linspace(START, START + DAY, bins + 1)
    shown = {"XDP_PASS": 2, "XDP_DROP": 1}
    counts = {name: np.zeros(bins) for name in shown}
    for batch in capture.read(path):
        times, verdicts = np.asarray(batch.timestamps) / 1e9, np.asarray(verdict_of(batch))
        for name, number in shown.items():
            counts[name] += np.histogram(times[verdicts == number], edges)[0]
    figure = Figure(figsize=(9, 3.2), layout="constrained")
    axes = figure.subplots()
    hours = (edges[:-1] - START) / 3600
    axes.stackplot(hours, *counts.values(), labels=list(counts), colors=("#2a6f97", "#9e2a2b"))
    axes.set(xlabel="hour", ylabel=f"packets in {DAY // bins // 60} minutes", xlim=(0, 24))
    axes.legend(loc="upper left", frameon=False)
    figure.savefig(picture, metadata={"Date": None} if picture.suffix == ".svg" else {})
    print({name: int(count.sum()) for name, count in counts.items()})


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("file", type=Path)
    parser.add_argument("--packets", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--plot", type=Path, metavar="FILE.svg")
    arguments = parser.parse_args()
    if not arguments.file.exists():
        write(arguments.file, arguments.packets, arguments.seed)
    if arguments.plot:
        plot(arguments.file, arguments.plot)
    return 0


if __name__ == "__main__":
    sys.exit(main())
