"""What helpers see of the world outside the program: clock, randomness, processors."""

from __future__ import annotations

import random as _random
import time
from collections.abc import Callable
from dataclasses import dataclass


def _random_u32() -> int:
    return _random.getrandbits(32)


@dataclass(frozen=True, slots=True)
class Environment:
    """The world of a run; a test replaces what must not change from run to run.

    `clock()` gives nanoseconds (u64), `random()` a u32. `cpu` is the number of the processor that
    programs run on, `cpus` how many there are: per-CPU maps have a value for each.
    Raises ValueError where `cpu` is not one of them.
    """

    clock: Callable[[], int] = time.monotonic_ns
    random: Callable[[], int] = _random_u32
    cpu: int = 0
    cpus: int = 1

    def __post_init__(self) -> None:
        if self.cpus < 1 or not 0 <= self.cpu < self.cpus:
            raise ValueError(f"cpu {self.cpu} is not one of {self.cpus} processors, counted from 0")
