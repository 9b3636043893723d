"""What runs are given: one door for `run`, `compile`, the machines and the fixtures."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from typing import Any

import pytest

from ebpfjit import (
    BudgetExhausted,
    Clock,
    EbpfVmFixedMbuff,
    EbpfVmRaw,
    Environment,
    InputError,
    Program,
    assembler,
    engines,
    runtime_info,
)
from ebpfjit.literals import ENGINES, ActionName, TypeName
from ebpfjit.runtime.contexts.types import TYPES
from ebpfjit.runtime.helpers import table

UNTYPED: Any = None
FRAME = bytes(60)
CLOCK = Program(assembler.assemble("call 5\nexit"), name="clock", type="xdp")
SPIN = Program(assembler.assemble("ja -1\nexit"), name="spin", type="xdp")


def seven(*_: int) -> int:
    return 7


DOORS: dict[str, Callable[..., object]] = {
    "run": lambda **given: CLOCK.run(FRAME, **given),
    "compile": lambda **given: CLOCK.compile(**given),
    "listing": lambda **given: CLOCK.listing(**given),
    "trace": lambda **given: CLOCK.trace(FRAME, **given),
    "raw": lambda **given: EbpfVmRaw(CLOCK, **given),
    "fixed": lambda **given: EbpfVmFixedMbuff(CLOCK, 0, 8, **given),
}


@pytest.mark.parametrize("door", DOORS)
@pytest.mark.parametrize(
    ("given", "error", "words"),
    [
        ({"limit": -1}, ValueError, "limit is a number of instructions, or None"),
        ({"limit": "5"}, ValueError, "limit is a number of instructions, or None"),
        ({"helpers": [seven]}, TypeError, "helpers maps numbers or names to functions, not a list"),
        ({"helpers": {5: 7}}, TypeError, "helper 5 cannot be called: it is of type int"),
        ({"helpers": {"bpf_nonesuch": seven}}, InputError, "Linux has no helper 'bpf_nonesuch'"),
        ({"helpers": {-1: seven}}, InputError, "a helper's number is from 0 to 4294967295, not -1"),
        ({"helpers": {None: seven}}, TypeError, "a helper's key is a number or a name, not None"),
        ({"kfuncs": [seven]}, TypeError, "kfuncs maps numbers or names to functions, not a list"),
        ({"kfuncs": {"f": 7}}, TypeError, "kfunc 'f' cannot be called: it is of type int"),
        ({"environment": {"cpu": 1}}, TypeError, "environment is an Environment, not of type dict"),
        ({"context": [5]}, TypeError, "context is a mapping of field names to numbers, not list"),
        ({"repeat": 0}, ValueError, "repeat is how often the program runs, at least once, not 0"),
        ({"repeat": "2"}, ValueError, "repeat is how often the program runs, at least once, not '2'"),
    ],
)
def test_all_doors_say_the_same(door: str, given: dict[str, Any], error: type[Exception], words: str) -> None:
    of_a_run = {("listing", "limit"), ("listing", "context"), ("listing", "repeat"), ("trace", "repeat")}
    if (door, *given) in of_a_run:
        error, words = TypeError, "unexpected keyword argument"  # where there is nothing that it could be of
    with pytest.raises(error, match=words):
        DOORS[door](**given)


def test_what_runs_alone_take() -> None:
    with pytest.raises(ValueError, match="no engine 'abacus'; there are: jit, interpreter, kernel"):
        CLOCK.run(FRAME, engine="abacus")  # type: ignore[arg-type] # what is asked for
    for repeat in (0, -1, "2", None):
        with pytest.raises(ValueError, match="repeat is how often the program runs"):
            CLOCK.run(FRAME, repeat=repeat)  # type: ignore[arg-type] # what is asked for


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"limit": 5}, "the kernel has a limit of its own"),
        ({"helpers": {5: seven}}, "the kernel has its own helpers"),
        ({"kfuncs": {"f": seven}}, "the kernel has its own kfuncs"),
        ({"environment": Environment(clock=Clock(5))}, "the kernel has its own clock"),
        ({"environment": Environment(socket_cookie=5)}, "the kernel has its own socket_cookie"),
    ],
)
def test_what_the_kernel_cannot_honour(given: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        CLOCK.run(FRAME, engine="kernel", **given)


@pytest.mark.parametrize("engine", ["interpreter", "jit"])
def test_repeat_runs_on_the_same_data_and_on_the_maps_as_they_are(engine: Any) -> None:
    calls: list[int] = []
    adding = "ldxw r6, [r1]\nldxb r0, [r6]\nadd r0, 1\nstxb [r6], r0\nmov r7, r0\ncall 999\nmov r0, r7\nexit"
    program = Program(assembler.assemble(adding), type="xdp")

    def helper(*_: int) -> int:
        calls.append(1)
        return 0

    result = program.run(FRAME, engine=engine, helpers={999: helper}, repeat=3)
    assert (result.return_value, result.data[0], len(calls)) == (1, 1, 3)
    printing = Program(
        assembler.assemble("mov r1, r10\nadd r1, -8\nstdw [r1], 0x41\nmov r2, 2\ncall 6\nexit"), type="xdp"
    )
    assert printing.run(FRAME, engine=engine, repeat=2).output == ("A", "A")


@pytest.mark.parametrize("door", ["raw", "fixed"])
def test_machines_have_no_context(door: str) -> None:
    with pytest.raises(ValueError, match="a machine's program gets memory, and no context whose fields"):
        DOORS[door](context={"mark": 1})
    DOORS[door](context={})


def test_compiled_functions_and_machines_repeat() -> None:
    counting = Program(assembler.assemble("ldxb r6, [r1]\nadd r6, 1\nstxb [r1], r6\ncall 999\nexit"))
    calls: list[int] = []

    def helper(*_: int) -> int:
        calls.append(1)
        return len(calls)

    given: dict[str, Any] = {"helpers": {999: helper}, "repeat": 3}
    function, machine = counting.compile(**given), EbpfVmRaw(counting, **given)
    machine.jit_compile()
    memory = bytearray(1)
    results = [each(memory) for each in (function, machine.execute_program, machine.execute_program_jit)]
    assert (results, memory[0]) == ([3, 6, 9], 9)
    assert list(function.map([memory, memory])) == [12, 15]
    assert "each call is prepared in Python: it runs the program 3 times" in function.explain()
    frames = Program(
        assembler.assemble("ldxw r7, [r1]\nldxb r0, [r7]\nadd r0, 1\nstxb [r7], r0\nexit"), type="xdp"
    )
    typed = frames.compile(repeat=4)
    assert typed(FRAME) == pickle.loads(pickle.dumps(typed))(FRAME) == 1  # the same data each time
    again = pickle.loads(pickle.dumps(EbpfVmRaw(SPIN, repeat=2)))
    assert again.repeat == 2


def test_machines_with_an_environment_are_called_natively() -> None:
    machine = EbpfVmRaw(CLOCK, environment=Environment(clock=Clock(12345)), helpers={5: table.bound()[5]})
    machine.jit_compile()
    assert machine.execute_program_jit(FRAME) == machine.execute_program(FRAME) == 12345
    assert "execute_program_jit" in vars(machine)
    assert [machine.execute_program_jit(memory) for memory in (b"", bytearray(9), FRAME)] == [12345] * 3
    machine.environment, machine.repeat = Environment(clock=Clock(7)), 2
    assert machine.execute_program_jit(FRAME) == 7
    assert "execute_program_jit" not in vars(machine)


def test_compiled_functions_take_environment_and_context() -> None:
    function = CLOCK.compile(environment=Environment(clock=Clock(12345)))
    assert function(FRAME) == 12345
    assert pickle.loads(pickle.dumps(CLOCK.compile(environment=Environment(clock=Clock(5)))))(FRAME) == 5
    mark = Program(assembler.assemble("ldxw r0, [r1+8]\nexit"), type="tc").compile(context={"mark": 77})
    assert mark(FRAME) == 77
    assert mark.map([FRAME, FRAME]).tolist() == [77, 77]
    assert pickle.loads(pickle.dumps(mark))(FRAME) == 77
    with pytest.raises(InputError, match="has no type, so no context"):
        Program(assembler.assemble("exit")).compile(context={"mark": 1})
    with pytest.raises(InputError, match="nonesuch"):
        CLOCK.compile(context={"nonesuch": 1})(FRAME)


def test_machines_take_what_runs_take() -> None:
    code = assembler.assemble("call 999\nmov r6, r0\ncall 5\nadd r0, r6\nexit")
    vm = EbpfVmRaw(code, helpers={999: seven, "bpf_ktime_get_ns": lambda *_: 10}, limit=100)
    vm.jit_compile()
    again = pickle.loads(pickle.dumps(EbpfVmRaw(code, helpers={999: seven, 5: seven}, limit=100)))
    assert (vm.execute_program(b""), vm.execute_program_jit(b""), vm.instruction_limit) == (17, 17, 100)
    assert (again.execute_program(b""), again.instruction_limit) == (14, 100)
    for limit in (0, 5):
        spin = EbpfVmFixedMbuff(SPIN, 0, 8, limit=limit)
        spin.jit_compile()
        for run in (spin.execute_program, spin.execute_program_jit):
            with pytest.raises(BudgetExhausted):
                run(b"")
    with pytest.raises(ValueError, match="two names of one option"):
        EbpfVmRaw(code, limit=5, instruction_limit=5)


def test_a_machine_with_an_environment_has_a_world() -> None:
    program = Program(assembler.assemble("call 5\nexit"))
    vm = EbpfVmRaw(program, helpers={5: table.bound()[5]}, environment=Environment(clock=Clock(99)))
    assert vm.execute_program(b"") == 99
    vm.jit_compile()
    assert vm.execute_program_jit(b"") == 99


def test_kfuncs_of_machines_are_found_by_name() -> None:
    from ebpfjit.program import Kfunc, Number

    code = assembler.assemble("mov r1, 3\ncall 0\nexit").replace(
        b"\x85\x00\x00\x00\x00", b"\x85\x20\x00\x00\x09", 1
    )
    word = Number(4)
    program = Program(code, kfuncs={9: Kfunc("triple", (word,), word)})
    vm = EbpfVmRaw(program, kfuncs={"triple": lambda number: 3 * number})
    vm.jit_compile()
    assert (vm.execute_program(b""), vm.execute_program_jit(b"")) == (9, 9)


# Engines, and the names there are


def test_one_function_says_whether_an_engine_is_here(monkeypatch: pytest.MonkeyPatch) -> None:
    states = {name: engines.unavailable(name) or "available" for name in ENGINES}
    assert runtime_info().engines == states
    assert states["interpreter"] == "available"
    with pytest.raises(ValueError, match="no engine 'abacus'"):
        engines.unavailable("abacus")  # type: ignore[arg-type] # what is asked for
    monkeypatch.setitem(engines._REASONS, "jit", lambda: "no assembler")
    assert engines.best_engine() == "interpreter"
    assert CLOCK.run(FRAME).instructions == 2
    assert runtime_info().gate == "none"


def test_literals_are_the_names_that_there_are() -> None:
    from typing import get_args

    assert set(get_args(TypeName)) == set(TYPES)
    assert set(get_args(ActionName)) == {name for each in TYPES.values() for name in each.actions.values()}
