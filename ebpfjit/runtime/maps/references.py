"""Maps whose values are programs or other maps."""

from __future__ import annotations

import errno
import struct
from collections.abc import Iterator
from typing import Any

from ebpfjit.errors import MapRefused
from ebpfjit.program import Program
from ebpfjit.runtime.environment import Environment
from ebpfjit.runtime.maps import rules
from ebpfjit.runtime.maps.base import Map
from ebpfjit.runtime.maps.definition import BPF_ANY, MapDefinition, MapFlag, MapType
from ebpfjit.runtime.maps.flat import ArrayMap, FlatMap
from ebpfjit.runtime.maps.hash import HashMap

POINTER_SIZE = 8
_POINTER = struct.Struct("<Q")

_ARRAY_REASONS = {
    errno.E2BIG: "the index is outside of an array of {entries} entries",
    errno.EINVAL: "the only flag of an update is BPF_ANY, and a map inside has the template's type and sizes",
}


class ProgArray(ArrayMap):
    """prog_array: what tail calls jump to. An index holds a Program, or None where it is empty.

    `m[index] = program`, `m[index] = None` or `del m[index]` to empty it. Iteration, `len` and `in`
    count what is filled. Programs cannot look it up.
    """

    reasons = _ARRAY_REASONS

    def __init__(self, definition: MapDefinition, environment: Environment) -> None:
        super().__init__(definition, environment, shares_values=False)
        self._programs: dict[int, Program] = {}

    def program_at(self, index: int) -> Program | None:
        """Return the program at an index, None where it is empty or outside."""
        return self._programs.get(index)

    def lookup(self, key: bytes) -> int:
        """Return 0: the kernel's verifier refuses programs that look a prog_array up."""
        return 0

    def update(self, key: bytes, value: bytes, flags: int = 0) -> int:
        """Refuse: programs cannot write it."""
        return -errno.EINVAL

    def delete(self, key: bytes) -> int:
        """Empty an index; return 0, -E2BIG outside, -ENOENT where it is empty."""
        index = self.find(key)
        if index < 0:
            return -errno.E2BIG
        return 0 if self._programs.pop(index, None) is not None else -errno.ENOENT

    def _get(self, key: bytes) -> Program | None:
        index = self.find(key)
        if index < 0:
            raise KeyError
        return self._programs.get(index)

    def _put(self, key: bytes, value: Any, flags: int) -> int:
        if value is not None and not isinstance(value, Program):
            raise TypeError(f"{self.definition}: a value is a Program or None, not {type(value).__name__}")
        if flags != BPF_ANY:
            return -errno.EINVAL
        index = self.find(key)
        if index < 0:
            return -errno.E2BIG
        if value is None:
            self._programs.pop(index, None)
        else:
            self._programs[index] = value
        return 0

    def entries(self) -> Iterator[tuple[bytes, int]]:
        """Yield nothing: there are no values that a program could see."""
        return iter(())

    def _keys(self) -> Iterator[bytes]:
        return (index.to_bytes(4, "little") for index in sorted(self._programs))

    def __contains__(self, key: Any) -> bool:
        return self.find(self.encode_key(key)) in self._programs

    def __len__(self) -> int:
        return len(self._programs)

    def clear(self) -> None:
        """Empty every index."""
        self._programs.clear()


def _checked_inner(definition: MapDefinition) -> MapDefinition:
    """Return the template of a map of maps; raises MapRefused where there is none that the kernel takes."""
    inner = definition.inner
    if inner is None:
        raise MapRefused(f"{definition}: there is no template of the maps inside (EBADF)", errno.EBADF)
    if inner.type in (MapType.ARRAY_OF_MAPS, MapType.HASH_OF_MAPS):
        raise MapRefused(f"{definition}: a map inside holds maps itself (EINVAL)", errno.EINVAL)
    if inner.type == MapType.PROG_ARRAY:
        raise MapRefused(f"{definition}: a prog_array cannot be inside (ENOTSUPP)", rules.ENOTSUPP)
    rules.check(inner)
    return inner


