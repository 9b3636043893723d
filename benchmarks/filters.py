"""Filters: `tcp port 80` a packet, beside libpcap, pcapy and scapy; 200 expressions as XDP programs.

python benchmarks/filters.py [--rounds N] [--write]     pcapy where it is installed
"""

from __future__ import annotations

import argparse
import ctypes
import itertools
import subprocess
import sys
import tempfile
import time
from array import array
from collections.abc import Callable, Iterable, Sequence
from functools import cache
from itertools import repeat
from pathlib import Path
from typing import Any

from results import part, table, write
from scapy.layers.inet import IP, TCP
from scapy.layers.l2 import Ether
from traffic import packets as traffic

from ebpfjit import Program, VerifierError, filters, kernel
from ebpfjit.bench.measure import Rounds, in_turn, median
from ebpfjit.filters import pcap

EXPRESSION = "tcp port 80"
CALLS, ROUNDS, PACKETS = 20_000, 9, 10_000
WORDS = """
Processor time, medians of {rounds} rounds in which all take turns. One packet (54 bytes, TCP to port 80)
in a Python loop, whose own {loop:.0f} ns are in each figure; then {packets:,} packets at once: all like
that one, and mixed traffic (`benchmarks/traffic.py`). libpcap's own machine is `bpf_filter` of {version},
called through ctypes, and from a loop in C. scapy's functions are given a packet that is dissected already.
"""
ACCEPTED = """
{count} expressions (ports, hosts, networks, VLAN, MPLS, arithmetic, and pairs of these) as XDP programs:
Linux's verifier accepts {accepted} ({percent:.1f} %). On {packets} packets of that traffic the verdicts are
compared with libpcap's: of optimised and baseline code on all, of the interpreter on each 40th, and in
{run} runs in Linux. Differences: {wrong}.
"""
LOOP = """
#include <stdint.h>
typedef unsigned filter(const void *, const uint8_t *, unsigned, unsigned);
uint64_t loop(filter *run, const void *code, const uint8_t *data, const uint64_t *at,
              const uint32_t *size, int n)
{
    uint64_t hits = 0;
    for (int i = 0; i < n; i++) hits += run(code, data + at[i], size[i], size[i]) != 0;
    return hits;
}
"""
SIMPLE = (
    "ip", "ip6", "arp", "tcp", "udp", "icmp", "icmp6", "sctp", "vlan", "vlan 7", "mpls", "pppoes",
    "ip multicast", "ether broadcast", "less 100", "greater 200", "tcp[tcpflags] & tcp-syn != 0",
    "tcp[13] & 7 = 2", "ip[8] < 64", "ip[0] & 0xf > 5", "ip proto 47", "portrange 50-100",
    "src portrange 1-1023", "net 10.0.0.0/8", "host 10.0.0.1", "src host 10.1.2.3", "ip6 net fe80::/10",
    "udp[4:2] / 4 > 30", "ip[2:2] * 2 > 900", "tcp port 80", "udp port 53", "port 443", "dst port 25",
    "len % 3 = 1", "ether[0] & 1 = 0 and ip[16] >= 224",
    "tcp and (ip[2:2] - ((ip[0]&0xf)<<2)) - ((tcp[12]&0xf0)>>2) != 0",
)  # fmt: skip


def expressions(count: int) -> list[str]:
    """Return so many expressions: the simple ones, and pairs of them."""
    joined = (f"({one}) {word} ({other})" for word in ("or", "and", "and not")
              for one, other in itertools.combinations(SIMPLE, 2))  # fmt: skip
    found = list(SIMPLE)
    for number, each in enumerate(joined):
        if len(found) == count:
            break
        if number % 7 == 0 and _is_one(each):
            found.append(each)
    return found


def _is_one(expression: str) -> bool:
    """True where libpcap takes it: it refuses what no packet can match."""
    try:
        filters.to_classic(expression)
    except filters.FilterError:
        return False
    return True


def timed(call: Callable[[Any], object], argument: Any, count: int) -> Callable[[], float]:
    def way() -> float:
        start = time.process_time_ns()
        for _ in repeat(None, count):
            call(argument)
        return (time.process_time_ns() - start) / count

    return way


def bpf_filter() -> Any:
    function = pcap._library().bpf_filter
    function.argtypes = (ctypes.c_char_p, ctypes.c_char_p, ctypes.c_uint, ctypes.c_uint)
    function.restype = ctypes.c_uint
    return function


