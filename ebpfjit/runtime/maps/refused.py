"""The place of a map that an object defines and that is not to be had."""

from __future__ import annotations

from collections.abc import Iterator
from copy import copy
from typing import Any, NoReturn

from ebpfjit.errors import LoadError
from ebpfjit.runtime.maps.base import Map
from ebpfjit.runtime.maps.definition import MapDefinition


class RefusedMap(Map):
    """A map with a name and a definition, and nothing else: whatever is done with it raises `refused`."""

    regions = ()
    value_is_stable = False
    address = 0

    def __init__(self, definition: MapDefinition, refusal: LoadError) -> None:
        self.definition = definition
        self.refused = refusal

    def __reduce__(self) -> tuple[Any, ...]:
        return RefusedMap, (self.definition, self.refused)

    def _refuse(self, *_: Any, **__: Any) -> NoReturn:
        assert self.refused is not None  # it is there from the start
        raise copy(self.refused)

    @property
    def value_address(self) -> int:
        """No program that has it is run."""
        return 0

    def lookup(self, key: bytes) -> int:
        """Raise the refusal."""
        self._refuse()

    def update(self, key: bytes, value: bytes, flags: int = 0) -> int:
        """Raise the refusal."""
        self._refuse()

    def delete(self, key: bytes) -> int:
        """Raise the refusal."""
        self._refuse()

    def __len__(self) -> int:
        self._refuse()

    def __iter__(self) -> Iterator[bytes]:
        self._refuse()

    def __contains__(self, key: object) -> bool:
        self._refuse()

    __getitem__ = __setitem__ = __delitem__ = _refuse
    get = put = keys = items = values = pop = clear = push = peek = consume = events = _refuse
    typed = property(_refuse)

    def __repr__(self) -> str:
        return f"<{self.definition}: refused>"
