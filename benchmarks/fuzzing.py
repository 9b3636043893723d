"""How fast the fuzzer of programs is, on packets and on structs, and how long it takes to find the bugs of
examples/bugs.

python benchmarks/fuzzing.py [--rounds N] [--write]
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

from results import part, table, write

from ebpfjit import Program, load
from ebpfjit.bench.measure import median
from ebpfjit.fuzzing import Report, fuzz
from ebpfjit.fuzzing.fuzz import LIMIT as INSTRUCTIONS
from ebpfjit.fuzzing.fuzz import Fuzzer
from ebpfjit.fuzzing.side import Side

BUGS = Path(__file__).resolve().parents[1] / "examples" / "bugs"
FILTER = BUGS.parent / "packets" / "xdp_port_filter.o"
NAMES = (
    "bounds check off by one", "VLAN tags ignored", "IPv6 extension header", "fragment", "checksum",
    "byte order", "map's answer not tested", "counter overflows", "LPM prefix length", "index of a tail call",
)  # fmt: skip
ROUNDS, RUNS, STRUCT_RUNS, SLOW_RUNS = 5, 3_000_000, 1_000_000, 20_000
STRUCTS = ("kprobe", "tracepoint", "cgroup_device", "cgroup_sock_addr")
OF_A_STRUCT = """
    r2 = *(u32 *)(r1 + 0)
    r0 = 1
    if r2 == 0x1234 goto out
    r3 = *(u32 *)(r1 + 4)
    if r3 > 7 goto out
    r0 = 0
out:
    exit
"""
LIMIT = 10.0
WORDS = """
Each bug of `examples/bugs/firewall.c`, looked for with the right version beside it and the predicate
`action != XDP_ABORTED`, from {rounds} seeds: processor seconds to the first finding, shrinking included
(median, most), its kind, and the bytes of its packet. The rate is that of {runs:,} runs of
examples/packets/xdp_port_filter.o, a processor second, counted machine code and all else included.
"""
STRUCT_WORDS = """
A small program on a struct of each type: {runs:,} runs in batches of machine code, beside {slow:,} that
Python prepares one by one; runs a processor second, the median of {rounds} interleaved rounds.
"""


class _Enough(KeyboardInterrupt):
    """Raised at the first finding."""


def first_finding(number: int, seed: int) -> tuple[float, Report]:
    """Return the processor seconds to the first finding, and the report."""
    program, right = (load(BUGS / f"firewall_{each}.o").program("firewall") for each in (number, 0))

    def stop(report: Report) -> None:
        if report.findings:
            raise _Enough

    start = time.process_time()
    report = fuzz(
        program, check="action != XDP_ABORTED", against=right, seconds=10 * LIMIT, seed=seed, progress=stop
    )
    return time.process_time() - start, report


def struct_rate(type_: str, runs: int, *, prepared: bool) -> float:
    """Return runs a processor second on a struct, in batches or each `prepared` by Python."""
    side = Side(Program.from_assembly(OF_A_STRUCT, type=type_), INSTRUCTIONS)
    if prepared:
        side.compiled = None
    fuzzer = Fuzzer(side, None, None, 1, changes_maps=True)
    start = time.process_time()
    report = fuzzer.run([], None, runs, lambda report: None)
    return report.runs / (time.process_time() - start)


def struct_rows(rounds: int) -> list[tuple[str, ...]]:
    """Return a row for each type of program on a struct."""
    rows = []
    for type_ in STRUCTS:
        pairs = [
            (struct_rate(type_, SLOW_RUNS, prepared=True), struct_rate(type_, STRUCT_RUNS, prepared=False))
            for _ in range(rounds)
        ]
        before, now = (median([pair[side] for pair in pairs]) for side in (0, 1))
        rows.append((type_, f"{before:,.0f}", f"{now:,.0f}", f"{now / before:.0f}"))
        print(*rows[-1], sep="  ")
    return rows


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--write", action="store_true", help="replace the part of RESULTS.md")
    arguments = parser.parse_args()
    rows = []
    for number, name in enumerate(NAMES, 1):
        found = [first_finding(number, 100 * number + seed) for seed in range(arguments.rounds)]
        times = [seconds for seconds, _ in found]
        first = found[0][1].findings[0]
        rows.append(
            (
                f"{number} {name}",
                f"{median(times):.2f}",
                f"{max(times):.2f}",
                first.kind,
                str(len(first.packet)),
            )
        )
        print(*rows[-1], sep="  ")
    start = time.process_time()
    report = fuzz(load(FILTER).program("port_filter"), runs=RUNS)
    rate = report.runs / (time.process_time() - start)
    print(f"{rate:,.0f} runs a processor second")
    of_structs = struct_rows(arguments.rounds)
    if arguments.write:
        words = WORDS.format(rounds=arguments.rounds, runs=RUNS)
        found_table = table(("bug", "median, s", "most, s", "kind", "bytes"), "lrrlr", rows)
        rate_line = f"{rate / 1e6:.2f} million runs a processor second."
        blocks = (
            found_table,
            rate_line,
            STRUCT_WORDS.format(runs=STRUCT_RUNS, slow=SLOW_RUNS, rounds=arguments.rounds).strip(),
            table(("type", "one by one", "batches", "ratio"), "lrrr", of_structs),
        )
        write("fuzzing", part("Fuzzing a program", "python benchmarks/fuzzing.py --write", words, *blocks))
    return 0


if __name__ == "__main__":
    sys.exit(main())
