"""Dominators, held against what they are: without a block nothing comes to those that it dominates."""

from __future__ import annotations

import random

from ebpfjit.optimizer.dominators import Dominators
from ebpfjit.optimizer.shape import Shape


def reached(ways: list[list[int]], entered: set[int], without: int = -1) -> set[int]:
    seen: set[int] = set()
    work = [block for block in entered if block != without]
    while work:
        block = work.pop()
        if block not in seen:
            seen.add(block)
            work += [way for way in ways[block] if way != without]
    return seen


def test_dominators_of_any_graph() -> None:
    """What is claimed is so; and but for loops that are entered in the middle, what is so is claimed."""
    claimed = true = 0
    for seed in range(1500):
        rng = random.Random(seed)
        count = rng.randrange(1, 12)
        ways = [[rng.randrange(count) for _ in range(rng.choice((0, 1, 1, 2, 2)))] for _ in range(count)]
        entered = {0, *(rng.randrange(count) for _ in range(rng.choice((0, 0, 1))))}
        dominators = Dominators(Shape(ways, list(entered)))
        there = reached(ways, entered)
        assert set(dominators.order) == there
        for block in there:
            below = there - reached(ways, entered, block)
            said = {other for other in there if dominators.dominates(block, other)}
            assert said <= below
            claimed, true = claimed + len(said), true + len(below)
    assert claimed > 0.95 * true


def test_a_chain_with_one_way_out_of_all_blocks() -> None:
    """20,000 blocks that all lead to the last as well: what a walk up from each would take is 200 million."""
    count = 20_000
    ways = [[block + 1, count] for block in range(count)] + [[]]
    dominators = Dominators(Shape(ways, [0]))
    assert dominators.idom[count] == 0
    assert dominators.dominates(5, count - 1)
