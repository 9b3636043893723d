"""How slow this machine is right now: limits on processor time hold on any machine, or mean nothing."""

from __future__ import annotations

import time

REFERENCE = 0.005
"""Seconds of processor time that `_slowness` takes where the limits were chosen, or more."""


def within(limit: float, took: float) -> bool:
    """True where something took less processor time than a limit (seconds), or would have where that was set.

    How slow the machine is is asked afterwards: whatever slowed that down slows this down too.
    """
    return took < limit or took < limit * _slowness()


def _slowness() -> float:
    started = time.process_time()
    total = 0
    for number in range(100_000):
        total += number ^ number >> 3
    return (time.process_time() - started) / REFERENCE
