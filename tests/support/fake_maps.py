"""Just enough of a map for the loader's tests: one value's memory; dictionaries otherwise."""

from __future__ import annotations

from itertools import count
from typing import Any

from ebpfjit.runtime.environment import Environment
from ebpfjit.runtime.maps.base import Map
from ebpfjit.runtime.maps.definition import MapDefinition
from ebpfjit.runtime.memory import Region

_addresses = count(0xEBF1_0000_0000_0000, 16)


class FakeMap(Map):
    value_is_stable = True

    def __init__(self, definition: MapDefinition) -> None:
        self.definition = definition
        self.address = next(_addresses)
        region = Region.of_buffer(definition.name, bytearray(min(definition.value_size, 1 << 20)))
        region.writable = not definition.is_readonly
        self.regions = (region,)
        self.content: dict[Any, Any] = {}

    def __setitem__(self, key: Any, value: Any) -> None:
        self.content[key] = value

    def lookup(self, key: bytes) -> int:
        return 0

    def update(self, key: bytes, value: bytes, flags: int = 0) -> int:
        return -1

    def delete(self, key: bytes) -> int:
        return -1


def create(definition: MapDefinition, *, environment: Environment) -> Map:
    return FakeMap(definition)
