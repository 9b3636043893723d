"""Helpers that tell the time, all from the environment's clock."""

from __future__ import annotations

from ebpfjit.runtime.helpers.table import helper
from ebpfjit.runtime.world import World

JIFFY_NS = 4_000_000
"""Nanoseconds in a jiffy where CONFIG_HZ is 250, as most distributions have it."""


@helper(
    *("bpf_ktime_get_ns", "bpf_ktime_get_boot_ns", "bpf_ktime_get_coarse_ns", "bpf_ktime_get_tai_ns"),
    asks_user=True,
)
def ktime_get_ns(world: World) -> int:
    """Return the clock in nanoseconds."""
    return world.environment.clock()


@helper("bpf_jiffies64", asks_user=True)
def jiffies64(world: World) -> int:
    """Return the clock in jiffies."""
    return world.environment.clock() // JIFFY_NS
