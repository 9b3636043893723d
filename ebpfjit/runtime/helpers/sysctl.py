"""Helpers of cgroup/sysctl programs: the variable that is read or written (kernel/bpf/cgroup.c)."""

from __future__ import annotations

import errno

from ebpfjit.errors import ExecutionError
from ebpfjit.runtime import memory
from ebpfjit.runtime.contexts.sysctl import PAGE_SIZE, SysctlContext
from ebpfjit.runtime.helpers.table import helper
from ebpfjit.runtime.world import World

BASE_NAME = 1
"""BPF_F_SYSCTL_BASE_NAME."""
_INT_MAX = (1 << 31) - 1


def _sysctl(world: World, address: int, name: str) -> SysctlContext:
    """Return the run's bpf_sysctl, which `address` must be. Raises ExecutionError."""
    context = world.context
    if not isinstance(context, SysctlContext):
        raise ExecutionError(f"{name} needs a struct bpf_sysctl as context; the program's type has none")
    if address != context.start:
        raise ExecutionError(f"{name}: r1 is {address:#x}, and the context is at {context.start:#x}")
    return context


@helper("bpf_sysctl_get_name", differs="the name is context={'name': ...}")
def sysctl_get_name(world: World, context: int, buffer: int, size: int, flags: int) -> int:
    """Write the variable's name, with flag 1 its last part; return its length, -E2BIG where it is cut."""
    sysctl = _sysctl(world, context, "bpf_sysctl_get_name")
    memory.check(buffer, size, "store")
    if sysctl.name is None:
        raise ExecutionError(
            "bpf_sysctl_get_name: nobody says which variable it is; "
            "give context={'name': 'net/ipv4/ip_forward'}"
        )
    name = sysctl.name.rpartition(b"/")[2] if flags & BASE_NAME else sysctl.name
    if not 0 < size <= _INT_MAX:
        return -errno.E2BIG
    memory.write(buffer, name[: size - 1] + b"\0")
    return len(name) if len(name) < size else -errno.E2BIG


def _copy(value: bytes, buffer: int, size: int) -> int:
    """Write a value, cut or filled up with zeros; return its size or a negative error number."""
    if not buffer:
        return -errno.EINVAL
    if not size:
        return -errno.E2BIG
    if len(value) < size:
        memory.pay(size)
        memory.clear(buffer, size)
        memory.write(buffer, value)
        return len(value) or -errno.EINVAL
    memory.write(buffer, value[: size - 1] + b"\0")
    return -errno.E2BIG


@helper(
    "bpf_sysctl_get_current_value",
    differs="the value is context={'current_value': ...}; without it, one that cannot be read: -EINVAL",
)
def sysctl_get_current_value(world: World, context: int, buffer: int, size: int) -> int:
    """Write the value that there is; return its size, -E2BIG where it is cut, -EINVAL where there is none."""
    sysctl = _sysctl(world, context, "bpf_sysctl_get_current_value")
    memory.check(buffer, size, "store")
    return _copy(sysctl.current, buffer, size)


@helper(
    "bpf_sysctl_get_new_value",
    differs="the value is context={'write': 1, 'new_value': ...}",
)
def sysctl_get_new_value(world: World, context: int, buffer: int, size: int) -> int:
    """Write the value that is to be; return its size, -E2BIG where it is cut, -EINVAL where none is."""
    sysctl = _sysctl(world, context, "bpf_sysctl_get_new_value")
    memory.check(buffer, size, "store")
    if not sysctl.writes:
        memory.clear(buffer, size)
        return -errno.EINVAL
    return _copy(sysctl.new, buffer, size)


@helper(
    "bpf_sysctl_set_new_value",
    differs="is told in Result.context; nothing is written",
)
def sysctl_set_new_value(world: World, context: int, buffer: int, size: int) -> int:
    """Let another value be written; 0, -E2BIG for a page or more, -EINVAL where none is written."""
    sysctl = _sysctl(world, context, "bpf_sysctl_set_new_value")
    memory.check(buffer, size, "load")
    if not sysctl.writes or not sysctl.new or not buffer or not size:
        return -errno.EINVAL
    if size > PAGE_SIZE - 1:
        return -errno.E2BIG
    sysctl.replace(memory.read(buffer, size))
    return 0
