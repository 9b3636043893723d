"""What the two tiers are worth: a program compiled and called, from one call to many.

    python benchmarks/tiers.py [--rounds N] [--json FILE] [--write]

What is measured, and how: ebpfjit/bench/tiers.py.
"""

from __future__ import annotations

import sys

from results import measure, parser

from ebpfjit.bench.tiers import BENCHMARK

WORDS = """
Milliseconds for a program that is made from its bytes, compiled and called so many times on a small
memory, in a process that has compiled it before; medians of {rounds} rounds, in which all take turns.
never: baseline code for good (`optimize=False`); at once: optimised (`optimize=True`); tiers: by default.
"""


def main() -> int:
    arguments = parser(__doc__ or "").parse_args()
    return measure("tiers", "Two tiers", WORDS, [BENCHMARK], arguments)


if __name__ == "__main__":
    sys.exit(main())
