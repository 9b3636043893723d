"""Runs inside of runs end in a RecursionError, long before the thread's C stack does.

However a run is started, however much of the stack its program asks for, however deep Python lets calls be.
"""

from __future__ import annotations

import resource
import struct
import sys
import threading
from collections.abc import Callable
from typing import Any

import pytest

from ebpfjit import EbpfVmFixedMbuff, EbpfVmMbuff, EbpfVmNoData, EbpfVmRaw, Program
from ebpfjit.assembler import assemble
from ebpfjit.difftest.children import Ended, run_forked
from ebpfjit.errors import StackExhausted
from ebpfjit.jit.gate import LARGEST_MBUFF
from ebpfjit.runtime import c_stack
from ebpfjit.runtime.maps.creation import create
from ebpfjit.runtime.maps.definition import MapDefinition, MapType
from ebpfjit.translators.block import MOST_LIMITS
from tests.support.whole import part

KIB = 1024
LOOP, TAIL_CALL = 181, 12
READS = "\n".join(
    f"ldxb r0, [r6+{i}]\njset r0, 256, out" for i in range(2000)
)  # each at a distance of its own
LARGE = assemble(f"mov r6, r1\nldxw r1, [r6+0]\ncall 5\njne r1, 0, go\nexit\ngo:\n{READS}\nout:\nexit")
DEEP = assemble(
    "mov r6, r1\nldxw r1, [r6+0]\n"
    + "".join(f"call local f{n}\nexit\nf{n}: stxdw [r10-8], r1\n" for n in range(6))
    + "call 5\nexit"
)
SMALL = assemble("ldxw r1, [r1+0]\ncall 5\nexit")
PROGRAMS = {"large": LARGE, "deep": DEEP, "small": SMALL}
STACKS = [(name, size) for name in PROGRAMS for size in (0, 256 * KIB, 64 * KIB)]
STACKS.remove(("large", 64 * KIB))  # compiling it takes more


def in_thread(size: int, job: Callable[[], Any]) -> Any:
    """Run a job on a stack of so many bytes, 0 for this thread's."""
    found: list[Any] = []
    if not size:
        return job()
    threading.stack_size(size)
    thread = threading.Thread(target=lambda: found.append(job()))
    thread.start()
    thread.join()
    threading.stack_size(0)
    return found[0]


def reenter(code: bytes, ways: str, size: int, limit: int = 100_000, **options: Any) -> Ended:
    """Return what ends a program that runs itself inside of itself, and how often it did.

    `ways` says how, in turns: g(ate), c(types), i(nterpreter), b(atch), f(unction).
    """

    def job() -> tuple[str, bool, int]:
        vm = EbpfVmRaw(code, **options)
        depth = 0

        def helper(*_: int) -> int:
            nonlocal depth
            depth += 1
            return again[ways[depth % len(ways)]](struct.pack("<I", depth))

        vm.register_helper(5, helper)
        again: dict[str, Callable[[bytes], int]] = {"i": vm.execute_program}
        if set(ways) & {*"gc"}:
            vm.jit_compile()
            again["g"] = vm.execute_program_jit
            again["c"] = lambda data: EbpfVmRaw.execute_program_jit(vm, data)
        if set(ways) & {*"bf"}:
            function = Program.from_bytes(code).compile(helpers={5: helper}, **options)
            again["b"] = lambda data: function.map([data])[0]
            again["f"] = function
        sys.setrecursionlimit(limit)
        try:
            again[ways[0]](bytes(4))
        except RecursionError as error:
            return type(error).__name__, isinstance(error, StackExhausted), depth
        return "it came back", False, depth

    return run_forked(lambda: in_thread(size, job), 120)


WAYS = ("g", "c", "i", "b", "f", "gi", "cg", "ic", "gbif")


@pytest.mark.parametrize(
    ("name", "size", "ways"), part([(*stack, ways) for ways in WAYS for stack in STACKS], 3)
)
def test_reentry_ends_in_a_recursion_error(name: str, ways: str, size: int) -> None:
    """Also where Python would go on: but there an interpreter takes too long to get that deep."""
    limit = 3000 if size == 0 and "i" in ways else 100_000
    ended = reenter(PROGRAMS[name], ways, size, limit)
    assert ended.value is not None, ended
    error, looked, depth = ended.value
    assert error in ("StackExhausted", "RecursionError"), ended
    assert looked or limit == 3000, ended
    assert depth > 3, ended


@pytest.mark.parametrize("optimize", [True, False])
def test_pythons_own_limit_comes_first_where_it_is_low(optimize: bool) -> None:
    for code in PROGRAMS.values():
        ended = reenter(code, "g", 0, limit=1000, optimize=optimize)
        assert ended.value is not None, ended
        assert ended.value[2] > 700


def test_a_stack_that_was_made_smaller() -> None:
    def job() -> str:
        _, hard = resource.getrlimit(resource.RLIMIT_STACK)
        resource.setrlimit(resource.RLIMIT_STACK, (1024 * KIB, hard))
        ended = reenter(LARGE, "gci", 0)
        assert ended.value is not None, ended
        return str(ended.value[0])

    assert run_forked(job, 120).value == "StackExhausted"


