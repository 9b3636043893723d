"""Arenas against the live kernel: programs with any pointers do the same there, to the last byte."""

from __future__ import annotations

import random
from typing import Any

from ebpfjit.bits import W32
from ebpfjit.difftest.children import run_forked
from ebpfjit.runtime.maps import MapFlag
from tests.support.arena_programs import PAGE, STARTS, arena, program, text_of
from tests.support.helper_runs import needs_kernel

COUNT = 10
USER_STARTS = STARTS[:3]  # where a process may have memory


def left(seed: int, engine: str) -> tuple[Any, ...]:
    """Return what a program leaves: its result, the pages that are allocated, and what is in them."""
    source = random.Random(seed)
    start = source.choice(USER_STARTS)
    there = arena(start, source.choice((0, 0, MapFlag.NO_USER_CONV)))
    there.write(start, bytes(range(256)) * 16)
    made = program(text_of(source, start, for_linux=True), there)
    value = W32.wrap(made.run(b"", engine=engine).return_value)
    return value, there.pages(), [there.read(page, PAGE) for page in there.pages()]


@needs_kernel
def test_any_pointer_leads_where_it_does_in_linux() -> None:
    def job() -> list[int]:
        return [seed for seed in range(COUNT) if left(seed, "jit") != left(seed, "kernel")]

    ended = run_forked(job, 60)
    assert ended.value == [], ended
