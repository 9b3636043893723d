"""Damaged objects: some seconds of what `python -m tests.differential.mutated_objects` does for minutes."""

from __future__ import annotations

import os
import time
from typing import Any

import pytest
from differential import mutated_objects
from differential.mutated_objects import Objects, run

from tests.support.limits import limit_of_memory

SECONDS = float(os.environ.get("EBPFJIT_MUTATED_SECONDS", "3"))


def test_damaged_objects_raise_nothing_but_what_says_so() -> None:
    report = run(SECONDS, seed=13, memory=limit_of_memory())
    assert report.findings == []
    assert 0 < report.loaded < report.objects
    assert report.slowest < mutated_objects.MOST_SECONDS


@pytest.mark.parametrize(
    ("does", "says"),
    [
        (lambda: bytes(1 << 31), "MemoryError"),
        (lambda: {}["absent"], "KeyError"),
        (lambda: os.kill(os.getpid(), 11), "SIGSEGV"),
        (lambda: _busy(0.3), "took"),
    ],
)
def test_what_should_not_be_is_found(does: Any, says: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The run can fail: an object that does such a thing is found, and the others are gone through."""
    monkeypatch.setattr(mutated_objects, "MOST_SECONDS", 0.2)
    monkeypatch.setattr(mutated_objects, "BATCH", 3)

    def use(self: Objects, number: int) -> bool:
        if number == 1 and mutated_objects_are_limited():
            does()
        return True

    monkeypatch.setattr(Objects, "use", use)
    report = run(0.01, seed=1, memory=limit_of_memory())
    assert [finding.number for finding in report.findings] == [1]
    assert says in report.findings[0].what
    assert report.objects >= 3  # a batch, or several where they are fast


def mutated_objects_are_limited() -> bool:
    """True in a child, which has a limit: the first objects are also used where there is none."""
    import resource

    return resource.getrlimit(resource.RLIMIT_AS)[0] != resource.RLIM_INFINITY


def _busy(seconds: float) -> None:
    end = time.process_time() + seconds
    while time.process_time() < end:
        pass
