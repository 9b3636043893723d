"""What compiling costs, stage by stage: `Program.compile`, and a clock that is read where one is done."""

from __future__ import annotations

import time
from collections.abc import Callable

from ebpfjit.jit import assembler
from ebpfjit.jit.stages import STAGES, done, told_to
from ebpfjit.program import Program
from ebpfjit.record import dataclass


@dataclass(frozen=True)
class Timing:
    """Seconds by stage for a program of `instructions`, and how often keystone was called."""

    instructions: int
    seconds: dict[str, float]
    keystone_calls: int

    @property
    def total(self) -> float:
        """Seconds, all stages together."""
        return sum(self.seconds.values())

    def microseconds(self, stage: str | None = None) -> float:
        """Return microseconds for each instruction, of a stage or of all."""
        seconds = self.total if stage is None else self.seconds[stage]
        return seconds / self.instructions * 1e6


def time_stages(
    code: bytes,
    *,
    checked: bool = True,
    optimize: bool = True,
    clock: Callable[[], float] = time.thread_time,
) -> Timing:
    """Compile a program without helpers from its bytes to mapped code, and return what took how long.

    `clock` tells the processor time of this thread, so that other work on the machine disturbs little.
    The first call in a process is from cold, and makes the routines that all programs share besides;
    `memo.forget` makes the next one cold but for these. Raises what `Program.compile` raises.
    """
    seconds = dict.fromkeys(STAGES, 0.0)
    calls, last = assembler.calls, clock()

    def stop(stage: str) -> None:
        nonlocal last
        now = clock()
        seconds[stage] += now - last
        last = now

    with told_to(stop):
        program = Program.from_bytes(code)
        done("decode")
        program.compile(checked=checked, optimize=optimize)
    return Timing(len(program.instructions), seconds, assembler.calls - calls)
