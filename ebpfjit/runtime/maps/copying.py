"""Maps in pickles and deep copies: a definition, what is in memory, and what Python keeps beside it.

copy of a map    its class and definition   made anew, at another address, empty
pages that are not zero    the memory, but for the header of addresses
pointers                   (where, the map, how far behind its start): written anew
contents                   what the class says is `carried`
"""

from __future__ import annotations

import struct
from copy import copy, deepcopy
from typing import TYPE_CHECKING, Any

from ebpfjit.bits import W64
from ebpfjit.errors import EbpfError, PicklingRefused
from ebpfjit.record import record, replace
from ebpfjit.runtime.environment import Environment
from ebpfjit.runtime.maps.storage import Storage, changing

if TYPE_CHECKING:
    from ebpfjit.runtime.maps.base import Map
    from ebpfjit.runtime.maps.definition import MapDefinition

_POINTER = struct.Struct("<Q")


@record
class Contents:
    """What a map holds, wherever it is: `pages` of each of its memories, `pointers`, what is `carried`."""

    pages: dict[str, dict[int, bytes]]
    pointers: tuple[tuple[int, Map, int], ...]
    carried: dict[str, Any]
    refused: EbpfError | None


def reduced(map_: Map) -> tuple[Any, ...]:
    """Return a map for pickle and `copy.deepcopy`. Raises PicklingRefused where it cannot be elsewhere."""
    return _made_anew, (type(map_), map_.definition, *map_.processors), contents_of(map_)


def contents_of(map_: Map) -> Contents:
    """Return what a map holds. Raises PicklingRefused where that cannot be told."""
    reason = map_.stays_because
    if reason:
        raise PicklingRefused(
            f"{map_.definition} cannot be copied or pickled: {reason}; load its object where it is used, in"
            " each worker, and carry over what you need of it"
        )
    with changing.held, map_.unchanged:
        pages = {name: memory.pages(map_.header_size) for name, memory in _memories(map_).items()}
        return Contents(pages, tuple(_pointers_of(map_)), copy(map_.contents()), map_.refused)


def restore(map_: Map, contents: Contents) -> None:
    """Have a map hold what it held when `contents_of` was asked, and nothing else.

    The maps and programs that it held are the same again, not copies of them.
    """
    for name, memory in _memories(map_).items():
        now = memory.pages(map_.header_size)
        memory.put({at: bytes(len(page)) for at, page in now.items() if at not in contents.pages[name]})
    held = [each for value in contents.carried.values() for each in _inside(value)]
    same = {id(each): each for each in held if hasattr(each, "maps") or hasattr(each, "inner_maps")}
    fill(map_, replace(contents, carried=deepcopy(contents.carried, same)))


def _inside(value: Any) -> list[Any]:
    """Return what is carried under a name, and what is in it where that is a table."""
    return [value, *value.values()] if isinstance(value, dict) else [value]


def _made_anew(kind: type[Map], definition: MapDefinition, cpus: int, cpu: int) -> Map:
    """Return a map as it was made, empty."""
    made: Map = kind(definition, Environment(cpus=cpus, cpu=cpu))  # type: ignore[call-arg]  # of all kinds
    return made


def fill(map_: Map, contents: Contents) -> None:
    """Put contents into a map that was made anew. What it points to is there, but may still be empty."""
    for name, memory in _memories(map_).items():
        memory.put(contents.pages[name])
    for offset, target, distance in contents.pointers:
        map_.regions[0].view[offset : offset + 8] = _POINTER.pack(W64.wrap(target.value_address + distance))
    map_.pointers = tuple((offset, target) for offset, target, _ in contents.pointers)
    map_.take_contents(contents.carried)
    map_.refused = contents.refused


def _memories(map_: Map) -> dict[str, Storage]:
    return {name: each for name, each in vars(map_).items() if isinstance(each, Storage)}


def _pointers_of(map_: Map) -> list[tuple[int, Map, int]]:
    """Return the loader's pointers that still lead into the map that they led to, and how far into it."""
    found = []
    for offset, target in map_.pointers:
        (address,) = _POINTER.unpack_from(map_.regions[0].view, offset)
        distance = address - target.value_address
        if 0 <= distance <= target.definition.value_size:
            found.append((offset, target, distance))
    return found
