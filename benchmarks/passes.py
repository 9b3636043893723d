"""What each pass of the optimizer is worth, over C kernels.

python benchmarks/passes.py [--rounds N] [--json FILE] [--write]
"""

from __future__ import annotations

import sys

from results import measure, parser

from ebpfjit.bench.passes import BENCHMARK

WORDS = """
All kernels of `ebpfjit/bench/kernels`, compiled with all passes, and with all but one. Medians of {rounds}
rounds in which all ways take turns, over two places of the code, less what an empty function takes. A row
says how much longer checked code takes without a pass; the first what all of them make of it, over clang -O2.
"""


def main() -> int:
    arguments = parser(__doc__ or "").parse_args()
    return measure("passes", "What each pass of the optimizer is worth", WORDS, [BENCHMARK], arguments)


if __name__ == "__main__":
    sys.exit(main())
