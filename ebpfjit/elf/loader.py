"""`load`: an object file from a path, from bytes or from an open file, as an Object."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, MutableMapping
from functools import partial
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, BinaryIO, Unpack

from ebpfjit.errors import EbpfError, LoadError
from ebpfjit.literals import TypeName, Types
from ebpfjit.named import Named, absent, cut, few
from ebpfjit.once import import_alone, load_package
from ebpfjit.program import Buffer, Program
from ebpfjit.record import dataclass, field, replace
from ebpfjit.runtime.environment import Environment

if TYPE_CHECKING:
    from ebpfjit.compatibility.report import ObjectCompatibility
    from ebpfjit.elf.btf import Btf
    from ebpfjit.elf.globals import Globals
    from ebpfjit.elf.linker import Function, Linker
    from ebpfjit.elf.reader import ObjectFile
    from ebpfjit.elf.refusals import Refusals
    from ebpfjit.keywords import LoadOptions
    from ebpfjit.runtime.maps.base import Map
    from ebpfjit.runtime.maps.definition import MapDefinition

Source = str | os.PathLike[str] | Buffer | BinaryIO
STRUCT_OPS = ".struct_ops"


def _no_variables() -> Globals:
    from ebpfjit.elf.globals import Globals

    return Globals({}, None)


@dataclass(frozen=True, slots=True, eq=False)
class Object:
    """What an object file holds.

    `name` is the file's path, `"<bytes>"` without one. `programs` maps the name of an entry function
    to its Program: the global functions in file order (by section, then by address), then the static ones
    of program sections; one whose name is taken is called "SECTION:NAME", or "SECTION+0xOFFSET:NAME". Each
    program is self-contained: the functions it calls follow it. `maps` are all maps by name, sections of
    variables (".rodata") and ".kconfig" among them; programs of the object share them. `globals` are the
    variables by name. `license` is "" and `version` 0 where the object does not say; `btf` are its types,
    None without. `refusals` are the errors that are kept for parts of the object, by the name of the
    program, map, variable or section (".BTF"): whoever runs, compiles or uses that part meets the error,
    nobody else does.
    """

    name: str
    programs: Mapping[str, Program]
    maps: Mapping[str, Any] = field(default_factory=dict)
    globals: Globals = field(default_factory=_no_variables)
    license: str = ""
    version: int = 0
    btf: Btf | None = None
    refusals: Mapping[str, EbpfError] = field(default_factory=dict)

    def __copy__(self) -> Object:
        return replace(self)

    def __repr__(self) -> str:
        programs = [f"{name} ({program.type or 'no type'})" for name, program in self.programs.items()]
        parts = {"programs": programs, "maps": self.maps, "variables": self.globals, "refused": self.refusals}
        shown = [f"{what} {few(names)}" for what, names in parts.items() if names]
        return cut(f"<object {self.name!r}: {'; '.join(shown)}>")

    def __reduce__(self) -> tuple[Any, ...]:
        named = dict(self.programs), dict(self.maps), self.globals
        return _again, (self.name, *named, self.license, self.version, self.btf, dict(self.refusals))

    @property
    def sections(self) -> Mapping[str, tuple[Program, ...]]:
        """The programs of each section, by the section's name, in file order."""
        sections: dict[str, list[Program]] = {}
        for program in self.programs.values():
            sections.setdefault(program.section or "", []).append(program)
        return MappingProxyType({section: tuple(programs) for section, programs in sections.items()})

    def program(self, name: str, type: TypeName | None = None) -> Program:
        """Return the program called `name`, with its type replaced where `type` is given.

        `name` may also be that of a section that holds one program. Raises LoadError listing the
        programs where there is none of that name.
        """
        program = self.programs.get(name)
        if program is None:
            alone = self.sections.get(name, ())
            if len(alone) > 1:
                names = ", ".join(repr(one.name) for one in alone)
                raise LoadError(
                    f"{self.name}: section {name!r} has several programs, name one of them: {names}"
                )
            if not alone:
                raise LoadError(f"{self.name}: {absent(name, 'program', self.programs)}")
            program = alone[0]
        return program if type is None else replace(program, type=type)

    def compatibility(self) -> ObjectCompatibility:
        """Return what the programs of the object need of Linux: which releases have all that they use.

        It maps the name of each program to its `Compatibility` (`Program.compatibility`); `.minimum` is the
        oldest release for the whole object, its maps that no program uses included (`.rest`), and
        `.missing("5.15")` says program by program what a release lacks.

            print(load("flow.o").compatibility())
        """
        import_alone("ebpfjit.compatibility.report")
        from ebpfjit.compatibility import report

        return report.of_object(self)


def _again(
    name: str, programs: dict[str, Program], maps: dict[str, Map], globals: Any, license: str, version: int,
    btf: Btf | None, refusals: dict[str, EbpfError],
) -> Object:  # fmt: skip
    """Return a copy of an object, whose maps are copies."""
    named = MappingProxyType(Named("program", programs)), MappingProxyType(Named("map", maps))
    kept = MappingProxyType(Named("refusal", refusals))
    return Object(name, *named, globals, license, version, btf, kept)


