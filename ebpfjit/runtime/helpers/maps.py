"""Helpers of maps: lookup, update, delete, the ends of queues and stacks."""

from __future__ import annotations

import errno
from bisect import bisect_right
from collections.abc import Iterator, Mapping
from operator import itemgetter
from typing import Protocol, cast

from ebpfjit.bits import W32
from ebpfjit.errors import ExecutionError
from ebpfjit.record import dataclass
from ebpfjit.runtime import memory
from ebpfjit.runtime.contexts.types import program_type
from ebpfjit.runtime.helpers.sockets import hold_by_cookie
from ebpfjit.runtime.helpers.table import helper
from ebpfjit.runtime.maps.base import Map
from ebpfjit.runtime.maps.definition import MapType
from ebpfjit.runtime.memory import Region
from ebpfjit.runtime.world import World

_HASHES = frozenset({MapType.HASH, MapType.LRU_HASH, MapType.PERCPU_HASH, MapType.LRU_PERCPU_HASH})
_ARRAYS = frozenset({MapType.ARRAY, MapType.PERCPU_ARRAY})
_SOCKETS = frozenset({MapType.SOCKMAP, MapType.SOCKHASH})
_PLAIN = _HASHES | _ARRAYS | {MapType.LPM_TRIE}
_TARGETS = frozenset({MapType.DEVMAP, MapType.DEVMAP_HASH, MapType.CPUMAP, MapType.XSKMAP})
_ENDS = frozenset({MapType.QUEUE, MapType.STACK})
_PERF = frozenset({MapType.PERF_EVENT_ARRAY})
_OF_MAPS = frozenset({MapType.ARRAY_OF_MAPS, MapType.HASH_OF_MAPS})
_RING = frozenset({MapType.RINGBUF})
_TIMED = frozenset({MapType.HASH, MapType.LRU_HASH, MapType.ARRAY})

# What Linux's verifier lets each helper have (kernel/bpf/verifier.c, check_map_func_compatibility).
TAKES: dict[str, frozenset[MapType]] = {
    "bpf_map_lookup_elem": _PLAIN | _TARGETS - {MapType.CPUMAP} | _SOCKETS | _OF_MAPS,
    "bpf_map_update_elem": _PLAIN,
    "bpf_map_delete_elem": _PLAIN | _SOCKETS,
    "bpf_map_lookup_percpu_elem": frozenset(
        {MapType.PERCPU_ARRAY, MapType.PERCPU_HASH, MapType.LRU_PERCPU_HASH}
    ),
    "bpf_map_push_elem": _ENDS | {MapType.BLOOM_FILTER},
    "bpf_map_pop_elem": _ENDS,
    "bpf_map_peek_elem": _ENDS | {MapType.BLOOM_FILTER},
    "bpf_for_each_map_elem": _HASHES | _ARRAYS,
    "bpf_tail_call": frozenset({MapType.PROG_ARRAY}),
    "bpf_redirect_map": _TARGETS,
    "bpf_sock_map_update": frozenset({MapType.SOCKMAP}),
    "bpf_sk_redirect_map": frozenset({MapType.SOCKMAP}),
    "bpf_msg_redirect_map": frozenset({MapType.SOCKMAP}),
    "bpf_sock_hash_update": frozenset({MapType.SOCKHASH}),
    "bpf_sk_redirect_hash": frozenset({MapType.SOCKHASH}),
    "bpf_msg_redirect_hash": frozenset({MapType.SOCKHASH}),
    "bpf_sk_select_reuseport": _SOCKETS | {MapType.REUSEPORT_SOCKARRAY},
    "bpf_perf_event_output": _PERF,
    "bpf_perf_event_read": _PERF,
    "bpf_perf_event_read_value": _PERF,
    "bpf_skb_under_cgroup": frozenset({MapType.CGROUP_ARRAY}),
    "bpf_current_task_under_cgroup": frozenset({MapType.CGROUP_ARRAY}),
    "bpf_get_stackid": frozenset({MapType.STACK_TRACE}),
    "bpf_ringbuf_output": _RING,
    "bpf_ringbuf_reserve": _RING,
    "bpf_ringbuf_query": _RING,
    "bpf_ringbuf_reserve_dynptr": _RING,
    "bpf_timer_init": _TIMED,
    "bpf_wq_init": _TIMED,
    "bpf_user_ringbuf_drain": frozenset({MapType.USER_RINGBUF}),
    "bpf_sk_storage_get": frozenset({MapType.SK_STORAGE}),
    "bpf_sk_storage_delete": frozenset({MapType.SK_STORAGE}),
    "bpf_task_storage_get": frozenset({MapType.TASK_STORAGE}),
    "bpf_task_storage_delete": frozenset({MapType.TASK_STORAGE}),
    "bpf_inode_storage_get": frozenset({MapType.INODE_STORAGE}),
    "bpf_inode_storage_delete": frozenset({MapType.INODE_STORAGE}),
    "bpf_cgrp_storage_get": frozenset({MapType.CGRP_STORAGE}),
    "bpf_cgrp_storage_delete": frozenset({MapType.CGRP_STORAGE}),
    "bpf_get_local_storage": frozenset({MapType.CGROUP_STORAGE, MapType.PERCPU_CGROUP_STORAGE}),
}  # fmt: skip
"""The map types that each helper takes."""

