"""Map definitions: BTF's in `.maps`, and the records of older objects in `maps`.

.maps  a variable for each map, whose type says everything:     int (*max_entries)[16]
                                                                 -> pointer to an array of 16
maps   a record of 32-bit words for each map, the first ones always the same:
       type | key_size | value_size | max_entries | flags | id | pinning | inner_id | inner_idx
       16 to 20 bytes: libbpf's and the kernel's samples; 24 to 36: iproute2's bpf_elf_map
       28, in an object with maps of maps: samples' (... flags | inner_map_idx | numa_node)

A definition that is wrong is kept with its map (`DefinedMap.refusal`): the others are as good as before.
"""

from __future__ import annotations

import struct
from bisect import bisect_left
from functools import cached_property
from itertools import pairwise

from ebpfjit.elf.btf import Btf, Kind, Member, Type
from ebpfjit.elf.budget import STEP, OverBudget
from ebpfjit.elf.codec import codec_of
from ebpfjit.elf.reader import ObjectFile, Relocation, Section, Symbol, name_of_place
from ebpfjit.elf.special import special_fields
from ebpfjit.errors import LoadError
from ebpfjit.record import dataclass, replace
from ebpfjit.runtime.maps.definition import Codec, MapDefinition, MapType, MapTypes
from ebpfjit.runtime.maps.special import SpecialField

MAPS_OF_MAPS = (MapType.ARRAY_OF_MAPS, MapType.HASH_OF_MAPS)
MIN_RECORD = 16
LEGACY_WORDS = (
    "type", "key_size", "value_size", "max_entries", "flags", "id", "pinning", "inner_id", "inner_idx",
)  # fmt: skip
SAMPLES_WORDS = ("type", "key_size", "value_size", "max_entries", "flags", "inner_map_idx", "numa_node")
MAX_KNOWN_RECORD = 4 * len(LEGACY_WORDS)
#                  member of a definition -> field of MapDefinition; "" is read and not used
FIELD_OF_MEMBER = {
    "type": "type",
    "key_size": "key_size",
    "value_size": "value_size",
    "max_entries": "max_entries",
    "map_flags": "flags",
    "pinning": "pinning",
    "numa_node": "",
    "map_extra": "extra",
    "id": "id",
}
NO_INDEX = 0xFFFF_FFFF
"""iproute2's inner_idx of a map that is not put into another one."""
VALUE_COST = 200
"""Bytes of one value that a definition puts into its map."""
MAP_COST = 64 << 10
"""Bytes that a map costs beside its entries: Python's, pages, one of the mappings that a process has."""


@dataclass(frozen=True, slots=True)
class DefinedMap:
    """A map, the section and the offset in bytes where it is defined, and iproute2's id (0: none).

    `refusal` says what is wrong with the definition; then it has little more than a name.
    """

    definition: MapDefinition
    section: Section
    offset: int
    id: int = 0
    refusal: LoadError | None = None


def find_maps(file: ObjectFile, btf: Btf | None) -> list[DefinedMap]:
    """Return the maps that an object defines, in file order.

    Raises LoadError naming the section where a record has no name. What is wrong with a single definition is
    its `refusal`.
    """
    symbols: dict[int, list[Symbol]] = {}
    for symbol in file.symbols:
        if symbol.section is not None and symbol.name and symbol.type in ("STT_OBJECT", "STT_NOTYPE"):
            symbols.setdefault(symbol.section.index, []).append(symbol)
    found: list[DefinedMap] = []
    records = _Records(file, btf)
    for section in file.sections:
        here = sorted(symbols.get(section.index, []), key=lambda symbol: symbol.value)
        if section.name == ".maps" and section.size:
            found += _BtfMaps(file, section, btf).find(here)
        elif is_legacy(section):
            records.read(section, here)
    found += records.maps()
    return sorted(found, key=lambda map_: (map_.section.index, map_.offset))


def is_legacy(section: Section) -> bool:
    """True for a section of records: `maps`, and gobpf's `maps/NAME`."""
    return bool(section.name.split("/")[0] == "maps" and section.size and section.is_data)


