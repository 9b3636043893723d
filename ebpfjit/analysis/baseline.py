"""What is known of accesses without following what the program does: for code that is to be there soon.

Only an access through r10 itself needs no check. Which region is tried first is guessed from the
instructions in their order, as if none jumped; a wrong guess costs time, nothing else.
"""

from __future__ import annotations

from bisect import bisect_right

from ebpfjit.analysis.accesses import SUMS, Access, Accesses, Origin
from ebpfjit.analysis.cfg import NEVER_FALLS_THROUGH
from ebpfjit.analysis.verified import Verified
from ebpfjit.bits import W64
from ebpfjit.isa.spec import FRAME_POINTER, Kind, Reg, Row
from ebpfjit.memo import Memo
from ebpfjit.program import Instruction, Program
from ebpfjit.record import record

MEMORY = frozenset({Kind.LOAD, Kind.STORE, Kind.ATOMIC})
CALLS = frozenset({Kind.CALL_LOCAL, Kind.LOAD_IMM64})
"""What names another function without going on there."""
START = [Origin.PACKET] * 16
START[1], START[FRAME_POINTER] = Origin.ARGUMENT, Origin.STACK
"""What registers are taken to point to where a function starts; what no engine runs may name 16."""


def baseline(verified: Verified) -> Accesses:
    """Return what is known of a program's accesses at first sight; frames that are named are zeroed."""
    program = verified.program
    functions = program.functions
    named = [insn for insn in program.suspects if FRAME_POINTER in (insn.dst_reg, insn.src_reg)]
    size = min(verified.frame_sizes.values(), default=0)
    accesses: dict[int, Access] = {}
    origins, unknown = START.copy(), Origin.PACKET
    words = program.words
    known = _known_shapes.trim(len(words)).get
    for insn in program.instructions:
        pc = insn.pc
        if pc in functions:
            origins = START.copy()
        shape = known(words[pc]) or _shape_of(words[pc], insn)
        if shape.size:
            inside = shape.base == FRAME_POINTER and -size <= insn.offset <= -shape.size
            proof, origin = "frame" if inside else "", origins[shape.base]
            accesses[pc] = Access(pc, shape.size, shape.stores, proof, origin, size)
        if shape.written is not None:
            origins[shape.written] = unknown if shape.copied is None else origins[shape.copied]
    return Accesses(accesses, _zeroed(program, named))


def _zeroed(program: Program, named: list[Instruction]) -> frozenset[int]:
    """Return the functions whose frame is to be zeroed: they name it, between their start and the next one's.

    All of them where a function goes on in another, or a pointer into a frame may be handed about: r10 is
    more than the base of accesses somewhere.
    """
    starts = list(program.functions)
    if not named:
        return frozenset()
    if len(starts) == 1 or not all(map(_is_base_only, named)):
        return frozenset(starts)
    if any(_falls_into(program, start) for start in starts[1:]):
        return frozenset(starts)
    for insn, target in program.jumps:
        calls = insn.row is not None and insn.row.kind in CALLS
        if not calls and bisect_right(starts, insn.pc) != bisect_right(starts, target):
            return frozenset(starts)
    return frozenset(starts[bisect_right(starts, insn.pc) - 1] for insn in named)


def _falls_into(program: Program, start: int) -> bool:
    """True where what stands before a slot goes on there."""
    before = program.slots[start - 1] or program.slots[start - 2]
    return before is None or before.row is None or before.row.kind not in NEVER_FALLS_THROUGH


def _is_base_only(insn: Instruction) -> bool:
    """True where r10 is nothing but what an access counts from."""
    row = insn.row
    if row is None or row.kind not in MEMORY:
        return False
    loads = row.kind is Kind.LOAD
    other, uses_other = (insn.dst_reg, True) if loads else (insn.src_reg, row.uses_src)
    return not (uses_other and other == FRAME_POINTER)


@record
class _Shape:
    """What an instruction is to this: the access that it makes (size 0: none), the register it writes.

    `written` is None where no pointer is lost, `copied` the register that is copied there.
    """

    size: int
    base: int
    stores: bool
    written: int | None
    copied: int | None


_known_shapes: Memo[int, _Shape] = Memo()


def _shape_of(word: int, insn: Instruction) -> _Shape:
    """Return the shape of an instruction, from now on known by its first word."""
    row, written, copied = insn.row, None, None
    size, base, stores = 0, 0, False
    if row is not None and row.kind in MEMORY:
        stores = row.kind is not Kind.LOAD
        size, base = row.size, insn.dst_reg if stores else insn.src_reg
    if row is not None and (row.dst is Reg.WRITE or (row.dst is Reg.UPDATE and not _moves(row))):
        written = insn.dst_reg
        copied = insn.src_reg if row.kind is Kind.MOVE and row.uses_src and row.width is W64 else None
    shape = _known_shapes[word] = _Shape(size, base, stores, written, copied)
    return shape


def _moves(row: Row) -> bool:
    """True for what leaves a pointer a pointer."""
    return row.kind is Kind.BINARY and row.width is W64 and row.meaning in SUMS
