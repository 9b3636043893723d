"""Kernel functions: what a map knows of itself."""

from __future__ import annotations

from ebpfjit.runtime.helpers.maps import any_map
from ebpfjit.runtime.kfuncs.table import kfunc
from ebpfjit.runtime.maps.structs import entries_of
from ebpfjit.runtime.world import World


@kfunc("bpf_map_sum_elem_count")
def map_sum_elem_count(world: World, map_address: int) -> int:
    """Return how many entries a map of a hash kind has; 0 for others, whose entries Linux does not count."""
    return entries_of(any_map(world, map_address, "bpf_map_sum_elem_count"))
