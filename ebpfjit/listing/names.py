"""Instructions with names in the place of numbers: helpers, kernel functions, maps, variables, targets.

jeq r1, 0x5, +0x2      jeq r1, 0x5, pc 12
call 0x1               call bpf_map_lookup_elem
lddw r1, map[idx:1]    lddw r1, map blocked
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping
from typing import Any

from ebpfjit.disassembler import disassemble_instruction
from ebpfjit.isa.spec import Kind, Reference
from ebpfjit.listing.view import shown
from ebpfjit.program import Instruction, Program
from ebpfjit.runtime.helpers.names import NAMES


def named(
    program: Program, insn: Instruction, dialect: str = "rbpf", helpers: Mapping[int, str] = NAMES
) -> str:
    """Return an instruction of a program as text; `helpers` are the names of helpers by number."""
    text = disassemble_instruction(insn, dialect)
    row = insn.row
    if row is None or text.startswith("."):  # it is no instruction, and written as bytes
        return text
    match row.kind:
        case Kind.JUMP | Kind.BRANCH | Kind.MAY_GOTO:
            return f"{text.rpartition(' ')[0]} pc {insn.target}"
        case Kind.CALL_LOCAL:
            return f"{text.split()[0]} {_function(program, insn.target)}"
        case Kind.CALL_HELPER if insn.pc in program.absent:
            return f"{text} (not there: {shown(program.absent[insn.pc])})"
        case Kind.CALL_HELPER:
            number = insn.imm & 0xFFFFFFFF
            return f"call {helpers[number]}" if number in helpers else text
        case Kind.CALL_KFUNC if insn.imm in program.kfuncs:
            return f"call {shown(program.kfuncs[insn.imm].name)}"
        case Kind.LOAD_IMM64:
            what = _meant(program, insn, row.reference)
            return text if what is None else f"{text[: text.index(_LAST[dialect]) + 2]}{what}"
    return text


_LAST = {"rbpf": ", ", "linux": "= "}
"""What stands in front of a wide load's constant."""


def _function(program: Program, pc: int | None) -> str:
    name = program.functions.get(pc) if pc is not None else None
    return f"pc {pc}" if name is None else f"{shown(name)} (pc {pc})"


def _meant(program: Program, insn: Instruction, reference: Reference | None) -> str | None:
    """Return what a wide load refers to, None where it is a number."""
    if insn.pc in program.kernel_symbols:
        return f"kernel symbol {shown(program.kernel_symbols[insn.pc])}"
    if reference is Reference.CODE:
        return f"function {_function(program, insn.target)}"
    if reference in (Reference.MAP_BY_FD, Reference.MAP_BY_INDEX):
        address = program.references.get(insn.pc)
        found = [map_ for map_ in program.maps if map_.address == address] or _indexed(program, insn)
        return f"map {shown(found[0].definition.name)}" if found else None
    found = _indexed(program, insn)
    if reference is not Reference.MAP_VALUE_BY_INDEX or not found:
        return None
    definition, offset = found[0].definition, (insn.next_imm or 0) & 0xFFFFFFFF
    return _variable(definition.variables, offset) or f"map {shown(definition.name)}[0]+{offset}"


def _indexed(program: Program, insn: Instruction) -> tuple[Any, ...]:
    """Return the map that a wide load counts, where it does so."""
    row = insn.row
    counts = row is not None and row.reference in (Reference.MAP_BY_INDEX, Reference.MAP_VALUE_BY_INDEX)
    return program.maps[insn.imm : insn.imm + 1] if counts and insn.imm >= 0 else ()


def _variable(variables: tuple[tuple[int, str], ...], offset: int) -> str:
    """Return the name of the variable at an offset of a section, and how far behind its start that is."""
    index = bisect_right(variables, offset, key=lambda variable: variable[0])
    if not index:
        return ""
    start, name = variables[index - 1]
    return f"variable {shown(name)}" + (f"+{offset - start}" if offset > start else "")
