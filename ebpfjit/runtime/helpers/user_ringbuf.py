"""The helper of user ring buffers: a function of the program is called with each sample as a dynptr."""

from __future__ import annotations

import errno
from typing import cast

from ebpfjit.runtime import memory
from ebpfjit.runtime.helpers.dynptr import MAX_SIZE, SIZE, Dynptr
from ebpfjit.runtime.helpers.loops import granted
from ebpfjit.runtime.helpers.maps import map_of
from ebpfjit.runtime.helpers.table import engine_of, helper
from ebpfjit.runtime.maps.events import WAKEUP_FLAGS, RecordState
from ebpfjit.runtime.maps.user_ring import UserRingBuffer
from ebpfjit.runtime.world import World

MOST_SAMPLES = 128 * 1024
"""Samples that one call takes at most (BPF_MAX_USER_RINGBUF_SAMPLES)."""


# What is called may do anything to memory; and each sample is the program's for one call alone.
@helper("bpf_user_ringbuf_drain", ends_rights=True, calls_functions=True)
def user_ringbuf_drain(world: World, map_address: int, function: int, context: int, flags: int) -> int:
    """Call function(dynptr, context) for each sample; return how many, or a negative error number.

    It ends where the function returns something else than 0. -EBUSY where somebody drains the map already.
    """
    ring = cast(UserRingBuffer, map_of(world, map_address, "bpf_user_ringbuf_drain"))
    if flags & ~WAKEUP_FLAGS:
        return -errno.EINVAL
    with ring.draining() as is_ours:
        return _drain(world, ring, function, context) if is_ours else -errno.EBUSY


def _drain(world: World, ring: UserRingBuffer, function: int, context: int) -> int:
    call = engine_of(world).call_function
    count = result = 0
    with granted(SIZE, "dynptr") as (dynptr, place):
        for _ in range(MOST_SAMPLES):
            sample = ring.peek()
            if result or sample is None:
                break
            size = sample.data.nbytes
            if size > MAX_SIZE:
                return -errno.E2BIG
            if sample.state is RecordState.DISCARDED:
                memory.spend(1)
            else:
                region = ring.region_of(sample)
                dynptr[:] = Dynptr(region.start, size).packed()
                memory.grant_region(region)
                try:
                    result = call(function, (place, context))
                finally:
                    memory.revoke(region)
                count += 1
            ring.release(sample)
    return count
