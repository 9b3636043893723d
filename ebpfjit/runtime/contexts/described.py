"""Contexts whose struct a program's types lay out: those of iterators, struct bpf_iter__task and its kin.

[ struct ]    pointers are the kernel's, as the environment describes what is there
  | key   `--> [ bytes ]    what the caller gives as bytes is memory of the program's own
  | value `--> [ bytes ]
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ebpfjit.errors import ExecutionError
from ebpfjit.runtime.contexts.fields import Field, Struct
from ebpfjit.runtime.contexts.packet import LARGEST_PACKET, FieldValues, Outcome
from ebpfjit.runtime.contexts.plain import StructContext
from ebpfjit.runtime.contexts.types import ProgramType
from ebpfjit.runtime.memory import Region, flat_view

WRITABLE = ("value",)
"""Which bytes programs may write: values of maps (PTR_TO_BUF; keys are MEM_RDONLY)."""


class DescribedContext(StructContext):
    """A struct of fields by their names; its pointers are numbers, or bytes that they point to.

    Raises ExecutionError for fields, or values, that it cannot have.
    """

    def __init__(self, type_: ProgramType, layout: Struct, fields: Mapping[str, Any]) -> None:
        super().__init__(type_, bytes(layout.size))
        self.layout = layout
        self._payloads: dict[str, Region] = {}
        for name, value in fields.items():
            field = layout.by_name.get(name)
            if field is None:
                raise ExecutionError(
                    f"field {name!r} of {layout.name} is not there; it has: {', '.join(layout.by_name)}"
                )
            self.memory[field.offset : field.stop] = field.encode(self._number(field, value))

    def _number(self, field: Field, value: Any) -> Any:
        """Return what a field is: the number that was given, 0 for None, or where the bytes are."""
        if value is None:
            return 0
        if isinstance(value, int) or not field.pointer:
            return value
        try:
            view = flat_view(value)
        except TypeError:
            raise ExecutionError(
                f"context field {field.name} takes an address, or the bytes that it points to, not {value!r}"
            ) from None
        if len(view) > LARGEST_PACKET:
            raise ExecutionError(
                f"context field {field.name}: at most {LARGEST_PACKET} bytes, not {len(view)}"
            )
        region = Region.of_buffer(f"{self.layout.name}.{field.name}", bytearray(view))
        region.writable = field.name in WRITABLE
        self.regions.append(region)
        self._payloads[field.name] = region
        return region.start

    def outcome(self) -> Outcome:
        """Return the struct after the run, without addresses of ours, and its fields."""
        data, values = bytearray(self.memory), FieldValues()
        for field in self.layout.fields:
            payload = self._payloads.get(field.name)
            if payload is not None:
                data[field.offset : field.stop] = bytes(field.size)
                values[field.name] = bytes(payload.view)
            elif not field.pointer:
                values[field.name] = field.read(self.memory)
        return Outcome(bytes(data), b"", values)
