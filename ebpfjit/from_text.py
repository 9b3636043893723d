"""A program from assembly text, with memory for its variables and maps: what `Program.from_assembly` does."""

from __future__ import annotations

from dataclasses import replace

from ebpfjit.assembler import Assembled, assembled, attached
from ebpfjit.assembler.sections import BTF, MAPS, Sections, Variables
from ebpfjit.bits import W64
from ebpfjit.elf.btf import Btf
from ebpfjit.elf.budget import Budget
from ebpfjit.elf.maps import DefinedMap, find_maps
from ebpfjit.elf.reader import SHF_ALLOC, SHF_WRITE, ObjectFile, Section, Symbol
from ebpfjit.elf.sections import program_type
from ebpfjit.errors import AssemblyError, LoadError
from ebpfjit.literals import named_type
from ebpfjit.program import Program
from ebpfjit.runtime import maps as kinds
from ebpfjit.runtime.maps.base import Map
from ebpfjit.runtime.maps.definition import MapDefinition, MapType
from ebpfjit.runtime.maps.refused import RefusedMap

NAME = "<text>"
"""What messages call the text."""


def program_of(text: str, name: str | None, type: str | None) -> Program:
    """Return the program that a text is. Raises AssemblyError."""
    return _program(assembled(text, name), name, type, {})


def programs_of(text: str, name: str) -> dict[str, Program]:
    """Return the programs of a text by name: its functions that are attached, else the one that it is.

    That one is called `name`. They share their maps. What of several cannot be assembled keeps the error for
    whoever uses it. Raises AssemblyError.
    """
    names = attached(text)
    if len(names) < 2:
        return {each: program_of(text, each, None) for each in names or [name]}
    shared: Maps = {}
    return {each: _kept(text, each, shared) for each in names}


Maps = dict[tuple[str, str], Map]
"""The maps of a text by what `Assembled.uses` calls them."""


def _kept(text: str, name: str, shared: Maps) -> Program:
    """Return a program of a text, or the place of one with the error that it has."""
    try:
        return _program(assembled(text, name), name, None, shared)
    except AssemblyError as error:
        reason = LoadError(f"program {name!r}: line {error.line}, column {error.column}: {error.reason}")
        return Program(b"", name=name, refusals=(reason,))


def _program(made: Assembled, name: str | None, type: str | None, shared: Maps) -> Program:
    section = made.section if made.section != ".text" else None
    program = Program(
        made.code,
        name=name if name is not None else made.name,
        section=section,
        type=named_type(type if type is not None or section is None else program_type(section)),
        symbols=made.symbols,
        lines=made.lines,
        license=made.sections.license,
    )
    if not made.uses:
        return program
    for key in made.uses:
        if key not in shared:
            shared[key] = _made(made.sections, *key)
    maps = tuple(shared[key] for key in made.uses)
    references = {
        pc: maps[number].address if offset is None else W64.wrap(maps[number].value_address + offset)
        for pc, (number, offset) in made.references.items()
    }
    return replace(program, maps=maps, references=references)


def _made(sections: Sections, section: str, name: str) -> Map:
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
