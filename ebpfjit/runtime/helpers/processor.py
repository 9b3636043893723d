"""Helpers that ask the machine: which processor, random numbers."""

from __future__ import annotations

from ebpfjit.bits import W32
from ebpfjit.runtime.helpers.maps import reachable
from ebpfjit.runtime.helpers.table import helper
from ebpfjit.runtime.owned import of_each
from ebpfjit.runtime.symbols import on_processor
from ebpfjit.runtime.world import World


@helper("bpf_get_prandom_u32", asks_user=True)
def get_prandom_u32(world: World) -> int:
    """Return a random u32."""
    return W32.wrap(world.environment.random())


@helper("bpf_get_smp_processor_id")
def get_smp_processor_id(world: World) -> int:
    """Return the number of the processor that the program runs on."""
    return world.environment.cpu


@helper("bpf_get_numa_node_id")
def get_numa_node_id(world: World) -> int:
    """Return 0: there is one node."""
    return 0


@helper("bpf_per_cpu_ptr", differs="a variable that Environment.symbols has no list for is the same on all")
def per_cpu_ptr(world: World, address: int, cpu: int) -> int:
    """Return the address of a variable on a processor, 0 where there is no such processor."""
    cpu = W32.wrap(cpu)
    return _on_processor(world, address, cpu) if cpu < world.environment.cpus else 0


@helper("bpf_this_cpu_ptr", differs="a variable that Environment.symbols has no list for is the same on all")
def this_cpu_ptr(world: World, address: int) -> int:
    """Return the address of a variable on this processor."""
    return _on_processor(world, address, world.environment.cpu)


def _on_processor(world: World, address: int, cpu: int) -> int:
    """Return where a processor has its part of an object of the program's, or a variable of the kernel's."""
    one = of_each(world, address, reachable(world))
    if one is not None:
        return address + cpu * one.stride if (cpu + 1) * one.stride <= one.region.size else 0
    return on_processor(world.environment.symbols, address, cpu)
