"""What one run is given: bytes (a packet, a context's struct, memory), and fields of its context by name.

Which bytes and fields those are is a program type's matter: `Inputs` makes them.
"""

from __future__ import annotations

import random
from contextlib import suppress
from typing import Any, NamedTuple

from ebpfjit.difftest.frames import frame
from ebpfjit.elf.btf import COMPOSITES, Kind
from ebpfjit.elf.codec import Field
from ebpfjit.elf.contexts import context_layout, parameters_of
from ebpfjit.errors import EbpfError, InputError
from ebpfjit.fuzzing.contexts import RANGES, Fields, completed, draws_of, givable, nothing, without_metadata
from ebpfjit.isa.spec import Kind as InstructionKind
from ebpfjit.program import Program
from ebpfjit.runtime.contexts.arguments import ARGUMENTS, Prototype
from ebpfjit.runtime.contexts.described import Layout
from ebpfjit.runtime.contexts.packet import LINK_HEADER_SIZE
from ebpfjit.runtime.contexts.taking import effective_type, take
from ebpfjit.runtime.contexts.types import ProgramType
from ebpfjit.tracing import Trace

SOME_STRUCT = 512
"""Bytes of a context whose size nothing tells: more than programs read of one."""
LARGEST_MEMORY, LARGEST_FRAME = 128, 512
MOST_SIZE = 1 << 16
"""Bytes that whoever asks for a size gets at most: there are a thousand of them at once."""
TAIL = 96
"""Bytes of an array at a struct's end: as many as raw tracepoints have."""
SHORTEST_IP = LINK_HEADER_SIZE + 20
GIVEN_CHANCE = 0.6
Sizes = tuple[int, int]
"""How many bytes there are at least, and at most."""


class Sample(NamedTuple):
    """What one run is given: `data`, and `fields` of its context."""

    data: bytes
    fields: Fields = ()

    @property
    def context(self) -> dict[str, Any] | None:
        """The fields as runs take them, None where there are none."""
        return dict(self.fields) or None

    @property
    def packet(self) -> bytes:
        """Its bytes without the metadata in front of a packet."""
        return without_metadata(self.data, self.context)

    def with_data(self, data: bytes) -> Sample:
        """Return the same with other bytes."""
        return Sample(data, self.fields)


