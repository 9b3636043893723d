"""Red-black trees with the shape that Linux's have after the same insertions and removals (lib/rbtree.c).

A node goes in at a leaf that whoever inserts has found, is red there, and the tree is made even again by
rotations; one that is removed gives its place to the next in order where it has two children.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from ebpfjit.record import dataclass, field


@dataclass(eq=False, slots=True)
class Node:
    """A node, and what it stands for."""

    item: Any
    parent: Node | None = None
    left: Node | None = None
    right: Node | None = None
    is_red: bool = True


@dataclass(eq=False, slots=True)
class Tree:
    """A tree; `nodes` finds the node of an item, `version` counts changes."""

    root: Node | None = None
    nodes: dict[Any, Node] = field(default_factory=dict)
    version: int = 0

    def insert(self, item: Any, parent: Node | None, *, at_left: bool) -> None:
        """Put an item in below `parent`, which has no child there; None: into an empty tree."""
        node = self.nodes[item] = Node(item, parent)
        self.version += 1
        if parent is None:
            self.root = node
        elif at_left:
            parent.left = node
        else:
            parent.right = node
        while (above := node.parent) is not None and above.is_red:
            top = above.parent
            assert top is not None  # the root is black
            is_left = above is top.left
            uncle = top.right if is_left else top.left
            if uncle is not None and uncle.is_red:
                above.is_red = uncle.is_red = False
                top.is_red = True
                node = top
                continue
            if node is (above.right if is_left else above.left):
                self._rotate(above, to_left=is_left)
                node, above = above, node
            above.is_red, top.is_red = False, True
            self._rotate(top, to_left=not is_left)
        if self.root is not None:
            self.root.is_red = False

    def remove(self, item: Any) -> None:
        """Take an item out."""
        node = self.nodes.pop(item)
        self.version += 1
        if node.left is None or node.right is None:
            child, above, was_red = node.left or node.right, node.parent, node.is_red
            self._replace(node, child)
        else:
            following = node.right
            while following.left is not None:
                following = following.left
            child, was_red = following.right, following.is_red
            if following.parent is node:
                above = following
            else:
                above = following.parent
                self._replace(following, child)
                following.right = node.right
                following.right.parent = following
            self._replace(node, following)
            following.left = node.left
            following.left.parent = following
            following.is_red = node.is_red
        if not was_red:
            self._even_out(child, above)

    def _even_out(self, node: Node | None, above: Node | None) -> None:
        """Make up for a black node that is missing on the way to `node`, which is below `above`."""
        while above is not None and (node is None or not node.is_red):
            is_left = node is above.left
            beside = above.right if is_left else above.left
            assert beside is not None  # there are as many black nodes on its side
            if beside.is_red:
                beside.is_red, above.is_red = False, True
                self._rotate(above, to_left=is_left)
                beside = above.right if is_left else above.left
                assert beside is not None
            near, far = (beside.left, beside.right) if is_left else (beside.right, beside.left)
            if (near is None or not near.is_red) and (far is None or not far.is_red):
                beside.is_red = True
                node, above = above, above.parent
                continue
            if far is None or not far.is_red:
                assert near is not None
                near.is_red, beside.is_red = False, True
                self._rotate(beside, to_left=not is_left)
                beside, far = near, beside
            beside.is_red, above.is_red, far.is_red = above.is_red, False, False
            self._rotate(above, to_left=is_left)
            return
        if node is not None:
            node.is_red = False

    def _replace(self, node: Node, by: Node | None) -> None:
        """Put another node where one is, with its own children."""
        above = node.parent
        if above is None:
            self.root = by
        elif node is above.left:
            above.left = by
        else:
            above.right = by
        if by is not None:
            by.parent = above

    def _rotate(self, node: Node, *, to_left: bool) -> None:
        """Let a node change places with its right (left) child."""
        child = node.right if to_left else node.left
        assert child is not None
        self._replace(node, child)
        if to_left:
            node.right, child.left, inner = child.left, node, child.left
        else:
            node.left, child.right, inner = child.right, node, child.right
        node.parent = child
        if inner is not None:
            inner.parent = node

    @property
    def first(self) -> Node | None:
        """The first node in order."""
        node = self.root
        while node is not None and node.left is not None:
            node = node.left
        return node

    def items(self) -> Iterator[Any]:
        """Yield all items, in no order."""
        yield from list(self.nodes)
