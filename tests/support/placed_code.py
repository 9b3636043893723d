"""Code that is written by hand, placed, and run as machine code."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from unittest.mock import patch

from ebpfjit.analysis.verified import Verified, prepare
from ebpfjit.assembler import assemble
from ebpfjit.difftest.arena import arena
from ebpfjit.difftest.case import Case, Input
from ebpfjit.difftest.engines import compiled_case, outcome_of, runner_of
from ebpfjit.difftest.optimized import CodeState
from ebpfjit.difftest.outcome import Outcome
from ebpfjit.interpreter import interpret
from ebpfjit.isa.spec import Kind
from ebpfjit.jit import compiler
from ebpfjit.optimizer.check import check
from ebpfjit.optimizer.check_placed import check_placed
from ebpfjit.optimizer.code import Code
from ebpfjit.optimizer.passes import Known
from ebpfjit.optimizer.placed import Move, Placed, PlacedCode
from ebpfjit.optimizer.registers import place
from ebpfjit.optimizer.text import from_text
from ebpfjit.options import NOTHING_PROMISED
from ebpfjit.program import Program
from ebpfjit.translators.machine import Registers
from ebpfjit.translators.x86_64.target import AUDITED_VALUES, VALUES

Step = Move | Placed
MEMORY = bytes(range(1, 65))


def verified(source: str) -> Verified:
    """Return a program, ready."""
    return prepare(Program.from_bytes(assemble(source)))


def code_of(text: str, source: str = "exit") -> Code:
    """Return text as Code of a program, checked."""
    code = from_text(text, verified(source))
    check(code)
    return code


def placed_of(code: Code, registers: Registers = VALUES) -> PlacedCode:
    """Return code with registers, checked."""
    placed = place(code, registers)
    check_placed(placed, registers)
    return placed


def steps_of(placed: PlacedCode, number: int) -> list[Step]:
    """Return what a block does, its end too."""
    block = placed.blocks[number]
    assert block is not None  # something leads there
    return block.steps


def with_kind(steps: list[Step], kind: Kind) -> list[Placed]:
    """Return the operations of a kind."""
    return [step for step in steps if isinstance(step, Placed) and step.row.kind is kind]


def on_both(
    code: Code, given: Sequence[Input] = (Input(MEMORY),), build: str = "native"
) -> Iterator[tuple[Outcome, Outcome]]:
    """Yield how Code ends on each input, in the interpreter, and as machine code."""
    verified, place_ = code.verified, arena()
    placed_of(code, AUDITED_VALUES if build.startswith("audit") else VALUES)
    case = Case(b"", tuple(given), build=build)
    with patch.object(compiler, "optimised_parts", lambda *_, **__: [(code, Known(NOTHING_PROMISED))]):
        run = runner_of(compiled_case(case, verified))
        first = run(given[0])  # it is made when it runs for the first time
    for number, each in enumerate(given):
        got = run(each) if number else first
        assert got is not None  # machine code always answers
        expected = outcome_of(
            lambda execution: interpret(verified, execution, machine=lambda state: CodeState(code, state)),
            place_.start(each),
            place_,
        )
        yield expected, got


def agree(code: Code, given: Sequence[Input] = (Input(MEMORY),), build: str = "native") -> None:
    """Assert that Code in the interpreter, and as machine code, end as the program does."""
    verified, place_ = code.verified, arena()
    for each, outcomes in zip(given, on_both(code, given, build), strict=True):
        said = outcome_of(lambda execution: interpret(verified, execution), place_.start(each), place_)
        expected = said.kind, said.value, said.memory, said.attributes, said.budget_left
        for got in outcomes:
            left = got.budget_left if got.kind == "ok" else said.budget_left
            assert (got.kind, got.value, got.memory, got.attributes, left) == expected, each
