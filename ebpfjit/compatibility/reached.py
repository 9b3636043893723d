"""Which helper calls a program comes to on a kernel that lacks what the program asks for first.

    if (bpf_core_enum_value_exists(enum bpf_func_id, BPF_FUNC_loop))      r1 = 0    CO-RE: there is none
        bpf_loop(...);                                                    if r1 == 0 goto ...

Linux does not look at calls that its verifier finds dead. So what is behind such a question needs nothing of
the kernels that answer no. Answers are the numbers that CO-RE leaves where something is asked for, and
variables of .kconfig; all other values that a program computes with are taken for anything. The same walk
knows the context by its registers, and where it is kept on the stack: so it sees which fields are used.
"""

from __future__ import annotations

from collections.abc import Container, Iterator
from typing import Literal

from ebpfjit.analysis.cfg import is_inside
from ebpfjit.bits import W64
from ebpfjit.compatibility.release import FIRST, Release, every_release
from ebpfjit.elf.externs import KCONFIG, KERNEL_VERSION
from ebpfjit.isa import semantics
from ebpfjit.isa.spec import FRAME_POINTER, Kind, Reference, Reg
from ebpfjit.program import Instruction, Program
from ebpfjit.record import record

COOKIE = "LINUX_HAS_BPF_COOKIE"
_CALLS = (Kind.CALL_HELPER, Kind.CALL_KFUNC, Kind.CALL_LOCAL, Kind.CALL_REGISTER, Kind.PACKET_LOAD)
_CALLED = ("CALL_LOCAL", "LDDW_CODE")
ARGUMENTS = range(1, 6)

MOST_SLOTS = 8192
"""Of larger programs that ask for the version only the first and the last kernel are looked at."""


@record
class Place:
    """An address in .kconfig: bytes from its start."""

    offset: int


@record
class Context:
    """An address in the context: bytes from its start."""

    offset: int


Value = int | Place | Context
Known = dict[int, Value]
"""What is known of registers: u64, or an address; and of words of the frame, by their offset from r10."""

Kernel = Release | Literal["linked", "any"]
"""The kernel of a walk: of a version, with none of what is asked for; that whose types answered; each."""


class Ways:
    """What is reached of one program on kernels that lack what it asks for; None stands for all slots."""

    def __init__(self, program: Program) -> None:
        self.program = program
        names = {name for map_ in program.maps for _, name in map_.definition.variables}
        self._asks_version = KERNEL_VERSION in names
        self._asks = self._asks_version or COOKIE in names or any(program.relocations.values())
        self._walked: dict[Kernel, frozenset[int]] = {}

    def before(self, since: Release | None) -> frozenset[int] | None:
        """Return the slots that are reached on kernels before a release; None for every kernel."""
        if not self._asks:
            return None
        versions = [each for each in every_release() if since is None or each < since] or [FIRST]
        if not self._asks_version:
            versions = versions[:1]
        elif len(self.program) > MOST_SLOTS:
            versions = [versions[0], versions[-1]]
        return frozenset().union(*map(self._on, versions))

    def as_linked(self) -> frozenset[int] | None:
        """Return the slots that are reached on the kernel for whose types the program was linked."""
        return self._on("linked") if any(self.program.relocations.values()) else None

    def uses_of_context(self, starts: Container[int]) -> list[tuple[int, int]]:
        """Return the slots that load or store a field of the context, and the offset of that field.

        `starts` are the offsets of those that are asked for.
        """
        memory = (insn for insn in self.program.instructions if insn.row is not None and insn.row.size)
        if not any(insn.offset in starts for insn in memory):
            return []  # but for a few that add to the context's address first
        walk = _Walk(self.program, "any")
        walk.reached()
        return sorted((pc, offset) for pc, offset in walk.uses.items() if offset in starts)

    def _on(self, kernel: Kernel) -> frozenset[int]:
        if kernel not in self._walked:
            self._walked[kernel] = _Walk(self.program, kernel).reached()
        return self._walked[kernel]


