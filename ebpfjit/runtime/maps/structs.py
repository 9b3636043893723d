"""struct bpf_map, which programs read through the address of a map (Linux: CONST_PTR_TO_MAP).

    lddw r1, map[flows]     r1 --> [ map_type | key_size | ... | count ]    of the map "flows", read-only

Only a program whose types have the struct gets such addresses, each map's by the layout that the program's
kernel has. For any other the address of a map points to nothing that it may touch (`Map.address`).
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sized
from weakref import WeakKeyDictionary

from ebpfjit.once import ForkLock
from ebpfjit.record import dataclass
from ebpfjit.runtime.maps.base import Map
from ebpfjit.runtime.maps.bytecode import HASHES
from ebpfjit.runtime.memory import Region

COUNT_SIZE = 4
_making = ForkLock()
_ids = itertools.count(1)


@dataclass(frozen=True, slots=True)
class LaidOut:
    """The bytes of a map's struct; where the number of its entries stands in them, None for nowhere."""

    data: bytes
    count_at: int | None = None


@dataclass(frozen=True, slots=True)
class _Made:
    """The struct of a map, as one program sees it; `memory` is what its region shows."""

    region: Region
    memory: bytearray
    count_at: int | None


class MapStructs:
    """The structs of the maps that a program comes to; `lay_out` gives the bytes of one.

    Each stays where it is as long as its map, and the program.
    """

    def __init__(self, lay_out: Callable[[Map], LaidOut]) -> None:
        self._lay_out = lay_out

    def _of(self, map_: Map) -> _Made:
        known: WeakKeyDictionary[MapStructs, _Made] | None = map_.structs
        made = known.get(self) if known is not None else None
        if made is not None:
            return made
        with _making.held:
            if map_.structs is None:
                map_.structs = WeakKeyDictionary()
            made = map_.structs.get(self)
            if made is None:
                laid_out = self._lay_out(map_)
                memory = bytearray(laid_out.data)
                region = Region.of_buffer(f"struct bpf_map of {map_.definition}", memory)
                region.writable = False
                made = map_.structs[self] = _Made(region, memory, laid_out.count_at)
            return made

    def region_of(self, map_: Map) -> Region:
        """Return the memory of a map's struct, as it is now."""
        self.refresh(map_)
        return self._of(map_).region

    def address_of(self, map_: Map) -> int:
        """Return what the program has as the address of a map."""
        return self._of(map_).region.start

    def refresh(self, map_: Map) -> None:
        """Write down how many entries a map has now."""
        made = self._of(map_)
        if made.count_at is not None:
            made.memory[made.count_at : made.count_at + COUNT_SIZE] = entries_of(map_).to_bytes(4, "little")


def is_read(btf: bytes) -> bool:
    """True where types may have struct bpf_map: its name is among their strings."""
    return b"\0bpf_map\0" in btf or b"\0bpf_map___" in btf


def entries_of(map_: Map) -> int:
    """Return how many entries a map of a hash kind has; 0 for any other, as Linux counts no others."""
    return len(map_) if isinstance(map_, Sized) and map_.definition.type in HASHES else 0


def id_of(map_: Map) -> int:
    """Return a map's number in this process, from 1 on; it has one from when somebody asks."""
    if map_.id is None:
        with _making.held:
            map_.id = next(_ids) if map_.id is None else map_.id
    return map_.id
