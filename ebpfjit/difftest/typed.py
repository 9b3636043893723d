"""Programs with a type or with maps, on the frames, maps and helpers of `Program.run`, on every engine.

    run_typed       one run, in this process: what the fuzzer does, on maps made anew
    compare_typed   each engine in a forked child, so that all start from the same maps, at the same
                    addresses, and leave them as they were; step by step as well

Of a run in the kernel there are r0, packet, maps and events; of a call through the gate r0 and maps.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import field, replace
from functools import partial
from typing import TYPE_CHECKING, Any

from ebpfjit.analysis.verified import Verified
from ebpfjit.bits import W64
from ebpfjit.difftest import guards, operation_maps, proven
from ebpfjit.difftest.case import UNTYPED, Case, Input, baseline_of, options_of
from ebpfjit.difftest.children import Ended, run_forked
from ebpfjit.difftest.engines import CALLED, other_stacks
from ebpfjit.difftest.known import KnownFacts
from ebpfjit.difftest.low_memory import PLACES, contexts_at
from ebpfjit.difftest.operation_maps import REFERRING
from ebpfjit.difftest.optimized import stages
from ebpfjit.difftest.outcome import AUDIT_FAILURE, WRONG_CODE, Outcome, attributes_of
from ebpfjit.difftest.packets import (
    ARRAY_ENTRIES,
    HASH_ENTRIES,
    KEY_SIZE,
    PROGRAM_ENTRIES,
    PROGRAMS,
    TAIL,
    VALUE_SIZE,
)
from ebpfjit.difftest.trace import (
    MOST_STEPS,
    Part,
    Parting,
    Step,
    Trace,
    part_of,
    parting_of_parts,
)
from ebpfjit.difftest.verdicts import maps as verdict_maps
from ebpfjit.errors import EbpfError, ExecutionError, InputError, LoadError, MapError, VerifierError
from ebpfjit.interpreter import interpret
from ebpfjit.listing.machine import render_pc
from ebpfjit.literals import named_type
from ebpfjit.options import Options
from ebpfjit.program import Instruction, Program
from ebpfjit.ready import Ready, environment_of, promises_of, ready
from ebpfjit.record import dataclass
from ebpfjit.runner import EngineFunction, run_on
from ebpfjit.runtime.contexts import prepared, program_type
from ebpfjit.runtime.contexts.outcome import Outcome as Left
from ebpfjit.runtime.environment import Clock, Environment
from ebpfjit.runtime.execution import Execution
from ebpfjit.runtime.maps.creation import create
from ebpfjit.runtime.maps.definition import MapDefinition, MapType
from ebpfjit.runtime.memory import STACK_SIZE, Stack
from ebpfjit.sealed import inside

if TYPE_CHECKING:
    from ebpfjit.jit.entry import Compiled

DEFINITIONS = (
    MapDefinition("array", MapType.ARRAY, KEY_SIZE, VALUE_SIZE, ARRAY_ENTRIES),
    MapDefinition("hash", MapType.HASH, KEY_SIZE, VALUE_SIZE, HASH_ENTRIES),
    MapDefinition("programs", MapType.PROG_ARRAY, KEY_SIZE, 4, PROGRAM_ENTRIES),
    MapDefinition("ring", MapType.RINGBUF, 0, 0, 4096),
    MapDefinition("perf", MapType.PERF_EVENT_ARRAY, 4, 4, 4),
)
"""The maps of `packets`."""

_WORDS = 3 * VALUE_SIZE
HOSTILE = (
    MapDefinition("array", MapType.ARRAY, KEY_SIZE, _WORDS, ARRAY_ENTRIES),
    MapDefinition("hash", MapType.HASH, 2 * KEY_SIZE, _WORDS, HASH_ENTRIES),
    *DEFINITIONS[PROGRAMS:],
    MapDefinition("lru", MapType.LRU_HASH, KEY_SIZE, 2 * VALUE_SIZE, 2),
    MapDefinition("long_keys", MapType.HASH, 5 * KEY_SIZE, VALUE_SIZE, 2),
    MapDefinition("per_cpu", MapType.PERCPU_ARRAY, KEY_SIZE, _WORDS, 2),
    MapDefinition("queue", MapType.QUEUE, 0, _WORDS, 2),
)
"""Maps whose values overlap with others at every distance; the first five stand for those of `packets`."""

MAPS: Mapping[str, tuple[MapDefinition, ...]] = {
    "": DEFINITIONS,
    "hostile": HOSTILE,
    "operations": operation_maps.DEFINITIONS,
    proven.MAPS: tuple(verdict_maps.DEFINITIONS.values()),
}
"""The maps that cases with a type may have, by the name that a case gives."""

STANDING = 1 << 40
"""The time in nanoseconds in programs whose runs are compared and that ask for it."""

SECONDS = 10.0
"""How long one run may take before it counts as one that hangs."""


def linked(case: Case) -> Program:
    """Return the program of a case with a type, on maps made anew, its tail in the array of programs.

    Raises LoadError where the array does not take both, VerifierError.
    """
    code, definitions = case.code, MAPS[case.maps]
    if definitions is operation_maps.DEFINITIONS:  # many: only those that it refers to, as the loader does
        code, definitions = operation_maps.referred(code)
    elif case.maps == proven.MAPS:
        code, definitions = operation_maps.referred(code, definitions)
    maps = tuple(create(definition) for definition in definitions)
    if case.maps == "operations":
        for map_ in maps:
            operation_maps.fill(map_)
    main = _linked("main", code, case.type, maps)
    if case.tail:
        tail = _linked("tail", case.tail, case.tail_type or case.type, maps)
        try:
            maps[PROGRAMS][TAIL] = tail  # type: ignore[index] # programs
            ready(main)
        except MapError as error:
            raise LoadError(str(error)) from error
    if case.relies:  # such programs give back whatever they got from helpers
        main = in_a_steady_world(main)
        proven.rely(main)
    return main


def in_a_steady_world(program: Program) -> Program:
    """Return a program with time, process and random numbers that are the same in all runs from here on."""
    if program.environment is not None:
        return program
    numbers = random.Random(1)  # each engine draws the same: it runs in a child, or has its own
    world = Environment(
        clock=Clock(STANDING), task=Environment().current_task, random=lambda: numbers.getrandbits(32)
    )
    return replace(program, environment=world)


def _linked(name: str, code: bytes, type_: str, maps: tuple[object, ...]) -> Program:
    """Return a program whose references to maps are resolved."""
    references = {
        insn.pc: _referred(insn, maps[insn.imm])
        for insn in Program.from_bytes(code).instructions
        if insn.row is not None and insn.row.operation in REFERRING and 0 <= insn.imm < len(maps)
    }
    known = None if type_ == UNTYPED else named_type(type_)
    return Program(code, name=name, type=known, references=references, maps=maps)


def _referred(insn: Instruction, map_: Any) -> int:
    """Return what a wide load of a map, or of a place in the only value of one, gives."""
    assert insn.row is not None  # it is such a load
    if insn.row.operation == "LDDW_MAP_IDX" or not map_.regions:
        address: int = map_.address
        return address
    return W64.wrap(map_.value_address + (insn.next_imm or 0))


# -- one run ----------------------------------------------------------------------------------------


@dataclass
class _Watched:
    """An engine function that remembers what ran, so that a run that faults can be looked at too."""

    function: EngineFunction
    executions: list[Execution] = field(default_factory=list)

    def __call__(self, ready: Ready, execution: Execution) -> int:
        self.executions.append(execution)
        return self.function(ready, execution)


@dataclass(slots=True)
class Seen:
    """What the runs of a case went through, for coverage: programs with their pcs, and machine code."""

    steps: list[tuple[Verified, list[int]]] = field(default_factory=list)
    compiled: list[Compiled] = field(default_factory=list)


def _on_interpreter(ready: Ready, execution: Execution) -> int:
    """The interpreter."""
    return interpret(ready.verified, execution)


def _on_optimized(ready: Ready, execution: Execution) -> int:
    """The interpreter, running what the optimizer makes of the program, where it takes it."""
    verified = ready.verified
    if not verified.knows_all:
        return interpret(verified, execution)
    stage = stages(verified, verified.tested, promises_of(ready))[-1]
    judge = None if stage.facts is None else KnownFacts(stage.facts)
    return interpret(verified, execution, machine=partial(stage.machine, judge=judge))


def _watched(seen: Seen) -> EngineFunction:
    """The interpreter, every step noted."""

    def function(ready: Ready, execution: Execution) -> int:
        pcs: list[int] = []
        seen.steps.append((ready.verified, pcs))
        return interpret(ready.verified, execution, lambda pc, registers: pcs.append(pc))

    return function


def machine_code(start: Ready, build: str, trace: int = 0) -> Compiled:
    """Return machine code of a program with a type, as a build says."""
    return start.compiled_anew(environment_of(start.program), options_of(build, trace))


def _on_jit(build: str, seen: Seen) -> EngineFunction:
    """Machine code, what was compiled noted."""

    def function(ready: Ready, execution: Execution) -> int:
        compiled = machine_code(ready, build)
        seen.compiled.append(compiled)
        return compiled.run(execution)

    return function


def data_of(type_: str | None, given: Input) -> bytes:
    """Return what a run of a program type gets of an input: of a struct as much as it has."""
    return given.memory[: None if type_ is None else program_type(type_).data_size]


def run_typed(program: Program, given: Input, function: EngineFunction) -> Outcome:
    """Run a program once on an engine that is a function. Raises VerifierError."""
    watched = _Watched(function)
    value: int | None = None
    kind, message = "ok", ""
    attributes: tuple[tuple[str, Any], ...] = ()
    try:
        environment = environment_of(program)
        value = run_on(
            watched, program, data_of(program.type, given), given.limit, None, environment
        ).return_value
    except (ExecutionError, InputError) as error:
        kind, message = type(error).__name__, str(error)
        attributes = attributes_of(error)
    outcome = Outcome(kind, value, message, attributes, maps=contents(program))
    if not watched.executions:
        return outcome  # refused before it ran
    first, last = watched.executions[0], watched.executions[-1]
    world = first.world
    assert world is not None  # programs with a type have one
    left = _left(first)
    context = (
        *sorted(left.fields.items()),
        ("metadata", left.metadata),
        ("redirect", left.redirect),
        ("clones", left.clones),
        ("output", tuple(world.output)),
    )
    return replace(
        outcome,
        memory=left.data,
        budget_left=last.budget_left,
        context=context,
        events=tuple(world.events),
        outside=guards.outside(world.context, program.maps),
    )


def _left(execution: Execution) -> Left:
    """Return what a run left of its context, or of plain memory."""
    assert execution.world is not None  # programs with a type or maps have one
    if execution.world.context is not None:
        left: Left = execution.world.context.outcome()
        return left
    return Left(bytes(execution.packet.view) if execution.packet is not None else b"")


def _on_kernel(program: Program, given: Input) -> Outcome | None:
    """Run in the kernel; None where it refuses the program or the packet."""
    try:
        result = program.run(data_of(program.type, given), engine="kernel")
    except (VerifierError, ExecutionError, InputError):
        return None
    return Outcome(
        "ok", result.return_value, memory=result.data, maps=contents(program), events=result.events
    )


def _through_the_gate(program: Program, given: Input, build: str, *, tiered: bool) -> Outcome:
    """Call the program as a function: of its packet nothing is given back.

    Where it is `tiered` it starts in baseline code, and goes on in other code as soon as it can.
    """
    options = options_of(baseline_of(build) if tiered else build)
    optimize = None if tiered else options.optimize
    for called in programs_of(program).values() if options.audit else ():
        with suppress(EbpfError):  # it may be one that no engine takes
            ready(called).options = Options(audit=True)
    function = program.compile(**{**options.chosen, "optimize": optimize}, limit=given.limit)
    if optimize is None and inside(function).gate is not None:
        inside(function).gate.shorten(1 + len(given.memory) % 50)
    try:
        value = function(data_of(program.type, given))
    except (ExecutionError, InputError) as error:
        left = attributes_of(error)
        return Outcome(type(error).__name__, None, str(error), left, maps=contents(program))
    return Outcome("ok", value, maps=contents(program))


def contents(program: Program) -> tuple[tuple[str, Any], ...]:
    """Return names and contents of a program's maps, sorted: the order of a hash is nobody's."""
    return tuple((map_.name, _content(map_)) for map_ in program.maps)


def _content(map_: Any) -> Any:
    """Return what a map holds."""
    if hasattr(map_, "items"):
        return tuple(sorted((key, _plain(value)) for key, value in map_.items() if value is not None))
    if map_.definition.type in (MapType.QUEUE, MapType.STACK):
        return tuple(map_)
    return ()


def _plain(value: Any) -> Any:
    """Return a value that can be compared: of a program its name, of a map what is in it."""
    if isinstance(value, Program):
        return value.name
    if isinstance(value, list):  # one for each processor
        return tuple(value)
    return value if isinstance(value, bytes | int | str) else _content(value)


def runner(case: Case, engine: str, seen: Seen | None = None) -> Callable[[Input], Outcome | None]:
    """Return what runs a case with a type on an engine, by the engine's name: quickly, in this process.

    Maps are made anew for each run, so addresses differ from run to run: of a fault all but that
    is told. What it goes through is added to `seen`.
    """
    seen = seen or Seen()
    if engine == "kernel":
        return lambda given: _on_kernel(linked(case), given)
    if engine in CALLED:
        is_tiered = engine != "gate"
        return lambda given: _shortened(_through_the_gate(linked(case), given, case.build, tiered=is_tiered))
    interpreted = {"interpreter": _watched(seen), "optimized": _on_optimized}
    function = interpreted.get(engine) or _on_jit(case.build, seen)
    return lambda given: _shortened(run_typed(linked(case), given, function))


def _shortened(outcome: Outcome) -> Outcome:
    """Return an outcome without addresses; where it is wrong by itself, nothing is to equal it."""
    if outcome.kind in (AUDIT_FAILURE, WRONG_CODE):
        return outcome
    kept = tuple(one for one in outcome.attributes if one[0] in ("pc", "access", "size"))
    return replace(outcome, message=_NUMBER.sub("an address", outcome.message), attributes=kept)


_NUMBER = re.compile("0x[0-9a-f]+")


BLOCKERS = (1, 8, 24, 200)
"""How many buffers as large as what a run gets take the places where it would get them again."""


def depends_on_addresses(case: Case, given: Input) -> bool:
    """True where a run ends otherwise with its packet, context, stack and maps at other addresses."""
    run = runner(case, "interpreter")
    program = linked(case)
    if not program.maps:
        return False  # only its packet moves, and that can be put at the same place
    here = run(given)
    sizes = (len(data_of(program.type, given)), STACK_SIZE)
    for count in BLOCKERS:
        taken = [bytearray(size) for size in sizes for _ in range(count)]
        if run(given) != here:
            return True
        del taken
    for place in PLACES:
        with contexts_at(place) as moved:
            if moved and run(given) != here:
                return True
    return False


# -- engine by engine, step by step -----------------------------------------------------------------


def programs_of(program: Program) -> dict[str, Program]:
    """Return a program and all that it may tail call, by name."""
    found: dict[str, Program] = {}
    waiting = [program]
    while waiting:
        one = waiting.pop()
        if found.setdefault(one.name or "", one) is one:
            waiting += [called for called in _called(one) if (called.name or "") not in found]
    return found


def _called(program: Program) -> Iterator[Program]:
    """Yield the programs in a program's arrays."""
    for map_ in program.maps:
        if map_.definition.type == MapType.PROG_ARRAY:
            yield from (value for value in map_.values() if value is not None)


