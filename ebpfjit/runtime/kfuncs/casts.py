"""Kernel functions that say of what type a pointer is: for which loads are the kernel's."""

from __future__ import annotations

from ebpfjit.runtime.kfuncs.table import kfunc
from ebpfjit.runtime.world import World


@kfunc("bpf_rdonly_cast")
def rdonly_cast(world: World, pointer: int, type_id: int) -> int:
    """Return the same address, as one of the kernel's: what is not there reads as zero."""
    return pointer
