"""Self-contained programs from the functions of an object file.

A program is its entry function, followed by every function it reaches, each once, in the order in
which they are first met:

    section xdp    prog: call R_BPF_64_32 .text      ->   0: prog   call imm = 4 - (pc + 1)
    section .text  sum                                    4: sum    symbols {0: "prog", 4: "sum"}
"""

from __future__ import annotations

import struct
from bisect import bisect_left, bisect_right
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import pairwise

from ebpfjit.elf.reader import ObjectFile, Relocation, Section, Symbol
from ebpfjit.elf.relocation import R_BPF_NONE, RelocationError, Use, resolve
from ebpfjit.elf.sections import program_type
from ebpfjit.errors import DecodeError, LoadError
from ebpfjit.isa.spec import REGISTER_COUNT, Kind, Reference
from ebpfjit.program import SLOT_SIZE, Instruction, Program, decode

TEXT = ".text"
MAX_PROGRAM_SLOTS = 1_000_000
MAX_OBJECT_SLOTS = 4_000_000
"""Shared functions are copied into each program: without a limit a small file could fill the memory."""


@dataclass(frozen=True, eq=False)
class Function:
    """A function, or a piece of a section that no symbol covers (then `is_named` is False).

    `start` and `size` count bytes in `section`.
    """

    name: str
    section: Section
    start: int
    size: int
    is_global: bool
    is_named: bool = True

    @property
    def end(self) -> int:
        """The byte of the section after the function."""
        return self.start + self.size

    @property
    def slots(self) -> int:
        """The number of 8-byte slots."""
        return self.size // SLOT_SIZE

    @property
    def code(self) -> bytes:
        """The instructions as the file holds them."""
        return bytes(self.section.data[self.start : self.end])


@dataclass(frozen=True, slots=True)
class Aim:
    """The instruction at slot `pc` of a function is to point at slot `target_pc` of `target`."""

    pc: int
    use: Use
    target: Function
    target_pc: int


