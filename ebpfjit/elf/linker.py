"""Self-contained programs from the functions of an object file.

A program is its entry function, followed by every function it reaches, each once, in the order in
which they are first met:

    section xdp    prog: call R_BPF_64_32 .text      ->   0: prog   call imm = 4 - (pc + 1)
    section .text  sum                                    4: sum    symbols {0: "prog", 4: "sum"}

What an instruction refers to outside of functions becomes an index into the program's own maps:

    lddw r1, 0   R_BPF_64_64 counters   ->   lddw r1, map_by_idx(0)    maps (counters,)

What cannot be referred to is kept with the program (`Program.refusals`), which is not run then.
"""

from __future__ import annotations

import re
import struct
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Mapping
from copy import copy
from functools import cached_property
from itertools import pairwise

from ebpfjit.bits import W64
from ebpfjit.elf import builtins, patches
from ebpfjit.elf.btf import Btf
from ebpfjit.elf.btf_ext import BtfExt
from ebpfjit.elf.budget import ERROR_COST, SHARED, STEP, OverBudget
from ebpfjit.elf.core import CoreResult
from ebpfjit.elf.memory import ObjectMaps, Place
from ebpfjit.elf.reader import ObjectFile, Relocation, Section, Symbol
from ebpfjit.elf.relocation import R_BPF_NONE, RelocationError, Target, Use, resolve
from ebpfjit.elf.tables import FunctionTables
from ebpfjit.errors import DecodeError, EbpfError, LoadError
from ebpfjit.isa.spec import REGISTER_COUNT, Kind, Reference
from ebpfjit.literals import named_type
from ebpfjit.program import SLOT_SIZE, Instruction, Kfunc, Program, SourceLine, TypeInfo, decode
from ebpfjit.record import dataclass, field, replace
from ebpfjit.runtime.environment import Environment
from ebpfjit.runtime.kfuncs.table import kfuncs
from ebpfjit.runtime.symbols import address_of_symbol

TEXT = ".text"
MAX_PROGRAM_SLOTS = 1_000_000
MAX_OBJECT_SLOTS = 4_000_000
"""Shared functions are copied into each program; the budget of the file lets most have far less."""
PROGRAM_COST, SLOT_COST, FIXUP_COST, LINE_COST = 4096, 160, 200, 100
"""Bytes of a program, of each of its slots, of what refers to something in it, and of its source lines."""

LINE_INFO = struct.Struct("<IIII")
"""struct bpf_line_info."""

EXIT = bytes.fromhex("9500000000000000")


@dataclass(frozen=True, eq=False)
class Function:
    """A function, or a piece of a section that no symbol covers (then `is_named` is False).

    `start` and `size` count bytes in `section`. `is_typed` is true where its symbol has a type.
    """

    name: str
    section: Section
    start: int
    size: int
    is_global: bool
    is_named: bool = True
    is_typed: bool = True

    @property
    def end(self) -> int:
        """The byte of the section after the function."""
        return self.start + self.size

    @property
    def slots(self) -> int:
        """The number of 8-byte slots."""
        return self.size // SLOT_SIZE


@dataclass(frozen=True, slots=True)
class Aim:
    """The instruction at slot `pc` of a function is to point at slot `target_pc` of `target`."""

    pc: int
    use: Use
    target: Function
    target_pc: int


@dataclass(frozen=True, slots=True)
class MapReference:
    """The wide load at slot `pc` of a function refers to a map of the object, or into its value."""

    pc: int
    place: Place


