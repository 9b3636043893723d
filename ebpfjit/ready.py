"""What is made once for a program, whoever runs it: verified, its helpers and maps, its machine code.

Program -> ready() -> Ready            kept with the program
Ready + functions of the user's -> Ready   kept for the last ones given
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from functools import cached_property
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from ebpfjit.analysis import verifier
from ebpfjit.analysis.accesses import Promises
from ebpfjit.analysis.cfg import loop_headers
from ebpfjit.analysis.entries import CALLX, KFUNC_CALLS, LOCAL_CALLS, OUTWARD_CALLS
from ebpfjit.analysis.verified import Verified, in_world, prepare
from ebpfjit.bits import W32
from ebpfjit.errors import ExecutionError, JitUnavailable, LicenseWarning, VerifierError
from ebpfjit.isa.spec import Kind
from ebpfjit.once import import_alone, load_package
from ebpfjit.options import DEFAULTS, Options
from ebpfjit.program import Instruction, Program
from ebpfjit.record import dataclass, field, replace
from ebpfjit.runtime import counters, faults
from ebpfjit.runtime.environment import Environment
from ebpfjit.runtime.execution import HelperFunction, NativeHelper, may_end_rights
from ebpfjit.runtime.helpers import licenses, stock, table
from ebpfjit.runtime.helpers.names import DELETE, LOOKUP, NUMBERS, UPDATE
from ebpfjit.runtime.helpers.presence import missing
from ebpfjit.runtime.kfuncs.given import Given, given_functions, with_weak
from ebpfjit.runtime.kfuncs.table import functions_of
from ebpfjit.runtime.memory import Region
from ebpfjit.runtime.world import current

if TYPE_CHECKING:
    from ebpfjit.jit.entry import Compiled
    from ebpfjit.runtime.contexts import ProgramType
    from ebpfjit.runtime.contexts.arguments import Prototype
    from ebpfjit.runtime.contexts.described import Layout
    from ebpfjit.runtime.maps.special import ObjectLayout
    from ebpfjit.runtime.maps.structs import MapStructs
    from ebpfjit.runtime.owned import Holder


TASK_HELPERS = {
    NUMBERS[name] for name in ("bpf_get_current_task", "bpf_get_current_task_btf", "bpf_task_pt_regs")
}
"""Helpers that tell where the process is."""
_TIMED, _STARTING = frozenset({"bpf_timer", "bpf_wq"}), frozenset({NUMBERS["bpf_timer_start"]})
"""Fields of values, and helpers, by which something may become due."""
TAIL_CALL = NUMBERS["bpf_tail_call"]
_MAKING = ("bpf_obj_new", "bpf_percpu_obj_new")
_LOCKING = frozenset({"bpf_res_spin_lock", "bpf_res_spin_lock_irqsave"})


def _printing(r1: int, r2: int, r3: int, r4: int, r5: int) -> int:
    """Print as rbpf's bpf_trace_printf does, the line kept in the result."""
    world = current()
    line = stock.trace_line(r1, r2, r3, r4, r5)
    if world is not None:
        world.output.append(line)
    return len(line) + 1


_STOCK = {stock.BPF_KTIME_GETNS_IDX: stock.bpf_time_getns, stock.BPF_TRACE_PRINTK_IDX: _printing}


@dataclass(frozen=True)
class Brought:
    """What whoever runs a program brings along: functions for helpers, by number, and for kfuncs."""

    helpers: Mapping[int, HelperFunction] = field(default_factory=dict)
    kfuncs: Given = field(default_factory=dict)


NOTHING_BROUGHT = Brought()


