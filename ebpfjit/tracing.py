"""A run step by step on the interpreter: what `Program.trace` does."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import zip_longest
from typing import TYPE_CHECKING, Any, overload

from ebpfjit.arguments import (
    Helpers,
    Kfuncs,
    check_context,
    check_environment,
    check_limit,
    checked_kfuncs,
    numbered,
)
from ebpfjit.errors import ExecutionError
from ebpfjit.interpreter import interpret
from ebpfjit.listing.view import shown
from ebpfjit.once import load_package
from ebpfjit.program import Instruction, Program, SourceLine
from ebpfjit.ready import Brought, Ready, environment_of
from ebpfjit.record import dataclass, field
from ebpfjit.runner import Result, run_on
from ebpfjit.runtime.environment import Environment
from ebpfjit.runtime.execution import Execution

if TYPE_CHECKING:
    from ebpfjit.literals import AnyBuffer

MOST_STEPS = 100_000
"""Instructions of a trace that is given no limit."""
_COLUMN = 40


@dataclass(frozen=True, slots=True)
class TraceStep:
    """The state before an instruction: its slot `pc`, and `registers`, r0 to r10 as u64.

    `program` is the one that runs there: with tail calls there are several.
    """

    pc: int
    registers: tuple[int, ...]
    program: Program = field(repr=False)

    @property
    def instruction(self) -> Instruction:
        """The instruction, decoded."""
        found = self.program.slots[self.pc]
        assert found is not None  # only those are executed that start at a slot
        return found

    @property
    def text(self) -> str:
        """The instruction as a listing shows it, with names."""
        load_package("ebpfjit.listing")
        from ebpfjit.listing.names import named

        return named(self.program, self.instruction)

    @property
    def line(self) -> SourceLine | None:
        """The line of source that it is of, None where that is not known."""
        return self.program.line_at(self.pc)


class Trace(Sequence[TraceStep]):
    """What a run did, step by step: a sequence of `TraceStep`, and as str() a text with a line for each.

    `result` is what `Program.run` returns, None where the run ended with an error; then that is `error`. The
    steps up to it are there. `next(trace)` gives one step after the other.

        for step in program.trace(packet):
            print(step.pc, step.text, step.registers[0])
    """

    def __init__(
        self, steps: Sequence[TraceStep], result: Result | None, error: ExecutionError | None
    ) -> None:
        self._steps = tuple(steps)
        self._rest = iter(self._steps)
        self.result = result
        self.error = error

    def __len__(self) -> int:
        return len(self._steps)

    @overload
    def __getitem__(self, index: int) -> TraceStep: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[TraceStep]: ...
    def __getitem__(self, index: int | slice) -> TraceStep | Sequence[TraceStep]:
        return self._steps[index]

    def __iter__(self) -> Iterator[TraceStep]:
        return iter(self._steps)

    def __next__(self) -> TraceStep:
        return next(self._rest)

    def __repr__(self) -> str:
        return f"<trace of {len(self)} steps: {self._end}>"

    @property
    def _end(self) -> str:
        if self.result is not None:
            value = self.result.return_value
            return f"r0 = {value} ({value:#x})" + (f" {self.result.action}" if self.result.action else "")
        return f"{type(self.error).__name__}: {self.error}"

    def __str__(self) -> str:
        """Return a line for each step: the instruction, and the registers that it changed."""
        if not self._steps:
            return f"; {self._end}\n"
        first = {number: value for number, value in enumerate(self._steps[0].registers) if value}
        lines = [f"; start: {_registers(first)}"]
        program: Program | None = None
        source: tuple[str, int] | None = None
        texts: dict[tuple[int, int], str] = {}
        for step, after in zip_longest(self._steps, self._steps[1:]):
            if step.program is not program:
                program, source = step.program, None
                lines.append(f"{shown(program.name or 'program')}:")
            line = step.line
            if line is not None and (line.file, line.line) != source:
                source = line.file, line.line
                lines.append(f"; {shown(str(line))}")
            key = id(program), step.pc
            text = texts[key] if key in texts else texts.setdefault(key, step.text)
            lines.append(f"{step.pc:4}: {text:{_COLUMN}} {_changed(step, after)}".rstrip())
        return "\n".join([*lines, f"; {self._end}"]) + "\n"


def _changed(step: TraceStep, after: TraceStep | None) -> str:
    """Return the registers that an instruction changed."""
    if after is None or after.program is not step.program:
        return ""
    pairs = enumerate(zip(step.registers, after.registers, strict=True))
    return _registers({number: new for number, (old, new) in pairs if old != new})


def _registers(values: Mapping[int, int]) -> str:
    return "  ".join(f"r{number}={value:#x}" for number, value in values.items())


def trace(
    program: Program,
    data: AnyBuffer = b"",
    *,
    limit: int | None = MOST_STEPS,
    context: Mapping[str, Any] | None = None,
    environment: Environment | None = None,
    helpers: Helpers | None = None,
    kfuncs: Kfuncs | None = None,
) -> Trace:
    """Run a program once on the interpreter and return its steps; the arguments are those of `Program.run`.

    What goes wrong while it runs ends the trace and is its `error`; what is wrong with the program or the
    arguments is raised. No limit (None) keeps every step of a program that may never end.
    """
    check_limit(limit)
    check_context(context)
    check_environment(environment)
    steps: list[TraceStep] = []

    def stepwise(ready: Ready, execution: Execution) -> int:
        this = ready.program

        def watch(pc: int, registers: list[int]) -> None:
            steps.append(TraceStep(pc, tuple(registers), this))

        return interpret(ready.verified, execution, watch)

    chosen = environment or environment_of(program)
    brought = Brought(numbered(helpers), checked_kfuncs(kfuncs))
    try:
        result = run_on(stepwise, program, data, limit, context, chosen, counts=True, brought=brought)
    except ExecutionError as error:
        if not steps:
            raise
        return Trace(steps, None, error)
    return Trace(steps, result, None)
