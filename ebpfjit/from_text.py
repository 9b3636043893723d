"""A program from assembly text, with memory for its variables: what `Program.from_assembly` does."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from ebpfjit.assembler import assembled, attached
from ebpfjit.assembler.sections import Variables
from ebpfjit.bits import W64
from ebpfjit.elf.sections import program_type
from ebpfjit.errors import AssemblyError, LoadError
from ebpfjit.program import Program
from ebpfjit.runtime import maps as kinds
from ebpfjit.runtime.maps.definition import MapDefinition, MapType

if TYPE_CHECKING:
    from ebpfjit.runtime.maps import Map


def programs_of(text: str, name: str) -> dict[str, Program]:
    """Return the programs of a text by name: its functions that are attached, else the one that it is.

    That one is called `name`. What of several cannot be assembled keeps the error for whoever uses it. Raises
    AssemblyError.
    """
    names = attached(text)
    if len(names) < 2:
        return {each: program_of(text, each, None) for each in names or [name]}
    return {each: _kept(text, each) for each in names}


def _kept(text: str, name: str) -> Program:
    """Return a program of a text, or the place of one with the error that it has."""
    try:
        return program_of(text, name, None)
    except AssemblyError as error:
        reason = LoadError(f"program {name!r}: line {error.line}, column {error.column}: {error.reason}")
        return Program(b"", name=name, refusals=(reason,))


def program_of(text: str, name: str | None, type: str | None) -> Program:
    """Return the program that a text is. Raises AssemblyError."""
    made = assembled(text, name)
    maps = [_map_of(section) for section in made.variables]
    section = made.section if made.section != ".text" else None
    program = Program(
        made.code,
        name=name if name is not None else made.name,
        section=section,
        type=type if type is not None or section is None else program_type(section),
        symbols=made.symbols,
        lines=made.lines,
    )
    if not maps:
        return program if made.license is None else replace(program, license=made.license)
    references = {
        pc: W64.wrap(maps[number].value_address + offset) for pc, (number, offset) in made.references.items()
    }
    return replace(program, maps=tuple(maps), references=references, license=made.license)


def _map_of(section: Variables) -> Map:
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
