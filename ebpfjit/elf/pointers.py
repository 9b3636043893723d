"""What the data of a section of variables points to: other variables, functions, and what it cannot.

.data + 16   R_BPF_64_ABS64 .rodata.str1.1   the address of a string, filled in
.rodata + 8  R_BPF_64_ABS64 .text            a function: each program that reads the table has it in one place
.data + 24   R_BPF_64_ABS64 .maps            refused: programs that use the variable are not run
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Container

from ebpfjit.elf.budget import ERROR_COST, STEP
from ebpfjit.elf.reader import ObjectFile, Relocation, Section, Symbol
from ebpfjit.elf.relocation import R_BPF_64_ABS64, R_BPF_NONE, UNSUPPORTED_NAMES
from ebpfjit.errors import LoadError
from ebpfjit.record import dataclass, field

POINTER_SIZE = 8
MOST_REFUSED = 64
"""Pointers of a section that are refused each by itself; where there are more, the section is."""


@dataclass(frozen=True, slots=True)
class RefusedRange:
    """Bytes of a section of variables that cannot be what they were meant to be, and why.

    `name` is the variable's, or the section's where all of it is meant.
    """

    name: str
    start: int
    end: int
    error: LoadError


@dataclass(frozen=True, slots=True)
class FunctionPointer:
    """A pointer at `offset` of a section of variables, to byte `target` of a section of instructions.

    `variable` is its name, for a message; `start` and `end` are the variable's.
    """

    offset: int
    section: Section
    target: int
    variable: RefusedRange


@dataclass(slots=True)
class Pointers:
    """What one section points to; `sections` are the indices of those that hold variables."""

    sections: set[int] = field(default_factory=set)
    functions: list[FunctionPointer] = field(default_factory=list)
    refused: list[RefusedRange] = field(default_factory=list)


def find_pointers(file: ObjectFile, section: Section, whole: Container[int]) -> Pointers:
    """Return what a section of variables points to; `whole` are the indices of all such sections."""
    found = Pointers()
    relocations = file.relocations.get(section.index, ())
    if not relocations:
        return found
    names = _Variables(file, section)
    for relocation in relocations:
        if relocation.type == R_BPF_NONE:
            continue
        symbol, target = relocation.symbol, relocation.symbol.section
        reason = _refusal(relocation, section)
        if reason is None and target is not None:
            if target.index in whole:
                found.sections.add(target.index)
            elif target.is_program:
                at = symbol.value + (relocation.addend or pointer_in(section, relocation.offset))
                text = f"points into section {target.name!r}, where no function starts that programs may call"
                found.functions.append(
                    FunctionPointer(relocation.offset, target, at, names.refuse(relocation.offset, text))
                )
            else:
                reason = f"points to {symbol} in section {target.name!r}, which programs cannot follow"
        if reason is not None and len(found.refused) <= MOST_REFUSED:
            found.refused.append(names.refuse(relocation.offset, reason))
    if len(found.refused) > MOST_REFUSED:
        found.refused = [RefusedRange(section.name, 0, section.size + 1, found.refused[0].error)]
    return found


def pointer_in(section: Section, offset: int) -> int:
    """Return the addend of a pointer: what the file has there, 0 in a section without data (.bss)."""
    return int.from_bytes(section.data[offset : offset + POINTER_SIZE], "little")


def _refusal(relocation: Relocation, section: Section) -> str | None:
    """Return what is wrong with a relocation of data itself, None where nothing is."""
    symbol = relocation.symbol
    if relocation.type != R_BPF_64_ABS64:
        name = UNSUPPORTED_NAMES.get(relocation.type, f"type {relocation.type}")
        return f"needs relocation {name} against {symbol}, which is not supported in data"
    if relocation.offset + POINTER_SIZE > section.size:
        return f"ends in the middle of a pointer to {symbol}"
    if symbol.section is None and not symbol.is_weak:
        return f"points to {symbol}, which is not defined in this file"
    return None


class _Variables:
    """The variables of a section, found by offset."""

    def __init__(self, file: ObjectFile, section: Section) -> None:
        self.file = file
        self.section = section
        file.budget.spend(STEP * len(file.symbols), "variables with pointers")
        here = [
            symbol
            for symbol in file.symbols
            if symbol.section is not None
            and symbol.section.index == section.index
            and symbol.name
            and symbol.type in ("STT_OBJECT", "STT_NOTYPE")
        ]
        self.symbols: list[Symbol] = sorted(here, key=lambda symbol: symbol.value)

    def refuse(self, offset: int, reason: str) -> RefusedRange:
        """Return the variable at an offset, or the whole section, with an error that names it."""
        index = bisect_right(self.symbols, offset, key=lambda symbol: symbol.value) - 1
        symbol = self.symbols[index] if index >= 0 else None
        where = f"{self.file.name}: section {self.section.name!r}"
        if symbol is None or (symbol.size and offset >= symbol.value + symbol.size):
            message = f"{where}: the data at {offset:#x} {reason}"
            return self._range(self.section.name, 0, self.section.size + 1, message)
        end = symbol.value + symbol.size if symbol.size else self.section.size
        message = f"{where}: variable {symbol.name!r}, byte {offset - symbol.value:#x}, {reason}"
        return self._range(symbol.name, symbol.value, end, message)

    def _range(self, name: str, start: int, end: int, message: str) -> RefusedRange:
        self.file.budget.spend(ERROR_COST + len(message), "pointers among the variables")
        return RefusedRange(name, start, end, LoadError(message))
