"""Kernel functions: iterators over what an environment has of the kernel's objects: tasks, their memory,
slab caches, DMA buffers.

bpf_iter_task                   0  which is next (u64)    8  flags (u32)    16  whose threads are meant (u64)
bpf_iter_kmem_cache, _dmabuf,   0  which is next (u64)
    _task_vma

What there is is found when the first iterator of a run asks. A program could write these bytes itself: what
it gets from that are objects in another order.
"""

from __future__ import annotations

import errno
import struct
from collections.abc import Sequence

from ebpfjit.bits import W32
from ebpfjit.runtime import memory
from ebpfjit.runtime.kfuncs.table import kfunc
from ebpfjit.runtime.objects import TASK, KernelObject
from ebpfjit.runtime.world import World

ALL_PROCS, ALL_THREADS, PROC_THREADS = range(3)
"""Flags of an iterator over tasks (BPF_TASK_ITER_*)."""

_TASKS = struct.Struct("<QIIQ")
_ONE = struct.Struct("<Q")
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


def _next(world: World, place: int, objects: Sequence[KernelObject]) -> int:
    """Return the address of the object whose turn it is, 0 behind the last."""
    (index,) = _ONE.unpack(memory.read(place, _ONE.size))
    memory.spend(len(world.environment.objects.all))
    if index >= len(objects):
        return 0
    memory.write(place, _ONE.pack(index + 1))
    return int(objects[index].pointer)


@kfunc("bpf_iter_kmem_cache_new", "bpf_iter_dmabuf_new")
def iter_of_all_new(world: World, place: int) -> int:
    """Begin with all that there are; 0."""
    memory.clear(place, _ONE.size)
    return 0


@kfunc("bpf_iter_kmem_cache_next", leads_out=True, differs="the structs kmem_cache of the environment")
def iter_kmem_cache_next(world: World, place: int) -> int:
    """Return the address of the next slab cache, 0 behind the last."""
    return _next(world, place, list(world.environment.objects.of_struct("kmem_cache")))


@kfunc("bpf_iter_dmabuf_next", leads_out=True, differs="the structs dma_buf of the environment")
def iter_dmabuf_next(world: World, place: int) -> int:
    """Return the address of the next DMA buffer, 0 behind the last."""
    return _next(world, place, list(world.environment.objects.of_struct("dma_buf")))


def _areas(world: World) -> list[KernelObject]:
    """Return the memory areas, those at lower addresses first."""
    found = list(world.environment.objects.of_struct("vm_area_struct"))
    return sorted(found, key=lambda area: area.number("vm_start"))


@kfunc("bpf_iter_task_vma_new", differs="every task has the vm_area_structs of the environment")
def iter_task_vma_new(world: World, place: int, task: int, address: int) -> int:
    """Begin with the memory area that an address is in, or the next one; 0."""
    below = sum(area.number("vm_end") <= address for area in _areas(world))
    memory.spend(len(world.environment.objects.all))
    memory.write(place, _ONE.pack(below))
    return 0


@kfunc("bpf_iter_task_vma_next", leads_out=True)
def iter_task_vma_next(world: World, place: int) -> int:
    """Return the address of the next memory area, 0 behind the last."""
    return _next(world, place, _areas(world))


@kfunc("bpf_iter_kmem_cache_destroy", "bpf_iter_dmabuf_destroy", "bpf_iter_task_vma_destroy")
def iter_of_all_destroy(world: World, place: int) -> int:
    """End an iteration."""
    memory.clear(place, _ONE.size)
    return 0
