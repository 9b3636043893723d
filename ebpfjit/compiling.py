"""A program compiled into a Python callable: what `Program.compile` does.

Ready -> machine code -> TypedPlain, or Plain for plain memory -> JitFunction, the native gate in front
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any
from weakref import ref

from ebpfjit.analysis.accesses import Promises
from ebpfjit.analysis.verified import Verified, prepare
from ebpfjit.arguments import (
    Helpers,
    Kfuncs,
    check_context,
    check_environment,
    check_limit,
    check_repeat,
    checked_kfuncs,
    numbered,
)
from ebpfjit.function import JitFunction, Plain, Take, gated, make_function
from ebpfjit.once import import_alone, load_package, once
from ebpfjit.options import Options
from ebpfjit.program import Program
from ebpfjit.ready import Brought, Ready, called_by, environment_of, is_plain, ready, ready_with
from ebpfjit.record import dataclass, replace
from ebpfjit.runner import U32_MASK, Run, let_go, make_context, no_context, on_machine_code
from ebpfjit.runtime import timers
from ebpfjit.runtime.contexts import (
    packet_context,
    program_type,
)
from ebpfjit.runtime.environment import Environment
from ebpfjit.runtime.execution import Execution, HelperFunction, Stops, may_end_rights
from ebpfjit.runtime.kfuncs.given import Given, given_functions, with_weak
from ebpfjit.runtime.kfuncs.table import functions_of
from ebpfjit.runtime.maps.definition import MapType
from ebpfjit.runtime.memory import Region, Stack, stopped_by
from ebpfjit.runtime.shared import SharedRegions

if TYPE_CHECKING:
    from ebpfjit.jit.lanes import Lane
    from ebpfjit.jit.tails import Tails
    from ebpfjit.verifier.verdict import Verdict


def _nothing() -> None:
    """Return nothing: no tail calls are made."""


@dataclass(slots=True, kw_only=True)
class TypedPlain(Plain):
    """A compiled program with a context, or with maps: (data) -> r0 (32 bits with a type).

    `data` is copied, as `Program.run` does; what the program makes of its packet is dropped. `context` are
    fields of the context of each run.
    """

    ready: Ready
    context: Mapping[str, Any] | None = None

    def why_prepared(self) -> str:
        """Return why calls do not go through the native gate."""
        environment = environment_of(self.ready.program)
        why = _why_no_lane(self.ready, environment)
        return why or super().why_prepared()

    def once(self, mem: Any, take: Take | None = None) -> int:
        """Run the program one time, and have what it leaves taken; return r0. Raises as `Program.run`."""
        start = self.ready
        environment = environment_of(start.program)
        mark = self.stops.mark()
        with stopped_by(mark):
            timers.fire_due(start.maps.values(), environment.clock)
        made = make_context(start, mem, self.context)
        brought = Brought(self.helpers, self.kfuncs)
        this = Run(on_machine_code, environment, made, mark=mark, brought=brought)
        ended = False
        try:
            value = this.whole(start, self.limit)
            ended = True
        finally:
            if take is not None:
                region = made if isinstance(made, Region) else made.packet
                take(Execution((0, 0), [], region, world=this.world), ended=ended)
            this.end()
            let_go(made)
        return value if start.type is None else value & U32_MASK


def _typed_function(
    start: Ready,
    limit: int | None,
    given: Mapping[int, HelperFunction],
    kfuncs: Given,
    context: Mapping[str, Any] | None = None,
    repeat: int = 1,
    origin: Origin | None = None,
) -> JitFunction:
    """Return a program as a compiled function, called through the native gate where its context allows.

    One that runs of another function come to by a tail call is told of that, its `origin`.
    """
    load_package("ebpfjit.jit")
    from ebpfjit.jit.gate import why_not
    from ebpfjit.jit.sending import channels_of

    environment = environment_of(start.program) if origin is None else origin.environment
    compiled = start.machine_code(environment)
    plain = TypedPlain(compiled, given, limit, kfuncs, ready=start, context=context)
    plain.repeat = repeat
    if context or repeat > 1 or why_not() or _why_no_lane(start, environment):
        return JitFunction(plain)
    assert start.type is not None  # it fits a lane
    brought = Brought(given, kfuncs)
    find: Callable[[], Tails | None] = _nothing
    if origin is not None:
        plain.stops, find = origin.stops, origin.tails
    elif start.makes_tail_calls and not compiled.unlocked:  # without the lock Python makes them
        tails = _tails_of(start, limit, given, kfuncs, Origin(environment, plain.stops))
        find = lambda: tails  # noqa: E731 - it keeps them

    rights = start.type.rights
    shared = [region for map_ in start.maps.values() for region in map_.regions]

    def in_lane(lane: Lane) -> Mapping[str, Any]:
        def begin(size: int, stack: Stack) -> Execution:
            lane.adopt(size)
            run = Run(on_machine_code, environment, lane.context, stack, brought=brought, tails=find())
            return run.execution(start, limit)

        return {"allowed": SharedRegions([*lane.regions(rights), *shared]), "lane": lane, "begin": begin}

    improve = partial(start.improved, environment) if start.options.optimize is None else None
    sends = _sends(start) and not compiled.unlocked  # batches at once would send to the same place
    return gated(
        plain,
        "context",
        ("packet",),
        improve,
        [in_lane(lane) for lane in _lanes_of(start.type.name, compiled.unlocked)],
        rights=rights,
        cells=_cells(start, environment),
        grows=any(map_.definition.inner is not None for map_ in start.maps.values()),
        tails=None if (known := find()) is None else known.table_of(start.maps.values()),
        channels=partial(channels_of, list(start.maps.values()), environment.cpu) if sends else None,
    )


def _sends(start: Ready) -> bool:
    """True where a program has maps that take events."""
    return any(
        map_.definition.type in (MapType.RINGBUF, MapType.PERF_EVENT_ARRAY) for map_ in start.maps.values()
    )


@dataclass(slots=True)
class Origin:
    """What the functions have of the one from which tail calls lead to them: it keeps them, not they it."""

    environment: Environment
    stops: Stops
    tails: Callable[[], Tails | None] = _nothing


def _tails_of(
    start: Ready, limit: int | None, given: Mapping[int, HelperFunction], kfuncs: Given, origin: Origin
) -> Tails:
    """Return where tail calls of a program's function lead; its runs have these settings in all of them."""
    from ebpfjit.jit.tails import Tails

    brought, lasting, options = Brought(given, kfuncs), start.lasting, start.options

    def function_of(program: Program) -> JitFunction:
        target = ready_with(program, brought).like(options)
        if lasting:  # its code is for this environment
            target = replace(target, lasting=True, compiled={}, variants={})
        target.refuse_missing()
        target.check_license(origin.environment)
        return _typed_function(target, limit, given, kfuncs, origin=origin)

    tails = Tails(function_of)
    origin.tails = ref(tails)
    return tails


