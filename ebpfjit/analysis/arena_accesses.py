"""Which accesses go through pointers into the program's arena (Linux: PTR_TO_ARENA, PROBE_MEM32).

Such an access takes the low half of its register as a number in the arena; so Linux rewrites the program, by
the types that its verifier finds. Here it is enough where numbers come from:

    r1 = addr_space_cast(r2, 0, 1)   a pointer into the arena
    copies; any arithmetic with it   one too, of 32 bits: 64-bit operations become those of 32 bits
    kept in a word at r10, loaded    it stays one
    a constant, 32 bits of one       a number, through which Linux lets nobody load or store
    anything else                    what may be an address of the program's memory

What may be either, on different paths, is looked for in the program's memory first, and then is the arena's.
What is found decides what a program means, never whether it is safe: an access of the first kind reaches the
arena and nothing else, whatever is in its register, and any other one is checked as everywhere.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from ebpfjit.analysis.cfg import NEVER_FALLS_THROUGH, is_inside
from ebpfjit.analysis.values import SUMS
from ebpfjit.bits import W64
from ebpfjit.isa.spec import FRAME_POINTER, FROM_ARENA, Kind
from ebpfjit.program import SLOT_SIZE, Instruction, Program
from ebpfjit.runtime.memory import STACK_FRAME_SIZE

ACCESSES = (Kind.LOAD, Kind.STORE, Kind.ATOMIC)
WORD = 8
_ARGUMENTS = 0b111110  # r1 to r5
_KEPT = 0b1111000000  # r6 to r9
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
    search = _Search(program, blocks)
    search.run()
    return ArenaUse(arena, search.accesses(), search.narrow())


def narrowed(program: Program, slots: frozenset[int]) -> Program:
    """Return the program with the 64-bit arithmetic at these slots done on 32 bits (Linux: needs_zext)."""
    if not slots:
        return program
    code = bytearray(program.code)
    for pc in slots:
        assert code[pc * SLOT_SIZE] & 0x07 == _64_BITS  # what else would be narrow
        code[pc * SLOT_SIZE] ^= _64_BITS ^ _32_BITS
    return replace(program, code=bytes(code)).own()


@dataclass(frozen=True, slots=True)
class _State:
    """Registers, and words of the frame, that may be in the arena, or be anything: a bit each."""

    arena: int = 0
    other: int = 0
    arena_slots: int = 0
    other_slots: int = 0

    def joined(self, more: _State) -> _State:
        """Return what may be where two paths meet."""
        return _State(
            self.arena | more.arena,
            self.other | more.other,
            self.arena_slots | more.arena_slots,
            self.other_slots | more.other_slots,
        )

    def told(self, register: int) -> tuple[bool, bool]:
        """Return whether a register may be in the arena, and whether it may be something else."""
        return bool(self.arena >> register & 1), bool(self.other >> register & 1)

    def put(self, register: int, told: tuple[bool, bool]) -> _State:
        """Return the state with another register."""
        kept = ~(1 << register)
        return _State(
            self.arena & kept | told[0] << register,
            self.other & kept | told[1] << register,
            self.arena_slots,
            self.other_slots,
        )

    def told_slot(self, slot: int) -> tuple[bool, bool]:
        """Return the same of a word of the frame; what nobody kept there may be anything."""
        arena = bool(self.arena_slots >> slot & 1)
        return arena, bool(self.other_slots >> slot & 1) or not arena

    def put_slot(self, slot: int, told: tuple[bool, bool]) -> _State:
        """Return the state with another word in the frame."""
        kept = ~(1 << slot)
        return _State(
            self.arena,
            self.other,
            self.arena_slots & kept | told[0] << slot,
            self.other_slots & kept | told[1] << slot,
        )


NUMBER, ARENA, ANYTHING = (False, False), (True, False), (False, True)


def _slots_of(insn: Instruction, size: int) -> range | None:
    """Return which words of the frame an access at r10 touches, counted from the top; None for another."""
    if not -STACK_FRAME_SIZE <= insn.offset < 0:
        return None
    return range(_slot_of(insn.offset + size - 1), _slot_of(insn.offset) + 1)


def _slot_of(offset: int) -> int:
    """Return the word that a byte below r10 is in: 1 for the 8 bytes right below."""
    return (WORD - 1 - offset) // WORD


class _Search:
    """A walk over a program until nothing new is found; `returned` is what its functions may return."""

    def __init__(self, program: Program, blocks: Mapping[int, int]) -> None:
        self.program = program
        self.blocks = blocks
        self.returned = NUMBER
        self.states: dict[int, _State] = {}
        self.waiting: list[int] = []

    def run(self) -> None:
        """Find out what is known where each basic block starts."""
        self._reach(0, _State(other=_EVERY_REGISTER))
        called = {insn.target for insn in self.program.instructions if _is_local(insn)}
        for start in self.program.functions:
            if start not in called or start == 0:
                self._reach(start, _State(other=_EVERY_REGISTER))  # called by address, or by nobody
        before = None
        while before != self.returned:  # which only grows
            before = self.returned
            self.waiting = list(self.states)
            while self.waiting:
                for insn, state in self._through(self.waiting.pop()):
                    self._leave(insn, state)

    def accesses(self) -> dict[int, bool]:
        """Return the accesses through a pointer into the arena, and whether it is surely one."""
        return {
            insn.pc: not state.told(base_of(insn))[1]
            for insn, state in self._all()
            if insn.row is not None and insn.row.kind in ACCESSES and state.told(base_of(insn))[0]
        }

    def narrow(self) -> frozenset[int]:
        """Return the 64-bit arithmetic with what surely is a pointer into the arena."""
        return frozenset(
            insn.pc
            for insn, state in self._all()
            if insn.row is not None
            and insn.row.kind is Kind.BINARY
            and insn.row.width is W64
            and _is_narrow(insn, state)
        )

    def _all(self) -> Iterator[tuple[Instruction, _State]]:
        for start in sorted(self.states):
            yield from self._through(start)

    def _through(self, start: int) -> Iterator[tuple[Instruction, _State]]:
        """Yield the instructions of a block, and what is known before each."""
        state, pc, slots = self.states[start], start, self.program.slots
        for _ in range(self.blocks[start]):
            insn = slots[pc]
            if insn is None or insn.row is None:
                return  # nothing runs it
            yield insn, state
            state, pc = self._executed(insn, state), insn.next_pc
        last = insn.row.kind if insn is not None and insn.row is not None else None
        if last not in NEVER_FALLS_THROUGH:
            self._reach(pc, state)

    def _reach(self, pc: int, state: _State) -> None:
        """Take note that a slot is reached in a state; what is no instruction ends the run."""
        if not is_inside(self.program, pc):
            return
        known = self.states.get(pc)
        joined = state if known is None else known.joined(state)
        if joined != known:
            self.states[pc] = joined
            self.waiting.append(pc)

    def _leave(self, insn: Instruction, state: _State) -> None:
        """Follow control to where it goes but to the next instruction."""
        row = insn.row
        assert row is not None  # a block goes no further than that
        if row.kind is Kind.EXIT:
            found = state.told(0)
            self.returned = self.returned[0] or found[0], self.returned[1] or found[1]
        elif _is_local(insn):
            given = _State(state.arena & _ARGUMENTS, state.other & _ARGUMENTS | 1 << FRAME_POINTER)
            assert insn.target is not None  # a local call names it
            self._reach(insn.target, given)
        elif insn.target is not None:
            self._reach(insn.target, state)

    def _executed(self, insn: Instruction, state: _State) -> _State:
        """Return what is known behind an instruction."""
        row = insn.row
        assert row is not None  # whoever asks has looked
        match row.kind:
            case Kind.CAST:
                return state.put(insn.dst_reg, ARENA if insn.imm == FROM_ARENA else NUMBER)
            case Kind.MOVE:
                copies = row.uses_src and row.width is W64 and row.meaning == "MOV"
                return state.put(insn.dst_reg, state.told(insn.src_reg) if copies else NUMBER)
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
                kept = replace(state, arena=state.arena & _KEPT, other=state.other | ~_KEPT & _EVERY_REGISTER)
                return kept.put(0, self.returned if row.kind is Kind.CALL_LOCAL else ANYTHING)
            case _:
                return state


def _is_local(insn: Instruction) -> bool:
    return insn.row is not None and insn.row.kind is Kind.CALL_LOCAL


def _is_narrow(insn: Instruction, state: _State) -> bool:
    """True for arithmetic with what surely is a pointer into the arena: in Linux it is on 32 bits."""
    row = insn.row
    assert row is not None  # it is arithmetic
    return state.told(insn.dst_reg) == ARENA or (row.uses_src and state.told(insn.src_reg) == ARENA)


def _sum(insn: Instruction, state: _State) -> tuple[bool, bool]:
    """Return what arithmetic gives: with a pointer into the arena it is one, whatever is done."""
    row = insn.row
    assert row is not None  # it is arithmetic
    if _is_narrow(insn, state):
        return ARENA
    result = state.told(insn.dst_reg)
    if not row.uses_src:
        return result
    added = state.told(insn.src_reg)
    is_sum = row.width is W64 and row.meaning in SUMS
    return result[0] or added[0], result[1] or (added[1] and is_sum)


def _loaded(insn: Instruction, state: _State, size: int) -> tuple[bool, bool]:
    """Return what a load gives: what was kept in a word of the frame, a number from the arena."""
    if state.told(insn.src_reg) == ARENA:
        return NUMBER
    if insn.src_reg == FRAME_POINTER and size == WORD and insn.offset % WORD == 0:
        slots = _slots_of(insn, size)
        return ANYTHING if slots is None else state.told_slot(slots.start)
    return ANYTHING


def _kept(insn: Instruction, state: _State) -> _State:
    """Return the state behind a store, or an atomic, which may leave something in a register."""
    row = insn.row
    assert row is not None  # it is a store
    if insn.dst_reg == FRAME_POINTER:
        is_word = row.kind is Kind.STORE and row.size == WORD and insn.offset % WORD == 0
        told = state.told(insn.src_reg) if is_word and row.uses_src else NUMBER if is_word else ANYTHING
        for slot in _slots_of(insn, row.size) or ():
            state = state.put_slot(slot, told)
    if row.kind is Kind.ATOMIC and row.fetch:
        return state.put(0 if row.meaning == "CMPXCHG" else insn.src_reg, ANYTHING)
    return state
