"""A program run once on an engine, with a Result; or compiled into a Python callable.

    Program -> ready() -> Ready (verified, machine code, helpers: made once)
    Ready + data, context, environment -> World and Execution -> engine -> Result

What `Program.run` and `Program.compile` do.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from ebpfjit.analysis import verifier
from ebpfjit.analysis.verified import Verified, in_world, prepare
from ebpfjit.errors import ExecutionError, LicenseWarning, LoadError, VerifierError
from ebpfjit.function import FunctionContents, JitFunction, make_function
from ebpfjit.interpreter import interpret
from ebpfjit.isa.spec import Kind
from ebpfjit.once import load_package, once
from ebpfjit.program import Instruction, Program
from ebpfjit.runtime import faults, held, timers
from ebpfjit.runtime.contexts import (
    Context,
    Outcome,
    ProgramType,
    Redirect,
    SkbContext,
    effective_type,
    give_back,
    packet_context,
    program_type,
    take,
)
from ebpfjit.runtime.environment import Environment
from ebpfjit.runtime.execution import Execution, HelperFunction, Mark, NativeHelper, Stops, may_end_rights
from ebpfjit.runtime.helpers import licenses, stock, table
from ebpfjit.runtime.helpers.names import NUMBERS
from ebpfjit.runtime.helpers.presence import missing
from ebpfjit.runtime.helpers.tracing import RETVAL, SEQUENCE
from ebpfjit.runtime.kfuncs.given import Given, given_functions
from ebpfjit.runtime.kfuncs.table import functions_of
from ebpfjit.runtime.maps import bytecode
from ebpfjit.runtime.maps.events import PerfEventArray, RingBuffer
from ebpfjit.runtime.memory import Region, Stack, flat_view
from ebpfjit.runtime.shared import SharedRegions
from ebpfjit.runtime.timers import Callback
from ebpfjit.runtime.world import World, current
from ebpfjit.sealed import inside, seal

if TYPE_CHECKING:
    from ebpfjit.elf.objects import Surroundings
    from ebpfjit.jit.entry import Cache, Compiled
    from ebpfjit.jit.gate import Lane

U32_MASK = 0xFFFFFFFF

TASK_HELPERS = {
    NUMBERS[name] for name in ("bpf_get_current_task", "bpf_get_current_task_btf", "bpf_task_pt_regs")
}
"""Helpers that tell where the process is."""
INHERITED = ("harden", "audit")
"""Options of a compiled program that hold for those that it tail-calls."""


@dataclass(frozen=True)
class Result:
    """What a run left behind.

    `return_value` is r0: a u64 for a program without a type, 32 bits for the others, as in Linux.
    `action` is its name where the type has names ("XDP_DROP", "TC_ACT_OK"), else None. `data` is the
    packet after the run (data to data_end; its Ethernet header before it where the program did not
    see that), `metadata` what stands before an XDP packet. `context` holds the fields after the
    run. `redirect` says where the packet was sent, `clones` what bpf_clone_redirect sent:
    (ifindex, packet). `output` are the lines of bpf_trace_printk, `events` what went to perf and
    ring buffers: (map name, bytes); the buffers are empty again. `instructions` is how many eBPF
    instructions were executed (interpreter only). `passes` is true where the packet would go on.
    `retval` is what bpf_set_retval set, or None. `output` ends with the lines of bpf_seq_printf.
    """

    return_value: int
    data: bytes
    context: Mapping[str, int | tuple[int, ...] | bytes] = field(default_factory=dict)
    output: tuple[str, ...] = ()
    events: tuple[tuple[str, bytes], ...] = ()
    instructions: int | None = None
    action: str | None = None
    metadata: bytes = b""
    redirect: Redirect | None = None
    clones: tuple[tuple[int, bytes], ...] = ()
    passes: bool = False
    retval: int | None = None


# -- what is made once for a program ------------------------------------------------------------


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
    environment decides. `complete` is true once nothing was found missing, `warned` once its license was
    complained of. `variants` are the same program's, by options that it inherits (`like`). `lasting` is true
    where machine code is made once for an environment that somebody else has, and may move on.
    """

    program: Program
    type: ProgramType | None
    verified: Verified
    helpers: Mapping[int, HelperFunction]
    maps: dict[int, Any]
    kfuncs: Mapping[int, HelperFunction] = field(default_factory=dict)
    options: Mapping[str, Any] = field(default_factory=dict)
    compiled: dict[frozenset[int], Compiled] = field(default_factory=dict)
    complete: bool = False
    variants: dict[tuple[str, ...], Ready] = field(default_factory=dict)
    warned: bool = False
    lasting: bool = False

    def like(self, options: Mapping[str, Any]) -> Ready:
        """Return what runs of the program share that go on from one compiled with these options."""
        names = tuple(name for name in INHERITED if options.get(name))
        if not names:
            return self
        if names not in self.variants:
            made = replace(self, options=dict.fromkeys(names, True), compiled={}, variants={})
            self.variants.setdefault(names, made)
        return self.variants[names]

    def machine_code(self, environment: Environment) -> Compiled:
        """Return the program compiled for such an environment. Raises JitUnavailable."""
        natives = self._natives(environment)
        if natives not in self.compiled:
            self.compiled[natives] = self.compiled_anew(environment)
        return self.compiled[natives]

    def optimised(self, environment: Environment) -> Compiled:
        """Compile the program once more, optimised; its runs from now on take that code."""
        compiled = self.compiled_anew(environment, optimize=True, takes_over=True)
        self.compiled[self._natives(environment)] = compiled
        return compiled

    def compiled_anew(self, environment: Environment, **options: Any) -> Compiled:
        """Return the program compiled for such an environment; `options` are those of `compile_program`."""
        load_package("ebpfjit.jit")
        from ebpfjit.jit.stock import native_helper

        natives = {number: native_helper(number) for number in self._natives(environment)}
        return compile_ready(self, natives, **options)

    @cached_property
    def needs_task(self) -> bool:
        """True for a program that asks where the process is."""
        rows = ((insn.row, insn.imm) for insn in self.program.instructions)
        return any(row and row.kind is Kind.CALL_HELPER and imm in TASK_HELPERS for row, imm in rows)

    @cached_property
    def _stock(self) -> frozenset[int]:
        """The helpers of ours that the program calls, by number."""
        ours = table.bound()
        rows = ((insn.row, insn.imm) for insn in self.program.instructions)
        called = (imm for row, imm in rows if row is not None and row.kind is Kind.CALL_HELPER)
        return frozenset(
            number for number in called if number in ours and self.helpers.get(number) is ours[number]
        )

    def _natives(self, environment: Environment) -> frozenset[int]:
        """Return the helpers that are machine code in the program's."""
        if not self._stock:
            return self._stock
        load_package("ebpfjit.jit")
        from ebpfjit.jit.stock import native_numbers

        return native_numbers(environment, lasting=self.lasting) & self._stock

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
        for map_ in self.maps.values():
            for each in (map_, *map_.inner_maps):
                try:
                    each.use_cpu(cpu)
                except ValueError as error:
                    raise ExecutionError(
                        f"{error}; Environment(cpu=, cpus=) of load() and run() differ"
                    ) from None
                regions += each.regions
        return regions


