"""What people wait for every day: processes until their first result, the interpreter, maps from Python.

    python benchmarks/everyday.py [--rounds N] [--json FILE] [--write]

What is measured, and how: ebpfjit/bench/everyday.py.
"""

from __future__ import annotations

import sys

from results import measure, parser

from ebpfjit.bench.everyday import BENCHMARK

WORDS = """
Medians of {rounds} rounds, in which all take turns, of processor time: on a machine that has other work to do
it passes more slowly than the clock says, and two programs that share a core take longer. `x.s` is two
instructions; modules were compiled before.

In turn with what was here before, on one machine: `ebpfjit run x.s` takes 0.58 of the time, 0.62 with
`--engine interpreter`; the interpreter is 5.0 to 6.3 times as fast (1.15 to 1.37 M instructions/s before);
the value of a hash map is read in 0.28 of the time (1,460 ns before) and stored in 0.30 (3,960 ns).
Of 2026-11-30, in turn with commit 8749002 where other work took most of the machine (21 rounds, a Python that
has the library on its path and nothing of editable installs): `ebpfjit run x.s` 68 ms after 77 (0.89),
`ebpfjit run gcd.o` 143 after 175 (0.82), with what `--cache` kept 94 after 138 (0.68), an XDP program with a
map 185 after 218 (0.85); values of hash and LRU maps are stored in 0.89 to 0.93 of the time, read in 0.93 to
0.96.
In turn with commit 6fcd3c6 (9 rounds, a wheel, other work on both cores; the least times): `ebpfjit run x.s`
49 ms after 54, `ebpfjit run gcd.o` with what `--cache` kept 58 after 83, an XDP program with a map 74 after
148; `python -c pass` 9 for both.
"""


def main() -> int:
    arguments = parser(__doc__ or "").parse_args()
    return measure("everyday", "Every day: first results, interpreter, maps", WORDS, [BENCHMARK], arguments)


if __name__ == "__main__":
    sys.exit(main())