class Tracer:
    """Runs a program step by step on the interpreter and on instrumented machine code."""

    def __init__(self, program: Program, build: str) -> None:
        self.program = program
        self.ready = {name: ready(one) for name, one in programs_of(program).items()}
        self.trace = Trace()
        self._compiled = {
            name: machine_code(one, build, self.trace.address) for name, one in self.ready.items()
        }

    def interpreter(self, given: Input) -> tuple[Outcome, list[Part]]:
        """Run on the interpreter; return the outcome and its steps."""
        parts: list[tuple[str, int, list[Step]]] = []

        def function(ready: Ready, execution: Execution) -> int:
            steps: list[Step] = []
            parts.append((ready.program.name or "", execution.stack.top, steps))

            def watch(pc: int, registers: list[int]) -> None:
                if sum(len(part[2]) for part in parts) < MOST_STEPS:
                    steps.append(Step(pc, tuple(registers)))

            return interpret(ready.verified, execution, watch)

        outcome = run_typed(self.program, given, function)
        return outcome, [part_of(*part) for part in parts]

    def jit(self, given: Input) -> None:
        """Run machine code that writes its steps into the trace."""

        def function(ready: Ready, execution: Execution) -> int:
            name = ready.program.name or ""
            self.trace.start_part(name, execution.stack.top)
            return self._compiled[name].run(execution)

        run_typed(self.program, given, function)

    def parting(self, one: Sequence[Part], other: Sequence[Part]) -> Parting | None:
        """Return where two runs part."""
        verified = {name: each.verified for name, each in self.ready.items()}
        return parting_of_parts(verified, one, other)