def ways(frames: Sequence[bytes]) -> dict[str, Callable[[], float]]:
    packet = Ether() / IP() / TCP(dport=80)
    frame = bytes(packet)
    parsed = Ether(frame)
    web = filters.compile(EXPRESSION, type=None).compile(optimize=True)
    code, libpcap = filters.to_classic(EXPRESSION), bpf_filter()

    def of_ours(packet: Any) -> int:
        return int(web(packet.original))

    def dissected(data: bytes) -> bool:
        return of_scapy(Ether(data))

    def of_scapy(packet: Any) -> bool:
        return TCP in packet and 80 in (packet[TCP].sport, packet[TCP].dport)

    def through_ctypes(one: bytes) -> int:
        return int(libpcap(code, one, len(one), len(one)))

    found = {
        "nothing: a call of a function in C": timed(len, frame, CALLS),
        "fn(packet)": timed(web, frame, CALLS),
        "libpcap's bpf_filter, ctypes": timed(through_ctypes, frame, CALLS // 4),
        "scapy: lfilter=lambda packet: web(packet.original)": timed(of_ours, parsed, CALLS),
        "scapy: lfilter=lambda packet: TCP in packet and ...": timed(of_scapy, parsed, CALLS // 20),
        "scapy: the same, with the packet's dissection": timed(dissected, frame, CALLS // 100),
        **_in_batches("all like that one", [frame] * len(frames), web, code),
        **_in_batches("mixed traffic", frames, web, code),
    }
    try:
        import pcapy
    except ImportError:
        return found
    reader = pcapy.compile(pcapy.DLT_EN10MB, 262_144, EXPRESSION, 1, 0xFFFFFFFF)
    return {**found, "pcapy: BPFProgram.filter(packet)": timed(reader.filter, frame, CALLS)}


def _in_batches(what: str, frames: Sequence[bytes], web: Any, code: bytes) -> dict[str, Callable[[], float]]:
    """Return ways to run over frames: ours, and a loop in C over libpcap's."""
    buffer, lengths, count = b"".join(frames), array("I", map(len, frames)), len(frames)
    offsets = array("Q", itertools.accumulate(lengths[:-1], initial=0))
    loop, run = _loop(), ctypes.cast(bpf_filter(), ctypes.c_void_p)
    places = (offsets.buffer_info()[0], lengths.buffer_info()[0])
    hits = sum(map(bool, web.map(buffer, offsets=offsets, lengths=lengths)))
    assert hits == loop(run, code, buffer, *places, count), "libpcap finds others"
    least = Program.from_assembly("mov r0, 1\nexit").compile(optimize=True)
    return {
        f"fn.map of two instructions, {what}": batch(
            lambda: least.map(buffer, offsets=offsets, lengths=lengths), count
        ),
        f"fn.map, {what}": batch(lambda: web.map(buffer, offsets=offsets, lengths=lengths), count),
        f"libpcap's bpf_filter in C, {what}": batch(lambda: loop(run, code, buffer, *places, count), count),
    }


@cache
def _loop() -> Any:
    """Return the loop in C, compiled."""
    with tempfile.TemporaryDirectory() as folder:
        source, made = Path(folder, "loop.c"), Path(folder, "loop.so")
        source.write_text(LOOP)
        subprocess.run(["gcc", "-O2", "-shared", "-fPIC", str(source), "-o", str(made)], check=True)
        loop = ctypes.CDLL(str(made)).loop
    loop.restype = ctypes.c_uint64
    places = (ctypes.c_void_p, ctypes.c_void_p)
    loop.argtypes = (ctypes.c_void_p, ctypes.c_char_p, ctypes.c_char_p, *places, ctypes.c_int)
    return loop


def batch(work: Callable[[], object], count: int) -> Callable[[], float]:
    def way() -> float:
        start = time.process_time_ns()
        for _ in range(20):
            work()
        return (time.process_time_ns() - start) / count / 20

    return way


def accepted(texts: Iterable[str], frames: Sequence[bytes]) -> dict[str, Any]:
    """Return how many expressions Linux takes as XDP programs, and in how many verdicts engines differ."""
    libpcap, count, taken, wrong, run, refused = bpf_filter(), 0, 0, 0, 0, []
    may_ask = kernel.unavailable_reason() is None
    for text in texts:
        count += 1
        code = filters.to_classic(text)
        expected = [bool(libpcap(code, frame, len(frame), len(frame))) for frame in frames]
        program = filters.to_xdp(text, "XDP_TX", otherwise="XDP_DROP")
        for is_optimized in (True, False):
            actions = program.compile(optimize=is_optimized).map(frames)
            wrong += sum(((action == 3) != hit for action, hit in zip(actions, expected, strict=True)))
        every = list(zip(frames, expected, strict=True))
        for frame, hit in every[::40]:
            wrong += (program.run(frame, engine="interpreter").action == "XDP_TX") != hit
        if not may_ask:
            continue
        try:
            for frame, hit in every[:: len(every) // 8]:
                wrong += (program.run(frame, engine="kernel").action == "XDP_TX") != hit
                run += 1
            taken += 1
        except VerifierError as error:
            refused.append((text, str(error)[-200:]))
    for text, said in refused:
        print(f"refused: {text}: {said}", file=sys.stderr)
    return {"count": count, "accepted": taken, "percent": 100 * taken / count, "wrong": wrong, "run": run}


def main() -> int:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--rounds", type=int, default=ROUNDS)
    options.add_argument("--expressions", type=int, default=200)
    options.add_argument("--write", action="store_true", help="into RESULTS.md")
    given = options.parse_args()
    frames = [frame for _, frame in traffic(PACKETS, 1)]
    times = {name: median(each) for name, each in in_turn(ways(frames), Rounds(given.rounds)).items()}
    version = pcap._library().pcap_lib_version().decode().split(" (")[0]
    loop = times["nothing: a call of a function in C"]
    words = WORDS.format(rounds=given.rounds, loop=loop, packets=len(frames), version=version)
    rows = [(name, f"{each:,.1f}") for name, each in times.items()]
    sample = frames[:400]
    said = ACCEPTED.format(packets=len(sample), **accepted(expressions(given.expressions), sample))
    text = part(
        f"Filters: `{EXPRESSION}`", "python benchmarks/filters.py --write", words,
        table(("a packet", "ns"), "lr", rows), said.strip(),
    )  # fmt: skip
    print(text)
    if given.write:
        write("filters", text)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
