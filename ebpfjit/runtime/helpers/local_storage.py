"""Helpers of local storage: the value that a map has for a socket, task, inode or cgroup."""

from __future__ import annotations

import errno
from typing import Any, cast

from ebpfjit.bits import U64_MASK
from ebpfjit.errors import ExecutionError
from ebpfjit.runtime import memory
from ebpfjit.runtime.attach import attachment
from ebpfjit.runtime.foreign import KERNEL_START
from ebpfjit.runtime.helpers.maps import map_of
from ebpfjit.runtime.helpers.sockets import socket_at
from ebpfjit.runtime.helpers.table import engine_of, helper
from ebpfjit.runtime.maps.cgroup_storage import CgroupStorage
from ebpfjit.runtime.maps.definition import MapType
from ebpfjit.runtime.maps.local_storage import STRUCTS, LocalStorage
from ebpfjit.runtime.sockets import Socket
from ebpfjit.runtime.world import World

GET_F_CREATE = 1
"""BPF_LOCAL_STORAGE_GET_F_CREATE, the only flag."""

_NOT_FULL = frozenset({6, 12})
"""States of sockets that are no full ones: TCP_TIME_WAIT, TCP_NEW_SYN_RECV."""

_OWNERS = "finds tasks, inodes and cgroups by their addresses, whatever is there"
_SOCKETS = "the packet's own socket is the one with Environment.socket_cookie"


def _owner(world: World, found: LocalStorage, address: int, name: str) -> Any:
    """Return what a program points to, None for a null pointer and for sockets that have no storage.

    Raises ExecutionError for what cannot be such an object.
    """
    if not address:
        return None
    owner: Any = None
    if found.definition.type == MapType.SK_STORAGE:
        owner = socket_at(world, address)
        if isinstance(owner, Socket) and owner.effective_state in _NOT_FULL:
            return None
    if owner is None and KERNEL_START <= address < U64_MASK:
        described = world.environment.objects.at(address)
        owner = address if described is None else described.pointer
    try:
        if owner is not None:
            found.number_of(owner)
            return owner
    except TypeError:
        pass
    struct = STRUCTS[MapType(found.definition.type)]
    what = f"address {address:#x}" if owner is None else repr(owner)
    raise ExecutionError(f"{name}: {what} is no struct {struct}, to which {found.definition} has values")


def _get(world: World, name: str, map_address: int, owner_address: int, value: int, flags: int) -> int:
    found = cast(LocalStorage, map_of(world, map_address, name))
    size = found.definition.value_size
    memory.check(value, size if value else 0, "load")
    owner = _owner(world, found, owner_address, name)
    if owner is None or flags & ~GET_F_CREATE:
        return 0
    address = found.get_storage(owner, None)
    if address or not flags:
        return address
    return found.get_storage(owner, memory.read(value, size) if value else bytes(size))


def _delete(world: World, name: str, map_address: int, owner_address: int) -> int:
    found = cast(LocalStorage, map_of(world, map_address, name))
    owner = _owner(world, found, owner_address, name)
    return -errno.EINVAL if owner is None else found.delete_storage(owner)


@helper("bpf_sk_storage_get", differs=_SOCKETS)
def sk_storage_get(world: World, map_address: int, socket: int, value: int, flags: int) -> int:
    """Return the address of a socket's value, made of `value` or zeros where the flag says so; else 0."""
    return _get(world, "bpf_sk_storage_get", map_address, socket, value, flags)


@helper("bpf_sk_storage_delete", differs=_SOCKETS)
def sk_storage_delete(world: World, map_address: int, socket: int) -> int:
    """Remove a socket's value; 0, -EINVAL for no socket, -ENOENT where there is no value."""
    return _delete(world, "bpf_sk_storage_delete", map_address, socket)


@helper("bpf_task_storage_get", differs=_OWNERS)
def task_storage_get(world: World, map_address: int, task: int, value: int, flags: int) -> int:
    """Return the address of a task's value, made of `value` or zeros where the flag says so; else 0."""
    return _get(world, "bpf_task_storage_get", map_address, task, value, flags)


@helper("bpf_task_storage_delete", differs=_OWNERS)
def task_storage_delete(world: World, map_address: int, task: int) -> int:
    """Remove a task's value; 0, -EINVAL for no task, -ENOENT where there is no value."""
    return _delete(world, "bpf_task_storage_delete", map_address, task)


@helper("bpf_inode_storage_get", differs=_OWNERS)
def inode_storage_get(world: World, map_address: int, inode: int, value: int, flags: int) -> int:
    """Return the address of an inode's value, made of `value` or zeros where the flag says so; else 0."""
    return _get(world, "bpf_inode_storage_get", map_address, inode, value, flags)


@helper("bpf_inode_storage_delete", differs=_OWNERS)
def inode_storage_delete(world: World, map_address: int, inode: int) -> int:
    """Remove an inode's value; 0, -EINVAL for no inode, -ENOENT where there is no value."""
    return _delete(world, "bpf_inode_storage_delete", map_address, inode)


@helper("bpf_cgrp_storage_get", differs=_OWNERS)
def cgrp_storage_get(world: World, map_address: int, cgroup: int, value: int, flags: int) -> int:
    """Return the address of a cgroup's value, made of `value` or zeros where the flag says so; else 0."""
    return _get(world, "bpf_cgrp_storage_get", map_address, cgroup, value, flags)


@helper("bpf_cgrp_storage_delete", differs=_OWNERS)
def cgrp_storage_delete(world: World, map_address: int, cgroup: int) -> int:
    """Remove a cgroup's value; 0, -EINVAL for no cgroup, -ENOENT where there is no value."""
    return _delete(world, "bpf_cgrp_storage_delete", map_address, cgroup)


@helper(
    "bpf_get_local_storage",
    differs="values last from run to run; a test run of Linux's has new ones, of zeros",
)
def get_local_storage(world: World, map_address: int, flags: int) -> int:
    """Return the address of the value of the task's cgroup and the program's attach type."""
    found = cast(CgroupStorage, map_of(world, map_address, "bpf_get_local_storage"))
    program, _ = engine_of(world).place()
    attached = attachment(program.type, program.section).type
    return found.storage_of(world.environment.current_task.cgroup_id, attached)
