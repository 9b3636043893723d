"""What a run left, as predicates read it: the result, maps and variables with values of their types.

maps["flows"][key]     a value of its BTF type, None where there is none; without types a number, or bytes
globals["drops"]       a variable
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from ebpfjit.elf.btf import Btf, Kind
from ebpfjit.elf.codec import codec_of
from ebpfjit.errors import EbpfError
from ebpfjit.named import absent
from ebpfjit.program import Program
from ebpfjit.runtime.maps.definition import Codec

NUMBERS = frozenset({1, 2, 4, 8})
"""Sizes of values that are numbers where nothing says what they are."""


class MapView:
    """A map with keys, read only."""

    def __init__(self, map_: Any) -> None:
        self._map = map_

    def __getitem__(self, key: Any) -> Any:
        definition = self._map.definition
        found = self._map.get(key)
        if isinstance(found, list):
            return [_value(each, definition.value_type) for each in found]
        return _value(found, definition.value_type)

    def __contains__(self, key: Any) -> bool:
        return key in self._map

    def __len__(self) -> int:
        return len(self._map)

    def __iter__(self) -> Iterator[Any]:
        key_type = self._map.definition.key_type
        return (_value(key, key_type) for key in self._map)

    def values(self) -> list[Any]:
        """Return all values, in the order of the keys."""
        return [self[key] for key in self._map]


class _Maps(dict[str, MapView]):
    """Maps by name. Raises LookupError, which has the names, for one that is not there."""

    def __missing__(self, name: str) -> MapView:
        raise LookupError(absent(name, "map", self))


class Variables(Mapping[str, Any]):
    """The global variables that a program's maps hold, by name."""

    def __init__(self, program: Program) -> None:
        self._places = _places(program)

    def __getitem__(self, name: str) -> Any:
        if name not in self._places:
            raise LookupError(absent(name, "variable", self._places))
        map_, offset, codec = self._places[name]
        data: bytes = map_[0]
        return codec.decode(data[offset : offset + codec.size])

    def __iter__(self) -> Iterator[str]:
        return iter(self._places)

    def __len__(self) -> int:
        return len(self._places)


def state_of(program: Program, maps: Iterable[Any] | None = None) -> dict[str, Any]:
    """Return what predicates may read of a program's memory: its `maps` and `globals`, as they are."""
    views = {map_.definition.name: MapView(map_) for map_ in maps or program.maps if hasattr(map_, "get")}
    return {"maps": _Maps(views), "globals": Variables(program)}


def _value(data: Any, codec: Codec | None) -> Any:
    """Return a key or a value as its type has it; what is no bytes stays as it is."""
    if not isinstance(data, bytes):
        return data
    if codec is not None:
        return codec.decode(data)
    return int.from_bytes(data, "little") if len(data) in NUMBERS else data


def _places(program: Program) -> dict[str, tuple[Any, int, Codec]]:
    """Return where variables are: a map, an offset in its value, and how they read."""
    sections = {map_.definition.section: map_ for map_ in program.maps if map_.definition.variables}
    if not sections or program.types is None:
        return {}
    try:
        types = Btf(program.types.btf, f"program {program.name!r}: BTF")
        return {
            name: (map_, offset, codec_of(types, types.type(id).target))
            for map_ in sections.values()
            for offset, name in map_.definition.variables
            for id in types.named(name, {Kind.VAR})[:1]
        }
    except EbpfError:
        return {}
