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

Before (the same machine, taking turns with what is here): `ebpfjit run x.s` {before_run}, the interpreter
{before_interpreter}, a hash map's value read in {before_read} and stored in {before_write}.
"""


def main() -> int:
    arguments = parser(__doc__ or "").parse_args()
    return measure("everyday", "Every day: first results, interpreter, maps", WORDS, [BENCHMARK], arguments)


if __name__ == "__main__":
    sys.exit(main())
