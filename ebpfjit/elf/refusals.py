"""What parts of an object lack, by name: kept for whoever uses the part."""

from __future__ import annotations

from collections.abc import Callable, Container, Mapping
from copy import copy
from typing import TYPE_CHECKING, TypeVar

from ebpfjit.elf.budget import ENTRY_COST, ERROR_COST, OverBudget
from ebpfjit.elf.reader import ObjectFile, Symbol
from ebpfjit.errors import EbpfError, LoadError
from ebpfjit.program import Program
from ebpfjit.record import dataclass, field
from ebpfjit.runtime import faults
from ebpfjit.runtime.helpers.presence import missing

if TYPE_CHECKING:
    from ebpfjit.elf.memory import ObjectMaps

Made = TypeVar("Made")
MOST_SAID = 20
"""How many refusals a message lists."""


class _AllBut(Container[int]):
    """All numbers but some."""

    def __init__(self, numbers: Container[int]) -> None:
        self.numbers = numbers

    def __contains__(self, number: object) -> bool:
        return number not in self.numbers


_THERE = _AllBut(faults.POISON)


@dataclass(slots=True)
class Refusals:
    """The errors of an object's parts, by the part's name; of two for one name the first is kept."""

    file: ObjectFile
    found: dict[str, EbpfError] = field(default_factory=dict)

    def add(self, name: str, error: EbpfError | None) -> None:
        """Keep an error, where there is one."""
        if error is not None:
            self.file.budget.spend(ERROR_COST, "what is refused")
            self.found.setdefault(name, error)

    def attempt(self, name: str, make: Callable[[], Made], otherwise: Made) -> Made:
        """Return what `make` makes of the part called `name`, `otherwise` where it is refused."""
        try:
            return make()
        except OverBudget:
            raise
        except LoadError as error:
            self.add(name, error)
            return otherwise

    def add_maps(self, maps: ObjectMaps) -> None:
        """Keep what the maps and the variables of the configuration lack."""
        for map_ in maps.order:
            self.add(map_.name, map_.refused)
        for variable in maps.externs.variables.values():
            self.add(variable.name, variable.refusal)

    def add_variables(self, maps: ObjectMaps) -> None:
        """Keep which variables do not point to what they were meant to, where no program is refused for it.

        Code may get there through other pointers. libbpf looks at no pointers in data.
        """
        for each in maps.refused_ranges:
            self.add(each.name, each.error)

    def add_programs(self, programs: Mapping[str, Program]) -> None:
        """Keep what stands in the way of running each program, or of getting to its end."""
        for name, program in programs.items():
            lacking = (each for pc, each in program.unmet.items() if not program.has_variable(pc))
            refusal = program.refusal or next(lacking, None)
            if refusal is None and program.absent:
                call = next(iter(missing(program, _THERE).values()), None)
                refusal = faults.name_line(faults.helper_not_found(call), program) if call else None
            if refusal is not None:
                self.found[name] = refusal

    def add_untyped(self, programs: Mapping[str, Program]) -> None:
        """Keep that nothing tells the type of a program; functions of .text belong to other programs."""
        for name, program in programs.items():
            if program.type is None and program.section != ".text":
                where = f"{self.file.name}: section {program.section!r}: function {program.name!r}"
                given = f"load(..., types={{{name!r}: 'xdp'}})"
                self.add(
                    name,
                    LoadError(
                        f'{where}: its section tells no program type, as SEC("xdp") does; {given} says it'
                    ),
                )

    def add_damage(self, damage: LoadError | None) -> None:
        """Keep what was found wrong with the types."""
        self.add(".BTF", damage)

    def raise_all(self) -> None:
        """Raise all that is kept as one LoadError, of the kind of the first."""
        texts = list(dict.fromkeys(map(str, self.found.values())))
        if texts:
            first = next((each for each in self.found.values() if isinstance(each, LoadError)), None)
            error = copy(first) if first is not None else LoadError("")
            more = len(texts) - MOST_SAID
            error.args = ("; ".join(texts[:MOST_SAID]) + (f"; and {more} more" if more > 0 else ""),)
            raise error


def refuse_two_definitions(file: ObjectFile) -> None:
    """Raise LoadError where two global definitions have one name: which is meant, nobody can say."""
    file.budget.spend(ENTRY_COST * len(file.symbols), "symbols")
    first: dict[str, Symbol] = {}
    for symbol in file.symbols:
        if symbol.binding != "STB_GLOBAL" or symbol.section is None or not symbol.name:
            continue
        known = first.setdefault(symbol.name, symbol)
        if known is not symbol:
            raise LoadError(
                f"{file.name}: {symbol} is defined twice, {_place(known)} and {_place(symbol)}: rename one of"
                f" them, or make it static"
            )


def _place(symbol: Symbol) -> str:
    assert symbol.section is not None  # it is a definition
    return f"in section {symbol.section.name!r} at {symbol.value:#x}"
