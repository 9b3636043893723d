"""What a struct that programs get is made of: fields, and what programs may do to each.

The structs are in `ebpfjit/runtime/contexts/structs.py`.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator, Mapping
from functools import cached_property
from typing import Any

from ebpfjit.errors import InputError
from ebpfjit.record import dataclass, replace
from ebpfjit.runtime.rights import SIZES, Rights, table_of

_CODES = {1: "B", 2: "H", 4: "I", 8: "Q"}


Hook = int | str
"""For whose programs an access is: an attach type (enum bpf_attach_type), or the name of a program type."""


@dataclass(frozen=True, slots=True)
class Access:
    """What programs may load, or store (`stores`), of a struct's bytes from `start` to `stop`.

    `sizes` is the sum of the sizes that an access may have (1, 2, 4, 8). One lies at a multiple of its size,
    and of `alignment`. `hooks` are those whose programs may do it (none: all).
    """

    start: int
    stop: int
    sizes: int
    alignment: int = 1
    stores: bool = False
    hooks: frozenset[Hook] = frozenset()

    def places(self) -> Iterator[tuple[int, int, bool]]:
        """Yield each access: its offset, its size, whether it stores."""
        for size in SIZES:
            step = max(size, self.alignment)
            if self.sizes & size:
                for offset in range(-(-self.start // step) * step, self.stop - size + 1, step):
                    yield offset, size, self.stores


@dataclass(frozen=True, slots=True)
class Field:
    """One field: `offset` and `size` of an element in bytes, `count` elements (0: no array).

    `accesses` are those that Linux allows (none: not said). A `pointer` says to what it points: "sock" (a
    bpf_sock), "start" or "end" (of the bytes that come with the struct). `alias` is true
    for another name of a field.
    """

    name: str
    offset: int
    size: int = 4
    count: int = 0
    accesses: tuple[Access, ...] = ()
    pointer: str = ""
    alias: bool = False

    @property
    def stop(self) -> int:
        """The offset behind the field."""
        return self.offset + self.size * (self.count or 1)

    def accesses_at(self, hook: Hook) -> tuple[Access, ...]:
        """Return what programs of one hook may do to the field."""
        kept = (each for each in self.accesses if not each.hooks or hook in each.hooks)
        return tuple(replace(each, hooks=frozenset()) for each in kept)

    def read(self, memory: memoryview) -> int | tuple[int, ...]:
        """Return the field's value from the struct's bytes, unsigned."""
        if not self.count:
            return int.from_bytes(memory[self.offset : self.stop], "little")
        starts = range(self.offset, self.stop, self.size)
        return tuple(int.from_bytes(memory[start : start + self.size], "little") for start in starts)

    def encode(self, value: Any) -> bytes:
        """Return the field's bytes. Raises InputError for a value that does not fit."""
        if self.count:
            values = list(value) if isinstance(value, Iterable) else None
            if values is None or len(values) > self.count:
                raise InputError(f"context field {self.name} takes up to {self.count} numbers, not {value!r}")
            values += [0] * (self.count - len(values))
            return b"".join(self._number(item) for item in values)
        return self._number(value)

    def _number(self, value: Any) -> bytes:
        bits = 8 * self.size
        if not isinstance(value, int) or not -(1 << bits - 1) <= value < 1 << bits:
            raise InputError(f"context field {self.name} takes numbers of {bits} bits, not {value!r}")
        return (value & (1 << bits) - 1).to_bytes(self.size, "little")


@dataclass(frozen=True)
class Struct:
    """A context's struct: its size in bytes and its fields in order.

    `whose` names the programs that `at_hook` tells apart.
    """

    name: str
    size: int
    fields: tuple[Field, ...]
    whose: str = "this attach type"

    @cached_property
    def by_name(self) -> dict[str, Field]:
        """The fields by their names."""
        return {field.name: field for field in self.fields}

    @cached_property
    def _layout(self) -> tuple[struct.Struct, tuple[tuple[str, int, int], ...]]:
        """All fields as one format, and for each its name, first item and count of items."""
        form, places, items, at = "<", [], 0, 0
        for field in (field for field in self.fields if not field.alias):
            form += f"{field.offset - at}x{field.count or 1}{_CODES[field.size]}"
            places.append((field.name, items, field.count))
            items, at = items + (field.count or 1), field.stop
        return struct.Struct(f"{form}{self.size - at}x"), tuple(places)

    def read(self, memory: memoryview) -> dict[str, int | tuple[int, ...]]:
        """Return the values of all fields."""
        layout, places = self._layout
        items = layout.unpack(memory)
        return {name: items[at : at + count] if count else items[at] for name, at, count in places}

    @cached_property
    def shown(self) -> tuple[Field, ...]:
        """What results name: all that is no address, aliases only where they are a part of a field."""
        whole = {(field.offset, field.count) for field in self.fields if not field.alias}
        return tuple(
            field
            for field in self.fields
            if not field.pointer and not (field.alias and (field.offset, field.count) in whole)
        )

    @cached_property
    def rights(self) -> Rights:
        """What programs may do, as engines look it up."""
        accesses = (access for field in self.fields for access in field.accesses)
        places = (place for access in accesses for place in access.places())
        fields = sorted((field for field in self.fields if not field.alias), key=lambda field: field.offset)
        names = tuple((field.name, field.offset, field.stop) for field in fields)
        return Rights(self.name, table_of(self.size, places), names, self.whose)

    def at_hook(self, hook: Hook) -> Struct:
        """Return the struct with what programs of one hook may do to it."""
        kept = tuple(replace(field, accesses=field.accesses_at(hook)) for field in self.fields)
        return self if kept == self.fields else replace(self, fields=kept)

    def allows(self, offset: int, size: int, *, store: bool) -> bool:
        """True where Linux takes an access of `size` bytes at `offset` of the struct."""
        return self.rights.allows(offset, size, store=store)

    def settings(self, given: Mapping[str, Any], settable: tuple[str, ...]) -> dict[str, Any]:
        """Return the values of fields that can be set; others may be 0, as for BPF_PROG_TEST_RUN.

        Raises InputError for the first that is not.
        """
        settings: dict[str, Any] = {}
        for name, value in given.items():
            field = self.by_name.get(name)
            if field is not None and name in settable:
                settings[name] = value
            elif field is None or any(field.encode(value)):
                what = "cannot be set" if field is not None else "is not there"
                can = ", ".join(settable) or "none"
                raise InputError(f"field {name!r} of {self.name} {what}; those that can be set: {can}")
        return settings
