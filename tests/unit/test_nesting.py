"""Loops of a graph: their headers, what lies in which, and an order that leads to each block before it."""

from __future__ import annotations

import random

import pytest

from ebpfjit.analysis.nesting import Nesting, nesting_of

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
    for block in ways:
        around, depth = found.header.get(block), int(block in headers)
        while around is not None:
            around, depth = found.header.get(around), depth + 1
        assert found.depths[block] == depth


def test_innermost_loops_and_extents() -> None:
    found = nesting_of([0], GRAPHS["one in the other"][0])
    assert found.innermost() == {2: {2, 3}}
    assert found.extents() == {1: (1, 4), 2: (2, 3)}
    middle = nesting_of([0], GRAPHS["entered in the middle"][0])
    assert middle.innermost() == {3: {1, 2, 3}}
    assert middle.extents() == {3: (1, 3)}


@pytest.mark.parametrize("seed", range(60))
def test_every_block_comes_behind_what_leads_to_it_but_for_ways_back(seed: int) -> None:
    rng = random.Random(seed)
    count = rng.randrange(2, 25)
    ways = {block: rng.sample(range(count), rng.randrange(0, min(3, count))) for block in range(count)}
    found = nesting_of([0, count // 2], ways)
    assert sorted(found.order) == sorted(_reached([0, count // 2], ways))
    place = {block: index for index, block in enumerate(found.order)}
    for block in found.order:
        for way in ways[block]:
            if place[way] <= place[block]:
                assert way in found.headers  # a way back comes round a loop
                assert way == block or _is_inside(found, block, way)


def _reached(starts: list[int], ways: dict[int, list[int]]) -> set[int]:
    seen: set[int] = set()
    work = list(starts)
    while work:
        block = work.pop()
        if block not in seen:
            seen.add(block)
            work.extend(ways[block])
    return seen


def _is_inside(found: Nesting, block: int, header: int) -> bool:
    around = found.header.get(block)
    while around is not None and around != header:
        around = found.header.get(around)
    return around == header