class _Walk:
    """A walk over all ways through a program, on one kernel."""

    def __init__(self, program: Program, kernel: Kernel) -> None:
        self.program = program
        self.kernel = kernel
        self.answers: dict[str, int] = {}
        self.uses: dict[int, int] = {}
        if isinstance(kernel, Release):
            major, minor = kernel.numbers
            self.answers = {KERNEL_VERSION: major << 16 | minor << 8, COOKIE: 0}
        self.places = {
            offset: name
            for map_ in program.maps
            if map_.definition.section == KCONFIG
            for offset, name in map_.definition.variables
        }
        self.by_pc = {insn.pc: insn for insn in program.instructions}
        self.known: dict[int, Known] = {}
        self.waiting: list[int] = []

    def reached(self) -> frozenset[int]:
        """Return the slots that some way comes to."""
        self._come(0, {1: Context(0)})
        if self.program.exception_callback is not None:
            self._come(self.program.exception_callback, {})
        while self.waiting:
            pc = self.waiting.pop()
            insn = self.by_pc.get(pc)
            if insn is not None:
                for target, known in self._ways(insn, dict(self.known[pc])):
                    if is_inside(self.program, target):
                        self._come(target, known)
        return frozenset(self.known)

    def _come(self, pc: int, known: Known) -> None:
        """Come to a slot: what is known there is what is known on all ways."""
        before = self.known.get(pc)
        if before is None:
            self.known[pc] = known
        else:
            both = {register: value for register, value in before.items() if known.get(register) == value}
            if len(both) == len(before):
                return
            self.known[pc] = both
        self.waiting.append(pc)

    def _ways(self, insn: Instruction, known: Known) -> Iterator[tuple[int, Known]]:
        """Yield where an instruction leads, and what is known there."""
        row = insn.row
        if row is None or row.kind is Kind.EXIT:
            return
        taken = None
        if row.kind is Kind.BRANCH:
            x, y = known.get(insn.dst_reg), self._operand(insn, known)
            if isinstance(x, int) and isinstance(y, int):
                taken = semantics.CONDITION[row.meaning](row.width, row.width.wrap(x), row.width.wrap(y))
        before = dict(known) if row.kind is Kind.CALL_LOCAL else known
        self._do(insn, known)
        if row.operation in _CALLED:
            given = ARGUMENTS if row.kind is Kind.CALL_LOCAL else ()
            yield insn.pc + 1 + insn.imm, {each: before[each] for each in given if each in before}
        elif row.has_target and taken is not False and insn.target is not None:
            yield insn.target, known
        if row.kind is not Kind.JUMP and taken is not True:
            yield insn.next_pc, known

    def _operand(self, insn: Instruction, known: Known) -> Value | None:
        assert insn.row is not None
        return known.get(insn.src_reg) if insn.row.uses_src else insn.row.width.wrap(insn.imm)

    def _do(self, insn: Instruction, known: Known) -> None:
        """Change what is known as an instruction changes registers."""
        row = insn.row
        assert row is not None
        value = self._value(insn, known)
        if row.kind in (Kind.STORE, Kind.ATOMIC):
            self._store(insn, known)
        written = [
            register
            for register, role in ((insn.dst_reg, row.dst), (insn.src_reg, row.src))
            if role in (Reg.WRITE, Reg.UPDATE)
        ]
        for register in (*written, *row.implicit_writes, *(range(6) if row.kind in _CALLS else ())):
            known.pop(register, None)
        if value is not None:
            known[insn.dst_reg] = value

    def _store(self, insn: Instruction, known: Known) -> None:
        """Note a store to the context, or to the frame: a context that is kept there comes back."""
        row = insn.row
        assert row is not None
        base = known.get(insn.dst_reg)
        if isinstance(base, Context):
            self.uses[insn.pc] = base.offset + insn.offset
        if insn.dst_reg != FRAME_POINTER:
            return
        for place in range(insn.offset - 7, insn.offset + row.size):
            known.pop(place, None) if place < 0 else None
        value = known.get(insn.src_reg) if row.uses_src else None
        if row.kind is Kind.STORE and row.size == 8 and isinstance(value, Context):
            known[insn.offset] = value

    def _value(self, insn: Instruction, known: Known) -> Value | None:
        """Return what an instruction puts into its dst register, where that is known."""
        row, program = insn.row, self.program
        assert row is not None
        asks = program.relocations.get(insn.pc) and row.kind in (Kind.MOVE, Kind.LOAD_IMM64)
        if asks and self.kernel != "linked":
            return 0 if isinstance(self.kernel, Release) else None
        w = row.width
        match row.kind:
            case Kind.LOAD_IMM64 if row.reference is Reference.MAP_VALUE_BY_INDEX:
                section = program.maps[insn.imm].definition.section
                return Place(insn.next_imm or 0) if section == KCONFIG else None
            case Kind.LOAD_IMM64 if row.reference is None:
                return (insn.next_imm or 0) % 2**32 << 32 | insn.imm % 2**32
            case Kind.LOAD:
                base = known.get(insn.src_reg)
                if isinstance(base, Place):
                    return self.answers.get(self.places.get(base.offset + insn.offset, ""))
                if isinstance(base, Context):
                    self.uses[insn.pc] = base.offset + insn.offset
                is_kept = insn.src_reg == FRAME_POINTER and row.size == 8 and insn.offset < 0
                return known.get(insn.offset) if is_kept else None
            case Kind.MOVE:
                source = self._operand(insn, known)
                if isinstance(source, int):
                    return semantics.MOVE[row.meaning](w, w.wrap(source))
                return source if row.operation == "MOV64" else None
            case Kind.BINARY | Kind.UNARY:
                x, y = known.get(insn.dst_reg), self._operand(insn, known)
                if isinstance(x, Context) and row.operation == "ADD64" and isinstance(y, int):
                    return Context(x.offset + W64.signed(y))
                if not isinstance(x, int):
                    return None
                if row.kind is Kind.UNARY:
                    return semantics.UNARY[row.meaning](w, w.wrap(x))
                if isinstance(y, int):
                    return semantics.BINARY[row.meaning](w, w.wrap(x), w.wrap(y))
        return None
