"""Red-black trees: in order and even, whatever comes and goes."""

from __future__ import annotations

import random

from ebpfjit.runtime.tree import Node, Tree


def _insert(tree: Tree, number: int) -> None:
    above, at_left, node = None, False, tree.root
    while node is not None:
        above, at_left = node, number < node.item
        node = node.left if at_left else node.right
    tree.insert(number, above, at_left=at_left)


def _black_height(node: Node | None) -> int:
    """Return how many black nodes are on each way down; a red node has no red child."""
    if node is None:
        return 1
    for child in (node.left, node.right):
        assert child is None or (child.parent is node and not (node.is_red and child.is_red))
    left, right = _black_height(node.left), _black_height(node.right)
    assert left == right
    return left + (not node.is_red)


def _in_order(node: Node | None) -> list[int]:
    return [] if node is None else [*_in_order(node.left), node.item, *_in_order(node.right)]


def test_trees_stay_even_and_in_order() -> None:
    for seed in range(20):
        source, tree, there = random.Random(seed), Tree(), set[int]()
        for _ in range(300):
            number = source.randrange(80)
            if number in there:
                tree.remove(number)
                there.remove(number)
            else:
                _insert(tree, number)
                there.add(number)
            _black_height(tree.root)
            assert _in_order(tree.root) == sorted(there)
            assert (tree.first.item if tree.first is not None else None) == min(there, default=None)
