"""What compiling costs, stage by stage: the stages of `Program.compile`, with a clock between them."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from ebpfjit.analysis import verifier
from ebpfjit.analysis.verified import prepare
from ebpfjit.jit import assembler, cpu
from ebpfjit.jit.assembler import codes_for
from ebpfjit.jit.code_buffer import CodeBuffer
from ebpfjit.jit.compiler import Recipe, settings_for
from ebpfjit.jit.entry import collector_paused
from ebpfjit.jit.relocation import layout, relocate
from ebpfjit.program import Program

STAGES = ("decode", "verify", "analyse", "translate", "assemble", "layout", "map")


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
    code: bytes, *, checked: bool = True, clock: Callable[[], float] = time.perf_counter
) -> Timing:
    """Compile a program without helpers from its bytes to mapped code, and return what took how long.

    The first call in a process is from cold: nothing was decoded, translated or assembled before.
    Raises what `Program.compile` raises.
    """
    times = [clock()]
    calls = assembler.calls
    with collector_paused():
        program = Program.from_bytes(code)
        times.append(clock())
        verifier.check(program)
        times.append(clock())
        recipe = Recipe(prepare(program), settings_for(features=cpu.features()), checked)
        facts = recipe.facts()
        times.append(clock())
        listing = recipe.listing(facts)
        times.append(clock())
        codes = codes_for(listing.pieces)
        times.append(clock())
        image = layout(listing, codes)
        times.append(clock())
    CodeBuffer(relocate(image, {}))
    times.append(clock())
    seconds = {stage: after - before for stage, before, after in zip(STAGES, times, times[1:], strict=False)}
    return Timing(len(program.instructions), seconds, assembler.calls - calls)
