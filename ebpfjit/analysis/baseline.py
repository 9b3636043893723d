"""What is known of accesses without following what the program does: for code that is to be there soon.

Only an access through r10 itself needs no check. Which region is tried first is guessed from the
instructions in their order, as if none jumped; a wrong guess costs time, nothing else.
"""

from __future__ import annotations

from ebpfjit.analysis.accesses import Access, Facts
from ebpfjit.analysis.values import SUMS, Origin
from ebpfjit.analysis.verified import Verified
from ebpfjit.bits import W64
from ebpfjit.isa.spec import FRAME_POINTER, Kind, Reg, Row
from ebpfjit.program import Instruction

MEMORY = frozenset({Kind.LOAD, Kind.STORE, Kind.ATOMIC})
START = [Origin.PACKET] * 16
START[1], START[FRAME_POINTER] = Origin.ARGUMENT, Origin.STACK
"""What registers are taken to point to where a function starts; what no engine runs may name 16."""


def baseline(verified: Verified) -> Facts:
    """Return what is known of a program's accesses at first sight; frames are zeroed if it uses r10."""
    program = verified.program
    functions = program.functions
    named = [insn for insn in program.instructions if FRAME_POINTER in (insn.dst_reg, insn.src_reg)]
    is_fixed = not any(_writes_frame_pointer(insn) for insn in named)
    size = min(verified.frame_sizes.values(), default=0) if is_fixed else 0
    accesses: dict[int, Access] = {}
    origins = START.copy()
    for insn in program.instructions:
        row, pc = insn.row, insn.pc
        if row is None:
            continue
        if pc in functions:
            origins = START.copy()
        if row.kind in MEMORY:
            loads = row.kind is Kind.LOAD
            base = insn.src_reg if loads else insn.dst_reg
            inside = base == FRAME_POINTER and -size <= insn.offset <= -row.size
            proof = "frame" if inside else ""
            accesses[pc] = Access(pc, row.size, not loads, proof, origins[base], size, None)
        if row.dst is Reg.WRITE or (row.dst is Reg.UPDATE and not _moves(row)):
            copies = row.kind is Kind.MOVE and row.uses_src and row.width is W64
            origins[insn.dst_reg] = origins[insn.src_reg] if copies else Origin.PACKET
    return Facts(accesses, frozenset(functions) if named else frozenset(), {}, {})


def _moves(row: Row) -> bool:
    """True for what leaves a pointer a pointer."""
    return row.kind is Kind.BINARY and row.width is W64 and row.meaning in SUMS


def _writes_frame_pointer(insn: Instruction) -> bool:
    """True where a custom verifier let a program write r10: then the frame is anywhere."""
    row = insn.row
    if row is None:
        return False
    return (insn.dst_reg == FRAME_POINTER and row.dst in (Reg.WRITE, Reg.UPDATE)) or (
        insn.src_reg == FRAME_POINTER and row.src is Reg.UPDATE
    )
