"""Helpers that call functions of the program: bpf_loop, bpf_for_each_map_elem."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager

from ebpfjit.bits import W32
from ebpfjit.runtime import memory
from ebpfjit.runtime.helpers.maps import map_of
from ebpfjit.runtime.helpers.table import engine_of, helper
from ebpfjit.runtime.world import World

MAX_LOOPS = 8 * 1024 * 1024
"""Rounds that bpf_loop does at most (BPF_MAX_LOOPS)."""


# What is called may do anything to memory, so nothing that accesses have shown holds afterwards.
@helper("bpf_loop", ends_rights=True, calls_functions=True)
def loop(world: World, rounds: int, function: int, context: int, flags: int) -> int:
    """Call function(index, context) until it returns something else than 0; return how often."""
    rounds = W32.wrap(rounds)
    if flags:
        return -errno.EINVAL
    if rounds > MAX_LOOPS:
        return -errno.E2BIG
    call = engine_of(world).call_function
    for index in range(rounds):
        if call(function, (index, context)):
            return index + 1
    return rounds


@contextmanager
def granted(size: int, name: str) -> Iterator[tuple[bytearray, int]]:
    """Give the program `size` bytes to read for a while; yield them and their address."""
    buffer = bytearray(size)
    region = memory.grant(memoryview(buffer).toreadonly(), name)
    try:
        yield buffer, region.start
    finally:
        memory.revoke(region)


@helper("bpf_for_each_map_elem", ends_rights=True, calls_functions=True)
def for_each_map_elem(world: World, map_address: int, function: int, context: int, flags: int) -> int:
    """Call function(map, key, value, context) for each entry; return how often.

    It ends where the function returns something else than 0.
    """
    found = map_of(world, map_address, "bpf_for_each_map_elem")
    if flags:
        return -errno.EINVAL
    call = engine_of(world).call_function
    visited = 0
    with granted(found.definition.key_size, "map key") as (buffer, key_address):
        for key, value in found.entries():
            buffer[:] = key
            visited += 1
            if call(function, (map_address, key_address, value, context)):
                break
    return visited
