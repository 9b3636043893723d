"""Which loads go through pointers that the kernel gave the program (Linux: PTR_TO_BTF_ID, PROBE_MEM).

Such a load reads the kernel's memory, and gives zero where there is nothing; any other load that leaves the
program's memory is a fault. Linux's verifier knows the type of each pointer. Here it is enough where pointers
come from, as no program that Linux accepts loads through anything else that is made there:

    r1 of fentry, tp_btf, iter, lsm, ...     a context: its 8-byte words are the kernel's pointers
    8 bytes loaded through such a pointer    one more
    what some helpers return                 one as well
    what kfuncs return that BTF says         one as well, but for those that are here: what they return is the
    to be the address of a struct            program's memory, and a fault where it is so no more
    the address of a variable (__ksym)       one as well
    plus or minus, copied, kept in memory    it stays one

Where that would take too long to find out (MOST_STEPS), each load counts as one.

What may be one on some path counts as one. So a number that is loaded from such a context, and that Linux
would let nobody load through, gives zero too.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from ebpfjit.analysis.cfg import NEVER_FALLS_THROUGH, is_inside
from ebpfjit.analysis.values import SUMS
from ebpfjit.bits import W64
from ebpfjit.isa.spec import FRAME_POINTER, Kind
from ebpfjit.program import Instruction, Program
from ebpfjit.runtime.helpers.names import NUMBERS
from ebpfjit.runtime.kfuncs.table import kfuncs
from ebpfjit.runtime.memory import STACK_FRAME_SIZE

CONTEXT_TYPES = frozenset({"tracing", "lsm", "struct_ops", "netfilter", "ext"})
"""Program types whose context holds pointers of the kernel (kernel/bpf/btf.c: btf_ctx_access)."""

RETURNING = frozenset(
    NUMBERS[name]
    for name in (
        "bpf_get_current_task_btf",
        "bpf_task_pt_regs",
        "bpf_sock_from_file",
        "bpf_per_cpu_ptr",
        "bpf_this_cpu_ptr",
        "bpf_kptr_xchg",
        "bpf_skc_to_tcp_sock",
        "bpf_skc_to_tcp6_sock",
        "bpf_skc_to_tcp_timewait_sock",
        "bpf_skc_to_tcp_request_sock",
        "bpf_skc_to_udp6_sock",
        "bpf_skc_to_unix_sock",
        "bpf_skc_to_mptcp_sock",
    )
)
"""Helpers that return such a pointer (RET_PTR_TO_BTF_ID and its kin)."""

CALLING_BACK = frozenset({NUMBERS["bpf_find_vma"]})
"""Helpers that give functions of the program such pointers, as r1 and r2."""

CASTS = frozenset(
    {"bpf_rdonly_cast", "bpf_cast_to_kern_ctx", "bpf_iter_task_next", "bpf_iter_kmem_cache_next"}
)
"""Kfuncs of ours that return a pointer of the kernel's: of any number (PTR_UNTRUSTED), or to an object."""

MOST_STEPS = 1 << 19
"""Instructions that are looked at in all, each as often as something new is known before it: two seconds."""

WORD = 8
_ARGUMENTS = 0b111110  # r1 to r5
_KEPT = 0b1111000000  # r6 to r9


@dataclass(frozen=True, slots=True)
class _State:
    """Registers, and words of the frame, that may hold pointers of the kernel or the context: a bit each."""

    kernel: int = 0
    context: int = 0
    kernel_slots: int = 0
    context_slots: int = 0

    def joined(self, other: _State) -> _State:
        """Return what may be where two paths meet."""
        return _State(
            self.kernel | other.kernel,
            self.context | other.context,
            self.kernel_slots | other.kernel_slots,
            self.context_slots | other.context_slots,
        )

    def told(self, register: int) -> tuple[bool, bool]:
        """Return whether a register may point into the kernel, and to the context."""
        return bool(self.kernel >> register & 1), bool(self.context >> register & 1)

    def put(self, register: int, told: tuple[bool, bool] = (False, False)) -> _State:
        """Return the state with another register."""
        kept = ~(1 << register)
        return _State(
            self.kernel & kept | told[0] << register,
            self.context & kept | told[1] << register,
            self.kernel_slots,
            self.context_slots,
        )

    def told_slot(self, slot: int) -> tuple[bool, bool]:
        """Return the same of a word of the frame."""
        return bool(self.kernel_slots >> slot & 1), bool(self.context_slots >> slot & 1)

    def put_slot(self, slot: int, told: tuple[bool, bool]) -> _State:
        """Return the state with another word in the frame."""
        kept = ~(1 << slot)
        return _State(
            self.kernel,
            self.context,
            self.kernel_slots & kept | told[0] << slot,
            self.context_slots & kept | told[1] << slot,
        )


