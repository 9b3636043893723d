"""The maps of an object, made: those it defines, its sections of variables, .kconfig.

.maps + 32       -> the map defined there          LDDW_MAP_IDX        program.maps[imm]
.rodata + 8      -> byte 8 of the map ".rodata"    LDDW_MAP_IDX_VALUE  program.maps[imm], 8
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from ebpfjit.elf import globals as variables
from ebpfjit.elf.btf import Btf
from ebpfjit.elf.budget import STEP
from ebpfjit.elf.externs import KCONFIG, Externs
from ebpfjit.elf.globals import Globals, GlobalVariable
from ebpfjit.elf.linux_btf import section_types
from ebpfjit.elf.maps import find_maps, is_legacy
from ebpfjit.elf.reader import ObjectFile, Section, Symbol
from ebpfjit.errors import LoadError, MapRefused
from ebpfjit.runtime.maps.base import Map
from ebpfjit.runtime.maps.definition import MapDefinition, MapTypes

Create = Callable[[MapDefinition], Map]


@dataclass(frozen=True, slots=True)
class Place:
    """What an instruction refers to: a map, or a byte of its only value.

    `number` counts the object's maps; `offset` is None where the map itself is meant.
    """

    number: int
    offset: int | None


class ObjectMaps:
    """The maps of one object; `by_name` and `order` hold all of them, in file order."""

    def __init__(
        self,
        file: ObjectFile,
        btf: Btf | None,
        externs: Externs,
        create: Create,
        linux_btf: bytes | None = None,
    ) -> None:
        self._linux_btf = linux_btf
        self._section_types = section_types(btf)
        self.file = file
        self.btf = btf
        self.externs = externs
        self.defined = find_maps(file, btf)
        self.sections = variables.find_sections(file)
        self.order: list[Map] = []
        self.by_name: dict[str, Map] = {}
        self._starts: dict[tuple[int, int], int] = {}
        self._whole: dict[int, int] = {}
        self._kconfig = 0
        self._pointed: dict[int, set[int]] = {}
        definitions = [variables.define(file, section) for section in self.sections]
        for defined in self.defined:
            self._starts[defined.section.index, defined.offset] = len(self.order)
            self._add(create, defined.definition, defined.section)
        for section, definition in zip(self.sections, definitions, strict=True):
            self._whole[section.index] = len(self.order)
            self._add(create, definition, section)
        for section in self.sections:
            self._pointed[self._whole[section.index]] = self._numbers_in(section)
        if externs.definition is not None:
            self._kconfig = len(self.order)
            self._add(create, externs.definition, None)
        self._fill()

    def _add(self, create: Create, definition: MapDefinition, section: Section | None) -> None:
        where = f"{self.file.name}: section {definition.section!r}"
        definition = self._with_types(definition)
        if definition.name in self.by_name:
            raise LoadError(f"{where}: map {definition.name!r}: a second map of that name")
        try:
            map_ = create(definition)
        except MapRefused as error:
            raise MapRefused(f"{where}: {error}", error.errno) from error
        self.by_name[definition.name] = map_
        self.order.append(map_)

    def _with_types(self, definition: MapDefinition) -> MapDefinition:
        """Return a definition with the BTF that its ids are of, the templates inside as well."""
        inner = self._with_types(definition.inner) if definition.inner is not None else None
        types = definition.types
        if self._linux_btf is None:
            types = None
        elif types is not None:
            types = MapTypes(self._linux_btf, types.key, types.value)
        elif (id := self._section_types.get(definition.section, 0)) and definition.name == definition.section:
            types = MapTypes(self._linux_btf, 0, id)
        if (types, inner) == (definition.types, definition.inner):
            return definition
        return replace(definition, types=types, inner=inner)

    def _fill(self) -> None:
        """Write the file's data, and the configuration, into the maps of variables."""
        maps = {index: self.order[number] for index, number in self._whole.items()}
        starts = {index: map_.value_address for index, map_ in maps.items()}
        variables.fill(self.file, maps, starts)
        if self.externs.variables:
            memory = variables.contents(self.by_name[KCONFIG])
            for variable in self.externs.variables.values():
                memory[variable.offset : variable.offset + len(variable.data)] = variable.data

    def globals(self) -> Globals:
        """Return the variables of all sections."""
        maps = {index: self.order[number] for index, number in self._whole.items()}
        found = variables.find_variables(self.file, self.btf, maps)
        for name, variable in self.externs.variables.items():
            size, kconfig = len(variable.data), self.by_name[KCONFIG]
            found.setdefault(name, GlobalVariable(name, kconfig, variable.offset, size, variable.type))
        return Globals(found, self.btf)

    def place(self, section: Section, offset: int) -> Place:
        """Return what stands at `offset` bytes of a section; raises LookupError saying what is wrong."""
        number = self._whole.get(section.index)
        if number is not None:
            if not 0 <= offset <= section.size:
                raise LookupError(f"which ends at {section.size:#x}")
            return Place(number, offset)
        number = self._starts.get((section.index, offset))
        if number is None:
            known = section.name == ".maps" or is_legacy(section)
            raise LookupError("where no map starts" if known else "which holds neither maps nor variables")
        return Place(number, None)

    def extern(self, symbol: Symbol, addend: int) -> Place | None:
        """Return the place of a variable of .kconfig, None for another symbol."""
        variable = self.externs.variables.get(symbol.name)
        if variable is None:
            return None
        return Place(self._kconfig, variable.offset + addend)

    def _numbers_in(self, section: Section) -> set[int]:
        """Return the numbers of the sections of variables that a section's data points into."""
        targets = (r.symbol.section for r in self.file.relocations.get(section.index, ()))
        return {self._whole[t.index] for t in targets if t is not None and t.index in self._whole}

    def reachable(self, numbers: set[int]) -> list[int]:
        """Return the numbers of these maps, and of those that pointers in their data lead to."""
        found, new = set(numbers), set(numbers)
        while new:
            steps = sum(len(self._pointed.get(number, ())) for number in new)
            self.file.budget.spend(STEP * (len(new) + steps), "what variables point to")
            new = {n for number in new for n in self._pointed.get(number, ())} - found
            found |= new
        return sorted(found)