@dataclass
class Ready:
    """A program verified, and compiled at its first run in machine code.

    `helpers` are the same objects for every run: their addresses are in the machine code. `options`
    are those of compiling. `kfuncs` are the kernel functions that the program calls, by the imm of
    their calls. `compiled` is by the helpers that are machine code themselves, which the
    environment decides, and by whether runs are counted. `complete` is true once nothing was found missing,
    `warned` once its license was complained of. `variants` are the same program's, by options that it
    inherits (`like`). `lasting` is true where machine code is made once for an environment that somebody else
    has, and may move on. `map_structs`
    are what a program sees of its maps that reads struct bpf_map. `proven` are the slots of accesses that
    need no check, as a verdict says (`ebpfjit.relied`).
    """

    program: Program
    type: ProgramType | None
    verified: Verified
    helpers: Mapping[int, HelperFunction]
    maps: dict[int, Any]
    kfuncs: Mapping[int, HelperFunction] = field(default_factory=dict)
    options: Options = DEFAULTS
    compiled: dict[tuple[frozenset[int], bool], Compiled] = field(default_factory=dict)
    complete: bool = False
    variants: dict[tuple[bool, bool], Ready] = field(default_factory=dict)
    warned: bool = False
    lasting: bool = False
    map_structs: MapStructs | None = None
    proven: frozenset[int] = frozenset()

    def like(self, options: Options) -> Ready:
        """Return what runs of the program share that go on from one compiled with these options."""
        inherited = options.harden, options.audit
        if not any(inherited):
            return self
        if inherited not in self.variants:
            options = Options(harden=options.harden, audit=options.audit)
            made = replace(self, options=options, compiled={}, variants={}, proven=frozenset())
            self.variants.setdefault(inherited, made)
        return self.variants[inherited]

    def machine_code(self, environment: Environment) -> Compiled:
        """Return the program compiled for such an environment. Raises JitUnavailable."""
        key = self._natives(environment), counters.are_on()
        if key not in self.compiled:
            self.compiled[key] = self.compiled_anew(environment, self.options)
        return self.compiled[key]

    def improved(self, environment: Environment, options: Options) -> Compiled:
        """Compile the program once more, optimised; its runs from now on take that code.

        Where it `resumes` runs that is for those only.
        """
        compiled = self.compiled_anew(environment, options)
        if not options.resumes:
            self.compiled[self._natives(environment), counters.are_on()] = compiled
        return compiled

    def compiled_anew(self, environment: Environment, options: Options) -> Compiled:
        """Return the program compiled for such an environment."""
        import_alone("ebpfjit.jit.stock")
        from ebpfjit.jit.stock import native_helper

        natives = {
            number: native_helper(number, environment, lasting=self.lasting)
            for number in self._natives(environment)
        }
        return compile_ready(self, options, natives)

    def check_variables(self, environment: Environment) -> None:
        """Raise ExecutionError for a variable of the kernel that `load` was told of, and this run is not."""
        for pc, name in self.program.kernel_symbols.items():
            if name not in environment.symbols and self.program.has_variable(pc):
                raise faults.name_line(
                    ExecutionError(
                        f"pc {pc}: kernel symbol {name!r}: the environment of the load has it in symbols=, "
                        f"and that of this run has not",
                        pc,
                    ),
                    self.program,
                )

    @cached_property
    def needs_task(self) -> bool:
        """True for a program that asks where the process is."""
        if any(called.name == "bpf_iter_task_new" for called in self.program.kfuncs.values()):
            return True
        return self._calls(TASK_HELPERS)

    def _calls(self, numbers: Collection[int]) -> bool:
        """True for a program that calls one of these helpers."""
        return not called_by(self.program).isdisjoint(numbers)

    @cached_property
    def object_types(self) -> Callable[[int], ObjectLayout | None] | None:
        """The structs of the program's BTF, by id; None where it makes no objects, or has no types."""
        makes = any(called.name.startswith(_MAKING) for called in self.program.kfuncs.values())
        if not makes or self.program.types is None:
            return None
        load_package("ebpfjit.elf")
        from ebpfjit.elf.special import ObjectTypes

        return ObjectTypes(self.program.types.btf)

    @cached_property
    def context_layout(self) -> Layout | Prototype | None:
        """What the program's own types say that its context is; None where its type alone does.

        Raises ExecutionError where they do not say what it looks like.
        """
        load_package("ebpfjit.elf")
        import_alone("ebpfjit.elf.contexts")
        from ebpfjit.elf.contexts import context_layout

        return context_layout(self.program)

    @cached_property
    def stock(self) -> frozenset[int]:
        """The helpers of ours that the program calls, by number."""
        return table.ours(self.helpers, *called_by(self.program))

    @property
    def takes_locks(self) -> bool:
        """True for a program that takes spin locks: helpers in machine code do not see one that is held."""
        names = {called.name for called in self.program.kfuncs.values()}
        return NUMBERS["bpf_spin_lock"] in self.stock or not names.isdisjoint(_LOCKING)

    @property
    def makes_tail_calls(self) -> bool:
        """True for a program that jumps to others, as Linux does it."""
        return TAIL_CALL in self.stock and not self.takes_locks

    def _natives(self, environment: Environment) -> frozenset[int]:
        """Return the helpers that are machine code in the program's."""
        if not self.stock or self.takes_locks:
            return frozenset()
        import_alone("ebpfjit.jit.stock")
        from ebpfjit.jit.stock import native_numbers

        return native_numbers(environment, lasting=self.lasting) & self.stock

    @cached_property
    def has_kptrs(self) -> bool:
        """True for a program with maps whose values point to objects, which it may read."""
        if not self._special_kinds:
            return False
        from ebpfjit.runtime.maps.special import POINTERS

        return not POINTERS.isdisjoint(self._special_kinds)

    @cached_property
    def has_timers(self) -> bool:
        """True for a program before whose runs something may be due: it has timers or work queues."""
        if not _TIMED.isdisjoint(self._special_kinds) or self._calls(_STARTING):
            return True
        return any(called.name == "bpf_wq_start" for called in self.program.kfuncs.values())

    @cached_property
    def _special_kinds(self) -> frozenset[str]:
        """The kinds of special fields that values of its maps, and of maps inside of them, have."""
        outer = [map_.definition for map_ in self.maps.values()]
        inner = [definition.inner for definition in outer if definition.inner is not None]
        return frozenset(field.kind for definition in outer + inner for field in definition.special)

    def holders(self) -> list[Holder]:
        """Return what holds the objects of these maps."""
        return [map_.holder for map_ in self._all_maps() if map_.holder is not None]

    def _all_maps(self) -> Iterator[Any]:
        return (each for map_ in self.maps.values() for each in (map_, *map_.inner_maps))

    def seen_address(self, address: int) -> int:
        """Return what the program has as the address of a map, which is at `address`."""
        structs = self.map_structs
        found = [m for m in self._all_maps() if m.address == address] if structs is not None else ()
        return next((structs.address_of(m) for m in found if structs is not None), address)

    def refuse_missing(self) -> None:
        """Raise HelperNotFound where the program surely calls a helper that is not there.

        Raises LoadError where it has a kernel function, or variable, that nobody has: so do Linux's loaders.
        """
        if not self.complete:
            self.program.refuse_unmet(self.kfuncs)
            for call in missing(self.program, self.helpers).values():
                raise faults.name_line(faults.helper_not_found(call), self.program)
            self.complete = True

    @cached_property
    def _restricted(self) -> Mapping[str, Instruction]:
        return licenses.restricted_calls(self.program, self.helpers)

    def check_license(self, environment: Environment) -> None:
        """Refuse, or warn of, calls of helpers that Linux keeps for GPL programs, as the environment says.

        Raises VerifierError.
        """
        if environment.gpl_only is False or not self._restricted:
            return
        name, call = next(iter(self._restricted.items()))
        message = licenses.describe(self.program, name, call)
        if environment.gpl_only:
            raise VerifierError(f"{message}; Environment(gpl_only=False) lets it run", call.pc, "license")
        if not self.warned:
            self.warned = True
            warnings.warn(message, LicenseWarning, stacklevel=2)

    def regions(self, cpu: int) -> list[Region]:
        """Return the memory of the values in the program's maps, and in the maps inside of them.

        Maps with values for each processor show those of `cpu` from now on. Raises ExecutionError
        where one has none for it.
        """
        regions: list[Region] = []
        for map_ in self._all_maps():
            try:
                map_.use_cpu(cpu)
            except ValueError as error:
                raise ExecutionError(
                    f"{error}; Environment(cpu=, cpus=) of load() and run() differ"
                ) from None
            regions += map_.regions
            if self.map_structs is not None:
                regions.append(self.map_structs.region_of(map_))
        return regions


