"""Kernel functions that take and give back references to tasks, cgroups, files and keys.

What there is are the environment's objects: `environment.task(pid=7)`, `environment.struct("cgroup", ...)`.
A reference that is neither given back nor put into a kptr is an error where the program ends.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from ebpfjit.bits import W32
from ebpfjit.runtime import held
from ebpfjit.runtime.helpers.tracing import write_path
from ebpfjit.runtime.kfuncs.table import kfunc
from ebpfjit.runtime.objects import TASK, UNDESCRIBED, WINDOW, KernelObject, KernelPointer
from ebpfjit.runtime.world import World

SYSTEM_KEYRINGS = 3
"""Ids of the system's keyrings: the built-in one, the secondary one, that of the platform."""
_KEY = UNDESCRIBED - WINDOW
_ANCESTORS = "a cgroup's ancestors are the `ancestors` that the environment describes, and itself"
_CGROUP_ID = "a cgroup's number is the `id` of the struct kernfs_node that is its `kn`"


ACQUIRED = {"task": "bpf_task_acquire", "cgroup": "bpf_cgroup_acquire"}
"""What takes one more reference to what the program has a pointer to."""
GIVEN_BACK = {
    "task": "bpf_task_release", "cgroup": "bpf_cgroup_release", "file": "bpf_put_file", "key": "bpf_key_put",
}  # fmt: skip
"""What gives a reference of each kind back."""


def _taken(world: World, pointer: int, kind: str, by: str) -> int:
    """Return a pointer, to which the program has one more reference; 0 for none."""
    if pointer:
        held.take(world, held.reference(pointer), f"a reference to a {kind}", by=by, back=GIVEN_BACK[kind])
    return pointer


def _acquiring(kind: str, name: str) -> Callable[[World, int], int]:
    def acquire(world: World, pointer: int) -> int:
        return _taken(world, pointer, kind, name)

    acquire.__doc__ = f"Take a reference to a {kind}; return it."
    return acquire


def _giving_back(kind: str) -> Callable[[World, int], int]:
    def give_back(world: World, pointer: int) -> int:
        held.give_back(world, held.reference(pointer))  # one that came out of a kptr was not noted
        return 0

    give_back.__doc__ = f"Give a reference to a {kind} back."
    return give_back


for _kind, _name in ACQUIRED.items():
    kfunc(_name, leads_out=True)(_acquiring(_kind, _name))
for _kind, _name in GIVEN_BACK.items():
    kfunc(_name)(_giving_back(_kind))


def _objects(world: World, struct: str) -> Iterator[KernelObject]:
    return (each for each in list(world.environment.objects.all) if each.pointer.struct == struct)


# -- tasks ------------------------------------------------------------------------------------------


@kfunc("bpf_task_from_pid", "bpf_task_from_vpid", leads_out=True, differs="a task of the environment")
def task_from_pid(world: World, pid: int) -> int:
    """Return the task of a number, and take a reference to it; 0 where there is none."""
    wanted = W32.signed(pid)
    known = (int(each.pointer) for each in _objects(world, TASK) if each.members.get("pid") == wanted)
    current = world.environment.current_task
    found = next(known, current.pointer if current.pid == wanted else 0)
    return _taken(world, found, "task", "bpf_task_from_pid")


# -- cgroups ----------------------------------------------------------------------------------------


@kfunc("bpf_cgroup_from_id", leads_out=True, differs=_CGROUP_ID)
def cgroup_from_id(world: World, number: int) -> int:
    """Return the cgroup of a number, and take a reference to it; 0 where there is none."""
    for each in _objects(world, "cgroup"):
        node = each.members.get("kn")
        described = world.environment.objects.at(int(node)) if isinstance(node, KernelPointer) else None
        if described is not None and described.members.get("id") == number:
            return _taken(world, int(each.pointer), "cgroup", "bpf_cgroup_from_id")
    return 0


@kfunc("bpf_cgroup_ancestor", leads_out=True, differs=_ANCESTORS)
def cgroup_ancestor(world: World, cgroup: int, level: int) -> int:
    """Return the ancestor of a cgroup at a level, and take a reference to it; 0 where there is none."""
    level = W32.signed(level)
    described = world.environment.objects.at(cgroup)
    members = described.members if described is not None else {}
    ancestors = members.get("ancestors", ())
    found = 0
    if level == members.get("level", 0):
        found = cgroup
    elif isinstance(ancestors, list | tuple) and 0 <= level < min(len(ancestors), members.get("level", 0)):
        found = int(ancestors[level])
    return _taken(world, found, "cgroup", "bpf_cgroup_ancestor")


@kfunc(
    "bpf_task_get_cgroup1", leads_out=True, differs="no environment has hierarchies of cgroups v1: always 0"
)
def task_get_cgroup1(world: World, task: int, hierarchy: int) -> int:
    """Return a task's cgroup in a hierarchy of version 1, and take a reference to it; 0 for none."""
    return 0


@kfunc("cgroup_rstat_updated", "cgroup_rstat_flush", differs="nothing here keeps statistics")
def cgroup_rstat(world: World) -> int:
    """Tell that the statistics of a cgroup have changed; sum them up."""
    return 0


# -- files and keys ---------------------------------------------------------------------------------


@kfunc(
    "bpf_get_task_exe_file", leads_out=True, differs="the first struct file of the environment, else zeros"
)
def get_task_exe_file(world: World, task: int) -> int:
    """Return the file that a task was started from, and take a reference to it."""
    first = next(_objects(world, "file"), None)
    found = UNDESCRIBED if first is None else int(first.pointer)
    return _taken(world, found, "file", "bpf_get_task_exe_file")


@kfunc("bpf_path_d_path")
def path_d_path(world: World, path: int, buffer: int, size: int) -> int:
    """Write the name of a struct path; return its bytes with the zero byte, or a negative error number."""
    return write_path(world, path, buffer, size)


@kfunc("bpf_lookup_user_key", leads_out=True, differs="no environment has keys of users: always 0")
def lookup_user_key(world: World, serial: int, flags: int) -> int:
    """Return a key of the user's, and take a reference to it; 0 where there is none."""
    return 0


@kfunc("bpf_lookup_system_key", leads_out=True)
def lookup_system_key(world: World, id: int) -> int:
    """Return a keyring of the system's, and take a reference to it; 0 where there is none of that id."""
    found = _KEY if id < SYSTEM_KEYRINGS else 0
    return _taken(world, found, "key", "bpf_lookup_system_key")