def _why_no_lane(start: Ready, environment: Environment) -> str:
    """Return why calls of a program are prepared in Python, "" where what a run is given is its context."""
    if start.type is None:
        return "a program with maps and without a type"
    if not start.type.has_lane:
        return f"the context of {start.type.name} programs"
    if not start.verified.knows_all:
        return "memory of the kernel, or an arena"  # which is the run's
    if start.has_kptrs or start.has_timers or start.map_structs is not None:
        return "kptrs, timers or struct bpf_map"  # what these point to is; and something may be due
    try:
        _cells(start, environment)
    except ValueError as error:
        return str(error)
    return ""


def _cells(start: Ready, environment: Environment) -> list[tuple[int, int]]:
    """Return the words that make the environment's processor the one whose values runs see.

    Raises ValueError where a map has no values for it.
    """
    return [cell for map_ in start.maps.values() for cell in map_.shown(environment.cpu)]


UNLOCKED_LANES = 8
"""How many runs of programs of a type can be in lanes at once while they are without Python's lock."""


@once
def _lanes_of(name: str, unlocked: bool) -> Sequence[Lane]:
    """Return the lanes that all functions of a program type share: memory below 4 GiB is scarce.

    Runs that keep Python's lock have one; those without have others, which they may be in for long.
    """
    return [_new_lane(name) for _ in range(UNLOCKED_LANES if unlocked else 1)]


def _new_lane(name: str) -> Lane:
    load_package("ebpfjit.jit")
    from ebpfjit.jit.lanes import PacketLane, StructLane

    type_ = program_type(name)
    if not type_.has_packet:
        return StructLane(type_)
    context = packet_context(type_)
    context.clear()
    return PacketLane(context)


def compile(
    program: Program,
    *,
    helpers: Helpers | None = None,
    kfuncs: Kfuncs | None = None,
    limit: int | None = None,
    environment: Environment | None = None,
    context: Mapping[str, Any] | None = None,
    repeat: int = 1,
    checked: bool = True,
    harden: bool = False,
    cache: str | os.PathLike[str] | None = None,
    release_gil: bool = False,
    optimize: bool | None = None,
    audit: bool = False,
    verdict: Verdict | None = None,
) -> JitFunction:
    """Verify a program and compile it: what `Program.compile` does, which says all."""
    check_limit(limit)
    check_context(context)
    check_environment(environment)
    check_repeat(repeat)
    if context and program.type is None:
        raise no_context(program)
    if environment is not None:
        program = replace(program, environment=environment)
    if verdict is not None and not checked:
        raise ValueError("verdict= is about checks that fall: with checked=False there are none")
    load_package("ebpfjit.jit")
    options = Options(checked, harden, release_gil, optimize, audit)
    if cache is not None:
        import_alone("ebpfjit.jit.cache")
        from ebpfjit.jit.cache import Folder

        options = replace(options, cache=Folder(cache))
    given = numbered(helpers), checked_kfuncs(kfuncs)
    return compiled_as(program, options, *given, limit, context, repeat, verdict)


