"""Helpers that read memory that may not be there: bpf_probe_read and its kin.

Where the program's own memory does not hold what they ask for, the environment's is looked at by the kernel's
rules: a process's addresses for those that read a process, the kernel's for those that read the kernel.
"""

from __future__ import annotations

import errno
from collections.abc import Callable

from ebpfjit.bits import W32
from ebpfjit.runtime import memory
from ebpfjit.runtime.foreign import KERNEL_START, USER_END
from ebpfjit.runtime.helpers.table import helper
from ebpfjit.runtime.world import World

_DIFFERS = "finds the program's own memory under either name; all else is that of Environment.memory"

Error = Callable[[int], int]
"""What a helper returns for an address that it never reads, 0 for one to look for in the environment."""


def _user(source: int) -> int:
    return 0 if source < USER_END else -errno.EFAULT


def _kernel(source: int) -> int:
    return 0 if source >= KERNEL_START else -errno.ERANGE


def _any(source: int) -> int:
    return 0 if source < USER_END else _kernel(source)


def _failed(destination: int, size: int, result: int) -> int:
    memory.clear(destination, size)
    return result


def _read(world: World, destination: int, size: int, source: int, refuses: Error) -> int:
    """Copy memory and return 0, or a negative error number and zeros where it cannot be read."""
    memory.check(destination, size, "store")
    if not size:
        return 0
    own = memory.find(source, size, "probe")
    found = None if own is None else bytes(own)
    if found is None and not refuses(source):
        memory.pay(size)
        found = world.foreign.read(source, size)
    if found is None:
        return _failed(destination, size, refuses(source) or -errno.EFAULT)
    memory.write(destination, found)
    return 0


def _read_string(world: World, destination: int, size: int, source: int, refuses: Error) -> int:
    """Copy a string and return its size, or a negative error number and zeros where it cannot be read."""
    memory.check(destination, size, "store")
    if not size:
        return 0
    text = memory.string(source, size)
    if text is None and not refuses(source):
        memory.pay(size)
        text = world.foreign.string(source, size)
    if text is None:
        return _failed(destination, size, refuses(source) or -errno.EFAULT)
    text = text[: size - 1] + b"\0"
    memory.write(destination, text)
    return len(text)


@helper("bpf_copy_from_user", differs=_DIFFERS)
@helper("bpf_probe_read_user", gpl=True, differs=_DIFFERS)
def probe_read_user(world: World, destination: int, size: int, source: int) -> int:
    """Copy memory; where it cannot be read, -EFAULT and zeros."""
    return _read(world, destination, W32.wrap(size), source, _user)


@helper("bpf_copy_from_user_task", gpl=True, differs="every task has the memory of Environment.memory")
def copy_from_user_task(world: World, destination: int, size: int, source: int, task: int, flags: int) -> int:
    """Copy memory of a task's process; where it cannot be read, -EFAULT and zeros; -EINVAL for flags."""
    size = W32.wrap(size)
    if flags:
        memory.check(destination, size, "store")
        return -errno.EINVAL
    return _read(world, destination, size, source, _user)


@helper("bpf_probe_read_kernel", gpl=True, differs=_DIFFERS)
def probe_read_kernel(world: World, destination: int, size: int, source: int) -> int:
    """Copy memory; where it cannot be read, -EFAULT or (not the kernel's) -ERANGE, and zeros."""
    return _read(world, destination, W32.wrap(size), source, _kernel)


@helper("bpf_probe_read", gpl=True, differs=_DIFFERS)
def probe_read(world: World, destination: int, size: int, source: int) -> int:
    """Copy memory; where it cannot be read, -EFAULT or (nobody's) -ERANGE, and zeros."""
    return _read(world, destination, W32.wrap(size), source, _any)


@helper("bpf_probe_read_user_str", gpl=True, differs=_DIFFERS)
def probe_read_user_str(world: World, destination: int, size: int, source: int) -> int:
    """Copy a string; return its bytes, the zero byte counted, which is there also where it is cut.

    Where it cannot be read, -EFAULT and zeros.
    """
    return _read_string(world, destination, W32.wrap(size), source, _user)


@helper("bpf_probe_read_kernel_str", gpl=True, differs=_DIFFERS)
def probe_read_kernel_str(world: World, destination: int, size: int, source: int) -> int:
    """As bpf_probe_read_user_str; an address that is not the kernel's is -ERANGE."""
    return _read_string(world, destination, W32.wrap(size), source, _kernel)


@helper("bpf_probe_read_str", gpl=True, differs=_DIFFERS)
def probe_read_str(world: World, destination: int, size: int, source: int) -> int:
    """As bpf_probe_read_user_str; an address that is nobody's is -ERANGE."""
    return _read_string(world, destination, W32.wrap(size), source, _any)


@helper(
    "bpf_probe_write_user",
    gpl=True,
    differs="writes the program's own memory too; where nothing is, -EPERM",
)
def probe_write_user(world: World, destination: int, source: int, size: int) -> int:
    """Copy to a process's memory (a bytearray of Environment.memory); 0, -EFAULT or -EPERM."""
    data = memory.read(source, W32.wrap(size))
    if not data or memory.find(destination, len(data), "store") is not None:
        memory.write(destination, data)
        return 0
    if world.foreign.write(destination, data):
        return 0
    return -errno.EFAULT if world.foreign.read(destination, len(data)) else -errno.EPERM
