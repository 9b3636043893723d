"""Rewrites over values: a module for each kind of thing that the machine does at once, or need not do."""

from __future__ import annotations

from collections.abc import Callable

from ebpfjit.optimizer.code import Code
from ebpfjit.optimizer.dead import remove_dead
from ebpfjit.optimizer.flow import uses_of
from ebpfjit.optimizer.rules.addresses import displace, index
from ebpfjit.optimizer.rules.arithmetic import simplify
from ebpfjit.optimizer.rules.bytes import gather
from ebpfjit.optimizer.rules.divisions import divide
from ebpfjit.optimizer.rules.operands import use_memory
from ebpfjit.optimizer.rules.selects import select

Change = Callable[[Code], Code]
BEFORE_GUARDS: tuple[Change, ...] = (select, simplify, remove_dead)
BEHIND_GUARDS: tuple[Change, ...] = (divide, displace, gather, index, use_memory, remove_dead)
"""All, in their order: before checks are looked at, and when all is known of them."""


def simpler(code: Code) -> Code:
    """Return the code with simpler arithmetic, and choices: what analysis should see."""
    return remove_dead(simplify(select(code)))


def machine_like(code: Code) -> Code:
    """Return the code with accesses and operands as machines have them: when all else is found out."""
    code = divide(code)
    uses = uses_of(code)
    return remove_dead(use_memory(index(gather(displace(code, uses), uses), uses)))
