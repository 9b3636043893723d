"""What helpers may ask of the engine that runs the program: call a function, end a function."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from ebpfjit.analysis.verified import prepare
from ebpfjit.assembler import assemble
from ebpfjit.errors import BudgetExhausted, CallDepthExceeded, ExecutionError, IllegalInstruction, MemoryFault
from ebpfjit.interpreter import interpret
from ebpfjit.jit.entry import compile_program
from ebpfjit.program import Program
from ebpfjit.runtime.environment import Environment
from ebpfjit.runtime.execution import Execution, HelperFunction
from ebpfjit.runtime.world import Engine, World, current

Outcome = tuple[object, ...]


def engine() -> Engine:
    world = current()
    assert world is not None
    assert world.engine is not None
    return world.engine


def call_times(count: int, function: int, context: int, unused4: int, unused5: int) -> int:
    """As bpf_loop: call function(index, context) until it returns something else than 0."""
    for index in range(count):
        if engine().call_function(function, (index, context)):
            return index + 1
    return count


def leave_with(value: int, wanted: int, unused3: int, unused4: int, unused5: int) -> int:
    """As bpf_tail_call: where `wanted`, the function that called ends with `value`."""
    if wanted:
        engine().leave_function()
    return value


def forgive(function: int, unused2: int, unused3: int, unused4: int, unused5: int) -> int:
    """Call a function that faults, and go on."""
    with pytest.raises(ExecutionError):
        engine().call_function(function, ())
    return 99


HELPERS: dict[int, HelperFunction] = {181: call_times, 12: leave_with, 7: forgive}


def outcome(run: Callable[[], int], execution: Execution) -> Outcome:
    try:
        return run(), execution.budget_left
    except ExecutionError as error:
        # Stacks of the two runs are at different addresses.
        return type(error), error.pc, str(error).split("at 0x")[0], execution.budget_left


def both(text: str, limit: int | None = None) -> Outcome:
    verified = prepare(Program.from_bytes(assemble(text)))
    seen = []
    for run in (interpret, lambda v, e: compile_program(v, helpers=HELPERS).run(e)):
        execution = Execution((0, 0), [], helpers=HELPERS, limit=limit, world=World(Environment()))
        seen.append(outcome(lambda run=run, execution=execution: run(verified, execution), execution))  # type: ignore[misc]
    assert seen[0] == seen[1]
    return seen[0]


LOOP = """
    mov r6, 1000
    mov r1, {count}
    lddw r2, body
    mov r3, r10
    add r3, -8
    stdw [r10-8], 0
    call 181
    mov r7, r0
    ldxdw r0, [r10-8]
    add r0, r6
    lsh r7, 32
    add r0, r7
    exit
body:
    {body}
"""
SUM = """
    ldxdw r3, [r2]
    add r3, r1
    stxdw [r2], r3
    mov r6, 5
    stxdw [r10-8], r6
    mov r0, 0
    jlt r1, 6, +1
    mov r0, 1
    exit
"""


def loop(count: int, body: str = SUM, limit: int | None = None) -> Outcome:
    return both(LOOP.format(count=count, body=body), limit)


def test_a_helper_calls_functions_of_the_program() -> None:
    assert loop(3)[0] == (3 << 32) + 1000 + 0 + 1 + 2


def test_a_function_tells_its_caller_when_to_stop() -> None:
    assert loop(100)[0] == (7 << 32) + 1000 + sum(range(7))


def test_registers_of_a_called_function_start_as_zero() -> None:
    looked = "".join(f"or r0, r{number}\n" for number in (3, 4, 5, 6, 7, 8, 9))
    body = f"ldxdw r0, [r2]\n {looked} stxdw [r2], r0\n mov r0, 0\n exit"
    assert loop(2, body)[0] == (2 << 32) + 1000


def test_a_fault_in_a_called_function_has_its_own_pc() -> None:
    seen = loop(2, "ldxdw r0, [r1+0]\n exit")
    assert seen[0] is MemoryFault
    assert seen[1] == 14


def test_what_is_no_function_is_a_fault_of_the_call() -> None:
    seen = both("mov r1, 1\n mov r2, 77\n lddw r3, f\n call 181\n exit\n f: exit")
    assert seen[0] is IllegalInstruction
    assert seen[1] == 4


@pytest.mark.parametrize("limit", range(1, 60, 3))
def test_the_budget_is_shared(limit: int) -> None:
    seen = loop(3, limit=limit)
    assert seen[0] is BudgetExhausted or isinstance(seen[0], int)


def test_called_functions_take_frames() -> None:
    nested = """
        lddw r2, f
        mov r1, 1
        call 181
        exit
    f:
        mov r1, 1
        lddw r2, f
        call 181
        add r0, 1
        exit
    """
    assert both(nested)[:2] == (CallDepthExceeded, 8)


def test_the_caller_goes_on_after_a_fault_that_the_helper_caught() -> None:
    assert both("lddw r1, f\n mov r6, 1\n call 7\n add r0, r6\n exit\n f: ldxb r0, [r0]\n exit")[0] == 100


def test_a_helper_ends_the_program() -> None:
    assert both("mov r1, 5\n mov r2, 1\n call 12\n mov r0, 9\n exit")[0] == 5
    assert both("mov r1, 5\n mov r2, 0\n call 12\n mov r0, 9\n exit")[0] == 9


def test_a_helper_ends_the_function_that_called_it() -> None:
    function = "mov r1, 5\n mov r2, 1\n mov r6, 8\n call 12\n mov r0, 9\n exit"
    assert both(f"mov r6, 3\n call f\n add r0, r6\n exit\n f: {function}")[0] == 8


def test_a_function_that_a_helper_called_ends_as_well() -> None:
    body = "mov r1, 0\n mov r2, 1\n call 12\n mov r0, 1\n exit"
    assert loop(4, body)[0] == (4 << 32) + 1000
