"""A program: its instructions, and what was declared of it; the doors to all that can be done with it."""

from __future__ import annotations

import struct
from bisect import bisect_right
from collections.abc import Container, Mapping
from copy import copy
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from ebpfjit.bits import W64
from ebpfjit.declared import Kfunc, Number, SourceLine, TypeInfo
from ebpfjit.errors import EbpfError
from ebpfjit.instruction import (
    MAX_SLOTS,
    SLOT_SIZE,
    Buffer,
    Instruction,
    decode,
    decode_words,
    encode,
    words_of,
)
from ebpfjit.isa.spec import Kind, Reference, Row
from ebpfjit.isa.table import TABLE
from ebpfjit.literals import named_type
from ebpfjit.named import cut, few
from ebpfjit.once import import_alone
from ebpfjit.record import dataclass, field, fields, lazy, replace

if TYPE_CHECKING:
    import os

    from ebpfjit.arguments import Helpers, Kfuncs
    from ebpfjit.compatibility.report import Compatibility
    from ebpfjit.function import JitFunction
    from ebpfjit.listing.listing import Listing
    from ebpfjit.literals import AnyBuffer, EngineName, TypeName
    from ebpfjit.runner import Result
    from ebpfjit.runtime.environment import Environment
    from ebpfjit.tracing import Trace
    from ebpfjit.verifier.verdict import Verdict

__all__ = [
    "MAX_SLOTS",
    "SLOT_SIZE",
    "Buffer",
    "Instruction",
    "Kfunc",
    "Number",
    "Program",
    "SourceLine",
    "TypeInfo",
    "decode",
    "encode",
    "words_of",
]

_FUNCTION_NAMING = frozenset(row for row in TABLE if row.imm_is_target and row.kind is not Kind.JUMP)
"""Local calls and code references."""

_ARENA = 33  # BPF_MAP_TYPE_ARENA
_BY_INDEX = (Reference.MAP_BY_INDEX, Reference.MAP_VALUE_BY_INDEX)


def _frozen(value: Any) -> Any:
    """Return a field that nobody else can change."""
    return MappingProxyType(dict(value)) if isinstance(value, dict) else value


def _thawed(value: Any) -> Any:
    """Return it as it was."""
    return dict(value) if isinstance(value, MappingProxyType) else value


