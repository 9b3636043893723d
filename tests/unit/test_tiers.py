"""Programs that start in baseline code and go on in optimised code: between calls, and in a call."""

from __future__ import annotations

import gc
import pickle
import threading
import time
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ebpfjit import (
    BudgetExhausted,
    EbpfVmFixedMbuff,
    EbpfVmMbuff,
    EbpfVmNoData,
    EbpfVmRaw,
    JitFunction,
    MemoryFault,
    Program,
    TranslationError,
    address_of,
    load,
)
from ebpfjit.analysis.verified import prepare
from ebpfjit.assembler import assemble
from ebpfjit.bench.inputs import KERNELS, SOURCES
from ebpfjit.jit import gate, tiers
from ebpfjit.jit.entry import compile_program
from ebpfjit.options import Options
from ebpfjit.runtime.execution import SLICE
from ebpfjit.sealed import inside
from ebpfjit.translators.block import CALL_COST, NANOSECOND_COST

pytestmark = pytest.mark.skipif(bool(gate.why_not()), reason=f"no native gate: {gate.why_not()}")

SUM = """
    mov r0, 0
    mov r3, r1
    add r2, r1
loop:
    ldxb r4, [r3]
    add r0, r4
    add r3, 1
    jlt r3, r2, loop
    exit
"""
MEMORY = bytes(range(64))
TOTAL = sum(MEMORY)
LAST = "mov r0, r2\nadd r1, r2\nldxb r0, [r1-1]\nexit"


@pytest.fixture(autouse=True)
def tiered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EBPFJIT_TIERS", "on")


def compiled(text: str, **options: Any) -> JitFunction:
    return Program.from_bytes(assemble(text)).compile(**options)


def calls_until(function: JitFunction, call: Callable[[], int], expected: int) -> int:
    """Call until calls run optimised code; all of them return the same."""
    calls = 0
    while not function.is_optimized:
        assert call() == expected
        calls += 1
        assert calls < 1_000_000, "it never gets there"
    assert call() == expected
    return calls


def hasten(function: Any, first: int = SLICE) -> None:
    """Let the program have cost nearly enough, and the first slice of its calls be short."""
    inside(function).gate.shorten(first)


