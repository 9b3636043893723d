"""Helpers that ask which process the program runs in."""

from __future__ import annotations

import errno
import struct

from ebpfjit.bits import W32
from ebpfjit.runtime import memory
from ebpfjit.runtime.helpers.table import helper
from ebpfjit.runtime.world import World

_PIDNS_INFO = struct.Struct("<II")


@helper("bpf_get_current_pid_tgid")
def get_current_pid_tgid(world: World) -> int:
    """Return tgid << 32 | pid: the process and its thread."""
    task = world.environment.identity
    return task.tgid << 32 | W32.wrap(task.pid)


@helper("bpf_get_current_uid_gid")
def get_current_uid_gid(world: World) -> int:
    """Return gid << 32 | uid."""
    task = world.environment.identity
    return task.gid << 32 | W32.wrap(task.uid)


@helper("bpf_get_current_comm")
def get_current_comm(world: World, buffer: int, size: int) -> int:
    """Copy the name of the process, padded with zeros and ending with one; return 0."""
    size = W32.wrap(size)
    name = world.environment.current_task.name
    memory.clear(buffer, size)
    memory.write(buffer, name[: max(size - 1, 0)])
    return 0


@helper(
    "bpf_get_current_task",
    "bpf_get_current_task_btf",
    gpl=True,
    differs="a task_struct by the program's types, or those of Environment.btf; else all zero",
)
def get_current_task(world: World) -> int:
    """Return the address of the task."""
    return world.current_task or world.environment.current_task.address


@helper("bpf_get_current_cgroup_id")
def get_current_cgroup_id(world: World) -> int:
    """Return the id of the process's cgroup."""
    return world.environment.current_task.cgroup_id


@helper("bpf_get_current_ancestor_cgroup_id", differs="knows the cgroup itself at level 0, and no others")
def get_current_ancestor_cgroup_id(world: World, level: int) -> int:
    """Return the id of the cgroup above at a level, 0 where there is none."""
    return 0 if W32.wrap(level) else world.environment.current_task.cgroup_id


@helper("bpf_get_func_ip", gpl=True, differs="0: nothing is attached")
def get_func_ip(world: World, context: int) -> int:
    """Return the address of the traced function."""
    return 0


@helper("bpf_get_attach_cookie")
def get_attach_cookie(world: World, context: int) -> int:
    """Return the number that the user gave to this attachment."""
    return world.environment.attach_cookie


@helper("bpf_get_ns_current_pid_tgid", differs="takes any namespace for the one of the process")
def get_ns_current_pid_tgid(world: World, device: int, inode: int, buffer: int, size: int) -> int:
    """Write the process and its thread, as a namespace counts them; 0 or -EINVAL."""
    size = W32.wrap(size)
    memory.clear(buffer, size)
    if size != _PIDNS_INFO.size:
        return -errno.EINVAL
    task = world.environment.current_task
    memory.write(buffer, _PIDNS_INFO.pack(W32.wrap(task.pid), W32.wrap(task.tgid)))
    return 0
