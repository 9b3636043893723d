"""What a state goes on with behind a refused instruction: what a right program would have had there."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ebpfjit.isa.spec import FRAME_POINTER, Kind, Row
from ebpfjit.program import Instruction
from ebpfjit.verifier import arithmetic, branches, memory
from ebpfjit.verifier.state import END, State, Step
from ebpfjit.verifier.values import Pointer, Poison, Scalar, Value, poison

if TYPE_CHECKING:
    from ebpfjit.verifier.walk import Walk


def repaired(walk: Walk, state: State, insn: Instruction, row: Row) -> int | None:
    """Let a state go on behind a refused instruction, as if the program had been right there."""
    registers = state.registers
    match row.kind:
        case Kind.EXIT | Kind.CALL_REGISTER:
            return END
        case Kind.CALL_HELPER | Kind.CALL_LOCAL | Kind.CALL_KFUNC | Kind.PACKET_LOAD:
            for number in range(1, 6):
                registers[number] = None
            registers[0] = poison()
        case Kind.LOAD | Kind.STORE | Kind.ATOMIC:
            base = insn.src_reg if row.kind is Kind.LOAD else insn.dst_reg
            _forgiven(state, registers[base])
            if row.kind is Kind.LOAD:
                registers[insn.dst_reg] = poison()
            elif row.fetch:
                registers[0 if row.meaning == "CMPXCHG" else insn.src_reg] = poison()
            for number in {insn.src_reg, insn.dst_reg} if row.kind is not Kind.STORE else {insn.dst_reg}:
                if registers[number] is None:
                    registers[number] = poison()
            if row.kind is Kind.STORE and row.uses_src and registers[insn.src_reg] is None:
                registers[insn.src_reg] = poison()
        case Kind.BRANCH:
            for number in (insn.dst_reg, insn.src_reg if row.uses_src else insn.dst_reg):
                if number < FRAME_POINTER:
                    registers[number] = poison()
            assert insn.target is not None
            other = walk.fork(state, insn.target)
            other.way, state.way = Step(state.way, insn.pc, True), Step(state.way, insn.pc, False)
        case Kind.JUMP | Kind.MAY_GOTO:
            return END
        case _:
            if insn.dst_reg < FRAME_POINTER:
                registers[insn.dst_reg] = poison()
    return None


_STAY = frozenset({"ctx", "stack", "map", "socket", "sock_common", "tcp_sock", "btf_id"})
"""Pointers that are right at another place, after a wrong access."""


def _forgiven(state: State, base: Value) -> None:
    """Take a pointer for one that a right program would have here."""
    if isinstance(base, Pointer) and base.null:
        branches.null(state, base, there=True)
    elif isinstance(base, Pointer) and base.kind in arithmetic.PACKET:
        branches.in_range(state, base, memory.FARTHEST_IN_PACKET)
    elif isinstance(base, (Scalar, Pointer)) and not isinstance(base, Poison):
        if isinstance(base, Pointer) and base.kind in _STAY:
            return
        branches.replaced(state, lambda value: poison() if value is base else value)
