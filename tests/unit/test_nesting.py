"""Loops of a graph: their headers, and what lies in which."""

from __future__ import annotations

import random

import pytest

from ebpfjit.analysis.nesting import nesting_of
from tests.support.rows import over

#  name                   ways                               headers  of each block in a loop its header
GRAPHS: dict[str, tuple[dict[int, list[int]], set[int], dict[int, int]]] = {
    "no loop": ({0: [1, 2], 1: [3], 2: [3], 3: []}, set(), {}),
    "one block": ({0: [1], 1: [1, 2], 2: []}, {1}, {}),
    "tested at the top": ({0: [1], 1: [2, 3], 2: [1], 3: []}, {1}, {2: 1}),
    "entered in the middle": ({0: [3], 1: [2, 4], 2: [3], 3: [1], 4: []}, {3}, {1: 3, 2: 3}),
    "two ways round": ({0: [1], 1: [2, 3], 2: [1], 3: [1, 4], 4: []}, {1}, {2: 1, 3: 1}),
    "one in the other": (
        {0: [1], 1: [2], 2: [3], 3: [2, 4], 4: [1, 5], 5: []}, {1, 2}, {2: 1, 3: 2, 4: 1},
    ),
    "one behind the other": ({0: [1], 1: [1, 2], 2: [3], 3: [2, 4], 4: []}, {1, 2}, {3: 2}),
}  # fmt: skip


@pytest.mark.parametrize("name", GRAPHS)
def test_loops(name: str) -> None:
    ways, headers, header = GRAPHS[name]
    found = nesting_of([0], ways)
    assert found.headers == headers
    assert found.header == header


@over("seed", range(60))
def test_a_loop_comes_round(seed: int) -> None:
    """Each block of a loop leads to its header, and the header to it; what comes round has a header."""
    rng = random.Random(seed)
    count = rng.randrange(2, 25)
    ways = {block: rng.sample(range(count), rng.randrange(0, min(3, count))) for block in range(count)}
    found = nesting_of([0, count // 2], ways)
    for block, header in found.header.items():
        assert header in found.headers
        assert block in _reached(ways[header], ways)
        assert header in _reached(ways[block], ways)
        assert found.is_in(block, header)
    for block in _reached([0, count // 2], ways):
        if block in _reached(ways[block], ways):
            assert block in found.header or block in found.headers


def _reached(starts: list[int], ways: dict[int, list[int]]) -> set[int]:
    seen: set[int] = set()
    work = list(starts)
    while work:
        block = work.pop()
        if block not in seen:
            seen.add(block)
            work.extend(ways[block])
    return seen