def is_plain(program: Program) -> bool:
    """True for bytecode that gets memory, as in rbpf: nothing says what else it was made for."""
    return program.type is None and not program.maps


def _refuse_unknown_section(program: Program) -> None:
    """Raise ExecutionError for a program with maps whose section does not tell what it runs on."""
    if program.type is None and program.maps and program.section not in (None, ".text"):
        name = program.name
        raise ExecutionError(
            f"program {name!r}: section {program.section!r} tells no program type, so nothing says what "
            f"context it expects; name it: program({name!r}, type='xdp') of the object, or load(..., types=)"
        )


def _check_arena(program: Program) -> None:
    """Raise VerifierError for casts without an arena, or more arenas than one, as Linux refuses them."""
    arenas: list[str] = []
    if program.maps:
        from ebpfjit.runtime.maps.definition import MapType

        arenas = [map_.name for map_ in program.maps if map_.definition.type == MapType.ARENA]
    if len(arenas) > 1:
        names = ", ".join(map(repr, arenas))
        raise VerifierError(
            f"the program refers to arenas {names}: Linux takes one per program", None, "arena"
        )
    cast = next((i for i in program.instructions if i.row is not None and i.row.kind is Kind.CAST), None)
    if cast is not None and not arenas:
        line = program.line_at(cast.pc)
        raise VerifierError(
            f"pc {cast.pc}: addr_space_cast insn can only be used in a program that has an associated arena: "
            f"let it refer to the map{'' if line is None else f' ({line})'}",
            cast.pc,
            "arena",
        )