@dataclass(slots=True)
class Fixups:
    """All that changes in a function's instructions when it is placed in a program.

    `missing` are the slots of calls, and of wide loads, of weak symbols that nothing defines; `kfuncs` those
    of kernel functions that have a BTF id, with that. `absent` says
    by slot what was not found where a call stands that fails when it is reached; `refusals` are what stands
    in the way of running the function at all. `kernel` are the symbols of the kernel among all that is not
    defined, by slot; `unmet` are the errors of those that are not weak, and that only the kernel engine, or
    whoever runs the program, may have; `weak` the kernel functions among what is missing, with their BTF ids.
    `core` are the slots that have CO-RE relocations, with whether each only asks if something is there.
    """

    aims: list[Aim] = field(default_factory=list)
    references: list[MapReference] = field(default_factory=list)
    missing: list[tuple[int, Use]] = field(default_factory=list)
    variables: list[tuple[int, int]] = field(default_factory=list)
    kfuncs: list[tuple[int, Use, int, Kfunc]] = field(default_factory=list)
    absent: dict[int, str] = field(default_factory=dict)
    refusals: list[LoadError] = field(default_factory=list)
    kernel: dict[int, str] = field(default_factory=dict)
    unmet: dict[int, LoadError] = field(default_factory=dict)
    weak: dict[int, tuple[int, Kfunc]] = field(default_factory=dict)
    core: list[tuple[int, bool]] = field(default_factory=list)

    @property
    def count(self) -> int:
        """How many there are."""
        said = len(self.absent) + len(self.refusals) + len(self.variables) + len(self.core)
        return len(self.aims) + len(self.references) + len(self.missing) + len(self.kfuncs) + said

    @property
    def pcs(self) -> set[int]:
        """The slots that are changed."""
        pcs = [pc for pc, _ in self.missing]
        pcs += [aim.pc for aim in self.aims]
        pcs += [pc for pc, *_ in self.kfuncs]
        return {*pcs, *(reference.pc for reference in self.references)}


