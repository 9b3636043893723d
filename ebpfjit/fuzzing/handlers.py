"""What program arrays hold when a search begins, so far as a saved test has to put it there."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from ebpfjit.program import Program
from ebpfjit.record import dataclass
from ebpfjit.runtime.maps.definition import MapType


@dataclass(frozen=True)
class Handler:
    """One entry of a program array: at an `index` the program of a `name`, "" where it is empty.

    `code` are the bytes of a program that is of no object, `is_foreign` is true for one of another object,
    which is in the `file`, "" where nothing tells.
    """

    array: str
    index: int
    name: str
    code: bytes = b""
    is_foreign: bool = False
    file: str = ""


def handlers_of(program: Program, maps: Iterable[Any]) -> list[Handler]:
    """Return the entries of a program's arrays that are not there as soon as its object is loaded."""
    found = []
    for map_ in maps:
        definition = map_.definition
        if definition.type != MapType.PROG_ARRAY:
            continue
        now = {int.from_bytes(key, "little"): each for key, each in map_.items()}
        before = {index: name for index, name in definition.values if index < definition.max_entries}
        found += [
            _handler(program, definition.name, index, each)
            for index, each in sorted(now.items())
            if each.name != before.get(index, "").rpartition(":")[2]  # ":" behind where it stands
            or _is_of_another(program, each)
        ]
        found += [Handler(definition.name, index, "") for index in sorted(before.keys() - now.keys())]
    return found


def _handler(program: Program, array: str, index: int, held: Program) -> Handler:
    name = held.name or ""
    if held.section is None:
        return Handler(array, index, name, held.to_bytes(), is_foreign=bool(held.maps))
    if not _is_of_another(program, held):
        return Handler(array, index, name)
    return Handler(array, index, name, is_foreign=True, file=held.origin or "")


def _is_of_another(program: Program, held: Program) -> bool:
    """True for a program of another object than `program` is of: by their files, or else by their types."""
    if held.origin is not None and program.origin is not None:
        return held.origin != program.origin
    btf, own = (None if each.types is None else each.types.btf for each in (held, program))
    return btf != own
