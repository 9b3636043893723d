"""The maps of programs for verdicts: one of each kind that verifiers know apart, by name.

Text names them, `r1 = map[hash]`; a program has only those that it names, in the order of its text.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache
from typing import Any

from ebpfjit.difftest.verdicts.types import LOCKED_VALUE, TIMED_VALUE, TYPES
from ebpfjit.elf.btf import Btf
from ebpfjit.elf.special import special_fields
from ebpfjit.runtime.maps.creation import create
from ebpfjit.runtime.maps.definition import MapDefinition, MapFlag, MapType, MapTypes

_INNER = MapDefinition("inner", MapType.ARRAY, 4, 16, 2)


def _with_special(name: str, type_: MapType, key: int, size: int, id: int) -> MapDefinition:
    """Return a map whose value is a struct with a special field."""
    found = special_fields(Btf(TYPES), id)
    return MapDefinition(name, type_, 4, size, 4, types=MapTypes(TYPES, key, id), special=found)


DEFINITIONS: Mapping[str, MapDefinition] = {
    each.name: each
    for each in (
        MapDefinition("array", MapType.ARRAY, 4, 48, 4),
        MapDefinition("single", MapType.ARRAY, 4, 64, 1),
        MapDefinition("small", MapType.ARRAY, 4, 1, 2),
        MapDefinition("large", MapType.ARRAY, 4, 4096, 2),
        MapDefinition("hash", MapType.HASH, 8, 16, 8),
        MapDefinition("odd", MapType.HASH, 5, 13, 8),
        MapDefinition("percpu_array", MapType.PERCPU_ARRAY, 4, 24, 4),
        MapDefinition("percpu_hash", MapType.PERCPU_HASH, 4, 8, 8),
        MapDefinition("lru", MapType.LRU_HASH, 4, 32, 16),
        MapDefinition("trie", MapType.LPM_TRIE, 8, 8, 8, MapFlag.NO_PREALLOC),
        MapDefinition("ring", MapType.RINGBUF, 0, 0, 4096),
        MapDefinition("perf", MapType.PERF_EVENT_ARRAY, 4, 4, 4),
        MapDefinition("programs", MapType.PROG_ARRAY, 4, 4, 4),
        MapDefinition("queue", MapType.QUEUE, 0, 16, 4),
        MapDefinition("stack", MapType.STACK, 0, 8, 4),
        MapDefinition("bloom", MapType.BLOOM_FILTER, 0, 8, 64),
        MapDefinition("outer", MapType.ARRAY_OF_MAPS, 4, 4, 2, inner=_INNER),
        MapDefinition("outer_hash", MapType.HASH_OF_MAPS, 4, 4, 2, inner=_INNER),
        MapDefinition("constants", MapType.ARRAY, 4, 32, 1, is_readonly=True),
        MapDefinition("read_only", MapType.ARRAY, 4, 16, 2, MapFlag.RDONLY_PROG),
        MapDefinition("write_only", MapType.ARRAY, 4, 16, 2, MapFlag.WRONLY_PROG),
        MapDefinition("devices", MapType.DEVMAP, 4, 4, 4),
        MapDefinition("cpus", MapType.CPUMAP, 4, 4, 1),
        MapDefinition("xsks", MapType.XSKMAP, 4, 4, 4),
        MapDefinition("sockets", MapType.SOCKMAP, 4, 8, 4),
        _with_special("locked", MapType.ARRAY, 1, 16, LOCKED_VALUE),
        _with_special("locked_hash", MapType.HASH, 1, 16, LOCKED_VALUE),
        _with_special("timed", MapType.ARRAY, 1, 32, TIMED_VALUE),
    )
}
"""Maps by name. The lock of `locked` and `locked_hash` is at 0, the timer of `timed` at 0."""

CONSTANTS = bytes(range(3, 27)) + b"ab: %d\n\0"
"""What is in `constants`, which nobody changes: numbers, and a text from 24 on."""


def of(name: str, type_: str) -> tuple[str, str]:
    """Return what `made` takes for a program of a type."""
    return name, type_ if name == "programs" else ""


_NAMED = re.compile(r"\bmap\[([a-z_]+)\]")


@cache
def made(name: str, type_: str = "") -> Any:
    """Return the map of a name, one for this process: what verdicts read of it never changes.

    An array of programs belongs to those of one type.
    """
    map_: Any = create(DEFINITIONS[name])
    if name == "constants":
        map_[0] = CONSTANTS
    elif name in ("outer", "outer_hash"):
        map_[0] = create(_INNER)
    return map_


def counted(text: str) -> tuple[str, tuple[str, ...]]:
    """Return a text whose maps are counted, `map[idx:0]`, and the names of these in order.

    Raises KeyError for a name that is none.
    """
    names: list[str] = []

    def number(found: re.Match[str]) -> str:
        name = found[1]
        DEFINITIONS[name]  # an unknown one is the caller's mistake
        if name not in names:
            names.append(name)
        return f"map[idx:{names.index(name)}]"

    return _NAMED.sub(number, text), tuple(names)
