"""What a map's operations cost in machine code, held against the same table in C.

    python benchmarks/maps.py [--rounds N] [--json FILE] [--write]

What is measured, and how: ebpfjit/bench/maps.py.
"""

from __future__ import annotations

import sys

from results import measure, parser

from ebpfjit.bench.maps import BENCHMARK

WORDS = """
Nanoseconds of processor time above the same loop without the operation, the fastest of {rounds} rounds of
each, in which all take turns; C: the same routine on the same memory, compiled by gcc -O2 and called as a
function. Memory checks and the instruction budget are in ours; unlocked is the same with `release_gil=True`,
where each operation on a table took some 18,000 ns before.
"""


def main() -> int:
    arguments = parser(__doc__ or "").parse_args()
    return measure("maps", "Maps", WORDS, [BENCHMARK], arguments)


if __name__ == "__main__":
    sys.exit(main())