def _is_plain(program: Program) -> bool:
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


def environment_of(program: Program) -> Environment:
    """Return what the program's runs see of the world, where they are not told otherwise."""
    return program.environment or Environment()


def ready(program: Program) -> Ready:
    """Return what a program's runs share, made at the first.

    Raises VerifierError, ExecutionError, MapError for a prog_array of programs of another type, and what
    the loader kept for the program (`Program.refuse`).
    """
    known: Ready | None = program.__dict__.get("_ready")
    if known is None:
        program.refuse()
        _refuse_unknown_section(program)
        type_ = None if program.type is None else effective_type(program.type, program.section)
        verifier.check(program)
        helpers = {**table.bound(), **_STOCK} if _is_plain(program) else table.bound()
        verified = prepare(program)
        if not _is_plain(program):
            verified = in_world(verified)
        maps = {map_.address: map_ for map_ in verified.program.maps}
        known = Ready(verified.program, type_, verified, helpers, maps, functions_of(verified.program))
        program.__dict__["_ready"] = known
    return known


def numbered(helpers: Mapping[int | str, HelperFunction] | None) -> Mapping[int, HelperFunction]:
    """Return functions that stand for helpers by number, where they may have been named as in Linux.

    Raises ExecutionError for a name that no helper has.
    """
    found: dict[int, HelperFunction] = {}
    for key, function in (helpers or {}).items():
        if isinstance(key, str) and key not in NUMBERS:
            raise ExecutionError(f"Linux has no helper {key!r}; give one of your own a number that is free")
        found[NUMBERS[key] if isinstance(key, str) else key] = function
    return found


