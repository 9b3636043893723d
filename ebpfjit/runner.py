"""A program run once on an engine, with a Result: what `Program.run` does.

Program -> ready() -> Ready (verified, machine code, helpers: made once)
Ready + data, context, environment -> World and Execution -> engine -> Result
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from types import ModuleType
from typing import TYPE_CHECKING, Any, cast

from ebpfjit.arguments import (
    Helpers,
    Kfuncs,
    check_context,
    check_engine,
    check_environment,
    check_limit,
    check_repeat,
    checked_kfuncs,
    kernel_refusal,
    numbered,
)
from ebpfjit.engines import best_engine
from ebpfjit.errors import BudgetExhausted, ExecutionError, InputError, LoadError
from ebpfjit.named import brief
from ebpfjit.once import import_alone, load_package, once
from ebpfjit.options import DEFAULTS
from ebpfjit.program import Program
from ebpfjit.ready import NOTHING_BROUGHT, Brought, Ready, environment_of, ready_with
from ebpfjit.record import dataclass, field, replace
from ebpfjit.runtime import faults, held, timers
from ebpfjit.runtime.contexts.outcome import Outcome, Redirect
from ebpfjit.runtime.environment import Environment
from ebpfjit.runtime.execution import Execution, Mark
from ebpfjit.runtime.memory import Region, Stack, flat_view, running
from ebpfjit.runtime.timers import Callback
from ebpfjit.runtime.world import RETVAL, SEQUENCE, SIGNALS, World, empty_buffers

if TYPE_CHECKING:
    from ebpfjit.analysis.verified import Verified
    from ebpfjit.elf.objects import Surroundings
    from ebpfjit.jit.tails import Tails
    from ebpfjit.literals import ActionName, AnyBuffer, EngineName
    from ebpfjit.runtime.contexts import Context, ProgramType

U32_MASK = 0xFFFFFFFF


@dataclass(frozen=True)
class Result:
    """What a run left behind.

    `return_value` is r0: a u64 for a program without a type, 32 bits for the others, as in Linux.
    `action` is its name where the type has names ("XDP_DROP", "TC_ACT_OK"), else None. `data` is the
    packet after the run (data to data_end; its Ethernet header before it where the program did not
    see that), `metadata` what stands before an XDP packet. `context` holds the fields after the
    run: numbers, tuples of them, bytes; of a program's own struct what its BTF types read as. `redirect` says
    where the packet was sent, `clones` what bpf_clone_redirect sent: (ifindex, packet). `output` are the
    lines of bpf_trace_printk, `events` what went to perf and ring buffers: (map name, bytes); the buffers
    are empty again. `instructions` is how many eBPF instructions were executed (interpreter only). `passes`
    is true where the packet would go on.
    `retval` is what bpf_set_retval set, or None. `output` ends with the lines of bpf_seq_printf.
    `signals` are those that bpf_send_signal sent, by number.
    """

    return_value: int
    data: bytes
    context: Mapping[str, Any] = field(default_factory=dict)
    output: tuple[str, ...] = ()
    events: tuple[tuple[str, bytes], ...] = ()
    instructions: int | None = None
    action: ActionName | None = None
    metadata: bytes = b""
    redirect: Redirect | None = None
    clones: tuple[tuple[int, bytes], ...] = ()
    passes: bool = False
    retval: int | None = None
    signals: tuple[int, ...] = ()

    def __repr__(self) -> str:
        return brief(self)


EngineFunction = Callable[[Ready, Execution], int]


def _on_interpreter(ready: Ready, execution: Execution) -> int:
    return _interpret()(ready.verified, execution)


@once
def _interpret() -> Callable[[Verified, Execution], int]:
    """Return the interpreter, which is imported where it is asked for."""
    from ebpfjit.interpreter import interpret

    return interpret


@once
def _contexts() -> ModuleType:
    """Return what makes contexts: programs without a type need none."""
    return import_alone("ebpfjit.runtime.contexts.taking")


def on_machine_code(ready: Ready, execution: Execution) -> int:
    """Run a program in machine code, which is made here where it is not there yet."""
    assert execution.world is not None  # every run of ours has one
    return ready.machine_code(execution.world.environment).run(execution)


ENGINES: dict[str, EngineFunction] = {"jit": on_machine_code, "interpreter": _on_interpreter}


def _memory_arguments(memory: Region) -> tuple[int, int]:
    """Return r1 and r2 for plain memory: its address, 0 where it is empty, and its length."""
    return (memory.start if memory.size else 0), memory.size


def _kind(type_: ProgramType | None) -> str:
    return "no type" if type_ is None else f"type {type_.name!r}"


class Run:
    """One run: a world, and the programs that run in it, which are more than one with tail calls."""

    def __init__(
        self,
        engine: EngineFunction,
        environment: Environment,
        made: Context | Region,
        stack: Stack | None = None,
        mark: Mark | None = None,
        brought: Brought = NOTHING_BROUGHT,
        tails: Tails | None = None,
    ) -> None:
        self.engine = engine
        self.tails = tails
        self.brought = brought
        self.made = made
        self.stack = stack or (None if isinstance(made, Region) else made.stack)
        self.instructions = 0
        self.limit: int | None = None
        self.origin = object()  # stands for the run that began, also in those that its timers start
        self.options = DEFAULTS
        self.world = World(environment, context=None if isinstance(made, Region) else made, mark=mark)
        self.world.run_program = self._tail_call
        self.world.later = self._later
        self.current: Ready | None = None
        self.around: list[Surroundings] = []  # all that it had: machine code may be reading the first

    def end(self) -> None:
        """Let go of what the run leaves: it is freed with its result, not when cycles are looked for."""
        self.world.end()

    def execute(self, program: Ready, limit: int | None) -> int:
        """Run a program and return r0. Raises HelperNotFound where it surely calls what is not there."""
        program.refuse_missing()
        program.check_license(self.world.environment)
        outer, shown = self.current, self.world.shown
        self.world.shown = {}  # what the one before was shown is not in this one's memory
        execution = self.execution(program, limit)
        try:
            value = self.engine(program, execution)
        finally:
            self.world.shown = shown
            self.instructions += execution.instructions
        if outer is not None:  # a function of its has made the tail call, and it goes on
            self._goes_on(outer)
            space, around = running(), self.world.engine
            assert space is not None  # both are those of the program that goes on
            assert around is not None
            space.changed()  # its machine code was told while the rights were those of the other one
            if limit is not None and execution.budget_left is not None:
                around.spend(max(limit, 0) - max(execution.budget_left, 0))
        return value

    def _goes_on(self, program: Ready) -> None:
        """Let a program be the one that runs: its hook decides what it may do to the context."""
        self.current, self.options = program, program.options
        argument = None if isinstance(self.made, Region) else self.made.argument
        if argument is not None and program.type is not None:
            argument.rights = program.type.rights
        self.world.object_types, self.world.map_structs = program.object_types, program.map_structs
        section = (program.program.section or "").removeprefix("?")
        self.world.has_result = section.startswith(("fexit", "fmod_ret"))

    def _later(self, function: int) -> Callback:
        """Return what calls a function of the program that runs now, once it is over."""
        assert self.current is not None  # a helper asks
        again = partial(Run, self.engine, self.world.environment, brought=self.brought)
        return partial(_call_back, self.current, again, self.limit, self.origin, function)

    def whole(self, program: Ready, limit: int | None) -> int:
        """Run a program to the end of all; raises ExecutionError where it still holds something then."""
        value = self.execute(program, limit)
        held.check(self.world)
        return value

    def execution(self, program: Ready, limit: int | None) -> Execution:
        """Return the start of a program's run on what was made."""
        made = self.made
        self.limit = limit if self.current is None else self.limit
        type_ = None if isinstance(made, Region) else made.type
        if (program.type and program.type.name) != (type_ and type_.name):
            raise ExecutionError(
                f"program {program.program.name or '<unnamed>'} is one of {_kind(program.type)}, and was "
                f"to go on where one of {_kind(type_)} was: it would find another context than it expects"
            )
        self._goes_on(program)
        self._look_around(program)
        stack, self.stack = self.stack or Stack(), None  # a tail call has a stack of its own
        self.world.maps = {**self.world.maps, **program.maps} if self.world.maps else program.maps
        packet: Region | None
        argument: Region | None
        if isinstance(made, Region):
            arguments = _memory_arguments(made)
            regions, packet, argument = [made], made, made
        else:
            arguments, regions, packet, argument = made.arguments, made.regions, made.packet, made.argument
        lent: list[Region] = []
        if program.has_kptrs:
            import_alone("ebpfjit.runtime.owned")
            from ebpfjit.runtime import owned

            lent = owned.lend_from(self.world, program.holders())
        return Execution(
            arguments,
            [*regions, *program.regions(self.world.environment.cpu), *lent],
            packet,
            argument,
            program.helpers,
            program.kfuncs,
            limit=limit,
            world=self.world,
            stack=stack,
            headers=None if isinstance(made, Region) else made.headers,
            mark=self.world.mark,
        )

    def _look_around(self, program: Ready) -> None:
        """Put what the environment says is behind pointers where the run finds it, or more of it."""
        world, types = self.world, program.program.kernel_types
        of_run = () if isinstance(self.made, Region) else self.made.objects
        program.check_variables(world.environment)
        if not program.needs_task and not world.environment.has_memory and not of_run:
            return
        load_package("ebpfjit.elf")
        import_alone("ebpfjit.elf.objects")
        from ebpfjit.elf.objects import check_layout, surroundings

        around = self.around[-1] if self.around else None
        if around is None or (program.needs_task and not around.current_task):
            known = around.types if around is not None else None
            around = surroundings(
                world.environment,
                known or types,
                needs_task=program.needs_task,
                of_run=of_run,
                looks=bool(program.verified.kernel_loads),
            )
            self.around.append(around)
            world.foreign, world.current_task = around.memory, around.current_task
        check_layout(world.environment, around.types, types, of_run)

    def _tail_call(self, program: Program) -> int:
        """Run another program on the same context, with what is left of the budget, hardened as this one."""
        engine = self.world.engine
        limit = engine.budget_left() if engine is not None else None
        if self.tails is not None:
            self.tails.learn(program, is_first=self.world.tail_calls == 1)
        return self.execute(ready_with(program, self.brought).like(self.options), limit)