def load(
    source: Source,
    *,
    btf: Btf | Source | None = None,
    environment: Environment | None = None,
    types: Types = "",
    kconfig: Mapping[str, Any] | None = None,
    maps: Mapping[str, Any] | None = None,
    pins: MutableMapping[str, Any] | None = None,
    only: Iterable[str] | None = None,
    strict: bool = False,
) -> Object:
    """Return the programs, maps and variables of an eBPF object file.

    `source` is a path, a bytes-like object, or a file opened for reading in binary mode.
    `btf` has the types that CO-RE relocations are made for: a BTF file such as
    /sys/kernel/btf/vmlinux, an ELF file with .BTF, or a Btf; without it, the object's own.
    `environment` says how many processors per-CPU maps have values for, and is that of runs which
    are given none. `types` gives the type
    ("xdp") of programs whose section does not tell, or maps names of programs and sections to
    types. `kconfig` has values for `extern ... __kconfig` variables.

    `maps` has, by the name of a map, how many entries it is to have, a mapping of all that is to be set
    ("type", "key_size", "value_size", "max_entries", "flags", "extra"), or a map to use in its place, such as
    one of another object. `pins` are maps by name: one whose definition says LIBBPF_PIN_BY_NAME is taken from
    there, or put there. `only` names the programs to load (or their sections), by default all of them; the
    place of one that is left out stays empty in a prog_array.

    What a part of the object needs and is not there (a map of an unknown type or without a size, a kfunc, a
    kernel symbol, a value of the configuration) is kept with the programs and maps that need it, and raised
    when these are run, compiled or used: see `Object.refusals`. With `strict`, all of it is raised at once;
    a program whose type neither its section nor `types` tells is refused too (it else runs on plain memory).

    Raises LoadError for anything but a sound object of clang's kind, naming what is wrong and where,
    MapRefused for a map of `maps` or `pins` that does not fit, and OSError where the file cannot be read,
    TypeError for arguments that are something else. What a file may cost in memory follows from its size
    (`ebpfjit.elf.budget`), what its maps may from `set_map_memory_limit`.
    """
    if kconfig is not None and not isinstance(kconfig, Mapping):
        how = "{'CONFIG_HZ': 250}"
        raise TypeError(f"kconfig maps names to values, as {how}, and is not a {type(kconfig).__name__}")
    each = types.values() if isinstance(types, Mapping) else [types]
    if not all(isinstance(type_, str) for type_ in each):
        raise TypeError(f"types is a program type, or maps names to types: strings, and is not {types!r}")
    if environment is not None and not isinstance(environment, Environment):
        raise TypeError(f"environment is an Environment, not of type {type(environment).__name__}")
    load_package("ebpfjit.elf")
    from ebpfjit.elf.source import MAX_FILE

    data, name = _read(source, MAX_FILE)
    return load_bytes(
        data, name, btf=btf, environment=environment, types=types, kconfig=kconfig, maps=maps, pins=pins,
        only=only, strict=strict,
    )  # fmt: skip


def load_bytes(data: bytes, name: str, **options: Unpack[LoadOptions]) -> Object:
    """Load an object file that is in memory, as `load` does; `name` is what messages call it."""
    load_package("ebpfjit.elf")
    from ebpfjit.elf.budget import OverBudget

    try:
        return _load_bytes(data, name, **options)
    except OverBudget as error:
        raise LoadError(str(error)) from error


def _load_bytes(
    data: bytes,
    name: str,
    *,
    btf: Btf | Source | None = None,
    environment: Environment | None = None,
    types: Types = "",
    kconfig: Mapping[str, Any] | None = None,
    maps: Mapping[str, Any] | None = None,
    pins: MutableMapping[str, Any] | None = None,
    only: Iterable[str] | None = None,
    strict: bool = False,
) -> Object:
    from ebpfjit.elf.externs import Externs
    from ebpfjit.elf.given import GivenMaps
    from ebpfjit.elf.linker import Linker
    from ebpfjit.elf.linux_btf import for_linux
    from ebpfjit.elf.memory import ObjectMaps
    from ebpfjit.elf.operations import Operations, find_operations
    from ebpfjit.elf.reader import read_object
    from ebpfjit.elf.refusals import Refusals, refuse_two_definitions
    from ebpfjit.elf.types import find_exception_callbacks, make_relocations, read_types

    file = read_object(data, name)
    refuse_two_definitions(file)
    refusals = Refusals(file)
    own, lines = read_types(file, refusals)
    given = GivenMaps(name, maps if maps is not None else {}, pins if pins is not None else {})
    create = partial(_create, environment=environment or Environment())
    externs = Externs(file, own, kconfig or {})
    linux_btf = refusals.attempt(".BTF", lambda: for_linux(file, own), None)
    license = _license(file)
    made = ObjectMaps(file, own, externs, create, given, linux_btf)
    refusals.add_maps(made)
    kernel = read_btf(btf)
    core, refusal = make_relocations(file, lines, kernel, refusals)
    linker = Linker(
        file, made, lines, core, environment, license=license, btf=linux_btf, kernel_types=kernel or own
    )
    linker.refusal = refusal
    linker.exception_callbacks = refusals.attempt(".BTF", lambda: find_exception_callbacks(own), {})
    linker.tables.fill()
    programs, places = _link_all(linker, types, only)
    none: Operations = {}
    operations = refusals.attempt(".BTF", lambda: find_operations(file, own), none)
    for entry in linker.entries:
        program = programs.get(entry.name)
        operation = operations.get((entry.section.index, entry.start))
        if program is not None and program.section == entry.section.name and operation is not None:
            programs[entry.name] = replace(program, operation=operation)
    if not linker.entries and not made.order and not _has_struct_ops(file):
        raise LoadError(f"{name}: no programs and no maps: no section holds instructions, or defines a map")
    _fill_maps(linker, programs, places, own, refusals)
    refusals.add_programs(programs)
    variables = made.globals()
    refusals.add_damage(made.damage)
    if strict:
        refusals.add_untyped(programs)
        refusals.raise_all()
    refusals.add_variables(made)
    given.pin(made.order)
    return Object(
        name,
        MappingProxyType(Named("program", programs)),
        MappingProxyType(Named("map", made.by_name)),
        variables,
        license,
        _version(file),
        own,
        MappingProxyType(Named("refusal", refusals.found)),
    )


