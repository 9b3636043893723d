"""The structs that programs get as context, field by field (include/uapi/linux/bpf.h).

`XDP_MD`, `SK_BUFF` and `SOCK` are those of packets; all others are in `ebpfjit/runtime/contexts/structs.py`.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from ebpfjit.errors import ExecutionError
from ebpfjit.runtime.memory import ALIGNMENT_SHIFT, follows

_CODES = {1: "B", 2: "H", 4: "I", 8: "Q"}


@dataclass(frozen=True, slots=True)
class Access:
    """What programs may load, or load and store (`writable`), of a struct's bytes from `start` to `stop`.

    `sizes` is the sum of the sizes that an access may have (1, 2, 4, 8). One lies at a multiple of its size,
    and of `alignment`. `hooks` are the attach types whose programs may do it (none: all).
    """

    start: int
    stop: int
    sizes: int
    alignment: int = 1
    writable: bool = False
    hooks: frozenset[int] = frozenset()

    @property
    def rule(self) -> int:
        """The same as a region has it (`runtime.memory.follows`); the struct starts at a multiple of 8."""
        return self.sizes | self.alignment - 1 << ALIGNMENT_SHIFT

    def allows(self, offset: int, size: int, *, store: bool) -> bool:
        """True where an access of `size` bytes at `offset` of the struct is one of these."""
        inside = self.start <= offset and offset + size <= self.stop
        return inside and follows(self.rule, offset, size) and (self.writable or not store)


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

    def accesses_at(self, attach_type: int) -> tuple[Access, ...]:
        """Return what programs of one attach type may do to the field."""
        return tuple(each for each in self.accesses if not each.hooks or attach_type in each.hooks)

    def read(self, memory: memoryview) -> int | tuple[int, ...]:
        """Return the field's value from the struct's bytes, unsigned."""
        if not self.count:
            return int.from_bytes(memory[self.offset : self.stop], "little")
        starts = range(self.offset, self.stop, self.size)
        return tuple(int.from_bytes(memory[start : start + self.size], "little") for start in starts)

    def encode(self, value: Any) -> bytes:
        """Return the field's bytes. Raises ExecutionError for a value that does not fit."""
        if self.count:
            values = list(value) if isinstance(value, Iterable) else None
            if values is None or len(values) > self.count:
                raise ExecutionError(
                    f"context field {self.name} takes up to {self.count} numbers, not {value!r}"
                )
            values += [0] * (self.count - len(values))
            return b"".join(self._number(item) for item in values)
        return self._number(value)

    def _number(self, value: Any) -> bytes:
        bits = 8 * self.size
        if not isinstance(value, int) or not -(1 << bits - 1) <= value < 1 << bits:
            raise ExecutionError(f"context field {self.name} takes numbers of {bits} bits, not {value!r}")
        return (value & (1 << bits) - 1).to_bytes(self.size, "little")


@dataclass(frozen=True)
class Struct:
    """A context's struct: its size in bytes and its fields in order."""

    name: str
    size: int
    fields: tuple[Field, ...]

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
    def accesses(self) -> tuple[tuple[str, Access], ...]:
        """What programs may do to the struct, and to which field."""
        return tuple((field.name, access) for field in self.fields for access in field.accesses)

    def at_hook(self, attach_type: int) -> Struct:
        """Return the struct with what programs of one attach type may do to it."""
        kept = tuple(replace(field, accesses=field.accesses_at(attach_type)) for field in self.fields)
        return self if kept == self.fields else replace(self, fields=kept)

    def allows(self, offset: int, size: int, *, store: bool) -> bool:
        """True where Linux takes an access of `size` bytes at `offset` of the struct."""
        return any(access.allows(offset, size, store=store) for _, access in self.accesses)

    def spans(self, names: Iterable[str]) -> list[tuple[int, int]]:
        """Return the bytes of some fields as (start, stop), neighbours joined, in order."""
        spans: list[tuple[int, int]] = []
        for field in sorted((self.by_name[name] for name in names), key=lambda field: field.offset):
            if spans and spans[-1][1] == field.offset:
                spans[-1] = spans[-1][0], field.stop
            else:
                spans.append((field.offset, field.stop))
        return spans

    def settings(self, given: Mapping[str, Any], settable: tuple[str, ...]) -> dict[str, Any]:
        """Return the values of fields that can be set; others may be 0, as for BPF_PROG_TEST_RUN.

        Raises ExecutionError for the first that is not.
        """
        settings: dict[str, Any] = {}
        for name, value in given.items():
            field = self.by_name.get(name)
            if field is not None and name in settable:
                settings[name] = value
            elif field is None or any(field.encode(value)):
                what = "cannot be set" if field is not None else "is not there"
                can = ", ".join(settable) or "none"
                raise ExecutionError(f"field {name!r} of {self.name} {what}; those that can be set: {can}")
        return settings


def _words(names: str, start: int = 0) -> list[Field]:
    """Return consecutive fields of 4 bytes; `name[5]` is an array of five."""
    fields: list[Field] = []
    for text in names.split():
        name, _, count = text.rstrip("]").partition("[")
        fields.append(Field(name, start, 4, int(count or 0)))
        start = fields[-1].stop
    return fields


XDP_MD = Struct(
    "xdp_md",
    24,
    tuple(_words("data data_end data_meta ingress_ifindex rx_queue_index egress_ifindex")),
)

SK_BUFF = Struct(
    "__sk_buff",
    192,
    (
        *_words(
            "len pkt_type mark queue_mapping protocol vlan_present vlan_tci vlan_proto priority "
            "ingress_ifindex ifindex tc_index cb[5] hash tc_classid data data_end napi_id family "
            "remote_ip4 local_ip4 remote_ip6[4] local_ip6[4] remote_port local_port data_meta"
        ),
        Field("flow_keys", 144, 8),
        Field("tstamp", 152, 8),
        *_words("wire_len gso_segs", 160),
        Field("sk", 168, 8),
        *_words("gso_size", 176),
        Field("tstamp_type", 180, 1),
        Field("hwtstamp", 184, 8),
    ),
)

SOCK = Struct(
    "bpf_sock",
    80,
    (
        *_words("bound_dev_if family type protocol mark priority src_ip4 src_ip6[4] src_port"),
        Field("dst_port", 48, 2),
        *_words("dst_ip4 dst_ip6[4] state rx_queue_mapping", 52),
    ),
)
