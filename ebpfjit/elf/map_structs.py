"""struct bpf_map as a program's types lay it out: the bytes that it reads through the address of a map.

struct bpf_map { enum bpf_map_type map_type; __u32 key_size; ... }         any map
struct bpf_htab { struct bpf_map map; __u32 n_buckets; __u32 elem_size; }  hash kinds, where the types have it
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

from ebpfjit.elf.btf import Btf, Kind, Type, essential_name
from ebpfjit.elf.codec import Converted, Field, Struct, codec_of
from ebpfjit.errors import LoadError
from ebpfjit.program import Program
from ebpfjit.runtime.maps.arena import Arena
from ebpfjit.runtime.maps.base import Map
from ebpfjit.runtime.maps.bytecode import ARRAYS, HASHES
from ebpfjit.runtime.maps.definition import MapDefinition, MapType
from ebpfjit.runtime.maps.rules import PERCPU
from ebpfjit.runtime.maps.structs import COUNT_SIZE, LaidOut, MapStructs, id_of

STRUCT, MAP = frozenset({Kind.STRUCT}), "bpf_map"
NUMA_NO_NODE = -1
LARGEST = 1 << 14
"""Bytes of the struct of a map: Linux's has less than a thousand."""
HEADER_SIZE = 48
"""Bytes of a struct htab_elem before its key."""

_ARRAY_STRUCT = ARRAYS | {
    MapType.PROG_ARRAY,
    MapType.PERF_EVENT_ARRAY,
    MapType.CGROUP_ARRAY,
    MapType.ARRAY_OF_MAPS,
}
_HASH_STRUCT = HASHES | {MapType.HASH_OF_MAPS}
_STORAGE, _RING, _QUEUE, _DEVICES = "bpf_local_storage_map", "bpf_ringbuf_map", "bpf_queue_stack", "bpf_dtab"
_STRUCTS: Mapping[int, str] = {
    MapType.ARENA: "bpf_arena",
    MapType.BLOOM_FILTER: "bpf_bloom_filter",
    MapType.CGROUP_STORAGE: "bpf_cgroup_storage_map",
    MapType.CGRP_STORAGE: _STORAGE,
    MapType.CPUMAP: "bpf_cpu_map",
    MapType.DEVMAP: _DEVICES,
    MapType.DEVMAP_HASH: _DEVICES,
    MapType.INODE_STORAGE: _STORAGE,
    MapType.LPM_TRIE: "lpm_trie",
    MapType.PERCPU_CGROUP_STORAGE: "bpf_cgroup_storage_map",
    MapType.QUEUE: _QUEUE,
    MapType.REUSEPORT_SOCKARRAY: "reuseport_array",
    MapType.RINGBUF: _RING,
    MapType.SK_STORAGE: _STORAGE,
    MapType.SOCKHASH: "bpf_shtab",
    MapType.SOCKMAP: "bpf_stab",
    MapType.STACK: _QUEUE,
    MapType.STACK_TRACE: "bpf_stack_map",
    MapType.STRUCT_OPS: "bpf_struct_ops_map",
    MapType.TASK_STORAGE: _STORAGE,
    MapType.USER_RINGBUF: _RING,
    MapType.XSKMAP: "xsk_map",
}
"""Structs of the other kinds. Of these, what struct bpf_map has is known, and where an arena lies."""


def map_structs(program: Program) -> MapStructs | None:
    """Return what a program sees of its maps; None where its types do not have struct bpf_map.

    They are those of the kernel that it is for: CO-RE has made it for that one's.
    """
    types: Btf | None = program.kernel_types
    try:
        if types is None or program.types is None or not _reads_it(Btf(program.types.btf)):
            return None
        names = {MAP, *(struct_of(each.type) for map_ in program.maps for each in _with_inner(map_))}
        layouts = {name: found for name in sorted(names) if (found := _layout(types, name))}
    except LoadError:
        return None  # damaged types say nothing
    return MapStructs(partial(_lay_out, layouts)) if MAP in layouts else None


def _with_inner(map_: Map) -> Iterator[MapDefinition]:
    definition: MapDefinition | None = map_.definition
    while definition is not None:
        yield definition
        definition = definition.inner


def _reads_it(own: Btf) -> bool:
    """True where a program's own types have the members of the struct: those that it reads."""
    return any(own.type(id).members for id in own.named(MAP, STRUCT, flavors=True))


def _layout(types: Btf, name: str) -> Struct | None:
    """Return how a struct reads, None where the types have none that a map's may be."""
    for id in types.named(name, STRUCT):
        type_ = types.type(id)
        if type_.members and type_.size <= LARGEST and (name == MAP or _starts_with_map(types, type_)):
            codec = codec_of(types, id, Converted)
            return codec if isinstance(codec, Struct) else None
    return None


def _starts_with_map(types: Btf, type_: Type) -> bool:
    first = type_.members[0]
    return first.bit_offset == 0 and essential_name(types.resolve(first.type).name) == MAP


def struct_of(kind: int) -> str:
    """Return the name of the struct that a map of a type is (Linux: map_btf_id)."""
    if kind in _ARRAY_STRUCT:
        return "bpf_array"
    return "bpf_htab" if kind in _HASH_STRUCT else _STRUCTS.get(kind, MAP)


def _lay_out(layouts: Mapping[str, Struct], map_: Map) -> LaidOut:
    """Return the bytes of a map's struct."""
    layout = layouts.get(struct_of(map_.definition.type), layouts[MAP])
    if layout is layouts[MAP]:
        return LaidOut(layout.encode(_those(layout, _common(map_))))
    first = next(iter(layout.fields))
    members = {first: _those(layouts[MAP], _common(map_)), **_of_kind(map_)}
    count = layout.fields.get("count")
    count_at = count.offset if isinstance(count, Field) else None
    if count_at is not None and count_at + COUNT_SIZE > layout.size:
        count_at = None
    return LaidOut(layout.encode(_those(layout, members)), count_at)


def _those(layout: Struct, members: Mapping[str, Any]) -> dict[str, Any]:
    """Return the members that a struct has; what damaged types make something else of stays zero."""
    return {name: value for name, value in members.items() if _takes(layout, name, value)}


def _takes(layout: Struct, name: str, value: Any) -> bool:
    if name not in layout.fields:
        return False
    try:
        layout.encode({name: value})
    except (TypeError, ValueError):
        return False
    return True


def _common(map_: Map) -> dict[str, Any]:
    definition = map_.definition
    return {
        "map_type": definition.type,
        "key_size": definition.key_size,
        "value_size": definition.value_size,
        "max_entries": definition.max_entries,
        "map_flags": definition.flags,
        "map_extra": definition.extra,
        "id": id_of(map_),
        "name": definition.name.encode("utf-8", "replace")[:15],
        "numa_node": NUMA_NO_NODE,
    }


def _of_kind(map_: Map) -> dict[str, Any]:
    """Return what the struct has besides struct bpf_map."""
    definition = map_.definition
    if isinstance(map_, Arena):
        return {"user_vm_start": map_.user_start, "user_vm_end": map_.user_start + map_.size}
    if definition.type in _STRUCTS:
        return {}
    values = -(-definition.value_size // 8) * 8
    if definition.type in _ARRAY_STRUCT:
        return {"elem_size": values, "index_mask": (1 << (definition.max_entries - 1).bit_length()) - 1}
    keys = -(-definition.key_size // 8) * 8
    return {
        "n_buckets": 1 << (definition.max_entries - 1).bit_length(),
        "elem_size": HEADER_SIZE + keys + (8 if definition.type in PERCPU else values),
    }
