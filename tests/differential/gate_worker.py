"""Runs generated programs through the gate and on the interpreter; prints what differs, then counts.

    python -m tests.differential.gate_worker FIRST LAST

The stack of a run through the gate is wherever the thread's is. Programs whose results tell where it
is are found by running them on the interpreter with several stacks, some near the thread's, and left
out. What ends well goes through a batch as well.
"""

from __future__ import annotations

import random
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from ebpfjit.analysis.verified import prepare
from ebpfjit.difftest.arena import MEMORY, HelperError, arena
from ebpfjit.difftest.case import Case, Input
from ebpfjit.difftest.engines import other_stacks
from ebpfjit.difftest.sources import SOURCES
from ebpfjit.errors import EbpfError, ExecutionError
from ebpfjit.function import make_function
from ebpfjit.interpreter import interpret
from ebpfjit.jit.entry import compile_program
from ebpfjit.options import Options
from ebpfjit.program import Program
from ebpfjit.runtime.memory import Region, Stack

DRAWN = ("valid", "pointers", "acceptable", "rows", "mutated")


def _outcome(run: Callable[[], Any], place: Any) -> tuple[Any, ...]:
    try:
        left: tuple[Any, ...] = ("ok", run())
    except ExecutionError as error:
        seen = {name: value for name, value in vars(error).items() if name not in ("line", "index")}
        left = (type(error).__name__, str(error), tuple(sorted(seen.items())))
    except HelperError as error:
        left = ("helper raised", error.args)
    return (*left, place.memory(), place.granted())


def _differences(case: Case, given: Input, stacks: Sequence[Stack], release_gil: bool) -> tuple[str, str]:
    """Return how a run ends, and what differs, "" for nothing."""
    place = arena()
    verified = prepare(Program.from_bytes(case.code))

    def interpreted(stack: Stack | None) -> tuple[Any, ...]:
        execution = place.start(given)
        if stack is not None:
            stack.reset()
            execution = replace(execution, stack=stack)
        return _outcome(lambda: interpret(verified, execution), place)

    wanted = interpreted(None)
    if any(interpreted(stack) != wanted for stack in stacks):
        return "tells where the stack is", ""
    options = Options(release_gil=release_gil)
    compiled = compile_program(verified, options, place.helpers, place.helpers)
    # A call of either kind finds the same helpers, as machine code has them.
    function = make_function(compiled, place.helpers, given.limit)
    mem = place.start(given).regions[0].view
    mem = mem.toreadonly() if given.read_only else mem
    assert Region.of_buffer("mem", mem).start == MEMORY or not given.memory
    got = _outcome(lambda: function(mem), place)
    if got != wanted:
        return wanted[0], f"interpreter {wanted}\ngate {got}"
    if wanted[0] != "ok":
        return wanted[0], ""
    place.start(given)
    batch = _outcome(lambda: function.map([mem])[0], place)
    return wanted[0], "" if batch == wanted else f"interpreter {wanted}\nbatch {batch}"


def main() -> int:
    first, last = map(int, sys.argv[1:3])
    kinds: Counter[str] = Counter()
    wrong, stacks = 0, other_stacks()
    for seed in range(first, last):
        print(seed, file=sys.stderr, flush=True)
        rng = random.Random(seed)
        case = SOURCES[DRAWN[seed % len(DRAWN)]].source(rng, ())
        for given in case.inputs:
            if given.limit is not None and given.limit > 100_000:
                given = replace(given, limit=100_000)
            try:
                kind, text = _differences(case, given, stacks, release_gil=seed % 3 == 0)
            except EbpfError as error:
                kind, text = f"refused ({type(error).__name__})", ""
            kinds[kind.replace(" ", "_")] += 1
            if text:
                wrong += 1
                print(f"seed {seed}: {case.code.hex()}\n{given}\n{text}")
    print(" ".join(f"{kind}={count}" for kind, count in sorted(kinds.items())))
    return int(wrong > 0)


if __name__ == "__main__":
    sys.exit(main())