class Inputs:
    """What runs of one program are given: bytes of `least` to `most`, but not in `zeros` (start, stop).

    `frames` is true where they are packets. `sizes` are others than the type's, of packets and memory; raises
    InputError for a program whose bytes have one size, and for what is no range.
    """

    def __init__(self, program: Program, sizes: Sizes | None = None) -> None:
        self.type: ProgramType | None = None
        if program.type is not None:
            self.type = effective_type(program.type, program.section)
        known = self.type
        self.has_packet = known is not None and known.has_packet
        self.frames = self.has_packet or (known is not None and known.name == "netfilter")
        self.described = _described(program)
        self.zeros: list[tuple[int, int]] = []
        self.least, self.most = 0, LARGEST_MEMORY
        self._is_cut = False
        self.givable = givable(known)
        """Fields of its type's struct that runs may be given beside their bytes."""
        self.draws, always = draws_of(known, self.described)
        self.read = [*always]
        """Fields that are drawn: those that runs read, and may be given."""
        self._givable_at = {at: each.name for each in self.givable for at in range(each.offset, each.stop)}
        self.usual: Fields = ()
        """Fields that a run has where it is given none."""
        self._size(program)
        self.usual = completed(self.struct_name, bytes(self.least), self.usual)
        if sizes is not None:
            self._resize(sizes)

    def _size(self, program: Program) -> None:
        """Find out how many bytes there are, and where they are zeros."""
        known = self.type
        if known is None:
            self.least, self.most = _struct_taken(program) or (0, LARGEST_MEMORY)
        elif self.frames:
            self.least = LINK_HEADER_SIZE if known.has_packet else SHORTEST_IP
            self.most = LARGEST_FRAME
        elif isinstance(self.described, Prototype):
            self.least = self.most = 0
            self.usual = ((ARGUMENTS, nothing(self.described)),)
        elif self.described is not None:
            room = TAIL if self.described.tail is not None else 0
            self.least = self.most = min(self.described.size + room, self.described.most)
            self.zeros = _addresses(self.described)
        elif known.data_size is not None:
            self.least = self.most = known.data_size
            assert known.layout is not None  # that is where the size is from
            self.zeros = [(each.offset, each.stop) for each in known.layout.fields if each.pointer]
        elif known.layout is None:
            self.least = self.most = SOME_STRUCT

    def _resize(self, sizes: Sizes) -> None:
        least, most = sizes
        fixed = self.type is not None and not self.frames and self.is_sized
        lowest = LINK_HEADER_SIZE if self.has_packet else 0
        if fixed and sizes != (self.least, self.most):
            assert self.type is not None  # those without one have memory of any size
            raise InputError(f"{self.type.name} programs get {self.least} bytes, not {least} to {most}")
        if not lowest <= least <= most <= MOST_SIZE:
            raise InputError(
                f"sizes are the least and the most, from {lowest} to {MOST_SIZE} bytes, not {least} to {most}"
            )
        self.least, self.most, self._is_cut = least, most, True

    @property
    def is_sized(self) -> bool:
        """True where all have the same size."""
        return self.least == self.most

    @property
    def is_linked(self) -> bool:
        """True where bytes decide what fields there are, or have values that mean something only."""
        return self.struct_name in ("bpf_sk_lookup", "bpf_sock_ops")

    def note_loads(self, trace: Trace) -> None:
        """Note which fields of its context a run read that runs may be given."""
        if not self._givable_at or not trace:
            return
        argument = trace[0].registers[1]
        for step in trace:
            row = step.instruction.row
            if row is not None and row.kind is InstructionKind.LOAD:
                offset = step.registers[step.instruction.src_reg] + step.instruction.offset - argument
                name = self._givable_at.get(offset)
                if name is not None and name not in self.read:
                    self.read.append(name)

    @property
    def struct_name(self) -> str:
        """The name of its type's struct, "" where there is none."""
        return "" if self.type is None or self.type.layout is None else self.type.layout.name

    def zero(self, name: str) -> Any:
        """Return what a field is where nobody gives it, None for one that is no number."""
        layout = None if self.type is None else self.type.layout
        field = None if layout is None else layout.by_name.get(name)
        if field is None or (field.pointer and not self.has_packet):
            return None
        return (0,) * field.count if field.count else 0

    def takes(self, name: str, value: Any) -> bool:
        """Return whether a field of its type's struct may be such a number, or such numbers."""
        layout = None if self.type is None else self.type.layout
        field = None if layout is None else layout.by_name.get(name)
        if field is None or field.pointer == "sock":
            return True
        values = value if isinstance(value, tuple) else (value,)
        known = RANGES.get((self.struct_name, name), range(1 << 8 * field.size))
        return all(each in known for each in values if isinstance(each, int))

    def first(self) -> list[Sample]:
        """Return what to begin with: the shortest, lengths one after the other, a usual struct."""
        sizes = range(self.least, min(self.most, self.least + 112) + 1)
        found = [self.sample(bytes(size)) for size in sizes]
        if self.type is not None and self.is_sized and self.described is None:
            with suppress(EbpfError):
                usual = take(self.type, memoryview(b""), None).outcome().data
                found.append(self.sample(usual))
        return found

    def fresh(self, rng: random.Random) -> Sample:
        """Return one that is made anew."""
        if self.frames:
            return self.sample(frame(rng))
        size = rng.choice((self.most, rng.randint(self.least, self.most)))
        data = rng.randbytes(size) if rng.random() < 0.5 else bytes(size)
        fields = self.usual
        if self.read and not self.has_packet and rng.random() < GIVEN_CHANCE:
            fields = self.contexts(rng)
        return self.sample(data, fields)

    def sample(self, data: bytes, fields: Fields | None = None) -> Sample:
        """Return a sample of these bytes and fields, as runs take them: usual fields where none are given."""
        data = self.fitting(data)
        fields = self.usual if fields is None else fields
        if self.has_packet and len(without_metadata(data, dict(fields))) < LINK_HEADER_SIZE:
            fields = tuple(each for each in fields if each[0] != "data")  # that many bytes of metadata
        return Sample(data, completed(self.struct_name, data, fields))

    def fitting(self, data: bytes) -> bytes:
        """Return bytes made as long as they have to be, with zeros where addresses are."""
        data = data[: self.most] if self._is_cut or self.is_sized else data
        data = data.ljust(self.least, b"\0")
        for start, stop in self.zeros:
            data = data[:start] + bytes(stop - start) + data[stop:]
        if self.struct_name == "bpf_sk_lookup":
            data = _lookup(self.type, data)
        return data

    def contexts(self, rng: random.Random) -> Fields:
        """Return fields of a context at random, those that others need with them."""
        given = dict(self.usual)
        for name in self.read:
            if rng.random() < GIVEN_CHANCE:
                given[name] = self.draws[name](rng)
        return completed(self.struct_name, b"", tuple(given.items()))


def _described(program: Program) -> Layout | Prototype | None:
    """Return what a program's own types say of its context, None where they do not."""
    try:
        return context_layout(program)
    except EbpfError:
        return None


def _addresses(layout: Layout) -> list[tuple[int, int]]:
    """Return where a struct has addresses, which nobody can draw."""
    places = [layout.members[name] for name in sorted(layout.pointers)]
    return [(each.offset, each.offset + each.codec.size) for each in places if isinstance(each, Field)]


def _struct_taken(program: Program) -> Sizes | None:
    """Return the size of the struct that a program without a type takes, None where it takes none."""
    try:
        types, parameters = parameters_of(program)
        if types is None or len(parameters) != 1:  # (struct event *, u64 size): as many bytes as that says
            return None
        pointer = types.resolve(parameters[0])
        if pointer.kind is not Kind.PTR:
            return None
        taken = types.resolve(pointer.target)
    except EbpfError:
        return None
    return (taken.size, taken.size) if taken.kind in COMPOSITES and taken.size else None


def _lookup(type_: ProgramType | None, data: bytes) -> bytes:
    """Return a bpf_sk_lookup with a family and a port that lookups have."""
    assert type_ is not None  # it has such a struct
    assert type_.layout is not None
    made, at = bytearray(data), type_.layout.by_name
    family, port = at["family"], at["local_port"]
    made[family.offset : family.stop] = bytes([10 if made[family.offset] & 8 else 2, 0, 0, 0])
    made[port.offset + 2 : port.stop] = bytes(2)
    return bytes(made)
