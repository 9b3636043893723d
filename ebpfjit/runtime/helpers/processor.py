"""Helpers that ask the machine: which processor, random numbers."""

from __future__ import annotations

from ebpfjit.bits import W32
from ebpfjit.errors import ExecutionError
from ebpfjit.runtime.helpers.table import helper
from ebpfjit.runtime.owned import Object, state_of
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
    known = world.environment
    if cpu < known.cpus and (one := _own(world, address, "bpf_per_cpu_ptr")) is not None:
        return one.on_processor(cpu)
    return on_processor(known.symbols, address, cpu) if cpu < known.cpus else 0


@helper("bpf_this_cpu_ptr", differs="a variable that Environment.symbols has no list for is the same on all")
def this_cpu_ptr(world: World, address: int) -> int:
    """Return the address of a variable on this processor."""
    one = _own(world, address, "bpf_this_cpu_ptr")
    if one is not None:
        return one.on_processor(world.environment.cpu)
    return on_processor(world.environment.symbols, address, world.environment.cpu)


def _own(world: World, address: int, name: str) -> Object | None:
    """Return the program's object at an address that has a struct for each processor; else None.

    Raises ExecutionError where it is in no kptr, as Linux's verifier refuses that.
    """
    state = state_of(world)
    one = state.objects.get(address)
    if one is None or not one.stride:
        return None
    if state.counts.get(address):
        raise ExecutionError(
            f"{name} of {address:#x}, which is {one} that the program owns: put it into a kptr and load that"
        )
    return one
