"""Control flow: where basic blocks start, and what each instruction may be followed by."""

from __future__ import annotations

from bisect import bisect_right
from itertools import pairwise

from ebpfjit.isa.spec import FRAME_POINTER, REGISTER_COUNT, Kind, Reg
from ebpfjit.isa.table import TABLE
from ebpfjit.program import Instruction, Program

ENDS_BLOCK = frozenset(
    {Kind.JUMP, Kind.BRANCH, Kind.MAY_GOTO, Kind.CALL_LOCAL, Kind.CALL_REGISTER, Kind.EXIT}
)
DECIDES = frozenset({Kind.BRANCH, Kind.MAY_GOTO, Kind.CALL_REGISTER, Kind.EXIT})
"""Behind these nothing is certain to be reached."""
NEVER_FALLS_THROUGH = frozenset({Kind.JUMP, Kind.EXIT})
_ENDING = frozenset(row for row in TABLE if row.kind in ENDS_BLOCK) | {None}
_NAMING = frozenset(row for row in TABLE if row.is_wide and row.imm_is_target)
"""What gives the address of an instruction."""


def illegal_reason(instruction: Instruction) -> str | None:
    """Return why no engine can run this instruction, None where it can.

    An encoding that no row matches, a register that does not exist, or a write to r10.
    """
    row = instruction.row
    if row is not None and instruction.dst_reg < FRAME_POINTER and instruction.src_reg < FRAME_POINTER:
        return None
    if row is None:
        return (
            f"unknown instruction: opcode {instruction.opcode:#04x}, src_reg {instruction.src_reg}, "
            f"offset {instruction.offset}, imm {instruction.imm:#x}"
        )
    for role, number in ((row.dst, instruction.dst_reg), (row.src, instruction.src_reg)):
        if isinstance(role, Reg) and number >= REGISTER_COUNT:
            return f"register r{number} does not exist (r0 to r10 do)"
        if isinstance(role, Reg) and number == FRAME_POINTER and role is not Reg.READ:
            return f"{row.mnemonic}: r10 is read-only"
    return None


def always_reached(program: Program) -> frozenset[int]:
    """Return the slots that every run comes to: from the start, into functions, up to the first branch."""
    found: set[int] = set()
    pc = 0
    while pc not in found and is_inside(program, pc):
        found.add(pc)
        insn = program.slots[pc]
        row = insn.row if insn is not None else None
        if insn is None or row is None or row.kind in DECIDES:
            break
        target = insn.target if row.kind in (Kind.JUMP, Kind.CALL_LOCAL) else insn.next_pc
        pc = -1 if target is None else target
    return frozenset(found)


def is_inside(program: Program, pc: int) -> bool:
    """True where an instruction starts at slot `pc`."""
    slots = program.slots
    return 0 <= pc < len(slots) and slots[pc] is not None


def leaders(program: Program) -> list[int]:
    """Return the slots where basic blocks start, in order.

    Slot 0, every function, every target of a jump, and what follows an instruction that may hand
    control elsewhere. A helper call does not: it comes back to the next instruction.
    """
    found, instructions, slots = {0, *program.functions}, program.instructions, program.slots
    found.update([target for _, target in program.jumps])
    found.update([insn.pc + 1 for insn in instructions if insn.row in _ENDING])  # none of them is wide
    if not _NAMING.isdisjoint(program.rows):
        found.update([insn.pc + 1 + insn.imm for insn in instructions if insn.row in _NAMING])
    return sorted([pc for pc in found if 0 <= pc < len(slots) and slots[pc] is not None])


def block_sizes(program: Program) -> dict[int, int]:
    """Return, for each slot where a basic block starts, how many instructions the block has."""
    starts = leaders(program)
    wide: list[int] = []
    if len(program.instructions) < len(program):
        wide = [insn.pc for insn in program.instructions if insn.next_imm is not None]
    sizes = {start: stop - start for start, stop in pairwise([*starts, len(program)])}
    for pc in wide:  # takes two slots
        sizes[starts[bisect_right(starts, pc) - 1]] -= 1
    return sizes


def loop_headers(program: Program) -> frozenset[int]:
    """Return the targets of backward jumps: every cycle inside a function goes through one."""
    return frozenset(
        target for insn, target in program.jumps if target <= insn.pc and is_inside(program, target)
    )


def meeting_points(program: Program, blocks: dict[int, int]) -> set[int]:
    """Return the basic blocks that are entered in more than one way: functions, and where paths meet."""
    slots = program.slots
    ways = [target for insn, target in program.jumps if insn.row and insn.row.kind is not Kind.CALL_LOCAL]
    for start in blocks:
        before = slots[start - 1] or slots[start - 2] if start else None
        if before and before.row and before.row.kind not in NEVER_FALLS_THROUGH:
            ways.append(start)
    once: set[int] = set()
    several: set[int] = set(program.functions)
    for way in ways:
        if way in once:
            several.add(way)
        once.add(way)
    return several


OUTWARD = frozenset({Kind.CALL_HELPER, Kind.CALL_KFUNC, Kind.EXIT, Kind.PACKET_LOAD})
_LEADING_OUT = frozenset(row for row in TABLE if row.kind in OUTWARD)


def tested_blocks(program: Program, blocks: dict[int, int]) -> frozenset[int]:
    """Return the basic blocks at whose start an instruction limit is looked at.

    Those where a loop comes round, where a function starts, where something outside is called,
    and where a function ends: so nothing goes on for ever, nothing outside sees more than the
    limit allows, and a program that takes more than its limit never ends as if it had not.
    """
    tested = set(loop_headers(program)) | set(program.functions)
    starts = sorted(blocks)
    for pc in [insn.pc for insn in program.instructions if insn.row in _LEADING_OUT]:
        tested.add(starts[bisect_right(starts, pc) - 1])
    return frozenset(tested)
