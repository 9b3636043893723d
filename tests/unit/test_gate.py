"""The native gate: arguments, counts of references and exports, faults, helpers, threads."""

from __future__ import annotations

import array
import ctypes
import gc
import mmap
import os
import pickle
import subprocess
import sys
import threading
import tracemalloc
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import ebpfjit
from ebpfjit import (
    BudgetExhausted,
    EbpfVmFixedMbuff,
    EbpfVmMbuff,
    EbpfVmNoData,
    EbpfVmRaw,
    ExecutionError,
    JitFunction,
    MemoryFault,
    NativeHelper,
    Program,
    address_of,
)
from ebpfjit.assembler import assemble
from ebpfjit.function import Plain
from ebpfjit.jit import gate, routines
from ebpfjit.jit.stock import native_helper, native_numbers
from ebpfjit.runtime import memory
from ebpfjit.runtime.environment import Clock, Environment
from ebpfjit.sealed import inside

CHECKOUT = Path(__file__).resolve().parents[2]
CALLS = int(os.environ.get("EBPFJIT_CALLS", "4000"))
"""How many calls the tests for leaks make; 10,000,000 takes some minutes."""

FIRST_BYTE = "ldxb r0, [r1]\nexit"
native = pytest.mark.skipif(bool(gate.why_not()), reason=f"no native gate: {gate.why_not()}")


def compiled(text: str, **options: Any) -> JitFunction:
    return Program.from_bytes(assemble(text)).compile(**options)


