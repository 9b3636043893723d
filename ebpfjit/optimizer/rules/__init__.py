"""Rewrites over values: a module for each kind of thing that the machine does at once, or need not do."""

from __future__ import annotations

from collections.abc import Callable

from ebpfjit.optimizer.code import Code
from ebpfjit.optimizer.dead import remove_dead
from ebpfjit.optimizer.rules.arithmetic import simplify

PASSES: tuple[Callable[[Code], Code], ...] = (simplify, remove_dead)
"""In their order."""