def _slot_of(insn: Instruction, base: int) -> int | None:
    """Return which word of the frame an access is to, counted from the top; None where it is to none."""
    is_word = base == FRAME_POINTER and -STACK_FRAME_SIZE <= insn.offset < 0 and insn.offset % WORD == 0
    return -insn.offset // WORD if is_word else None


def kernel_loads(program: Program, blocks: Mapping[int, int]) -> frozenset[int]:
    """Return the slots of the loads that may go through a pointer of the kernel's.

    `blocks` are the program's basic blocks: their slots, and how many instructions each has.
    """
    sources = program.kernel_symbols or any(_is_source(program, insn) for insn in program.instructions)
    if program.type not in CONTEXT_TYPES and not sources:
        return frozenset()
    try:
        return _Search(program, blocks).run()
    except _TooLong:
        return frozenset(insn.pc for insn in program.instructions if _is_load(insn))


class _TooLong(Exception):  # noqa: N818 - nobody sees it
    """The search has looked at MOST_STEPS instructions."""


def _is_load(insn: Instruction) -> bool:
    return insn.row is not None and insn.row.kind is Kind.LOAD


def _is_source(program: Program, insn: Instruction) -> bool:
    """True for a call that returns, or hands over, a pointer of the kernel's."""
    kind = insn.row.kind if insn.row is not None else None
    if kind is not Kind.CALL_KFUNC:
        return kind is Kind.CALL_HELPER and insn.imm in RETURNING | CALLING_BACK
    called = program.kfuncs.get(insn.imm)
    if called is None or called.name in kfuncs():
        return called is None or called.name in CASTS  # others here return the program's own memory
    return called.arguments is None or (called.result is not None and called.result.to_struct)