def ready_with(program: Program, brought: Brought) -> Ready:
    """Return what runs of a program share that bring these functions along: kept for the last ones given."""
    start = ready(program)
    if not brought.helpers and not brought.kfuncs:
        return start
    known: tuple[Brought, Ready] | None = program.__dict__.get("_ready_with")
    if known is None or known[0] != brought:
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


def promises_of(start: Ready, native: Iterable[int] = ()) -> dict[str, Any]:
    """Return what every run of a program has, as `compile_program` and analysis (`Promises`) take it.

    `native` are the numbers of helpers of ours that are machine code: they ask nobody.
    """
    in_python = {number: each for number, each in start.helpers.items() if number not in native}
    return {
        "argument_size": start.type.context_size if start.type is not None else 0,
        "argument_writable": False,
        "lookups": table.ours(start.helpers, bytecode.LOOKUP),
        "moving": frozenset(
            number for number, function in in_python.items() if _may_end_rights(number, function)
        ),
        "calling": frozenset(number for number, function in in_python.items() if _may_call(number, function)),
    }


def compile_ready(start: Ready, native: Mapping[int, NativeHelper] | None = None, **options: Any) -> Compiled:
    """Return machine code that does as Linux for the program's type.

    `native` stand for the helpers of their numbers; `options` are those of `compile_program`.
    """
    load_package("ebpfjit.jit")
    from ebpfjit.jit.entry import compile_program

    return compile_program(
        start.verified,
        helpers={**start.helpers, **(native or {})},
        kfuncs=start.kfuncs,
        map_helpers=table.ours(start.helpers, bytecode.LOOKUP, bytecode.UPDATE, bytecode.DELETE),
        verify=verifier.check,
        **{**promises_of(start, native or ()), **start.options, **options},
    )


# -- one run --------------------------------------------------------------------------------------

EngineFunction = Callable[[Ready, Execution], int]


def _on_interpreter(ready: Ready, execution: Execution) -> int:
    return interpret(ready.verified, execution)


def _on_machine_code(ready: Ready, execution: Execution) -> int:
    assert execution.world is not None  # every run of ours has one
    return ready.machine_code(execution.world.environment).run(execution)


ENGINES: dict[str, EngineFunction] = {"jit": _on_machine_code, "interpreter": _on_interpreter}


def _memory_arguments(memory: Region) -> tuple[int, int]:
    """Return r1 and r2 for plain memory: its address, 0 where it is empty, and its length."""
    return (memory.start if memory.size else 0), memory.size


def _kind(type_: ProgramType | None) -> str:
    return "no type" if type_ is None else f"type {type_.name!r}"