class Linker:
    """Makes the programs of one object file; LoadErrors name the file, the section and the place.

    `maps` are the object's, `lines` its source lines; `core` is what CO-RE changed. `environment` is what the
    programs get, `refusal` what stands in the way of running any of them, `license` what the object
    says of itself, `btf` its types as Linux takes them, `kernel_types` those of the
    kernel that the programs are made for.
    """

    def __init__(
        self,
        file: ObjectFile,
        maps: ObjectMaps,
        lines: BtfExt | None = None,
        core: CoreResult | None = None,
        environment: Environment | None = None,
        *,
        license: str | None = None,
        btf: bytes | None = None,
        kernel_types: Btf | None = None,
    ) -> None:
        self.license = license
        self.btf = btf
        self.file = file
        self.maps = maps
        self.lines = lines
        self.environment = environment
        self._variables = frozenset(environment.symbols) if environment is not None else frozenset()
        self.kernel_types = kernel_types
        self.sections = [section for section in file.sections if section.is_program]
        self._code = {section.index: bytes(section.data) for section in self.sections}
        self._core = core or CoreResult()
        self._code |= {builtins.SECTION_INDEX: bytes(builtins.section().data), **self._core.code}
        self.refusal: LoadError | None = None
        self.exception_callbacks: Mapping[str, str] = {}
        self._fixups: dict[Function, Fixups] = {}
        self._numbers: dict[Function, frozenset[int]] = {}
        self._linked_slots = 0

    @cached_property
    def functions(self) -> dict[int, tuple[Function, ...]]:
        """The functions of each program section (by its index), in order of address."""
        symbols: dict[int, list[Symbol]] = {builtins.SECTION_INDEX: list(builtins.symbols().values())}
        for symbol in self.file.symbols:
            if symbol.section is not None and symbol.type in ("STT_FUNC", "STT_NOTYPE"):
                symbols.setdefault(symbol.section.index, []).append(symbol)
        return {
            section.index: tuple(
                self._cut(section, select_functions(section, symbols.get(section.index, [])))
            )
            for section in (builtins.section(), *self.sections)
        }

    @cached_property
    def tables(self) -> FunctionTables:
        """The functions that variables point to."""
        return FunctionTables(self)

    def reaches(self, entry: Function) -> set[Function]:
        """Return a function and all that it calls, or takes the address of."""
        found, work = {entry}, [entry]
        while work:
            new = {aim.target for aim in self.find_fixups(work.pop()).aims} - found
            self.file.budget.spend(STEP * (1 + len(new)), SHARED)
            found |= new
            work += new
        return found

    @cached_property
    def _relocations(self) -> dict[int, tuple[Relocation, ...]]:
        """The relocations of each program section, in order of offset."""
        return {
            index: tuple(sorted(relocations, key=lambda r: r.offset))
            for index, relocations in self.file.relocations.items()
        }

    def code(self, function: Function) -> bytes:
        """Return a function's instructions, as they are before it is placed."""
        return self._code[function.section.index][function.start : function.end]

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
        is_typed = symbol.type == "STT_FUNC"
        return Function(symbol.name, section, symbol.value, size, symbol.is_global, is_typed=is_typed)

    @cached_property
    def entries(self) -> tuple[Function, ...]:
        """The functions that are programs: the global ones in file order, then the static ones.

        Those of `.text` are subprograms where other sections hold programs, and its static ones where it has
        global ones. What no symbol names is a program where its section has nothing else.
        """
        sections = [section for section in self.sections if section.name != TEXT] or self.sections
        first: list[Function] = []
        static: list[Function] = []
        for section in sections:
            functions = self.functions[section.index]
            named = [function for function in functions if function.is_named]
            entries = [function for function in named if function.is_global]
            typed = [function for function in named if function.is_typed and not function.is_global]
            first += entries
            if section.name != TEXT:
                static += typed
            if not entries and (section.name == TEXT or not typed):
                static += named or functions
        return (*first, *static)

    def link(self, entry: Function, type_: str | None = None) -> Program:
        """Return `entry` with all it reaches as one program of a type."""
        exception_callback = self._exception_callback(entry)
        placed = self._place(entry, exception_callback)
        code = bytearray()
        for function, start in placed.items():
            code += EXIT * (start - len(code) // SLOT_SIZE) + self.code(function)
        _modernise(code)
        numbers = self._numbers_of_maps(placed)
        references: dict[int, int] = {}
        refusals = [self.refusal] if self.refusal is not None else []
        absent: dict[int, str] = {}
        kernel_symbols: dict[int, str] = {}
        unmet: dict[int, EbpfError] = {}
        called: dict[int, Kfunc] = {}
        weak: dict[int, tuple[int, Kfunc]] = {}
        relocations: dict[int, bool] = {}
        for function, start in placed.items():
            fixups = self.find_fixups(function)
            self.file.budget.spend(FIXUP_COST * (1 + fixups.count), SHARED)
            for aim in fixups.aims:
                patches.point(code, start + aim.pc, aim.use, placed[aim.target] + aim.target_pc)
            unmet |= {start + pc: error for pc, error in fixups.unmet.items()}
            weak |= {start + pc: kfunc for pc, kfunc in fixups.weak.items()}
            kernel_symbols |= {start + pc: name for pc, name in fixups.kernel.items()}
            for pc, use in fixups.missing:
                patches.leave_out(code, start + pc, use)
            for pc, address in fixups.variables:
                patches.give(code, start + pc, address)
            for pc, use, id, kfunc in fixups.kfuncs:
                called.setdefault(id, kfunc)
                patches.call_kernel(code, start + pc, use, id)
            for reference in fixups.references:
                pc, place = start + reference.pc, reference.place
                patches.refer(code, pc, numbers[place.number], place.offset)
                references[pc] = self._address(place)
            absent |= {start + pc: what for pc, what in fixups.absent.items()}
            refusals += fixups.refusals
            relocations |= {start + pc: asks for pc, asks in fixups.core}
        return Program(
            bytes(code),
            entry.name,
            entry.section.name,
            named_type(type_),
            symbols={start: function.name for function, start in placed.items()},
            references=references,
            maps=tuple(self.maps.order[number] for number in numbers),
            lines=self._lines_of(placed),
            environment=self.environment,
            refusals=(*refusals, *self._refusals_behind(placed, numbers)),
            absent=absent,
            license=self.license,
            types=self._types_of(placed),
            kernel_symbols=kernel_symbols,
            unmet=unmet,
            kernel_types=self.kernel_types,
            kfuncs=called,
            exception_callback=None if exception_callback is None else placed[exception_callback],
            weak_kfuncs=weak,
            relocations=relocations,
            origin=self.file.name,
        )

    def link_or_keep(self, entry: Function, type_: str | None = None) -> Program:
        """Return `entry` as a program; one that cannot be linked has no code, and keeps the reason."""
        try:
            return self.link(entry, type_)
        except OverBudget:
            raise
        except LoadError as error:
            refusals = (error,)
            return Program(
                EXIT,
                entry.name,
                entry.section.name,
                named_type(type_),
                refusals=refusals,
                license=self.license,
            )

    def _exception_callback(self, entry: Function) -> Function | None:
        """Return the global function that a program's declaration tag names, None without one."""
        name = self.exception_callbacks.get(entry.name)
        if name is None:
            return None
        found = self._global_functions.get(name)
        if found is not None:
            return found
        what = f"its exception callback is {name!r}, and there is no global function of that name"
        raise self._error(entry.section, f"function {entry.name!r}: {what}")

    @cached_property
    def _global_functions(self) -> dict[str, Function]:
        """The global functions by name, of several the first."""
        functions = (each for section in self.sections for each in self.functions[section.index])
        return {each.name: each for each in reversed([each for each in functions if each.is_global])}

    def _place(self, entry: Function, also: Function | None = None) -> dict[Function, int]:
        """Return `entry` and the functions that it reaches, in order, with the slot where each one starts.

        `also` is a function that it needs, though nothing in it says so.
        """
        placed: dict[Function, int] = {entry: 0}
        order = [entry]
        end = entry.slots
        budget = self.file.budget
        budget.spend(PROGRAM_COST + SLOT_COST * end, "programs")

        def place(function: Function) -> None:
            nonlocal end
            if function not in placed:
                placed[function] = end
                order.append(function)
                end += function.slots
                self._check_size(entry, end)
                budget.spend(SLOT_COST * function.slots, SHARED)

        if self.tables.is_used_by(entry):
            budget.spend(SLOT_COST * (self.tables.start - end), SHARED)
            end = self.tables.start
            for function in self.tables.functions:
                place(function)
        if also is not None:
            place(also)
        for function in order:  # grows while we walk it
            for aim in self.find_fixups(function).aims:
                place(aim.target)
        self._check_size(entry, end)
        self._linked_slots += end
        return placed

    def _refusals_behind(self, placed: Iterable[Function], numbers: Iterable[int]) -> list[LoadError]:
        """Return what stands in the way of using what a program's variables point to."""
        named = frozenset[int]().union(*map(self.numbers_of, placed))
        found = (self.maps.refusal_inside(number) for number in numbers if number not in named)
        return [refusal for refusal in found if refusal is not None]

    def _types_of(self, placed: Mapping[Function, int]) -> TypeInfo | None:
        """Return what BTF says of a program's functions, in the form that Linux takes."""
        if self.btf is None or self.lines is None:
            return None
        functions: list[tuple[int, int]] = []
        lines = bytearray()
        for function, start in placed.items():
            name, base = function.section.name, start - function.start // SLOT_SIZE
            functions.append((start, self.lines.functions.get(name, {}).get(function.start, 0)))
            before = len(lines)
            for offset, *words in self.lines.line_records(name, function.start, function.end):
                lines += LINE_INFO.pack(base + offset // SLOT_SIZE, *words)
            self.file.budget.spend(2 * (len(lines) - before), SHARED)
        return TypeInfo(self.btf, tuple(functions), bytes(lines))

    def _numbers_of_maps(self, functions: Iterable[Function]) -> dict[int, int]:
        """Return where each map that these functions refer to (by its number) is in Program.maps."""
        used = set[int]().union(*map(self.numbers_of, functions))
        return {number: index for index, number in enumerate(self.maps.reachable(used))}

    def _address(self, place: Place) -> int:
        """Return what the wide load of a map, or of a place in its value, leaves in a register."""
        map_ = self.maps.order[place.number]
        return map_.address if place.offset is None else W64.wrap(map_.value_address + place.offset)

    def _lines_of(self, placed: Mapping[Function, int]) -> dict[int, SourceLine]:
        """Return the source lines of a program's functions, by the pc where each one starts."""
        lines: dict[int, SourceLine] = {}
        if self.lines is not None:
            for function, start in placed.items():
                base = start - function.start // SLOT_SIZE
                before = len(lines)
                for offset, line in self.lines.lines(function.section.name, function.start, function.end):
                    if line.line:  # 0: the compiler's own, of no line
                        lines[base + offset // SLOT_SIZE] = line
                self.file.budget.spend(LINE_COST * (len(lines) - before), SHARED)
        return lines

    def _check_size(self, entry: Function, slots: int) -> None:
        if slots > MAX_PROGRAM_SLOTS or self._linked_slots + slots > MAX_OBJECT_SLOTS:
            where = f"{self.file.name}: section {entry.section.name!r}"
            raise OverBudget(
                f"{where}: program {entry.name!r} is too large with the functions it calls: a"
                f" program may have {MAX_PROGRAM_SLOTS} slots, all of a file {MAX_OBJECT_SLOTS}"
            )

    def find_fixups(self, function: Function) -> Fixups:
        """Return where the calls and references of a function point, found once."""
        if function not in self._fixups:
            self.file.budget.spend(STEP * function.slots, "the functions")
            try:
                instructions = decode(self.code(function))
            except DecodeError as error:
                raise self._error(function.section, f"function {function.name!r}: {error}") from error
            fixups = self._relocated(function, instructions)
            fixups.aims += self._direct_aims(function, instructions, fixups)
            self._add_core(fixups, function)
            self.file.budget.spend(FIXUP_COST * fixups.count, "what functions refer to")
            self._fixups[function] = fixups
        return self._fixups[function]

    def numbers_of(self, function: Function) -> frozenset[int]:
        """Return the numbers of the maps that a function refers to, found once."""
        if function not in self._numbers:
            references = self.find_fixups(function).references
            self._numbers[function] = frozenset(reference.place.number for reference in references)
        return self._numbers[function]

    def _relocated(self, function: Function, instructions: tuple[Instruction, ...]) -> Fixups:
        """What relocations say: maps, variables, calls of other sections and of global functions."""
        fixups = Fixups()
        relocations = self._relocations.get(function.section.index, ())
        first = bisect_left(relocations, function.start, key=lambda r: r.offset)
        last = bisect_left(relocations, function.end, key=lambda r: r.offset)
        if first == last:
            return fixups
        by_pc = {insn.pc: insn for insn in instructions}
        last_pc = -1
        for relocation in relocations[first:last]:
            pc = (relocation.offset - function.start) // SLOT_SIZE
            try:
                if pc == last_pc:
                    raise self._place_error(function, pc, "two relocations of one instruction")
                target = resolve(relocation, by_pc.get(pc))
                if target is not None:
                    self._fix(fixups, function, pc, target)
            except RelocationError as error:
                fixups.refusals.append(self._place_error(function, pc, str(error)))
            except OverBudget:
                raise
            except LoadError as error:
                fixups.refusals.append(error)
            last_pc = pc
        return fixups

    def _add_core(self, fixups: Fixups, function: Function) -> None:
        """Add what CO-RE could not do, and did not find, in a function."""
        index = function.section.index
        for offset, refusal in self._core.refusals.between(index, function.start, function.end):
            pc = (offset - function.start) // SLOT_SIZE
            fixups.refusals.append(self._place_error(function, pc, str(refusal)))
        for offset, what in self._core.absent.between(index, function.start, function.end):
            fixups.absent[(offset - function.start) // SLOT_SIZE] = what
        places = self._core.places.get(index, [])
        first, last = (bisect_left(places, (end, False)) for end in (function.start, function.end))
        fixups.core += [((offset - function.start) // SLOT_SIZE, asks) for offset, asks in places[first:last]]

    def _fix(self, fixups: Fixups, function: Function, pc: int, target: Target) -> None:
        """Add what one relocation asks for."""
        section, symbol, use = target.section, target.symbol, target.use
        builtin = builtins.symbols().get(symbol.name) if use is Use.CALL and section is None else None
        if builtin is not None and builtin.section is not None:
            fixups.aims.append(self._aim(function, pc, use, builtin.section, builtin.value))
        elif section is None:
            place = self.maps.extern(symbol, target.offset) if use is Use.ADDRESS else None
            if self.maps.externs.is_kernel_symbol(symbol):
                fixups.kernel[pc] = self.maps.externs.name_of(symbol)
            if place is not None:
                fixups.references.append(MapReference(pc, place))
                self._check_use(self.maps.externs.variables[symbol.name].refusal, function, pc)
                self._check_use(self.maps.refusal_at(place), function, pc)
            elif (kfunc := self._kfunc(symbol)) is not None:
                fixups.kfuncs.append((pc, use, *kfunc))
                if not kfunc[1].is_weak and kfunc[1].name not in kfuncs():
                    what = f"{use.value} {self.maps.externs.describe(symbol)}"
                    fixups.unmet[pc] = self._place_error(function, pc, what)
            elif pc in fixups.kernel and use is Use.ADDRESS and fixups.kernel[pc] in self._variables:
                fixups.variables.append((pc, address_of_symbol(fixups.kernel[pc])))
                if not symbol.is_weak:  # the kernel engine asks the kernel
                    fixups.unmet[pc] = self._missing(function, pc, target)
            elif symbol.is_weak:
                fixups.missing.append((pc, use))
                if (known := self.maps.externs.kfunc(symbol)) is not None:
                    fixups.weak[pc] = known
                if use is Use.CALL:
                    fixups.absent[pc] = self.maps.externs.may_be_missing(symbol)
            elif pc in fixups.kernel:
                fixups.missing.append((pc, use))
                fixups.unmet[pc] = self._missing(function, pc, target)
            else:
                what = self.maps.externs.describe(symbol)
                raise self._place_error(function, pc, f"{use.value} {what}")
        elif section.is_program:
            fixups.aims.append(self._aim(function, pc, use, section, target.offset))
        else:
            reference = self._reference(function, pc, target, section)
            fixups.references.append(reference)
            self._check_use(self.maps.refusal_at(reference.place), function, pc)

    def _missing(self, function: Function, pc: int, target: Target) -> LoadError:
        """Return the error of a symbol that is not there."""
        what = f"{target.use.value} {self.maps.externs.describe(target.symbol)}"
        return self._place_error(function, pc, what)

    def _check_use(self, refusal: LoadError | None, function: Function, pc: int) -> None:
        """Raise what was refused of the object for who uses it, with the place where that is done."""
        if refusal is not None:
            reason = str(refusal).removeprefix(f"{self.file.name}: ")
            error = copy(refusal)
            error.args = self._place_error(function, pc, f"uses what was refused: {reason}").args
            raise error

    def _kfunc(self, symbol: Symbol) -> tuple[int, Kfunc] | None:
        """Return a kernel function and its id, None for another symbol, or a weak one that is not there."""
        found = self.maps.externs.kfunc(symbol)
        return None if found is None or (symbol.is_weak and found[1].name not in kfuncs()) else found

    def _reference(self, function: Function, pc: int, target: Target, section: Section) -> MapReference:
        try:
            if target.use is Use.CALL:
                raise LookupError("which holds no functions")
            return MapReference(pc, self.maps.place(section, target.offset))
        except LookupError as error:
            known = target.symbol.type != "STT_SECTION"
            within = f" in section {section.name!r}" if known else ""
            raise self._place_error(
                function, pc, f"{target.use.value} {target.symbol}{within} at {target.offset:#x}, {error}"
            ) from error

    def _direct_aims(
        self, function: Function, instructions: tuple[Instruction, ...], fixups: Fixups
    ) -> list[Aim]:
        """What the instructions say themselves: the assembler resolves calls inside a section."""
        aims: list[Aim] = []
        relocated = fixups.pcs | self._relocated_pcs(function)
        for insn in instructions:
            row, pc = insn.row, insn.pc
            if row is None or pc in relocated:
                continue
            if row.kind is Kind.CALL_LOCAL or row.reference is Reference.CODE:
                use = Use.CALL if row.kind is Kind.CALL_LOCAL else Use.ADDRESS
                offset = function.start + (pc + 1 + insn.imm) * SLOT_SIZE
                try:
                    aims.append(self._aim(function, pc, use, function.section, offset))
                except OverBudget:
                    raise
                except LoadError as error:
                    fixups.refusals.append(error)
            elif insn.target is not None and not 0 <= insn.target < function.slots:
                what = f"jumps to pc {insn.target}, outside of the function"
                fixups.refusals.append(self._place_error(function, pc, what))
        return aims

    def _relocated_pcs(self, function: Function) -> set[int]:
        """Return the slots that relocations are for, those that were refused among them."""
        relocations = self._relocations.get(function.section.index, ())
        first = bisect_left(relocations, function.start, key=lambda r: r.offset)
        last = bisect_left(relocations, function.end, key=lambda r: r.offset)
        return {
            (r.offset - function.start) // SLOT_SIZE for r in relocations[first:last] if r.type != R_BPF_NONE
        }

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
        line = None
        if self.lines is not None:
            line = self.lines.line_at(function.section.name, function.start + pc * SLOT_SIZE)
        where = f" ({line})" if line is not None and line.line else ""
        self.file.budget.spend(ERROR_COST + len(message) + len(where), "what programs are refused for")
        return self._error(function.section, f"function {function.name!r}, pc {pc}{where}: {message}")


LABEL = re.compile(r"\.?L(BB|tmp|func_|JTI)|\.L|\$")
"""What the compiler and the assembler call places inside of functions."""

NEVER_FALL_THROUGH = (0x05, 0x06, 0x95)
"""The opcodes of jumps and exit: only behind one of these may another function start."""


def select_functions(section: Section, symbols: list[Symbol]) -> list[Symbol]:
    """Return those of a section's symbols that name functions.

    LLVM before 4, and assembly text, leave functions without type and size. A local symbol without
    a type is a function only where nothing shows that it is a label: its name, a jump to it,
    code in front that goes on into it, a function that it lies in.
    """
    typed = [symbol for symbol in symbols if symbol.type == "STT_FUNC"]
    untyped = [s for s in symbols if s.type == "STT_NOTYPE" and s.name and not LABEL.match(s.name)]
    if not untyped:
        return typed
    starts = {symbol.value for symbol in typed}
    inside = sorted((s.value, s.value + s.size) for s in typed if s.size)
    targets = jump_targets(section)
    for symbol in untyped:
        at = symbol.value
        index = bisect_right(inside, (at, section.size + 1)) - 1
        covered = index >= 0 and inside[index][0] <= at < inside[index][1]
        falls_in = at and (at % SLOT_SIZE or section.data[at - SLOT_SIZE] not in NEVER_FALL_THROUGH)
        if covered or at in starts or at >= section.size:
            continue
        if symbol.is_global or not (at in targets or falls_in):
            typed.append(symbol)
    return typed


def jump_targets(section: Section) -> set[int]:
    """Return the offsets in bytes that jumps of a section go to (second slots of an LDDW are none)."""
    targets: set[int] = set()
    words = section.data[: len(section.data) // SLOT_SIZE * SLOT_SIZE]
    for slot, (opcode, _, offset, imm) in enumerate(struct.iter_unpack("<BBhi", words)):
        if opcode & 0x07 in (0x05, 0x06) and opcode & 0xF0 not in (0x80, 0x90):
            targets.add((slot + 1 + (imm if opcode == 0x06 else offset)) * SLOT_SIZE)
    return targets


def _unnamed(section: Section, start: int, end: int) -> Function:
    """Return the function from `start` to `end`, named after its section."""
    name = section.name if end - start == section.size else f"{section.name}+{start:#x}"
    return Function(name, section, start, end - start, is_global=False, is_named=False)


def _modernise(code: bytearray) -> None:
    """Put the register of each indirect call into dst_reg, where LLVM before 19 had it in imm."""
    if 0x8D not in code[::SLOT_SIZE]:
        return
    for insn in decode(code):
        is_callx = insn.row is not None and insn.row.operation == "CALLX"
        if is_callx and insn.dst_reg == 0 and 0 < insn.imm < REGISTER_COUNT:
            start = insn.pc * SLOT_SIZE
            code[start : start + SLOT_SIZE] = replace(insn, dst_reg=insn.imm, imm=0).encode()
