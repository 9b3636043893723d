"""Global variables: sections of data as maps of one entry, and their variables as Python values.

.rodata  [ limit: u32 | ports: u16[4] | ... ]      Array map ".rodata", one value of that size
           obj.globals["limit"] = 10               typed by BTF, else by the symbol's size
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping
from copy import copy
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, cast

from ebpfjit.elf.btf import Btf, Kind
from ebpfjit.elf.budget import STEP, OverBudget
from ebpfjit.elf.codec import Integer, Raw, codec_of, told
from ebpfjit.elf.maps import MAP_COST, is_legacy
from ebpfjit.elf.pointers import pointer_in
from ebpfjit.elf.reader import ObjectFile, Section, Symbol
from ebpfjit.elf.relocation import R_BPF_64_ABS64
from ebpfjit.elf.special import fields_of_variables
from ebpfjit.errors import LoadError
from ebpfjit.named import absent, cut, few
from ebpfjit.record import dataclass
from ebpfjit.runtime.maps.base import Map
from ebpfjit.runtime.maps.definition import Codec, MapDefinition, MapType
from ebpfjit.runtime.maps.special import SpecialField

if TYPE_CHECKING:
    from ebpfjit.runtime.maps.arena import Arena

NAMES = (".rodata", ".data", ".bss")
ARENA_SECTION = ".addr_space.1"
"""Variables of the object's arena (libbpf: ARENA_SEC), which come first in it."""
MAX_SECTION = 1 << 28
"""Bytes of a section of variables; .bss takes none in the file, so its size proves nothing."""
INTEGER_SIZES = (1, 2, 4, 8)
_SPECIAL = (b"bpf_spin_lock", b"bpf_list_head", b"bpf_rb_root", b"kptr")


def find_sections(file: ObjectFile) -> list[Section]:
    """Return the sections that hold variables, in file order.

    Those of the usual names, and any other section of data that instructions refer to.
    """
    referred = {
        relocation.symbol.section.index
        for index, relocations in file.relocations.items()
        if file.sections[index].is_program
        for relocation in relocations
        if relocation.symbol.section is not None
    }
    return [
        section
        for section in file.sections
        if section.is_data
        and section.size
        and section.name != ".maps"
        and not is_legacy(section)
        and (section.index in referred or _has_usual_name(section.name))
    ]


def _has_usual_name(name: str) -> bool:
    return any(name == usual or name.startswith(f"{usual}.") for usual in NAMES)


def define(file: ObjectFile, section: Section, btf: Btf | None = None) -> MapDefinition:
    """Return the definition of a section's map: an array of one entry."""
    if section.size > MAX_SECTION:
        raise LoadError(
            f"{file.name}: section {section.name!r}: {section.size} bytes of variables,"
            f" at most {MAX_SECTION} are supported"
        )
    file.budget.spend(MAP_COST, "sections of variables")
    return MapDefinition(
        section.name, MapType.ARRAY, 4, section.size, 1,
        is_readonly=not section.is_writable, section=section.name, special=_special(file, section, btf),
        variables=_places(file, section),
    )  # fmt: skip