def buffers() -> dict[str, Callable[[bytes], Any]]:
    def mapped(data: bytes) -> Any:
        area = mmap.mmap(-1, len(data))
        area[:] = data
        return area

    class Bytes(bytes):
        pass

    class Bytearray(bytearray):
        pass

    return {
        "bytes": bytes,
        "bytearray": bytearray,
        "memoryview": memoryview,
        "writable memoryview": lambda data: memoryview(bytearray(data)),
        "array": lambda data: array.array("B", data),
        "array of words": lambda data: array.array("H", data),
        "ctypes array": lambda data: (ctypes.c_uint8 * len(data))(*data),
        "ctypes words": lambda data: (ctypes.c_uint16 * (len(data) // 2)).from_buffer_copy(data),
        "mmap": mapped,
        "subclass of bytes": Bytes,
        "subclass of bytearray": Bytearray,
    }


KINDS = sorted(buffers())


# --- arguments ---


@pytest.mark.parametrize("kind", KINDS)
def test_any_buffer(kind: str) -> None:
    make = buffers()[kind]
    mem, mbuff = make(b"ABCD"), make(b"efgh")
    assert compiled("ldxb r0, [r1+1]\nadd r0, r2\nexit")(mem) == ord("B") + 4
    both = EbpfVmMbuff(assemble("ldxb r0, [r1+2]\nlsh r0, 8\nadd r0, r2\nexit"))
    both.jit_compile()
    assert both.execute_program_jit(mem, mbuff) == both.execute_program(mem, mbuff) == (ord("g") << 8) + 4


def test_an_offset_bytearray_is_read_where_it_starts() -> None:
    mem = bytearray(b"0123456789")
    del mem[:3]
    assert compiled(FIRST_BYTE)(mem) == ord("3")


@pytest.mark.parametrize("kind", KINDS)
def test_a_store_is_seen_by_the_owner_or_refused(kind: str) -> None:
    mem = buffers()[kind](b"ABCD")
    store = compiled("stb [r1+1], 0x7a\nmov r0, 0\nexit")
    if memoryview(mem).readonly:
        with pytest.raises(MemoryFault, match="mem is read-only"):
            store(mem)
    else:
        store(mem)
        assert bytes(memoryview(mem).cast("B")) == b"AzCD"


@pytest.mark.parametrize("empty", [b"", bytearray(), memoryview(b""), array.array("I")])
def test_an_empty_buffer_is_a_null_pointer(empty: Any) -> None:
    assert compiled("mov r0, r1\nor r0, r2\nexit")(empty) == 0
    with pytest.raises(MemoryFault, match=r"at 0x0: outside mem \(0 bytes\), stack"):
        compiled(FIRST_BYTE)(empty)


def test_without_memory() -> None:
    assert compiled("mov r0, r1\nor r0, r2\nexit")() == 0


def machines() -> list[tuple[Any, tuple[bytes, ...]]]:
    code = assemble("mov r0, 1\nexit")
    return [
        (EbpfVmNoData(code), ()),
        (EbpfVmRaw(code), (b"a",)),
        (EbpfVmMbuff(code), (b"a", b"b")),
        (EbpfVmFixedMbuff(code, 0, 8), (b"a",)),
    ]


def _raised(function: Callable[..., Any], *arguments: Any, **keywords: Any) -> tuple[Any, str]:
    with pytest.raises((TypeError, BufferError)) as caught:
        function(*arguments, **keywords)
    return caught.type, str(caught.value).replace("_jit", "")


@pytest.mark.parametrize("number", range(4))
def test_wrong_arguments_read_as_those_of_a_python_function(number: int) -> None:
    machine, right = machines()[number]
    machine.jit_compile()
    assert machine.execute_program_jit(*right) == 1
    wrong: list[tuple[tuple[Any, ...], dict[str, Any]]] = [
        ((*right, b"more"), {}),
        (right, {"no_such": 1}),
    ]
    if right:
        wrong += [
            (right[1:], {}),
            ((5, *right[1:]), {}),
            ((*right[:-1], None), {}),
            ((memoryview(b"abcdef")[::2], *right[1:]), {}),
            ((*right[:-1], memoryview(b"abcdef")[::-1]), {}),
        ]
    for arguments, keywords in wrong:
        expected = _raised(machine.execute_program, *arguments, **keywords)
        assert _raised(machine.execute_program_jit, *arguments, **keywords) == expected
    names = ("mem", "mbuff")[: len(right)]
    assert machine.execute_program_jit(**dict(zip(names, right, strict=True))) == 1


def test_wrong_arguments_of_a_function() -> None:
    function = compiled(FIRST_BYTE)
    assert function(mem=b"z") == ord("z")
    with pytest.raises(TypeError, match=r"JitFunction.__call__\(\) takes from 1 to 2 positional arguments"):
        function(b"", b"")  # type: ignore[call-arg]
    with pytest.raises(TypeError, match="a bytes-like object is required, not 'int'"):
        function(3)
    with pytest.raises(BufferError, match="the buffer is not C-contiguous"):
        function(memoryview(b"abcd")[::2])


def test_objects_are_no_memory() -> None:
    """A buffer of references: a program that wrote there would break the interpreter."""
    objects = (ctypes.py_object * 2)(1, 2)
    for function in (compiled(FIRST_BYTE), EbpfVmRaw(assemble(FIRST_BYTE)).execute_program):
        with pytest.raises(TypeError, match="buffer of Python objects"):
            function(objects)


def test_a_function_is_what_its_class_says() -> None:
    function = compiled(FIRST_BYTE)
    assert isinstance(function, JitFunction)
    assert callable(function)
    assert "fn(mem)" in (type(function).__doc__ or JitFunction.__doc__ or "")
    assert type(function).__name__ == "JitFunction"


def test_a_subclass_may_have_a_method_of_its_own() -> None:
    calls = []

    class Counting(EbpfVmRaw):
        def execute_program_jit(self, mem: Any) -> int:
            calls.append(mem)
            return super().execute_program_jit(mem) + 1

    machine = Counting(assemble(FIRST_BYTE))
    machine.jit_compile()
    assert machine.execute_program_jit(b"\x05") == 6
    assert calls == [b"\x05"]


def test_a_bound_call_outlives_changes_of_its_machine() -> None:
    machine = EbpfVmRaw(assemble(FIRST_BYTE))
    machine.jit_compile()
    call = machine.execute_program_jit
    machine.set_program(assemble("mov r0, 9\nexit"))
    machine.jit_compile()
    assert (call(b"\x05"), machine.execute_program_jit(b"\x05")) == (5, 9)
    del machine
    gc.collect()
    assert call(b"\x05") == call(mem=b"\x05") == 5


def test_a_limit_that_is_set_later_counts_at_once() -> None:
    machine = EbpfVmNoData(assemble("mov r0, 1\nmov r0, 2\nmov r0, 3\nexit"))
    machine.jit_compile()
    call = machine.execute_program_jit
    for limit, fits in ((3, False), (4, True), (None, True), (1, False)):
        machine.instruction_limit = limit
        for function in (machine.execute_program, machine.execute_program_jit, call):
            if fits:
                assert function() == 3
            else:
                with pytest.raises(BudgetExhausted, match=f"limit of {limit} "):
                    function()
    for wrong in (0, -1, 1.5, "9"):
        with pytest.raises(ValueError, match="positive number or None"):
            machine.instruction_limit = wrong  # type: ignore[assignment]
    assert machine.instruction_limit == 1


def test_memory_that_is_allowed_later_counts_at_once() -> None:
    mems = [bytearray([n]) for n in range(70)]
    machine = EbpfVmRaw(assemble("ldxdw r1, [r1]\nldxb r0, [r1]\nexit"))
    machine.jit_compile()
    for number, mem in enumerate(mems):
        pointer = address_of(mem).to_bytes(8, "little")
        with pytest.raises(MemoryFault):
            machine.execute_program_jit(pointer)
        machine.register_allowed_memory(mem)
        assert machine.execute_program_jit(pointer) == number
    for number, mem in enumerate(mems):
        assert machine.execute_program_jit(address_of(mem).to_bytes(8, "little")) == number


def test_a_run_that_takes_many_pages_of_stack() -> None:
    """A word of the block for each distance that is checked: more than two pages of them."""
    count = 1200
    loads = "\n".join(f"ldxb r3, [r1+{n}]\nadd r0, r3\nja +0" for n in range(count, 0, -1))
    function = compiled(f"{loads}\nexit")
    mem = bytes([1]) * (count + 1)
    assert function(mem) == function(bytearray(mem)) == count
    with pytest.raises(MemoryFault):
        function(mem[:-1])


@pytest.mark.parametrize("size", [8, 1016, 1017, 30_000])
def test_a_fixed_mbuff_of_any_size_is_zero_but_for_the_addresses(size: int) -> None:
    last = size - 1 if size > 8 else 8
    text = f"ldxdw r2, [r1]\nldxdw r3, [r1+{last}]\nmov r0, r3\nsub r0, r2\nldxb r4, [r2]\nlsh r4, 32\n"
    machine = EbpfVmFixedMbuff(assemble(text + "or r0, r4\nstdw [r1], 0\nexit"), 0, last)
    machine.jit_compile()
    for mem in (b"Q12", bytearray(b"Q12"), b"Q12"):
        assert machine.execute_program_jit(mem) == machine.execute_program(mem) == ord("Q") << 32 | 3


# --- references and exports ---


class HelperError(Exception):
    pass


def _raise(*arguments: int) -> int:
    raise HelperError(arguments[0])


OUTCOMES: dict[str, tuple[str, type[BaseException] | None]] = {
    "ends": ("mov r0, 300\nlsh r0, 40\nexit", None),
    "memory": ("ldxb r0, [r1+2000]\nexit", MemoryFault),
    "budget": ("again: ja again", BudgetExhausted),
    "raises": ("mov r1, 77\ncall 1\nexit", HelperError),
    "helper": ("lddw r1, 0x123456789abcdef\nlddw r2, 0xfffffffffffffff\ncall 2\nexit", None),
    "reads": ("mov r2, 1\ncall 3\nexit", None),
    "reads outside": ("mov r1, 16\nmov r2, 1\ncall 3\nexit", MemoryFault),
}


def _function(name: str, **options: Any) -> JitFunction:
    helpers = {
        1: _raise,
        2: lambda r1, r2, r3, r4, r5: r1 + r2,
        3: lambda r1, r2, r3, r4, r5: memory.read(r1, r2)[0],
    }
    return compiled(OUTCOMES[name][0], helpers=helpers, limit=100, **options)


def _call(function: JitFunction, error: type[BaseException] | None, *arguments: Any) -> None:
    try:
        function(*arguments)
    except (ExecutionError, HelperError) as raised:
        assert error is not None
        assert isinstance(raised, error)  # noqa: PT017 - nothing is raised where `error` is None
    else:
        assert error is None


@pytest.mark.parametrize("release_gil", [False, True])
@pytest.mark.parametrize("name", OUTCOMES)
@pytest.mark.parametrize("kind", KINDS)
def test_references_and_exports_are_as_before(kind: str, name: str, release_gil: bool) -> None:
    function, error = _function(name, release_gil=release_gil), OUTCOMES[name][1]
    mem = buffers()[kind](bytes(range(32)))
    _call(function, error, mem)
    gc.collect()
    before = [sys.getrefcount(thing) for thing in (mem, function, None, type(mem))]
    for _ in range(50):
        _call(function, error, mem)
    gc.collect()
    after = [sys.getrefcount(thing) for thing in (mem, function, None, type(mem))]
    assert [abs(a - b) < 25 for a, b in zip(after, before, strict=True)] == [True] * 4, (before, after)
    assert after[:2] == before[:2]
    if isinstance(mem, bytearray):
        mem.append(1)  # BufferError while it is exported
    elif isinstance(mem, memoryview):
        mem.release()
    elif isinstance(mem, mmap.mmap):
        mem.close()


@pytest.mark.parametrize("wrong", [(b"a", 5), (5, b"a"), (bytearray(2), memoryview(b"abcd")[::2])])
def test_what_was_taken_is_given_back_where_the_second_buffer_is_refused(wrong: tuple[Any, Any]) -> None:
    machine = EbpfVmMbuff(assemble("mov r0, 0\nexit"))
    machine.jit_compile()
    before = [sys.getrefcount(thing) for thing in wrong]
    for _ in range(50):
        with pytest.raises((TypeError, BufferError)):
            machine.execute_program_jit(*wrong)
    gc.collect()
    assert max(abs(sys.getrefcount(t) - b) for t, b in zip(wrong, before, strict=True)) < 25
    if isinstance(wrong[0], bytearray):
        wrong[0].append(1)


def test_the_same_buffer_twice() -> None:
    machine = EbpfVmMbuff(assemble("stb [r1], 7\nldxb r0, [r1]\nexit"))
    machine.jit_compile()
    for mem in (bytearray(4), array.array("B", bytes(4)), bytearray(4)):
        assert machine.execute_program_jit(mem, mem) == 7
        mem.append(1)


def test_a_buffer_keeps_its_place_while_a_program_runs() -> None:
    mems: list[Any] = [bytearray(8), array.array("B", bytes(8))]
    seen = []

    def resize(*arguments: int) -> int:
        try:
            mems[0].extend(bytes(1000))
        except BufferError:
            seen.append(True)
        return 0

    function = compiled("mov r6, r1\ncall 1\nstb [r6], 1\nmov r0, 0\nexit", helpers={1: resize})
    while mems:
        function(mems[0])
        assert mems[0][0] == 1
        mems[0].append(1)
        mems.pop(0)
    assert seen == [True, True]


def _kept_by(job: Callable[[], None]) -> int:
    """Return how many bytes are there behind a job that were not before; other threads' may be among them."""
    gc.collect()
    first = tracemalloc.get_traced_memory()[0]
    job()
    gc.collect()
    return tracemalloc.get_traced_memory()[0] - first


def _resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * mmap.PAGESIZE


@pytest.mark.parametrize("name", OUTCOMES)
def test_memory_is_flat(name: str) -> None:
    function, error = _function(name), OUTCOMES[name][1]
    mems = [make(bytes(64)) for make in buffers().values()]

    def calls(count: int) -> None:
        for number in range(count):
            _call(function, error, mems[number % len(mems)])
        if error is None:
            packets = mems * 10
            for _ in range(count // len(packets)):
                function.map(packets)

    calls(2000)
    gc.collect()
    counts = [sys.getrefcount(mem) for mem in mems]
    blocks, resident = sys.getallocatedblocks(), _resident()
    calls(CALLS)
    gc.collect()
    assert [sys.getrefcount(mem) for mem in mems] == counts
    assert sys.getallocatedblocks() - blocks < 500
    assert _resident() - resident < 4 << 20
    tracemalloc.start()
    calls(500)
    assert min(_kept_by(lambda: calls(2000)) for _ in range(3)) < 20_000  # what leaks does so each time
    tracemalloc.stop()


def test_a_function_is_freed_with_its_last_reference() -> None:
    """Without the collector: nothing refers to itself in a circle."""
    gc.collect()
    gc.disable()
    try:
        function = compiled(FIRST_BYTE)
        machine = EbpfVmRaw(assemble(FIRST_BYTE))
        machine.jit_compile()
        assert machine._compiled is not None
        held = [
            weakref.ref(compiled.buffer) for compiled in (inside(function).plain.compiled, machine._compiled)
        ]
        assert all(reference() is not None for reference in held)
        del function, machine
        assert [reference() for reference in held] == [None, None]
    finally:
        gc.enable()


# --- helpers in Python ---


def test_a_helper_sees_the_memory_of_its_run() -> None:
    def helper(r1: int, r2: int, r3: int, r4: int, r5: int) -> int:
        data = memory.read(r1, r2)
        memory.write(r1, data[::-1])
        memory.write(r3 - 8, b"stacked!")
        return memory.grant(granted).start

    granted = bytearray(b"granted")
    text = "mov r6, r1\nmov r3, r10\ncall 1\nldxb r7, [r0+6]\nldxb r8, [r6]\nldxb r0, [r10-2]\n"
    function = compiled(text + "lsh r0, 8\nor r0, r7\nlsh r0, 8\nor r0, r8\nexit", helpers={1: helper})
    mem = bytearray(b"abcd")
    assert function(mem) == (ord("d") << 16) | (ord("d") << 8) | ord("d")
    assert mem == b"dcba"
    granted.append(1)  # the grant went with the run
    assert memory.running() is None


def test_what_a_helper_may_not_touch() -> None:
    found: list[str] = []

    def helper(r1: int, r2: int, r3: int, r4: int, r5: int) -> int:
        for access in (
            lambda: memory.read(r1 + 4, 1),
            lambda: memory.write(r1, b"x"),
            lambda: memory.read(16, 1),
        ):
            try:
                access()
            except MemoryFault as error:
                found.append(str(error).split(": ", 1)[1])
        return memory.read(r1 - 1, 1)[0]

    function = compiled("call 1\nexit", helpers={1: helper})
    with pytest.raises(
        MemoryFault, match=r"^pc 0: load of 1 byte at .*: outside mem \(4 bytes\), stack"
    ) as caught:
        function(b"abcd")
    assert caught.value.pc == 0
    outside = "outside mem (4 bytes), stack (512 bytes)"
    assert found == [outside, "mem is read-only", outside]


def test_runs_inside_of_runs_each_have_their_own_memory() -> None:
    """Machine code, the interpreter, machine code by both ways, and back again."""
    names: list[tuple[str, bytes]] = []
    order = ["gate", "interpreter", "gate", "ctypes", "interpreter", "gate", "gate"]

    def helper(depth: int, mem: int, r3: int, r4: int, r5: int) -> int:
        names.append(("in", memory.read(mem, 1)))
        if depth + 1 < len(order):
            _run(order[depth + 1], depth + 1)
        names.append(("out", memory.read(mem, 1)))
        with pytest.raises(MemoryFault):
            memory.read(address_of(mems[depth - 1]), 1)
        return 0

    text = "mov r3, r1\nldxb r1, [r3+1]\nmov r2, r3\ncall 1\nexit"
    program = Program.from_bytes(assemble(text))
    function = program.compile(helpers={1: helper})
    interpreter = EbpfVmRaw(program)
    interpreter.register_helper(1, helper)
    mems = [bytearray([65 + depth, depth]) for depth in range(len(order))]
    slow = JitFunction(Plain(inside(function).plain.compiled, {1: helper}))
    ways: dict[str, Callable[[Any], int]] = {
        "gate": function,
        "interpreter": interpreter.execute_program,
        "ctypes": slow,
    }

    def _run(way: str, depth: int) -> None:
        ways[way](mems[depth])

    _run(order[0], 0)
    letters = [bytes([65 + depth]) for depth in range(len(order))]
    assert names == [*(("in", c) for c in letters), *(("out", c) for c in reversed(letters))]
    assert memory.running() is None


@native
def test_the_list_of_runs_is_empty_when_nothing_runs() -> None:
    for name, (_, error) in OUTCOMES.items():
        _call(_function(name), error, b"abc")
    assert routines.running.value == 0


def test_helpers_in_many_threads_see_their_own_run() -> None:
    def helper(r1: int, r2: int, r3: int, r4: int, r5: int) -> int:
        memory.write(r1, bytes([memory.read(r1, 1)[0] + 1]))
        return 0

    text = (
        "mov r6, r1\nmov r7, 50\nagain: mov r1, r6\ncall 1\nsub r7, 1\njne r7, 0, again\nldxb r0, [r6]\nexit"
    )
    functions = [compiled(text, helpers={1: helper}, release_gil=release) for release in (False, True)]
    wrong: list[Any] = []

    def work(number: int) -> None:
        try:
            for _ in range(20):
                mem = bytearray([number])
                if functions[number % 2](mem) != number + 50:
                    wrong.append(number)
        except BaseException as error:
            wrong.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    assert routines.running.value == 0


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
def test_a_helper_that_forks() -> None:
    """The child goes on in the middle of the run, and is the only one who runs."""
    source = """
import os, sys, threading
from ebpfjit import Program, assembler
from ebpfjit.runtime import memory

def helper(r1, r2, r3, r4, r5):
    if memory.read(r1, 1) == b"o":
        inside.set(); go.wait(); return 1
    pid = os.fork()
    if pid:
        return os.waitpid(pid, 0)[1]
    return memory.read(r1, 1)[0]

inside, go = threading.Event(), threading.Event()
main = os.getpid()
fn = Program.from_bytes(assembler.assemble("call 1\\nexit")).compile(helpers={1: helper})
other = threading.Thread(target=fn, args=(b"other",)); other.start(); inside.wait()
value = fn(b"main")
if os.getpid() != main:
    os._exit(0 if value == ord("m") and fn.map([b"x"] * 0) is not None else 1)
go.set(); other.join()
sys.exit(value)
"""
    found = subprocess.run([sys.executable, "-W", "ignore", "-c", source], cwd=CHECKOUT, check=False)
    assert found.returncode == 0


def test_results_of_helpers_are_taken_modulo_two_to_the_64() -> None:
    results: list[Any] = [-1, 2**64 - 1, 2**64, 2**200 + 5, -(2**70), True, "no", None, 1.5]
    machine = EbpfVmNoData(assemble("call 1\nexit"))
    machine.register_helper(1, lambda *arguments: results[0])
    machine.jit_compile()
    while results:
        if isinstance(results[0], int):
            assert machine.execute_program_jit() == machine.execute_program() == results[0] % 2**64
        else:
            for run in (machine.execute_program_jit, machine.execute_program):
                with pytest.raises(TypeError):
                    run()
        results.pop(0)


@pytest.mark.parametrize("value", [0, 1, 256, 257, 2**30, 2**31, 2**32, 2**63, 2**64 - 1])
def test_arguments_of_helpers_of_any_size(value: int) -> None:
    seen = []
    function = compiled(
        "".join(f"lddw r{n}, {value}\n" for n in range(1, 6)) + "call 1\nexit",
        helpers={1: lambda *arguments: seen.append(arguments) or arguments[4]},
    )
    assert function() == value
    assert seen == [(value,) * 5]


def test_a_program_that_calls_itself_through_a_helper() -> None:
    def helper(depth: int, r2: int, r3: int, r4: int, r5: int) -> int:
        return function(bytes([depth - 1])) + 1 if depth else 0

    function = compiled("ldxb r1, [r1]\ncall 1\nexit", helpers={1: helper})
    assert function(bytes([200])) == 200


# --- threads ---


def test_release_gil_runs_without_the_lock() -> None:
    check = ctypes.cast(ctypes.pythonapi.PyGILState_Check, ctypes.c_void_p).value or 0
    both = "call 1\nmov r6, r0\ncall 2\ncall 1\nlsh r0, 1\nor r0, r6\nexit"
    helpers = {1: NativeHelper(check), 2: lambda *arguments: 0}
    for release_gil, held in ((False, 3), (True, 0)):
        function = compiled(both, helpers=helpers, release_gil=release_gil)
        assert [function(), *function.map([b"", bytearray(2), array.array("I", [1])])] == [held] * 4
        assert list(function.map(bytes(2), stride=1)) == [held] * 2
        machine = EbpfVmNoData(assemble(both), release_gil=release_gil)
        for number, helper in helpers.items():
            machine.register_helper(number, helper)
        machine.jit_compile()
        assert machine.execute_program_jit() == held


def test_a_program_that_is_dropped_while_it_runs_stays_until_it_returns() -> None:
    inside, go = threading.Event(), threading.Event()
    results: list[int] = []

    def helper(r1: int, r2: int, r3: int, r4: int, r5: int) -> int:
        inside.set()
        go.wait()
        return r1 + 1

    for release_gil in (False, True):
        inside.clear()
        go.clear()
        calls = [compiled("mov r1, 41\ncall 1\nexit", helpers={1: helper}, release_gil=release_gil)]
        thread = threading.Thread(target=lambda calls=calls: results.append(calls.pop()()))
        thread.start()
        inside.wait()
        assert calls == []
        gc.collect()
        go.set()
        thread.join()
    assert results == [42, 42]


# --- where there is no gate ---


def test_runtime_info() -> None:
    info = ebpfjit.runtime_info()
    assert info.engines["interpreter"] == info.engines["jit"] == "available"
    assert info.gate == ("ctypes" if gate.why_not() else "native")
    assert info.gate_reason == gate.why_not()
    assert info.python.endswith(sys.version.split()[0])
    assert info.keystone


def test_everything_works_through_ctypes_too() -> None:
    environment = {**os.environ, "EBPFJIT_GATE": "ctypes"}
    files = ["tests/unit/test_vm.py", "tests/unit/test_batch.py"]
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", *files]
    found = subprocess.run(
        command, capture_output=True, text=True, cwd=CHECKOUT, env=environment, check=False
    )
    assert found.returncode == 0, found.stdout[-3000:]
    said = subprocess.run(
        [sys.executable, "-c", "import ebpfjit; i = ebpfjit.runtime_info(); print(i.gate, i.gate_reason)"],
        capture_output=True,
        text=True,
        cwd=CHECKOUT,
        env=environment,
        check=True,
    )
    assert said.stdout == "ctypes turned off by EBPFJIT_GATE\n"


# --- native helpers ---


def test_stock_helpers_do_what_the_environment_says() -> None:
    usual = Environment()
    assert native_numbers(usual) == {5, 7, 8, 125, 160, 208}
    helpers = {number: native_helper(number, usual) for number in native_numbers(usual)}
    clock = compiled("call 5\nexit", helpers={5: helpers[5]})
    before = usual.clock()
    assert before <= clock() <= usual.clock()
    random = compiled("call 7\nexit", helpers={7: helpers[7]}).map([b""] * 4000)
    assert max(random) < 2**32
    assert len(set(random)) > 3990
    for bit in range(32):
        assert 1700 < sum(number >> bit & 1 for number in random) < 2300
    assert compiled("mov r0, 9\ncall 8\nexit", helpers={8: helpers[8]})() == usual.cpu
    fixed = Environment(clock=lambda: 5, random=lambda: 6, cpu=1, cpus=2)
    assert native_numbers(fixed) == frozenset()
    moved = Environment()
    assert isinstance(moved.clock, Clock)
    moved.clock.advance(s=1)
    assert 5 not in native_numbers(moved)  # of code that many environments share


def test_code_of_one_environment_tells_the_time_of_its_clock() -> None:
    program = Program.from_assembly("call 5\nexit", name="now", type="xdp")
    running, standing = Environment(), Environment(clock=Clock(1 << 31))
    of_running, of_standing = (program.compile(environment=each) for each in (running, standing))
    assert "Python function" not in of_running.explain() + of_standing.explain()
    assert of_standing(bytes(14)) == 1 << 31
    for environment, passes in ((standing, 5), (running, 3 << 30)):
        assert isinstance(environment.clock, Clock)
        environment.clock.advance(ns=passes)
    assert of_standing(bytes(14)) == (1 << 31) + 5
    before, now, after = running.clock(), of_running(bytes(14)), running.clock()
    assert (now - before) % (1 << 32) <= after - before
    assert pickle.loads(pickle.dumps(standing.clock))() == standing.clock()


def test_the_interpreter_at_the_recursion_limit_raises_a_recursion_error() -> None:
    def deeper() -> int:
        return machine.execute_program(b"a")

    machine = EbpfVmRaw(assemble("call 1\nexit"))
    machine.register_helper(1, lambda *arguments: deeper())
    with pytest.raises(RecursionError):
        deeper()


def test_a_fault_after_a_helper_looked_at_memory_knows_all_frames() -> None:
    """What the helper saw of the stack is not what is there when the fault comes."""
    text = "call 1\nmov r1, 0\ncall local deeper\nexit\ndeeper: ldxb r0, [r1]\nexit"
    function = compiled(text, helpers={1: lambda *arguments: len(memory.read(arguments[0], 1))})
    with pytest.raises(MemoryFault, match=r"outside mem \(4 bytes\), stack \(1024 bytes\)"):
        function(b"abcd")


def test_call_is_the_function_as_a_built_in() -> None:
    function = compiled(FIRST_BYTE)
    call = function.call
    assert [call(b"\x05"), call(bytearray(b"\x06")), call(mem=b"\x07")] == [5, 6, 7]
    with pytest.raises(TypeError, match="positional arguments"):
        call(b"", b"")
    with pytest.raises(MemoryFault):
        call()
    del function
    gc.collect()
    assert call(b"\x08") == 8
