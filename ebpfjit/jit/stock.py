"""The small helpers as machine code, for runs whose environment is the usual one."""

from __future__ import annotations

import time

from ebpfjit.jit.routines import routines
from ebpfjit.runtime.environment import Clock, Environment
from ebpfjit.runtime.execution import NativeHelper
from ebpfjit.runtime.helpers.names import NAMES, NUMBERS

ROUTINES = {
    "bpf_ktime_get_ns": "ktime_get_ns",
    "bpf_ktime_get_boot_ns": "ktime_get_ns",
    "bpf_ktime_get_coarse_ns": "ktime_get_ns",
    "bpf_ktime_get_tai_ns": "ktime_get_ns",
    "bpf_get_prandom_u32": "get_prandom_u32",
    "bpf_get_smp_processor_id": "get_smp_processor_id",
}
"""The routine (translators' `stock`) of each helper that has one."""

USUAL = Environment()


class LeafHelper(NativeHelper):
    """A native helper that calls nothing of ours: neither programs nor Python."""


def native_numbers(environment: Environment, *, lasting: bool = False) -> frozenset[int]:
    """Return the helpers, by number, whose routine does what Python's would in this environment.

    A clock, a source of randomness or a processor of the user's own leaves its helpers out. Where code is
    `lasting`, so does a clock that somebody may move on later.
    """
    clock = environment.clock
    same = {
        "ktime_get_ns": clock is time.monotonic_ns
        or (not lasting and isinstance(clock, Clock) and clock.is_usual),
        "get_prandom_u32": environment.random is USUAL.random,
        "get_smp_processor_id": environment.cpu == USUAL.cpu,
    }
    return frozenset(NUMBERS[name] for name, routine in ROUTINES.items() if same[routine])


def native_helper(number: int) -> NativeHelper:
    """Return the native helper of one of the `native_numbers`. Raises JitUnavailable."""
    shared = routines()
    return LeafHelper(shared.addresses[ROUTINES[NAMES[number]]], shared)
