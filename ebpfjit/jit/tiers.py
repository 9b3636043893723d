"""Two tiers: a program starts in code that is there soon, and goes on in code that is fast.

    compiled              baseline code, as with `optimize=False`; what its calls cost is counted
    they cost enough      compiled again, optimised: calls that begin from then on go there, and so does the
                          run that is at the end of a slice, where it can

Enough is when the program has run for about as long as optimising takes. So what is called now and then never
waits for it, and what is called all the time has lost no more than it would have waited.
"""

from __future__ import annotations

import os

from ebpfjit.jit.gate import why_not
from ebpfjit.program import Program

WORTH = 150_000
"""How many instructions fast programs execute in the time that it takes to optimise one: some 16 µs."""
FIXED = 10
"""How many instructions what a program costs besides is as much as."""


def starts_baseline(optimize: bool | None, *, counted: bool) -> bool:
    """Return whether a program is compiled to baseline code, to begin with.

    `optimize` says so, or leaves it open (None): then where its calls are `counted`, through the native gate.
    The environment variable EBPFJIT_TIERS=off has such programs optimised at once.
    """
    if optimize is not None:
        return not optimize
    return counted and not why_not() and os.environ.get("EBPFJIT_TIERS") != "off"


def heat_of(program: Program) -> int:
    """Return what a program's calls may cost, in instructions, until it is optimised; by its slots."""
    return WORTH * (len(program) + FIXED)