def _call_back(
    start: Ready,
    run_of: Callable[[Context | Region], Run],
    limit: int | None,
    origin: object,
    function: int,
    map_address: int,
    key: bytes,
    value_address: int,
    spent: timers.Spent,
) -> None:
    """Call a function of a program by itself, with a map, a key and a value: what a timer does.

    `run_of` makes a run of a context. What it puts into ring buffers stays there; its lines are nobody's.
    All that go back to one run, `origin`, may take as many instructions together as that might, each time
    that time passes.
    """
    left = None if limit is None else limit - spent.get(origin, 0)
    if left is not None and left <= 0:
        raise faults.budget_exhausted(None, limit)
    size = 0 if start.type is None else 64 if start.type.has_packet else start.type.context_size
    made = make_context(start, bytes(size), None)  # promised to machine code; the function does not see it
    this = run_of(made)
    try:
        execution = this.execution(start, left)
        this.limit, this.origin = limit, origin
        map_address = start.seen_address(map_address)
        region = Region.of_buffer("map key", bytes(key))
        execution.regions.append(region)
        execution.function = function, (map_address, region.start, value_address)
        try:
            this.engine(start, execution)
        except BudgetExhausted as error:
            if left != limit:
                error.args = (f"{error}; what timers call for one run shares its limit of {limit}",)
            raise
        finally:
            if left is not None and limit is not None:
                spent[origin] = limit - min(left, max(execution.budget_left or 0, 0))
        held.check(this.world, "where the callback ends")
    finally:
        this.end()
        let_go(made)


