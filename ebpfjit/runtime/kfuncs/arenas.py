"""Kernel functions: pages of an arena."""

from __future__ import annotations

import errno

from ebpfjit.bits import W32
from ebpfjit.runtime import memory
from ebpfjit.runtime.helpers.maps import any_map
from ebpfjit.runtime.kfuncs.table import kfunc
from ebpfjit.runtime.maps.arena import Arena
from ebpfjit.runtime.memory import WORK_SIZE
from ebpfjit.runtime.world import World

RANGES_FOR_ONE = 256
"""Ranges of free pages that an instruction pays for: they are kept in order."""


def _arena(world: World, address: int, name: str, pages: int) -> Arena | None:
    """Return the arena at an address, None for a map of another type. Each page costs a little."""
    found = any_map(world, address, name)
    if not isinstance(found, Arena):
        return None
    memory.spend(min(pages, found.definition.max_entries) // WORK_SIZE + found.fragments // RANGES_FOR_ONE)
    return found


@kfunc("bpf_arena_alloc_pages", differs="memory is of no node")
def alloc_pages(world: World, map_address: int, address: int, pages: int, node: int, flags: int) -> int:
    """Allocate zeroed pages, at an address or (0) anywhere; return a user's pointer to them, 0 for none."""
    pages = W32.wrap(pages)
    arena = _arena(world, map_address, "bpf_arena_alloc_pages", pages)
    return 0 if arena is None or flags else arena.allocate(address, pages)


@kfunc("bpf_arena_free_pages")
def free_pages(world: World, map_address: int, address: int, pages: int) -> int:
    """Free pages; those that are none, or not allocated, are no matter."""
    pages = W32.wrap(pages)
    arena = _arena(world, map_address, "bpf_arena_free_pages", pages)
    if arena is not None and address:
        arena.free(address, pages)
    return 0


@kfunc("bpf_arena_reserve_pages")
def reserve_pages(world: World, map_address: int, address: int, pages: int) -> int:
    """Let programs allocate no page there; 0 or a negative error number."""
    arena = _arena(world, map_address, "bpf_arena_reserve_pages", 0)
    return -errno.EINVAL if arena is None else arena.reserve(address, W32.wrap(pages))