class Linker:
    """Makes the programs of one object file; LoadErrors name the file, the section and the place."""

    def __init__(self, file: ObjectFile) -> None:
        self.file = file
        self.sections = [section for section in file.sections if section.is_program]
        self._aims: dict[Function, tuple[Aim, ...]] = {}
        self._linked_slots = 0

    @cached_property
    def functions(self) -> dict[int, tuple[Function, ...]]:
        """The functions of each program section (by its index), in order of address."""
        symbols: dict[int, list[Symbol]] = {}
        for symbol in self.file.symbols:
            if symbol.is_function and symbol.section is not None:
                symbols.setdefault(symbol.section.index, []).append(symbol)
        return {
            section.index: tuple(self._cut(section, symbols.get(section.index, [])))
            for section in self.sections
        }

    @cached_property
    def _relocations(self) -> dict[int, tuple[Relocation, ...]]:
        """The relocations of each program section, in order of offset."""
        return {
            index: tuple(sorted((r for r in relocations if r.type != R_BPF_NONE), key=lambda r: r.offset))
            for index, relocations in self.file.relocations.items()
        }

    def _cut(self, section: Section, symbols: list[Symbol]) -> list[Function]:
        """Cut a section at its symbols; what none of them covers is a function without a name."""
        if section.size % SLOT_SIZE:
            raise self._error(section, f"{section.size} bytes are no multiple of {SLOT_SIZE}")
        symbols = sorted(symbols, key=lambda symbol: (symbol.value, symbol.size))
        starts = sorted({symbol.value for symbol in symbols})
        next_start = dict(pairwise([*starts, section.size]))
        functions: list[Function] = []
        end = 0
        for symbol in symbols:
            function = self._function(section, symbol, next_start[symbol.value])
            last = functions[-1] if functions else None
            if function.start > end:
                functions.append(_unnamed(section, end, function.start))
            elif function.start < end and last and (last.start, last.end) != (function.start, function.end):
                raise self._error(section, f"functions {last.name!r} and {function.name!r} overlap")
            functions.append(function)
            end = function.end
        if end < section.size:
            functions.append(_unnamed(section, end, section.size))
        return functions

    def _function(self, section: Section, symbol: Symbol, next_start: int) -> Function:
        size = symbol.size or next_start - symbol.value
        if symbol.value % SLOT_SIZE or size % SLOT_SIZE or not size:
            raise self._error(
                section, f"function {symbol.name!r} has {size} bytes at {symbol.value:#x}:"
                f" both must be multiples of {SLOT_SIZE}, and the size not 0"
            )  # fmt: skip
        is_global = symbol.binding in ("STB_GLOBAL", "STB_WEAK")
        return Function(symbol.name, section, symbol.value, size, is_global)

    def entries(self) -> list[Function]:
        """Return the functions that are programs, in file order.

        Those of `.text` are subprograms where other sections hold programs. Of a section's
        functions the global ones are meant, or all where none is.
        """
        sections = [section for section in self.sections if section.name != TEXT] or self.sections
        entries: list[Function] = []
        for section in sections:
            functions = self.functions[section.index]
            named = [function for function in functions if function.is_named]
            entries += [function for function in named if function.is_global] or named or functions
        return entries

    def link(self, entry: Function) -> Program:
        """Return `entry` with all it reaches as one program."""
        placed: dict[Function, int] = {entry: 0}
        order = [entry]
        end = entry.slots
        for function in order:  # grows while we walk it
            for aim in self._find_aims(function):
                if aim.target not in placed:
                    placed[aim.target] = end
                    order.append(aim.target)
                    end += aim.target.slots
                    self._check_size(entry, end)
        self._check_size(entry, end)
        self._linked_slots += end
        code = bytearray(b"".join(function.code for function in order))
        _modernise(code)
        for function in order:
            for aim in self._find_aims(function):
                _point(code, placed[function] + aim.pc, aim.use, placed[aim.target] + aim.target_pc)
        section = entry.section.name
        symbols = {start: function.name for function, start in placed.items()}
        return Program(bytes(code), entry.name, section, program_type(section), symbols)

    def _check_size(self, entry: Function, slots: int) -> None:
        if slots > MAX_PROGRAM_SLOTS or self._linked_slots + slots > MAX_OBJECT_SLOTS:
            raise self._error(
                entry.section, f"program {entry.name!r} is too large with the functions it calls: a"
                f" program may have {MAX_PROGRAM_SLOTS} slots, all of a file {MAX_OBJECT_SLOTS}",
            )  # fmt: skip

    def _find_aims(self, function: Function) -> tuple[Aim, ...]:
        """Return where the calls and code references of a function point, found once."""
        if function not in self._aims:
            try:
                instructions = decode(function.code)
            except DecodeError as error:
                raise self._error(function.section, f"function {function.name!r}: {error}") from error
            relocated = self._relocated_aims(function, {insn.pc: insn for insn in instructions})
            direct = self._direct_aims(function, instructions, {aim.pc for aim in relocated})
            self._aims[function] = (*relocated, *direct)
        return self._aims[function]

    def _relocated_aims(self, function: Function, by_pc: dict[int, Instruction]) -> list[Aim]:
        """What relocations say: calls of other sections, and of global functions."""
        relocations = self._relocations.get(function.section.index, ())
        first = bisect_left(relocations, function.start, key=lambda r: r.offset)
        last = bisect_left(relocations, function.end, key=lambda r: r.offset)
        aims: list[Aim] = []
        for relocation in relocations[first:last]:
            pc = (relocation.offset - function.start) // SLOT_SIZE
            if aims and aims[-1].pc == pc:
                raise self._place_error(function, pc, "two relocations of one instruction")
            try:
                target = resolve(relocation, by_pc.get(pc))
            except RelocationError as error:
                raise self._place_error(function, pc, str(error)) from error
            if not target.section.is_program:
                known = target.symbol.type != "STT_SECTION"
                within = f" in section {target.section.name!r}" if known else ""
                raise self._place_error(
                    function, pc, f"refers to {target.symbol}{within}:"
                    " maps and global variables are not supported yet",
                )  # fmt: skip
            aims.append(self._aim(function, pc, target.use, target.section, target.offset))
        return aims

    def _direct_aims(
        self, function: Function, instructions: tuple[Instruction, ...], relocated: set[int]
    ) -> list[Aim]:
        """What the instructions say themselves: the assembler resolves calls inside a section."""
        aims: list[Aim] = []
        for insn in instructions:
            row, pc = insn.row, insn.pc
            if row is None or pc in relocated:
                continue
            if row.kind is Kind.CALL_LOCAL or row.reference is Reference.CODE:
                use = Use.CALL if row.kind is Kind.CALL_LOCAL else Use.ADDRESS
                offset = function.start + (pc + 1 + insn.imm) * SLOT_SIZE
                aims.append(self._aim(function, pc, use, function.section, offset))
            elif insn.target is not None and not 0 <= insn.target < function.slots:
                raise self._place_error(function, pc, f"jumps to pc {insn.target}, outside of the function")
        return aims

    def _aim(self, function: Function, pc: int, use: Use, section: Section, offset: int) -> Aim:
        """Return the Aim at `offset` bytes of `section`: the function there, and the slot in it."""
        functions = self.functions[section.index]
        if offset % SLOT_SIZE or not 0 <= offset < section.size:
            where = f"section {section.name!r} at {offset:#x}, which is no instruction of it"
            raise self._place_error(function, pc, f"{use.value} {where}")
        target = functions[bisect_right(functions, offset, key=lambda f: f.start) - 1]
        if (target.start, target.section.index) == (function.start, function.section.index):
            target = function  # of several names for one place, the one we came by
        return Aim(pc, use, target, (offset - target.start) // SLOT_SIZE)

    def _error(self, section: Section, message: str) -> LoadError:
        return LoadError(f"{self.file.name}: section {section.name!r}: {message}")

    def _place_error(self, function: Function, pc: int, message: str) -> LoadError:
        return self._error(function.section, f"function {function.name!r}, pc {pc}: {message}")


def _unnamed(section: Section, start: int, end: int) -> Function:
    """Return the function from `start` to `end`, named after its section."""
    name = section.name if end - start == section.size else f"{section.name}+{start:#x}"
    return Function(name, section, start, end - start, is_global=False, is_named=False)


def _point(code: bytearray, pc: int, use: Use, target: int) -> None:
    """Let the call or wide load at `pc` point at slot `target`: imm counts from the next slot."""
    struct.pack_into("<i", code, pc * SLOT_SIZE + 4, target - pc - 1)
    if use is Use.ADDRESS:
        registers = code[pc * SLOT_SIZE + 1] & 0x0F
        code[pc * SLOT_SIZE + 1] = registers | Reference.CODE.value << 4
        struct.pack_into("<i", code, pc * SLOT_SIZE + 12, 0)


def _modernise(code: bytearray) -> None:
    """Put the register of each indirect call into dst_reg, where LLVM before 19 had it in imm."""
    if b"\x8d" not in code:
        return
    for insn in decode(code):
        is_callx = insn.row is not None and insn.row.operation == "CALLX"
        if is_callx and insn.dst_reg == 0 and 0 < insn.imm < REGISTER_COUNT:
            start = insn.pc * SLOT_SIZE
            code[start : start + SLOT_SIZE] = replace(insn, dst_reg=insn.imm, imm=0).encode()
