"""Helpers that read memory that may not be there: bpf_probe_read and its kin."""

from __future__ import annotations

import errno

from ebpfjit.bits import W32
from ebpfjit.runtime import memory
from ebpfjit.runtime.helpers.table import helper
from ebpfjit.runtime.world import World

_DIFFERS = "reads the program's own memory only; all else is -EFAULT"


@helper(
    "bpf_probe_read", "bpf_probe_read_kernel", "bpf_probe_read_user", "bpf_copy_from_user",
    gpl=True, differs=_DIFFERS,
)  # fmt: skip
def probe_read(world: World, destination: int, size: int, source: int) -> int:
    """Copy memory; where it cannot be read, -EFAULT and zeros."""
    size = W32.wrap(size)
    memory.check(destination, size, "store")
    if not size:
        return 0
    found = memory.find(source, size, "load")
    memory.write(destination, bytes(size) if found is None else bytes(found))
    return -errno.EFAULT if found is None else 0


@helper(
    "bpf_probe_read_str", "bpf_probe_read_kernel_str", "bpf_probe_read_user_str",
    gpl=True, differs=_DIFFERS,
)  # fmt: skip
def probe_read_str(world: World, destination: int, size: int, source: int) -> int:
    """Copy a string; return its bytes, the zero byte counted, which is there also where it is cut.

    Where it cannot be read, -EFAULT and zeros.
    """
    size = W32.wrap(size)
    memory.check(destination, size, "store")
    if not size:
        return 0
    text = memory.string(source, size)
    if text is None:
        memory.write(destination, bytes(size))
        return -errno.EFAULT
    text = text[: size - 1] + b"\0"
    memory.write(destination, text)
    return len(text)


@helper("bpf_probe_write_user", gpl=True, differs="writes the program's own memory only; all else is -EPERM")
def probe_write_user(world: World, destination: int, source: int, size: int) -> int:
    """Copy to memory that may not be there; 0 or -EPERM."""
    data = memory.read(source, W32.wrap(size))
    if data and memory.find(destination, len(data), "store") is None:
        return -errno.EPERM
    memory.write(destination, data)
    return 0
