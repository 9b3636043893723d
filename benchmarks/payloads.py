"""What loops over packets cost, with checks and without them.

python benchmarks/payloads.py [--rounds N] [--json FILE] [--write]
"""

from __future__ import annotations

import sys

from results import measure, parser

from ebpfjit.bench.payloads import BENCHMARK

WORDS = """
The programs of `ebpfjit/bench/kernels/packets`, each called on one packet of 1,400 bytes. Medians of {rounds}
rounds in which all ways take turns, over three places of the code, less what an empty program takes that is
called in the same way: it copies the packet too. clang is the same C as native code, in a loop in C.
"checks in loops" is checked code without the pass that asks for a loop's bytes before it.
"""


def main() -> int:
    arguments = parser(__doc__ or "").parse_args()
    return measure("payloads", "Loops over packets", WORDS, [BENCHMARK], arguments)


if __name__ == "__main__":
    sys.exit(main())
