"""Variables in an object's arena: the section .addr_space.1, which comes first in the arena's pages.

    .maps           arena: type 33, so many pages
    .addr_space.1   [ counter | list head | ... ]  ->  the arena's first bytes; pointers count from user_start

As libbpf does it in Linux 6.18 (init_arena_map_data); newer ones put them at the arena's end.
"""

from __future__ import annotations

import errno
from collections.abc import Container, Mapping, Sequence
from typing import TYPE_CHECKING, cast

from ebpfjit.elf import globals as variables
from ebpfjit.elf.reader import ObjectFile, Section
from ebpfjit.errors import MapError, MapRefused
from ebpfjit.runtime.maps.base import Map
from ebpfjit.runtime.maps.definition import MapType
from ebpfjit.runtime.maps.rules import PAGE_SIZE

if TYPE_CHECKING:
    from ebpfjit.runtime.maps.arena import Arena


def first_arena(maps: Sequence[Map]) -> int | None:
    """Return the number of the first arena that an object defines, None where it has none."""
    return next((n for n, map_ in enumerate(maps) if map_.definition.type == MapType.ARENA), None)


class ArenaVariables:
    """The section of an object's variables in its arena: `section`, None where there is none.

    `number` is that of the arena among the object's maps, `arena` the map, None where it is not to be had.
    """

    def __init__(self, file: ObjectFile, sections: Sequence[Section], order: Sequence[Map]) -> None:
        self.file = file
        self.section = next((each for each in sections if each.name == variables.ARENA_SECTION), None)
        self.number = first_arena(order)
        found = order[self.number] if self.number is not None else None
        self.arena = None if found is None or found.refused is not None else cast("Arena", found)
        self._is_refused = found is not None and self.arena is None
        self.lacks = self._lack()

    def _lack(self) -> str:
        """Return what is wrong with using the variables, "" where nothing is."""
        if self.section is None or self._is_refused:
            return ""  # a map that is refused says why by itself
        if self.arena is None:
            return "whose variables are in an arena, and .maps defines none"
        if self.section.size > variables.MAX_SECTION:
            return f"which has {self.section.size} bytes, at most {variables.MAX_SECTION} are supported"
        if self.section.size > self.arena.size:
            pages = -(-self.section.size // PAGE_SIZE)
            return (
                f"which has {self.section.size} bytes: map {self.arena.name!r} is too small for global"
                f" variables, make max_entries {pages} or more"
            )
        return ""

    @property
    def is_usable(self) -> bool:
        """True where there are variables, and an arena that has room for them."""
        return self.section is not None and self.arena is not None and not self.lacks

    @property
    def maps(self) -> dict[int, Map]:
        """The arena by the section's index, where it holds its variables."""
        if not self.is_usable or self.section is None or self.arena is None:
            return {}
        return {self.section.index: self.arena}

    @property
    def starts(self) -> dict[int, int]:
        """Where pointers to the section's variables count from, by its index."""
        return {index: map_.value_address for index, map_ in self.maps.items()}

    def number_for(self, section: Section, offset: int) -> int:
        """Return the number of the arena that an instruction refers to. Raises LookupError."""
        if self.lacks or self.number is None:
            raise LookupError(self.lacks or "whose variables are in an arena, and .maps defines none")
        if not 0 <= offset <= section.size:
            raise LookupError(f"which ends at {section.size:#x}")
        return self.number

    def fill(self, addresses: Mapping[int, int], given: Container[str]) -> None:
        """Write the section's data into the arena, but for one that was there before the object.

        Raises MapRefused where there is no memory for it.
        """
        if self.section is None or self.arena is None or not self.is_usable or self.arena.name in given:
            return
        try:
            memory = self.arena.first_bytes(self.section.size)
        except MapError as error:
            raise MapRefused(
                f"{self.file.name}: section {self.section.name!r}: {error}", errno.ENOMEM
            ) from error
        variables.write_section(self.file, self.section, memory, addresses)
