"""Helpers that read memory that may not be there: bpf_probe_read and its kin."""

from __future__ import annotations

import errno

from ebpfjit.bits import W32
from ebpfjit.runtime import memory
from ebpfjit.runtime.helpers.table import helper
from ebpfjit.runtime.world import World

_DIFFERS = "reads the program's own memory only; all else cannot be read"
# Addresses on x86-64: processes have those below, the kernel those from the second on, nobody the rest.
_USER_END, _KERNEL_START = 0x7FFF_FFFF_F000, 0xFFFF_8000_0000_0000


def _failed(destination: int, size: int, result: int) -> int:
    memory.clear(destination, size)
    return result


def _read(destination: int, size: int, source: int, result: int) -> int:
    """Copy memory and return 0, or `result` and zeros where it cannot be read."""
    memory.check(destination, size, "store")
    if not size:
        return 0
    found = memory.find(source, size, "load")
    if found is None:
        return _failed(destination, size, result)
    memory.write(destination, bytes(found))
    return 0


def _read_string(destination: int, size: int, source: int, result: int) -> int:
    """Copy a string and return its size, or `result` and zeros where it cannot be read."""
    memory.check(destination, size, "store")
    if not size:
        return 0
    text = memory.string(source, size)
    if text is None:
        return _failed(destination, size, result)
    text = text[: size - 1] + b"\0"
    memory.write(destination, text)
    return len(text)


def _kernel_error(source: int) -> int:
    """Return what Linux does for an address that it cannot read as its own, or never would."""
    return -errno.EFAULT if source >= _KERNEL_START else -errno.ERANGE


def _any_error(source: int) -> int:
    """Return what Linux does for an address that it cannot read, whoever's it is."""
    return -errno.EFAULT if source < _USER_END else _kernel_error(source)


@helper("bpf_copy_from_user", differs=_DIFFERS)
@helper("bpf_probe_read_user", gpl=True, differs=_DIFFERS)
def probe_read_user(world: World, destination: int, size: int, source: int) -> int:
    """Copy memory; where it cannot be read, -EFAULT and zeros."""
    return _read(destination, W32.wrap(size), source, -errno.EFAULT)


@helper("bpf_probe_read_kernel", gpl=True, differs=_DIFFERS)
def probe_read_kernel(world: World, destination: int, size: int, source: int) -> int:
    """Copy memory; where it cannot be read, -EFAULT or (not the kernel's) -ERANGE, and zeros."""
    return _read(destination, W32.wrap(size), source, _kernel_error(source))


@helper("bpf_probe_read", gpl=True, differs=_DIFFERS)
def probe_read(world: World, destination: int, size: int, source: int) -> int:
    """Copy memory; where it cannot be read, -EFAULT or (nobody's) -ERANGE, and zeros."""
    return _read(destination, W32.wrap(size), source, _any_error(source))


@helper("bpf_probe_read_user_str", gpl=True, differs=_DIFFERS)
def probe_read_user_str(world: World, destination: int, size: int, source: int) -> int:
    """Copy a string; return its bytes, the zero byte counted, which is there also where it is cut.

    Where it cannot be read, -EFAULT and zeros.
    """
    return _read_string(destination, W32.wrap(size), source, -errno.EFAULT)


@helper("bpf_probe_read_kernel_str", gpl=True, differs=_DIFFERS)
def probe_read_kernel_str(world: World, destination: int, size: int, source: int) -> int:
    """As bpf_probe_read_user_str; an address that is not the kernel's is -ERANGE."""
    return _read_string(destination, W32.wrap(size), source, _kernel_error(source))


@helper("bpf_probe_read_str", gpl=True, differs=_DIFFERS)
def probe_read_str(world: World, destination: int, size: int, source: int) -> int:
    """As bpf_probe_read_user_str; an address that is nobody's is -ERANGE."""
    return _read_string(destination, W32.wrap(size), source, _any_error(source))


@helper("bpf_probe_write_user", gpl=True, differs="writes the program's own memory only; all else is -EPERM")
def probe_write_user(world: World, destination: int, source: int, size: int) -> int:
    """Copy to memory that may not be there; 0 or -EPERM."""
    data = memory.read(source, W32.wrap(size))
    if data and memory.find(destination, len(data), "store") is None:
        return -errno.EPERM
    memory.write(destination, data)
    return 0