def _fits(template: MapDefinition, given: MapDefinition) -> bool:
    """True where a map may stand for the template (bpf_map_meta_equal, array_map_meta_equal)."""
    same = (given.type, given.key_size, given.value_size, given.flags) == (
        template.type, template.key_size, template.value_size, template.flags,
    )  # fmt: skip
    any_size = template.type != MapType.ARRAY or template.flags & MapFlag.INNER_MAP
    return same and (bool(any_size) or given.max_entries == template.max_entries)


class _OfMaps(FlatMap):
    """What the two kinds whose values are maps share: which one each entry holds."""

    value_is_stable = False

    def __init__(self, definition: MapDefinition, environment: Environment) -> None:
        self._template = _checked_inner(definition)
        super().__init__(definition, environment, stride=POINTER_SIZE, shares_values=False)
        self._inner: dict[int, Map] = {}

    @property
    def inner_maps(self) -> tuple[Map, ...]:
        """The maps inside."""
        return tuple(self._inner.values())

    def lookup(self, key: bytes) -> int:
        """Return the address of the map under `key`, 0 where there is none."""
        inner = self._inner.get(self.find(key))
        return inner.address if inner is not None else 0

    def update(self, key: bytes, value: bytes, flags: int = 0) -> int:
        """Refuse: programs cannot write it."""
        return -errno.EINVAL

    def entries(self) -> Iterator[tuple[bytes, int]]:
        """Yield nothing: bpf_for_each_map_elem does not take maps of maps."""
        return iter(())


class ArrayOfMaps(_OfMaps, ArrayMap):
    """array_of_maps: an index holds a map, or None; a program's lookup gives the map's address."""

    reasons = _ARRAY_REASONS

    def delete(self, key: bytes) -> int:
        """Empty an index; return 0, -E2BIG outside, -ENOENT where it is empty."""
        index = self.find(key)
        if index < 0:
            return -errno.E2BIG
        self._set(index, None)
        return 0 if self._inner.pop(index, None) is not None else -errno.ENOENT

    def _set(self, index: int, inner: Map | None) -> None:
        self.storage.write(self.offset_of(index, 0), _POINTER.pack(inner.address if inner is not None else 0))

    def _get(self, key: bytes) -> Map | None:
        index = self.find(key)
        if index < 0:
            raise KeyError
        return self._inner.get(index)

    def _put(self, key: bytes, value: Any, flags: int) -> int:
        _check_is_map(self.definition, value)
        if flags != BPF_ANY:
            return -errno.EINVAL
        index = self.find(key)
        if index < 0:
            return -errno.E2BIG
        if value is None:
            self._inner.pop(index, None)
        elif _fits(self._template, value.definition):
            self._inner[index] = value
        else:
            return -errno.EINVAL
        self._set(index, value)
        return 0

    def _keys(self) -> Iterator[bytes]:
        return (index.to_bytes(4, "little") for index in sorted(self._inner))

    def __contains__(self, key: Any) -> bool:
        return self.find(self.encode_key(key)) in self._inner

    def __len__(self) -> int:
        return len(self._inner)

    def clear(self) -> None:
        """Empty every index."""
        for index in list(self._inner):
            self.delete(index.to_bytes(4, "little"))


def _check_is_map(definition: MapDefinition, value: Any) -> None:
    if value is not None and not isinstance(value, Map):
        raise TypeError(f"{definition}: a value is a Map or None, not {type(value).__name__}")


class HashOfMaps(_OfMaps, HashMap):
    """hash_of_maps: a key's value is a map; a program's lookup gives the map's address."""

    reasons = {  # noqa: RUF012 - a table, never changed
        errno.EINVAL: "the flags are none of an update's, or the map is not of the template's type and sizes",
    }

    def free(self, entry: int) -> None:
        """Take an entry out, and let go of its map."""
        super().free(entry)
        del self._inner[entry]

    def _get(self, key: bytes) -> Map:
        return self._inner[self.find(key)]

    def _put(self, key: bytes, value: Any, flags: int) -> int:
        if value is None:
            return self.delete(key)
        _check_is_map(self.definition, value)
        if not _fits(self._template, value.definition):
            return -errno.EINVAL
        entry = self.claim(key, flags)
        if entry < 0:
            return entry
        self._inner[entry] = value
        self.storage.write(self.offset_of(entry, 0), _POINTER.pack(value.address))
        return 0
