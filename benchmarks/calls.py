"""What it takes to get in and out: calls from Python, helpers in Python, batches, threads.

    python benchmarks/calls.py [--rounds N] [--json FILE] [--write]

What is measured, and how: ebpfjit/bench/calls.py.
"""

from __future__ import annotations

import sys

from results import measure, parser

from ebpfjit.bench.calls import BENCHMARKS, CALLS, SIZE

WORDS = f"""
Medians of {{rounds}} rounds in which all ways take turns, in one run. A call is one of {CALLS:,} in a
`for` loop, which is in the time. The C extension is a METH_FASTCALL function that takes the buffer
and returns its first byte; ctypes calls the same machine code, everything ready. A batch is of
{{packets:,}} packets of {SIZE} bytes; the C loop calls the same machine code for each.
"""


def main() -> int:
    arguments = parser(__doc__ or "").parse_args()
    return measure("calls", "In and out: calls, helpers, batches, threads", WORDS, BENCHMARKS, arguments)


if __name__ == "__main__":
    sys.exit(main())
