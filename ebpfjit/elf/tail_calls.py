"""What is in program arrays and maps of maps from the start: `.values`, and conventions of section names.

iproute2, Cilium  "7/2"        index 2 of the program array whose definition has id 7
Cilium            "tail:calls/2", a BTF declaration tag of the function: index 2 of the map "calls"
kernel samples    "socket/2"   index 2 of the object's program array (kprobe/2 and so on too)
OVS               "tail-2"     index 2 of the map "tail_calls", or of the only program array
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from copy import copy
from functools import cache
from typing import Any

from ebpfjit.elf.btf import Btf, Kind
from ebpfjit.elf.maps import DefinedMap
from ebpfjit.errors import LoadError, MapError
from ebpfjit.once import import_alone
from ebpfjit.program import Program
from ebpfjit.record import dataclass
from ebpfjit.runtime.maps.base import Map
from ebpfjit.runtime.maps.definition import MapType

NUMBER = r"(?:0[xX][0-9a-fA-F]{1,8}|\d{1,11})"
IPROUTE2 = re.compile(rf"({NUMBER})/({NUMBER})", re.ASCII)
SAMPLES = re.compile(
    rf"(?:socket|kprobe|kretprobe|tracepoint|raw_tracepoint|xdp|perf_event|tc)/({NUMBER})", re.ASCII
)
OVS = re.compile(rf"tail-({NUMBER})", re.ASCII)
OVS_MAPS = ("tailcalls", "tail_calls")
CILIUM_MAPS = {1: "cilium_call_policy", 2: "cilium_calls", 3: "cilium_calls_custom"}
"""What Cilium's CILIUM_MAP_* are called, or start with, where definitions have no id."""
ALONE = -1
"""Stands for every id where the object has one program array, whose definition has none."""
INDEX = re.compile(r"\d{1,10}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Slot:
    """One value that the object puts into a map: a program or a map, by name."""

    map: str
    index: int
    name: str


def is_tail_section(section: str) -> bool:
    """True where a section's name is a number by convention and says nothing of a type."""
    return bool(IPROUTE2.fullmatch(section) or OVS.fullmatch(section))


def find_tags(btf: Btf | None) -> Iterator[Slot]:
    """Yield what declaration tags of functions say, in order of the tags. Raises LoadError for damage."""
    if btf is None:
        return
    place_of = cache(_place_of)
    for tag, text in btf.tags("tail:"):
        place = place_of(text)
        if place is not None and (function := btf.type(tag.target)).kind is Kind.FUNC:
            yield Slot(*place, function.name)


def _place_of(text: str) -> tuple[str, int] | None:
    """Return the map and the index that a tag names, None for one that names neither."""
    map_, _, index = text.rpartition("/")
    return (map_, int(index)) if map_ and "/" not in map_ and INDEX.fullmatch(index) else None


def find_slots(
    defined: Iterable[DefinedMap], programs: Mapping[str, Program], tags: Iterable[Slot] = ()
) -> Iterator[Slot]:
    """Yield what the object says that its maps hold; `tags` are those of its functions."""
    defined = list(defined)
    known = {map_.definition.name for map_ in defined}
    yield from (slot for slot in tags if slot.map in known)  # what is not there is filled by somebody else
    for map_ in defined:
        for index, name in map_.definition.values:
            yield Slot(map_.definition.name, index, name)
    arrays = [map_ for map_ in defined if map_.definition.type == MapType.PROG_ARRAY]
    taken = {map_.definition.name for map_ in arrays if map_.definition.values}
    names = [map_.definition.name for map_ in arrays]
    of_id = _of_ids(arrays)
    by_convention = next((name for name in OVS_MAPS if name in names), names[-1] if names else None)
    for name, program in programs.items():
        slot = _by_section(name, program, of_id, by_convention)
        if slot is not None and slot.map not in taken:
            yield slot


def _of_ids(arrays: list[DefinedMap]) -> dict[int, str]:
    """Return the names of program arrays by their ids, Cilium's by its numbers, and of one that is alone."""
    found: dict[int, str] = {}
    for number, name in CILIUM_MAPS.items():
        names = [map_.definition.name for map_ in arrays]
        longer = [each for each in names if each.startswith(f"{name}_") and each not in CILIUM_MAPS.values()]
        for fitting in ([each for each in names if each == name] or longer)[:1]:
            found[number] = fitting
    found |= {map_.id: map_.definition.name for map_ in reversed(arrays) if map_.id}
    if len(arrays) == 1 and not arrays[0].id:
        found[ALONE] = arrays[0].definition.name
    return found


def _by_section(
    name: str, program: Program, of_id: Mapping[int, str], by_convention: str | None
) -> Slot | None:
    """Return the slot that a program's section names, None where it names none; `name` is the program's.

    `of_id` are the names of the program arrays by iproute2's id, `by_convention` is that of all others.
    """
    section = program.section or ""
    if found := IPROUTE2.fullmatch(section):
        map_ = of_id.get(_number(found[1]), of_id.get(ALONE))
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


def fill(
    file: str, slots: Iterable[Slot], maps: Mapping[str, Any], programs: Mapping[str, Program]
) -> dict[str, LoadError]:
    """Put programs and maps where they belong. Return what is wrong, by the name of the map."""
    refusals: dict[str, LoadError] = {}
    for slot in slots:
        value = programs.get(slot.name) or maps.get(slot.name)
        where = f"{file}: map {slot.map!r}, index {slot.index}"
        if value is None:
            error = LoadError(f"{where}: there is no program or map {slot.name!r}")
            refusals.setdefault(slot.map, error)
            continue
        try:
            _put(maps[slot.map], slot.index, value)
        except (MapError, LoadError, LookupError, ValueError, TypeError) as error:
            reason = str(error).removeprefix(f"{file}: ")
            refusals.setdefault(slot.map, LoadError(f"{where}: {slot.name!r} does not fit: {reason}"))
    return refusals


def _put(array: Any, index: int, value: Any) -> None:
    """Put one value in; a program array that others use already takes it as it takes any."""
    import_alone("ebpfjit.runtime.maps.references")  # few objects fill maps from the start
    from ebpfjit.runtime.maps.references import ProgArray

    if isinstance(array, ProgArray) and isinstance(value, Program) and array.owner is None:
        array.fill(index, value)
    elif isinstance(value, Map) and value.refused is not None:
        raise copy(value.refused)
    else:
        array[index] = value
