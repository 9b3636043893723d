"""What one run is given: bytes (a packet, a context's struct, memory), and fields of its context by name.

Which bytes and fields those are is a program type's matter: `Inputs` makes them.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import suppress
from typing import Any, NamedTuple

from ebpfjit.difftest.frames import frame
from ebpfjit.errors import EbpfError
from ebpfjit.isa.spec import Kind
from ebpfjit.program import Program
from ebpfjit.runtime.contexts.fields import Field
from ebpfjit.runtime.contexts.packet import LINK_HEADER_SIZE
from ebpfjit.runtime.contexts.taking import effective_type, take
from ebpfjit.runtime.contexts.types import ContextKind, ProgramType
from ebpfjit.tracing import Trace

Fields = tuple[tuple[str, Any], ...]
"""Fields of a context, in the order of their names."""
SOME_STRUCT = 512
"""Bytes of a context whose size nothing tells: more than programs read of one."""
LARGEST_MEMORY = 128
XDP_FIELDS = ("ingress_ifindex", "rx_queue_index", "data")
SKB_FIELDS = ("mark", "priority", "ingress_ifindex", "ifindex", "cb", "tstamp", "gso_segs", "gso_size")
MAY_BE_NULL = {("bpf_sk_lookup", "sk"), ("bpf_sock_ops", "sk"), ("sk_reuseport_md", "migrating_sk")}
"""Sockets that are there for some runs only."""
_NUMBERS = (0, 1, 2, 3, 4, 8, 16, 0x7F, 0x80, 0xFF, 0x100, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)


class Sample(NamedTuple):
    """What one run is given: `data`, and `fields` of its context."""

    data: bytes
    fields: Fields = ()

    @property
    def context(self) -> dict[str, Any] | None:
        """The fields as runs take them, None where there are none."""
        return dict(self.fields) or None

    def with_data(self, data: bytes) -> Sample:
        """Return the same with other bytes."""
        return Sample(data, self.fields)


class Inputs:
    """What runs of one program are given: bytes of `least` to `most`, but not in `zeros` (start, stop)."""

    def __init__(self, program: Program) -> None:
        self.type: ProgramType | None = None
        if program.type is not None:
            self.type = effective_type(program.type, program.section)
        known = self.type
        self.has_packet = known is not None and known.has_packet
        self.zeros: list[tuple[int, int]] = []
        self.least, self.most = 0, LARGEST_MEMORY
        self.givable = self._fields_given()
        """Fields of its context that runs may be given."""
        self._givable_at = {at: each.name for each in self.givable for at in range(each.offset, each.stop)}
        self.read: list[str] = []
        """Fields of its context that runs read, and may be given."""
        if known is None:
            return
        if known.has_packet:
            self.least, self.most = LINK_HEADER_SIZE, 512
        elif known.data_size is not None:
            self.least = self.most = known.data_size
            assert known.layout is not None  # that is where the size is from
            self.zeros = [(each.offset, each.stop) for each in known.layout.fields if each.pointer]
        elif known.layout is None:
            self.least = self.most = SOME_STRUCT

    @property
    def is_sized(self) -> bool:
        """True where all have the same size."""
        return self.least == self.most

    def note_loads(self, trace: Trace) -> None:
        """Note which fields of its context a run read that runs may be given."""
        known = self.type
        if known is None or known.layout is None or not trace:
            return
        argument = trace[0].registers[1]
        for step in trace:
            row = step.instruction.row
            if row is not None and row.kind is Kind.LOAD:
                offset = step.registers[step.instruction.src_reg] + step.instruction.offset - argument
                name = self._givable_at.get(offset)
                if name is not None and name not in self.read:
                    self.read.append(name)

    @property
    def struct_name(self) -> str:
        """The name of its context's struct, "" where there is none."""
        return "" if self.type is None or self.type.layout is None else self.type.layout.name

    def _fields_given(self) -> list[Field]:
        known = self.type
        if known is None or known.layout is None:
            return []
        there = known.layout.by_name
        if known.name == "flow_dissector":  # the kernel's test run has no context for it either
            return []
        if known.has_packet:
            names = XDP_FIELDS if known.context is ContextKind.XDP else SKB_FIELDS
            return [there[name] for name in names if name in there]
        return [field for field in known.layout.fields if field.pointer]

    def zero(self, name: str) -> int | tuple[int, ...] | None:
        """Return what a field is where nobody gives it, None for one that is no number."""
        assert self.type is not None  # it has fields
        assert self.type.layout is not None
        field = self.type.layout.by_name[name]
        if field.pointer and not self.has_packet:
            return None
        return (0,) * field.count if field.count else 0

    def first(self) -> list[Sample]:
        """Return what to begin with: the shortest, lengths one after the other, a usual struct."""
        found = [Sample(bytes(size)) for size in range(self.least, min(self.most, self.least + 112) + 1)]
        if self.type is not None and self.is_sized:
            with suppress(EbpfError):
                usual = take(self.type, memoryview(b""), None).outcome().data
                found.append(Sample(self.fitting(usual)))
        return found

    def fresh(self, rng: random.Random) -> Sample:
        """Return one that is made anew."""
        if self.has_packet:
            return Sample(self.fitting(frame(rng)))
        size = rng.choice((self.most, rng.randint(self.least, self.most)))
        data = rng.randbytes(size) if rng.random() < 0.5 else bytes(size)
        return Sample(self.fitting(data))

    def fitting(self, data: bytes) -> bytes:
        """Return bytes made as long as they have to be, with zeros where addresses are."""
        data = data[: self.most] if self.is_sized else data
        data = data.ljust(self.least, b"\0")
        for start, stop in self.zeros:
            data = data[:start] + bytes(stop - start) + data[stop:]
        return data

    def contexts(self, rng: random.Random) -> Fields:
        """Return fields of a context at random."""
        if self.type is None or self.type.layout is None:
            return ()
        return whole(dict(self._settings(rng)))

    def _settings(self, rng: random.Random) -> Iterator[tuple[str, Any]]:
        assert self.type is not None  # it was looked at
        assert self.type.layout is not None
        for name in self.read:
            field = self.type.layout.by_name[name]
            if rng.random() < 0.4:
                continue
            if field.pointer == "sock":
                if (self.type.layout.name, name) in MAY_BE_NULL:
                    yield name, rng.choice((None, {}))
            elif field.pointer == "start":
                yield name, rng.randbytes(rng.choice((0, 1, 4, 8, 64)))
            elif field.pointer:
                pass
            elif self.type.context is ContextKind.XDP and name == "data":
                yield name, rng.choice((0, 4, 8, 32))
            elif field.count:
                yield name, tuple(_number(rng, field.size) for _ in range(field.count))
            else:
                yield name, _number(rng, field.size)


def whole(given: dict[str, Any]) -> Fields:
    """Return fields in the order of their names, with those that others need."""
    if given.get("rx_queue_index"):
        given = {**given, "ingress_ifindex": given.get("ingress_ifindex") or 1}
    return tuple(sorted(given.items()))


def _number(rng: random.Random, size: int) -> int:
    return rng.choice((*_NUMBERS, rng.getrandbits(8 * size))) & (1 << 8 * size) - 1