@dataclass(frozen=True, slots=True)
class TypedComparison:
    """One input on every engine: outcomes by engine; where interpreter and machine code part."""

    outcomes: dict[str, Outcome | None]
    parting: Parting | None


def _in_children(program: Program, given: Input, build: str) -> dict[str, Callable[[], Outcome | None]]:
    """Return what runs a program once, by engine: to be forked first, so that all have the same addresses."""
    _keep_a_context(ready(program), given)
    return {
        "interpreter": lambda: run_typed(program, given, _on_interpreter),
        "optimized": lambda: run_typed(program, given, _on_optimized),
        "jit": lambda: run_typed(program, given, _on_jit(build, Seen())),
        "kernel": lambda: _on_kernel(program, given),
        "gate": lambda: _through_the_gate(program, given, build, tiered=False),
        "tiered": lambda: _through_the_gate(program, given, build, tiered=True),
    }


def at_the_same_addresses(case: Case, given: Input, engines: Iterable[str]) -> dict[str, Outcome | None]:
    """Return the outcomes of a case by engine, where maps, context and packet lie at the same addresses.

    Raises as `compare_typed`.
    """
    functions = _in_children(linked(case), given, case.build)
    outcomes = {name: _outcome(_forked(functions[name])) for name in engines}
    return {name: None if outcome is None else _shortened(outcome) for name, outcome in outcomes.items()}