def with_reasons(
    program: Program, *, limit: int | None = None, context: Mapping[str, Any] | None = None
) -> JitFunction:
    """Compile a program into a function that remembers which instruction set each result.

    `fn.map(..., reasons=array("Q"))` tells. It is baseline code. Raises as `compile`.
    """
    check_limit(limit)
    check_context(context)
    load_package("ebpfjit.jit")
    return compiled_as(program, Options(optimize=False, reasons=True), {}, {}, limit, context)


def load_function(
    path: str | os.PathLike[str],
    helpers: Mapping[int, HelperFunction],
    limit: int | None,
    *,
    release_gil: bool = False,
) -> JitFunction:
    """Return the function that `JitFunction.save` wrote. Raises as `JitFunction.load`."""
    load_package("ebpfjit.jit")
    import_alone("ebpfjit.jit.cache")
    from ebpfjit.jit.cache import File

    file = File(path)
    options = Options(release_gil=release_gil, cache=file, **file.stored.options)
    return compiled_as(file.stored.verified(), options, helpers, {}, limit)


def _stock_of(program: Program) -> dict[int, HelperFunction]:
    """Return those helpers of Linux's that plain bytecode calls and that are machine code: the clock, ..."""
    called = called_by(program)
    if not called:
        return {}
    import_alone("ebpfjit.jit.stock")
    from ebpfjit.jit.stock import native_helper, native_numbers

    environment, lasting = environment_of(program), program.environment is not None
    numbers = called & native_numbers(environment, lasting=lasting)
    return {number: native_helper(number, environment, lasting=lasting) for number in numbers}


def _relying(program: Program, start: Ready, verdict: Verdict) -> Ready:
    """Return what is compiled where machine code relies on a verdict. Raises as `relied.relied_on`."""
    import_alone("ebpfjit.relied")
    from ebpfjit.relied import relied_on

    relied = relied_on(program, start, verdict, environment_of(program))
    options = replace(start.options, why_unproven=relied.why)
    return replace(start, proven=relied.pcs, options=options, compiled={}, variants={})


def compiled_as(
    program: Program | Verified,
    options: Options,
    helpers: Mapping[int, HelperFunction],
    kfuncs: Given,
    limit: int | None,
    context: Mapping[str, Any] | None = None,
    repeat: int = 1,
    verdict: Verdict | None = None,
) -> JitFunction:
    """Compile a program; one that is verified comes from a file, and was when it was saved."""
    verified = program if isinstance(program, Verified) else None
    program = program.program if isinstance(program, Verified) else program
    load_package("ebpfjit.jit")
    from ebpfjit.jit.entry import compile_program
    from ebpfjit.jit.tiers import decided

    program.refuse()
    program = with_weak(program, kfuncs)
    start = None if is_plain(program) else ready(program)
    has_lane = start is not None and not (context or _why_no_lane(start, environment_of(program)))
    counted = repeat == 1 and (start is None or has_lane)
    if start is not None:
        start = replace(
            start,
            helpers={**start.helpers, **helpers},
            kfuncs={**start.kfuncs, **given_functions(program, kfuncs)},
            options=decided(options, counted=counted),
            compiled={},
            variants={},
            complete=False,
            lasting=program.environment is not None,
        )
        start.refuse_missing()
        start.check_license(environment_of(program))
        if verdict is not None:
            start = _relying(program, start, verdict)
        return _typed_function(start, limit, helpers, kfuncs, context, repeat)
    if verdict is not None:
        import_alone("ebpfjit.relied")
        from ebpfjit.relied import WITHOUT_TYPE, proven_by

        proven_by(verdict, program)
        options = replace(options, why_unproven=WITHOUT_TYPE)
    called = {**functions_of(program), **given_functions(program, kfuncs)}
    program.refuse_unmet(called)
    promises = Promises(
        moving=frozenset(number for number, function in helpers.items() if may_end_rights(function)),
        argument_is_measured=True,
        calling=frozenset(),  # there is no world, whose engine they could ask
    )
    options = decided(replace(options, promises=promises, is_sound=True), counted=counted)
    with_stock = {**_stock_of(program), **helpers}
    compile_as = partial(compile_program, verified or prepare(program), helpers=with_stock, kfuncs=called)
    improve = compile_as if options.optimize is None else None
    return make_function(compile_as(options), dict(helpers), limit, improve, kfuncs, repeat)
