"""Helpers of timers in the values of maps; `ebpfjit.runtime.timers` says when they fire."""

from __future__ import annotations

import errno

from ebpfjit.bits import W64
from ebpfjit.errors import ExecutionError
from ebpfjit.runtime import faults, timers
from ebpfjit.runtime.execution import CODE_ADDRESS
from ebpfjit.runtime.helpers.locks import special_field
from ebpfjit.runtime.helpers.maps import map_of
from ebpfjit.runtime.helpers.table import engine_of, helper
from ebpfjit.runtime.world import World

TIMER = "timer"
CLOCKS = frozenset({0, 1, 7})
"""CLOCK_REALTIME, CLOCK_MONOTONIC, CLOCK_BOOTTIME."""

ABSOLUTE, CPU_PIN = 1, 2
"""BPF_F_TIMER_*."""

_SOON = "fires when the environment's clock is moved on, and before a later run of a program that has the map"


@helper("bpf_timer_init", gpl=True, differs="all clocks are the environment's")
def timer_init(world: World, timer: int, map_address: int, flags: int) -> int:
    """Make a timer in a map's value; 0 or a negative error number."""
    found = map_of(world, map_address, "bpf_timer_init")
    if flags not in CLOCKS:
        return -errno.EINVAL
    special_field(world, timer, "bpf_timer", "bpf_timer_init")
    return timers.initialise(TIMER, timer, found, "bpf_timer_init")


# The callback is entered by its address: code has a way in where this may call functions.
@helper("bpf_timer_set_callback", gpl=True, ends_rights=True, calls_functions=True)
def timer_set_callback(world: World, timer: int, function: int) -> int:
    """Say which function a timer calls, with the map, the key and the value; 0 or a negative error number."""
    return set_callback(world, TIMER, timer, function)


def set_callback(world: World, kind: str, place: int, function: int) -> int:
    """Say what the timer or work at an address calls. Raises IllegalInstruction where that is no function."""
    found = timers.timer_at(kind, place)
    if found is None:
        return -errno.EINVAL
    if world.later is None:
        raise ExecutionError("this run has nobody who could call a function of the program later")
    program, pc = engine_of(world).place()
    if function - CODE_ADDRESS not in program.functions:
        raise faults.bad_function(pc, function)
    found[1].callback = world.later(function)
    return 0


@helper("bpf_timer_start", gpl=True, asks_user=True, differs=_SOON)
def timer_start(world: World, timer: int, nanoseconds: int, flags: int) -> int:
    """Let a timer fire in, or (BPF_F_TIMER_ABS) at, so many nanoseconds; 0 or a negative error number."""
    if flags & ~(ABSOLUTE | CPU_PIN):
        return -errno.EINVAL
    found = timers.timer_at(TIMER, timer)
    if found is None or found[1].callback is None:
        return -errno.EINVAL
    start = 0 if flags & ABSOLUTE else world.environment.clock()
    timers.start(world, *found, start + min(W64.wrap(nanoseconds), (1 << 63) - 1))
    return 0


@helper("bpf_timer_cancel", gpl=True)
def timer_cancel(world: World, timer: int) -> int:
    """Stop a timer and forget its function; 1 where it was to fire, else 0, or a negative error number."""
    found = timers.timer_at(TIMER, timer)
    if found is None:
        return -errno.EINVAL
    map_, this = found
    if map_.timers is not None and map_.timers.running is this:
        return -errno.EDEADLK
    was_started = this.deadline is not None
    this.deadline = this.callback = None
    return int(was_started)
