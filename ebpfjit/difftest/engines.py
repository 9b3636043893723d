"""Runs a case on an engine, and what a run leaves behind.

An engine is a function: (case) -> a function that runs the prepared case on one input.
"""

from __future__ import annotations

import mmap
import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import cache, partial
from random import Random
from typing import TYPE_CHECKING, Any
from zlib import crc32

from ebpfjit.analysis.accesses import Promises
from ebpfjit.analysis.verified import Verified, prepare
from ebpfjit.difftest import classic
from ebpfjit.difftest.arena import Arena, HelperError, arena, map_at
from ebpfjit.difftest.case import Case, Input, baseline_of, options_of
from ebpfjit.difftest.generate import plain
from ebpfjit.difftest.known import KnownFacts
from ebpfjit.difftest.optimized import Stage, stages
from ebpfjit.difftest.outcome import AUDIT_FAILURE, WRONG_CODE, Outcome, Runner, attributes_of
from ebpfjit.engines import unavailable
from ebpfjit.errors import EbpfError, EbpfWarning, ExecutionError, InputError, JitUnavailable, VerifierError
from ebpfjit.interpreter import Watcher, interpret
from ebpfjit.optimizer.slots import has_slots
from ebpfjit.program import Program
from ebpfjit.runtime.execution import Execution
from ebpfjit.runtime.memory import STACK_SIZE, Stack
from ebpfjit.sealed import inside

if TYPE_CHECKING:
    from ebpfjit.function import JitFunction
    from ebpfjit.jit.entry import Compiled


class UnknownEngine(EbpfError):  # noqa: N818 - said of an engine, as JitUnavailable is
    """An engine that is not available here, or a program that it does not take."""


def ending_of(run: Callable[[], int]) -> Outcome:
    """Run, and tell how it ended."""
    value: int | None = None
    kind, message = "ok", ""
    attributes: tuple[tuple[str, Any], ...] = ()
    try:
        value = run()
    except ExecutionError as error:
        kind, message = type(error).__name__, str(error)
        attributes = attributes_of(error)
    except HelperError as error:
        kind, attributes = "helper raised", error.args
    return Outcome(kind, value, message, attributes)


def outcome_of(run: Callable[[Execution], int], execution: Execution, place: Arena) -> Outcome:
    """Run, and collect what is left."""
    ending = ending_of(lambda: run(execution))
    memory, around = place.memory()
    granted, frame, left = place.granted(), place.frame(), execution.budget_left
    told = (ending.kind, ending.value, ending.message, ending.attributes)
    return Outcome(*told, memory, around, granted, frame, left, outside=place.outside())


def _without_slots(outcome: Outcome, verified: Verified) -> Outcome:
    """Return what is left but for the frame, where some of that is in registers only."""
    return replace(outcome, stack=None) if has_slots(verified) else outcome


def prepared(case: Case) -> Verified:
    """Return the case's program, ready for an engine. Raises DecodeError, LoadError or VerifierError."""
    return prepare(Program.from_bytes(case.code))


def on_interpreter(case: Case, verified: Verified, watcher: Watcher | None = None) -> Runner:
    """The oracle; `watcher` is told of every step."""
    place = arena()

    def run(given: Input) -> Outcome:
        return outcome_of(
            lambda execution: interpret(verified, execution, watcher), place.start(given), place
        )

    return run


def on_optimized(case: Case, verified: Verified) -> Runner:
    """What the optimizer makes of it, run by the interpreter; entered at functions, or tested blocks too.

    The input picks a stage. In each run it is seen behind `guards` besides: what is known of values, and
    frames that hold anything.
    """
    place = arena()
    # As in `compiled_case`.
    promises = Promises(case.promised, argument_is_measured=True, calling=frozenset(place.helpers))

    @cache
    def codes(is_entered: bool) -> list[Stage]:
        return stages(verified, verified.tested if is_entered else (), promises)

    def run_at(stage: Stage, given: Input, late: int) -> Outcome:
        judge = None if stage.facts is None else KnownFacts(stage.facts)
        machine = partial(stage.machine, judge=judge, late=late)
        outcome = outcome_of(
            lambda execution: interpret(verified, execution, machine=machine), place.start(given), place
        )
        return _without_slots(outcome, verified)

    def run(given: Input) -> Outcome:
        number = crc32(given.memory)
        found = codes(bool(number >> 16 & 1))
        picked = found[-1 if number >> 24 & 1 else number % len(found)]
        outcome = run_at(picked, given, (number >> 8) % 4)
        for stage in found:
            if stage.name == "guards" and stage is not picked and outcome.kind != WRONG_CODE:
                other = run_at(stage, given, 0)
                if other.kind == WRONG_CODE:
                    return other
                if other.differing(outcome):
                    said = f"{other} behind guards, {outcome} behind {picked.name}"
                    return replace(outcome, kind=WRONG_CODE, value=None, message=said)
        return outcome

    return run


