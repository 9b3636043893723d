"""What compiling costs: stage by stage, from cold and warm, for 100 to 100,000 instructions.

    python benchmarks/compile_time.py [--rounds N] [--json FILE] [--write]

What is measured, and how: ebpfjit/bench/compiling.py.
"""

from __future__ import annotations

import sys

from results import measure, parser

from ebpfjit.bench.benchmark import FULL
from ebpfjit.bench.compiling import BENCHMARK, TABLE_FILLER

WORDS = f"""
Programs of C kernels, each a function with registers exchanged and constants changed. Each figure is
of a process of its own, the best of {FULL.processes}. cold: the first program of a process, but for the
routines that all programs share, which are there. other: a new program in a process that has compiled
another of {TABLE_FILLER:,} instructions. warm: the same program again, the best of some rounds.
baseline: what `Program.compile` makes first, checked; what such code takes to run is with the kernels.
optimised: what it makes of a program once its calls have taken about as long as that takes.
"""


def main() -> int:
    arguments = parser(__doc__ or "").parse_args()
    return measure("compile", "Compiling: what an instruction costs", WORDS, [BENCHMARK], arguments)


if __name__ == "__main__":
    sys.exit(main())