def map_type(number: int) -> int:
    """Return the MapType of that number, or the number itself where there is none."""
    return MapType(number) if number in set(MapType) else number


def _error(file: ObjectFile, section: Section, message: str) -> LoadError:
    return LoadError(f"{file.name}: section {section.name!r}: {message}")


# Records


@dataclass(frozen=True, slots=True)
class _Record:
    """A record: the symbol that names it, and its words, as many as there are."""

    symbol: Symbol
    section: Section
    raw: tuple[int, ...]
    size: int
    error: LoadError | None = None


class _Records:
    """The records of an object, which count on through its sections: gobpf has one for each map."""

    def __init__(self, file: ObjectFile, btf: Btf | None) -> None:
        self.file = file
        self.btf = btf
        self.records: list[_Record] = []

    def read(self, section: Section, symbols: list[Symbol]) -> None:
        """Add the records of a section: each lies between one symbol and the next."""
        if not symbols:
            raise _error(self.file, section, "no symbols: they name the maps and say how long a record is")
        self.file.budget.spend(MAP_COST * len(symbols), "map definitions")
        ends = dict(pairwise([*sorted({symbol.value for symbol in symbols}), section.size]))
        stride = min(ends[symbol.value] - symbol.value for symbol in symbols)
        for symbol in symbols:
            size = symbol.size or stride
            if size < MIN_RECORD or symbol.value + size > len(section.data):
                message = f"the record has {size} bytes, at least {MIN_RECORD} are needed"
                error = _error(self.file, section, f"map {symbol.name!r}: {message}")
                self.records.append(_Record(symbol, section, (), size, error))
                continue
            words = min(size, MAX_KNOWN_RECORD) // 4 if size <= MAX_KNOWN_RECORD else 5
            raw = struct.unpack_from(f"<{words}I", section.data, symbol.value)
            self.records.append(_Record(symbol, section, raw, size))

    def maps(self) -> list[DefinedMap]:
        """Return the maps of all records, in file order."""
        has_maps_of_maps = any(record.raw and record.raw[0] in MAPS_OF_MAPS for record in self.records)
        words = [
            dict(
                zip(
                    SAMPLES_WORDS if record.size == 28 and has_maps_of_maps else LEGACY_WORDS,
                    record.raw,
                    strict=False,
                )
            )
            for record in self.records
        ]
        definitions = [
            _legacy_definition(record.symbol, each, record.section, self.btf)
            if record.error is None
            else MapDefinition(record.symbol.name, 0, 0, 0, 0, section=record.section.name)
            for record, each in zip(self.records, words, strict=True)
        ]
        found: list[DefinedMap] = []
        for number, record in enumerate(self.records):
            refusal = record.error
            try:
                definitions[number] = self._with_inner(number, words, definitions)
            except OverBudget:
                raise
            except LoadError as error:
                refusal = refusal or error
            id_ = words[number].get("id", 0)
            found.append(DefinedMap(definitions[number], record.section, record.symbol.value, id_, refusal))
        return found

    def _with_inner(
        self, number: int, words: list[dict[str, int]], definitions: list[MapDefinition]
    ) -> MapDefinition:
        """Return a definition with its template and contents, where it is a map of maps.

        The samples give the template's number among all records. iproute2 gives its id; each map of that
        id says in inner_idx where in the outer map it is to stand.
        """
        definition, own = definitions[number], words[number]
        if definition.type not in MAPS_OF_MAPS:
            return definition
        what = f"map {definition.name!r}"
        section = self.records[number].section
        if "inner_map_idx" in own:
            index = own["inner_map_idx"]
            if index >= len(definitions) or index == number:
                raise _error(self.file, section, f"{what}: its inner map is number {index}")
            return replace(definition, inner=definitions[index])
        inner_id = own.get("inner_id", 0)
        self.file.budget.spend(STEP * len(words), "maps that are inside of others")
        inner = [
            (other, definitions[index])
            for index, other in enumerate(words)
            if inner_id and other.get("id") == inner_id and index != number
        ]
        if not inner:
            raise _error(self.file, section, f"{what}: no map has the id {inner_id} of its inner map")
        values = tuple(
            (other["inner_idx"], map_.name)
            for other, map_ in inner
            if other.get("inner_idx", NO_INDEX) != NO_INDEX
        )
        return replace(definition, inner=inner[0][1], values=values)