SOCKETS_OUT = frozenset({
    "socket_filter", "tc", "sched_act", "xdp", "xdp.frags", "sk_reuseport", "flow_dissector", "sk_lookup",
    "sock_ops",
})  # fmt: skip
"""The types of programs that may take a socket out of a map (may_update_sockmap)."""

INNER_FOR_ONE, OUTER_IS_WORTH = 64, 16
"""Maps inside of maps that are searched for the price of one instruction; the next map to look in is 16."""


class Ends(Protocol):
    """What queues, stacks and Bloom filters are asked; the latter only the first and the last."""

    def push_value(self, value: bytes, flags: int = 0) -> int:
        """Put a value in; return 0 or a negative error number."""

    def pop_value(self) -> bytes | None:
        """Take the next value out; None where there is none."""

    def peek_value(self) -> bytes | None:
        """Return the next value; None where there is none."""

    def has_value(self, value: bytes) -> bool:
        """True where the value was put in, and perhaps where it was not."""


_REACHED, _KNOWN, _PLACES = "maps inside", "regions at first", "places of maps"
"""In `World.shown`: maps inside of others that the run has come to, and the regions that it knew before."""


@dataclass(slots=True)
class _Places:
    """Where the values of all maps are that a run may touch: start, stop, map, in order."""

    maps: Mapping[int, Map]
    reached: int
    places: list[tuple[int, int, Map]]
    starts: list[int]


def map_of(world: World, address: int, name: str) -> Map:
    """Return the map at `address`, which must be one that helper `name` takes.

    Raises ExecutionError where it is none of the program's, or of a type that Linux refuses there.
    """
    found = any_map(world, address, name)
    if found.definition.type not in TAKES[name]:
        raise ExecutionError(
            f"{name} does not take {found.definition}; it takes "
            + ", ".join(sorted(kind.name.lower() for kind in TAKES[name]))
        )
    return found


def any_map(world: World, address: int, name: str) -> Map:
    """Return the map at `address`, of whichever type, for helper `name`.

    Raises ExecutionError where it is none of the program's.
    """
    found = world.maps.get(address) or _inner_map(world, address)
    if found is None:
        known = ", ".join(sorted({m.name for m in world.maps.values()})) or "none"
        raise ExecutionError(
            f"{name}: {address:#x} is no map of the program (its maps: {known}); "
            f"the address of a map comes from lddw with a map's relocation"
        )
    return found


def reachable(world: World) -> Iterator[Map]:
    """Yield the maps whose values the run may touch: the program's, and those inside that it looked up."""
    yield from world.maps.values()
    yield from world.shown.get(_REACHED, {}).values()


def map_at(world: World, address: int) -> Map | None:
    """Return the map in whose values an address is, among those that `reachable` yields; None elsewhere.

    It is found as fast whether there are few maps or many.
    """
    reached = world.shown.get(_REACHED, {})
    known: _Places | None = world.shown.get(_PLACES)
    if known is None or known.maps is not world.maps or known.reached != len(reached):
        found = [(region.start, region.stop, map_) for map_ in reachable(world) for region in map_.regions]
        found.sort(key=itemgetter(0))
        known = world.shown[_PLACES] = _Places(world.maps, len(reached), found, [each[0] for each in found])
    index = bisect_right(known.starts, address) - 1
    if index < 0:
        return None
    _, stop, map_ = known.places[index]
    return map_ if address < stop else None


