"""`load`: an object file from a path, from bytes or from an open file, as an Object."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, BinaryIO

from ebpfjit.errors import LoadError
from ebpfjit.once import load_package
from ebpfjit.program import Buffer, Program
from ebpfjit.runtime.environment import Environment

if TYPE_CHECKING:
    from ebpfjit.elf.btf import Btf
    from ebpfjit.elf.btf_ext import BtfExt
    from ebpfjit.elf.linker import Function
    from ebpfjit.elf.reader import ObjectFile
    from ebpfjit.runtime.maps.base import Map
    from ebpfjit.runtime.maps.definition import MapDefinition

Source = str | os.PathLike[str] | Buffer | BinaryIO
Types = str | Mapping[str, str]


@dataclass(frozen=True, slots=True, eq=False)
class Object:
    """What an object file holds.

    `name` is the file's path, "<bytes>" without one. `programs` maps the name of an entry function
    to its Program, in file order: by section, then by address. Each program is self-contained: the
    functions it calls follow it. `maps` are all maps by name, sections of variables (".rodata")
    and ".kconfig" among them; programs of the object share them. `globals` are the variables by
    name. `license` is "" and `version` 0 where the object does not say; `btf` are its types, None
    without.
    """

    name: str
    programs: Mapping[str, Program]
    maps: Mapping[str, Any] = field(default_factory=dict)
    globals: Mapping[str, Any] = field(default_factory=dict)
    license: str = ""
    version: int = 0
    btf: Btf | None = None

    @property
    def sections(self) -> Mapping[str, tuple[Program, ...]]:
        """The programs of each section, by the section's name, in file order."""
        sections: dict[str, list[Program]] = {}
        for program in self.programs.values():
            sections.setdefault(program.section or "", []).append(program)
        return MappingProxyType({section: tuple(programs) for section, programs in sections.items()})

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


def load(
    source: Source,
    *,
    btf: Btf | Source | None = None,
    environment: Environment | None = None,
    types: Types = "",
    kconfig: Mapping[str, Any] | None = None,
) -> Object:
    """Return the programs, maps and variables of an eBPF object file.

    `source` is a path, a bytes-like object, or a file opened for reading in binary mode.
    `btf` has the types that CO-RE relocations are made for: a BTF file such as
    /sys/kernel/btf/vmlinux, an ELF file with .BTF, or a Btf; without it, the object's own.
    `environment` says how many processors per-CPU maps have values for, and is that of runs which
    are given none. `types` gives the type
    ("xdp") of programs whose section does not tell, or maps names of programs and sections to
    types. `kconfig` has values for `extern ... __kconfig` variables.

    Raises LoadError for anything but a sound object of clang's kind, naming what is wrong and where, and
    OSError where the file cannot be read. What a file may cost in memory follows from its size
    (`ebpfjit.elf.budget`), what its maps may from `set_map_memory_limit`.
    """
    load_package("ebpfjit.elf")
    from ebpfjit.elf.source import MAX_FILE

    data, name = _read(source, MAX_FILE)
    return load_bytes(data, name, btf=btf, environment=environment, types=types, kconfig=kconfig)


def load_bytes(
    data: bytes,
    name: str,
    *,
    btf: Btf | Source | None = None,
    environment: Environment | None = None,
    types: Types = "",
    kconfig: Mapping[str, Any] | None = None,
) -> Object:
    """Load an object file that is in memory, as `load` does; `name` is what messages call it."""
    load_package("ebpfjit.elf")
    from ebpfjit.elf import tail_calls
    from ebpfjit.elf.core import Core
    from ebpfjit.elf.externs import Externs
    from ebpfjit.elf.linker import Linker
    from ebpfjit.elf.linux_btf import for_linux
    from ebpfjit.elf.memory import ObjectMaps
    from ebpfjit.elf.reader import read_object

    file = read_object(data, name)
    own, lines = _read_types(file)
    externs = Externs(file, own, kconfig or {})
    linux_btf = for_linux(file, own)
    create = partial(_create, environment=environment or Environment())
    maps = ObjectMaps(file, own, externs, create, linux_btf)
    code = Core(file, lines, read_btf(btf)).apply() if lines is not None else {}
    license = _license(file)
    linker = Linker(file, maps, lines, code, environment, license=license, btf=linux_btf)
    programs: dict[str, Program] = {}
    entries = linker.entries()
    type_of = _type_finder(entries, types)
    for entry in entries:
        if entry.name in programs:
            raise LoadError(f"{name}: section {entry.section.name!r}: a second program {entry.name!r}")
        programs[entry.name] = linker.link(entry, type_of(entry))
    if not programs:
        raise LoadError(f"{name}: no programs: no section holds instructions")
    tail_calls.fill(name, tail_calls.find_slots(maps.defined, programs), maps.by_name, programs)
    return Object(
        name,
        MappingProxyType(programs),
        MappingProxyType(maps.by_name),
        maps.globals(),
        license,
        _version(file),
        own,
    )


