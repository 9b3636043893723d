"""Parts of a program between which no way leads: functions, mostly. What is made of one fits the caches.

blocks, in order    0   1   2   3   4   5   6
ways                0-1-2   3-4   5-3   6
parts               0 1 2 | 3 4 5 | 6
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import chain

from ebpfjit.analysis.verified import Verified
from ebpfjit.isa.spec import Kind

LEAST = 64
"""Blocks of a part that is optimised by itself: each pass costs something before it does anything."""


def cut(count: int, connected: Iterable[tuple[int, int]], least: int = 1) -> list[range]:
    """Return the numbers below `count` as ranges that no two that are connected lie in different ones of.

    Each is as short as that allows and has so many at `least`, but for the last one.
    """
    furthest = list(range(count))
    """By number, the last one that is connected with it."""
    for a, b in connected:
        first, last = (a, b) if a < b else (b, a)
        if last > furthest[first]:
            furthest[first] = last
    found: list[range] = []
    start = stop = 0
    for number, reached in enumerate(furthest):
        if reached > stop:
            stop = reached
        if stop <= number and number - start >= least - 1:
            found.append(range(start, number + 1))
            start = number + 1
    if start < count:
        found.append(range(start, count))
    return found


def parts_of(
    verified: Verified, starts: Sequence[int], ways: Mapping[int, Sequence[int]], least: int
) -> list[Sequence[int]]:
    """Return the slots where blocks start, which are in order, in parts of so many blocks at `least`.

    `ways` are what follows each. Small functions are in the part of who calls them: they may be inlined.
    """
    place = {pc: index for index, pc in enumerate(starts)}
    leading = [(index, place[way]) for index, pc in enumerate(starts) for way in ways[pc]]
    calls: list[tuple[int, int]] = []
    if least < len(starts) and verified.calls.frameless:
        calls = [(place[pc], place[target]) for pc, target in _small_calls(verified) if pc in place]
    return [starts[part.start : part.stop] for part in cut(len(starts), chain(leading, calls), least)]


def _small_calls(verified: Verified) -> Iterable[tuple[int, int]]:
    """Yield the calls of functions without a frame: the blocks that these are in, and where they lead."""
    small = verified.calls.frameless
    stop = 0
    instructions = verified.program.instructions
    for start, count in verified.blocks.items():
        stop += count
        insn = instructions[stop - 1]  # calls end blocks
        target = insn.target
        if target in small and insn.row is not None and insn.row.kind is Kind.CALL_LOCAL:
            yield start, target
