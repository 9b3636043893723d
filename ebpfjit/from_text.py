"""A program from assembly text, with memory for its variables and maps: what `Program.from_assembly` does."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ebpfjit.assembler import Assembled, assembled, attached
from ebpfjit.bits import W64
from ebpfjit.elf.sections import program_type
from ebpfjit.errors import AssemblyError, LoadError
from ebpfjit.literals import named_type
from ebpfjit.once import import_alone
from ebpfjit.program import Program
from ebpfjit.record import replace

if TYPE_CHECKING:
    from ebpfjit.runtime.maps import Map


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


Maps = dict[tuple[str, str], "Map"]
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
    import_alone("ebpfjit.text_maps")
    from ebpfjit import text_maps  # few texts have maps, and much is imported for them

    for key in made.uses:
        if key not in shared:
            shared[key] = text_maps.made(made.sections, *key)
    maps = tuple(shared[key] for key in made.uses)
    references = {
        pc: maps[number].address if offset is None else W64.wrap(maps[number].value_address + offset)
        for pc, (number, offset) in made.references.items()
    }
    return replace(program, maps=maps, references=references)
