"""The maps of an object, made: those it defines, its sections of variables, .kconfig.

.maps + 32       -> the map defined there          LDDW_MAP_IDX        program.maps[imm]
.rodata + 8      -> byte 8 of the map ".rodata"    LDDW_MAP_IDX_VALUE  program.maps[imm], 8
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator

from ebpfjit.elf import globals as variables
from ebpfjit.elf.arenas import ArenaVariables, first_arena
from ebpfjit.elf.btf import Btf
from ebpfjit.elf.budget import STEP, OverBudget
from ebpfjit.elf.externs import KCONFIG, Externs
from ebpfjit.elf.given import GivenMaps
from ebpfjit.elf.globals import Globals, GlobalVariable
from ebpfjit.elf.linux_btf import section_types
from ebpfjit.elf.maps import DefinedMap, find_maps, is_legacy
from ebpfjit.elf.pointers import FunctionPointer, RefusedRange, find_pointers
from ebpfjit.elf.reader import ObjectFile, Section, Symbol
from ebpfjit.errors import LoadError, MapRefused
from ebpfjit.record import dataclass, replace
from ebpfjit.runtime.maps.base import Map
from ebpfjit.runtime.maps.definition import MapDefinition, MapType, MapTypes
from ebpfjit.runtime.maps.refused import RefusedMap

Create = Callable[[MapDefinition], Map]


JUMP_TABLES = ".jumptables"
"""Where LLVM 22 puts the targets of gotox."""


OPEN_SIZES = ("max_entries", "value_size", "key_size")
"""What an object may leave to whoever loads it, as messages call it."""


@dataclass(frozen=True, slots=True)
class Place:
    """What an instruction refers to: a map, or a byte of its only value.

    `number` counts the object's maps; `offset` is None where the map itself is meant.
    """

    number: int
    offset: int | None


class ObjectMaps:
    """The maps of one object; `by_name` and `order` hold all of them, in file order.

    A map that is not to be had is a RefusedMap; the others are as good as before. `reused` are the names of
    those that were there before the object was, `damage` is what is wrong with its types.
    """

    def __init__(
        self,
        file: ObjectFile,
        btf: Btf | None,
        externs: Externs,
        create: Create,
        given: GivenMaps | None = None,
        linux_btf: bytes | None = None,
    ) -> None:
        self._linux_btf = linux_btf
        self._section_types = section_types(btf, linux_btf)
        self.file = file
        self.btf = btf
        self.externs = externs
        self.given = given or GivenMaps(file.name)
        self.defined = find_maps(file, btf)
        sections = variables.find_sections(file)
        self.sections = [section for section in sections if section.name != variables.ARENA_SECTION]
        self.order: list[Map] = []
        self.by_name: dict[str, Map] = {}
        self.reused: set[str] = set()
        self._create = create
        self._starts: dict[tuple[int, int], int] = {}
        self._whole: dict[int, int] = {}
        self.damage = externs.damage
        self._kconfig = 0
        self._pointed: dict[int, set[int]] = {}
        self._ranges: dict[int, dict[tuple[int, int], RefusedRange]] = {}
        self._told: set[str] = set()
        self.function_pointers: dict[int, list[FunctionPointer]] = {}
        definitions = [self._with_types(variables.define(file, section, btf)) for section in self.sections]
        for defined in self.defined:
            self._starts[defined.section.index, defined.offset] = len(self.order)
            self._add_defined(defined)
        self._arena = ArenaVariables(file, sections, self.order)
        for section, definition in zip(self.sections, definitions, strict=True):
            self._whole[section.index] = len(self.order)
            self.given.refuse_section(definition.name)
            self._add(self.given.find(definition)[1] or self._made(definition), definition)
        if externs.definition is not None:
            self._kconfig = len(self.order)
            self.given.refuse_section(KCONFIG)
            self._add(
                self.given.find(externs.definition)[1] or self._made(externs.definition), externs.definition
            )
        self.given.refuse_unknown(self.by_name)
        self._find_pointers()
        self._fill()

    def _where(self, definition: MapDefinition) -> str:
        return f"{self.file.name}: section {definition.section!r}"

    def _add_defined(self, defined: DefinedMap) -> None:
        """Add a map that the object defines; what it lacks is kept in its place."""
        definition = self._with_types(defined.definition)
        refusal, map_ = defined.refusal, None
        if definition.type == MapType.ARENA and (first := first_arena(self.order)) is not None:
            other = self.order[first].name
            where = f"{self._where(definition)}: map {definition.name!r}"
            refusal = LoadError(f"{where}: an object has one arena, which is {other!r}")
        if refusal is None:
            definition, map_ = self.given.find(definition)
        if map_ is not None:
            self.reused.add(definition.name)
        elif refusal is None:
            try:
                map_ = self._made(definition)
            except MapRefused as error:
                if error.errno == errno.ENOMEM:
                    raise  # the machine lacks it, not the object
                refusal = error
        self._add(map_ or RefusedMap(definition, refusal or LoadError("")), definition)

    def _made(self, definition: MapDefinition) -> Map:
        """Return a new map. Raises MapRefused naming its section."""
        try:
            return self._create(definition)
        except MapRefused as error:
            open_size = next((size for size in OPEN_SIZES if f"{size} is 0" in str(error)), None)
            size = "n" if open_size == "max_entries" else f"{{{open_size!r}: n}}"
            advice = f"; give one with load(..., maps={{{definition.name!r}: {size}}})" if open_size else ""
            raise MapRefused(f"{self._where(definition)}: {error}{advice}", error.errno) from error

    def _add(self, map_: Map, definition: MapDefinition) -> None:
        if definition.name in self.by_name:
            where = self._where(definition)
            raise LoadError(
                f"{where}: map {definition.name!r}: a second map of that name; rename one of them"
            )
        self.by_name[definition.name] = map_
        self.order.append(map_)

    def _find_pointers(self) -> None:
        """Find out what the data of sections of variables points to."""
        for section in self.sections:
            number = self._whole[section.index]
            found = find_pointers(self.file, section, self._whole)
            self._pointed[number] = {self._whole[index] for index in found.sections}
            for refused in found.refused:
                self.refuse_range(number, refused)
            if found.functions:
                self.function_pointers[number] = found.functions

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
        starts = {index: map_.value_address for index, map_ in maps.items()} | self._arena.starts
        new = {index: map_ for index, map_ in maps.items() if map_.name not in self.given.maps}
        variables.fill(self.file, new, starts, maps)
        self._arena.fill(starts, self.given.maps)
        if self.externs.variables and KCONFIG not in self.given.maps:
            memory = variables.contents(self.by_name[KCONFIG])
            for variable in self.externs.variables.values():
                memory[variable.offset : variable.offset + len(variable.data)] = variable.data

    def globals(self) -> Globals:
        """Return the variables of all sections."""
        maps = {index: self.order[number] for index, number in self._whole.items()} | self._arena.maps
        try:
            found = variables.find_variables(self.file, self.btf, maps)
        except OverBudget:
            raise
        except LoadError as error:
            self.damage = error
            found = variables.find_variables(self.file, None, maps)
        for name, variable in self.externs.variables.items():
            size, kconfig = len(variable.data), self.by_name[KCONFIG]
            found.setdefault(
                name,
                GlobalVariable(name, kconfig, variable.offset, size, variable.type, variable.refusal),
            )
        return Globals(found, self.btf)

    def takes(self, name: str) -> bool:
        """True where the object fills a map; maps of maps that were there before stay as they are."""
        return name not in self.reused or self.by_name[name].definition.type == MapType.PROG_ARRAY

    def place(self, section: Section, offset: int) -> Place:
        """Return what stands at `offset` bytes of a section; raises LookupError saying what is wrong."""
        number = self._whole.get(section.index)
        if number is not None:
            if not 0 <= offset <= section.size:
                raise LookupError(f"which ends at {section.size:#x}")
            return Place(number, offset)
        if section.name == variables.ARENA_SECTION:
            return Place(self._arena.number_for(section, offset), offset)
        number = self._starts.get((section.index, offset))
        if number is None:
            if section.name == JUMP_TABLES:
                raise LookupError(
                    "which is a table of jumps: there is no gotox here; -fno-jump-tables does without"
                )
            known = section.name == ".maps" or is_legacy(section)
            raise LookupError("where no map starts" if known else "which holds neither maps nor variables")
        return Place(number, None)

    def extern(self, symbol: Symbol, addend: int) -> Place | None:
        """Return the place of a variable of .kconfig, None for another symbol."""
        variable = self.externs.variables.get(symbol.name)
        if variable is None:
            return None
        return Place(self._kconfig, variable.offset + addend)

    def refuse_range(self, number: int, refused: RefusedRange) -> None:
        """Refuse a variable to whoever uses it; what it is refused for first is said."""
        self._ranges.setdefault(number, {}).setdefault((refused.start, refused.end), refused)

    @property
    def refused_ranges(self) -> Iterator[RefusedRange]:
        """The variables that do not point to what they were meant to, and that no program was refused for."""
        return (
            each
            for ranges in self._ranges.values()
            for each in ranges.values()
            if each.name not in self._told
        )

    def write(self, number: int, offset: int, data: bytes) -> None:
        """Write what the file cannot say into a section of variables; one that was given stays as it is."""
        map_ = self.order[number]
        if map_.name not in self.given.maps:
            variables.contents(map_)[offset : offset + len(data)] = data

    def refusal_at(self, place: Place) -> LoadError | None:
        """Return what stands in the way of using a place: what its map lacks, or the variable there."""
        refusal = self.order[place.number].refused
        if refusal is not None or place.offset is None:
            return refusal if isinstance(refusal, LoadError) else None
        ranges = self._ranges.get(place.number)
        if ranges is None:
            return None
        self.file.budget.spend(STEP * (len(ranges) // 16), "the variables that are refused")
        offset = place.offset
        return self._tell(next((each for each in ranges.values() if each.start <= offset < each.end), None))

    def refusal_inside(self, number: int) -> LoadError | None:
        """Return what stands in the way of using a section of variables whatever its variable is."""
        return self._tell(next(iter(self._ranges.get(number, {}).values()), None))

    def _tell(self, refused: RefusedRange | None) -> LoadError | None:
        """Return the error of a variable that somebody uses."""
        if refused is None:
            return None
        self._told.add(refused.name)
        return refused.error

    def reachable(self, numbers: set[int]) -> list[int]:
        """Return the numbers of these maps, and of those that pointers in their data lead to."""
        found, new = set(numbers), set(numbers)
        while new:
            steps = sum(len(self._pointed.get(number, ())) for number in new)
            self.file.budget.spend(STEP * (len(new) + steps), "what variables point to")
            new = {n for number in new for n in self._pointed.get(number, ())} - found
            found |= new
        return sorted(found)
