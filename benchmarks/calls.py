"""What it takes to get in and out: calls from Python, helpers in Python, batches, threads.

    python benchmarks/calls.py [--rounds N] [--json FILE] [--write]

What is measured, and how: ebpfjit/bench/calls.py.
"""

from __future__ import annotations

import sys

from results import measure, parser

from ebpfjit.bench.calls import BENCHMARKS, CALLS, SIZE, TRIES

WORDS = f"""
Medians of {{rounds}} rounds in which all ways take turns, in one run; for calls and helpers a round's
time is the best of {TRIES} tries. A call is one of {CALLS:,} in a `for` loop, which is in the time. The C
extension is a METH_FASTCALL function that takes the buffer and returns its first byte; ctypes calls a C
function that does, the address ready. A call from Python takes part of the time of `one call in a run`,
on both sides. Runs that call a helper on their packet are in processor time. A batch is of {{packets:,}}
packets of {SIZE} bytes, in memory that is not in the cache; the C loop calls the same machine code for each.
"""


def main() -> int:
    arguments = parser(__doc__ or "").parse_args()
    return measure("calls", "In and out: calls, helpers, batches, threads", WORDS, BENCHMARKS, arguments)


if __name__ == "__main__":
    sys.exit(main())