class _Run:
    """One run: a world, and the programs that run in it, which are more than one with tail calls."""

    def __init__(
        self,
        engine: EngineFunction,
        environment: Environment,
        made: Context | Region,
        stack: Stack | None = None,
        mark: Mark | None = None,
        brought: Brought = NOTHING_BROUGHT,
    ) -> None:
        self.engine = engine
        self.brought = brought
        self.made = made
        self.stack = stack or (None if isinstance(made, Region) else made.stack)
        self.instructions = 0
        self.limit: int | None = None
        self.options: Mapping[str, Any] = {}
        self.world = World(environment, context=None if isinstance(made, Region) else made, mark=mark)
        self.world.run_program = self._tail_call
        self.world.later = self._later
        self.current: Ready | None = None
        self.around: list[Surroundings] = []  # all that it had: machine code may be reading the first

    def end(self) -> None:
        """Let go of what the run leaves: it is freed with its result, not when cycles are looked for."""
        self.world.run_program = self.world.later = None

    def execute(self, program: Ready, limit: int | None) -> int:
        """Run a program and return r0. Raises HelperNotFound where it surely calls what is not there."""
        program.refuse_missing()
        program.check_license(self.world.environment)
        outer = self.current
        execution = self.execution(program, limit)
        try:
            return self.engine(program, execution)
        finally:
            self.current = outer
            self.instructions += execution.instructions

    def _later(self, function: int) -> Callback:
        """Return what calls a function of the program that runs now, once it is over."""
        assert self.current is not None  # a helper asks
        start, engine, environment = self.current, self.engine, self.world.environment
        return partial(_call_back, start, engine, environment, self.limit, function)

    def whole(self, program: Ready, limit: int | None) -> int:
        """Run a program to the end of all; raises ExecutionError where it still holds something then."""
        value = self.execute(program, limit)
        held.check(self.world)
        return value

    def execution(self, program: Ready, limit: int | None) -> Execution:
        """Return the start of a program's run on what was made."""
        made, self.options = self.made, program.options
        self.current, self.limit = program, limit if self.current is None else self.limit
        type_ = None if isinstance(made, Region) else made.type
        if program.type is not type_:
            raise ExecutionError(
                f"program {program.program.name or '<unnamed>'} is one of {_kind(program.type)}, and was "
                f"to go on where one of {_kind(type_)} was: it would find another context than it expects"
            )
        self._look_around(program)
        section = (program.program.section or "").removeprefix("?")
        self.world.has_result = section.startswith(("fexit", "fmod_ret"))
        stack, self.stack = self.stack or Stack(), None  # a tail call has a stack of its own
        self.world.maps = {**self.world.maps, **program.maps} if self.world.maps else program.maps
        packet: Region | None
        argument: Region | None
        if isinstance(made, Region):
            arguments = _memory_arguments(made)
            regions, packet, argument = [made], made, made
        else:
            arguments, regions, packet, argument = made.arguments, made.regions, made.packet, made.argument
        return Execution(
            arguments,
            [*regions, *program.regions(self.world.environment.cpu)],
            packet,
            argument,
            program.helpers,
            program.kfuncs,
            limit=limit,
            world=self.world,
            stack=stack,
            headers=made if isinstance(made, SkbContext) else None,
            mark=self.world.mark,
        )

    def _look_around(self, program: Ready) -> None:
        """Put what the environment says is behind pointers where the run finds it, or more of it."""
        world, types = self.world, program.program.kernel_types
        if not program.needs_task and not world.environment.has_memory:
            return
        load_package("ebpfjit.elf")
        from ebpfjit.elf.objects import check_layout, surroundings

        around = self.around[-1] if self.around else None
        if around is None or (program.needs_task and not around.current_task):
            known = around.types if around is not None else None
            around = surroundings(world.environment, known or types, needs_task=program.needs_task)
            self.around.append(around)
            world.foreign, world.current_task = around.memory, around.current_task
        check_layout(world.environment, around.types, types)

    def _tail_call(self, program: Program) -> int:
        """Run another program on the same context, with what is left of the budget, hardened as this one."""
        engine = self.world.engine
        limit = engine.budget_left() if engine is not None else None
        return self.execute(ready_with(program, self.brought).like(self.options), limit)