def depends_on_stack(case: Case, given: Input) -> bool:
    """True where a run ends otherwise with its stack elsewhere, and nothing else: a call has the thread's."""
    program = linked(case)
    _keep_a_context(ready(program), given)

    def ending(stack: Stack) -> Outcome | None:
        def function(ready: Ready, execution: Execution) -> int:
            stack.reset()
            return interpret(ready.verified, replace(execution, stack=stack))

        left = _outcome(_forked(lambda: run_typed(program, given, function)))
        return None if left is None else _shortened(left)

    here, *others = map(ending, other_stacks())
    return any(other != here for other in others)


def compare_typed(
    program: Program, given: Input, engines: Iterable[str], build: str = "native"
) -> TypedComparison:
    """Run a program on each engine, in a child process each: a crash or a hang is an outcome too.

    Raises VerifierError, JitUnavailable, and what an engine raises that does not take the program.
    """
    functions = _in_children(program, given, build)
    names = list(engines)
    tracer: Tracer | None = None
    if "jit" in names:
        compiled = {name: machine_code(ready(one), build) for name, one in programs_of(program).items()}

        def on_jit(ready: Ready, execution: Execution) -> int:
            return compiled[ready.program.name or ""].run(execution)

        functions["jit"] = lambda: run_typed(program, given, on_jit)
        tracer = Tracer(program, build) if "interpreter" in names else None
    outcomes = {name: _outcome(_forked(functions[name])) for name in names}
    if tracer is None:
        return TypedComparison(outcomes, None)
    ended = _forked(lambda: tracer.interpreter(given))
    steps: list[Part] = ended.value[1] if ended.value is not None else []
    _forked(lambda: tracer.jit(given))
    machine_steps = tracer.trace.parts()
    for name, parts in (("interpreter", steps), ("jit", machine_steps)):
        outcome = outcomes[name]
        if outcome is not None and parts and parts[-1].steps:
            outcomes[name] = replace(outcome, registers=parts[-1].steps[-1].registers)
    return TypedComparison(outcomes, tracer.parting(steps, machine_steps))