def _places(file: ObjectFile, section: Section) -> tuple[tuple[int, str], ...]:
    """Return where a section's variables start, and their names, in order."""
    file.budget.spend(STEP * len(file.symbols) // 8, "names of variables")
    places = {
        symbol.value: symbol.name
        for symbol in file.symbols
        if symbol.section is section and symbol.name and symbol.type in ("STT_OBJECT", "STT_NOTYPE")
    }
    return tuple(sorted(places.items()))


def _special(file: ObjectFile, section: Section, btf: Btf | None) -> tuple[SpecialField, ...]:
    """Return the locks, kptrs, and heads of lists and trees, among a section's variables."""
    if btf is None or not section.is_writable or not any(name in btf.strings for name in _SPECIAL):
        return ()
    file.budget.spend(STEP * len(file.symbols) // 8, "special fields of variables")
    places = {symbol.name: symbol.value for symbol in file.symbols if symbol.section is section}
    try:
        sections = [btf.type(id) for id in btf.named(section.name, {Kind.DATASEC})]
        variables = [(each.type, btf.type(each.type).name) for type_ in sections for each in type_.variables]
        return fields_of_variables(btf, ((id, places[name]) for id, name in variables if name in places))
    except OverBudget:
        raise
    except LoadError:
        return ()  # damaged types are left out


def contents(map_: Map) -> memoryview:
    """Return the memory of a section's map."""
    return map_.regions[0].view


def fill(
    file: ObjectFile, maps: Mapping[int, Map], addresses: Mapping[int, int], targets: Mapping[int, Map]
) -> None:
    """Write a file's data into the maps of its sections, by the section's index.

    Pointers among the data are resolved; `addresses` has where each section that is one map starts, `targets`
    those of them that are maps that hold nothing else.
    Those to functions are not: a function's address differs from program to program.
    """
    for index, map_ in maps.items():
        written = write_section(file, file.sections[index], contents(map_), addresses)
        map_.pointers = tuple([(at, targets[target]) for at, target in written if target in targets])


def write_section(
    file: ObjectFile, section: Section, memory: memoryview, addresses: Mapping[int, int]
) -> list[tuple[int, int]]:
    """Write a section's data into its memory, with the pointers among it; see `fill`.

    Return the offset of each pointer, and the index of the section that it points into.
    """
    if len(section.data):
        memory[: section.size] = section.data
    written = []
    for offset, target, address in _pointers(file, section, addresses):
        struct.pack_into("<Q", memory, offset, address)
        written.append((offset, target))
    return written


def _pointers(
    file: ObjectFile, section: Section, addresses: Mapping[int, int]
) -> Iterator[tuple[int, int, int]]:
    """Yield the offset of each pointer in a section's data, the section it points into, the address (u64)."""
    for relocation in file.relocations.get(section.index, ()):
        target, offset = relocation.symbol.section, relocation.offset
        if relocation.type != R_BPF_64_ABS64 or target is None or offset + 8 > section.size:
            continue
        start = addresses.get(target.index)
        if start is not None:
            addend = pointer_in(section, offset)
            yield (
                offset,
                target.index,
                start + relocation.symbol.value + (relocation.addend or addend) & 0xFFFF_FFFF_FFFF_FFFF,
            )


@dataclass(frozen=True, slots=True)
class GlobalVariable:
    """A variable: `size` bytes at `offset` of a map's only value. `type` is a BTF id, 0 without.

    `refusal` is there where nobody says what is in it.
    """

    name: str
    map: Map
    offset: int
    size: int
    type: int = 0
    refusal: LoadError | None = None


class Globals(Mapping[str, Any]):
    """The global variables of an object, by name; what is set is in memory at once.

    Values are as `ebpfjit.elf.codec` says; without BTF an integer of 1, 2, 4 or 8 bytes is
    unsigned, all else is bytes. Bytes of the variable's size can always be set. A dict or list
    that was read is a copy: set the whole variable. Read-only variables can be set until a program
    that sees them is run or compiled, which may rely on them from then on.
    """

    def __init__(self, variables: Mapping[str, GlobalVariable], btf: Btf | None) -> None:
        self._variables = dict(variables)
        self._btf = btf
        self._codecs: dict[str, Codec] = {}

    def __getitem__(self, name: str) -> Any:
        variable = self._variable(name)
        if variable.refusal is not None:
            raise copy(variable.refusal)
        return self.codec(name).decode(bytes(_memory(variable)))

    def __setitem__(self, name: str, value: Any) -> None:
        """Set a variable.

        Raises KeyError, TypeError or ValueError naming the variable, and LoadError for a read-only
        one that a program may rely on already.
        """
        variable, codec = self._variable(name), self.codec(name)
        if variable.map.is_readonly and variable.map.is_frozen:
            raise LoadError(
                f"{name!r} is in {variable.map.name}, which programs may only read: set it before the first"
                " program is run or compiled, or load the object again"
            )
        try:
            raw = isinstance(value, (bytes, bytearray, memoryview)) and len(value) == variable.size
            data = bytes(value) if raw else codec.encode(value)
        except (TypeError, ValueError) as error:
            raise told(error, name) from error
        _memory(variable)[:] = data

    def __iter__(self) -> Iterator[str]:
        return iter(self._variables)

    def __len__(self) -> int:
        return len(self._variables)

    def __repr__(self) -> str:
        return cut(f"<{len(self)} variables: {few(self._variables)}>")

    @property
    def places(self) -> Mapping[str, GlobalVariable]:
        """Where each variable is."""
        return MappingProxyType(self._variables)

    def codec(self, name: str) -> Codec:
        """Return how a variable's bytes read as a Python value."""
        known = self._codecs.get(name)
        if known is None:
            known = self._codecs[name] = self._make_codec(self._variable(name))
        return known

    def _make_codec(self, variable: GlobalVariable) -> Codec:
        if self._btf is not None and variable.type:
            codec = codec_of(self._btf, variable.type)
            if codec.size == variable.size:
                return codec
        return Integer(variable.size) if variable.size in INTEGER_SIZES else Raw(variable.size)

    def _variable(self, name: str) -> GlobalVariable:
        try:
            return self._variables[name]
        except KeyError:
            raise KeyError(absent(name, "global variable", self._variables)) from None


def _memory(variable: GlobalVariable) -> memoryview:
    if variable.map.definition.type == MapType.ARENA:
        arena = cast("Arena", variable.map)
        return arena.view(arena.user_start + variable.offset, variable.size)
    return contents(variable.map)[variable.offset : variable.offset + variable.size]


def find_variables(file: ObjectFile, btf: Btf | None, maps: Mapping[int, Map]) -> dict[str, GlobalVariable]:
    """Return the variables of the sections whose maps are given, by the section's index."""
    types = _types(btf)
    here: dict[int, list[Symbol]] = {index: [] for index in maps}
    for symbol in file.symbols:
        named = symbol.name and not symbol.name.startswith(".L")
        if named and symbol.section is not None and symbol.type in ("STT_OBJECT", "STT_NOTYPE"):
            here.get(symbol.section.index, []).append(symbol)
    found: dict[str, GlobalVariable] = {}
    for index, symbols in here.items():
        symbols.sort(key=lambda symbol: symbol.value)
        end = file.sections[index].size
        for symbol in reversed(symbols):
            size = symbol.size or end - symbol.value
            end = symbol.value
            if size:
                type_ = types.get(symbol.name, 0)
                variable = GlobalVariable(symbol.name, maps[index], symbol.value, size, type_)
                found.setdefault(symbol.name, variable)
    return dict(reversed(found.items()))


def _types(btf: Btf | None) -> dict[str, int]:
    """Return the ids of all variables' types."""
    if btf is None:
        return {}
    ids = (id for id in range(1, len(btf)) if btf.kind(id) == Kind.VAR)
    return {type_.name: type_.target for type_ in map(btf.type, ids)}