def read_btf(source: Btf | Source | None) -> Btf | None:
    """Return the types of a BTF file, or of an ELF file with a .BTF section.

    `source` is as for `load`; a Btf is returned as it is, so that the types of a kernel need not
    be read for every object. Raises LoadError and OSError.
    """
    load_package("ebpfjit.elf")
    from ebpfjit.elf.btf import Btf
    from ebpfjit.elf.reader import read_section
    from ebpfjit.elf.source import MAX_TYPES

    if source is None or isinstance(source, Btf):
        return source
    data, name = _read(source, MAX_TYPES)
    if data.startswith(b"\x7fELF"):
        return Btf(read_section(data, name, ".BTF"), f"{name}: section '.BTF'")
    return Btf(data, name)


def _create(definition: MapDefinition, *, environment: Environment) -> Map:
    from ebpfjit.runtime import maps

    return maps.create(definition, environment=environment)


def _type_finder(entries: list[Function], types: Types) -> Callable[[Function], str | None]:
    """Return what tells a program's type: the user, its section, for tail calls the other programs."""
    from ebpfjit.elf.sections import program_type
    from ebpfjit.elf.tail_calls import is_tail_section

    given: Mapping[str, str] = {} if isinstance(types, str) else types
    default = types if isinstance(types, str) and types else None
    sections = {entry.section.name: program_type(entry.section.name) for entry in entries}
    known = {type_ for name, type_ in sections.items() if type_ is not None}
    tail_type = default or (known.pop() if len(known) == 1 else "tc")

    def find(entry: Function) -> str | None:
        section = entry.section.name
        fallback = tail_type if is_tail_section(section) else default
        return given.get(entry.name) or given.get(section) or sections[section] or fallback

    return find


def _read_types(file: ObjectFile) -> tuple[Btf | None, BtfExt | None]:
    """Return an object's types, and what they say of instructions."""
    from ebpfjit.elf.btf import Btf
    from ebpfjit.elf.btf_ext import BtfExt, has_core_relocations

    section, ext = file.section(".BTF"), file.section(".BTF.ext")
    if section is None:
        if ext is not None and has_core_relocations(ext.data):
            raise LoadError(
                f"{file.name}: section '.BTF.ext' has CO-RE relocations, but no .BTF has their types"
            )
        return None, None
    btf = Btf(section.data, f"{file.name}: section '.BTF'", file.budget)
    if ext is None:
        return btf, None
    return btf, BtfExt(ext.data, btf, f"{file.name}: section '.BTF.ext'")


def _license(file: ObjectFile) -> str:
    from ebpfjit.elf.reader import MAX_NAME

    section = file.section("license")
    text = bytes(section.data[:MAX_NAME]).partition(b"\0")[0] if section is not None else b""
    return text.decode("utf-8", "backslashreplace")


def _version(file: ObjectFile) -> int:
    section = file.section("version")
    return int.from_bytes(section.data[:4], "little") if section is not None else 0


def _read(source: Source, limit: int) -> tuple[bytes, str]:
    """Return the bytes of `source` and what to call it; LoadError for more than `limit` of them."""
    from ebpfjit.elf.source import read_path, read_stream

    if isinstance(source, (str, os.PathLike)):
        return read_path(source, limit), os.fspath(source)
    if isinstance(source, (bytes, bytearray, memoryview)):
        if memoryview(source).nbytes > limit:
            raise LoadError(f"<bytes>: {memoryview(source).nbytes} bytes, at most {limit} are read")
        return bytes(source), "<bytes>"
    name = getattr(source, "name", None)
    name = name if isinstance(name, str) else "<file>"
    return read_stream(source, name, limit), name