def test_what_is_raised_says_where_and_what_to_do() -> None:
    def job() -> tuple[str, int | None]:
        vm = EbpfVmRaw(SMALL)
        vm.register_helper(5, lambda *_: vm.execute_program_jit(bytes(4)))
        vm.jit_compile()
        sys.setrecursionlimit(100_000)
        with pytest.raises(StackExhausted) as caught:
            vm.execute_program_jit(bytes(4))
        return str(caught.value), caught.value.pc

    text, pc = run_forked(lambda: in_thread(256 * KIB, job), 60).value
    assert pc == 1
    assert text.startswith("pc 1: too little of the thread's C stack is left")
    assert "threading.stack_size" in text


def test_all_goes_on_after_that() -> None:
    """Nothing of the runs that were refused stays in the list of runs, and no buffer stays taken."""

    def job() -> list[int]:
        vm = EbpfVmRaw(SMALL)
        vm.register_helper(5, lambda *_: vm.execute_program_jit(memory) if turns[0] else 3)
        vm.jit_compile()
        memory, found, turns = bytearray(4), [], [True, False] * 5
        while turns:
            try:
                found.append(vm.execute_program_jit(memory))
            except StackExhausted:
                found.append(-1)
            memory.append(0)  # nobody holds it
            turns.pop(0)
        return found

    def with_room() -> list[int]:
        sys.setrecursionlimit(100_000)
        return job()

    assert run_forked(lambda: in_thread(256 * KIB, with_room), 60).value == [-1, 3] * 5


@pytest.mark.parametrize("engine", ["interpreter", "jit"])
@pytest.mark.parametrize("size", [0, 256 * KIB])
def test_all_tail_calls_that_there_may_be_fit(engine: str, size: int) -> None:
    programs = create(MapDefinition("programs", MapType.PROG_ARRAY, 4, 4, 1))
    load = struct.pack("<BBhiBBhi", 0x18, 5 << 4 | 2, 0, 0, 0, 0, 0, 0)
    code = load + assemble(f"mov r3, 0\ncall {TAIL_CALL}\nmov r0, 2\nexit")
    program = Program(code, name="t", type="xdp", references={0: programs.address}, maps=(programs,))
    programs[0] = program
    ended = run_forked(
        lambda: in_thread(size, lambda: program.run(bytes(64), engine=engine).return_value), 60
    )
    assert ended.value == 2, ended


@pytest.mark.parametrize("engine", ["interpreter", "jit"])
@pytest.mark.parametrize("size", [0, 256 * KIB])
def test_callbacks_inside_of_callbacks_fit(engine: str, size: int) -> None:
    again = f"mov r1, 1\nlddw r2, f\nmov r3, 0\nmov r4, 0\ncall {LOOP}\nexit\n"
    program = Program(assemble(again + "f: " + again), name="t", type="xdp")

    def job() -> str:
        try:
            return str(program.run(bytes(64), engine=engine).return_value)
        except Exception as error:
            return type(error).__name__

    assert run_forked(lambda: in_thread(size, job), 60).value == "CallDepthExceeded"


def test_no_program_asks_for_more_than_its_share() -> None:
    """Behind the last word for a limit, checks do without; the program does the same."""
    body = "".join(f"ldxb r0, [r6+{i}]\nadd r7, r0\njset r0, 256, out\n" for i in range(600))
    code = assemble(f"mov r6, r1\ncall local f\n{body}out: mov r0, r7\nexit\nf: exit")
    data = bytes(i * 7 & 0xFF for i in range(600))
    for optimize in (True, False):
        vm = EbpfVmRaw(code, optimize=optimize)
        vm.jit_compile()
        assert len(vm._compiled.image.limits) <= MOST_LIMITS  # type: ignore[union-attr]  # it is compiled
        assert "execute_program_jit" in vars(vm), "it takes too much to be called through the gate"
        for size in (600, 599, 300, 1, 0):
            runs = (vm.execute_program, vm.execute_program_jit)
            assert _outcome(runs[0], data[:size]) == _outcome(runs[1], data[:size])
    for machine in (
        EbpfVmMbuff(code, optimize=True),
        EbpfVmNoData(code, optimize=True),
        EbpfVmFixedMbuff(code, LARGEST_MBUFF - 16, LARGEST_MBUFF - 8, optimize=True),
    ):
        machine.jit_compile()
        assert "execute_program_jit" in vars(machine), "it takes too much to be called through the gate"


def _outcome(run: Callable[[bytes], int], data: bytes) -> object:
    try:
        return run(data)
    except Exception as error:
        where, _, why = str(error).partition(" at 0x")
        return type(error).__name__, where, why.partition(": ")[2]


def test_the_bounds_of_a_stack() -> None:
    found = c_stack.bounds()
    if found is None:
        pytest.skip("nobody tells here")
    start, size = found
    assert start < c_stack.pointer() < start + size
    inner = in_thread(256 * KIB, lambda: (c_stack.bounds(), c_stack.pointer()))
    assert inner[0][0] < inner[1] < inner[0][0] + inner[0][1]
    assert inner[0][1] <= 260 * KIB
    c_stack.look()
    c_stack.look(start - 1)  # another stack's
    with pytest.raises(StackExhausted):
        c_stack.look(start + 16)
