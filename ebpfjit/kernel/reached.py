"""A program without the functions that only variables point to: Linux takes none that nobody calls.

0: program | exit ... | 8: in a table | 11: in a table, and called      ->      0: program | 4: called

libbpf does not look at pointers to functions in data, so that a program that uses variables beside such a
table, and does not go through it, is loaded without the functions of the table.
"""

from __future__ import annotations

import struct
from bisect import bisect_right
from collections.abc import Mapping
from itertools import pairwise
from typing import TypeVar

from ebpfjit.program import SLOT_SIZE, Instruction, Program
from ebpfjit.record import replace

Value = TypeVar("Value")

_EXIT = 0x95
_ENDS = (_EXIT, 0x05, 0x06)
"""The opcodes of exit and of jumps: what is behind is reached in another way."""

_LINE = struct.Struct("=IIII")
_TO_CODE = ("CALL_LOCAL", "LDDW_CODE")


def only_reached(program: Program, code: bytes) -> tuple[Program, bytes]:
    """Return a program with the functions that it reaches by calls, and its code, of which the same is left.

    `code` is the program's with descriptors in it. A program that reaches all of its functions is itself, as
    is one in which code goes from one function into another without a call.
    """
    starts = sorted({0, *program.functions})
    if len(starts) == 1:
        return program, code
    ends = dict(pairwise([*starts, len(program.code) // SLOT_SIZE]))
    kept = _reached(program, starts)
    if kept is None or len(kept) == len(starts):
        return program, code
    ends[0] = _end_of_main(program, ends[0])
    moved: dict[int, int] = {}
    for start in sorted(kept):
        moved |= {pc: len(moved) + pc - start for pc in range(start, ends[start])}
    made = bytearray(b"".join(code[pc * SLOT_SIZE : (pc + 1) * SLOT_SIZE] for pc in moved))
    for insn in program.instructions:
        if insn.pc in moved and (target := _target(insn)) in moved:
            at = moved[insn.pc]
            struct.pack_into("<i", made, at * SLOT_SIZE + 4, moved[target] - at - 1)
    return _moved(program, bytes(made), moved), bytes(made)


def _target(insn: Instruction) -> int:
    """Return the slot of the function that an instruction calls or takes the address of, -1 for others."""
    names_code = insn.row is not None and insn.row.operation in _TO_CODE
    return insn.pc + 1 + insn.imm if names_code else -1


def _reached(program: Program, starts: list[int]) -> set[int] | None:
    """Return where the functions start that main, and what bpf_throw calls, reach.

    None where jumps lead out of a function, or its end is none.
    """

    def start_of(pc: int) -> int:
        return starts[bisect_right(starts, pc) - 1]

    called: dict[int, set[int]] = {start: set() for start in starts}
    last: dict[int, Instruction] = {}
    for insn in program.instructions:
        start = start_of(insn.pc)
        last[start] = insn
        if (target := _target(insn)) >= 0:
            called[start].add(start_of(target))
        elif insn.target is not None and start_of(insn.target) != start:
            return None
    if any(insn.opcode not in _ENDS for insn in last.values()):
        return None
    work = [0] if program.exception_callback is None else [0, program.exception_callback]
    found: set[int] = set()
    while work:
        start = work.pop()
        if start not in found:
            found.add(start)
            work += called[start]
    return found


def _end_of_main(program: Program, end: int) -> int:
    """Return the slot behind main, without what the linker put there to fill the place up to a table."""
    jumped = {insn.target for insn in program.instructions if insn.target is not None}
    opcodes = program.code[: end * SLOT_SIZE : SLOT_SIZE]
    while end > 1 and end - 1 not in jumped and opcodes[end - 1] == _EXIT and opcodes[end - 2] in _ENDS:
        end -= 1
    return end


def _moved(program: Program, code: bytes, moved: dict[int, int]) -> Program:
    """Return the program with what it says of slots where these are now."""

    def there(by_pc: Mapping[int, Value]) -> dict[int, Value]:
        return {moved[pc]: value for pc, value in by_pc.items() if pc in moved}

    types, callback = program.types, program.exception_callback
    if types is not None:
        functions = tuple((moved[pc], id) for pc, id in types.functions if pc in moved)
        lines = (_LINE.pack(moved[pc], *rest) for pc, *rest in _LINE.iter_unpack(types.lines) if pc in moved)
        types = replace(types, functions=functions, lines=b"".join(lines))
    return replace(
        program,
        code=code,
        symbols=there(program.symbols),
        references=there(program.references),
        lines=there(program.lines),
        absent=there(program.absent),
        types=types,
        kernel_symbols=there(program.kernel_symbols),
        unmet=there(program.unmet),
        exception_callback=None if callback is None else moved[callback],
        weak_kfuncs=there(program.weak_kfuncs),
        relocations=there(program.relocations),
    )
