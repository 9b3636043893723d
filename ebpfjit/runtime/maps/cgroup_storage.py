"""The older storage of cgroups: a value for each cgroup and attach type, which a program finds without a key.

    key of 16 bytes    struct bpf_cgroup_storage_key: the cgroup's number, the attach type, 4 bytes of padding
    key of 8 bytes     the cgroup's number: programs of all attach types have one value

Linux makes a value where a program is attached to a cgroup; here it is made, of zeros, when a program first
asks for it, or Python stores one.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from ebpfjit.errors import ExecutionError
from ebpfjit.runtime.environment import Environment
from ebpfjit.runtime.maps.definition import BPF_ANY, MapDefinition, MapFlag, MapType
from ebpfjit.runtime.maps.hash import HashMap
from ebpfjit.runtime.maps.local_storage import capacity_of
from ebpfjit.runtime.maps.mapping import KeyedMap
from ebpfjit.runtime.maps.special import SpecialField

KEY = struct.Struct("<QI4x")
"""struct bpf_cgroup_storage_key."""


class CgroupStorage(KeyedMap):
    """cgroup_storage, percpu_cgroup_storage: a hash table that gives programs the value of their cgroup."""

    value_is_stable = True

    def __init__(self, definition: MapDefinition, environment: Environment) -> None:
        self.definition = definition
        is_percpu = definition.type == MapType.PERCPU_CGROUP_STORAGE
        kind = MapType.PERCPU_HASH if is_percpu else MapType.HASH
        flags = definition.flags & ~int(MapFlag.NUMA_NODE)
        hidden = replace(definition, type=kind, flags=flags, max_entries=capacity_of(definition))
        self._table = HashMap(hidden, environment)
        self._storage = self._table.storage
        self.address = self._table.address
        self.regions = self._table.regions

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

    def use_cpu(self, cpu: int) -> None:
        """Make `cpu` the processor whose values programs see."""
        self._table.use_cpu(cpu)

    def special_at(self, address: int) -> SpecialField | None:
        """Return the special field that starts at an address inside of the values."""
        return self._table.special_at(address)

    def entries(self) -> Iterator[tuple[bytes, int]]:
        """Yield nothing: programs cannot go through it."""
        return iter(())

    def lookup(self, key: bytes) -> int:
        """Return the address of the value under a key, 0 where there is none."""
        return self._table.lookup(key)

    def update(self, key: bytes, value: bytes, flags: int = 0) -> int:
        """Put a value in, that of the running processor; return 0 or a negative error number."""
        return self._table.update(key, value, flags)

    def delete(self, key: bytes) -> int:
        """Remove a key; return 0 or -ENOENT."""
        return self._table.delete(key)

    def _keys(self) -> Iterator[bytes]:
        return self._table._keys()

    def __iter__(self) -> Iterator[Any]:
        return iter(self._table)

    def __len__(self) -> int:
        return len(self._table)

    def _get(self, key: bytes) -> Any:
        return self._table._get(key)

    def _put(self, key: bytes, value: Any, flags: int) -> int:
        return self._table._put(key, value, flags)

    def __repr__(self) -> str:
        return f"<{self.definition}: {len(self)} values of {self.definition.value_size} bytes>"