def test_a_program_is_optimised_once_its_calls_have_cost_as_much() -> None:
    function = compiled(SUM)
    assert not function.is_optimized
    calls = calls_until(function, lambda: function(MEMORY), TOTAL)
    cost = CALL_COST + 4 + 4 * len(MEMORY)
    assert calls == -(-tiers.heat_of(Program.from_bytes(assemble(SUM))) // cost)


def test_time_in_helpers_of_python_counts() -> None:
    def helper(*_: int) -> int:
        begun = time.monotonic_ns()
        while (time.monotonic_ns() - begun) * NANOSECOND_COST < heat // 3:
            pass
        return 5

    text = "mov r6, 3\nloop: call 1\nsub r6, 1\njne r6, 0, loop\nexit"
    heat = tiers.heat_of(Program.from_bytes(assemble(text)))
    function = compiled(text, helpers={1: helper})
    assert calls_until(function, function, 5) == 1


def test_calls_that_fault_are_not_counted_and_do_not_disturb() -> None:
    function = compiled(LAST)
    hasten(function)
    for _ in range(3):
        with pytest.raises(MemoryFault) as raised:
            function(b"")
        assert raised.value.pc == 2
    assert not function.is_optimized
    assert function(MEMORY) == 63
    assert function.is_optimized
    with pytest.raises(MemoryFault, match="pc 2"):
        function(b"")


@pytest.mark.parametrize("optimize", [True, False])
def test_who_says_what_it_is_to_be_gets_that(optimize: bool) -> None:
    function = compiled(SUM, optimize=optimize)
    for _ in range(3):
        assert function(MEMORY * 1000) == TOTAL * 1000
    assert function.is_optimized is optimize
    function.listing()
    assert function.is_optimized is optimize


def test_programs_are_optimised_at_once_where_nothing_would_count(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert compiled(SUM, cache=tmp_path).is_optimized
    assert compiled(SUM, harden=True).is_optimized
    assert Program(assemble("mov r0, 0\nexit"), type="sk_skb").compile().is_optimized  # it has no lane
    monkeypatch.setenv("EBPFJIT_TIERS", "off")
    assert compiled(SUM).is_optimized
    monkeypatch.setenv("EBPFJIT_TIERS", "on")
    monkeypatch.setattr(gate, "LARGEST_FRAME", 0)  # as where a run takes too much of the thread's stack
    function = compiled(SUM)
    assert inside(function).gate is None
    assert function.is_optimized
    vm = EbpfVmRaw(assemble(SUM))
    vm.jit_compile()
    assert vm.execute_program_jit(MEMORY) == TOTAL


def test_what_is_looked_at_or_saved_is_the_code_that_stays(tmp_path: Path) -> None:
    exits = "; baseline code, where side exits go on"
    shown, saved = compiled(SUM), compiled(SUM)
    assert exits not in compiled(SUM, optimize=False).listing()
    assert exits in shown.listing()
    assert shown.is_optimized
    saved.save(tmp_path / "saved")
    again = JitFunction.load(tmp_path / "saved")
    assert again.is_optimized
    assert saved(MEMORY) == shown(MEMORY) == again(MEMORY) == TOTAL
    assert exits in EbpfVmRaw(assemble(SUM)).listing()


def test_a_function_pickles_as_it_was_asked_for() -> None:
    for optimize in (None, True, False):
        function = compiled(SUM, optimize=optimize)
        again = pickle.loads(pickle.dumps(function))
        assert again.optimize is optimize
        assert again.is_optimized is bool(optimize)
        assert again(MEMORY) == TOTAL


# -- in the middle of a call ------------------------------------------------------------------------


def test_one_long_call_goes_on_in_optimised_code() -> None:
    rounds = 2 * SLICE
    function = compiled(f"mov r0, 0\nmov r3, {rounds}\nloop: add r0, 2\nsub r3, 1\njne r3, 0, loop\nexit")
    assert function() == 2 * rounds
    assert function.is_optimized


@pytest.mark.parametrize("first", [1, 2, 3, 5, 8, 50, 100, 259])
def test_a_run_may_change_over_at_any_round(first: int) -> None:
    function = compiled(SUM)
    hasten(function, first)
    assert function(MEMORY) == TOTAL
    assert function.is_optimized


@pytest.mark.parametrize("kernel", KERNELS, ids=lambda kernel: kernel.name)
@pytest.mark.parametrize("first", [7, 100, 1000])
def test_kernels_do_the_same_wherever_they_change_over(kernel: Any, first: int) -> None:
    program = load(SOURCES / f"{kernel.name}.o").program("kernel")
    memory = kernel.memory(kernel.small)
    one, other = bytearray(memory), bytearray(memory)
    function = program.compile()
    hasten(function, first)
    assert function(one) == program.compile(optimize=True)(other)
    assert one == other
    assert all(inside(function).resumed.values())  # each loop that it was in could be gone on with


def test_a_fault_behind_the_change_is_the_interpreters() -> None:
    """Before the loop all its bytes are asked for at once; where they are not there it checks one by one."""
    text = "mov r3, 100\nloop: ldxb r4, [r1]\nstxb [r1], r0\nadd r1, 1\nsub r3, 1\njne r3, 0, loop\nexit"
    for first in (1, 9, 40, 200, 313):
        ours, theirs = bytearray(64), bytearray(64)
        function, vm = compiled(text), EbpfVmRaw(assemble(text))
        hasten(function, first)
        with pytest.raises(MemoryFault) as raised:
            function(ours)
        with pytest.raises(MemoryFault) as expected:
            vm.execute_program(theirs)
        assert (raised.value.pc, raised.value.access, raised.value.size) == (1, "load", 1)
        assert raised.value.pc == expected.value.pc
        assert ours == theirs
        assert inside(function).resumed


def test_read_only_memory_stays_as_it_is_behind_the_change() -> None:
    body = "ldxb r4, [r1]\nadd r4, 1\nstxb [r1], r4\nadd r1, 1"
    text = f"mov r3, 60\nloop: {body}\nsub r3, 1\njne r3, 0, loop\nexit"
    for first in (1, 2, 7):
        function, memory = compiled(text), bytes(64)
        hasten(function, first)
        with pytest.raises(MemoryFault) as raised:
            function(memory)
        assert (raised.value.pc, raised.value.access) == (3, "store")
        assert memory == bytes(64)


@pytest.mark.parametrize("limit", [10, 100, 255, 256, 257, 258, 259, 260, 261, 300])
def test_an_instruction_limit_holds_over_the_change(limit: int) -> None:
    for first in (1, 20, 200):
        function = compiled(SUM, limit=limit)
        hasten(function, first)
        vm = EbpfVmRaw(assemble(SUM), instruction_limit=limit)
        try:
            expected: Any = vm.execute_program(MEMORY)
        except BudgetExhausted as error:
            expected = error.pc
        try:
            found: Any = function(MEMORY)
        except BudgetExhausted as error:
            found = error.pc
        assert found == expected


def test_inside_a_function_of_the_program_a_run_stays_where_it_is() -> None:
    """What called it is the baseline code, which it returns to; the change comes behind that."""
    text = """
        mov r6, 40
        mov r7, 0
    again:
        mov r1, 30
        call local twice
        add r7, r0
        sub r6, 1
        jne r6, 0, again
        mov r0, r7
        exit
    twice:
        mov r0, 0
    loop:
        stxdw [r10-8], r1
        ldxdw r2, [r10-8]
        add r0, r2
        sub r1, 1
        jne r1, 0, loop
        exit
    """
    for first in range(1, 400, 7):
        function = compiled(text)
        hasten(function, first)
        assert function() == 40 * 465
        assert function.is_optimized


def test_helpers_are_called_on_both_sides() -> None:
    seen: list[tuple[bool, int]] = []

    def helper(r1: int, r2: int, *_: int) -> int:
        seen.append((bool(inside(function).resumed), r2))
        return r2 + 1

    text = "mov r6, 50\nmov r2, 0\nloop: mov r1, 7\ncall 1\nmov r2, r0\nsub r6, 1\njne r6, 0, loop\nexit"
    function = compiled(text, helpers={1: helper})
    hasten(function, 60)
    assert function() == 50
    assert [number for _, number in seen] == list(range(50))
    assert {optimised for optimised, _ in seen} == {True, False}


def test_a_helper_may_make_the_program_hot_that_it_was_called_by() -> None:
    depth = 0

    def helper(*_: int) -> int:
        nonlocal depth
        depth += 1
        return function(MEMORY) if depth < 4 else 5

    function = compiled("call 1\nadd r0, 1\nexit", helpers={1: helper})
    hasten(function)
    assert function(MEMORY) == 9
    assert function.is_optimized
    depth = 0
    assert function(MEMORY) == 9


# -- where something goes wrong ---------------------------------------------------------------------


@pytest.mark.parametrize("error", [TranslationError("no"), MemoryError(), OSError("no memory")])
@pytest.mark.parametrize("first", [SLICE, 20])
def test_what_cannot_be_optimised_goes_on_as_it_is(error: Exception, first: int) -> None:
    tried = []

    def better(options: Options) -> Any:
        tried.append(options)
        raise error

    function = compiled(SUM)
    assert inside(function).gate is not None
    inside(function).gate.better = inside(function).gate.anew = better
    hasten(function, first)
    assert [function(MEMORY) for _ in range(5)] == [TOTAL] * 5
    assert len(tried) <= 2  # for the run that lasted, and for calls
    assert not function.is_optimized


@pytest.mark.parametrize("first", [SLICE, 20])
def test_ctrl_c_meanwhile_is_raised(first: int) -> None:
    errors = [KeyboardInterrupt(), MemoryError()]

    def better(_: Options) -> Any:
        raise errors.pop(0)

    function = compiled(SUM)
    assert inside(function).gate is not None
    inside(function).gate.better = inside(function).gate.anew = better
    hasten(function, first)
    with pytest.raises(KeyboardInterrupt):
        function(MEMORY)
    assert function(MEMORY) == TOTAL


def test_a_function_takes_its_code_along_when_it_goes() -> None:
    for hot in (False, True):
        function = compiled(SUM)
        if hot:
            hasten(function)
        function(MEMORY)
        assert function.is_optimized is hot
        gone = [weakref.ref(function), weakref.ref(inside(function).gate)]
        del function
        gc.collect()
        assert [each() for each in gone] == [None, None]


def test_threads_become_hot_together() -> None:
    function = compiled(SUM, release_gil=True)
    wrong: list[int] = []
    start = threading.Barrier(4)

    def work() -> None:
        start.wait()
        wrong.extend(result for _ in range(3000) if (result := function(MEMORY)) != TOTAL)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    assert function.is_optimized


# -- batches, lanes, machines -----------------------------------------------------------------------


def test_a_batch_counts_its_packets_before_it_runs() -> None:
    text = "ldxb r0, [r1+3]\nexit"
    few, many = compiled(text), compiled(text)
    packets = [MEMORY] * 100
    assert few.map(packets).tolist() == [3] * 100
    assert not few.is_optimized
    assert many.map(MEMORY * 40_000, stride=64).tolist() == [3] * 40_000
    assert many.is_optimized
    for _ in range(300):
        few.map(packets)
    assert few.is_optimized
    hasten(slow := compiled(SUM), 20)  # short slices do not take a batch over
    assert slow.map(packets).tolist() == [TOTAL] * 100


XDP = """
    ldxw r2, [r1+0]
    ldxw r3, [r1+4]
    mov r0, 0
    mov r4, r2
    add r4, 14
    jgt r4, r3, out
loop:
    ldxb r5, [r2]
    add r0, r5
    add r2, 1
    jlt r2, r3, loop
out:
    exit
"""


@pytest.mark.parametrize("first", [SLICE, 1, 30, 100])
def test_programs_on_packets_tier_up_too(first: int) -> None:
    function = Program(assemble(XDP), type="xdp").compile()
    assert not function.is_optimized
    hasten(function, first)
    assert [function(MEMORY) for _ in range(3)] == [TOTAL] * 3
    assert function.is_optimized
    assert function.map([MEMORY] * 3).tolist() == [TOTAL] * 3
    assert function(bytearray(MEMORY) * 2) == 2 * TOTAL


MACHINES: dict[str, Callable[..., Any]] = {
    "raw": EbpfVmRaw,
    "mbuff": EbpfVmMbuff,
    "fixed": lambda code, **options: EbpfVmFixedMbuff(code, 0, 8, **options),
    "no data": EbpfVmNoData,
}


@pytest.mark.parametrize("kind", MACHINES)
def test_machines_tier_up_and_keep_what_they_were_told(kind: str) -> None:
    """A limit and memory that came after compiling hold for the other code as well."""
    more = bytearray(b"\x2a")
    text = f"lddw r1, {address_of(more)}\nldxb r0, [r1]\nmov r3, 10\nloop: sub r3, 1\njne r3, 0, loop\nexit"
    vm = MACHINES[kind](assemble(text))
    arguments = {"raw": (MEMORY,), "mbuff": (MEMORY, bytes(8)), "fixed": (MEMORY,), "no data": ()}[kind]
    vm.jit_compile()
    run = vm.execute_program_jit
    with pytest.raises(MemoryFault):
        run(*arguments)
    vm.register_allowed_memory(more)
    vm.instruction_limit = 24
    inside(vm._entry).gate.shorten(5)
    assert run(*arguments) == 42
    assert inside(vm._entry).gate.better is None
    assert run(*arguments) == vm.execute_program_jit(*arguments) == 42
    vm.instruction_limit = 23
    with pytest.raises(BudgetExhausted):
        run(*arguments)
    assert "no check" in vm.listing() or "checked" in vm.listing()


def test_a_machine_calls_the_helpers_that_it_was_compiled_with() -> None:
    vm = EbpfVmNoData(assemble("call 1\nexit"))
    vm.register_helper(1, lambda *_: 1)
    vm.jit_compile()
    before = vm.execute_program_jit
    inside(vm._entry).gate.shorten(SLICE)
    vm.register_helper(1, lambda *_: 2)
    assert [before(), before(), before()] == [1, 1, 1]
    assert vm.execute_program_jit() == 2


def test_to_a_block_that_nothing_leads_to_no_run_comes() -> None:
    """So optimised code has no way in there, and says so: runs stay where they are."""
    verified = prepare(Program(assemble("mov r0, 0\nexit\nloop: add r0, 1\njne r0, 9, loop\nexit")))
    assert 2 in verified.tested
    image = compile_program(verified, Options(resumes=frozenset({0, 2}))).image
    assert set(image.resumes) == {0}