def _call_back(
    start: Ready,
    engine: EngineFunction,
    environment: Environment,
    limit: int | None,
    function: int,
    map_address: int,
    key: bytes,
    value_address: int,
) -> None:
    """Call a function of a program by itself, with a map, a key and a value: what a timer does.

    What it puts into ring buffers stays there; its lines are nobody's.
    """
    size = 0 if start.type is None else 64 if start.type.has_packet else start.type.context_size
    made = _make(start, bytes(size), None)  # machine code was promised one; the function does not see it
    this = _Run(engine, environment, made)
    try:
        execution = this.execution(start, limit)
        region = Region.of_buffer("map key", bytes(key))
        execution.regions.append(region)
        execution.function = function, (map_address, region.start, value_address)
        engine(start, execution)
        held.check(this.world, "where the callback ends")
    finally:
        this.end()
        _let_go(made)


def run(
    program: Program,
    data: Any = b"",
    *,
    engine: str = "jit",
    limit: int | None = None,
    context: Mapping[str, Any] | None = None,
    environment: Environment | None = None,
    helpers: Mapping[int | str, HelperFunction] | None = None,
    kfuncs: Given | None = None,
) -> Result:
    """Verify a program and run it once on a copy of `data`.

    `engine` is "jit", "interpreter" or "kernel"; `limit` counts instructions. A program with a type
    gets its context, as BPF_PROG_TEST_RUN makes it: `data` is an Ethernet frame for packet programs
    and the context's bytes for the others; `context` sets fields of xdp_md or __sk_buff. One
    without a type gets the data's address in r1, its length in r2. `environment` is what helpers
    see of the world; `helpers` are functions of five u64 that stand for helpers, by number or by name,
    `kfuncs` those that stand for kernel functions, by name or BTF id (`ebpfjit.runtime.kfuncs.given`): in
    this program and in those that it jumps to. Raises VerifierError, ExecutionError (also for a packet or
    a field that the type does not take), LoadError (a kernel function that nobody has), MapError (a
    prog_array of programs of another type), or JitUnavailable and KernelUnavailable where the engine is not
    to be had.
    """
    if context is not None and not isinstance(context, Mapping):
        raise TypeError(f"context is a mapping of field names to numbers, not {type(context).__name__}")
    chosen = environment or environment_of(program)
    given = numbered(helpers)
    if engine == "kernel":
        if kfuncs:
            raise ExecutionError("the kernel has its own kfuncs; kfuncs= is for the other engines")
        if given:
            raise ExecutionError("the kernel has its own helpers; helpers= is for the other engines")
        return _run_on_kernel(program, data, context, chosen)
    if engine not in ENGINES:
        raise ValueError(f"no engine {engine!r}; there are: {', '.join([*ENGINES, 'kernel'])}")
    counts = engine == "interpreter"
    brought = Brought(given, kfuncs or {})
    return run_on(ENGINES[engine], program, data, limit, context, chosen, counts=counts, brought=brought)


def run_on(
    engine: EngineFunction,
    program: Program,
    data: Any,
    limit: int | None,
    context: Mapping[str, Any] | None,
    environment: Environment,
    *,
    counts: bool = False,
    brought: Brought = NOTHING_BROUGHT,
) -> Result:
    """Run a program as `run` does, on an engine that is a function; it `counts` instructions, or not."""
    first = ready_with(program, brought)
    timers.fire_due(first.maps.values(), environment.clock)
    made = _make(first, data, context)
    this = _Run(engine, environment, made, brought=brought)
    try:
        value = this.whole(first, limit)
        _take_events(this.world)
        outcome = Outcome(bytes(made.view)) if isinstance(made, Region) else made.outcome()
    finally:
        this.end()
        _let_go(made)
    return _result(first.type, value, outcome, this.world, this.instructions if counts else None)