def _link_all(
    linker: Linker, types: Types, only: Iterable[str] | None
) -> tuple[dict[str, Program], dict[str, str]]:
    """Return the programs of an object, or those that were asked for, and their names by `name_of_place`."""
    from ebpfjit.elf.reader import name_of_place

    wanted = _wanted(linker, only)
    type_of = _type_finder(linker.entries, types)
    programs: dict[str, Program] = {}
    names: dict[str, str] = {}
    for entry in linker.entries:
        if not wanted or entry.name in wanted or entry.section.name in wanted:
            place = name_of_place(entry.section, entry.start, entry.name)
            candidates = (entry.name, f"{entry.section.name}:{entry.name}", place)
            name = next((each for each in candidates if each not in programs), None)
            if name is None:
                where = f"{linker.file.name}: section {entry.section.name!r}"
                raise LoadError(f"{where}: a second program {entry.name!r}; rename one of them")
            programs[name] = linker.link_or_keep(entry, type_of(entry))
            names[place] = name
    return programs, names


def _wanted(linker: Linker, only: Iterable[str] | None) -> frozenset[str]:
    """Return the names that were asked for, none for all. Raises LoadError for one that is not there."""
    if only is None:
        return frozenset()
    names_of = [only] if isinstance(only, str) else list(only)
    for each in names_of:
        if not isinstance(each, str):
            raise TypeError(f"only= has names of programs or sections, not {each!r}")
    wanted = frozenset(names_of)
    known = {name for entry in linker.entries for name in (entry.name, entry.section.name)}
    for name in sorted(wanted - known):
        names = ", ".join(repr(entry.name) for entry in linker.entries) or "none"
        raise LoadError(f"{linker.file.name}: only={name!r}: no such program; there are: {names}")
    return wanted | {""}  # of an empty list too, nothing is wanted


def _fill_maps(
    linker: Linker,
    programs: Mapping[str, Program],
    places: Mapping[str, str],
    btf: Btf | None,
    refusals: Refusals,
) -> None:
    """Put programs and maps into the maps that are to hold them; what does not fit is kept with the map."""
    from ebpfjit.elf import tail_calls
    from ebpfjit.elf.reader import name_of_place

    made = linker.maps
    left_out = {entry.name for entry in linker.entries} - {program.name for program in programs.values()}
    left_out |= {name_of_place(e.section, e.start, e.name) for e in linker.entries} - places.keys()
    none: list[tail_calls.Slot] = []
    tags = refusals.attempt(".BTF", lambda: list(tail_calls.find_tags(btf)), none)
    slots = [
        slot
        for slot in tail_calls.find_slots(made.defined, programs, tags)
        if slot.name not in left_out and made.takes(slot.map)
    ]
    by_place = {place: programs[name] for place, name in places.items()}
    for name, error in tail_calls.fill(
        linker.file.name, slots, made.by_name, {**by_place, **programs}
    ).items():
        map_ = made.by_name.get(name)
        if map_ is not None and map_.refused is None:
            map_.refused = error
            refusals.add(name, error)


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


def _type_finder(entries: Iterable[Function], types: Types) -> Callable[[Function], str | None]:
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


def _has_struct_ops(file: ObjectFile) -> bool:
    """True where a file defines tables of functions for the kernel, which may be all that it has."""
    return any(section.name.startswith(STRUCT_OPS) for section in file.sections)


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
    if not hasattr(source, "read"):
        raise TypeError(
            f"a file is given by its path, as bytes, or open for reading, not as {type(source).__name__}"
        )
    name = getattr(source, "name", None)
    name = name if isinstance(name, str) else "<file>"
    return read_stream(source, name, limit), name
