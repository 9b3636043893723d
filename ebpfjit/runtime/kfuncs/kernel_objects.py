"""Kernel functions: iterators over what an environment has of the kernel's objects: tasks, slab caches.

bpf_iter_task         0  which is next (u64)    8  flags (u32)    16  whose threads are meant (u64)
bpf_iter_kmem_cache   0  which is next (u64)

What there is is found when the first iterator of a run asks. A program could write these bytes itself: what
it gets from that are objects in another order.
"""

from __future__ import annotations

import errno
import struct

from ebpfjit.bits import W32
from ebpfjit.runtime import memory
from ebpfjit.runtime.kfuncs.table import kfunc
from ebpfjit.runtime.objects import TASK
from ebpfjit.runtime.world import World

ALL_PROCS, ALL_THREADS, PROC_THREADS = range(3)
"""Flags of an iterator over tasks (BPF_TASK_ITER_*)."""

_TASKS = struct.Struct("<QIIQ")
_CACHES = struct.Struct("<Q")
_THREADS = "tasks to iterate over"


def _tasks(world: World) -> list[tuple[int, int, int]]:
    """Return the address, pid and tgid of each task, the process that runs among them."""
    known: list[tuple[int, int, int]] | None = world.kept.get(_THREADS)
    if known is None:
        known = []
        for described in world.environment.objects.of_struct(TASK):
            pid = described.number("pid")
            known.append((int(described.pointer), pid, described.number("tgid", pid)))
        runs = world.environment.current_task
        if world.current_task and all(address != world.current_task for address, _, _ in known):
            known.append((world.current_task, runs.pid, runs.tgid))
        world.kept[_THREADS] = known
        memory.spend(len(known))
    return known


@kfunc("bpf_iter_task_new")
def iter_task_new(world: World, place: int, task: int, flags: int) -> int:
    """Begin with all processes, all threads, or those of a task's process from it on; 0 or -EINVAL."""
    flags = W32.wrap(flags)
    memory.write(place, _TASKS.pack(len(_tasks(world)), 0, 0, 0))
    if flags > PROC_THREADS or (flags == PROC_THREADS and not task):
        return -errno.EINVAL
    start, tgid = 0, 0
    if flags == PROC_THREADS:
        found = [(index, each[2]) for index, each in enumerate(_tasks(world)) if each[0] == task]
        start, tgid = found[0] if found else (len(_tasks(world)), 0)
    memory.write(place, _TASKS.pack(start, flags, 0, tgid & (1 << 64) - 1))
    return 0


@kfunc(
    "bpf_iter_task_next",
    leads_out=True,
    differs="the tasks of the environment and the one that runs, no other",
)
def iter_task_next(world: World, place: int) -> int:
    """Return the address of the next task, 0 behind the last."""
    index, flags, _, tgid = _TASKS.unpack(memory.read(place, _TASKS.size))
    tasks = _tasks(world)
    memory.check(place, _TASKS.size, "store")
    for at in range(min(index, len(tasks)), len(tasks)):
        address, pid, group = tasks[at]
        if {ALL_PROCS: pid == group, PROC_THREADS: group & (1 << 64) - 1 == tgid}.get(flags, True):
            memory.spend(at - index)
            memory.write(place, _TASKS.pack(at + 1, flags, 0, tgid))
            return address
    memory.write(place, _TASKS.pack(len(tasks), flags, 0, tgid))
    return 0


@kfunc("bpf_iter_task_destroy")
def iter_task_destroy(world: World, place: int) -> int:
    """End an iteration."""
    memory.clear(place, _TASKS.size)
    return 0


@kfunc("bpf_iter_kmem_cache_new")
def iter_kmem_cache_new(world: World, place: int) -> int:
    """Begin with the slab caches; 0."""
    memory.clear(place, _CACHES.size)
    return 0


@kfunc("bpf_iter_kmem_cache_next", leads_out=True, differs="the structs kmem_cache of the environment")
def iter_kmem_cache_next(world: World, place: int) -> int:
    """Return the address of the next slab cache, 0 behind the last."""
    (index,) = _CACHES.unpack(memory.read(place, _CACHES.size))
    caches = list(world.environment.objects.of_struct("kmem_cache"))
    memory.spend(len(world.environment.objects.all))
    if index >= len(caches):
        return 0
    memory.write(place, _CACHES.pack(index + 1))
    return int(caches[index].pointer)


@kfunc("bpf_iter_kmem_cache_destroy")
def iter_kmem_cache_destroy(world: World, place: int) -> int:
    """End an iteration."""
    memory.clear(place, _CACHES.size)
    return 0
