"""What compiling costs, stage by stage: the stages of `Program.compile`, with a clock between them."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ebpfjit import program as decoding
from ebpfjit.analysis import baseline, liveness, loops, verifier
from ebpfjit.analysis.verified import prepare
from ebpfjit.jit import assembler, compiler, cpu
from ebpfjit.jit.code_buffer import CodeBuffer
from ebpfjit.jit.compiler import Recipe, settings_for
from ebpfjit.jit.entry import assemble_lines, collector_paused, host_addresses
from ebpfjit.jit.relocation import layout, relocate
from ebpfjit.program import Program
from ebpfjit.translators import emitter

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


def forget() -> None:
    """Empty the tables of what was decoded, verified, translated and assembled before."""
    tables: tuple[dict[Any, Any] | set[int], ...] = (
        decoding._known_words,
        verifier._sound_words,
        *liveness._known_effects.values(),
        loops._known_changes,
        baseline._known_shapes,
        *compiler._known_phrases.values(),
        *compiler._known_fused.values(),
        compiler._known_fusions,
        assembler._stencils,
        emitter._lines,
        emitter.snippets,
    )
    for table in tables:
        table.clear()


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
    `forget` makes the next one cold but for these. Raises what `Program.compile` raises.
    """
    times = [clock()]
    calls = assembler.calls
    with collector_paused():
        program = Program.from_bytes(code)
        times.append(clock())
        verifier.check(program)
        times.append(clock())
        recipe = Recipe(
            prepare(program),
            settings_for(features=cpu.features()),
            checked,
            is_sound=True,
            argument_is_packet=True,
            optimize=optimize,
        )
        facts = recipe.facts()
        times.append(clock())
        listing = recipe.listing(facts)
        times.append(clock())
        assemble_lines(listing)
        times.append(clock())
        image = layout(listing)
        del facts, listing  # as `compile_program` lets go of them
        times.append(clock())
    CodeBuffer(relocate(image, host_addresses()))
    times.append(clock())
    seconds = {stage: after - before for stage, before, after in zip(STAGES, times, times[1:], strict=False)}
    return Timing(len(program.instructions), seconds, assembler.calls - calls)