def _legacy_definition(
    symbol: Symbol, words: dict[str, int], section: Section, btf: Btf | None
) -> MapDefinition:
    key: Codec | None = None
    value: Codec | None = None
    special: tuple[SpecialField, ...] = ()
    try:
        key, value, special = _annotated_types(symbol.name, btf)
    except OverBudget:
        raise
    except LoadError:  # the record says all that a map needs
        pass
    type_ = map_type(words["type"])
    value_size = words["value_size"] or (4 if type_ in MAPS_OF_MAPS else 0)
    return as_loaders_do(
        MapDefinition(
            symbol.name, type_, words["key_size"], value_size, words["max_entries"],
            words.get("flags", 0), words.get("pinning", 0), section=section.name,
            key_type=key if key and key.size == words["key_size"] else None,
            value_type=value if value and value.size == words["value_size"] else None,
            special=special if value and value.size == words["value_size"] else (),
        )
    )  # fmt: skip


def _annotated_types(
    name: str, btf: Btf | None
) -> tuple[Codec | None, Codec | None, tuple[SpecialField, ...]]:
    """Return key, value, the value's special fields of BPF_ANNOTATE_KV_PAIR: struct ____btf_map_NAME."""
    ids = btf.named(f"____btf_map_{name}", {Kind.STRUCT}) if btf else []
    if btf is None or not ids:
        return None, None, ()
    members = {member.name: member.type for member in btf.type(ids[0]).members}
    types = {name: codec_of(btf, id) for name, id in members.items()}
    special = special_fields(btf, members["value"]) if "value" in members else ()
    return types.get("key"), types.get("value"), special


# What loaders make of definitions that Linux would refuse

RING_BUFFERS = (MapType.RINGBUF, MapType.USER_RINGBUF)
WITHOUT_VALUES = (*RING_BUFFERS, MapType.ARENA)
PAGE_SIZE = 4096
U32_MAX = (1 << 32) - 1


def as_loaders_do(definition: MapDefinition) -> MapDefinition:
    """Return a definition with the sizes that loaders give it.

    cilium/ebpf: the value of a ring buffer, or of an arena, is for who reads it and not the map's; a perf
    event array without sizes has those of a file descriptor. libbpf: a ring buffer has a power of two of
    pages, the next larger one (adjust_ringbuf_sz).
    """
    if definition.type in WITHOUT_VALUES and definition.value_type is not None:
        definition = replace(definition, value_size=0)
    if definition.type in RING_BUFFERS:
        return replace(definition, max_entries=_whole_pages(definition.max_entries))
    if definition.type == MapType.PERF_EVENT_ARRAY:
        key_size, value_size = definition.key_size or 4, definition.value_size or 4
        return replace(definition, key_size=key_size, value_size=value_size)
    return definition


