"""Kernel functions: iterators over cgroups, and over the tasks of one (kernel/bpf/cgroup_iter.c).

    bpf_iter_css        0  where it starts (u64)   8  which is next (u64)   16  in which order (u32)
    bpf_iter_css_task   0  the cgroup, counted among the environment's objects (u32)   4  which is next (u24)
                        7  flags (u8)

A css (struct cgroup_subsys_state) is an object of its own, or that of a cgroup, which is its first member:
its address is the cgroup's. Its parent is what `parent` says, of a cgroup `self={"parent": ...}` or the last
of its `ancestors`. A program could write these bytes itself: what it gets are objects in another order.
"""

from __future__ import annotations

import errno
import struct
from collections.abc import Mapping

from ebpfjit.bits import W32, W64
from ebpfjit.runtime import memory
from ebpfjit.runtime.kfuncs.table import kfunc
from ebpfjit.runtime.objects import FIRST_OBJECT, TASK, WINDOW, KernelObject
from ebpfjit.runtime.world import World

PRE_ORDER, POST_ORDER, UPWARDS = 2, 3, 4
"""BPF_CGROUP_ITER_DESCENDANTS_PRE, _POST, and BPF_CGROUP_ITER_ANCESTORS_UP."""
PROCESSES, THREADED = 1, 2
"""CSS_TASK_ITER_PROCS, and CSS_TASK_ITER_THREADED, which goes with the first alone."""

_CSS, _CSS_TASK = struct.Struct("<QQII"), struct.Struct("<II")
_PARENTS, _ORDERS = "parents of cgroups", "cgroups to iterate over"
_NOBODY = W32.mask
_MOST = (1 << 24) - 1
_TREE = "cgroups, and structs cgroup_subsys_state, that the environment describes"


def _parent(described: KernelObject) -> int:
    """Return the css above a css, 0 for none."""
    members = described.members
    if described.pointer.struct == "cgroup":
        inside, ancestors = members.get("self"), members.get("ancestors")
        if isinstance(inside, Mapping) and "parent" in inside:
            members = inside
        elif isinstance(ancestors, list | tuple):
            above = [each for each in ancestors[: described.number("level")] if isinstance(each, int)]
            return int(above[-1]) if above else 0
    value = members.get("parent", 0)
    return int(value) if isinstance(value, int) else 0


def _parents(world: World) -> dict[int, int]:
    """Return what is above each css, in the order in which they were described."""
    known: dict[int, int] | None = world.kept.get(_PARENTS)
    if known is None:
        found = list(world.environment.objects.all)
        memory.spend(len(found))
        kinds = ("cgroup", "cgroup_subsys_state")
        known = {int(each.pointer): _parent(each) for each in found if each.pointer.struct in kinds}
        world.kept[_PARENTS] = known
    return known


def _order(world: World, start: int, flags: int) -> list[int]:
    """Return the csses that an iterator comes by."""
    orders: dict[tuple[int, int], list[int]] = world.kept.setdefault(_ORDERS, {})
    made = orders.get((start, flags))
    if made is None:
        parents = _parents(world)
        memory.spend(len(parents))
        made = _upwards(parents, start) if flags == UPWARDS else _downwards(parents, start, flags)
        if len(orders) < len(parents) * UPWARDS:  # a program that writes starts of its own fills no memory
            orders[start, flags] = made
    return made


def _upwards(parents: dict[int, int], start: int) -> list[int]:
    found, at = [start], parents.get(start, 0)
    while at and len(found) <= len(parents):
        found.append(at)
        at = parents.get(at, 0)
    return found


def _downwards(parents: dict[int, int], start: int, flags: int) -> list[int]:
    children: dict[int, list[int]] = {}
    for css, parent in parents.items():
        children.setdefault(parent, []).append(css)
    found, waiting, seen = list[int](), [start], {start}
    # Post-order is pre-order with children from the last to the first, backwards.
    while waiting:
        css = waiting.pop()
        found.append(css)
        below = [each for each in children.get(css, ()) if each not in seen]
        seen.update(below)
        waiting += below if flags == POST_ORDER else below[::-1]
    return found[::-1] if flags == POST_ORDER else found


