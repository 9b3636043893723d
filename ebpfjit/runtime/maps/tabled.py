"""Maps over a hash table that nobody sees: local storage, and the older storage of cgroups."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, ClassVar

from ebpfjit.runtime.environment import Environment
from ebpfjit.runtime.maps.definition import MapDefinition
from ebpfjit.runtime.maps.flat import value_stride
from ebpfjit.runtime.maps.hash import HashMap
from ebpfjit.runtime.maps.mapping import KeyedMap
from ebpfjit.runtime.maps.special import SpecialField

if TYPE_CHECKING:
    from ebpfjit.runtime.owned import Holder

MOST_OWNERS, FEWEST_OWNERS = 1 << 12, 1 << 6
MEMORY_WANTED = 1 << 22


def capacity_of(definition: MapDefinition) -> int:
    """Return how many owners have room in a map: 4096 where values are small, 64 of the largest."""
    return max(FEWEST_OWNERS, min(MOST_OWNERS, MEMORY_WANTED // value_stride(definition)))


class TabledMap(KeyedMap):
    """A map whose values are a hash table's, made as `hidden` says; programs cannot go through it."""

    carried: ClassVar[tuple[str, ...]] = ("table_contents",)
    value_is_stable = True

    def __init__(self, definition: MapDefinition, hidden: MapDefinition, environment: Environment) -> None:
        self.definition = definition
        self._table = HashMap(hidden, environment)
        self._storage = self._table.storage
        self.address = self._table.address
        self.regions = self._table.regions

    @property
    def holder(self) -> Holder | None:
        """The objects that hang in the values: the table lets go of them with each value."""
        return self._table.holder

    @holder.setter
    def holder(self, holder: Holder | None) -> None:
        self._table.holder = holder

    @property
    def table_contents(self) -> dict[str, Any]:
        """What a copy has of the table beside its memory; setting it is taking that over."""
        return self._table.contents()

    @table_contents.setter
    def table_contents(self, contents: dict[str, Any]) -> None:
        self._table.take_contents(contents)

    @property
    def header_size(self) -> int:
        """The header of the table."""
        return self._table.header_size

    @property
    def processors(self) -> tuple[int, int]:
        """How many processors there are values for, and which programs run on."""
        return self._table.processors

    def use_cpu(self, cpu: int) -> None:
        """Make `cpu` the processor whose values programs see."""
        self._table.use_cpu(cpu)

    def special_at(self, address: int) -> SpecialField | None:
        """Return the special field that starts at an address inside of the values."""
        return self._table.special_at(address)

    def entries(self) -> Iterator[tuple[bytes, int]]:
        """Yield nothing: programs cannot go through it."""
        return iter(())

    def lookup(self, key: bytes) -> int:
        """Return the address of the value under a key, 0 where there is none."""
        return self._table.lookup(key)

    def update(self, key: bytes, value: bytes, flags: int = 0) -> int:
        """Put a value in, that of the running processor; return 0 or a negative error number."""
        return self._table.update(key, value, flags)

    def delete(self, key: bytes) -> int:
        """Remove a key; return 0 or -ENOENT."""
        return self._table.delete(key)

    def _keys(self) -> Iterator[bytes]:
        return self._table._keys()

    def __len__(self) -> int:
        return len(self._table)

    def _get(self, key: bytes) -> Any:
        return self._table._get(key)

    def _put(self, key: bytes, value: Any, flags: int) -> int:
        return self._table._put(key, value, flags)

    def __repr__(self) -> str:
        return f"<{self.definition}: {len(self)} values of {self.definition.value_size} bytes>"
