"""The maps of `operations`: one of each type that programs on packets use, and what they hold at first."""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from typing import Any

from ebpfjit.program import SLOT_SIZE, Program
from ebpfjit.runtime.maps.creation import create
from ebpfjit.runtime.maps.definition import MapDefinition, MapFlag, MapType

SEVERAL, MANY = 4, 256
"""Entries of maps that are to be full, and of those that are not."""

_INNER = MapDefinition("inner", MapType.HASH, 4, 8, SEVERAL)

DEFINITIONS = (
    MapDefinition("array", MapType.ARRAY, 4, 8, SEVERAL),
    MapDefinition("percpu_array", MapType.PERCPU_ARRAY, 4, 8, SEVERAL),
    MapDefinition("hash", MapType.HASH, 4, 8, SEVERAL),
    MapDefinition("late_hash", MapType.HASH, 4, 8, SEVERAL, MapFlag.NO_PREALLOC),
    MapDefinition("percpu_hash", MapType.PERCPU_HASH, 4, 8, SEVERAL),
    MapDefinition("lru_hash", MapType.LRU_HASH, 4, 8, MANY),
    MapDefinition("lru_percpu_hash", MapType.LRU_PERCPU_HASH, 4, 8, MANY),
    MapDefinition("lpm_trie", MapType.LPM_TRIE, 8, 8, SEVERAL, MapFlag.NO_PREALLOC),
    MapDefinition("devmap", MapType.DEVMAP, 4, 4, SEVERAL),
    MapDefinition("devmap_hash", MapType.DEVMAP_HASH, 4, 4, SEVERAL),
    MapDefinition("queue", MapType.QUEUE, 0, 8, SEVERAL),
    MapDefinition("stack", MapType.STACK, 0, 8, SEVERAL),
    MapDefinition("bloom_filter", MapType.BLOOM_FILTER, 0, 8, 4096),
    MapDefinition("ring", MapType.RINGBUF, 0, 0, 4096),
    MapDefinition("array_of_maps", MapType.ARRAY_OF_MAPS, 4, 4, 3, inner=_INNER),
    MapDefinition("hash_of_maps", MapType.HASH_OF_MAPS, 4, 4, 3, inner=_INNER),
    MapDefinition("cpumap", MapType.CPUMAP, 4, 4, 1),
    MapDefinition("xskmap", MapType.XSKMAP, 4, 4, SEVERAL),
    MapDefinition("sockmap", MapType.SOCKMAP, 4, 8, SEVERAL),
    MapDefinition("sockhash", MapType.SOCKHASH, 4, 8, SEVERAL),
    MapDefinition("perf", MapType.PERF_EVENT_ARRAY, 4, 4, SEVERAL),
    MapDefinition("programs", MapType.PROG_ARRAY, 4, 4, SEVERAL),
    MapDefinition("cgroups", MapType.CGROUP_ARRAY, 4, 4, SEVERAL),
)
INDEX: Mapping[MapType, int] = {
    MapType(definition.type): index for index, definition in enumerate(DEFINITIONS)
}
"""Where the map of a type is, the last one where there are two."""

REFERRING = frozenset({"LDDW_MAP_IDX", "LDDW_MAP_IDX_VALUE"})
"""Operations whose imm counts maps."""

LOOPBACK = 1
"""The interface that is always there."""

_START: Mapping[MapType, Mapping[int, int | MapDefinition]] = {
    MapType.DEVMAP: {0: LOOPBACK, 2: LOOPBACK},
    MapType.DEVMAP_HASH: {1: LOOPBACK, 6: LOOPBACK},
    MapType.CPUMAP: {0: 16},
    MapType.ARRAY_OF_MAPS: {0: _INNER, 2: _INNER},
    MapType.HASH_OF_MAPS: {0: _INNER, 2: _INNER},
}


def fill(map_: Any) -> None:
    """Put in what a map holds at first, where only user space stores."""
    for key, value in _START.get(map_.definition.type, {}).items():
        map_[key] = create(value) if isinstance(value, MapDefinition) else value


def referred(
    code: bytes, definitions: Sequence[MapDefinition] = DEFINITIONS
) -> tuple[bytes, tuple[MapDefinition, ...]]:
    """Return bytecode that counts only the maps that it refers to, and these maps.

    What is no index of `definitions` stays none.
    """
    loads = [
        insn
        for insn in Program.from_bytes(code).instructions
        if insn.row is not None and insn.row.operation in REFERRING and 0 <= insn.imm < len(definitions)
    ]
    used = sorted({insn.imm for insn in loads})
    counted = bytearray(code)
    for insn in loads:
        struct.pack_into("<i", counted, insn.pc * SLOT_SIZE + 4, used.index(insn.imm))
    return bytes(counted), tuple(definitions[index] for index in used)
