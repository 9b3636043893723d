"""Rewrites over values: a module for each kind of thing that the machine does at once, or need not do."""

from __future__ import annotations

from collections.abc import Callable

from ebpfjit.optimizer.code import Code
from ebpfjit.optimizer.dead import remove_dead
from ebpfjit.optimizer.rules.addresses import displace, index
from ebpfjit.optimizer.rules.arithmetic import simplify
from ebpfjit.optimizer.rules.bytes import gather
from ebpfjit.optimizer.rules.operands import use_memory
from ebpfjit.optimizer.rules.selects import select

PASSES: tuple[Callable[[Code], Code], ...] = (
    simplify,
    remove_dead,
    select,
    displace,
    gather,
    index,
    use_memory,
    remove_dead,
)
"""In their order."""
