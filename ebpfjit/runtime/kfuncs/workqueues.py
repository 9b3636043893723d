"""Kernel functions: work queues in the values of maps, called where time passes, as timers are."""

from __future__ import annotations

import errno

from ebpfjit.bits import W32
from ebpfjit.runtime import timers
from ebpfjit.runtime.helpers.locks import special_field
from ebpfjit.runtime.helpers.maps import map_of
from ebpfjit.runtime.helpers.timers import set_callback
from ebpfjit.runtime.kfuncs.table import kfunc
from ebpfjit.runtime.world import World

WORK = "work queue"


@kfunc("bpf_wq_init")
def wq_init(world: World, place: int, map_address: int, flags: int) -> int:
    """Make a work queue in a map's value; 0 or a negative error number."""
    found = map_of(world, map_address, "bpf_wq_init")
    if W32.wrap(flags):
        return -errno.EINVAL
    special_field(world, place, "bpf_wq", "bpf_wq_init")
    return timers.initialise(WORK, place, found, "bpf_wq_init")


@kfunc("bpf_wq_set_callback_impl")
def wq_set_callback_impl(world: World, place: int, function: int, flags: int) -> int:
    """Say which function is called, with the map, the key and the value; 0 or a negative error number."""
    if W32.wrap(flags):
        return -errno.EINVAL
    return set_callback(world, WORK, place, function)


@kfunc(
    "bpf_wq_start",
    differs="called when the environment's clock is moved on, and before a later run with the map",
)
def wq_start(world: World, place: int, flags: int) -> int:
    """Let the function be called soon; 0 or a negative error number."""
    if W32.wrap(flags):
        return -errno.EINVAL
    found = timers.timer_at(WORK, place)
    if found is None or found[1].callback is None:
        return -errno.EINVAL
    timers.start(world, *found, world.environment.clock())
    return 0