class _Search:
    """A walk over a program until nothing new is found.

    `stored` says whether a pointer of each kind was put into memory at all, `scattered` whether that was
    otherwise than through r10; `returned` what functions of the program may return. `steps_left` is how many
    instructions it may still look at.
    """

    def __init__(self, program: Program, blocks: Mapping[int, int]) -> None:
        self.program = program
        self.blocks = blocks
        self.stored = (False, False)
        self.scattered = (False, False)
        self.returned = (False, False)
        self.states: dict[int, _State] = {}
        self.waiting: list[int] = []
        self.steps_left = MOST_STEPS

    def run(self) -> frozenset[int]:
        """Return the slots that were looked for."""
        before = None
        while before != (self.stored, self.scattered, self.returned):  # each only grows
            before = self.stored, self.scattered, self.returned
            self._walk()
        return frozenset(
            insn.pc
            for start in self.states
            for insn, state in self._through(start)
            if _is_load(insn) and state.told(insn.src_reg)[0]
        )

    def _walk(self) -> None:
        """Follow what is new, or everything once more where what memory may hold is new."""
        self.waiting = list(self.states)
        called_back = 0b110 if any(map(_calls_back, self.program.instructions)) else 0
        for start in self.program.functions:
            self._reach(start, _State(called_back if start else 0))
        if self.program.type in CONTEXT_TYPES:
            self._reach(0, _State(context=0b10))
        while self.waiting:
            for insn, state in self._through(self.waiting.pop()):
                for target, known in self._leaving(insn, state):
                    self._reach(target, known)

    def _through(self, start: int) -> Iterator[tuple[Instruction, _State]]:
        """Yield the instructions of a block, and what is known before each. Raises _TooLong."""
        self.steps_left -= self.blocks[start]
        if self.steps_left < 0:
            raise _TooLong
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

    def _leaving(self, insn: Instruction, state: _State) -> Iterator[tuple[int, _State]]:
        """Yield where control goes but to the next instruction, and what is known there."""
        row = insn.row
        assert row is not None  # a block goes no further than that
        if row.kind is Kind.EXIT:
            self.returned = _either(self.returned, state.told(0))
            return
        if row.kind in (Kind.CALL_LOCAL, Kind.CALL_REGISTER):
            arguments = _State(state.kernel & _ARGUMENTS, state.context & _ARGUMENTS)
            target = insn.target
            for function in self.program.functions if target is None else (target,):
                yield function, arguments
        elif insn.target is not None:
            yield insn.target, state

    def _executed(self, insn: Instruction, state: _State) -> _State:
        """Return what is known behind an instruction."""
        row = insn.row
        assert row is not None  # whoever asks has looked
        match row.kind:
            case Kind.MOVE:
                copies = row.uses_src and row.width is W64 and row.meaning == "MOV"
                return state.put(insn.dst_reg, state.told(insn.src_reg) if copies else (False, False))
            case Kind.BINARY:
                if row.width is not W64 or row.meaning not in SUMS:
                    return state.put(insn.dst_reg)
                added = state.told(insn.src_reg) if row.uses_src else (False, False)
                return state.put(insn.dst_reg, _either(state.told(insn.dst_reg), added))
            case Kind.UNARY | Kind.CAST:
                return state.put(insn.dst_reg)
            case Kind.LOAD_IMM64:
                return state.put(insn.dst_reg, (insn.pc in self.program.kernel_symbols, False))
            case Kind.LOAD:
                return state.put(insn.dst_reg, self._loaded(insn, state, row.size))
            case Kind.STORE:
                return self._kept(insn, state, row.size) if row.uses_src else state
            case Kind.ATOMIC:
                state = self._kept(insn, state, row.size, anywhere=True)
                fetched = 0 if row.meaning == "CMPXCHG" else insn.src_reg
                return state.put(fetched, self.stored) if row.fetch else state
            case Kind.CALL_HELPER | Kind.CALL_KFUNC | Kind.CALL_LOCAL | Kind.CALL_REGISTER | Kind.PACKET_LOAD:
                return self._called(insn, state)
            case _:
                return state

    def _loaded(self, insn: Instruction, state: _State, size: int) -> tuple[bool, bool]:
        """Return what a load gives."""
        if size < WORD:
            return False, False
        kernel, context = state.told(insn.src_reg)
        if kernel or context:
            return True, False
        slot = _slot_of(insn, insn.src_reg)
        return self.stored if slot is None else _either(self.scattered, state.told_slot(slot))

    def _kept(self, insn: Instruction, state: _State, size: int, *, anywhere: bool = False) -> _State:
        """Return the state behind a store of a register; what is not at r10 may be anywhere."""
        told = state.told(insn.src_reg) if size == WORD else (False, False)
        self.stored = _either(self.stored, told)
        slot = _slot_of(insn, insn.dst_reg)
        if slot is None or anywhere:
            self.scattered = _either(self.scattered, told)
            return state
        return state.put_slot(slot, told) if size == WORD else state

    def _called(self, insn: Instruction, state: _State) -> _State:
        """Return the state behind a call: r0 is its result, r1 to r5 are lost."""
        assert insn.row is not None  # a call is a known instruction
        result = (False, False)
        if insn.row.kind in (Kind.CALL_LOCAL, Kind.CALL_REGISTER):
            result = self.returned
        elif _is_source(self.program, insn) and not _calls_back(insn):
            result = (True, False)
        if insn.row.kind is Kind.CALL_HELPER and insn.imm == NUMBERS["bpf_kptr_xchg"]:
            self.stored = _either(self.stored, state.told(2))
        kept = _State(state.kernel & _KEPT, state.context & _KEPT, state.kernel_slots, state.context_slots)
        return kept.put(0, result)


def _calls_back(insn: Instruction) -> bool:
    return insn.row is not None and insn.row.kind is Kind.CALL_HELPER and insn.imm in CALLING_BACK


def _either(one: tuple[bool, bool], other: tuple[bool, bool]) -> tuple[bool, bool]:
    return one[0] or other[0], one[1] or other[1]
