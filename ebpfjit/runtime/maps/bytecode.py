"""The eBPF form of what programs do to maps: which routine does what to which type.

The routines work on the flat memory of array and hash kinds, and of LPM tries: r1 points to the map's
header, r2 to the key, r3 to the value, r4 holds flags; r0 is what the helper returns. They trust their
arguments.
"""

from __future__ import annotations

from ebpfjit.once import once
from ebpfjit.program import Program
from ebpfjit.runtime.helpers.names import DELETE, LOOKUP, UPDATE
from ebpfjit.runtime.maps.definition import MapDefinition, MapType

HASHES = frozenset({MapType.HASH, MapType.LRU_HASH, MapType.PERCPU_HASH, MapType.LRU_PERCPU_HASH})
ARRAYS = frozenset({MapType.ARRAY, MapType.PERCPU_ARRAY})

ARGUMENTS = {
    "hash_lookup": 2,
    "hash_lookup_4": 2,
    "hash_lookup_8": 2,
    "hash_lookup_16": 2,
    "hash_update": 4,
    "hash_delete": 2,
    "array_update": 4,
    "lpm_lookup": 2,
    "lpm_lookup_8": 2,
    "lpm_lookup_20": 2,
}
"""The routines, and how many arguments each takes."""


def routine_of(definition: MapDefinition, helper: int) -> str:
    """Return the name of the routine that does what a helper does to such a map, "" where there is none."""
    if definition.type in ARRAYS:
        return "array_update" if helper == UPDATE else ""
    if definition.type is MapType.LPM_TRIE:
        return _by_size("lpm_lookup", definition) if helper == LOOKUP else ""
    if definition.type not in HASHES:
        return ""
    if helper == LOOKUP:
        return _by_size("hash_lookup", definition)
    return {UPDATE: "hash_update", DELETE: "hash_delete"}.get(helper, "")


def _by_size(name: str, definition: MapDefinition) -> str:
    """Return the routine for keys of one size, where there is such a one."""
    special = f"{name}_{definition.key_size}"
    return special if special in ARGUMENTS else name


@once
def routine(name: str) -> Program:
    """Return a routine as a program."""
    from importlib.resources import files  # it imports much, for few programs

    folder = files("ebpfjit.runtime.maps") / "routines"
    return Program.from_bytes((folder / f"{name}.bin").read_bytes(), name=name)
