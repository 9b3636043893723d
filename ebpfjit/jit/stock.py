"""The small helpers as machine code, for runs whose environment is the usual one."""

from __future__ import annotations

from ebpfjit.jit.routines import routines
from ebpfjit.runtime.environment import Environment
from ebpfjit.runtime.execution import NativeHelper


class LeafHelper(NativeHelper):
    """A native helper that calls nothing of ours: neither programs nor Python."""


def native_helpers(environment: Environment) -> dict[str, NativeHelper]:
    """Return the native helpers, by name, that do what Python's would in this environment.

    A clock, a source of randomness or a processor of the user's own leaves its helper out.
    Raises JitUnavailable where there is no machine code.
    """
    usual = Environment()
    same = {
        "ktime_get_ns": environment.clock is usual.clock,
        "get_prandom_u32": environment.random is usual.random,
        "get_smp_processor_id": environment.cpu == 0,
    }
    shared = routines()
    return {name: LeafHelper(shared.addresses[name], shared) for name, wanted in same.items() if wanted}
