"""Comparisons that were not met steer bytes: where a packet holds what was compared, it gets what was wanted.

trace:  r2 = *(u8 *)(r1 + 23)    if r2 != 0x35, r2 is 80      byte 23 was loaded, or any that is 80  ->  0x35

What was loaded is changed where it stands, also where a shift or a mask took a part of it. So do fields of
contexts.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import pairwise
from typing import Any, Literal, NamedTuple

from ebpfjit.bits import W32, W64
from ebpfjit.errors import EbpfError
from ebpfjit.fuzzing.contexts import Fields, metadata_size
from ebpfjit.fuzzing.features import Branch
from ebpfjit.fuzzing.samples import Inputs, Sample
from ebpfjit.isa.spec import Kind
from ebpfjit.program import Program
from ebpfjit.runtime.contexts.packet import LINK_HEADER_SIZE
from ebpfjit.tracing import Trace

MOST_STEPS, MOST_PACKETS, MOST_PLACES = 20_000, 256, 24
MOST_LOADS = 6
"""Loads before a comparison that may have been of what it compares."""
MOST_DATA = 1 << 16
"""Bytes of a run's data."""
ORDERS: tuple[Literal["little", "big"], ...] = ("little", "big")
SIZES = (8, 4, 2, 1)
Load = tuple[int, int]
"""Where a load of a run's data was, and how many bytes."""


class Compared(NamedTuple):
    """A comparison that was not met: what was compared, with what, and the loads before it, latest first."""

    seen: int
    wanted: int
    loads: tuple[Load, ...]


def steered(
    program: Program, sample: Sample, open_branches: frozenset[Branch], inputs: Inputs
) -> list[Sample]:
    """Return samples with which branches may go the way that they never went."""
    try:
        trace = program.trace(sample.data, limit=MOST_STEPS, context=sample.context)
    except EbpfError:
        return []
    inputs.note_loads(trace)
    found: dict[Sample, None] = {}
    for seen, wanted, loads in _comparisons(trace, sample, open_branches, inputs):
        for fields in _changed_fields(sample.fields, inputs, seen, wanted):
            found[inputs.sample(sample.data, fields)] = None
        for data in _at_loads(sample.data, seen, wanted, loads):
            found[inputs.sample(data, sample.fields)] = None
        for data in _replaced(sample.data, seen, wanted):
            found[inputs.sample(data, sample.fields)] = None
        if len(found) >= MOST_PACKETS:
            break
    return list(found)


def _changed_fields(fields: Fields, inputs: Inputs, seen: int, wanted: int) -> Iterator[Fields]:
    """Yield fields with `wanted` in the place of `seen`; those that nobody gave are 0."""
    there = dict(fields)
    for name in inputs.read:
        for value in _changed(there.get(name, inputs.zero(name)), seen, wanted):
            if inputs.takes(name, value):
                yield tuple({**there, name: value}.items())


def _changed(value: Any, seen: int, wanted: int) -> Iterator[Any]:
    """Yield a value with `wanted` in a place of `seen`: a number, bytes, or one of a tuple."""
    if isinstance(value, int) and value == seen:
        yield wanted
    elif isinstance(value, bytes):
        yield from _replaced(value, seen, wanted)
    elif isinstance(value, tuple):
        for at, each in enumerate(value):
            yield from ((*value[:at], new, *value[at + 1 :]) for new in _changed(each, seen, wanted))


def _comparisons(
    trace: Trace, sample: Sample, open_branches: frozenset[Branch], inputs: Inputs
) -> Iterator[Compared]:
    """Yield for comparisons of open branches what was compared, and with what, or nearly: both ways round."""
    met: set[tuple[int, int, int]] = set()
    loads: dict[Load, None] = {}
    start = _start_of_data(trace, sample, inputs)
    for step in trace:
        insn = step.instruction
        row = insn.row
        if row is not None and row.kind is Kind.LOAD and start is not None:
            offset = W64.wrap(step.registers[insn.src_reg] + insn.offset - start)
            if offset < MOST_DATA:
                loads.pop((offset, row.size), None)
                loads[offset, row.size] = None
        if row is None or row.kind is not Kind.BRANCH or (step.program.code, step.pc) not in open_branches:
            continue
        width = W32 if row.width.bits == 32 else W64
        one = width.wrap(step.registers[insn.dst_reg])
        other = width.wrap(step.registers[insn.src_reg] if row.uses_src else insn.imm)
        latest = tuple(reversed(loads))[:MOST_LOADS]
        for seen, wanted in ((one, other), (other, one)):
            for near in (wanted, wanted + 1, wanted - 1):
                pair = step.pc, seen, width.wrap(near)
                if pair not in met and seen != pair[2]:
                    met.add(pair)
                    yield Compared(seen, pair[2], latest)


def _start_of_data(trace: Trace, sample: Sample, inputs: Inputs) -> int | None:
    """Return the address of a run's data: its context's, or what that says. None where it does not."""
    if not trace:
        return None
    argument = trace[0].registers[1]
    known = inputs.type
    if known is None or not (inputs.frames or known.has_payload):
        return argument
    field = None if known.layout is None else known.layout.by_name.get("data")
    if field is None:
        return None
    for step, after in pairwise(trace):
        insn = step.instruction
        is_load = insn.row is not None and insn.row.kind is Kind.LOAD
        if is_load and W64.wrap(step.registers[insn.src_reg] + insn.offset) == argument + field.offset:
            start = after.registers[insn.dst_reg] - metadata_size(sample.context)
            return start - LINK_HEADER_SIZE if known.network_layer else start
    return None


def _at_loads(data: bytes, seen: int, wanted: int, loads: Iterable[Load]) -> Iterator[bytes]:
    """Yield data in which what was loaded is such that `wanted` would have been seen."""
    mask = (1 << max(seen.bit_length(), wanted.bit_length(), 1)) - 1
    for offset, size in loads:
        raw = data[offset : offset + size]
        if len(raw) != size or mask >> 8 * size:
            continue
        for order in ORDERS[: 1 if size == 1 else 2]:
            number = int.from_bytes(raw, order)
            shifts = range(8 * size) if seen and size <= 4 else range(1)
            for shift in shifts:
                if (number >> shift) & mask == seen:
                    new = (number ^ (seen ^ wanted) << shift) & (1 << 8 * size) - 1
                    yield data[:offset] + new.to_bytes(size, order) + data[offset + size :]


def _replaced(packet: bytes, seen: int, wanted: int) -> Iterator[bytes]:
    """Yield the packet with `wanted` in each place where it has `seen`, in either order of bytes."""
    for size in SIZES:
        if seen >> 8 * size or wanted >> 8 * size:
            continue
        if size > 1 and not seen >> 8 * (size // 2) and not wanted >> 8 * (size // 2):
            continue  # both fit a smaller one, which is looked for as well
        for order in ORDERS:
            old, new = (number.to_bytes(size, order) for number in (seen, wanted))
            at, places = packet.find(old), 0
            while at >= 0 and places < MOST_PLACES:
                yield packet[:at] + new + packet[at + size :]
                at, places = packet.find(old, at + 1), places + 1
            if size == 1:
                return
