"""Maps of maps in the kernel that are kept from one run to the next: each store in one waits for the kernel.

bpf(2) waits for all programs that may still see the map that was there before (maybe_wait_bpf_programs),
some 10 ms each time. Programs cannot store in a map of maps, so that it is the same after a run; the maps
inside are filled anew.
"""

from __future__ import annotations

import os
from typing import Any

from ebpfjit.kernel.objects import KernelMap
from ebpfjit.record import dataclass
from ebpfjit.runtime.maps.definition import MapDefinition, MapType

MOST_KEPT = 8
_EMPTIED = (MapType.HASH, MapType.ARRAY, MapType.PERCPU_HASH, MapType.PERCPU_ARRAY, MapType.LPM_TRIE)
"""Maps inside that can be made as new."""

Shape = tuple[object, ...]


@dataclass(frozen=True, slots=True)
class OfMaps:
    """A map of maps in the kernel, and the maps inside by their keys."""

    shape: Shape
    outer: KernelMap
    inside: dict[bytes, KernelMap]

    def close(self) -> None:
        """Close all of them."""
        for made in (self.outer, *self.inside.values()):
            made.close()


def shape_of(map_: Any) -> Shape | None:
    """Return what two maps of maps must have in common; None for one that is made anew each time."""
    inside = {key: inner.definition for key, inner in map_.items() if inner is not None}
    addresses = {inner.address for inner in map_.inner_maps}
    plain = all(each.types is None and each.type in _EMPTIED for each in inside.values())
    if not inside or not plain or len(addresses) < len(inside):
        return None
    template: MapDefinition | None = map_.definition.inner
    if template is None or template.types is not None or map_.definition.is_readonly:
        return None
    known = (_sizes(map_.definition), _sizes(template))
    return (*known, *((key, _sizes(each)) for key, each in sorted(inside.items())))


def _sizes(d: MapDefinition) -> Shape:
    return d.name, d.type, d.key_size, d.value_size, d.max_entries, d.flags, d.extra, d.is_readonly


_kept: list[OfMaps] = []
os.register_at_fork(after_in_child=_kept.clear)  # a child would disturb its parent's runs


def take(shape: Shape) -> OfMaps | None:
    """Return one of this shape that no run uses, None where there is none."""
    for made in list(_kept):
        if made.shape == shape:
            try:
                _kept.remove(made)
            except ValueError:  # another thread was faster
                continue
            return made
    return None


def give_back(made: OfMaps) -> None:
    """Keep one for runs to come."""
    _kept.append(made)
    while len(_kept) > MOST_KEPT:
        _kept.pop(0).close()