def _keep_a_context(start: Ready, given: Input) -> None:
    """Have a context that no run uses: the children all take this one, at its address."""
    if start.type is not None:
        with (
            suppress(ExecutionError),
            prepared(start.type, memoryview(data_of(start.type.name, given)), None),
        ):
            pass


def _forked(work: Callable[[], Any]) -> Ended:
    """Run `work` in a child; what it raises of ours is raised here."""

    def caught() -> Any:
        try:
            return work()
        except EbpfError as error:
            return _Raised(type(error), str(error))

    ended = run_forked(caught, SECONDS)
    if isinstance(ended.value, _Raised):
        raise ended.value.type(ended.value.text)
    return ended


@dataclass(frozen=True, slots=True)
class _Raised:
    """What a child raised."""

    type: type[EbpfError]
    text: str


def _outcome(ended: Ended) -> Outcome | None:
    """Return a child's outcome: also that of one that died or hangs."""
    if ended.hangs:
        return Outcome("hang", message=f"it does not end in {SECONDS:g} s")
    if ended.signal:
        return Outcome("crash", message=f"the process died of {ended.signal}")
    outcome: Outcome | None = ended.value
    return outcome


def assembly(program: Program, name: str, pc: int, build: str = "native") -> str:
    """Return the machine code of one pc of the program with this name: it, or one that it tail calls."""
    compiled = machine_code(ready(programs_of(program)[name]), build)
    return render_pc(compiled.listing, compiled.image, pc)


def last_step(case: Case) -> tuple[str, int] | None:
    """Run instrumented code in a child; return the program and the pc of the last step."""
    tracer = Tracer(linked(case), case.build)
    run_forked(lambda: tracer.jit(case.inputs[0]), SECONDS)
    parts = [part for part in tracer.trace.parts() if part.steps]
    return (parts[-1].name, parts[-1].steps[-1].pc) if parts else None