@kfunc("bpf_iter_css_new")
def iter_css_new(world: World, place: int, start: int, flags: int) -> int:
    """Begin with the cgroups below one (2: it comes first, 3: last), or those above it (4); 0 or -EINVAL."""
    flags = W32.wrap(flags)
    is_known = flags in (PRE_ORDER, POST_ORDER, UPWARDS)
    memory.write(place, _CSS.pack(start if is_known else 0, 0, flags, 0))
    return 0 if is_known else -errno.EINVAL


@kfunc("bpf_iter_css_next", leads_out=True, differs=_TREE)
def iter_css_next(world: World, place: int) -> int:
    """Return the address of the next css, 0 behind the last."""
    start, index, flags, _ = _CSS.unpack(memory.read(place, _CSS.size))
    memory.check(place, _CSS.size, "store")
    order = _order(world, start, flags) if start else []
    if index >= len(order):
        return 0
    memory.write(place, _CSS.pack(start, index + 1, flags, 0))
    return int(order[index])


@kfunc("bpf_iter_css_destroy")
def iter_css_destroy(world: World, place: int) -> int:
    """End an iteration."""
    memory.clear(place, _CSS.size)
    return 0


# -- tasks --------------------------------------------------------------------------------------------


def _object(world: World, address: int) -> KernelObject | None:
    return world.environment.objects.at(address) if address else None


def _belongs(world: World, task: KernelObject, css: int) -> bool:
    """True for a task whose `cgroups`, a css_set, have the cgroup as `dfl_cgrp`, or the css in `subsys`."""
    found = _object(world, task.number("cgroups"))
    if found is None or found.pointer.struct != "css_set":
        return False
    controllers = found.members.get("subsys", ())
    listed = isinstance(controllers, list | tuple) and css in controllers
    return listed or found.number("dfl_cgrp") == css


@kfunc("bpf_iter_css_task_new")
def iter_css_task_new(world: World, place: int, css: int, flags: int) -> int:
    """Begin with the threads of a cgroup (0), or with its processes (1, 3); 0 or -EINVAL."""
    flags = W32.wrap(flags)
    is_known = flags in (0, PROCESSES, PROCESSES | THREADED)
    described = _object(world, css) if is_known else None
    number = _NOBODY if described is None else (int(described.pointer) - FIRST_OBJECT) // WINDOW
    memory.write(place, _CSS_TASK.pack(number, (flags & 3) << 24))
    return 0 if is_known else -errno.EINVAL


@kfunc(
    "bpf_iter_css_task_next",
    leads_out=True,
    differs="tasks of the environment whose `cgroups` is a struct css_set with the cgroup as its `dfl_cgrp`",
)
def iter_css_task_next(world: World, place: int) -> int:
    """Return the address of the next task, 0 behind the last."""
    number, rest = _CSS_TASK.unpack(memory.read(place, _CSS_TASK.size))
    memory.check(place, _CSS_TASK.size, "store")
    flags, first = rest >> 24, rest & _MOST
    tasks = list(world.environment.objects.of_struct(TASK)) if number != _NOBODY else []
    memory.spend(len(tasks))
    css = W64.wrap(FIRST_OBJECT + number * WINDOW)
    for at, task in enumerate(tasks[first:_MOST], first):
        is_leader = task.number("pid") == task.number("tgid", task.number("pid"))
        if _belongs(world, task, css) and (is_leader or not flags & PROCESSES):
            memory.write(place, _CSS_TASK.pack(number, flags << 24 | at + 1))
            return int(task.pointer)
    memory.write(place, _CSS_TASK.pack(_NOBODY, flags << 24))
    return 0


@kfunc("bpf_iter_css_task_destroy")
def iter_css_task_destroy(world: World, place: int) -> int:
    """End an iteration."""
    memory.clear(place, _CSS_TASK.size)
    return 0
