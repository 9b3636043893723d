"""The older storage of cgroups: a value for each cgroup and attach type, which a program finds without a key.

    key of 16 bytes    struct bpf_cgroup_storage_key: the cgroup's number, the attach type, 4 bytes of padding
    key of 8 bytes     the cgroup's number: programs of all attach types have one value

Linux makes a value where a program is attached to a cgroup; here it is made, of zeros, when a program first
asks for it, or Python stores one.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Any

from ebpfjit.errors import ExecutionError
from ebpfjit.record import replace
from ebpfjit.runtime.environment import Environment
from ebpfjit.runtime.maps.definition import BPF_ANY, MapDefinition, MapFlag, MapType
from ebpfjit.runtime.maps.tabled import TabledMap, capacity_of

KEY = struct.Struct("<QI4x")
"""struct bpf_cgroup_storage_key."""


class CgroupStorage(TabledMap):
    """cgroup_storage, percpu_cgroup_storage: a hash table that gives programs the value of their cgroup."""

    def __init__(self, definition: MapDefinition, environment: Environment) -> None:
        is_percpu = definition.type == MapType.PERCPU_CGROUP_STORAGE
        kind = MapType.PERCPU_HASH if is_percpu else MapType.HASH
        flags = definition.flags & ~int(MapFlag.NUMA_NODE)
        hidden = replace(definition, type=kind, flags=flags, max_entries=capacity_of(definition))
        super().__init__(definition, hidden, environment)

    def storage_of(self, cgroup: int, attach_type: int) -> int:
        """Return the address of the value that a program has in a cgroup, that of the running processor.

        Raises ExecutionError where there are too many values already.
        """
        key = KEY.pack(cgroup, attach_type)[: self.definition.key_size]
        address = self._table.lookup(key)
        if not address and self._table.update(key, bytes(self.definition.value_size), BPF_ANY) == 0:
            address = self._table.lookup(key)
        if not address:
            raise ExecutionError(
                f"{self.definition}: no room for a value of cgroup {cgroup} beside {len(self)} others"
            )
        return address

    def __iter__(self) -> Iterator[Any]:
        return iter(self._table)
