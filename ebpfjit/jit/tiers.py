"""Two tiers: a program starts in code that is there soon, and goes on in code that is fast.

    compiled              baseline code, as with `optimize=False`; what its calls cost is counted
    they cost enough      compiled again, optimised: calls that begin from then on go there, and so does the
                          run that is at the end of a slice, where it can

Enough is when the program has run for about as long as optimising takes: instructions tell the time of
machine code, a clock that of helpers in Python. So what is called now and then never waits for it, and
what is called all the time has lost no more than it would have waited.
"""

from __future__ import annotations

import os

from ebpfjit.jit.gate import why_not
from ebpfjit.options import Options
from ebpfjit.program import Program
from ebpfjit.record import replace

WORTH = 150_000
"""How many instructions fast programs execute in the time that it takes to optimise one: some 50 µs."""
FIXED = 10
"""How many instructions what a program costs besides is as much as."""


def decided(options: Options, *, counted: bool) -> Options:
    """Return options of which None, for `optimize`, says that the program is to change tiers.

    It does where that is left open, its calls are `counted`, through the native gate, and what is made is for
    this process only. The environment variable EBPFJIT_TIERS=off has such programs optimised at once.
    """
    changes = counted and not options.harden and options.cache is None and not why_not() and not _turned_off()
    return options if changes or options.optimize is not None else replace(options, optimize=True)


def _turned_off() -> bool:
    return os.environ.get("EBPFJIT_TIERS") == "off"


def heat_of(program: Program) -> int:
    """Return what a program's calls may cost, in instructions, until it is optimised; by its slots."""
    return WORTH * (len(program) + FIXED)
