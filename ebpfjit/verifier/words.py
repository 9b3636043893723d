"""What is known of values, and how a run came somewhere, in words."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from ebpfjit.program import Program
from ebpfjit.verifier.arithmetic import named
from ebpfjit.verifier.numbers import DOMAIN, Number
from ebpfjit.verifier.refusals import Decision
from ebpfjit.verifier.state import Step
from ebpfjit.verifier.values import Pointer, Poison, Scalar, Stale, Value

_MOST_DECISIONS = 200
"""Of a path that is told: its end."""

_LONGEST_ROUND = 12
"""Decisions of a round of a loop that is told once for several."""


def described(value: Value) -> str:
    """Return what a register holds: "a number from 0 to 255", "packet + 14, 20 bytes ahead"."""
    if value is None:
        return "never written"
    if isinstance(value, Poison):
        return "what a refused instruction gave"
    if isinstance(value, Stale):
        return value.why
    if isinstance(value, Scalar):
        return numbered(value.number)
    return _pointer(value)


def numbered(number: Number) -> str:
    """Return what is known of a number in a few words."""
    if number.is_known:
        signed = number.smin
        return str(signed) if abs(signed) < 1 << 16 else f"{number.value:#x}"
    if (
        number.umin == 0
        and number.umax == DOMAIN.widest
        and number.smin == DOMAIN.least
        and number.smax == DOMAIN.most
    ):
        return "any number" if number.mask == DOMAIN.widest else f"any number with {_bits(number)}"
    ranges = []
    if (number.umin, number.umax) != (0, DOMAIN.widest):
        ranges.append(f"{_short(number.umin)} to {_short(number.umax)}")
    if (number.smin, number.smax) != (DOMAIN.least, DOMAIN.most) and number.smin != number.umin:
        ranges.append(f"signed {_short(number.smin)} to {_short(number.smax)}")
    said = "a number from " + ", ".join(ranges) if ranges else "a number"
    return said if number.umax < 1 << 16 or number.mask.bit_count() > 32 else f"{said}, {_bits(number)}"


def _short(number: int) -> str:
    return str(number) if abs(number) < 1 << 17 else f"{number:#x}"


def _bits(number: Number) -> str:
    zeros = ~(number.value | number.mask) & DOMAIN.widest
    return f"bits {zeros:#x} zero" + (f", {number.value:#x} set" if number.value else "")


_WHAT = {
    "ctx": "the context",
    "packet": "the packet",
    "packet_meta": "the metadata before the packet",
    "packet_end": "the end of the packet",
    "mem": "memory",
}


def _pointer(pointer: Pointer) -> str:
    what = _WHAT.get(pointer.kind, named(pointer.but(null=False)))
    definition = getattr(pointer.what, "definition", None)
    if definition is not None:
        what = {"map": "map", "map_value": "a value of map", "map_key": "a key of map"}[pointer.kind]
        what += f" {definition.name!r}"
    elif pointer.kind == "btf_id":
        what = f"struct {pointer.what}" if pointer.what else "a struct of the kernel"
    elif pointer.kind == "stack":
        what = "r10" if not pointer.what else f"the frame of call {pointer.what}"
    elif pointer.kind == "mem":
        what = f"{pointer.size} bytes of memory"
    at = f" {'+' if pointer.off >= 0 else '-'} {abs(pointer.off)}" if pointer.off else ""
    if pointer.var is not None:
        at += f" + {numbered(pointer.var)}"
    ahead = (
        f", of which {pointer.range} bytes are known to be there"
        if pointer.kind in ("packet", "packet_meta")
        else ""
    )
    return f"{what}{at}{ahead}" + (", or NULL" if pointer.null else "")


def path(program: Program, way: Step | None) -> tuple[Decision, ...]:
    """Return the decisions that led somewhere, from the start on."""
    steps: list[Step] = []
    while way is not None and len(steps) < _MOST_DECISIONS:
        steps.append(way)
        way = way.before
    return tuple(_decision(program, step) for step in reversed(steps))


def told(decisions: Sequence[Decision]) -> Iterator[str]:
    """Yield a line for each decision; rounds of a loop that decide the same are told once."""
    at = 0
    while at < len(decisions):
        length, rounds = _rounds(decisions, at)
        for each in decisions[at : at + length]:
            yield f"pc {each.pc}: {each.text}" + (f"    {each.line}" if each.line else "")
        if rounds > 1:
            yield f"... and the same {rounds - 1} time{'s' * (rounds > 2)} more"
        at += length * rounds


def _rounds(decisions: Sequence[Decision], at: int) -> tuple[int, int]:
    """Return how many decisions are repeated from one on, and how often they are there."""
    best = 1, 1
    for length in range(1, _LONGEST_ROUND + 1):
        first, rounds = decisions[at : at + length], 1
        while decisions[at + rounds * length : at + (rounds + 1) * length] == first:
            rounds += 1
        if rounds > 1 and length * rounds > best[0] * best[1]:
            best = length, rounds
    return best


def _decision(program: Program, step: Step) -> Decision:
    from ebpfjit.disassembler import disassemble_instruction

    insn = program.slots[step.pc]
    assert insn is not None
    line = program.line_at(step.pc)
    text = disassemble_instruction(insn, "linux")
    if step.taken is not None:
        text += ": " + (f"jumps to pc {insn.target}" if step.taken else "goes on")
    return Decision(step.pc, text, "" if line is None else str(line))


_SHOWN = 64
"""Bytes of a witness's packet that are shown."""


def witnessed(witness: Any) -> str:
    """Return what a run goes wrong with (`fuzzing.Witness`), and how."""
    packet = witness.packet
    shown = packet[:_SHOWN].hex(" ") + (" ..." if len(packet) > _SHOWN else "")
    parts = [f"{len(packet)} bytes" + (f": {shown}" if packet else "")]
    if len(witness.packets) > 1:
        parts.append(f"behind {len(witness.packets) - 1} others")
    if witness.context:
        parts.append("context " + ", ".join(f"{name}={value}" for name, value in witness.context.items()))
    if witness.maps:
        parts.append(f"with maps {', '.join(witness.maps)} filled")
    if witness.failing:
        parts.append(f"where {', '.join(witness.failing)} return{'s' * (len(witness.failing) == 1)} NULL")
    return f"{'; '.join(parts)}: {witness.error}"
