"""Bugs to plant in the verifier: what it accepts wrongly has no check in machine code that relies on it."""

from __future__ import annotations

from typing import Any

from ebpfjit.difftest.planting import PlantedBug, function, method
from ebpfjit.verifier import branches, calls, numbers, pruning, stack, values

SOURCES = ("proven",)
ENGINES = ("interpreter", "jit")


def _one_further(old: Any) -> Any:
    return lambda state, pointer, ahead: old(state, pointer, ahead + 1)


def _all_alike(old: Any) -> Any:
    return lambda comparison, older, newer, live: True


def _one_less(old: Any) -> Any:
    """Take what is at most a number to be less."""

    def assume(domain: Any, meaning: str, *given: Any) -> Any:
        return old(domain, {">": ">=", "JGT": "JGE"}.get(meaning, meaning), *given)

    return assume


PROOFS: tuple[PlantedBug, ...] = tuple(
    PlantedBug(name, what, plant, ENGINES, SOURCES)
    for name, what, plant in (
        (
            "packets-longer",
            "Of a packet one byte more is there than was compared",
            function(branches.in_range, _one_further),
        ),
        (
            "packets-stay",
            "Pointers into the packet are good behind what moves it",
            function(calls.packet_moved, lambda old: lambda *given, **more: None),
        ),
        (
            "lookups-succeed",
            "What a lookup gives is never NULL",
            function(calls._is_surely_there, lambda old: lambda *given: True),
        ),
        (
            "frames-alike",
            "A state is covered by any that was kept at its slot, whatever registers and stack hold",
            method(pruning.Comparison, "frame", _all_alike),
        ),
        (
            "numbers-forgotten",
            "That the exact value of a number mattered is forgotten: other ones are covered by it",
            function(values.mark_precise, lambda old: lambda scalar: None),
        ),
        (
            "stores-elsewhere",
            "What is stored at some place of a frame changes nothing that is known of it",
            function(stack._written_somewhere, lambda old: lambda *given, **more: None),
        ),
        (
            "helpers-write-nothing",
            "What helpers write into a frame changes nothing that is known of it",
            function(stack.written, lambda old: lambda *given, **more: None),
        ),
        (
            "signs-lost",
            "A number of few bits that is negative is positive where it is extended",
            method(
                numbers.Domain,
                "extended",
                lambda old: lambda domain, a, bits, is_full: domain.truncated(a, bits),
            ),
        ),
    )
)
