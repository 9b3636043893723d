"""The clock: ways to do the same take turns, round by round; what counts are medians and their ratios.

    round 1: a b c   round 2: b c a   round 3: c a b   ...

So what disturbs the machine for a while disturbs all of them, and none always comes first.
"""

from __future__ import annotations

import contextlib
import math
import signal
import statistics
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import FrameType
from typing import Any, TypeVar

from ebpfjit.errors import EbpfError
from ebpfjit.record import dataclass

WARM_UP = 0.5  # seconds

Way = Callable[[], float]
"""Does something once and returns what it took, in nanoseconds."""


_Key = TypeVar("_Key")


class BenchError(EbpfError):
    """A benchmark that cannot be run as it was asked for, or whose engines disagree."""


@dataclass(frozen=True, slots=True)
class Rounds:
    """So many rounds; or, with `seconds`, as many as fit, one at least."""

    count: int
    seconds: float | None = None

    def __iter__(self) -> Iterator[int]:
        if self.seconds is None:
            yield from range(self.count)
            return
        number, stop = 0, time.perf_counter() + self.seconds
        while number == 0 or time.perf_counter() < stop:
            yield number
            number += 1


def in_turn(ways: Mapping[_Key, Way], rounds: Rounds) -> dict[_Key, list[float]]:
    """Return what each way took, round by round; each round starts with another one."""
    times: dict[_Key, list[float]] = {name: [] for name in ways}
    order = list(ways)
    for _ in rounds:
        for name in order:
            times[name].append(ways[name]())
            stop_where_asked()
        order.append(order.pop(0))
    return times


def timed(
    work: Callable[[], Any],
    count: int = 1,
    *,
    prepare: Callable[[], Any] | None = None,
    best_of: int = 1,
    clock: Callable[[], int] = time.perf_counter_ns,
) -> Way:
    """Return a way: does `work`, and returns the nanoseconds that one of its `count` repetitions took.

    With `best_of` it is done that often and the best time counts; `prepare` is called before each, and
    not in the time. `clock` tells the time, or the process's.
    """

    def once() -> float:
        if prepare is not None:
            prepare()
        start = clock()
        work()
        return (clock() - start) / count

    return once if best_of == 1 else lambda: min(once() for _ in range(best_of))


def median(times: Sequence[float] | None) -> float:
    """Return the median; NaN where nothing was measured."""
    return statistics.median(times) if times else math.nan


def best(times: Sequence[float] | None) -> float:
    """Return the shortest time, for differences, in which noise counts double; NaN as above."""
    return min(times) if times else math.nan


def geomean(values: Sequence[float]) -> float:
    """Return the geometric mean; NaN where a value is."""
    return math.exp(statistics.fmean(map(math.log, values)))


def warm_up() -> None:
    """Keep the processor busy until it runs at its speed."""
    stop = time.perf_counter() + WARM_UP
    while time.perf_counter() < stop:
        sum(range(1000))


_asked_to_stop = threading.Event()


@contextlib.contextmanager
def stoppable() -> Iterator[None]:
    """Let Ctrl-C raise KeyboardInterrupt between two measurements, and at once when it comes again.

    Anywhere else it might come inside a ctypes callback, which swallows exceptions.
    """

    def ask(number: int, frame: FrameType | None) -> None:
        if _asked_to_stop.is_set():
            raise KeyboardInterrupt
        _asked_to_stop.set()

    _asked_to_stop.clear()
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, ask)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def stop_where_asked() -> None:
    """Raise KeyboardInterrupt where Ctrl-C was pressed under `stoppable`."""
    if _asked_to_stop.is_set():
        raise KeyboardInterrupt
