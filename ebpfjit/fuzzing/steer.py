"""Comparisons that were not met steer bytes: where a packet holds what was compared, it gets what was wanted.

So do fields of contexts.

trace:  if r2 != 0x35, r2 is 80      packet: ... 00 50 ...     ->  ... 00 35 ...
"""

from __future__ import annotations

from collections.abc import Iterator

from ebpfjit.bits import W32, W64
from ebpfjit.errors import EbpfError
from ebpfjit.fuzzing.samples import Fields, Inputs, Sample, whole
from ebpfjit.isa.spec import Kind
from ebpfjit.program import Program
from ebpfjit.tracing import Trace

MOST_STEPS, MOST_PACKETS, MOST_PLACES = 20_000, 256, 24
SIZES = (8, 4, 2, 1)


def steered(program: Program, sample: Sample, open_branches: frozenset[int], inputs: Inputs) -> list[Sample]:
    """Return samples with which branches (by slot) may go the way that they never went."""
    try:
        trace = program.trace(sample.data, limit=MOST_STEPS, context=sample.context)
    except EbpfError:
        return []
    inputs.note_loads(trace)
    found: dict[Sample, None] = {}
    for seen, wanted in _comparisons(program, trace, open_branches):
        for data in _replaced(sample.data, seen, wanted):
            found[sample.with_data(inputs.fitting(data))] = None
            if len(found) >= MOST_PACKETS:
                return list(found)
        for fields in _changed_fields(sample.fields, inputs, seen, wanted):
            found[Sample(sample.data, fields)] = None
    return list(found)


def _changed_fields(fields: Fields, inputs: Inputs, seen: int, wanted: int) -> Iterator[Fields]:
    """Yield fields with `wanted` in the place of `seen`; those that nobody gave are 0."""
    there = dict(fields)
    for name in inputs.read:
        value = there.get(name, inputs.zero(name))
        if isinstance(value, int) and value == seen and wanted < 1 << 32:
            yield whole({**there, name: wanted})
        elif isinstance(value, tuple) and wanted < 1 << 32:
            for at in (index for index, each in enumerate(value) if each == seen):
                yield whole({**there, name: (*value[:at], wanted, *value[at + 1 :])})


def _comparisons(program: Program, trace: Trace, open_branches: frozenset[int]) -> Iterator[tuple[int, int]]:
    """Yield for comparisons of open branches what was compared, and with what, or nearly: both ways round."""
    met: set[tuple[int, int]] = set()
    for step in trace:
        if step.pc not in open_branches or step.program.code != program.code:
            continue
        insn = step.instruction
        row = insn.row
        if row is None or row.kind is not Kind.BRANCH:
            continue
        width = W32 if row.width.bits == 32 else W64
        one = width.wrap(step.registers[insn.dst_reg])
        other = width.wrap(step.registers[insn.src_reg] if row.uses_src else insn.imm)
        for seen, wanted in ((one, other), (other, one)):
            for near in (wanted, wanted + 1, wanted - 1):
                pair = seen, width.wrap(near)
                if pair not in met and pair[0] != pair[1]:
                    met.add(pair)
                    yield pair


def _replaced(packet: bytes, seen: int, wanted: int) -> Iterator[bytes]:
    """Yield the packet with `wanted` in each place where it has `seen`, in either order of bytes."""
    for size in SIZES:
        if seen >> 8 * size or wanted >> 8 * size:
            continue
        if size > 1 and not seen >> 8 * (size // 2) and not wanted >> 8 * (size // 2):
            continue  # both fit a smaller one, which is looked for as well
        for order in ("big", "little"):
            old, new = (number.to_bytes(size, order) for number in (seen, wanted))
            at, places = packet.find(old), 0
            while at >= 0 and places < MOST_PLACES:
                yield packet[:at] + new + packet[at + size :]
                at, places = packet.find(old, at + 1), places + 1
            if size == 1:
                return
