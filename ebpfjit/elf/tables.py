"""Functions that variables point to: in each program that uses such a variable they are in the same place.

.rodata  table: R_BPF_64_ABS64 .text + 0, .text + 16     0: program | exit ... | more | thrice | the others
                                                                         ^ the same slot in all programs

A variable is there once for all programs of an object, and an address of code says which slot is meant.
"""

from __future__ import annotations

from bisect import bisect_left
from functools import cached_property
from typing import TYPE_CHECKING

from ebpfjit.elf.budget import SHARED, STEP
from ebpfjit.elf.pointers import POINTER_SIZE, FunctionPointer
from ebpfjit.runtime.execution import CODE_ADDRESS

if TYPE_CHECKING:
    from ebpfjit.elf.linker import Function, Linker


class FunctionTables:
    """The functions that an object's variables point to, in the order of the pointers, each once.

    Pointers that lead to no function's start, or to a program, are refused with their variable.
    """

    def __init__(self, linker: Linker) -> None:
        self._linker = linker
        self._users: dict[Function, bool] = {}
        self._aims: list[tuple[int, FunctionPointer, Function]] = []
        for number, pointers in linker.maps.function_pointers.items():
            for pointer in pointers:
                target = self._target(pointer)
                if target is None:
                    linker.maps.refuse_range(number, pointer.variable)
                else:
                    self._aims.append((number, pointer, target))
        self.functions = tuple(dict.fromkeys(target for _, _, target in self._aims))

    def _target(self, pointer: FunctionPointer) -> Function | None:
        """Return the function that a pointer leads to, None for one that cannot be followed."""
        functions = self._linker.functions.get(pointer.section.index, ())
        index = bisect_left(functions, pointer.target, key=lambda function: function.start)
        found = functions[index] if index < len(functions) else None
        if found is None or found.start != pointer.target or found in self._linker.entries:
            return None
        return found

    @cached_property
    def start(self) -> int:
        """The slot of the first of the functions: behind the longest program that uses a table."""
        users = (entry for entry in self._linker.entries if self.is_used_by(entry))
        return max((entry.slots for entry in users), default=0)

    def is_used_by(self, entry: Function) -> bool:
        """True for a program that refers to variables of a section with such pointers."""
        if not self.functions:
            return False
        known = self._users.get(entry)
        if known is None:
            linker = self._linker
            each = [linker.numbers_of(function) for function in linker.reaches(entry)]
            linker.file.budget.spend(STEP * sum(1 + len(numbers) // 8 for numbers in each), SHARED)
            numbers = set[int]().union(*each)
            with_tables = {number for number, _, _ in self._aims}
            known = self._users[entry] = bool(with_tables & {*linker.maps.reachable(numbers)})
        return known

    def fill(self) -> None:
        """Write where the functions are into the variables."""
        places: dict[Function, int] = {}
        end = self.start
        for function in self.functions:
            places[function] = end
            end += function.slots
        for number, pointer, target in self._aims:
            address = CODE_ADDRESS + places[target]
            self._linker.maps.write(number, pointer.offset, address.to_bytes(POINTER_SIZE, "little"))
