"""The small helpers as machine code, for runs whose environment is the usual one."""

from __future__ import annotations

import os
import time

from ebpfjit.jit.code_buffer import CodeBuffer
from ebpfjit.jit.image import relocate
from ebpfjit.jit.routines import address_of, routines, text
from ebpfjit.once import import_alone
from ebpfjit.runtime.environment import Clock, Environment
from ebpfjit.runtime.execution import NativeHelper
from ebpfjit.runtime.helpers.names import NAMES, NUMBERS
from ebpfjit.translators.labels import PACKETS

ROUTINES = {
    "bpf_ktime_get_ns": "ktime_get_ns",
    "bpf_ktime_get_boot_ns": "ktime_get_ns",
    "bpf_ktime_get_coarse_ns": "ktime_get_ns",
    "bpf_ktime_get_tai_ns": "ktime_get_ns",
    "bpf_get_prandom_u32": "get_prandom_u32",
    "bpf_get_smp_processor_id": "get_smp_processor_id",
}
"""The routine (translators' `stock`) of each helper that has one."""

ANYWHERE = ("tail_call", "ringbuf_", "perf_")
PACKET_HELPERS = {
    context: frozenset(NUMBERS["bpf_" + name] for name in PACKETS if name.startswith(prefix))
    for context, prefix in (("XDP", ("xdp_", *ANYWHERE)), ("SK_BUFF", ("skb_", *ANYWHERE)))
}
"""The helpers that have a routine in programs on packets, by the kind of their context."""

USUAL = Environment()


class LeafHelper(NativeHelper):
    """A native helper that calls nothing of ours: neither programs nor Python."""


def native_numbers(environment: Environment, *, lasting: bool = False) -> frozenset[int]:
    """Return the helpers, by number, whose routine does what Python's would in this environment.

    A function for a clock, a source of randomness or a processor of the user's own leaves its helpers out.
    Where code is not `lasting`, so does a clock that stands still or was moved on.
    """
    clock = environment.clock
    same = {
        "ktime_get_ns": clock is time.monotonic_ns or (type(clock) is Clock and (lasting or clock.is_usual)),
        "get_prandom_u32": environment.random is USUAL.random,
        "get_smp_processor_id": environment.cpu == USUAL.cpu,
    }
    return frozenset(NUMBERS[name] for name, routine in ROUTINES.items() if same[routine])


def native_helper(number: int, environment: Environment, *, lasting: bool = False) -> NativeHelper:
    """Return the native helper of one of the `native_numbers` of an environment. Raises JitUnavailable."""
    shared, clock = routines(), environment.clock
    if lasting and isinstance(clock, Clock) and ROUTINES[NAMES[number]] == "ktime_get_ns":
        return _clock_helper(clock)
    return LeafHelper(shared.addresses[ROUTINES[NAMES[number]]], shared)


def _clock_helper(clock: Clock) -> NativeHelper:
    """Return what tells the time of a clock, which may be moved on meanwhile. Raises JitUnavailable."""
    image = text().clock_image()
    addresses = {"clock_words": clock.address, "clock_gettime": address_of("clock_gettime")}
    buffer = CodeBuffer(relocate(image, addresses))
    if os.environ.get("EBPFJIT_PERF"):
        import_alone("ebpfjit.jit.perf").tell_routines({"clock": 0}, image.code, buffer.address)
    return LeafHelper(buffer.address + image.entry, (buffer, clock))
