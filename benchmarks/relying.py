"""What it saves to rely on the verifier's verdict: checks left in machine code, and time of a packet.

    python benchmarks/relying.py [--rounds N] [--write]

The programs are those of examples/packets that are accepted, as baseline code and optimised, with
`verdict=program.verify()` and without; a batch of one packet, in turns.
"""

from __future__ import annotations

import argparse
import math
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path

from packets import PACKET
from results import part, table, write

from ebpfjit import JitFunction, LicenseWarning, load
from ebpfjit.bench.measure import Rounds, in_turn, median
from ebpfjit.sealed import inside

EXAMPLES = Path(__file__).resolve().parents[1] / "examples" / "packets"
ROUNDS, BATCH = 15, 4_000

WORDS = """
The programs of `examples/packets` that the verifier accepts, each on {batch:,} times the same packet (UDP to
port 80) in one `fn.map`; medians of {rounds} rounds of processor time, in which all four ways take turns. A
ratio is the time with `verdict=program.verify()` to that without; checks are the accesses that machine code
looks at, without and with.
"""


def checks(function: JitFunction) -> int:
    """Return how many accesses are checked."""
    notes = inside(function).plain.compiled.listing.notes
    return sum(note.startswith("checked") for note in notes.values())


def batch(function: JitFunction) -> Callable[[], float]:
    """Return what runs a program on a batch, and returns nanoseconds a packet."""
    packets = [PACKET] * BATCH
    function.map(packets)

    def work() -> float:
        start = time.process_time_ns()
        function.map(packets)
        return (time.process_time_ns() - start) / BATCH

    return work


def measured(rounds: int) -> str:
    """Return the table of all programs, and the geometric means of their ratios."""
    rows, ratios = [], []
    for path in sorted(EXAMPLES.glob("*.o")):
        for name, program in load(path).programs.items():
            verdict = program.verify()
            made = {
                (optimize, relies): program.compile(optimize=optimize, verdict=verdict if relies else None)
                for optimize in (False, True)
                for relies in (False, True)
            }
            times = in_turn({way: batch(function) for way, function in made.items()}, Rounds(rounds))
            took = {way: median(each) for way, each in times.items()}
            left = {way: checks(function) for way, function in made.items()}
            found = [took[optimize, True] / took[optimize, False] for optimize in (False, True)]
            ratios.append(found)
            cells = [
                cell
                for optimize, ratio in zip((False, True), found, strict=True)
                for cell in (
                    f"{left[optimize, False]} to {left[optimize, True]}",
                    f"{took[optimize, False]:.0f}",
                    f"{took[optimize, True]:.0f}",
                    f"{ratio:.2f}",
                )
            ]
            rows.append((f"{path.stem}: {name}", *cells))
            print(*rows[-1], sep="  ")
    means = [math.exp(sum(map(math.log, column)) / len(ratios)) for column in zip(*ratios, strict=True)]
    rows.append(("geometric mean", "", "", "", f"{means[0]:.2f}", "", "", "", f"{means[1]:.2f}"))
    print(*rows[-1], sep="  ")
    one = ("checks", "without, ns", "with, ns", "ratio")
    heads = ("program", *(f"{code}: {head}" for code in ("baseline", "optimised") for head in one))
    return table(heads, "l" + "r" * 8, rows)


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--write", action="store_true", help="replace the part of RESULTS.md")
    arguments = parser.parse_args()
    warnings.simplefilter("ignore", LicenseWarning)
    found = measured(arguments.rounds)
    if arguments.write:
        words = WORDS.format(rounds=arguments.rounds, batch=BATCH)
        write("relying", part("Relying on the verdict", "python benchmarks/relying.py --write", words, found))
    return 0


if __name__ == "__main__":
    sys.exit(main())
