"""What a verifier claims, held against runs: registers at each slot lie in one of the states that it tells.

Of numbers only those are claimed whose exact value mattered (`precise`), and registers that are read later:
by these alone states were compared. Of pointers all is claimed that a run shows: their distance from the
context, from r10, from each other where they point into the packet; that they are not 0 unless they may be.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

from ebpfjit.analysis.cfg import block_sizes
from ebpfjit.analysis.liveness import live_before, liveness_of, ways_of
from ebpfjit.bits import W64
from ebpfjit.difftest.verdicts.sample import Sample
from ebpfjit.difftest.verdicts.soundness import LIMIT, given
from ebpfjit.errors import InputError
from ebpfjit.verifier.numbers import DOMAIN
from ebpfjit.verifier.state import State
from ebpfjit.verifier.values import Pointer, Poison, Scalar, Stale
from ebpfjit.verifier.verdict import Verdict


@dataclass(frozen=True, slots=True)
class Unclaimed:
    """A step of a run that no claimed state has: its slot, the registers, how many states there are."""

    pc: int
    registers: tuple[int, ...]
    states: int


def unclaimed(sample: Sample, verdict: Verdict, seed: int, count: int) -> Unclaimed | None:
    """Run a program `count` times; return the first step that is in no state of a verdict with claims."""
    assert verdict.claims is not None
    program = sample.program()
    blocks = block_sizes(program)
    live = live_before(liveness_of(program, blocks, ways_of(program, blocks)))
    rng = random.Random(seed)
    for data, context, around in given(rng, sample, program, count):
        try:
            trace = program.trace(data, context=context, environment=around, limit=LIMIT)
        except InputError:
            continue
        context_at = trace[0].registers[1]
        for step in trace:
            states = verdict.claims.get(step.pc, [])
            if not any(_fits(state, step.registers, live[step.pc], context_at) for state in states):
                return Unclaimed(step.pc, step.registers, len(states))
    return None


def _fits(state: State, registers: tuple[int, ...], live: int, context_at: int) -> bool:
    packet: dict[int, int] = {}
    for number, (value, has) in enumerate(zip(state.registers[:10], registers, strict=False)):
        if not live >> number & 1 or value is None or isinstance(value, (Poison, Stale)):
            continue
        if isinstance(value, Scalar):
            if value.precise and not value.number.has(has, DOMAIN):
                return False
        elif not _points(value, has, len(state.frames) - 1, registers[10], context_at, packet):
            return False
    return True


def _points(
    pointer: Pointer, has: int, frame: int, frame_pointer: int, context_at: int, packet: dict[int, int]
) -> bool:
    if pointer.null:
        return True
    if has == 0:
        return False
    at = DOMAIN.known(pointer.off)
    if pointer.var is not None:
        at = DOMAIN.binary("ADD", True, pointer.var, at)
    if pointer.kind == "ctx":
        return at.has(W64.wrap(has - context_at), DOMAIN)
    if pointer.kind == "stack" and pointer.what == frame:
        return at.has(W64.wrap(has - frame_pointer), DOMAIN)
    if pointer.kind == "packet":  # those of one variable part are apart by what is constant
        start = W64.wrap(has - pointer.off)
        return packet.setdefault(pointer.id, start) == start
    return True
