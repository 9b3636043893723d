"""Helpers of what lives inside a map's value: spin locks, timers, kernel pointers."""

from __future__ import annotations

import errno

from ebpfjit.errors import ExecutionError
from ebpfjit.runtime import memory
from ebpfjit.runtime.helpers.table import helper
from ebpfjit.runtime.world import World

LOCK_SIZE = 4
_HELD = "spin lock"


@helper("bpf_spin_lock", differs="keeps out nobody: programs in other threads may run meanwhile")
def spin_lock(world: World, lock: int) -> int:
    """Take a lock. Raises ExecutionError where one is held already, as Linux refuses that."""
    memory.check(lock, LOCK_SIZE, "store")
    held = world.kept.get(_HELD)
    if held is not None:
        raise ExecutionError(f"bpf_spin_lock: the lock at {held:#x} is held already; one at a time")
    world.kept[_HELD] = lock
    return 0


@helper("bpf_spin_unlock")
def spin_unlock(world: World, lock: int) -> int:
    """Release a lock. Raises ExecutionError where it is not the one that is held."""
    held = world.kept.pop(_HELD, None)
    if held != lock:
        what = "no lock is held" if held is None else f"the lock that is held is at {held:#x}"
        raise ExecutionError(f"bpf_spin_unlock of {lock:#x}: {what}")
    return 0


@helper(
    "bpf_timer_init", "bpf_timer_set_callback", "bpf_timer_start", "bpf_timer_cancel",
    gpl=True,
    differs="there are no timers: always -EOPNOTSUPP",
)  # fmt: skip
def timer(world: World, timer_address: int) -> int:
    """Refuse."""
    return -errno.EOPNOTSUPP


@helper("bpf_kptr_xchg")
def kptr_xchg(world: World, place: int, pointer: int) -> int:
    """Put a pointer into a map's value; return the one that was there."""
    old = memory.read(place, 8)
    memory.write(place, pointer.to_bytes(8, "little"))
    return int.from_bytes(old, "little")
