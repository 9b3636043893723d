"""Verdicts of generated programs, ours against Linux's; and runs of what is accepted.

    python benchmarks/verdicts.py [--count N] [--seed N] [--runs N] [--traces N] [--show SIDE]
                                  [--unprivileged] [--write]

Linux is asked through bpf(2), which takes root. `--runs` are runs of each program that we accept, on the
interpreter first and then in machine code; a fault is a hole in the verifier. `--traces` are programs
whose registers, as the interpreter steps, are held against what the verifier claims. `--unprivileged` asks
both as a user without capabilities, which takes kernel.unprivileged_bpf_disabled=0. `--show` prints
differences: "ours", "linux", "undecided". Exit status 1 where something that we accept faults, or a claim is
wrong.
"""

from __future__ import annotations

import argparse
import resource
import sys
from collections import Counter

from results import part, table, write

from ebpfjit.difftest.verdicts import generate, soundness
from ebpfjit.difftest.verdicts.claims import unclaimed
from ebpfjit.difftest.verdicts.compare import LINUX_ONLY, OURS_ONLY, SIDES, UNDECIDED, Figures, Pair, pairs
from ebpfjit.difftest.verdicts.linux import BATCH, Judge, unprivileged_reason
from ebpfjit.difftest.verdicts.words import CLASSES
from ebpfjit.kernel import unavailable_reason

SHOWN = {"ours": OURS_ONLY, "linux": LINUX_ONLY, "undecided": UNDECIDED}
TRACES = 5
"""Runs of each program that is traced."""

INTERPRETED = 9
"""One of so many runs is the interpreter's, the others are in machine code."""


def rows(figures: Figures) -> list[list[str]]:
    found = [["Linux says", *SIDES]]
    for reason in ("accepted", *CLASSES, "unknown"):
        counts = [figures.count[reason, side] for side in SIDES]
        if any(counts):
            found.append([reason, *(str(count) for count in counts)])
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description="Verdicts of generated programs, ours against Linux's.")
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--runs", type=int, default=0)
    parser.add_argument("--traces", type=int, default=0)
    parser.add_argument("--show", choices=sorted(SHOWN), action="append", default=[])
    parser.add_argument("--unprivileged", action="store_true")
    parser.add_argument("--write", action="store_true")
    options = parser.parse_args()
    reason = unavailable_reason() or (unprivileged_reason() if options.unprivileged else None)
    if reason is not None:
        print(f"Linux is not asked: {reason}", file=sys.stderr)
        return 2
    figures, wrong, ran, traced = Figures(), [], Counter[str](), 0
    types = generate.UNPRIVILEGED if options.unprivileged else ()
    with Judge(unprivileged=options.unprivileged) as judge:
        for start in range(options.seed, options.seed + options.count, BATCH):
            stop = min(start + BATCH, options.seed + options.count)
            samples = [(number, generate.sample(number, types)) for number in range(start, stop)]
            for pair in pairs(judge, samples):
                figures.add(pair)
                if any(SHOWN[each] == pair.side for each in options.show):
                    print(pair, flush=True)
                if pair.ours.is_accepted:
                    wrong += run(pair, options.runs, ran)
                    if traced < options.traces:
                        traced += 1
                        wrong += claims(pair)
    shown = rows(figures)
    counted = table(shown[0], "l" + "r" * len(SIDES), shown[1:])
    print(counted)
    engines = ", ".join(f"{count:,} {engine}" for engine, count in ran.items())
    said = [
        f"{figures.accepted:.1%} of what Linux accepts is accepted",
        f"{figures.refused:.1%} of what it refuses for memory, null, type or termination is refused",
        f"{figures.speed:,.0f} instructions visited in a second of processor time ({figures.visited:,})",
        f"{sum(ran.values()):,} runs of what is accepted ({engines}), "
        f"{traced:,} programs traced: {len(wrong)} faults",
        f"{resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10} MiB at most",
    ]
    print("\n".join(said))
    for each in wrong:
        print(each)
    if options.write:
        asked = f"--count {options.count} --seed {options.seed} --runs {options.runs}"
        words = "Generated programs, by what Linux says of them."
        block = "\n".join(f"- {each}." for each in said)
        write("verdicts", part("Verdicts", f"python benchmarks/verdicts.py {asked}", words, counted, block))
    return bool(wrong)


def run(pair: Pair, count: int, ran: Counter[str]) -> list[str]:
    """Run an accepted program on the interpreter, then in machine code; return what went wrong."""
    if not count:
        return []
    interpreted = -(-count // INTERPRETED)
    ran["interpreter"] += interpreted
    ran["machine code"] += count - interpreted
    for fault in (
        soundness.runs(pair.sample, pair.number, interpreted),
        soundness.compiled_runs(pair.sample, pair.number, count - interpreted),
    ):
        if fault is not None:
            return [f"{pair.number}: {fault.error}: {fault.data.hex()} {fault.context}"]
    return []


def claims(pair: Pair) -> list[str]:
    """Hold what is claimed of an accepted program against traces of it."""
    verdict = pair.sample.program().verify(claims=True)
    found = unclaimed(pair.sample, verdict, pair.number, TRACES)
    return [] if found is None else [f"{pair.number}: {found}"]


if __name__ == "__main__":
    sys.exit(main())
