"""A program taken apart so that instructions can be removed, added and moved: jumps name instructions.

code -> [Item, ...] -> code, with every jump, local call and code reference aimed anew
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from ebpfjit.isa.spec import Imm, Offset
from ebpfjit.program import Instruction, Program
from ebpfjit.record import dataclass


@dataclass(eq=False, slots=True)
class Item:
    """An instruction, and the item that it goes to (None: nowhere, or to where no instruction is)."""

    insn: Instruction
    target: Item | None = None


def _target(insn: Instruction) -> int | None:
    row = insn.row
    if row is None:
        return None
    if row.offset is Offset.TARGET:
        return insn.pc + 1 + insn.offset
    return insn.pc + 1 + insn.imm if row.imm is Imm.TARGET else None


def take_apart(code: bytes) -> list[Item]:
    """Return the items of a program. Raises DecodeError."""
    items = [Item(insn) for insn in Program.from_bytes(code).instructions]
    by_pc = {item.insn.pc: item for item in items}
    for item in items:
        target = _target(item.insn)
        item.target = by_pc.get(target) if target is not None else None
    return items


def put_together(items: Sequence[Item]) -> bytes | None:
    """Return the program of these items in their order; None where a jump cannot reach its target.

    An item may go to one that is not among them: None then too.
    """
    places: dict[int, int] = {}
    pc = 0
    for item in items:
        places[id(item)] = pc
        pc += item.insn.slots
    code = []
    for item in items:
        insn = item.insn
        if item.target is not None:
            if id(item.target) not in places:
                return None
            distance = places[id(item.target)] - places[id(item)] - 1
            assert insn.row is not None  # only rows of jumps, calls and references have a target
            if insn.row.offset is Offset.TARGET:
                if not -0x8000 <= distance <= 0x7FFF:
                    return None
                insn = replace(insn, offset=distance)
            else:
                insn = replace(insn, imm=distance)
        code.append(insn.encode())
    return b"".join(code)


def without(items: Sequence[Item], removed: range) -> list[Item]:
    """Return the items without some; what went to them goes to what comes after."""
    gone = {id(items[index]) for index in removed}
    after = items[removed.stop] if removed.stop < len(items) else None
    copies = {id(item): Item(item.insn, item.target) for item in items if id(item) not in gone}
    for copied in copies.values():
        target = copied.target
        if target is not None:
            copied.target = copies.get(id(after if id(target) in gone else target))
    return list(copies.values())
