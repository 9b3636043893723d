"""Kernel functions: red-black trees of a program's own objects."""

from __future__ import annotations

import errno

from ebpfjit.errors import ExecutionError
from ebpfjit.runtime import owned
from ebpfjit.runtime.helpers.table import engine_of
from ebpfjit.runtime.kfuncs.objects import head_at, node_at, put
from ebpfjit.runtime.kfuncs.table import kfunc
from ebpfjit.runtime.maps.storage import changing
from ebpfjit.runtime.owned import Holder, Object
from ebpfjit.runtime.tree import Node, Tree
from ebpfjit.runtime.world import World

ROOT = "bpf_rb_root"
MOST_TRIES = 100
"""How often a place is looked for in a tree that changes meanwhile, by what compares or in other threads."""


def _tree_at(holder: Holder, place: int) -> Tree:
    return holder.trees.setdefault(place, Tree())


def _compare(world: World, less: int, one: int, node: Node) -> bool:
    """Return what the program's function says of two nodes; it sees both."""
    other, offset = node.item
    state = owned.state_of(world)
    was_seen = other.address in state.objects
    owned.lend_until_unlock(world, other)
    try:
        return bool(engine_of(world).call_function(less, (one, other.address + offset)) & 0xFF)
    finally:
        if not was_seen and not state.counts.get(other.address):
            state.until_unlock.pop(other.address, None)
            owned.hide(world, other)


def _place_for(world: World, tree: Tree, less: int, address: int) -> tuple[Node | None, bool]:
    """Return below which node a new one goes, and whether at the left."""
    above, at_left, node = None, False, tree.root
    while node is not None:
        above, at_left = node, _compare(world, less, address, node)
        node = above.left if at_left else above.right
    return above, at_left


@kfunc("bpf_rbtree_add_impl", "bpf_rbtree_add", under_lock=True)
def rbtree_add(world: World, root: int, address: int, less: int) -> int:
    """Put an object in where less(node, other) says; 0, or -EINVAL where it hangs already, and is dropped."""
    holder, head = head_at(world, root, ROOT, "bpf_rbtree_add")
    one, node = node_at(world, address, head, "bpf_rbtree_add")
    owned.owned_at(world, one.address, "bpf_rbtree_add")
    if node.offset in one.hangs_in:
        put(world, one, node, "bpf_rbtree_add")
        return -errno.EINVAL
    for _ in range(MOST_TRIES):
        tree = _tree_at(holder, root)
        version = tree.version
        above, at_left = _place_for(world, tree, less, address)
        head_at(world, root, ROOT, "bpf_rbtree_add")  # what compares may have done anything
        with changing.held:
            is_same = holder.trees.get(root) is tree and version == tree.version
            if is_same and node.offset not in one.hangs_in:
                owned.owned_at(world, one.address, "bpf_rbtree_add")
                tree.insert((one, node.offset), above, at_left=at_left)
                one.hangs_in[node.offset] = root
                owned.lend_until_unlock(world, one)
                owned.give(world, one)
                return 0
    raise ExecutionError("bpf_rbtree_add: the tree changes while nodes are compared: let `less` only compare")


@kfunc("bpf_rbtree_remove", under_lock=True)
def rbtree_remove(world: World, root: int, address: int) -> int:
    """Take an object out; return the address of its node, 0 where it hangs elsewhere."""
    holder, head = head_at(world, root, ROOT, "bpf_rbtree_remove")
    one, node = node_at(world, address, head, "bpf_rbtree_remove")
    with changing.held:
        tree = _tree_at(holder, root)
        if (one, node.offset) not in tree.nodes:
            return 0
        tree.remove((one, node.offset))
        del one.hangs_in[node.offset]
    owned.own(world, one, "bpf_rbtree_remove")
    return address


def _shown(world: World, node: Node | None) -> int:
    """Return the address of a node that stays where it is, 0 for none."""
    if node is None:
        return 0
    one: Object = node.item[0]
    offset: int = node.item[1]
    owned.lend_until_unlock(world, one)
    return one.address + offset


@kfunc("bpf_rbtree_first", under_lock=True)
def rbtree_first(world: World, root: int) -> int:
    """Return the address of the first node in order, 0 where there is none."""
    return _shown(world, _tree_at(head_at(world, root, ROOT, "bpf_rbtree_first")[0], root).first)


@kfunc("bpf_rbtree_root", under_lock=True)
def rbtree_root(world: World, root: int) -> int:
    """Return the address of the node at the top, 0 where there is none."""
    return _shown(world, _tree_at(head_at(world, root, ROOT, "bpf_rbtree_root")[0], root).root)


def _child(world: World, root: int, address: int, name: str) -> Node | None:
    """Return the node at an address, None where it hangs elsewhere."""
    holder, head = head_at(world, root, ROOT, name)
    one, node = node_at(world, address, head, name)
    return _tree_at(holder, root).nodes.get((one, node.offset))


@kfunc("bpf_rbtree_left", under_lock=True)
def rbtree_left(world: World, root: int, address: int) -> int:
    """Return the address of a node's left child, 0 where there is none."""
    node = _child(world, root, address, "bpf_rbtree_left")
    return _shown(world, node.left if node is not None else None)


@kfunc("bpf_rbtree_right", under_lock=True)
def rbtree_right(world: World, root: int, address: int) -> int:
    """Return the address of a node's right child, 0 where there is none."""
    node = _child(world, root, address, "bpf_rbtree_right")
    return _shown(world, node.right if node is not None else None)
