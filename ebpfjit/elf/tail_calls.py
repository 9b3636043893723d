"""What is in program arrays and maps of maps from the start: `.values`, and conventions of section names.

iproute2          "7/2"        index 2 of the program array whose record has id 7
kernel samples    "socket/2"   index 2 of the object's program array (kprobe/2 and so on too)
OVS               "tail-2"     index 2 of the map "tail_calls", or of the only program array
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from ebpfjit.elf.maps import DefinedMap
from ebpfjit.errors import LoadError, MapError
from ebpfjit.program import Program
from ebpfjit.runtime.maps.definition import MapType
from ebpfjit.runtime.maps.references import ProgArray

NUMBER = r"(?:0[xX][0-9a-fA-F]+|\d+)"
IPROUTE2 = re.compile(rf"({NUMBER})/({NUMBER})", re.ASCII)
SAMPLES = re.compile(
    rf"(?:socket|kprobe|kretprobe|tracepoint|raw_tracepoint|xdp|perf_event|tc)/({NUMBER})", re.ASCII
)
OVS = re.compile(rf"tail-({NUMBER})", re.ASCII)
OVS_MAPS = ("tailcalls", "tail_calls")


@dataclass(frozen=True, slots=True)
class Slot:
    """One value that the object puts into a map: a program or a map, by name."""

    map: str
    index: int
    name: str


def is_tail_section(section: str) -> bool:
    """True where a section's name is a number by convention and says nothing of a type."""
    return bool(IPROUTE2.fullmatch(section) or OVS.fullmatch(section))


def find_slots(defined: Iterable[DefinedMap], programs: Mapping[str, Program]) -> Iterator[Slot]:
    """Yield what the object says that its maps hold."""
    defined = list(defined)
    for map_ in defined:
        for index, name in map_.definition.values:
            yield Slot(map_.definition.name, index, name)
    arrays = [map_ for map_ in defined if map_.definition.type == MapType.PROG_ARRAY]
    taken = {map_.definition.name for map_ in arrays if map_.definition.values}
    of_id = {map_.id: map_.definition.name for map_ in reversed(arrays)}
    names = [map_.definition.name for map_ in arrays]
    by_convention = next((name for name in OVS_MAPS if name in names), names[-1] if names else None)
    for program in programs.values():
        slot = _by_section(program, of_id, by_convention)
        if slot is not None and slot.map not in taken:
            yield slot


def _by_section(program: Program, of_id: Mapping[int, str], by_convention: str | None) -> Slot | None:
    """Return the slot that a program's section names, None where it names none.

    `of_id` are the names of the program arrays by iproute2's id, `by_convention` is that of all others.
    """
    section, name = program.section or "", program.name or ""
    if found := IPROUTE2.fullmatch(section):
        map_ = of_id.get(_number(found[1]))
        return Slot(map_, _number(found[2]), name) if map_ is not None else None
    found = SAMPLES.fullmatch(section) or OVS.fullmatch(section)
    if found is None or by_convention is None:
        return None
    return Slot(by_convention, _number(found[1]), name)


def _number(text: str) -> int:
    """Return a number as C's %i reads it: 0x10 is 16, 010 is 8."""
    if text.startswith("0") and text.isdigit() and not set(text) & set("89"):
        return int(text, 8)
    return int(text, 0) if not text.startswith("0") or "x" in text.lower() else int(text)


def fill(file: str, slots: Iterable[Slot], maps: Mapping[str, Any], programs: Mapping[str, Program]) -> None:
    """Put programs and maps where they belong. Raises LoadError naming the map and the index."""
    for slot in slots:
        value = programs.get(slot.name) or maps.get(slot.name)
        where = f"{file}: map {slot.map!r}, index {slot.index}"
        if value is None:
            raise LoadError(f"{where}: there is no program or map {slot.name!r}")
        try:
            array = maps[slot.map]
            if isinstance(array, ProgArray) and isinstance(value, Program):
                array.fill(slot.index, value)
            else:
                array[slot.index] = value
        except (MapError, LookupError, ValueError, TypeError) as error:
            raise LoadError(f"{where}: {slot.name!r} does not fit: {error}") from error
