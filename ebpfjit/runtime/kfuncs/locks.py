"""Kernel functions: spin locks that are refused where waiting would not end (bpf_res_spin_lock).

Several may be held at a time, and are given back in turn: the last first. What may be called meanwhile is
what may be under a bpf_spin_lock.
"""

from __future__ import annotations

import errno

from ebpfjit.errors import ExecutionError
from ebpfjit.runtime import held, owned
from ebpfjit.runtime.helpers.locks import BELOW, RESILIENT, lock_at
from ebpfjit.runtime.kfuncs import sections
from ebpfjit.runtime.kfuncs.table import kfunc
from ebpfjit.runtime.world import World

LOCK = "bpf_res_spin_lock"
MOST_LOCKS = 64
"""Locks that a run holds at a time."""
_NOBODY = "keeps out nobody: programs in other threads may run meanwhile"
_SAVE, _RESTORE = "bpf_res_spin_lock_irqsave", "bpf_res_spin_unlock_irqrestore"


def _take(world: World, lock: int, by: str, back: str) -> int:
    what = lock_at(world, lock, LOCK, by)
    locks: list[tuple[int, str]] = world.kept.setdefault(RESILIENT, [])
    if any(lock == other for other, _ in locks):
        return -errno.EDEADLK
    if len(locks) >= MOST_LOCKS:
        raise ExecutionError(f"{by}, the {MOST_LOCKS + 1}th in a row: release some before")
    if not locks:
        world.kept[BELOW] = world.lock
    world.lock = lock, what
    locks.append(world.lock)
    held.take(world, held.key_of_lock(lock), what, by=by, back=back)
    return 0


def _check_last(world: World, lock: int, name: str) -> None:
    locks: list[tuple[int, str]] = world.kept.get(RESILIENT, [])
    if not locks or locks[-1][0] != lock:
        what = f"{locks[-1][1]} is the one that was taken last" if locks else "no lock is held"
        raise ExecutionError(f"{name} of {lock:#x}: {what}")
    _, back = held.taken(world, held.key_of_lock(lock))
    if back != name:
        raise ExecutionError(f"{name} of {lock:#x}: it is for {back} to release")


def _release(world: World) -> None:
    locks: list[tuple[int, str]] = world.kept[RESILIENT]
    lock, _ = locks.pop()
    world.lock = locks[-1] if locks else world.kept.pop(BELOW, None)
    held.give_back(world, held.key_of_lock(lock))
    owned.end_of_lock(world)


@kfunc(LOCK, under_lock=True, differs=_NOBODY)
def res_spin_lock(world: World, lock: int) -> int:
    """Take a lock; 0, or -EDEADLK where the program holds it already."""
    return _take(world, lock, LOCK, "bpf_res_spin_unlock")


@kfunc("bpf_res_spin_unlock", under_lock=True)
def res_spin_unlock(world: World, lock: int) -> int:
    """Release the lock that was taken last."""
    _check_last(world, lock, "bpf_res_spin_unlock")
    _release(world)
    return 0


@kfunc(_SAVE, under_lock=True, differs=_NOBODY)
def res_spin_lock_irqsave(world: World, lock: int, flags: int) -> int:
    """Take a lock and keep interrupts away, with flags kept at an address (u64); 0, or -EDEADLK."""
    sections.check_flags(world, flags, _SAVE)
    result = _take(world, lock, _SAVE, _RESTORE)
    if not result:
        sections.save_flags(world, flags, _SAVE, _RESTORE)
    return result


@kfunc(_RESTORE, under_lock=True)
def res_spin_unlock_irqrestore(world: World, lock: int, flags: int) -> int:
    """Release the lock that was taken last, and let interrupts come as before."""
    _check_last(world, lock, _RESTORE)
    sections.check_restore(world, flags, _RESTORE)
    _release(world)
    sections.restore_flags(world, flags, _RESTORE)
    return 0
