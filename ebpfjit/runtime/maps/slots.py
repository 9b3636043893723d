"""Arrays and hashes of numbers that stand for something outside: devices, CPUs, sockets, cgroups.

An index holds something or nothing. Programs look values up, or redirect to them, but never write
them; the user stores the numbers (of an interface, a queue, a socket) as bytes or int.
"""

from __future__ import annotations

import errno
from collections.abc import Iterator
from typing import Any

from ebpfjit.record import dataclass
from ebpfjit.runtime.environment import Environment
from ebpfjit.runtime.maps.definition import BPF_ANY, BPF_EXIST, BPF_NOEXIST, MapDefinition, MapType
from ebpfjit.runtime.maps.flat import ArrayMap
from ebpfjit.runtime.maps.hash import HashMap

MAX_CPUMAP_QUEUE = 16384


@dataclass(frozen=True, slots=True)
class SlotRules:
    """How the kernel treats the indices of one type; error numbers negative, 0 for none.

    `max_flags` is the largest flag of an update. `noexist_on_empty` is what BPF_NOEXIST gives on an
    empty index, `exist_on_empty` what BPF_EXIST does. `zero_empties`: the value zero, in its first
    four bytes, deletes.
    """

    max_flags: int
    noexist_on_empty: int
    exist_on_empty: int
    delete_outside: int
    delete_empty: int
    zero_empties: bool = False


RULES = {
    #                               flags      NOEXIST        EXIST          outside        empty
    MapType.DEVMAP:       SlotRules(BPF_EXIST, -errno.EEXIST, 0,             -errno.EINVAL, 0, True),
    MapType.CPUMAP:       SlotRules(BPF_EXIST, -errno.EEXIST, 0,             -errno.EINVAL, 0, True),
    MapType.XSKMAP:       SlotRules(BPF_EXIST, 0,             -errno.ENOENT, -errno.EINVAL, 0),
    MapType.SOCKMAP:      SlotRules(BPF_EXIST, 0,             -errno.ENOENT, -errno.EINVAL, -errno.EINVAL),
    MapType.REUSEPORT_SOCKARRAY: SlotRules(BPF_EXIST, 0, -errno.ENOENT, -errno.E2BIG, -errno.ENOENT),
    MapType.CGROUP_ARRAY: SlotRules(BPF_ANY,   0,             0,             -errno.E2BIG,  -errno.ENOENT),
}  # fmt: skip


class SlotArray(ArrayMap):
    """devmap, cpumap, xskmap, sockmap, reuseport_sockarray, cgroup_array."""

    reasons = {  # noqa: RUF012 - a table, never changed
        errno.E2BIG: "the index is outside of an array of {entries} entries",
        errno.EINVAL: "the index is outside or empty, or the flags are not for this type of map",
        errno.EOVERFLOW: f"the queue of a cpumap has at most {MAX_CPUMAP_QUEUE} packets",
    }

    def __init__(self, definition: MapDefinition, environment: Environment) -> None:
        super().__init__(definition, environment, definition.max_entries)
        self._states = self.storage.offsets[1]
        self._rules = RULES[MapType(definition.type)]

    @property
    def is_readonly(self) -> bool:
        """True: what is stored is the user's."""
        return True

    def _is_there(self, index: int) -> bool:
        return bool(self.storage.memory[self._states + index])

    def find(self, key: bytes) -> int:
        """Return the index that `key` is, -1 where it is outside or empty."""
        index = super().find(key)
        return index if index >= 0 and self._is_there(index) else -1

    def claim(self, key: bytes, flags: int) -> int:
        """Return the index that `key` is, or -errno."""
        rules = self._rules
        if flags > rules.max_flags:
            return -errno.EINVAL
        index = super().find(key)
        if index < 0:
            return -errno.E2BIG
        if flags == BPF_NOEXIST:
            refusal = -errno.EEXIST if self._is_there(index) else rules.noexist_on_empty
        else:
            refusal = rules.exist_on_empty if flags == BPF_EXIST and not self._is_there(index) else 0
        return refusal or index

    def _put(self, key: bytes, value: Any, flags: int) -> int:
        data = self.encode_value(value)
        return self.update(key, data, flags)

    def update(self, key: bytes, value: bytes, flags: int = 0) -> int:
        """Store a value; return 0 or a negative error number."""
        index = self.claim(key, flags)
        if index < 0:
            return index
        number = int.from_bytes(value[:4], "little")
        if self.definition.type == MapType.CPUMAP and number > MAX_CPUMAP_QUEUE:
            return -errno.EOVERFLOW
        self.storage.write(self.offset_of(index, 0), value)
        self.storage.memory[self._states + index] = not (self._rules.zero_empties and number == 0)
        return 0

    def delete(self, key: bytes) -> int:
        """Empty an index; return 0 or a negative error number."""
        index = ArrayMap.find(self, key)
        if index < 0:
            return self._rules.delete_outside
        if not self._is_there(index):
            return self._rules.delete_empty
        self.storage.write(self.offset_of(index, 0), bytes(self.stride))
        self.storage.memory[self._states + index] = 0
        return 0

    def _keys(self) -> Iterator[bytes]:
        return (
            index.to_bytes(4, "little")
            for index in range(self.definition.max_entries)
            if self._is_there(index)
        )

    def __len__(self) -> int:
        return sum(1 for _ in self._keys())

    def clear(self) -> None:
        """Empty every index."""
        for key in list(self._keys()):
            self.delete(key)


class SlotHash(HashMap):
    """devmap_hash, sockhash."""

    @property
    def is_readonly(self) -> bool:
        """True: what is stored is the user's."""
        return True

    def claim(self, key: bytes, flags: int) -> int:
        """Return the entry that an update writes, or -errno; a devmap_hash takes BPF_EXIST as BPF_ANY."""
        ignores_exist = self.definition.type == MapType.DEVMAP_HASH and flags == BPF_EXIST
        return super().claim(key, BPF_ANY if ignores_exist else flags)

    def _put(self, key: bytes, value: Any, flags: int) -> int:
        return self.update(key, self.encode_value(value), flags)

    def update(self, key: bytes, value: bytes, flags: int = 0) -> int:
        """Store a value; return 0 or a negative error number. A device's number is not zero."""
        if self.definition.type == MapType.DEVMAP_HASH and not int.from_bytes(value[:4], "little"):
            return -errno.EINVAL
        return super().update(key, value, flags)


class SocketArray(SlotArray):
    """sockmap: lookups give a socket, which is the program's until it gives it back."""

    value_is_stable = False


class SocketHash(SlotHash):
    """sockhash: as sockmap."""

    value_is_stable = False