MOVED = 4096


def depends_on_addresses(verified: Verified, given: Input) -> bool:
    """True where a run ends otherwise with its memory or its stack elsewhere: Linux has other places."""
    place = arena()
    one, other = (
        outcome_of(lambda execution: interpret(verified, execution), place.start(given, moved), place)
        for moved in (0, MOVED)
    )
    here, there = ((left.kind, left.value, left.memory) for left in (one, other))
    return here != there or depends_on_stack(verified, given)


def compiled_case(case: Case, verified: Verified, build: str = "", trace: int = 0) -> Compiled:
    """Return machine code as a build says, by default the case's; `trace` is where a trace's header is."""
    from ebpfjit.jit.entry import compile_program

    place = arena()
    options = replace(options_of(build or case.build, trace), promises=promises_of(case))
    return compile_program(verified, options, place.helpers, place.helpers)


def promises_of(case: Case) -> Promises:
    """Return what every input of a case has."""
    return Promises(case.promised, argument_is_measured=True, calling=frozenset(arena().helpers))


def on_jit(case: Case, verified: Verified) -> Runner:
    """Machine code."""
    return runner_of(compiled_case(case, verified))


def runner_of(compiled: Compiled) -> Runner:
    """Return what runs machine code that is already there."""
    place = arena()

    def run(given: Input) -> Outcome:
        outcome = outcome_of(compiled.run, place.start(given), place)
        return _without_slots(outcome, compiled.verified) if compiled.recipe.is_optimized else outcome

    return run


def for_calls(case: Case) -> Case:
    """Return a case as it is compiled to be called: with any memory, so nothing is promised of it."""
    return replace(case, promised=0) if case.promised else case


def on_gate(case: Case, verified: Verified) -> Runner:
    """Machine code, called as a function: its arguments, faults and references go through native code."""
    return through_the_gate(compiled_case(for_calls(case), verified))


def through_the_gate(compiled: Compiled) -> Runner:
    """Return what calls machine code as a function; its stack is the thread's."""
    from ebpfjit.function import make_function

    return lambda given: _called(make_function(compiled, arena().helpers, given.limit), given)


def _called(function: JitFunction, given: Input) -> Outcome:
    """Call a function, and collect what is left."""
    place = arena()
    region = place.start(given).regions[0]
    mem = region.view.toreadonly() if given.read_only else region.view
    outcome = ending_of(lambda: function(mem))
    memory, around = place.memory()
    granted = place.granted()
    return replace(outcome, memory=memory, around=around, granted=granted, outside=place.outside())


def on_tiered(case: Case, verified: Verified, every: bool = True) -> Runner:
    """Baseline code, called as a function, that goes on in optimised code at the end of its first slice.

    Each input is run with first slices of several lengths, of `every` length or of two that the input
    picks: the answer that is rarest is told, or one that is wrong by itself.
    """
    from ebpfjit.function import make_function
    from ebpfjit.jit.entry import compile_program

    place = arena()
    first = compiled_case(for_calls(case), verified, baseline_of(case.build))
    better = cache(lambda options: compile_program(verified, options, place.helpers, place.helpers))

    def run_once(given: Input, instructions: int) -> Outcome:
        function = make_function(first, place.helpers, given.limit, better)
        assert inside(function).gate is not None  # as for `gate`
        inside(function).gate.shorten(instructions)
        return _called(function, given)

    def run(given: Input) -> Outcome:
        slices = FIRST_SLICES if every else FIRST_SLICES[crc32(given.memory) % 4 :: 4]
        answers = [run_once(given, instructions) for instructions in slices]
        return min(answers, key=lambda one: 0 if one.kind == AUDIT_FAILURE else answers.count(one))

    return run


FIRST_SLICES = (1, 3, 5, 9, 17, 25, 40, 70)
"""Instructions after which a run may go on in other code."""