def _map_structs(program: Program) -> tuple[MapStructs | None, dict[int, int]]:
    """Return what a program sees of its maps, and at which address in place of each map's own."""
    if not program.maps or program.types is None:
        return None, {}
    import_alone("ebpfjit.runtime.maps.structs")
    from ebpfjit.runtime.maps.structs import is_read

    if not is_read(program.types.btf):
        return None, {}
    load_package("ebpfjit.elf")
    import_alone("ebpfjit.elf.map_structs")
    from ebpfjit.elf.map_structs import map_structs

    structs = map_structs(program)
    return structs, {} if structs is None else {
        map_.address: structs.address_of(map_) for map_ in program.maps
    }


def environment_of(program: Program) -> Environment:
    """Return what the program's runs see of the world, where they are not told otherwise."""
    return program.environment or Environment()


def ready(program: Program) -> Ready:
    """Return what a program's runs share, made at the first.

    Raises VerifierError, ExecutionError, MapError for a prog_array of programs of another type, and what
    the loader kept for the program (`Program.refuse`).
    """
    kept = program.__dict__
    known: Ready | None = kept.get("_ready")
    if known is None:
        program.refuse()
        _refuse_unknown_section(program)
        type_ = None if program.type is None else _type_of(program.type, program.section)
        verifier.check(program)
        _check_arena(program)
        helpers = _helpers_of(program)
        structs, seen = _map_structs(program)
        if seen:
            references = {pc: seen.get(value, value) for pc, value in program.references.items()}
            program = replace(program, references=references)
        verified = prepare(program)
        if not is_plain(program):
            verified = in_world(verified)
        maps = {seen.get(map_.address, map_.address): map_ for map_ in program.maps}
        known = Ready(
            verified.program,
            type_,
            verified,
            helpers,
            maps,
            functions_of(verified.program),
            map_structs=structs,
        )
        kept["_ready"] = known
    return known


def _type_of(name: str, section: str | None) -> ProgramType:
    """Return a program type; what contexts are like is imported for it."""
    import_alone("ebpfjit.runtime.contexts.taking")
    from ebpfjit.runtime.contexts import effective_type

    return effective_type(name, section)


def _helpers_of(program: Program) -> Mapping[int, HelperFunction]:
    """Return the helpers that a program has: none where it calls none, as to import them all takes long."""
    if not called_by(program):
        return {}
    return {**table.bound(), **_STOCK} if is_plain(program) else table.bound()


def called_by(program: Program) -> set[int]:
    """Return the numbers of the helpers that a program calls."""
    if OUTWARD_CALLS.isdisjoint(program.operations):
        return set()
    return {
        W32.wrap(insn.imm)
        for insn in program.own().instructions  # which is what engines decode
        if insn.row is not None and insn.row.kind is Kind.CALL_HELPER
    }


def runs_straight(program: Program) -> bool:
    """True where no run executes an instruction twice: the interpreter is through before code is made.

    So it is without loops, and without calls: of functions, of kernel functions, and of helpers that call
    functions or go on in another program.
    """
    if not program.operations.isdisjoint(CALLX | LOCAL_CALLS | KFUNC_CALLS) or loop_headers(program):
        return False
    called = called_by(program)
    if not called:
        return True
    known = table.helpers()
    return TAIL_CALL not in called and all(n in known and not known[n].calls_functions for n in called)


