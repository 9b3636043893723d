"""Threads at a barrier do everything for the first time, in processes that have done nothing yet.

EBPFJIT_FRESH_PROCESSES says in how many: 4 by default, 100 in `make nightly`. What each does is in
`first_uses`; the number of a process says in which order, so that a failure comes again.
"""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor

from tests.attacks.children import fresh_process

PROCESSES = int(os.environ.get("EBPFJIT_FRESH_PROCESSES", "4"))
GO = "import sys; from tests.attacks.first_uses import main; main(int(sys.argv[1]))"


def _wrong(number: int) -> str:
    """Return what was wrong in process `number`, "" for nothing."""
    try:
        return fresh_process(GO, str(number), seconds=300)
    except Exception as error:
        return f"{type(error).__name__}: {error}"


def test_every_first_use_in_several_threads():
    with ThreadPoolExecutor(max_workers=os.cpu_count()) as pool:
        outcomes = dict(enumerate(pool.map(_wrong, range(PROCESSES))))
    assert {number: wrong for number, wrong in outcomes.items() if wrong} == {}
