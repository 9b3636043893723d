"""`load`: an object file from a path, from bytes or from an open file, as an Object."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import BinaryIO

from ebpfjit.errors import LoadError
from ebpfjit.program import Buffer, Program

Source = str | os.PathLike[str] | Buffer | BinaryIO


@dataclass(frozen=True, slots=True)
class Object:
    """What an object file holds.

    `name` is the file's path, "<bytes>" without one. `programs` maps the name of an entry function
    to its Program, in file order: by section, then by address. Each program is self-contained: the
    functions it calls follow it.
    """

    name: str
    programs: Mapping[str, Program]

    @property
    def sections(self) -> Mapping[str, tuple[Program, ...]]:
        """The programs of each section, by the section's name, in file order."""
        sections: dict[str, tuple[Program, ...]] = {}
        for program in self.programs.values():
            section = program.section or ""
            sections[section] = (*sections.get(section, ()), program)
        return MappingProxyType(sections)

    def program(self, name: str, type: str | None = None) -> Program:
        """Return the program called `name`, with its type replaced where `type` is given.

        `name` may also be that of a section that holds one program. Raises LoadError listing the
        programs where there is none of that name.
        """
        program = self.programs.get(name)
        if program is None:
            alone = self.sections.get(name, ())
            if len(alone) != 1:
                names = ", ".join(repr(known) for known in self.programs)
                raise LoadError(f"{self.name}: no program {name!r}; there are: {names}")
            program = alone[0]
        return program if type is None else replace(program, type=type)


def load(source: Source) -> Object:
    """Return the programs of an eBPF object file.

    `source` is a path, a bytes-like object, or a file opened for reading in binary mode. Raises
    LoadError for anything but a sound object of clang's kind, naming what is wrong and where, and
    OSError where the file cannot be read.
    """
    return load_bytes(*_read(source))


def load_bytes(data: bytes, name: str) -> Object:
    """Return the programs of an object file that is in memory; `name` is what messages call it."""
    from ebpfjit.elf.linker import Linker
    from ebpfjit.elf.reader import read_object

    linker = Linker(read_object(data, name))
    programs: dict[str, Program] = {}
    for entry in linker.entries():
        if entry.name in programs:
            raise LoadError(f"{name}: section {entry.section.name!r}: a second program {entry.name!r}")
        programs[entry.name] = linker.link(entry)
    if not programs:
        raise LoadError(f"{name}: no programs: no section holds instructions")
    return Object(name, MappingProxyType(programs))


def _read(source: Source) -> tuple[bytes, str]:
    """Return the bytes of `source` and what to call it."""
    if isinstance(source, (str, os.PathLike)):
        with open(source, "rb") as file:
            return file.read(), os.fspath(source)
    if isinstance(source, (bytes, bytearray, memoryview)):
        return bytes(source), "<bytes>"
    data = source.read()
    name = getattr(source, "name", None)
    name = name if isinstance(name, str) else "<file>"
    if not isinstance(data, bytes):
        raise LoadError(f"{name}: open the file in binary mode")
    return data, name
