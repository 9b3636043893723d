"""Which accesses go through pointers into the program's arena (Linux: PTR_TO_ARENA, PROBE_MEM32).

Such an access takes the low half of its register as a number in the arena; so Linux rewrites the program, by
the types that its verifier finds. Here it is enough where numbers come from:

    r1 = addr_space_cast(r2, 0, 1)   a pointer into the arena
    copies; any arithmetic with it   one too, of 32 bits: 64-bit operations become those of 32 bits
    kept in a word at r10, loaded    it stays one
    a constant, 32 bits of one       a number, through which Linux lets nobody load or store
    anything else                    what may be an address of the program's memory

What may be either, on different paths, is looked for in the program's memory first, and then is the arena's;
so is everything where it would take too long to find out (`origins.MOST_STEPS`).
What is found decides what a program means, never whether it is safe: an access of the first kind reaches the
arena and nothing else, whatever is in its register, and any other one is checked as everywhere.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from ebpfjit.analysis.accesses import SUMS
from ebpfjit.analysis.origins import ARGUMENTS, KEPT, NEITHER, WORD, Origin, Origins, TooLong, Walk, either
from ebpfjit.bits import W64
from ebpfjit.isa.spec import FRAME_POINTER, FROM_ARENA, Kind
from ebpfjit.program import SLOT_SIZE, Instruction, Program
from ebpfjit.record import dataclass, field, replace
from ebpfjit.runtime.memory import STACK_FRAME_SIZE

ACCESSES = (Kind.LOAD, Kind.STORE, Kind.ATOMIC)
_EVERY_REGISTER = (1 << FRAME_POINTER + 1) - 1
_64_BITS, _32_BITS = 0x07, 0x04  # classes ALU64 and ALU


@dataclass(frozen=True)
class ArenaUse:
    """What a program does with its arena: `map`, of `ebpfjit.runtime.maps.arena`.

    `accesses` are the slots of loads, stores and atomics through a pointer into it, with whether it is surely
    one; `narrow` those of 64-bit arithmetic with one, which is done on 32 bits.
    """

    map: Any
    accesses: Mapping[int, bool] = field(default_factory=dict)
    narrow: frozenset[int] = frozenset()


def base_of(insn: Instruction) -> int:
    """Return the register that an access goes through."""
    assert insn.row is not None  # it is an access
    return insn.src_reg if insn.row.kind is Kind.LOAD else insn.dst_reg


def arena_use(program: Program, blocks: Mapping[int, int]) -> ArenaUse | None:
    """Return what a program does with its arena, None where it has none, or makes no pointer into it.

    `blocks` are the program's basic blocks: their slots, and how many instructions each has.
    """
    arena = program.arena
    casts = any(insn.row is not None and insn.row.kind is Kind.CAST for insn in program.instructions)
    if arena is None or not casts:
        return None
    try:
        search = _Search(program, blocks)
        search.run()
        return ArenaUse(arena, search.accesses(), search.narrow())
    except TooLong:
        return ArenaUse(arena, {insn.pc: False for insn in program.instructions if _is_access(insn)})


def narrowed(program: Program, slots: frozenset[int]) -> Program:
    """Return the program with the 64-bit arithmetic at these slots done on 32 bits (Linux: needs_zext)."""
    if not slots:
        return program
    code = bytearray(program.code)
    for pc in slots:
        assert code[pc * SLOT_SIZE] & 0x07 == _64_BITS  # what else would be narrow
        code[pc * SLOT_SIZE] ^= _64_BITS ^ _32_BITS
    return replace(program, code=bytes(code)).own()


NUMBER, ARENA, ANYTHING = NEITHER, (True, False), (False, True)
"""Where values come from: nowhere that matters, the arena, or elsewhere."""


def _is_access(insn: Instruction) -> bool:
    return insn.row is not None and insn.row.kind in ACCESSES


def _slots_of(insn: Instruction, size: int) -> range | None:
    """Return which words of the frame an access at r10 touches, counted from the top; None for another."""
    if not -STACK_FRAME_SIZE <= insn.offset < 0:
        return None
    return range(_slot_of(insn.offset + size - 1), _slot_of(insn.offset) + 1)


def _slot_of(offset: int) -> int:
    """Return the word that a byte below r10 is in: 1 for the 8 bytes right below."""
    return (WORD - 1 - offset) // WORD


class _Search(Walk):
    """The walk that looks for pointers into the arena; `returned` is what functions may return."""

    def __init__(self, program: Program, blocks: Mapping[int, int]) -> None:
        super().__init__(program, blocks)
        self.returned = NUMBER

    def run(self) -> None:
        """Find out what is known where each basic block starts. Raises TooLong."""
        anything = Origins((0, _EVERY_REGISTER))
        self.reach(0, anything)
        called = {insn.target for insn in self.program.instructions if _is_local(insn)}
        for start in self.program.functions:
            if start not in called or start == 0:
                self.reach(start, anything)  # called by address, or by nobody
        before = None
        while before != self.returned:  # which only grows
            before = self.returned
            self.waiting = list(self.states)
            self.follow()

    def accesses(self) -> dict[int, bool]:
        """Return the accesses through a pointer into the arena, and whether it is surely one."""
        return {
            insn.pc: not state.of(base_of(insn))[1]
            for insn, state in self.all()
            if _is_access(insn) and state.of(base_of(insn))[0]
        }

    def narrow(self) -> frozenset[int]:
        """Return the 64-bit arithmetic with what surely is a pointer into the arena."""
        return frozenset(
            insn.pc
            for insn, state in self.all()
            if insn.row is not None
            and insn.row.kind is Kind.BINARY
            and insn.row.width is W64
            and _is_narrow(insn, state)
        )

    def leaving(self, insn: Instruction, state: Origins) -> Iterator[tuple[int, Origins]]:
        """Yield where control goes but to the next instruction, and what is known there."""
        row = insn.row
        assert row is not None  # a block goes no further than that
        if row.kind is Kind.EXIT:
            self.returned = either(self.returned, state.of(0))
        elif _is_local(insn):
            arena, other = state.registers
            assert insn.target is not None  # a local call names it
            yield insn.target, Origins((arena & ARGUMENTS, other & ARGUMENTS | 1 << FRAME_POINTER))
        elif insn.target is not None:
            yield insn.target, state

    def executed(self, insn: Instruction, state: Origins) -> Origins:
        """Return what is known behind an instruction."""
        row = insn.row
        assert row is not None  # whoever asks has looked
        match row.kind:
            case Kind.CAST:
                return state.put(insn.dst_reg, ARENA if insn.imm == FROM_ARENA else NUMBER)
            case Kind.MOVE:
                copies = row.uses_src and row.width is W64 and row.meaning == "MOV"
                return state.put(insn.dst_reg, state.of(insn.src_reg) if copies else NUMBER)
            case Kind.BINARY:
                return state.put(insn.dst_reg, _sum(insn, state))
            case Kind.UNARY:
                return state.put(insn.dst_reg, NUMBER)
            case Kind.LOAD_IMM64:
                return state.put(insn.dst_reg, ANYTHING if row.reference is not None else NUMBER)
            case Kind.LOAD:
                return state.put(insn.dst_reg, _loaded(insn, state, row.size))
            case Kind.STORE | Kind.ATOMIC:
                return _kept(insn, state)
            case Kind.CALL_HELPER | Kind.CALL_KFUNC | Kind.CALL_LOCAL | Kind.CALL_REGISTER | Kind.PACKET_LOAD:
                arena, other = state.registers
                kept = Origins((arena & KEPT, other | ~KEPT & _EVERY_REGISTER), state.words)
                return kept.put(0, self.returned if row.kind is Kind.CALL_LOCAL else ANYTHING)
            case _:
                return state


def _is_local(insn: Instruction) -> bool:
    return insn.row is not None and insn.row.kind is Kind.CALL_LOCAL


def _is_narrow(insn: Instruction, state: Origins) -> bool:
    """True for arithmetic with what surely is a pointer into the arena: in Linux it is on 32 bits."""
    row = insn.row
    assert row is not None  # it is arithmetic
    return state.of(insn.dst_reg) == ARENA or (row.uses_src and state.of(insn.src_reg) == ARENA)


def _sum(insn: Instruction, state: Origins) -> Origin:
    """Return what arithmetic gives: with a pointer into the arena it is one, whatever is done."""
    row = insn.row
    assert row is not None  # it is arithmetic
    if _is_narrow(insn, state):
        return ARENA
    result = state.of(insn.dst_reg)
    if not row.uses_src:
        return result
    added = state.of(insn.src_reg)
    is_sum = row.width is W64 and row.meaning in SUMS
    return result[0] or added[0], result[1] or (added[1] and is_sum)


def _loaded(insn: Instruction, state: Origins, size: int) -> Origin:
    """Return what a load gives: what was kept in a word of the frame, a number from the arena."""
    if state.of(insn.src_reg) == ARENA:
        return NUMBER
    if insn.src_reg == FRAME_POINTER and size == WORD and insn.offset % WORD == 0:
        slots = _slots_of(insn, size)
        if slots is None:
            return ANYTHING
        arena, other = state.of_word(slots.start)
        return arena, other or not arena  # what nobody kept there may be anything
    return ANYTHING


def _kept(insn: Instruction, state: Origins) -> Origins:
    """Return the state behind a store, or an atomic, which may leave something in a register."""
    row = insn.row
    assert row is not None  # it is a store
    if insn.dst_reg == FRAME_POINTER:
        is_word = row.kind is Kind.STORE and row.size == WORD and insn.offset % WORD == 0
        told = state.of(insn.src_reg) if is_word and row.uses_src else NUMBER if is_word else ANYTHING
        for slot in _slots_of(insn, row.size) or ():
            state = state.put_word(slot, told)
    if row.kind is Kind.ATOMIC and row.fetch:
        return state.put(0 if row.meaning == "CMPXCHG" else insn.src_reg, ANYTHING)
    return state