def _whole_pages(size: int) -> int:
    """Return the size in bytes of a ring buffer that was to have `size`; one that cannot be as it is."""
    if size <= 0 or (size % PAGE_SIZE == 0 and size & (size - 1) == 0):
        return size
    pages = 1 << (size // PAGE_SIZE).bit_length()
    return pages * PAGE_SIZE if pages * PAGE_SIZE <= U32_MAX else size


# BTF


class _BtfMaps:
    """Reads the maps of a `.maps` section."""

    def __init__(self, file: ObjectFile, section: Section, btf: Btf | None) -> None:
        self.file = file
        self.section = section
        self._btf = btf
        self.relocations = {r.offset: r for r in file.relocations.get(section.index, ())}
        self._offsets = sorted(self.relocations)

    @property
    def btf(self) -> Btf:
        """The object's types; LoadError where there are none."""
        if self._btf is None:
            message = "its maps are defined by BTF, and there is none: compile with -g"
            if self.file.section(".BTF") is not None:
                message = (
                    "its maps are defined by BTF, which cannot be read (Object.refusals['.BTF'] says why)"
                )
            raise _error(self.file, self.section, message)
        return self._btf

    def find(self, symbols: list[Symbol]) -> list[DefinedMap]:
        found: list[DefinedMap] = []
        for symbol in symbols:
            if symbol.type != "STT_OBJECT":
                continue
            self.file.budget.spend(MAP_COST, "map definitions")
            self._id = 0
            try:
                definition = self._defined(symbol)
                found.append(DefinedMap(definition, self.section, symbol.value, self._id))
            except OverBudget:
                raise
            except LoadError as error:
                stub = MapDefinition(symbol.name, 0, 0, 0, 0, section=self.section.name)
                found.append(DefinedMap(stub, self.section, symbol.value, refusal=error))
        return found

    @cached_property
    def _variables(self) -> dict[str, Type]:
        """The variables of .maps, by name."""
        sections = [self.btf.type(id) for id in self.btf.named(".maps", {Kind.DATASEC})]
        self.file.budget.spend(STEP * sum(len(each.variables) for each in sections), "sections of maps")
        return {
            variable.name: variable
            for section in sections
            for variable in (self.btf.type(entry.type) for entry in section.variables)
        }

    def _defined(self, symbol: Symbol) -> MapDefinition:
        variable = self._variables.get(symbol.name)
        if variable is None or variable.kind is not Kind.VAR:
            raise self._error(symbol.name, "BTF has no variable of that name in .maps")
        return self._definition(symbol.name, self.btf.resolve(variable.target), symbol)

    def _error(self, name: str, message: str) -> LoadError:
        return _error(self.file, self.section, f"map {name!r}: {message}")

    def _definition(self, name: str, type_: Type, symbol: Symbol | None) -> MapDefinition:
        """Return the map that a struct describes; `symbol` is its place, None for a template."""
        if type_.kind is not Kind.STRUCT:
            raise self._error(name, f"its type is {self.btf.describe(type_.id)}, not a struct")
        numbers: dict[str, int] = {}
        types: dict[str, Codec] = {}
        ids: dict[str, int] = {}
        special: tuple[SpecialField, ...] = ()
        inner: MapDefinition | None = None
        values: tuple[tuple[int, str], ...] = ()
        self.file.budget.spend(STEP * len(type_.members), "the members of map definitions")
        for member in type_.members:
            if member.name in FIELD_OF_MEMBER:
                numbers[FIELD_OF_MEMBER[member.name]] = self._number(name, member)
            elif member.name in ("key", "value"):
                types[member.name] = self._pointed(name, member)
                ids[member.name] = self.btf.resolve(member.type).target
                if member.name == "value":
                    special = special_fields(self.btf, self.btf.resolve(member.type).target)
            elif member.name == "values" and symbol is not None:
                inner = self._inner(name, member)
                start = symbol.value + member.bit_offset // 8
                values = self._values(start, symbol.value + symbol.size)
            else:
                raise self._error(name, f"{member.name!r} is no part of a map's definition")
        if "type" not in numbers:
            raise self._error(name, "its type is missing")
        for what, codec in types.items():
            size = numbers.setdefault(f"{what}_size", codec.size)
            if size != codec.size:
                raise self._error(name, f"{what}_size is {size}, but its {what} has {codec.size} bytes")
        numbers.pop("", None)
        if symbol is not None:
            self._id = numbers.get("id", 0)
        numbers.pop("id", None)
        if any(member.name == "values" for member in type_.members):
            numbers["value_size"] = 4  # libbpf: what user space puts in is a file descriptor
        return as_loaders_do(
            MapDefinition(
                name, map_type(numbers.pop("type")), numbers.pop("key_size", 0), numbers.pop("value_size", 0),
                numbers.pop("max_entries", 0),
                numbers.pop("flags", 0), numbers.pop("pinning", 0),
                key_type=types.get("key"), value_type=types.get("value"),
                inner=inner, values=values, section=self.section.name, extra=numbers.pop("extra", 0),
                types=MapTypes(b"", ids.get("key", 0), ids.get("value", 0)) if ids else None,
                special=special,
            )
        )  # fmt: skip

    def _number(self, name: str, member: Member) -> int:
        """Return N of `int (*member)[N]`, or of `enum { anything = N } member` (__ulong)."""
        type_ = self.btf.resolve(member.type)
        if type_.is_enum and type_.enumerators:
            return type_.enumerators[0][1]
        pointed = self.btf.resolve(type_.target) if type_.kind is Kind.PTR else type_
        if pointed.kind is not Kind.ARRAY:
            raise self._error(
                name,
                f"{member.name} is {self.btf.describe(member.type)},"
                " not a pointer to an array, whose size would be the number",
            )
        return pointed.count

    def _pointed(self, name: str, member: Member) -> Codec:
        type_ = self.btf.resolve(member.type)
        if type_.kind is not Kind.PTR:
            raise self._error(name, f"{member.name} is {self.btf.describe(member.type)}, not a pointer")
        return codec_of(self.btf, type_.target)

    def _inner(self, name: str, member: Member) -> MapDefinition | None:
        """Return the template that `values` points to; None where it points to programs."""
        array = self.btf.resolve(member.type)
        pointer = self.btf.resolve(array.target)
        if array.kind is not Kind.ARRAY or array.count or pointer.kind is not Kind.PTR:
            raise self._error(name, f"values is {self.btf.describe(member.type)}, not an array of pointers")
        type_ = self.btf.resolve(pointer.target)
        if type_.kind is Kind.FUNC_PROTO:
            return None
        return self._definition(f"{name}.inner", type_, None)

    def _values(self, start: int, end: int) -> tuple[tuple[int, str], ...]:
        """Return what relocations put there: (index, name of a program or map)."""
        offsets = self._offsets[bisect_left(self._offsets, start) : bisect_left(self._offsets, end)]
        self.file.budget.spend(VALUE_COST * len(offsets), "the values of maps")
        return tuple(((offset - start) // 8, self._name_at(self.relocations[offset])) for offset in offsets)

    def _name_at(self, relocation: Relocation) -> str:
        """Return the name of what a relocation of data points to, which may be a section's start.

        Of static functions that have one name it is that of their place (`name_of_place`).
        """
        symbol = relocation.symbol
        if symbol.type != "STT_SECTION":
            section, name = symbol.section, symbol.name
            ours = section is not None and name in self._ambiguous
            return name_of_place(section, symbol.value, name) if section is not None and ours else name
        place = int.from_bytes(self.section.data[relocation.offset : relocation.offset + 8], "little")
        found = self._named.get((symbol.section.index, place)) if symbol.section is not None else None
        if found is None or symbol.section is None:
            raise _error(self.file, self.section, f"nothing has a name at {place:#x} of {symbol}")
        return name_of_place(symbol.section, place, found) if found in self._ambiguous else found

    @cached_property
    def _ambiguous(self) -> frozenset[str]:
        """The names that several functions have."""
        places: dict[str, set[tuple[int, int]]] = {}
        for symbol in self.file.symbols:
            if symbol.is_function and symbol.section is not None:
                places.setdefault(symbol.name, set()).add((symbol.section.index, symbol.value))
        return frozenset(name for name, several in places.items() if len(several) > 1)

    @cached_property
    def _named(self) -> dict[tuple[int, int], str]:
        """The name of what is at an offset of a section, by the section's index and the offset."""
        found: dict[tuple[int, int], str] = {}
        for symbol in self.file.symbols:
            if symbol.section is not None and symbol.type in ("STT_OBJECT", "STT_FUNC"):
                found.setdefault((symbol.section.index, symbol.value), symbol.name)
        return found
