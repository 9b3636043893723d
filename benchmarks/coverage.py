"""What counting costs: packet programs and kernels, optimised, with coverage and without.

python benchmarks/coverage.py [--rounds N] [--write]
"""

from __future__ import annotations

import argparse
import sys
import time
import warnings
from collections.abc import Callable
from statistics import geometric_mean

from packets import EXAMPLES, PACKET, PROGRAMS
from results import part, table, write

from ebpfjit import Environment, LicenseWarning, load
from ebpfjit.bench.inputs import KERNELS
from ebpfjit.bench.measure import Rounds, in_turn, median
from ebpfjit.coverage import Coverage
from ebpfjit.function import JitFunction

ROUNDS, COUNT = 7, 4_000
WORDS = """
The same program, compiled once while coverage is on and once while it is not, optimised; medians of {rounds}
rounds of processor time, in which both take turns. Packet programs: `fn.map` over {count} packets, ns each;
kernels: a call, µs. Kernels are loops over memory that nothing calls out of: the worst that counting can
meet. Counts of innermost loops are values: they take registers, and a share of rounds of few instructions.
"""


def both(make: Callable[[], JitFunction]) -> dict[str, JitFunction]:
    """Return a function that is not counted, and one that is."""
    with Coverage():
        counted = make()
    return {"plain": make(), "counted": counted}


def row_of(
    name: str, ways: dict[str, Callable[[], object]], unit: float, rounds: int
) -> tuple[list[str], float]:
    """Return a row of the table, and its ratio."""

    def timed(work: Callable[[], object]) -> Callable[[], float]:
        def once() -> float:
            start = time.process_time_ns()
            work()
            return time.process_time_ns() - start

        return once

    found = in_turn({way: timed(work) for way, work in ways.items()}, Rounds(rounds))
    times = {way: median(each) for way, each in found.items()}
    ratio = times["counted"] / times["plain"]
    row = [name, *(f"{times[way] / unit:.1f}" for way in ("plain", "counted")), f"{ratio:.2f}"]
    print(*row, sep="  ")
    return row, ratio


def measured(rounds: int) -> tuple[str, str]:
    """Return the tables of packet programs and of kernels."""
    found, heads = [], ("program", "plain", "counted", "ratio")
    rows, ratios = [], []
    packets = [PACKET] * COUNT
    for name, (file, cpus, *_) in PROGRAMS.items():
        environment = Environment(cpus=cpus) if cpus > 1 else None
        program = load(EXAMPLES / f"{file}.o", environment=environment).program(name)
        made = both(lambda program=program: program.compile(optimize=True))  # type: ignore[misc]
        ways = {way: lambda f=f: f.map(packets) for way, f in made.items()}
        row, ratio = row_of(f"{file}: {name}", ways, COUNT, rounds)
        rows.append(row)
        ratios.append(ratio)
    rows.append(["geometric mean", "", "", f"{geometric_mean(ratios):.2f}"])
    found.append(table(heads, "lrrr", rows))
    rows, ratios = [], []
    for kernel in KERNELS:
        program = next(iter(load(kernel.object).programs.values()))
        made = both(lambda program=program: program.compile(optimize=True))  # type: ignore[misc]
        memory = bytearray(kernel.memory(kernel.size))
        ways = {way: lambda f=f, m=memory: f(bytearray(m)) for way, f in made.items()}
        row, ratio = row_of(kernel.name, ways, 1000, rounds)
        rows.append(row)
        ratios.append(ratio)
    rows.append(["geometric mean", "", "", f"{geometric_mean(ratios):.2f}"])
    found.append(table(heads, "lrrr", rows))
    return found[0], found[1]


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--write", action="store_true", help="replace the part of RESULTS.md")
    arguments = parser.parse_args()
    warnings.simplefilter("ignore", LicenseWarning)
    blocks = measured(arguments.rounds)
    if arguments.write:
        words = WORDS.format(rounds=arguments.rounds, count=COUNT)
        write("coverage", part("Coverage", "python benchmarks/coverage.py --write", words, *blocks))
    return 0


if __name__ == "__main__":
    sys.exit(main())
