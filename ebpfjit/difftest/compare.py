"""Compares engines on a program: what each run leaves behind, and where two runs part."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from ebpfjit.analysis.verified import Verified
from ebpfjit.difftest import classic, typed
from ebpfjit.difftest.case import Case, Input
from ebpfjit.difftest.engines import ENGINES, check_engines, compiled_case, default_engines, prepared
from ebpfjit.difftest.outcome import AUDIT_FAILURE, WRONG_CODE, Outcome, Runner
from ebpfjit.difftest.trace import Parting, parting, trace_interpreter, trace_jit
from ebpfjit.listing.machine import render_pc
from ebpfjit.program import Buffer, Program
from ebpfjit.record import dataclass


@dataclass(frozen=True, slots=True)
class Comparison:
    """One input (`given`) on every engine: `outcomes` by engine, None where an engine has no answer.

    `differing` are the names of the fields of `Outcome` in which some engine differs from the
    first. `parting` is the first place where interpreter and machine code part, step by step; with
    `assembly`, the machine code of that pc, or of the first fault's.
    """

    given: Input
    outcomes: dict[str, Outcome | None]
    differing: tuple[str, ...]
    parting: Parting | None = None
    assembly: str = ""

    @property
    def agree(self) -> bool:
        """True where no engine differs."""
        return not self.differing


@dataclass(frozen=True, slots=True)
class Report:
    """What comparing a `case` came to: `comparisons` has one for each input, in order."""

    case: Case
    comparisons: tuple[Comparison, ...]

    @property
    def agree(self) -> bool:
        """True where the engines agree on every input."""
        return all(comparison.agree for comparison in self.comparisons)

    def each(self) -> tuple[Report, ...]:
        """Return a report for each input alone."""
        return tuple(Report(self.case, (comparison,)) for comparison in self.comparisons)

    def __str__(self) -> str:
        """The report as text, one paragraph for each input."""
        from ebpfjit.difftest.report import comparison_text

        return "\n".join(comparison_text(self.case, comparison) for comparison in self.comparisons)


def compare(
    program: Program | Buffer,
    inputs: Iterable[Input | Buffer] = (b"",),
    engines: Sequence[str] | None = None,
    *,
    build: str = "native",
    promised: int = 0,
) -> Report:
    """Run a program on every engine and every input, and report what each left and where they part.

    `inputs` are memories that r1 points to (with r2 their lengths), or `Input`s; for programs with a type
    they are packets, or the context's bytes. `engines` are by default the interpreter and machine code, or
    what that is made of where there is none (`default_engines`). `build` and `promised` say how machine code
    is made (`Case`).

    A program without a type and maps runs as it is: no verifier refuses it. Machine code runs in this
    process: one that goes wrong can take it down. Other programs run as `Program.run` has them, in forked
    processes, so that each engine starts from the maps as they are, and nothing changes them. Time stands
    still there, and process and random numbers are the same, unless the program has an environment; the
    kernel has its own. Raises TypeError for what is no program, UnknownEngine, JitUnavailable, VerifierError,
    and what loading a program raises.
    """
    engines = default_engines() if engines is None else engines
    check_engines(engines)
    if isinstance(inputs, bytes | bytearray | memoryview):
        raise TypeError("inputs are several memories, [memory] where there is one, not the bytes of one")
    if isinstance(program, Program) and (program.type is not None or program.maps):
        return compare_program(program, inputs, engines, build=build)
    code = program.code if isinstance(program, Program) else bytes(program)
    given = tuple(one if isinstance(one, Input) else Input(bytes(one)) for one in inputs)
    name = (program.name or "") if isinstance(program, Program) else ""
    case = Case(code, given, build, promised, name=name)
    case.check()
    return compare_case(case, engines)


def compare_program(
    program: Program,
    inputs: Iterable[Input | Buffer],
    engines: Sequence[str],
    *,
    build: str = "native",
) -> Report:
    """Compare a program with a type or maps; `inputs`, `engines` and `build` are those of `compare`."""
    given = tuple(one if isinstance(one, Input) else Input(bytes(one)) for one in inputs)
    case = Case(program.code, given, build, name=program.name or "", type=program.type or "")
    steady = typed.in_a_steady_world(program)
    return Report(case, tuple(_typed(steady, one, engines, build) for one in given))


def _typed(program: Program, given: Input, engines: Sequence[str], build: str) -> Comparison:
    made = typed.compare_typed(program, given, engines, build)
    outcomes, found = made.outcomes, made.parting
    differing = differences(outcomes)
    if not differing:
        return Comparison(given, outcomes, ())
    comparison = Comparison(given, outcomes, differing, found)
    pc = blamed_pc(comparison)
    if pc is None or "jit" not in engines:
        return comparison
    name = found.program if found is not None else program.name or ""
    return replace(comparison, assembly=typed.assembly(program, name, pc, build))


def blamed_pc(comparison: Comparison) -> int | None:
    """Return the pc of a `comparison` to look at: where the traces part, or the first fault."""
    if comparison.parting is not None:
        if comparison.parting.pc is not None:
            return comparison.parting.pc
        return next((step.pc for step in comparison.parting.steps if step is not None), None)
    faults = [o.pc for o in comparison.outcomes.values() if o is not None and o.pc is not None]
    return faults[0] if faults else None


def assembly_of(case: Case, pc: int) -> str:
    """Return the machine code of one pc of a case without a type: eBPF, bytes and assembly text."""
    compiled = compiled_case(case, prepared(case))
    return render_pc(compiled.listing, compiled.image, pc)


def compare_case(case: Case, engines: Sequence[str]) -> Report:
    """Compare a case on all of `engines`, with traces; `compare` says the rest."""
    if case.type:
        compared = tuple(_typed(typed.linked(case), one, engines, case.build) for one in case.inputs)
        return Report(case, compared)
    verified = prepared(case)
    runners = {name: ENGINES[name](case, verified) for name in engines} | classic.judges(case)
    return Report(case, tuple(_traced(case, verified, run_all(runners, one)) for one in case.inputs))


def run_all(runners: dict[str, Runner], given: Input) -> Comparison:
    """Run one input (`given`) on every engine (`runners`, by name) and compare each with the first."""
    outcomes = {name: runner(given) for name, runner in runners.items()}
    return Comparison(given, outcomes, differences(outcomes))


OF_THEIR_OWN = ("kernel", "classic")
"""Those that are given nothing but a program and its packet."""

UNKNOWN_TO_THEM = ("BudgetExhausted", "helper raised", "HelperNotFound")
"""Endings that a program has here because of what these were not given: no answer to compare."""


def differences(outcomes: dict[str, Outcome | None]) -> tuple[str, ...]:
    """Return the fields in which some of `outcomes` differ from the first, or from what can be right."""
    first = next(iter(outcomes.values()))
    found: dict[str, None] = {}
    if any(other is not None and other.kind in (AUDIT_FAILURE, WRONG_CODE) for other in outcomes.values()):
        found["kind"] = None
    for name, other in outcomes.items():
        if first is None or other is None:
            continue
        if name in OF_THEIR_OWN and first.kind in UNKNOWN_TO_THEM:
            continue
        if other != first:
            found |= dict.fromkeys(first.differing(other))
    return tuple(found)


def _traced(case: Case, verified: Verified, comparison: Comparison) -> Comparison:
    """Run once more with traces: registers at the end, and where interpreter and machine code part."""
    if not {"interpreter", "jit"} <= comparison.outcomes.keys():
        return comparison
    _, steps = trace_interpreter(case, verified, comparison.given)
    _, machine_steps = trace_jit(case, verified, comparison.given)
    found = parting(verified, steps, machine_steps) if not comparison.agree else None
    outcomes = dict(comparison.outcomes)
    for name, trace in (("interpreter", steps), ("jit", machine_steps)):
        outcome = outcomes[name]
        if outcome is not None and trace:
            outcomes[name] = replace(outcome, registers=trace[-1].registers)
    comparison = replace(comparison, outcomes=outcomes, parting=found)
    pc = None if comparison.agree else blamed_pc(comparison)
    return comparison if pc is None else replace(comparison, assembly=assembly_of(case, pc))
