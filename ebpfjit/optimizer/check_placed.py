"""What holds of placed Code: every operation finds its values in the registers that it names."""

from __future__ import annotations

from collections.abc import Iterator

from ebpfjit.isa.spec import Kind
from ebpfjit.optimizer.code import Op
from ebpfjit.optimizer.placed import Move, Placed, PlacedBlock, PlacedCode
from ebpfjit.optimizer.registers import HELPER_CALLS, LOCAL_CALLS
from ebpfjit.translators.machine import SPILLED, Registers

Held = dict[int, int]
"""The value in each register."""


def check_placed(placed: PlacedCode, registers: Registers) -> None:
    """Raise AssertionError with all that is wrong, a line each."""
    wrong = list(_wrong(placed, registers))
    assert not wrong, "\n".join(wrong)


def _wrong(placed: PlacedCode, registers: Registers) -> Iterator[str]:
    for number, before in enumerate(_held_before(placed, registers)):
        block = placed.blocks[number]
        if before is None or block is None:
            if before is not None or block is not None:
                yield f"b{number}: it is placed, or control comes to it, but not both"
            continue
        held = dict(before)
        for step in block.steps:
            if isinstance(step, Placed):
                for text in (*_missing(step.op, step, held), *_astray(step, registers)):
                    yield f"b{number} pc {step.op.pc}: {step.row.name}: {text}"
            _after(step, held, registers)
        for way in placed.code.blocks[number].ways:
            for value in way.args:
                if value not in held.values():
                    yield f"b{number}: v{value} is nowhere on the way to b{way.block}"


def _missing(op: Op, step: Placed, held: Held) -> Iterator[str]:
    """Yield what an operation does not find."""
    values = [*op.args]
    if step.row.kind is Kind.BINARY and len(values) > 1 and held.get(step.args[0]) != values[0]:
        values.reverse()  # of what commutes
    for value, register in zip(values, step.args, strict=True):
        if held.get(register) != value:
            yield f"v{value} is not in {register}"
    if op.exit is not None and step.exit is not None:
        for home, (wanted, place) in enumerate(zip(op.exit.registers, step.exit, strict=True)):
            if wanted is not None and (place is None or held.get(place) != wanted):
                yield f"v{wanted}, {home} of the exit, is not in {place}"


def _astray(step: Placed, registers: Registers) -> Iterator[str]:
    """Yield which registers have values behind an operation and are none for values."""
    for register in (*step.results, *step.kept):
        if registers.count <= register < SPILLED:
            yield f"{register} is no register for values"


def _after(step: Move | Placed, held: Held, registers: Registers) -> None:
    """Change what is in the registers as a step does."""
    if isinstance(step, Move):
        if step.src in held:
            held[step.dst] = held[step.src]
        else:
            held.pop(step.dst, None)
        return
    kind = step.row.kind
    if kind in HELPER_CALLS:
        kept = registers.kept
    elif kind in LOCAL_CALLS:
        kept = sum(1 << register for register in step.kept)
    elif kind is Kind.PACKET_LOAD:
        kept = ~registers.extra
    else:
        kept = -1
    for register in [each for each in held if each < SPILLED and not kept >> each & 1]:
        del held[register]
    for value, register in zip(step.op.results, step.results, strict=True):
        if kind not in LOCAL_CALLS or register not in step.kept:  # else it is restored: that is not read
            held[register] = value


def _ways(placed: PlacedCode, number: int, block: PlacedBlock, held: Held) -> list[Held]:
    """Return what is in the registers at the end of each way, as the block there names it."""
    found = []
    for way, moves in zip(placed.code.blocks[number].ways, block.moves, strict=True):
        there = dict(held)
        for move in moves:
            if move.src in there:
                there[move.dst] = there[move.src]
            else:
                there.pop(move.dst, None)
        found.append(there)
        names: dict[int, int] = {}
        entry = placed.arrivals[way.block]
        for argument, value in zip(placed.code.blocks[way.block].args, way.args, strict=True):
            register = entry.get(argument)
            if register is not None and there.get(register) == value:
                names[register] = argument
        there.update(names)
    return found


def _held_before(placed: PlacedCode, registers: Registers) -> list[Held | None]:
    """Return what is in the registers at the start of each block on every way to it."""
    before: list[Held | None] = [None] * len(placed.blocks)
    waiting = []
    for entry in placed.code.entries.values():
        args = placed.code.blocks[entry.block].args
        before[entry.block] = dict(zip(entry.registers, args, strict=True))
        waiting.append(entry.block)
    while waiting:
        number = waiting.pop()
        held, block = before[number], placed.blocks[number]
        if held is None or block is None:
            continue
        held = dict(held)
        for step in block.steps:
            _after(step, held, registers)
        ways = placed.code.blocks[number].ways
        for way, after in zip(ways, _ways(placed, number, block, held), strict=True):
            now = before[way.block]
            then = after if now is None else dict(now.items() & after.items())
            if then != now:
                before[way.block] = then
                waiting.append(way.block)
    return before