def _inner_map(world: World, address: int) -> Map | None:
    """Return the map at `address` where it is inside of one of the program's maps."""
    searched = 0
    for outer in world.maps.values():
        inner = outer.inner_maps
        searched += OUTER_IS_WORTH + len(inner)
        if searched >= INNER_FOR_ONE:
            memory.spend(searched // INNER_FOR_ONE)
            searched %= INNER_FOR_ONE
        for found in inner:
            if address in (found.address, address_of(world, found)):
                _reach(world, found)
                return found
    return None


def _reach(world: World, found: Map) -> None:
    """Let the run touch the values of a map inside of another, which may have come there since it started."""
    space = memory.running()
    if space is None:
        return
    reached: dict[int, Map] = world.shown.setdefault(_REACHED, {})
    if found.address in reached:
        return
    reached[found.address] = found  # it may be taken out again meanwhile
    known: dict[int, Region] = world.shown.setdefault(_KNOWN, {id(region): region for region in space.own})
    structs = () if world.map_structs is None else (world.map_structs.region_of(found),)
    for region in (*found.regions, *structs):
        if id(region) not in known:
            known[id(region)] = region
            space.grant(region)


def address_of(world: World, found: Map) -> int:
    """Return what the program that runs has as the address of a map."""
    return found.address if world.map_structs is None else world.map_structs.address_of(found)


def _looked_up(world: World, outer: Map, address: int) -> int:
    """Return the address of a map inside of another as the program has it, which may read its struct now."""
    for found in outer.inner_maps if world.map_structs is not None and address else ():
        if found.address == address:
            _reach(world, found)
            return address_of(world, found)
    return address


def _changed(world: World, found: Map, result: int) -> int:
    """Let the program see how many entries a map has now; return what the operation did."""
    if world.map_structs is not None:
        world.map_structs.refresh(found)
    return result


def _writable(found: Map, name: str) -> Map:
    if found.is_readonly:
        raise ExecutionError(f"{name}: {found.definition} is read-only to programs")
    return found


def _check_takes_sockets(world: World, found: Map) -> None:
    """Raise ExecutionError where Linux lets no program of this type take a socket out of a map."""
    type_ = None if world.engine is None else world.engine.place()[0].type
    if type_ is not None and program_type(type_).name not in SOCKETS_OUT:
        raise ExecutionError(
            f"bpf_map_delete_elem: {type_} programs take no socket out of {found.definition}; "
            f"programs of type {', '.join(sorted(SOCKETS_OUT))} do"
        )


@helper("bpf_map_lookup_elem")
def map_lookup_elem(world: World, map_address: int, key: int) -> int:
    """Return the address of the value under the key, of a map of sockets that of the socket; else 0.

    Such a socket is the program's until bpf_sk_release.
    """
    found = map_of(world, map_address, "bpf_map_lookup_elem")
    address = found.lookup(memory.read(key, found.definition.key_size))
    if found.definition.type in _OF_MAPS:
        return _looked_up(world, found, address)
    if not address or found.definition.type not in _SOCKETS:
        return address
    cookie = int.from_bytes(memory.read(address, found.definition.value_size), "little")
    return hold_by_cookie(world, cookie, "bpf_map_lookup_elem")


@helper("bpf_map_update_elem")
def map_update_elem(world: World, map_address: int, key: int, value: int, flags: int) -> int:
    """Put a value in; 0 or a negative error number."""
    name = "bpf_map_update_elem"
    found = _writable(map_of(world, map_address, name), name)
    definition = found.definition
    key_bytes = memory.read(key, definition.key_size)
    result = found.update(key_bytes, memory.read(value, definition.value_size), flags)
    return _changed(world, found, result)


@helper("bpf_map_delete_elem")
def map_delete_elem(world: World, map_address: int, key: int) -> int:
    """Remove a key; 0 or a negative error number."""
    name = "bpf_map_delete_elem"
    found = map_of(world, map_address, name)
    if found.definition.type in _SOCKETS:
        _check_takes_sockets(world, found)
    else:
        _writable(found, name)
    return _changed(world, found, found.delete(memory.read(key, found.definition.key_size)))


@helper("bpf_map_lookup_percpu_elem")
def map_lookup_percpu_elem(world: World, map_address: int, key: int, cpu: int) -> int:
    """Return the address of the value that a processor has under the key, 0 where there is none."""
    found = map_of(world, map_address, "bpf_map_lookup_percpu_elem")
    key_bytes = memory.read(key, found.definition.key_size)
    cpu = W32.wrap(cpu)
    return found.lookup_percpu(key_bytes, cpu) if cpu < world.environment.cpus else 0


@helper("bpf_map_push_elem")
def map_push_elem(world: World, map_address: int, value: int, flags: int) -> int:
    """Put a value into a queue, stack or Bloom filter; 0 or a negative error number."""
    found = map_of(world, map_address, "bpf_map_push_elem")
    data = memory.read(value, found.definition.value_size)
    return cast(Ends, found).push_value(data, flags)


@helper("bpf_map_pop_elem")
def map_pop_elem(world: World, map_address: int, value: int) -> int:
    """Take the next value out of a queue or stack; where there is none, -ENOENT and zeros."""
    found = map_of(world, map_address, "bpf_map_pop_elem")
    memory.check(value, found.definition.value_size, "store")
    return _give(found, value, cast(Ends, found).pop_value())


@helper("bpf_map_peek_elem")
def map_peek_elem(world: World, map_address: int, value: int) -> int:
    """Copy the next value of a queue or stack; ask a Bloom filter for a value: 0 or -ENOENT."""
    found = map_of(world, map_address, "bpf_map_peek_elem")
    size = found.definition.value_size
    if found.definition.type == MapType.BLOOM_FILTER:
        known = cast(Ends, found).has_value(memory.read(value, size))
        return 0 if known else -errno.ENOENT
    memory.check(value, size, "store")
    return _give(found, value, cast(Ends, found).peek_value())


def _give(found: Map, address: int, data: bytes | None) -> int:
    if data is None:
        memory.clear(address, found.definition.value_size)
        return -errno.ENOENT
    memory.write(address, data)
    return 0