@dataclass(frozen=True)
class Program:
    """A program: bytecode, and what is known about it.

    `name` and `section` are those of the object file, None for raw bytecode. `type` is "xdp",
    "tc", ...; None where nothing tells. `functions` maps the slot where a function starts to its
    name; slot 0 is always there. `symbols` are the names that are known, `references` the values
    (u64) of the LDDWs that refer to something outside of the program, both by pc. `maps` are the
    maps (`ebpfjit.runtime.maps`) that LDDW_MAP_IDX and LDDW_MAP_IDX_VALUE count, `lines` the source
    lines, by the pc where their code starts. `environment` is the `Environment` of its runs where
    they are given none, None for the default. `license` is what the object says ("" where it does not), None
    for a program that comes from none. `types` is what BTF says of it, `kernel_types` are the types
    (`ebpfjit.elf.btf`) of the kernel that it was made for, None where nothing tells. `kfuncs` are the kernel
    functions that it calls, by the imm of their calls: the id of each in the BTF of its object. `weak_kfuncs`
    are those that may be missing, and that nobody has: by the pc of each use, with that id; whoever runs the
    program may give them.
    `exception_callback` is the slot of the function that bpf_throw calls, None where the object names none.

    `refusals` are errors of the loader: what the program needs and its object lacks; `refuse` raises them.
    `absent` says by pc what CO-RE, or the linker, did not find: a call that fails where it is reached stands
    there. `kernel_symbols` are the kfuncs and variables of a kernel that it refers to, by pc: what the kernel
    engine puts there is the kernel's. `unmet` are the errors of those that may not be missing, by pc; all
    other engines raise the first that nobody gives them (`refuse_unmet`).
    `relocations` has the pcs of the instructions that CO-RE relocations are of, and whether each only asks
    if something is there.
    `operation` is the struct and the member that a struct_ops program is for, None where nothing tells.
    `origin` is the object file that it comes from, as it was named; None where there is none.
    Raises DecodeError where `code` is not a whole number of slots.
    """

    code: bytes
    name: str | None = None
    section: str | None = None
    type: TypeName | None = None
    symbols: dict[int, str] = field(default_factory=dict)
    references: dict[int, int] = field(default_factory=dict)
    maps: tuple[Any, ...] = ()
    lines: dict[int, SourceLine] = field(default_factory=dict)
    environment: Any = None
    refusals: tuple[EbpfError, ...] = field(default=(), compare=False)
    absent: dict[int, str] = field(default_factory=dict)
    license: str | None = None
    types: TypeInfo | None = None
    kernel_symbols: dict[int, str] = field(default_factory=dict)
    unmet: dict[int, EbpfError] = field(default_factory=dict, compare=False)
    kernel_types: Any = field(default=None, compare=False, repr=False)
    kfuncs: dict[int, Kfunc] = field(default_factory=dict)
    exception_callback: int | None = None
    weak_kfuncs: dict[int, tuple[int, Kfunc]] = field(default_factory=dict)
    operation: tuple[str, str] | None = None
    relocations: dict[int, bool] = field(default_factory=dict, repr=False)
    origin: str | None = field(default=None, compare=False, repr=False)

    def __post_init__(self) -> None:
        # bytes(16) would be two slots
        object.__setattr__(self, "code", bytes(memoryview(self.code)))
        self.__dict__["_decoded"] = decode_words(self.words)  # now, so that a wrong length is said here

    def __repr__(self) -> str:
        name = "" if self.name is None else f" {self.name!r}"
        maps = f", maps {few(map_.definition.name for map_ in self.maps)}" if self.maps else ""
        return cut(f"<program{name} ({self.type or 'no type'}): {len(self.code) // SLOT_SIZE} slots{maps}>")

    @classmethod
    def from_bytes(cls, code: Buffer, *, name: str | None = None, type: TypeName | None = None) -> Program:
        """Make a program from raw little-endian bytecode: 8 bytes for each slot.

        `name` is what errors and listings call it; `type` ("xdp", "tc", ...) says what context it gets, None
        for plain memory. Raises DecodeError where `code` is not a whole number of slots, TypeError where it
        is no buffer.
        """
        return cls(bytes(memoryview(code)), name=name, type=type)

    @classmethod
    def from_assembly(cls, text: str, *, name: str | None = None, type: TypeName | None = None) -> Program:
        r"""Make a program from assembly text, in any of the dialects that `assembler.assemble` reads.

        `name` and `type` are as in `from_bytes`. Text as `clang -S -target bpf` writes it has functions,
        sections and variables: the program starts with the function called `name`, else with the first that
        is in a section of its own ("xdp"), whose type it has; variables are maps of one entry, and with
        `clang -g` the maps of `.maps` are there. Raises AssemblyError, which has the line and the column.

            Program.from_assembly("r0 = 2\nexit", type="xdp").run(bytes(60)).action    # 'XDP_PASS'
        """
        import_alone("ebpfjit.from_text")
        from ebpfjit import from_text

        return from_text.program_of(text, name, type)

    @classmethod
    def trusted(
        cls,
        code: bytes,
        name: str | None,
        section: str | None,
        type: str | None,
        symbols: dict[int, str],
    ) -> Program:
        """Make a program from bytes that were a program before: they are decoded when that is needed."""
        program = cls(b"", name, section, named_type(type), symbols)
        for made in ("_decoded", "words"):
            del program.__dict__[made]
        object.__setattr__(program, "code", code)
        return program

    @property
    def refusal(self) -> EbpfError | None:
        """What stands in the way of running it: the first of its own, or its maps', refusals; else None."""
        for refusal in self.refusals:
            return refusal
        for map_ in self.maps:
            refused: EbpfError | None = map_.refused
            if refused is not None:
                pc = next((pc for pc, address in self.references.items() if address == map_.address), None)
                line = self.line_at(pc)
                where = "" if line is None else f" ({line})"
                error = copy(refused)
                error.args = (f"{error}: program {self.name!r} uses the map{where}",)
                return error
        return None

    def refuse(self) -> None:
        """Raise what the loader kept for whoever runs or compiles the program, where there is something."""
        found = self.refusal
        if found is not None:
            raise copy(found)  # each has a traceback of its own

    def refuse_unmet(self, given: Container[int] = ()) -> None:
        """Raise the error of the first kfunc, or variable of a kernel, that the program cannot do without.

        `given` are the kfuncs, by the imm of their calls, that whoever runs the program brings along.
        """
        for pc, error in self.unmet.items():
            if self.has_variable(pc):
                continue
            call = self.slots[pc] if pc < len(self.slots) else None  # `dataclasses.replace` gave other code
            if call is None or call.imm not in self.kfuncs or call.imm not in given:
                raise copy(error)  # each has a traceback of its own

    def has_variable(self, pc: int) -> bool:
        """True where the wide load at `pc` was given the address of a variable of the kernel."""
        load = self.slots[pc] if pc in self.kernel_symbols and pc < len(self.slots) else None
        is_wide = load is not None and load.row is not None and load.row.kind is Kind.LOAD_IMM64
        return is_wide and load is not None and load.imm64 >> 63 == 1  # else 0, or the id of a kfunc

    def to_bytes(self) -> bytes:
        """Return the bytecode."""
        return self.code

    def own(self) -> Program:
        """Return the program as the engines have it: of the same bytes, and nobody else's.

        What is verified, analysed and compiled, perhaps once more much later, is the same whatever is done to
        this object and its instructions, which are values for the type checker only.
        """
        if self.__dict__.get("_is_own"):
            return self
        made: Program | None = self.__dict__.get("_own")
        if made is None:
            made = object.__new__(Program)
            made.__dict__.update({each.name: _frozen(self.__dict__[each.name]) for each in fields(self)})
            made.__dict__["_is_own"] = True
            decoded = self.__dict__.pop("_decoded", None)  # nobody has seen them
            if decoded is not None:
                made.__dict__["instructions"] = decoded
            made = self.__dict__.setdefault("_own", made)
        return made

    @property
    def arena(self) -> Any:
        """The arena among the maps, None where there is none."""
        return next((map_ for map_ in self.maps if map_.definition.type == _ARENA), None)

    @lazy
    def instructions(self) -> tuple[Instruction, ...]:
        """The decoded instructions, in order of pc."""
        return decode_words(self.words)

    @lazy
    def words(self) -> tuple[int, ...]:
        """The bytecode as 8-byte words, one for each slot."""
        return words_of(self.code)

    @lazy
    def operations(self) -> frozenset[int]:
        """The first 16 bits of all slots, which `isa.table.told_by` reads: told without decoding."""
        return frozenset(struct.unpack(f"<{len(self.code) // 2}H", self.code)[::4])

    @lazy
    def slots(self) -> tuple[Instruction | None, ...]:
        """The instruction that starts at each slot; None at the second slot of an LDDW."""
        instructions = self.instructions
        if len(instructions) == len(self.words):  # none of them takes two
            return instructions
        slots: list[Instruction | None] = [None] * len(self.words)
        for instruction in instructions:
            slots[instruction.pc] = instruction
        return tuple(slots)

    @lazy
    def suspects(self) -> tuple[Instruction, ...]:
        """The instructions that name r10, a register that does not exist, or no row: few, mostly."""
        every = self.instructions
        return tuple([one for one in every if one.dst_reg > 9 or one.src_reg > 9 or one.row is None])

    @lazy
    def rows(self) -> frozenset[Row | None]:
        """The table rows of all instructions; None where one is unknown."""
        return frozenset([instruction.row for instruction in self.instructions])

    @lazy
    def jumps(self) -> tuple[tuple[Instruction, int], ...]:
        """The instructions that go, or may go, to a slot that they name, and that slot; local calls too."""
        return tuple(
            [
                (insn, insn.pc + 1 + (insn.imm if row.imm_is_target else insn.offset))
                for insn in self.instructions
                if (row := insn.row) is not None and row.has_target
            ]
        )

    @lazy
    def functions(self) -> dict[int, str]:
        """The slot where each function starts, in order, and its name.

        Slot 0, every symbol's start and every target of a local call or a code reference, where
        an instruction starts there.
        """
        starts = {0, *self.symbols}
        if not _FUNCTION_NAMING.isdisjoint(self.rows):
            naming = [insn for insn in self.instructions if insn.row in _FUNCTION_NAMING]
            starts.update([insn.pc + 1 + insn.imm for insn in naming])
        slots = self.slots
        inside = sorted(pc for pc in starts if 0 <= pc < len(slots) and slots[pc] is not None)
        return {pc: self.symbols.get(pc, f"function_{pc}" if pc else "main") for pc in inside}

    @lazy
    def function_names(self) -> dict[int, str]:
        """`functions`, slot 0 by the program's own name where nothing else names it."""
        return {**self.functions, 0: self.symbols.get(0) or self.name or "main"}

    @lazy
    def _line_starts(self) -> list[int]:
        return sorted({*self.lines, *self.functions})

    def line_at(self, pc: int | None) -> SourceLine | None:
        """Return the source line of the instruction at `pc`, None where it is not known."""
        if pc is None or not self.lines:
            return None
        index = bisect_right(self._line_starts, pc)
        return self.lines.get(self._line_starts[index - 1]) if index else None

    def __copy__(self) -> Program:
        return replace(self)

    def __getstate__(self) -> dict[str, Any]:
        """What a pickle needs: the fields. What was made from them is made anew.

        References to maps are left to `__setstate__`: the maps are at other addresses where the copy is.
        """
        state = {each.name: _thawed(self.__dict__[each.name]) for each in fields(self)}
        told = ((pc, address, self._map_place(pc)) for pc, address in self.references.items())
        state["references"] = {pc: None if place == address else address for pc, address, place in told}
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        found = {pc: self._map_place(pc) if place is None else place for pc, place in self.references.items()}
        self.__dict__["references"] = found

    def _map_place(self, pc: int) -> int | None:
        """Return the address that a wide load of a map, or of a byte of its value, names; None for others."""
        insn = self.slots[pc] if 0 <= pc < len(self) else None
        which = insn.row.reference if insn is not None and insn.row is not None else None
        if insn is None or which not in _BY_INDEX or not 0 <= insn.imm < len(self.maps):
            return None
        map_ = self.maps[insn.imm]
        place: int = map_.address
        if which is Reference.MAP_VALUE_BY_INDEX:
            place = W64.wrap(map_.value_address + (insn.next_imm or 0))
        return place

    def run(
        self,
        data: AnyBuffer = b"",
        *,
        engine: EngineName | None = None,
        limit: int | None = None,
        context: Mapping[str, Any] | None = None,
        environment: Environment | None = None,
        helpers: Helpers | None = None,
        kfuncs: Kfuncs | None = None,
        repeat: int = 1,
    ) -> Result:
        """Run the program once on a copy of `data`.

        `engine` is "jit", "interpreter" or "kernel", None for machine code where there is some, else the
        interpreter; `limit` counts instructions (None: no limit). A program with a type gets its context, as
        BPF_PROG_TEST_RUN makes it: `data` is an Ethernet frame for packet programs and the context's bytes
        for the others; `context` sets fields of the context's struct by name. One without a type gets the
        data's address in r1, its length in r2. `environment` is what helpers see of the world; `helpers` are
        functions of five u64 that stand for helpers, by number or by name, `kfuncs` those that stand for
        kernel functions, by name or BTF id: in this program and in those that it jumps to. With `repeat` it
        runs so often, on the same data each time and on the maps as the run before has left them; the result
        is the last run's, with the output and the events of all.

        Raises VerifierError, ExecutionError, InputError (a packet, a field or an option that the type, or the
        engine, does not take: the kernel has a limit, helpers, a clock of its own), LoadError (a kernel
        function that nobody has), MapError (a prog_array of programs of another type), or JitUnavailable and
        KernelUnavailable where the engine is not to be had; ValueError and TypeError for arguments that are
        none.

            result = program.run(packet, context={"ingress_ifindex": 2}, limit=10_000)
        """
        # A door upwards, for the one who holds a Program: the engines stand on this module.
        import_alone("ebpfjit.runner")
        from ebpfjit import runner

        return runner.run(
            self,
            data,
            engine=engine,
            limit=limit,
            context=context,
            environment=environment,
            helpers=helpers,
            kfuncs=kfuncs,
            repeat=repeat,
        )

    def compile(
        self,
        *,
        optimize: bool | None = None,
        checked: bool = True,
        helpers: Helpers | None = None,
        kfuncs: Kfuncs | None = None,
        limit: int | None = None,
        environment: Environment | None = None,
        context: Mapping[str, Any] | None = None,
        repeat: int = 1,
        audit: bool = False,
        harden: bool = False,
        cache: str | os.PathLike[str] | None = None,
        release_gil: bool = False,
        verdict: Verdict | None = None,
    ) -> JitFunction:
        """Compile the program into a function of one buffer.

        `optimize=False` translates the program as it stands: it is there in a fraction of the time, and takes
        longer to run. `optimize=True` looks for all there is to save. Without either it starts as the first,
        and goes on as the second once its calls have taken about as long as that takes; one call that runs
        for long is best told True.

        `helpers` maps numbers, or Linux's names, to functions; a program with a type or with maps finds
        Linux's helpers besides. `kfuncs` maps names of kernel functions (or BTF ids) to functions that take
        their place. `limit` is the instruction limit of each call (None: no limit). `environment` is what
        helpers see of the world, `context` sets fields of each call's context by name. With `repeat` each
        call runs the program so often: one with a type on the same data each time, others on what the run
        before has left.

        `checked=False` leaves out all memory checks: a wrong program can then crash the process.
        `harden=True` keeps immediates of the program's choosing out of the machine code (two more
        instructions for each) and puts guard pages around it. `cache` is a folder where machine code is kept
        for the next process: nobody else must be able to write there, as it is run. Hardened programs are
        not kept, nor those with maps or references: their code has addresses of this process, with which
        the optimizer works as with numbers. `release_gil=True` lets Python's other threads run meanwhile:
        for programs that take a microsecond or more; helpers in Python take the lock back, maps that machine
        code uses have a lock of their own. `audit=True` is for who works on the compiler: machine code looks
        again at what analysis found, and ends with an AuditFailure where that does not hold.

        `verdict` is what `verify` returned of this very program: what it proved is not checked again at run
        time, in baseline code neither. It has to be an acceptance; helpers that take the place of Linux's, or
        read-only variables set since then, are a ValueError. Programs that nothing is relied on for, such as
        those without a type, keep their checks: `fn.explain()` says why. SECURITY.md says what stands upon
        what then.

        Raises VerifierError, JitUnavailable where there is no machine code here, InputError for fields of a
        context that the program does not get, LoadError for a cache folder that others may write to;
        ValueError and TypeError for arguments that are none.

            verdict = program.compile(limit=10_000)(packet)
        """
        import_alone("ebpfjit.compiling")
        from ebpfjit import compiling

        return compiling.compile(
            self,
            optimize=optimize,
            checked=checked,
            helpers=helpers,
            kfuncs=kfuncs,
            limit=limit,
            environment=environment,
            context=context,
            repeat=repeat,
            audit=audit,
            harden=harden,
            cache=cache,
            release_gil=release_gil,
            verdict=verdict,
        )

    def disassemble(self, dialect: str = "rbpf") -> str:
        """Return the program as assembly text, one instruction a line, which assembles to the same bytes.

        `dialect` is "rbpf" (`ldxw r0, [r1+0x4]`) or "linux" (`r0 = *(u32 *)(r1 + 4)`), else ValueError.
        A listing has names of helpers and maps besides: `listing`.

            print(program.disassemble("linux"))
        """
        import_alone("ebpfjit.disassembler")
        from ebpfjit import disassembler

        return disassembler.disassemble(self, dialect)

    def listing(
        self,
        *,
        optimize: bool = True,
        checked: bool = True,
        harden: bool = False,
        audit: bool = False,
        environment: Environment | None = None,
        helpers: Helpers | None = None,
        kfuncs: Kfuncs | None = None,
        verdict: Verdict | None = None,
    ) -> Listing:
        """Return eBPF beside its source and its machine code, of the code that `run` runs.

        It is a str: a legend, then each instruction with what it became, and why its access is checked or
        not. `.html()` is the same as a page for a browser, `.json()` as JSON. `optimize`, `checked`,
        `harden`, `audit`, `environment`, `helpers` and `kfuncs` are those of `compile`. Of a program that
        cannot be compiled, here or at all, it shows what there is, and says why that is all. As `compile`, it
        makes read-only variables final. What `verify` said of the program stands beside the instructions
        where it is given as `verdict`.

            print(program.listing())
            pathlib.Path("listing.html").write_text(program.listing(verdict=program.verify()).html())
        """
        import_alone("ebpfjit.looking")
        from ebpfjit import looking

        return looking.listing(
            self, optimize=optimize, checked=checked, harden=harden, audit=audit,
            environment=environment, helpers=helpers, kfuncs=kfuncs, verdict=verdict,
        )  # fmt: skip

    def verify(
        self,
        kernel: str | None = None,
        *,
        limit: int = 1_000_000,
        unprivileged: bool = False,
        context_size: int | None = None,
        claims: bool = False,
        seconds: float = 0.5,
    ) -> Verdict:
        """Say whether the program is safe, as Linux's verifier would.

        The verdict's `status` is "accepted", "refused" or "undecided"; `errors` say where, and what would
        help. `limit`, `unprivileged`, `context_size` and `claims` are those of `ebpfjit.verifier.verify`. For
        what is refused, inputs are looked for with which a run really goes wrong there, at most so many
        `seconds` of processor time (0: none).

        The rules are those of Linux 6.18. With `kernel`, a release ("5.15"), "running" or a file with a
        kernel's types, what that one lacks of what the program uses is refused, too; see `compatibility`.
        Raises EbpfError for a release that is not known.

            print(program.verify())
        """
        import_alone("ebpfjit.verifier.verdict")
        from ebpfjit.verifier import verdict

        found = verdict.verify(
            self, limit=limit, unprivileged=unprivileged, context_size=context_size, claims=claims
        )
        if kernel is not None:
            found = verdict.lacking(found, self.compatibility().missing(kernel))
        if not found.errors or seconds <= 0:
            return found
        import_alone("ebpfjit.fuzzing.witnesses")
        from ebpfjit.fuzzing.witnesses import with_witnesses

        return with_witnesses(self, found, seconds)

    def trace(
        self,
        data: AnyBuffer = b"",
        *,
        limit: int | None = 100_000,
        context: Mapping[str, Any] | None = None,
        environment: Environment | None = None,
        helpers: Helpers | None = None,
        kfuncs: Kfuncs | None = None,
    ) -> Trace:
        """Run the program once on the interpreter, on a copy of `data`, and return its steps.

        The result is a sequence of steps, each with the `pc` of an instruction and the `registers` before it
        (r0 to r10, u64), its `text` and its `line` of source; str() has a line for each, with the registers
        that it changed. `result` is what `run` returns; a fault ends the trace and is its `error`. `context`,
        `environment`, `helpers`, `kfuncs` and `limit` (here 100,000 instructions) are those of `run`; it
        raises as that, but for faults.

            print(program.trace(packet))
            [step.registers[0] for step in program.trace(packet) if step.pc == 12]
        """
        import_alone("ebpfjit.tracing")
        from ebpfjit import tracing

        return tracing.trace(
            self, data, limit=limit, context=context, environment=environment, helpers=helpers, kfuncs=kfuncs
        )

    def compatibility(self) -> Compatibility:
        """Return what the program needs of Linux: each feature, the release that has it, and the place.

        The result has `.minimum`, the oldest release that has all, None where none has, or where that is not
        known; `.needs`, each with `.feature`, `.release`, `.pc` and `.line`; and `.missing("5.15")`, what a
        release lacks. `Object.compatibility` has maps that no program uses besides.

            print(program.compatibility())
        """
        import_alone("ebpfjit.compatibility.report")
        from ebpfjit.compatibility import report

        return report.of_program(self)

    def __len__(self) -> int:
        """The number of 8-byte slots."""
        return len(self.code) // SLOT_SIZE
