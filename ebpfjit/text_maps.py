"""The maps of assembly text: its variables, and what its `.maps` defines."""

from __future__ import annotations

from ebpfjit.assembler.sections import BTF, MAPS, Sections, Variables
from ebpfjit.elf.btf import Btf
from ebpfjit.elf.budget import Budget
from ebpfjit.elf.maps import DefinedMap, find_maps
from ebpfjit.elf.reader import SHF_ALLOC, SHF_WRITE, ObjectFile, Section, Symbol
from ebpfjit.errors import LoadError
from ebpfjit.runtime import maps as kinds
from ebpfjit.runtime.maps.base import Map
from ebpfjit.runtime.maps.definition import MapDefinition, MapType
from ebpfjit.runtime.maps.refused import RefusedMap

NAME = "<text>"
"""What messages call the text."""


def made(sections: Sections, section: str, name: str) -> Map:
    """Return a section of variables as a map, or what `.maps` defines by a name."""
    if section != MAPS:
        return _of_variables(sections.variables[section])
    defined = _defined(sections)[name]
    try:
        if defined.refusal is None:
            return kinds.create(defined.definition)
        return RefusedMap(defined.definition, defined.refusal)
    except LoadError as error:
        return RefusedMap(defined.definition, error)


def _of_variables(section: Variables) -> Map:
    """Return a section's variables as a map of one entry, as those of an object file are."""
    variables = tuple(sorted((offset, name) for name, offset in section.symbols.items()))
    map_ = kinds.create(
        MapDefinition(
            section.name, MapType.ARRAY, 4, max(len(section.data), 1), 1,
            is_readonly=section.is_readonly, section=section.name, variables=variables,
        )
    )  # fmt: skip
    map_.regions[0].view[: len(section.data)] = section.data
    return map_


def _defined(sections: Sections) -> dict[str, DefinedMap]:
    """Return the maps of `.maps` by name, as the text's BTF describes them."""
    maps, btf = sections.variables[MAPS], sections.variables.get(BTF)
    data = memoryview(bytes(maps.data))
    flags = SHF_ALLOC | SHF_WRITE
    section = Section(0, MAPS, "SHT_PROGBITS", flags, 0, max(len(data), 1), data, 0, 0, 0)
    symbols = tuple(
        Symbol(name, "STT_OBJECT", "STB_GLOBAL", section, offset, 0) for name, offset in maps.symbols.items()
    )
    budget = Budget(NAME, len(btf.data) if btf is not None else 0)
    file = ObjectFile(NAME, (section,), symbols, {}, budget)
    try:
        types = None if btf is None else Btf(bytes(btf.data), NAME, budget)
        found = find_maps(file, types)
    except LoadError as error:
        stubs = {name: MapDefinition(name, 0, 0, 0, 0, section=MAPS) for name in maps.symbols}
        return {name: DefinedMap(stub, section, 0, refusal=error) for name, stub in stubs.items()}
    return {each.definition.name: each for each in found}