BELOW = (
    1 << 32, 0x1000_0000, 0x1234_5670, 0x4000_0080, 0x8000_1010, 0xC123_4560, 0x2_0FED_CBA0, 0x100_7654_3210,
    *(16 * Random(number).randrange(1 << 28, 1 << 36) for number in range(56)),
)  # fmt: skip
"""How far below a thread's stack other stacks are: the first has the same low half. A comparison with an
address may come out one way nearly everywhere, so there are many."""


@cache
def other_stacks() -> tuple[Stack, ...]:
    """Return stacks at addresses that have as little in common as the thread's has with them."""
    tells = Case(plain("MOV64_X", 0, 10) + plain("EXIT"), (Input(),))
    ending = on_gate(tells, prepared(tells))(Input())
    assert ending is not None
    stacks = [Stack()]
    for distance in BELOW:
        low = (ending.value or 0) - distance - STACK_SIZE
        page = low & -mmap.PAGESIZE
        with suppress(JitUnavailable):  # where something else lies, we do without
            memory = map_at(page, STACK_SIZE + mmap.PAGESIZE)
            stacks.append(Stack(memory[low - page : low - page + STACK_SIZE]))
    return tuple(stacks)


def depends_on_stack(verified: Verified, given: Input) -> bool:
    """True where a run ends otherwise with its stack elsewhere: a call has the thread's."""
    place = arena()

    def ending(stack: Stack | None) -> tuple[Any, ...]:
        execution = place.start(given)
        if stack is not None:
            stack.reset()
            execution = replace(execution, stack=stack)
        left = outcome_of(lambda execution: interpret(verified, execution), execution, place)
        return left.kind, left.value, left.message, left.attributes, left.memory, left.around, left.granted

    here = ending(None)
    return any(ending(stack) != here for stack in other_stacks())


MOST_KERNEL_SLOTS = 900_000
"""The verifier takes a million (BPF_COMPLEXITY_LIMIT_INSNS), our wrapping included."""


def on_kernel(case: Case, verified: Verified) -> Runner:
    """Linux; no answer where its verifier refuses the program, or an instruction limit may matter.

    Of a filter of classic BPF it is Linux's machine of these, whatever the filter was translated to.
    """
    from ebpfjit import kernel

    if case.classic:
        return classic.in_linux(case)
    reason = kernel.unavailable_reason()
    if reason is not None:
        raise UnknownEngine(f"the kernel is no engine here: {reason}")
    if len(verified.program) > MOST_KERNEL_SLOTS:
        raise UnknownEngine(
            f"a program of {len(verified.program)} slots is too large for the kernel: "
            f"it takes {MOST_KERNEL_SLOTS}"
        )

    def run(given: Input) -> Outcome | None:
        try:
            result = kernel.run_program(verified.program, given.memory)
        except (VerifierError, ExecutionError, InputError):
            return None
        return Outcome("ok", result.return_value, memory=result.data)

    return run


ENGINES: Mapping[str, Callable[[Case, Verified], Runner]] = {
    "interpreter": on_interpreter,
    "optimized": on_optimized,
    "jit": on_jit,
    "gate": on_gate,
    "tiered": on_tiered,
    "kernel": on_kernel,
}


CALLED = ("gate", "tiered")
"""Those that call a function: a run's stack is the thread's."""


def default_engines() -> tuple[str, ...]:
    """Return what is compared where nobody says: the interpreter and machine code.

    Where there is none an EbpfWarning says why, and it is what the optimizer makes of programs instead.
    """
    why = unavailable("jit")
    if not why:
        return ("interpreter", "jit")
    warnings.warn(f"{why}; compared are the interpreter and `optimized`", EbpfWarning, stacklevel=3)
    return ("interpreter", "optimized")


def check_engines(names: Sequence[str], least: int = 2, *, of_filters: bool = False) -> None:
    """Raise UnknownEngine where one is not available here, or fewer than `least` are asked for.

    Those `of_filters` run programs of classic BPF only, for which Linux asks for no rights. Raises
    JitUnavailable where there is no machine code for one.
    """
    for name in names:
        if name not in ENGINES:
            raise UnknownEngine(f"no engine {name!r}; there are {', '.join(ENGINES)}")
    if len(set(names)) < least:
        raise UnknownEngine("comparing takes two engines at least" if least > 1 else "an engine is needed")
    tiny = Case(bytes.fromhex("b700000000000000 9500000000000000"), (Input(),))
    if of_filters:
        tiny = replace(tiny, classic=bytes.fromhex("0600000000000000"))
    for name in names:
        ENGINES[name](tiny, prepared(tiny))