def _take_events(world: World) -> None:
    """Empty the buffers whose events the result hands over, so that they are not full one day."""
    if world.events or world.kept:  # a record that was discarded takes room as well
        for map_ in world.maps.values():
            if isinstance(map_, RingBuffer | PerfEventArray):
                map_.consume()


def _make(program: Ready, data: Any, fields: Mapping[str, Any] | None) -> Context | Region:
    """Return what r1 is to point to: the context of the program's type, or a copy of `data`."""
    if program.type is not None:
        return take(program.type, flat_view(data), fields)
    if fields:
        name = program.program.name or "<unnamed>"
        raise ExecutionError(f"program {name} has no type, so no context either; give it one (type='xdp')")
    return Region.of_buffer("mem", bytearray(flat_view(data)))


def _let_go(made: Context | Region) -> None:
    if not isinstance(made, Region):
        give_back(made)


def _result(
    type_: ProgramType | None, value: int, outcome: Outcome, world: World, instructions: int | None
) -> Result:
    if type_ is not None:
        value &= U32_MASK
    return Result(
        value,
        outcome.data,
        outcome.fields,
        (*world.output, *bytes(world.kept.get(SEQUENCE, b"")).decode("utf-8", "replace").splitlines()),
        tuple(world.events),
        instructions,
        type_.action(value) if type_ is not None else None,
        outcome.metadata,
        outcome.redirect,
        outcome.clones,
        type_ is not None and type_.lets_pass(value),
        world.kept.get(RETVAL),
    )


def _run_on_kernel(
    program: Program, data: Any, fields: Mapping[str, Any] | None, environment: Environment
) -> Result:
    from ebpfjit import kernel

    program.refuse()
    if program.type is None:
        if program.maps:
            name = program.name or "<unnamed>"
            raise LoadError(f"program {name} has maps but no type, and Linux loads none such; give it one")
        raw = kernel.run_program(program, bytes(flat_view(data)))
        return Result(raw.return_value, raw.data)
    license = "GPL" if environment.gpl_only is False else None
    after = kernel.run_frame(program, bytes(flat_view(data)), fields, license=license, cpu=environment.cpu)
    outcome = Outcome(after.data, after.metadata, after.fields)
    world = World(environment, events=list(after.events))
    return _result(program_type(program.type), after.return_value, outcome, world, None)


# -- compiled functions -----------------------------------------------------------------------------


@dataclass(slots=True, kw_only=True)
class TypedContents(FunctionContents):
    """What is inside of a `TypedFunction`; `own` are the helpers that were given."""

    ready: Ready
    own: Mapping[int, HelperFunction]

    @property
    def given(self) -> Mapping[int, HelperFunction]:
        """The helpers that whoever compiled it gave."""
        return self.own


class TypedFunction(JitFunction):
    """A compiled program with a context, or with maps: fn(data) -> r0 (32 bits with a type).

    `data` is copied, as `Program.run` does; what the program makes of its packet is dropped.
    """

    __slots__ = ()

    def __init__(
        self,
        start: Ready,
        compiled: Compiled,
        limit: int | None,
        given: Mapping[int, HelperFunction],
        stops: Stops | None = None,
        kfuncs: Given = MappingProxyType({}),
    ) -> None:
        stops = stops or Stops()
        contents = TypedContents(
            compiled,
            start.helpers,
            limit,
            stops,
            compiled.recipe.optimize,
            given_kfuncs=kfuncs,
            ready=start,
            own=given,
        )
        seal(self, contents)

    def __call__(self, mem: Any = b"") -> int:
        """Run the program and return r0. Raises as `Program.run`."""
        it: TypedContents = inside(self)
        start = it.ready
        made = _make(start, mem, None)
        this = _Run(_on_machine_code, environment_of(start.program), made, mark=it.stops.mark())
        try:
            value = this.whole(start, it.limit)
        finally:
            this.end()
            _let_go(made)
        return value if start.type is None else value & U32_MASK