def run(
    program: Program,
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
    """Verify a program and run it once on a copy of `data`: what `Program.run` does, which says all."""
    check_context(context)
    check_environment(environment)
    check_limit(limit)
    check_engine(engine)
    check_repeat(repeat)
    given, brought_kfuncs = numbered(helpers), checked_kfuncs(kfuncs)
    chosen = environment or environment_of(program)
    if engine == "kernel":
        refusal = kernel_refusal(helpers=given, kfuncs=kfuncs, limit=limit, environment=environment)
        if refusal:
            raise InputError(refusal)
        return _repeated(repeat, lambda: _run_on_kernel(program, data, context, chosen))
    name = engine or best_engine()
    function, brought = ENGINES[name], Brought(given, brought_kfuncs)
    counts = name == "interpreter"

    def once() -> Result:
        return run_on(function, program, data, limit, context, chosen, counts=counts, brought=brought)

    return _repeated(repeat, once)


def _repeated(count: int, once: Callable[[], Result]) -> Result:
    """Run so often; return the last result, with what all have put out."""
    if count == 1:
        return once()
    output: list[str] = []
    events: list[tuple[str, bytes]] = []
    for _ in range(count):
        result = once()
        output += result.output
        events += result.events
    return replace(result, output=tuple(output), events=tuple(events))


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
    made = make_context(first, data, context)
    this = Run(engine, environment, made, brought=brought)
    try:
        value = this.whole(first, limit)
        empty_buffers(this.world)
        outcome = Outcome(bytes(made.view)) if isinstance(made, Region) else made.outcome()
    finally:
        this.end()
        let_go(made)
    return _result(first.type, value, outcome, this.world, this.instructions if counts else None)


def make_context(program: Ready, data: Any, fields: Mapping[str, Any] | None) -> Context | Region:
    """Return what r1 is to point to: the context of the program's type, or a copy of `data`."""
    if program.type is not None:
        view = flat_view(data)
        layout = program.context_layout if fields else None
        if layout is not None:
            return layout.context(program.type, view, fields or {})
        made: Context = _contexts().take(program.type, view, fields)
        return made
    if fields:
        raise no_context(program.program)
    return Region.of_buffer("mem", bytearray(flat_view(data)))


def no_context(program: Program) -> InputError:
    """Return the error of fields for a program that has nothing they could be of."""
    name = program.name or "<unnamed>"
    return InputError(f"program {name} has no type, so no context either; give it one (type='xdp')")


def let_go(made: Context | Region) -> None:
    """Give back the memory of what `make_context` made."""
    if not isinstance(made, Region):
        _contexts().give_back(made)


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
        cast("ActionName | None", type_.action(value) if type_ is not None else None),
        outcome.metadata,
        outcome.redirect,
        outcome.clones,
        type_ is not None and type_.lets_pass(value),
        world.kept.get(RETVAL),
        tuple(world.kept.get(SIGNALS, ())),
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
    return _result(_contexts().program_type(program.type), after.return_value, outcome, world, None)
