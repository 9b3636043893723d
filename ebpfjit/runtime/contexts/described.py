"""Contexts whose struct a program's types lay out: those of iterators, tracepoints, syscall programs.

[ struct ]    pointers are the kernel's, as the environment describes what is there
  | key   `--> [ bytes ]    of iterators: what the caller gives as bytes is memory of the program's own
  | value `--> [ bytes ]
  `- data[]                 an array at the end is as long as what the caller gives of it
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from ebpfjit.errors import InputError
from ebpfjit.record import dataclass, field
from ebpfjit.runtime.contexts.outcome import FieldValues, Outcome
from ebpfjit.runtime.contexts.packet import LARGEST_PACKET
from ebpfjit.runtime.contexts.plain import StructContext
from ebpfjit.runtime.contexts.types import ProgramType
from ebpfjit.runtime.maps.definition import Codec
from ebpfjit.runtime.memory import Region, flat_view

WRITABLE = ("value",)
"""Which bytes programs may write: values of maps (PTR_TO_BUF; keys are MEM_RDONLY)."""


class Place(Protocol):
    """Where a member of a struct stands, and how it reads (`ebpfjit.elf.codec`)."""

    def get(self, data: bytes) -> Any:
        """Return the member's value from the struct's bytes."""

    def put(self, data: bytearray, value: Any) -> None:
        """Write the member. Raises TypeError, or ValueError, for a value that it cannot have."""


@dataclass(frozen=True, slots=True)
class Tail:
    """An array without a length at the end of a struct: where it starts, how so many elements are `sized`."""

    name: str
    offset: int
    sized: Callable[[int], Codec]


@dataclass(frozen=True, slots=True)
class Layout:
    """A struct as BTF has it: bytes, and its members by name; which are `pointers`.

    `has_memory` is true where programs may follow them, to bytes that the caller gives. A context has `most`
    bytes at most, with the array at its end.
    """

    name: str
    size: int
    members: Mapping[str, Place]
    pointers: frozenset[str] = field(default=frozenset())
    tail: Tail | None = None
    has_memory: bool = False
    most: int = LARGEST_PACKET

    @property
    def names(self) -> list[str]:
        """What can be given."""
        return [*self.members, *([self.tail.name] if self.tail is not None else ())]

    def context(
        self, type_: ProgramType, data: bytes | memoryview, fields: Mapping[str, Any]
    ) -> DescribedContext:
        """Return a context of this struct. Raises InputError for fields that it cannot have."""
        return DescribedContext(type_, self, data, fields)


class DescribedContext(StructContext):
    """A struct of fields by their names, over the bytes that were given of it, or zeros.

    Raises InputError for fields, or values, that it cannot have.
    """

    def __init__(
        self, type_: ProgramType, layout: Layout, data: bytes | memoryview, fields: Mapping[str, Any]
    ) -> None:
        self.layout = layout
        self._payloads: dict[str, Region] = {}
        self._tail: Codec | None = None
        memory = bytearray(data)
        if data and len(data) < layout.size:
            raise InputError(
                f"{layout.name} has {layout.size} bytes, and {len(data)} were given: give all, or fields "
                "alone"
            )
        memory.extend(bytes(layout.size - len(data)) if len(data) < layout.size else b"")
        for name, value in fields.items():
            if name not in layout.names:
                raise InputError(
                    f"field {name!r} of {layout.name} is not there; it has: {', '.join(layout.names)}"
                )
            try:
                self._put(memory, name, value)
            except (TypeError, ValueError) as error:
                raise InputError(f"context field {name}: {error}") from None
        if len(memory) > layout.most:
            raise InputError(
                f"{layout.name} has {layout.most} bytes at most, and {len(memory)} were given (EINVAL)"
            )
        super().__init__(type_, bytes(memory))
        self.regions += self._payloads.values()

    def _put(self, memory: bytearray, name: str, value: Any) -> None:
        """Write a field, the array at the end behind all others."""
        tail = self.layout.tail
        if tail is None or name != tail.name:
            self.layout.members[name].put(memory, self._number(name, value))
            return
        content = value.encode() if isinstance(value, str) else value
        if not isinstance(content, Sequence):
            raise TypeError(f"{value!r} is no sequence of its elements")
        self._tail = tail.sized(len(content))
        memory[tail.offset : tail.offset + self._tail.size] = self._tail.encode(content)

    def _number(self, name: str, value: Any) -> Any:
        """Return what a field is: what was given, 0 for None, or where the bytes are."""
        if name not in self.layout.pointers or isinstance(value, int):
            return value
        if value is None:
            return 0
        if not self.layout.has_memory:
            raise InputError(
                f"context field {name}: an address, not {value!r}; what is there is for the environment to "
                "say: Environment(memory={address: bytes})"
            )
        try:
            view = flat_view(value)
        except TypeError:
            raise InputError(
                f"context field {name} takes an address, or the bytes that it points to, not {value!r}"
            ) from None
        if len(view) > LARGEST_PACKET:
            raise InputError(f"context field {name}: at most {LARGEST_PACKET} bytes, not {len(view)}")
        region = Region.of_buffer(f"{self.layout.name}.{name}", bytearray(view))
        region.writable = name in WRITABLE
        self._payloads[name] = region
        return region.start

    def outcome(self) -> Outcome:
        """Return the struct after the run, and its fields that are no addresses."""
        return self.after(bytes(self.memory))

    def after(self, left: bytes) -> Outcome:
        """Return what is left of a run that left these bytes: no addresses of ours.

        What a pointer points to is a field where the caller gave that.
        """
        data = bytearray(left)
        for name in self._payloads:
            self.layout.members[name].put(data, 0)
        values = FieldValues()
        for name, place in self.layout.members.items():
            if name in self._payloads:
                values[name] = bytes(self._payloads[name].view)
            elif name not in self.layout.pointers:
                values[name] = place.get(bytes(data))
        tail = self.layout.tail
        if tail is not None and self._tail is not None:
            values[tail.name] = self._tail.decode(bytes(data[tail.offset : tail.offset + self._tail.size]))
        return Outcome(bytes(data), b"", values)
