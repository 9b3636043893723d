"""Which loads go through pointers that the kernel gave the program (Linux: PTR_TO_BTF_ID, PROBE_MEM).

Such a load reads the kernel's memory, and gives zero where there is nothing; any other load that leaves the
program's memory is a fault. Linux's verifier knows the type of each pointer. Here it is enough where pointers
come from, as no program that Linux accepts loads through anything else that is made there:

    r1 of fentry, tp_btf, iter, lsm, ...     a context: its 8-byte words are the kernel's pointers
    8 bytes loaded through such a pointer    one more
    what some helpers return                 one as well
    what kfuncs return that BTF says         one as well, but for those that are here: what they return is the
    to be the address of a struct            program's memory, and a fault where it is so no more, unless
                                             their row says that it leads out of it
    the address of a variable (__ksym)       one as well
    plus or minus, copied, kept in memory    it stays one

Where that would take too long to find out (`origins.MOST_STEPS`), each load counts as one.

What may be one on some path counts as one. So a number that is loaded from such a context, and that Linux
would let nobody load through, gives zero too.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from ebpfjit.analysis.accesses import SUMS
from ebpfjit.analysis.origins import ARGUMENTS, KEPT, NEITHER, WORD, Origin, Origins, TooLong, Walk, either
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

KERNEL: Origin = (True, False)
"""A pointer of the kernel's; the other place is the context."""


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
    except TooLong:
        return frozenset(insn.pc for insn in program.instructions if _is_load(insn))


def _is_load(insn: Instruction) -> bool:
    return insn.row is not None and insn.row.kind is Kind.LOAD


def _is_source(program: Program, insn: Instruction) -> bool:
    """True for a call that returns, or hands over, a pointer of the kernel's."""
    kind = insn.row.kind if insn.row is not None else None
    if kind is not Kind.CALL_KFUNC:
        return kind is Kind.CALL_HELPER and insn.imm in RETURNING | CALLING_BACK
    called = program.kfuncs.get(insn.imm)
    if called is None or called.name in kfuncs():
        return called is None or kfuncs()[called.name].leads_out  # others return the program's own memory
    return called.arguments is None or (called.result is not None and called.result.to_struct)


class _Search(Walk):
    """The walk that looks for pointers of the kernel's, and for the context.

    `stored` says whether a pointer of each kind was put into memory at all, `scattered` whether that was
    otherwise than through r10; `returned` what functions of the program may return.
    """

    def __init__(self, program: Program, blocks: Mapping[int, int]) -> None:
        super().__init__(program, blocks)
        self.stored = self.scattered = self.returned = NEITHER

    def run(self) -> frozenset[int]:
        """Return the slots that were looked for. Raises TooLong."""
        before = None
        while before != (self.stored, self.scattered, self.returned):  # each only grows
            before = self.stored, self.scattered, self.returned
            self._walk()
        return frozenset(
            insn.pc for insn, state in self.all() if _is_load(insn) and state.of(insn.src_reg)[0]
        )

    def _walk(self) -> None:
        """Follow what is new, or everything once more where what memory may hold is new."""
        self.waiting = list(self.states)
        called_back = 0b110 if any(map(_calls_back, self.program.instructions)) else 0
        for start in self.program.functions:
            self.reach(start, Origins((called_back if start else 0, 0)))
        if self.program.type in CONTEXT_TYPES:
            self.reach(0, Origins((0, 0b10)))
        self.follow()

    def leaving(self, insn: Instruction, state: Origins) -> Iterator[tuple[int, Origins]]:
        """Yield where control goes but to the next instruction, and what is known there."""
        row = insn.row
        assert row is not None  # a block goes no further than that
        if row.kind is Kind.EXIT:
            self.returned = either(self.returned, state.of(0))
            return
        if row.kind in (Kind.CALL_LOCAL, Kind.CALL_REGISTER):
            kernel, context = state.registers
            target = insn.target
            for function in self.program.functions if target is None else (target,):
                yield function, Origins((kernel & ARGUMENTS, context & ARGUMENTS))
        elif insn.target is not None:
            yield insn.target, state

    def executed(self, insn: Instruction, state: Origins) -> Origins:
        """Return what is known behind an instruction."""
        row = insn.row
        assert row is not None  # whoever asks has looked
        match row.kind:
            case Kind.MOVE:
                copies = row.uses_src and row.width is W64 and row.meaning == "MOV"
                return state.put(insn.dst_reg, state.of(insn.src_reg) if copies else NEITHER)
            case Kind.BINARY:
                if row.width is not W64 or row.meaning not in SUMS:
                    return state.put(insn.dst_reg)
                added = state.of(insn.src_reg) if row.uses_src else NEITHER
                return state.put(insn.dst_reg, either(state.of(insn.dst_reg), added))
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

    def _loaded(self, insn: Instruction, state: Origins, size: int) -> Origin:
        """Return what a load gives."""
        if size < WORD:
            return NEITHER
        kernel, context = state.of(insn.src_reg)
        if kernel or context:
            return KERNEL
        slot = _slot_of(insn, insn.src_reg)
        return self.stored if slot is None else either(self.scattered, state.of_word(slot))

    def _kept(self, insn: Instruction, state: Origins, size: int, *, anywhere: bool = False) -> Origins:
        """Return the state behind a store of a register; what is not at r10 may be anywhere."""
        told = state.of(insn.src_reg) if size == WORD else NEITHER
        self.stored = either(self.stored, told)
        slot = _slot_of(insn, insn.dst_reg)
        if slot is None or anywhere:
            self.scattered = either(self.scattered, told)
            return state
        return state.put_word(slot, told) if size == WORD else state

    def _called(self, insn: Instruction, state: Origins) -> Origins:
        """Return the state behind a call: r0 is its result, r1 to r5 are lost."""
        assert insn.row is not None  # a call is a known instruction
        result = NEITHER
        if insn.row.kind in (Kind.CALL_LOCAL, Kind.CALL_REGISTER):
            result = self.returned
        elif _is_source(self.program, insn) and not _calls_back(insn):
            result = KERNEL
        if insn.row.kind is Kind.CALL_HELPER and insn.imm == NUMBERS["bpf_kptr_xchg"]:
            self.stored = either(self.stored, state.of(2))
        kernel, context = state.registers
        return Origins((kernel & KEPT, context & KEPT), state.words).put(0, result)


def _calls_back(insn: Instruction) -> bool:
    return insn.row is not None and insn.row.kind is Kind.CALL_HELPER and insn.imm in CALLING_BACK
