"""Maps: what programs keep between runs and share with Python.

definition.py   what a map is made from      rules.py     what the kernel refuses to make
base.py         a map as the engines see it  mapping.py   a map as Python sees it
storage.py      its memory                   account.py   how much all maps may have
create.py       from a definition to a map
flat.py  hash.py  lpm.py  slots.py  references.py  queues.py  events.py  user_ring.py  local_storage.py
                                                                             the kinds
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ebpfjit.once import import_alone
from ebpfjit.runtime.maps.definition import (
    BPF_ANY,
    BPF_EXIST,
    BPF_F_LOCK,
    BPF_NOEXIST,
    Codec,
    MapDefinition,
    MapFlag,
    MapType,
)

if TYPE_CHECKING:
    from ebpfjit.runtime.maps.account import set_map_memory_limit
    from ebpfjit.runtime.maps.base import Map
    from ebpfjit.runtime.maps.creation import create

_HOME = {"Map": "base", "create": "creation", "set_map_memory_limit": "account"}
"""What is imported when it is first used: most programs have no maps."""


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(import_alone(f"{__name__}.{_HOME[name]}"), name)
    return value


__all__ = [
    "BPF_ANY",
    "BPF_EXIST",
    "BPF_F_LOCK",
    "BPF_NOEXIST",
    "Codec",
    "Map",
    "MapDefinition",
    "MapFlag",
    "MapType",
    "create",
    "set_map_memory_limit",
]
