"""Runs one case on both engines and compares everything that is left: r0 or fault, memory, stack."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ebpfjit.analysis.verified import prepare
from ebpfjit.errors import EbpfError, ExecutionError, LoadError
from ebpfjit.interpreter import interpret
from ebpfjit.jit.entry import compile_program
from ebpfjit.program import Program
from ebpfjit.runtime.execution import Execution
from ebpfjit.runtime.memory import Region, Stack, address_of, grant

from .generate import Case


class HelperError(Exception):
    """What helper 7 raises."""


def _sum(r1: int, r2: int, r3: int, r4: int, r5: int) -> int:
    return r1 + 3 * r2 - r3 + r4 * r5


def _raise(r1: int, r2: int, r3: int, r4: int, r5: int) -> int:
    raise HelperError(r1)


GRANTED = bytearray(24)


def _grant(r1: int, r2: int, r3: int, r4: int, r5: int) -> int:
    """Hand out memory, and a pointer that is mostly into it."""
    grant(GRANTED)
    return address_of(GRANTED) + (r1 & 7)


HELPERS = {5: _sum, 6: _grant, 7: _raise}


@dataclass(frozen=True)
class Outcome:
    """What a run left behind."""

    kind: str
    details: tuple[Any, ...]
    memory: bytes
    granted: bytes
    stack: bytes
    budget_left: int | None


def _outcome(run: Any, execution: Execution, memory: bytearray) -> Outcome:
    try:
        kind, details = "ok", (run(execution),)
    except ExecutionError as error:
        attributes = tuple(sorted((k, v) for k, v in vars(error).items()))
        kind, details = type(error).__name__, (str(error), attributes)
    except HelperError as error:
        kind, details = "helper raised", error.args
    return Outcome(
        kind, details, bytes(memory), bytes(GRANTED), bytes(execution.stack.memory), execution.budget_left
    )


def outcomes(case: Case, features: frozenset[str] | None = None) -> tuple[Outcome, Outcome] | None:
    """The outcome on the interpreter and on machine code; None where the program is refused."""
    try:
        verified = prepare(Program.from_bytes(case.code))
    except LoadError:
        return None
    memory = bytearray(case.memory)
    region, stack = Region.of_buffer("mem", memory), Stack()

    def execution() -> Execution:
        memory[:] = case.memory
        GRANTED[:] = bytes(range(len(GRANTED)))
        stack.reset()
        return Execution(
            (region.start, region.size), [region], region, region, HELPERS, HELPERS, case.limit, True, stack
        )

    first = _outcome(lambda run: interpret(verified, run), execution(), memory)
    compiled = compile_program(verified, helpers=HELPERS, kfuncs=HELPERS, features=features)
    return first, _outcome(compiled.run, execution(), memory)


def compare(case: Case) -> tuple[str, str | None]:
    """How the interpreter's run ended, and what the engines disagree on, as text, or None.

    Every other seed does without BMI2.
    """
    try:
        both = outcomes(case, frozenset() if case.seed % 2 else None)
    except EbpfError as error:
        return "broken", f"seed {case.seed}: {type(error).__name__}: {error}\n{case.code.hex()}"
    if both is None:
        return "refused", None
    kind = both[0].kind.replace(" ", "_")
    if both[0] == both[1]:
        return kind, None
    return kind, f"seed {case.seed}:\ninterpreter {both[0]}\njit {both[1]}\n{case.code.hex()}"
