"""What packet programs cost as they are compiled by default, from the first packet on.

    python benchmarks/packets.py [--rounds N] [--write]

The programs are those of examples/packets: each is loaded, compiled and called 10,000 times, once with
`optimize=True` and once as by default.
"""

from __future__ import annotations

import argparse
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path

from results import part, table, write

from ebpfjit import Environment, LicenseWarning, load
from ebpfjit.bench.measure import Rounds, in_turn, median

EXAMPLES = Path(__file__).resolve().parents[1] / "examples" / "packets"
COUNT, FIRST = 10_000, 2_000
ROUNDS = 5
PACKET = bytes.fromhex("00000000000000000000000008004500003c00000000401100000a0000010a00000204d20050001a0000")
PACKET += bytes(18)

#   program        object      processors  before: default, whole (ms), and a call behind the first (µs)
PROGRAMS = {
    "port_filter": ("xdp_port_filter", 1, "395.1", "39.240"),
    "limit":       ("rate_limiter",    4, "479.5", "47.380"),
    "route":       ("lpm_router",      1, "343.6", "33.944"),
    "dispatch":    ("load_balancer",   1, "235.3", "23.295"),
    "push":        ("vlan",            1, "381.5", "38.042"),
}  # fmt: skip

WORDS = """
The programs of `examples/packets`, compiled and called 10,000 times (one packet, UDP to port 80) in a process
that has compiled them before; medians of {rounds} rounds of processor time, in which both ways take turns.
whole: compiling and all calls, ms; then: a call behind the first 2,000, µs. Before: by default at {base},
2026-11-29, on the same machine: each map of baseline code, each LPM trie and each call with several
processors took Python there, as bpf_tail_call (dispatch) and the clock of an environment of one's own (limit)
did; bpf_skb_vlan_push (push) does today, as `explain()` tells.
"""
BASE = "69c782c"


def once(name: str, optimize: bool | None, then: list[float]) -> Callable[[], float]:
    """Return what loads, compiles and calls a program, and returns the nanoseconds but for loading."""
    file, cpus, *_ = PROGRAMS[name]

    def work() -> float:
        environment = Environment(cpus=cpus) if cpus > 1 else None
        program = load(EXAMPLES / f"{file}.o", environment=environment).program(name)
        start = time.process_time_ns()
        function = program.compile(optimize=optimize)
        for _ in range(FIRST):
            function(PACKET)
        middle = time.process_time_ns()
        for _ in range(COUNT - FIRST):
            function(PACKET)
        end = time.process_time_ns()
        then.append((end - middle) / (COUNT - FIRST))
        return end - start

    work()
    then.clear()
    return work


def measured(rounds: int) -> str:
    """Return the table of all programs."""
    rows = []
    for name, (file, cpus, *before) in PROGRAMS.items():
        then: dict[str, list[float]] = {"optimised": [], "default": []}
        ways = {way: once(name, way == "optimised" or None, each) for way, each in then.items()}
        whole = {way: median(each) / 1e6 for way, each in in_turn(ways, Rounds(rounds)).items()}
        later = {way: median(each) / 1e3 for way, each in then.items()}
        of = f"{file}: {name}" + (f", {cpus} processors" if cpus > 1 else "")
        cells = [f"{each[way]:.{digits}f}" for each, digits in ((whole, 1), (later, 3)) for way in ways]
        ratios = [f"{each['default'] / each['optimised']:.2f}" for each in (whole, later)]
        rows.append((of, *cells[:2], ratios[0], before[0], *cells[2:], ratios[1], before[1]))
        print(*rows[-1], sep="  ")
    heads = ("optimised, whole", "default, whole", "ratio", "before")
    heads += ("optimised, then", "default, then", "ratio", "before")
    return table(("program", *heads), "l" + "r" * len(heads), rows)


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--write", action="store_true", help="replace the part of RESULTS.md")
    arguments = parser.parse_args()
    warnings.simplefilter("ignore", LicenseWarning)
    found = measured(arguments.rounds)
    if arguments.write:
        words = WORDS.format(rounds=arguments.rounds, base=BASE)
        write(
            "packets",
            part("Packet programs by default", "python benchmarks/packets.py --write", words, found),
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