def _typed_function(
    start: Ready,
    limit: int | None,
    given: Mapping[int, HelperFunction],
    *,
    tiers_up: bool,
    kfuncs: Given = MappingProxyType({}),
) -> JitFunction:
    """Return a program as a compiled function, called through the native gate where its context allows.

    Where it `tiers_up`, it is baseline code at first and is replaced by optimised code one day.
    """
    load_package("ebpfjit.jit")
    from ebpfjit.jit.callables import native_type, open_gate
    from ebpfjit.jit.gate import Gate, why_not
    from ebpfjit.jit.tiers import heat_of

    environment = environment_of(start.program)
    compiled = start.machine_code(environment)
    plain = TypedFunction(start, compiled, limit, given, kfuncs=kfuncs)
    if why_not() or not _fits_a_lane(start, release_gil=compiled.unlocked):
        return plain
    assert start.type is not None  # it fits a lane
    lane = _lane_of(start.type.name)

    def begin(size: int, stack: Stack) -> Execution:
        lane.context.adopt(size)
        return _Run(_on_machine_code, environment, lane.context, stack).execution(start, limit)

    regions = [*lane.other_regions, *(region for map_ in start.maps.values() for region in map_.regions)]
    gate = Gate(
        compiled,
        "context",
        ("packet",),
        limit=limit,
        allowed=SharedRegions(regions),
        lane=lane,
        begin=begin,
        better=partial(start.optimised, environment) if tiers_up else None,
        heat=heat_of(start.program),
        stops=inside(plain).stops,
    )
    if not gate.fits:
        if not tiers_up:
            return plain
        return TypedFunction(start, start.optimised(environment), limit, given, kfuncs=kfuncs)
    stops = inside(plain).stops
    function: JitFunction = native_type(TypedFunction)(start, compiled, limit, given, stops, kfuncs)
    inside(function).irregular = plain
    open_gate(function, gate, plain.__call__)
    if tiers_up:
        inside(function).optimize = None
    return function


def _fits_a_lane(start: Ready, *, release_gil: bool) -> bool:
    """True for programs on packets, and on maps whose memory stays."""
    if start.type is None or not (start.type.has_packet and start.type.has_lane) or release_gil:
        return False
    if start.verified.kernel_loads:
        return False  # their memory is the run's, which Python has to prepare
    return all(map_.is_steady for map_ in start.maps.values())


@once
def _lane_of(name: str) -> Lane:
    """Return the lane that all functions of a program type share: memory below 4 GiB is scarce."""
    load_package("ebpfjit.jit")
    from ebpfjit.jit.gate import Lane

    context = packet_context(program_type(name))
    context.clear()
    return Lane(context)


