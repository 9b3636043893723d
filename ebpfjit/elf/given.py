"""What the user of `load` says of an object's maps: sizes, maps that are there already, pinned ones.

maps={"flows": 128, "shared": other.maps["shared"]}      bpf_map__set_max_entries, bpf_map__reuse_fd
maps={"stacks": {"value_size": 1016}}                    bpf_map__set_value_size and the like
pins=mapping                                             LIBBPF_PIN_BY_NAME: taken from there, or put there
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, MutableMapping
from typing import Any

from ebpfjit.elf.maps import as_loaders_do
from ebpfjit.errors import MapRefused
from ebpfjit.record import dataclass, field, replace
from ebpfjit.runtime.maps.base import Map
from ebpfjit.runtime.maps.definition import MapDefinition, MapType

EINVAL = 22
U32_MAX = (1 << 32) - 1
SETTABLE = ("type", "key_size", "value_size", "max_entries", "flags", "extra")
"""What loaders set of a map before it is made (bpf_map__set_*), as `MapDefinition` calls it."""

PIN_REPLACE = 1 << 4
"""Cilium's: a new map takes the place of the one that was pinned."""


@dataclass(slots=True)
class GivenMaps:
    """`maps` and `pins` of `load`, asked for each definition; `file` is what messages call the object."""

    file: str
    maps: Mapping[str, Any] = field(default_factory=dict)
    pins: MutableMapping[str, Any] = field(default_factory=dict)
    pinned: list[Map] = field(default_factory=list)

    def __post_init__(self) -> None:
        for name, given in (("maps", self.maps), ("pins", self.pins)):
            if not isinstance(given, Mapping):
                raise TypeError(f"{name}= maps names of maps to maps, not a {type(given).__name__}")
        if not isinstance(self.pins, MutableMapping):
            raise TypeError(
                f"pins= is where new maps are put; a {type(self.pins).__name__} cannot be changed"
            )

    def find(self, definition: MapDefinition) -> tuple[MapDefinition, Map | None]:
        """Return a definition with the sizes that were given, and the map to use for it, None for a new one.

        Raises MapRefused for a map of another shape, and for a number of entries that no map can have.
        """
        name = definition.name
        given = self.maps.get(name)
        where = f"{self.file}: maps={{{name!r}: ...}}"
        if isinstance(given, Map):
            _check(definition, given, where, "give a map of that shape, or leave it out")
            return definition, given
        if given is not None:
            definition = self._changed(definition, given, where)
        if not definition.pinning:
            return definition, None
        found = self.pins.get(name) if not definition.pinning & PIN_REPLACE else None
        if found is not None:
            if not isinstance(found, Map):
                raise TypeError(f"pins[{name!r}] is a {type(found).__name__}, and no map")
            advice = f"unpin it (del pins[{name!r}]), or load the object that it was made for"
            _check(definition, found, f"{self.file}: pins[{name!r}]", advice)
        return definition, found

    def _changed(self, definition: MapDefinition, given: Any, where: str) -> MapDefinition:
        """Return a definition with the number of entries, or all that a mapping says, as the user has it."""
        changes = dict(given) if isinstance(given, Mapping) else {"max_entries": given}
        for what, number in changes.items():
            if what not in SETTABLE:
                message = (
                    f"{where}: {what!r} is not what a loader sets; it sets {', '.join(SETTABLE)} (EINVAL)"
                )
                raise MapRefused(message, EINVAL)
            if what == "type":
                changes[what] = map_type(number, where)
            elif isinstance(number, bool) or not isinstance(number, int):
                what = (
                    "a number of entries, a mapping of sizes or a map"
                    if given is number
                    else f"{what!r}: a number"
                )
                raise TypeError(f"{where} is {what}, not a {type(number).__name__}")
            elif what == "max_entries" and not 0 < number <= U32_MAX:
                raise MapRefused(f"{where}: {definition} cannot have {number} entries (EINVAL)", EINVAL)
        changed = replace(definition, **changes)
        if changes.keys() & {
            "type",
            "key_size",
            "value_size",
        }:  # then its BTF is of another map (libbpf: without)
            keys, values = (
                changed.key_size == definition.key_size,
                changed.value_size == definition.value_size,
            )
            changed = replace(
                changed,
                key_type=changed.key_type if keys else None,
                value_type=changed.value_type if values else None,
                types=None,
                special=changed.special if values else (),
            )
        return as_loaders_do(changed)

    def refuse_section(self, name: str) -> None:
        """Raise MapRefused where a section of variables was given a size: it has one entry."""
        if name in self.maps and not isinstance(self.maps[name], Map):
            message = f"{self.file}: maps={{{name!r}: ...}}: a section of variables has one entry; give a map"
            raise MapRefused(f"{message}, or leave it out (EINVAL)", EINVAL)

    def refuse_unknown(self, known: Iterable[str]) -> None:
        """Raise MapRefused where something was given for a map that the object does not have."""
        known = list(known)
        for name in self.maps:
            if name not in known:
                names = ", ".join(map(repr, known)) or "none"
                raise MapRefused(f"{self.file}: maps={{{name!r}: ...}}: no such map; there are: {names}")

    def pin(self, maps: Iterable[Map]) -> None:
        """Put the maps that are to be pinned, and are not yet, where the next object finds them."""
        for map_ in maps:
            pinning = map_.definition.pinning
            if pinning and map_.refused is None and (pinning & PIN_REPLACE or map_.name not in self.pins):
                self.pins[map_.name] = map_


def map_type(given: Any, where: str) -> int:
    """Return the number of a map type: of a MapType, or of a name such as "ringbuf".

    Raises TypeError listing the names, `where` in front.
    """
    names = {kind.name.lower(): kind for kind in MapType}
    if isinstance(given, str) and given in names:
        return names[given]
    if isinstance(given, bool) or not isinstance(given, int):
        raise TypeError(f"{where}: 'type' is a MapType or one of {', '.join(names)}, not {given!r}")
    return given


def _check(definition: MapDefinition, given: Map, where: str, advice: str) -> None:
    """Raise MapRefused where a map cannot stand for a definition (libbpf: bpf_map_is_reuse_compat)."""
    differences = list(_differences(definition, given.definition))
    if differences:
        text = ", ".join(differences)
        raise MapRefused(f"{where} does not fit {definition}: {text}; {advice} (EINVAL)", EINVAL)


def _differences(wanted: MapDefinition, given: MapDefinition) -> Iterator[str]:
    """Say in what a map differs; where the object leaves the number of entries open, any will do."""
    if wanted.type != given.type:
        yield f"it is of type {given.type_name}, not {wanted.type_name}"
    for what in ("key_size", "value_size", "max_entries", "flags", "extra"):
        is_open = what == "max_entries" and not wanted.max_entries
        ours, theirs = int(getattr(wanted, what)), int(getattr(given, what))
        if ours != theirs and not is_open:
            yield f"its {what} is {theirs}, not {ours}"
    if wanted.is_readonly != given.is_readonly:
        yield f"programs may {'only read' if given.is_readonly else 'write'} it"
    if (wanted.inner is None) != (given.inner is None):
        yield f"it holds {'no ' if given.inner is None else ''}maps"
    elif wanted.inner is not None and given.inner is not None:
        yield from (f"of the maps inside: {text}" for text in _differences(wanted.inner, given.inner))