def for_one_run(program: Program, cache: str | None = None) -> None:
    """Let machine code of a program without loops be baseline code: no run takes as long as to optimise it.

    `cache` is a folder where machine code is kept for the next process. Raises as `ready`, and LoadError for
    a folder that others may write to.
    """
    start = ready(program)
    if not start.verified.loop_headers:
        start.options = replace(start.options, optimize=False)
    if cache is not None:
        import_alone("ebpfjit.jit.cache")
        from ebpfjit.jit.cache import Folder

        start.options = replace(start.options, cache=Folder(cache))


def made_for_one_run(program: Program, cache: str) -> bool:
    """Find or make a program's machine code as `for_one_run` has it; False where there is none here."""
    for_one_run(program, cache)
    try:
        ready(program).machine_code(environment_of(program))
    except JitUnavailable:
        return False
    return True


def ready_with(program: Program, brought: Brought) -> Ready:
    """Return what runs of a program share that bring these functions along: kept for the last ones given."""
    if not brought.helpers and not brought.kfuncs:
        return ready(program)
    known: tuple[Brought, Ready] | None = program.__dict__.get("_ready_with")
    if known is None or known[0] != brought:
        start = ready(with_weak(program, brought.kfuncs))
        made = replace(
            start,
            helpers={**start.helpers, **brought.helpers},
            kfuncs={**start.kfuncs, **given_functions(start.program, brought.kfuncs)},
            compiled={},
            complete=False,
            variants={},
        )
        kept = Brought(dict(brought.helpers), dict(brought.kfuncs))
        known = program.__dict__["_ready_with"] = (kept, made)
    return known[1]


def _may_call(number: int, function: HelperFunction) -> bool:
    """True for a helper that may call functions of the program: one of ours that says so, and any other."""
    if function is table.bound().get(number):
        helper = table.helpers()[number]
        return helper.calls_functions or helper.asks_user
    return function is not _printing and function is not stock.bpf_time_getns


def _may_end_rights(number: int, function: HelperFunction) -> bool:
    """True for a helper that may take memory away: one of ours that says so, and any other in Python."""
    if function is table.bound().get(number):
        return table.helpers()[number].ends_rights
    return function is not _printing and function is not stock.bpf_time_getns and may_end_rights(function)


def promises_of(start: Ready, native: Iterable[int] = ()) -> Promises:
    """Return what every run of a program has.

    `native` are the numbers of helpers of ours that are machine code: they ask nobody. Of the helpers only
    those count that the program calls: there are 200, and this is done for each compilation.
    """
    called = called_by(start.program) & start.helpers.keys()
    in_python = {number: start.helpers[number] for number in called - set(native)}
    return Promises(
        argument_size=start.type.context_size if start.type is not None else 0,
        argument_writable=False,
        argument_rights=start.type.rights if start.type is not None else None,
        meets_rights=True,
        lookups=table.ours(start.helpers, LOOKUP),
        moving=frozenset(
            number for number, function in in_python.items() if _may_end_rights(number, function)
        ),
        calling=frozenset(number for number, function in in_python.items() if _may_call(number, function)),
        proven=start.proven,
    )


def _packet_helpers(start: Ready) -> frozenset[int]:
    """Return the helpers of ours, by number, that machine code may do by itself on packets of this type."""
    if start.type is None or not (start.type.has_packet and start.type.has_lane) or start.takes_locks:
        return frozenset()
    import_alone("ebpfjit.jit.stock")
    from ebpfjit.jit.stock import PACKET_HELPERS

    return start.stock & PACKET_HELPERS[start.type.context.name]


def compile_ready(
    start: Ready, options: Options, native: Mapping[int, NativeHelper] = MappingProxyType({})
) -> Compiled:
    """Return machine code that does as Linux for the program's type.

    `native` stand for the helpers of their numbers.
    """
    import_alone("ebpfjit.jit.entry")
    from ebpfjit.jit.entry import compile_program

    type_ = start.type
    is_known = type_ is None or type_.layout is None or type_.has_packet  # how much of its struct a run has
    in_code = () if start.takes_locks else (LOOKUP, UPDATE, DELETE)
    options = replace(
        options,
        optimize=options.optimize and is_known,
        promises=promises_of(start, native),
        map_helpers=table.ours(start.helpers, *in_code),
        packet_helpers=_packet_helpers(start),
        is_sound=True,
    )
    return compile_program(start.verified, options, {**start.helpers, **native}, start.kfuncs)