def compile(
    program: Program,
    *,
    helpers: Mapping[int, HelperFunction] | None = None,
    kfuncs: Given | None = None,
    limit: int | None = None,
    checked: bool = True,
    harden: bool = False,
    cache: str | os.PathLike[str] | None = None,
    release_gil: bool = False,
    optimize: bool | None = None,
    audit: bool = False,
) -> JitFunction:
    """Verify a program and compile it into a function of one buffer.

    `helpers` maps numbers to functions; a program with a type or with maps finds Linux's helpers
    besides. `kfuncs` maps names of kernel functions (or BTF ids) to functions that take their place.
    `limit` is the instruction limit of each call (positive; None: no limit). `checked=False` leaves out all
    memory checks: a wrong program can then crash
    the process. `harden=True` keeps immediates of the program's choosing out of the machine code
    (two more instructions for each) and puts guard pages around it. `cache` is a folder where
    machine code is kept for the next process: nobody else must be able to write there, as it is
    run. Hardened programs and programs with maps or references are not kept. `release_gil=True` lets
    Python's other threads run meanwhile: for programs that take a microsecond or more; helpers in
    Python take the lock back. `optimize=False` translates the program as it stands: it is there in a third
    of the time, and takes longer to run. `optimize=True` looks for all there is to save. Without either
    it starts as the first, and goes on as the second once its calls have taken about as long as that
    takes; one call that runs for long is best told True. `audit=True` is for who works on the compiler:
    machine code looks again at what analysis found, and ends with an AuditFailure where that does not
    hold. Raises VerifierError,
    JitUnavailable where there is no machine code here, or LoadError for a cache folder that others
    may write to.
    """
    load_package("ebpfjit.jit")
    from ebpfjit.jit.cache import Folder

    folder = None if cache is None else Folder(cache)
    return _compiled(
        program,
        folder,
        helpers or {},
        limit,
        checked=checked,
        harden=harden,
        release_gil=release_gil,
        optimize=optimize,
        audit=audit,
        kfuncs=kfuncs or {},
    )


def load_function(
    path: str | os.PathLike[str],
    helpers: Mapping[int, HelperFunction],
    limit: int | None,
    *,
    release_gil: bool = False,
) -> JitFunction:
    """Return the function that `JitFunction.save` wrote. Raises as `JitFunction.load`."""
    load_package("ebpfjit.jit")
    from ebpfjit.jit.cache import File

    file = File(path)
    options = {name: file.stored.key[name] for name in ("checked", "optimize")}
    return _compiled(file.stored.verified(), file, helpers, limit, release_gil=release_gil, **options)


def _compiled(
    program: Program | Verified,
    cache: Cache | None,
    helpers: Mapping[int, HelperFunction],
    limit: int | None,
    *,
    checked: bool = True,
    harden: bool = False,
    release_gil: bool = False,
    optimize: bool | None = None,
    audit: bool = False,
    kfuncs: Given = MappingProxyType({}),
) -> JitFunction:
    """Compile a program; one that is verified comes from a file, and was when it was saved."""
    verified = program if isinstance(program, Verified) else None
    program = program.program if isinstance(program, Verified) else program
    load_package("ebpfjit.jit")
    from ebpfjit.jit.entry import compile_program
    from ebpfjit.jit.tiers import starts_baseline

    program.refuse()
    start = None if _is_plain(program) else ready(program)
    counted = start is None or _fits_a_lane(start, release_gil=release_gil)
    baseline = starts_baseline(optimize, counted=counted and not harden and cache is None)
    tiers_up = baseline and optimize is None
    options: dict[str, Any] = {
        "checked": checked,
        "harden": harden,
        "cache": cache,
        "release_gil": release_gil,
        "optimize": not baseline,
        "audit": audit,
    }
    if start is not None:
        start = replace(
            start,
            helpers={**start.helpers, **helpers},
            kfuncs={**start.kfuncs, **given_functions(program, kfuncs)},
            options=options,
            compiled={},
            variants={},
            complete=False,
            lasting=program.environment is not None,
        )
        start.refuse_missing()
        start.check_license(environment_of(program))
        return _typed_function(start, limit, helpers, tiers_up=tiers_up, kfuncs=kfuncs)
    called = {**functions_of(program), **given_functions(program, kfuncs)}
    program.refuse_unmet(called)
    facts = verified or prepare(program)
    options |= {
        "helpers": dict(helpers),
        "kfuncs": called,
        "moving": frozenset(number for number, function in helpers.items() if may_end_rights(function)),
        "argument_is_packet": True,
        "verify": verifier.check,
    }
    options["calling"] = frozenset()  # there is no world, whose engine they could ask
    better = (
        partial(compile_program, facts, **{**options, "optimize": True}, takes_over=True)
        if tiers_up
        else None
    )
    return make_function(compile_program(facts, **options), dict(helpers), limit, better, kfuncs)
