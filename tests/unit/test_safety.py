"""Machine code is as safe as the interpreter: faults, limits, signals, leaks, hardening, threads.

What may take the process down runs in a child: the body of a test marked `in_child`.
"""

from __future__ import annotations

import ctypes
import dataclasses
import functools
import gc
import mmap
import os
import random
import re
import signal
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from itertools import count, pairwise, permutations
from pathlib import Path
from typing import Any

import pytest

from ebpfjit import (
    BudgetExhausted,
    EbpfError,
    EbpfVmFixedMbuff,
    EbpfVmMbuff,
    EbpfVmNoData,
    EbpfVmRaw,
    ExecutionError,
    MemoryFault,
    NativeHelper,
    Program,
    address_of,
)
from ebpfjit.analysis.verified import Verified, prepare
from ebpfjit.assembler import assemble
from ebpfjit.interpreter import interpret
from ebpfjit.isa.spec import Imm, Kind, Row
from ebpfjit.isa.table import BY_NAME, TABLE
from ebpfjit.jit import code_buffer
from ebpfjit.jit.code_buffer import CodeBuffer
from ebpfjit.jit.compiler import listing_of
from ebpfjit.jit.entry import compile_program
from ebpfjit.jit.recipe import Recipe
from ebpfjit.options import Options
from ebpfjit.program import Instruction
from ebpfjit.runtime.execution import SLICE, Execution
from ebpfjit.runtime.memory import Region, Stack, grant
from tests.support import warm
from tests.support.mappings import own_mappings, rights_at

CHECKOUT = Path(__file__).parents[2]
PAGE = mmap.PAGESIZE
U64 = (1 << 64) - 1
LEAK_CYCLES = int(os.environ.get("EBPFJIT_LEAK_CYCLES", "300"))
ENGINES = ("execute_program", "execute_program_jit")
engines = pytest.mark.parametrize("engine", ENGINES)


def run(vm: Any, engine: str, *arguments: Any) -> int:
    if engine == "execute_program_jit":
        vm.jit_compile()
    return int(getattr(vm, engine)(*arguments))


def in_child(body: Callable[..., None]) -> Callable[..., None]:
    """Make a test of a function: it is run in a child process, which must end well."""

    @functools.wraps(body)
    def test(**parameters: Any) -> None:
        call = f"from tests.unit import test_safety; test_safety.{body.__name__}.body(**{parameters!r})"
        child = _python(call)
        assert child.returncode == 0, f"{_status(child.returncode)}\n{child.stdout}\n{child.stderr[-4000:]}"

    test.body = body  # type: ignore[attr-defined]  # what the child calls
    return test


def _python(source: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", source]
    return warm.run(command, text=True, cwd=CHECKOUT, timeout=120 + LEAK_CYCLES * 0.1)


def _status(returncode: int) -> str:
    return f"died of {signal.Signals(-returncode).name}" if returncode < 0 else f"exit {returncode}"


def word(name: str, dst: int = 0, src: int = 0, offset: int = 0, imm: int = 0) -> bytes:
    """One slot of a row; fields that the row fixes keep its values."""
    row = BY_NAME[name]
    given = {"dst": dst, "src": src, "offset": offset, "imm": imm}
    dst, src, offset, imm = (
        fixed if isinstance(fixed := getattr(row, key), int) else number for key, number in given.items()
    )
    return Instruction(0, row.opcode, dst, src, offset, imm).encode()


def constant(register: int, value: int) -> bytes:
    """An LDDW."""
    low, high = (value & 0xFFFFFFFF).to_bytes(4, "little"), (value >> 32).to_bytes(4, "little")
    return bytes([0x18, register, 0, 0]) + low + bytes(4) + high


EXIT = word("EXIT")


# -- one program on both engines ----------------------------------------------------------------


@dataclass(frozen=True)
class Left:
    """What a run leaves: "ok" and r0, or the exception's name and its attributes."""

    kind: str
    details: Any
    memory: bytes = b""

    def has(self, **attributes: Any) -> bool:
        """True for an exception with these attributes."""
        return self.kind != "ok" and attributes.items() <= dict(self.details[1]).items()


class Both:
    """A program compiled once, run by both engines at the same addresses."""

    def __init__(
        self, code: bytes | str, *, helpers: Any = None, frame_size: Any = None, **options: Any
    ) -> None:
        program = Program.from_bytes(assemble(code) if isinstance(code, str) else code)
        size_of = (lambda *_: frame_size) if isinstance(frame_size, int) else frame_size
        self.verified: Verified = prepare(program, size_of)
        self.helpers = helpers or {}
        self.compiled = compile_program(self.verified, Options(**options), self.helpers)
        self.stack = Stack()
        self.watched: list[memoryview] = []  # what else to compare and put back

    def left(
        self, engine: Any, regions: list[Region], argument: Region | None, limit: int | None = 10_000
    ) -> Left:
        """Run on one engine; the memory of the writable regions is what it was before, afterwards."""
        views = [region.view for region in regions] + self.watched
        before = [bytes(view) for view in views]
        self.stack.reset()
        where = (argument.start, argument.size) if argument and argument.size else (0, 0)
        execution = Execution(
            where, list(regions), argument, argument, self.helpers, {}, limit, True, self.stack
        )
        try:
            kind, details = "ok", engine(execution)
        except ExecutionError as error:
            kind, details = type(error).__name__, (str(error), tuple(sorted(vars(error).items())))
        memory = b"|".join(bytes(view) for view in views)
        for view, old in zip(views, before, strict=True):
            if not view.readonly:
                view[:] = old
        return Left(kind, details, memory)

    def run(self, *regions: Region, limit: int | None = 10_000) -> Left:
        """Run on both engines, on regions of which the first is behind r1; they must agree."""
        argument = regions[0] if regions else None
        expected = self.left(lambda e: interpret(self.verified, e), list(regions), argument, limit)
        actual = self.left(self.compiled.run, list(regions), argument, limit)
        assert actual == expected, f"machine code {actual}\ninterpreter {expected}\n{self.code}"
        return expected

    @property
    def code(self) -> str:
        """The bytecode, in hexadecimal."""
        return self.verified.program.code.hex()


def region(data: Any, name: str = "mem") -> Region:
    return Region.of_buffer(name, data)


# -- mappings -----------------------------------------------------------------------------------


@in_child
def test_no_mapping_is_ever_writable_and_executable() -> None:
    """A thread watches all the while; besides, every change of protection is looked at from both sides."""
    looks, bad, done = 0, set(), threading.Event()
    executable: set[int] = set()

    def look() -> None:
        for start, _, permissions in own_mappings():
            if "w" in permissions and "x" in permissions:
                bad.add((start, permissions))
            if permissions == "r-xp":
                executable.add(start)

    def watch() -> None:
        nonlocal looks
        while not done.is_set():
            look()
            looks += 1

    protect, steps = code_buffer._protect, 0

    def watched_protect(*arguments: int) -> None:
        nonlocal steps
        look()
        protect(*arguments)
        look()
        steps += 1

    code_buffer._protect = watched_protect
    before = {start for start, _, permissions in own_mappings() if permissions == "r-xp"}
    sys.setswitchinterval(1e-5)
    watcher = threading.Thread(target=watch)
    watcher.start()
    kept = []
    for number in range(300):
        code = assemble(f"mov r0, {number}\n" + "add r0, 1\n" * (number % 7 * 40) + "ldxb r1, [r1]\nexit")
        vm = EbpfVmRaw(code, harden=number % 2 == 0)
        vm.jit_compile()
        assert vm.execute_program_jit(b"x") == number + number % 7 * 40
        if number % 3 == 0:
            kept.append(vm)
    while looks < 20 and watcher.is_alive():  # it may not have had its turn
        EbpfVmRaw(assemble("exit")).jit_compile()
    done.set()
    watcher.join()
    assert bad == set()
    assert steps >= 300
    assert looks >= 20
    assert len(executable - before) >= 20, "the watcher saw no code at all"


@in_child
def test_hardened_code_lies_between_guard_pages() -> None:
    for size in (1, 5, PAGE - 1, PAGE, PAGE + 1, 3 * PAGE):
        plain, guarded = CodeBuffer(b"\xc3" * size), CodeBuffer(b"\xc3" * size, guarded=True)
        pages = -(-size // PAGE) * PAGE
        for buffer in (plain, guarded):
            assert rights_at(buffer.address) == "r-xp"
            assert rights_at(buffer.address + pages - 1) == "r-xp"
            rest = ctypes.string_at(buffer.address + size, pages - size)
            assert rest == b"\xcc" * (pages - size), size
        assert guarded.address % PAGE == 0
        assert rights_at(guarded.address - 1) == "---p"
        assert rights_at(guarded.address - PAGE) == "---p"
        assert rights_at(guarded.address + pages) == "---p"
        assert rights_at(guarded.address + pages + PAGE - 1) == "---p"
    vm = EbpfVmNoData(assemble("exit"), harden=True)
    vm.jit_compile()
    assert vm._compiled is not None
    assert rights_at(vm._compiled.buffer.address - 1) == "---p"


@in_child
def test_beyond_the_code_there_are_only_traps() -> None:
    """What runs past its end stops at once, in both kinds of buffer."""
    for guarded in (False, True):
        process = os.fork()
        if process == 0:
            code = CodeBuffer(b"\x90" * 10, guarded=guarded)  # ten nops, and no ret
            ctypes.CFUNCTYPE(None)(code.address)()
            os._exit(0)
        _, status = os.waitpid(process, 0)
        assert os.WIFSIGNALED(status)
        assert os.WTERMSIG(status) == signal.SIGTRAP


# -- leaks --------------------------------------------------------------------------------------


def _cycle(number: int) -> None:
    """Compile, run and drop: values, faults, helpers, exceptions, hardened or not."""
    vm = EbpfVmRaw(
        assemble(
            f"mov r6, r1\nmov r1, {number % 150}\ncall 1\nldxb r1, [r6]\nadd r0, r1\nstb [r6+1], 1\n"
            f"call local f\nexit\nf: ldxb r2, [r6+2]\njeq r2, 0, out\ncall 2\nout: exit"
        ),
        harden=number % 2 == 0,
        instruction_limit=100,
    )
    vm.register_helper(1, lambda *arguments: arguments[0] << 40)
    vm.register_helper(2, _raising)
    vm.jit_compile()
    # 2 bytes are one too few; with a byte that is not zero in third place helper 2 raises.
    for memory in (bytearray(16), bytearray(2), bytearray(b"abcd"), bytes(2)):
        try:
            vm.execute_program_jit(memory)
        except (MemoryFault, KeyError):
            continue
        assert len(memory) == 16


def _raising(*arguments: int) -> int:
    raise KeyError("helper 2")


def _resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * PAGE


@in_child
def test_compiling_running_and_dropping_leaves_nothing() -> None:
    """A cycle maps a page of code or more: had each leaked one, 300 would make 1.2 MB and 300 mappings.

    Half a megabyte is what the allocators of C and of Python may keep (arenas of 1 MB come and go
    whole, but are filled before: the first cycles are not counted, so that each of the numbers they
    use has been seen twice), and two mappings an arena or a heap that was split.
    """
    for number in range(LEAK_CYCLES):
        _cycle(number)
    gc.collect()
    resident, mappings, blocks = _resident(), len(own_mappings()), sys.getallocatedblocks()
    for number in range(LEAK_CYCLES):
        _cycle(number)
    gc.collect()
    grown = (_resident() - resident, len(own_mappings()) - mappings, sys.getallocatedblocks() - blocks)
    print(f"{LEAK_CYCLES} cycles: {grown[0]} bytes, {grown[1]} mappings, {grown[2]} blocks more")
    assert grown[0] <= 512 * 1024, grown
    assert grown[1] <= 2, grown
    assert grown[2] <= 200, grown


@in_child
def test_reference_counts_stay() -> None:
    """Helpers, buffers, exceptions, results, arguments: after runs that succeed, fault and raise."""
    error, result, big = KeyError("kept"), 2**70 + 5, bytearray(64)
    memory, bytes_memory = bytearray(16), bytes(16)

    def fine(*arguments: int) -> int:
        return result

    def wrong(*arguments: int) -> int:
        raise error

    def odd(*arguments: int) -> Any:
        return "no integer"

    text = "mov r6, r1\nmov r1, -5\ncall {helper}\n{then}\nmov r0, 0\nexit"
    vms = []
    for helper, then in ((1, ""), (2, ""), (3, ""), (1, "ldxb r0, [r6+16]"), (1, "stb [r6], 1"), (9, "")):
        vm = EbpfVmRaw(assemble(text.format(helper=helper, then=then)))
        for number, function in ((1, fine), (2, wrong), (3, odd)):
            vm.register_helper(number, function)
        vm.register_allowed_memory(big)
        vm.jit_compile()
        vms.append(vm)
    watched = (error, result, big, memory, bytes_memory, fine, wrong, odd, *vms, None, 0, 2**64 - 5)

    def rounds(number: int) -> None:
        for engine in ENGINES:
            for vm in vms:
                for buffer in (memory, bytes_memory):
                    for _ in range(number):
                        try:
                            getattr(vm, engine)(buffer)
                        except (KeyError, TypeError, EbpfError):
                            error.__traceback__ = None

    rounds(10)
    gc.collect()
    before, blocks = [sys.getrefcount(thing) for thing in watched], sys.getallocatedblocks()
    rounds(100)
    gc.collect()
    after, grown = [sys.getrefcount(thing) for thing in watched], sys.getallocatedblocks() - blocks
    for thing, old, new in zip(watched, before, after, strict=True):
        # None and 0 are everybody's: 2,400 runs would show, single references of others do not.
        slack = 50 if thing is None or thing == 0 else 0
        assert abs(new - old) <= slack, f"{thing!r}: {old} references before, {new} after"
    assert grown < 100, f"{grown} blocks more"
    with pytest.raises(BufferError):
        big.append(0)  # the machines hold it still
    memory.append(0)  # nobody does


# -- signals, and other threads -----------------------------------------------------------------

ENDLESS = {
    "empty loop": "loop: ja loop",
    "loop": "loop: add r3, 1\njne r3, 0, loop\nja loop",
    "one long block": "loop: " + "add r3, 1\n" * 200 + "ja loop",
    "checked loads": "loop: ldxb r3, [r6]\nldxb r4, [r10-9]\nja loop",
    "other region": "loop: lddw r5, {other}\nldxb r3, [r5]\nldxb r3, [r5+1]\nja loop",
    "atomics": "loop: lock fetch or [r10-8], r3\nja loop",
    "local calls": "loop: call local leaf\nja loop\nleaf: exit",
    "deep chain": "mov r1, 6\ncall local f\nexit\nf: jeq r1, 0, loop\nsub r1, 1\ncall local f\nexit\n"
    "loop: add r3, 1\nja loop",
    "chain up and down": "loop: mov r1, 6\ncall local f\nja loop\n"
    "f: jeq r1, 0, out\nsub r1, 1\ncall local f\nout: exit",
    "python helper": "loop: call 2\nja loop",
    "native helper": "loop: mov r1, 1\ncall 3\nja loop",
}
GUARDED = "mov r6, r1\nldxb r0, [r1]\njeq r0, 0, quick\ncall 1\n{body}\nquick: mov r0, 77\nexit\n"


def _endless_program(name: str) -> tuple[EbpfVmRaw, Callable[[Callable[[], None]], None]]:
    """A machine that is endless where its memory starts with 1; helper 1 calls what it is told to."""
    other = bytearray(2)
    body, _, functions = ENDLESS[name].partition("\nleaf:")
    if name in ("deep chain", "chain up and down"):
        # Jumps over the functions are not needed: what is behind `quick` is reached by calls only.
        body, _, functions = ENDLESS[name].partition("\nf:")
        functions = f"f:{functions}" if functions else ""
    elif functions:
        functions = f"leaf:{functions}"
    text = GUARDED.format(body=body.format(other=address_of(other))) + functions
    vm = EbpfVmRaw(assemble(text))
    call: list[Callable[[], None]] = []

    def started(*arguments: int) -> int:
        call[-1]()
        return 0

    vm.register_helper(1, started)
    vm.register_helper(2, lambda *arguments: 5)
    labs = ctypes.CDLL(None).labs
    vm.register_helper(3, NativeHelper(ctypes.cast(labs, ctypes.c_void_p).value or 0, labs))
    vm.register_allowed_memory(other)
    vm.jit_compile()
    return vm, call.append


def interrupted_child() -> None:
    """Run each until KeyboardInterrupt, three times, printing when it came; in between, run to the end."""
    for name in ENDLESS:
        vm, on_start = _endless_program(name)
        assert vm._compiled is not None
        on_start(lambda: print(f"started {time.process_time()}", flush=True))
        for _ in range(3):
            try:
                vm.execute_program_jit(bytearray(b"\1"))
                print("ended", flush=True)
            except KeyboardInterrupt:
                print(f"interrupted {time.process_time()}", flush=True)
            assert vm.execute_program_jit(bytearray(1)) == 77


def test_ctrl_c_stops_endless_programs() -> None:
    """Within ten seconds of the program's own time: it goes on until a busy machine lets us send."""
    source = "from tests.unit import test_safety; test_safety.interrupted_child()"
    child = subprocess.Popen(
        [sys.executable, "-c", source],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=CHECKOUT,
    )
    killer = threading.Timer(300, child.kill)  # should it never come
    killer.start()
    try:
        assert child.stdout is not None
        for name in [name for name in ENDLESS for _ in range(3)]:
            answer, _, sent = child.stdout.readline().partition(" ")
            assert answer == "started", (name, answer, child.communicate())
            child.send_signal(signal.SIGINT)
            answer, _, when = child.stdout.readline().partition(" ")
            assert answer == "interrupted", (name, answer, child.communicate())
            assert float(when) - float(sent) < 10, name
        output, errors = child.communicate()
        assert (child.returncode, output) == (0, ""), errors
    finally:
        killer.cancel()
        child.kill()
        child.wait()


@pytest.mark.parametrize("name", ["empty loop", "loop", "deep chain", "checked loads", "native helper"])
@in_child
def test_other_threads_get_turns_while_an_endless_program_runs(name: str) -> None:
    """Within ten seconds of processor time, also where slices are shorter than Python's switch interval."""
    vm, on_start = _endless_program(name)
    started = threading.Event()
    on_start(started.set)
    turns: list[float] = []

    def other() -> None:
        started.wait()
        turns.append(time.process_time())
        while len(turns) < 20 and turns[-1] - turns[0] < 60:
            time.sleep(0)  # gives the lock away: each round needs a turn of its own
            turns.append(time.process_time())
        os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=other)
    thread.start()
    with pytest.raises(KeyboardInterrupt):
        vm.execute_program_jit(bytearray(b"\1"))
    thread.join()
    waits = [later - earlier for earlier, later in pairwise(turns)]
    assert len(turns) == 20, waits
    assert max(waits) < 10, waits


@in_child
def test_a_signal_handler_may_raise_anything_and_run_programs() -> None:
    vm, on_start = _endless_program("loop")

    class Alarm(Exception):  # noqa: N818 - not an error
        pass

    seen = []

    def handler(number: int, frame: Any) -> None:
        seen.append(vm.execute_program_jit(bytearray(1)))
        if len(seen) == 3:
            raise Alarm
        signal.setitimer(signal.ITIMER_REAL, 0.01)

    signal.signal(signal.SIGALRM, handler)
    on_start(lambda: signal.setitimer(signal.ITIMER_REAL, 0.01))
    with pytest.raises(Alarm):
        vm.execute_program_jit(bytearray(b"\1"))
    assert seen == [77, 77, 77]


# -- faults -------------------------------------------------------------------------------------

FAULTY = {
    "MemoryFault": "ldxdw r0, [r6+1]",
    "AlignmentFault": "mov r2, r10\nsub r2, 15\nlock add [r2], r6",
    "IllegalInstruction": "callx r7",
    "BudgetExhausted": "loop: ja loop",
    "CallDepthExceeded": "call local f",
    "HelperNotFound": "call 99",
    "KeyError": "call 2",
    "TypeError": "call 3",
}


@in_child
def test_after_faults_of_every_kind_at_every_depth_all_goes_on() -> None:
    """The host's registers and stack are as they were: Python computes on, and so does the program."""

    def bad(*arguments: int) -> Any:
        return None

    for kind, line in FAULTY.items():
        for depth in range(8 if kind != "CallDepthExceeded" else 1):
            clobber = "\n".join(f"lddw r{n}, {0x1111111111111111 * n}" for n in (7, 8, 9))
            text = (
                f"mov r6, r1\nmov r1, {depth}\nldxb r5, [r6]\n{clobber}\ncall local f\n"
                "add r0, r7\nadd r0, r8\nadd r0, r9\nexit\n"
                f"f: jeq r1, 0, bottom\nsub r1, 1\ncall local f\nexit\n"
                f"bottom: {clobber.replace('0x', '1')}\nmov r0, 5\njeq r5, 0, out\n{line}\nout: exit"
            )
            vm = EbpfVmRaw(assemble(text), instruction_limit=1000)
            vm.register_helper(2, _raising)
            vm.register_helper(3, bad)
            vm.jit_compile()
            expected = 5 + 0x1111111111111111 * (7 + 8 + 9) & U64
            # Eight frames are all there are: main has one, and callx looks for another first.
            if depth == 7 or (depth == 6 and "callx" in line):
                kind = "CallDepthExceeded"
            for _ in range(10):
                local = [1.5, "two", {3: 4}]
                raised = None
                try:
                    vm.execute_program_jit(bytes([1]) + bytes(7))
                except Exception as error:
                    raised = type(error).__name__
                assert (raised, local) == (kind, [1.5, "two", {3: 4}]), depth
                if depth < 7:
                    assert vm.execute_program_jit(bytes(8)) == expected


@engines
def test_what_a_helper_raises_keeps_identity_traceback_and_context(engine: str) -> None:
    """From a helper eight frames down, raised while it handled another."""
    error = LookupError("this very one")

    def deep(*arguments: int) -> int:
        try:
            raise ZeroDivisionError("first")
        except ZeroDivisionError:
            raise error  # noqa: B904 - the context is the test

    chain = "mov r1, 6\ncall local f\nexit\nf: jeq r1, 0, bottom\nsub r1, 1\ncall local f\nexit\n"
    vm = EbpfVmNoData(assemble(chain + "bottom: call 1\nexit"))
    vm.register_helper(1, deep)
    for _ in range(3):
        error.__traceback__ = None
        with pytest.raises(LookupError) as caught:
            run(vm, engine)
        assert caught.value is error
        names = [frame.name for frame in traceback.extract_tb(error.__traceback__)]
        assert names[-1] == "deep"
        assert names.count("deep") == 1
        assert type(error.__context__) is ZeroDivisionError
        assert error.__cause__ is None


@engines
def test_a_fault_in_a_program_that_a_helper_runs_can_be_caught_there(engine: str) -> None:
    """The outer program goes on, with its registers, its stack, its budget and its memory."""
    inner = EbpfVmRaw(assemble("stdw [r10-8], 99\nldxb r0, [r1+5]\nexit"), instruction_limit=50)
    caught = []

    def helper(size: int, *others: int) -> int:
        try:
            return run(inner, engine, bytearray(b"x" * size))
        except MemoryFault as fault:
            caught.append(fault)
            return 1000

    text = (
        "mov r6, r1\nstdw [r10-8], 7\nmov r7, 70\nmov r1, 5\ncall 1\nmov r8, r0\nmov r1, 6\ncall 1\n"
        "add r0, r8\nldxdw r1, [r10-8]\nadd r0, r1\nadd r0, r7\nldxb r1, [r6]\nadd r0, r1\nstb [r6], 9\nexit"
    )
    outer, memory = EbpfVmRaw(assemble(text), instruction_limit=16), bytearray(b"\4")
    outer.register_helper(1, helper)
    assert run(outer, engine, memory) == 1000 + ord("x") + 7 + 70 + 4
    assert memory == b"\x09"
    assert [(fault.pc, fault.size, fault.access) for fault in caught] == [(1, 1, "load")]


@engines
def test_a_fault_in_a_program_that_a_helper_runs_passes_through(engine: str) -> None:
    """Its pc is that of the inner program."""
    inner = EbpfVmRaw(assemble("mov r0, 0\nmov r0, 0\nldxb r0, [r1+5]\nexit"))
    outer = EbpfVmNoData(assemble("call 1\nexit"))
    outer.register_helper(1, lambda *_: run(inner, engine, bytearray(1)))
    with pytest.raises(MemoryFault) as caught:
        run(outer, engine)
    assert caught.value.pc == 2


@in_child
def test_a_program_that_calls_itself_for_ever_ends_in_a_recursion_error() -> None:
    vm = EbpfVmNoData(assemble("mov r1, 5\ncall local f\nexit\nf: call 1\nexit"))
    vm.register_helper(1, lambda *_: vm.execute_program_jit())
    vm.jit_compile()
    for _ in range(3):
        with pytest.raises(RecursionError):
            vm.execute_program_jit()
    vm.register_helper(1, lambda *_: 3)
    assert vm.execute_program_jit() == 3


# -- threads ------------------------------------------------------------------------------------


@in_child
def test_one_compiled_program_in_many_threads_with_helpers_and_faults() -> None:
    """Each has its own registers, stack, memory, budget, granted memory and faults."""
    text = (
        "mov r6, r1\nmov r7, r2\nstxdw [r10-8], r7\nstxb [r6], r7\nmov r9, 20\n"
        "loop: mov r1, r7\ncall 1\nstxdw [r10-16], r0\n"  # gives other threads a turn
        "mov r1, r7\ncall 2\nldxb r3, [r0]\njne r3, r7, wrong\n"  # memory of this run's own
        "mov r1, r7\ncall local f\njne r0, r7, wrong\n"
        "ldxdw r3, [r10-8]\njne r3, r7, wrong\nldxdw r3, [r10-16]\njne r3, r7, wrong\nldxb r3, [r6]\n"
        "jne r3, r7, wrong\nsub r9, 1\njne r9, 0, loop\n"
        "jset r7, 1, faulty\nmov r0, r7\nexit\nfaulty: mov r6, r6\nadd r6, r7\nldxb r0, [r6]\nexit\n"
        "wrong: mov r0, -1\nexit\n"
        "f: stxdw [r10-8], r1\nmov r6, r1\ncall 1\nldxdw r0, [r10-8]\nexit"
    )
    vm = EbpfVmRaw(assemble(text), instruction_limit=2000)

    def yields(value: int, *others: int) -> int:
        time.sleep(0)
        return value

    def hands_out(value: int, *others: int) -> int:
        memory = bytearray([value])
        grant(memory)
        return address_of(memory)

    vm.register_helper(1, yields)
    vm.register_helper(2, hands_out)
    vm.jit_compile()
    sys.setswitchinterval(1e-5)
    wrong: list[Any] = []
    together = threading.Barrier(10)
    faults = count()

    def work(size: int) -> None:
        together.wait()
        for _ in range(30):
            memory = bytearray(size)
            try:
                result = vm.execute_program_jit(memory)
            except MemoryFault as fault:
                next(faults)
                if (fault.address, fault.size, size % 2) != (address_of(memory) + size, 1, 1):
                    wrong.append((size, fault))
                continue
            except Exception as error:
                wrong.append((size, error))
                continue
            if result != size or size % 2 or memory[0] != size:
                wrong.append((size, result))

    threads = [threading.Thread(target=work, args=(size,)) for size in range(1, 11)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    assert next(faults) == 5 * 30


@in_child
def test_a_machine_may_be_changed_while_another_thread_runs_it() -> None:
    """The code of a run stays until it ends, whatever is registered or loaded meanwhile."""
    vm = EbpfVmNoData(assemble("mov r6, 300\nloop: call 1\nsub r6, 1\njne r6, 0, loop\nmov r0, 11\nexit"))
    vm.register_helper(1, lambda *_: 1)
    vm.jit_compile()
    failures, results, done = [], set(), threading.Event()
    sys.setswitchinterval(1e-5)

    def work() -> None:
        for _ in range(40):
            try:
                results.add(vm.execute_program_jit())
            except Exception as error:
                failures.append(repr(error))
        done.set()

    thread = threading.Thread(target=work)
    thread.start()
    while not done.is_set():
        vm.register_helper(1, lambda *_: 2)
        gc.collect(0)
    thread.join()
    assert failures == []
    assert results == {11}


# -- hardening ----------------------------------------------------------------------------------


def _rows_with_immediates() -> list[Row]:
    shifts = ("LSH", "RSH", "ARSH")  # a count is taken modulo the width: 6 bits of it are left
    return [
        row for row in TABLE
        if row.imm in (Imm.OPERAND, Imm.PACKET, Imm.LOW) and row.meaning not in shifts
        and row.reference is None
    ]  # fmt: skip


def _with_immediate(row: Row, imm: int) -> bytes:
    """A program that uses a row's immediate; where it takes more, each half of LDDW has its own."""
    start = constant(0, 0x1122334455667788) + word("MOV64_X", 6, 1)
    if row.is_wide:
        return start + constant(0, imm << 32 | imm ^ 0x01010101) + EXIT
    dst = 6 if row.kind is Kind.STORE else 0
    body = word(row.name, dst, 0, 0, imm)
    if row.kind is Kind.STORE:
        body += word("LDXDW", 0, 6)
    return start + body + EXIT


HARDENED_ROWS = _rows_with_immediates()


def test_hardening_covers_every_kind_of_row_with_an_immediate() -> None:
    names = {row.operation for row in HARDENED_ROWS}
    wanted = {"ADD64", "ADD32", "MUL64", "DIV64", "SMOD32", "MOV64", "MOV32", "LDDW", "JEQ", "JSGT32", "JSET"}
    assert wanted | {"STB", "STH", "STW", "STDW", "LDABSW", "LDINDB"} <= names


@in_child
def test_hardened_code_holds_no_immediate_of_the_program() -> None:
    """The number is in the plain code, not in the hardened one; both do what the interpreter does."""
    for index, row in enumerate(HARDENED_ROWS):
        for top in (0x5E, 0xDE):  # a positive and a negative number; no two are alike
            imm = top << 24 | 0xADB700 | index
            signed = imm - (1 << 32) if imm >> 31 else imm
            code = _with_immediate(row, imm if row.is_wide else signed)
            needles = [imm.to_bytes(4, "little")]
            if row.is_wide:
                needles = [(imm ^ 0x01010101).to_bytes(4, "little"), needles[0], code[28:32] + code[36:40]]
            plain = compile_program(prepare(Program.from_bytes(code))).image.code
            if row.kind is not Kind.STORE or row.size >= 4:
                assert all(needle in plain for needle in needles), f"{row}: not even in the plain code"
            for _ in range(4):  # keys are drawn anew
                both = Both(code, harden=True)
                image = both.compiled.image.code
                assert all(needle not in image for needle in needles), f"{row}: {imm:#x}"
                memory = ctypes.string_at(both.compiled.buffer.address, len(image))
                assert all(needle not in memory for needle in needles), f"{row}: {imm:#x}"
                assert both.run(region(bytearray(16))).kind == "ok"


@in_child
def test_hardened_code_does_the_same() -> None:
    from ebpfjit.difftest.check import Checker
    from ebpfjit.difftest.coverage import ENDING, Coverage
    from ebpfjit.difftest.sources import case_of

    coverage = Coverage()
    checker = Checker(("interpreter", "jit"), coverage)
    for number in range(150):
        assert checker.check(dataclasses.replace(case_of(1, number, ("valid",)), build="hardened")) is None
    assert {"ok", "MemoryFault load", "BudgetExhausted"} <= coverage.of(ENDING).keys()


@in_child
def test_hardened_jumps_over_a_move_do_the_same() -> None:
    """Such a pair becomes a conditional move, whose number is blinded too."""
    for jump in ("jeq", "jne32", "jgt", "jsle32", "jset"):
        for move in ("mov r0, {}", "mov32 r0, {}", "mov r0, r2", "mov32 r0, r3"):
            for imm in (-2, 0x7EADBEEF, -0x80000000, 0):
                text = f"mov r3, -3\nmov r0, -1\n{jump} r2, 3, over\n{move.format(imm)}\nover: exit"
                both = Both(text, harden=True)
                for size in (1, 3, 5):
                    assert both.run(region(bytearray(size))).kind == "ok"
                if imm == 0x7EADBEEF:
                    assert imm.to_bytes(4, "little") not in both.compiled.image.code


def test_keys_are_drawn_anew() -> None:
    verified = prepare(Program.from_bytes(assemble("mov r0, 0x12345678\nadd r0, 0x12345678\nexit")))
    images = {compile_program(verified, Options(harden=True)).image.code for _ in range(5)}
    assert len(images) == 5


# -- the assembler's whims ----------------------------------------------------------------------

DECIMAL = re.compile(r"(?<![\w$.])[1-9][0-9]+(?!\w)")


def test_no_text_depends_on_the_radix_that_keystone_happens_to_have() -> None:
    """Keystone never initialises its default radix: where memory holds a 16, `add rsp, 56` is 0x56.

    (keystone-engine/keystone, pull requests 528 and 608.) So numbers of two digits are written as 0x38.
    """
    from ebpfjit.difftest.arena import arena
    from ebpfjit.difftest.sources import case_of

    found: set[str] = set()
    for seed in range(200):
        verified = prepare(Program.from_bytes(case_of(seed, 0, ("valid",)).code))
        for harden in (False, True):
            options = Options(harden=harden, features=frozenset() if seed % 2 else None)
            compiled = compile_program(verified, options, arena().helpers)
            for piece in compiled.listing.pieces:
                templates = [getattr(item, "template", "") for item in piece.items]
                found.update(template for template in templates if DECIMAL.search(template))
    assert found == set()


# -- checked=False, and what a listing says -----------------------------------------------------


def test_without_checks_there_are_none_and_the_docstrings_say_so() -> None:
    for machine in (EbpfVmRaw, EbpfVmMbuff, EbpfVmFixedMbuff, EbpfVmNoData):
        assert "without checks a wrong program can crash" in " ".join((machine.__doc__ or "").split())
    assert "crash the process" in " ".join((compile_program.__doc__ or "").split())
    accesses = "".join(
        word(row.name, 1 if row.kind is not Kind.LOAD else 2, 2 if row.kind is not Kind.LOAD else 1).hex()
        for row in TABLE if row.kind in (Kind.LOAD, Kind.STORE, Kind.ATOMIC)
    )  # fmt: skip
    verified = prepare(Program.from_bytes(bytes.fromhex(accesses) + EXIT))

    def text(*, checked: bool) -> str:
        listing = compile_program(verified, Options(checked)).listing
        return "\n".join(item.text for piece in listing.pieces for item in piece.items)

    assert "check_load" in text(checked=True)
    for name in ("check_", "other", "slow_"):
        assert name not in text(checked=False)


def test_a_listing_says_of_each_access_why_it_is_checked_or_not() -> None:
    text = assemble(
        "ldxdw r2, [r1]\nldxdw r3, [r1]\nstb [r10-1], 5\nldxb r6, [r2+3]\nldxb r4, [r2+1]\nldxh r5, [r2]\n"
        "lock add [r3], r4\nldxb r0, [r10-513]\nadd r0, r5\nadd r0, r6\nexit"
    )
    expected = {
        0: "checked: 8 bytes of the argument",
        1: "no check: one at pc 0 covers it",
        2: "no check: frame",
        3: "checked, packet first: 4 bytes",
        4: "no check: one at pc 3 covers it",
        5: "no check: one at pc 3 covers it",
        6: "checked, ",
        7: "checked, stack first",
    }
    listing = EbpfVmRaw(text).listing()
    for pc, reason in expected.items():
        line = next(line for line in listing.splitlines() if line.startswith(f"{pc:4}: "))
        assert f"; {reason}" in line, line
    unchecked = EbpfVmRaw(text, checked=False).listing()
    for pc in expected:
        line = next(line for line in unchecked.splitlines() if line.startswith(f"{pc:4}: "))
        assert line.endswith("; not checked")
    promised = EbpfVmFixedMbuff(text, 0, 8).listing()
    assert "; no check: argument" in promised


# -- what a program can see ---------------------------------------------------------------------

DUMP = "".join(f"stxdw [r{{base}}+{8 * n}], r{n}\n" for n in range(11))
NATIVE = ctypes.CDLL(None).labs


def _dumped(left: Left, count: int = 11) -> list[int]:
    assert left.kind == "ok", left
    return [int.from_bytes(left.memory[8 * n : 8 * n + 8], "little") for n in range(count)]


@in_child
def test_registers_at_the_start() -> None:
    memory = bytearray(88)
    both = Both(DUMP.format(base=1) + "exit")
    registers = _dumped(both.run(region(memory)))
    assert registers[1:3] == [address_of(memory), 88]
    assert registers[10] == both.stack.top
    assert registers[0:1] + registers[3:10] == [0] * 8


@in_child
def test_registers_after_a_helper_call() -> None:
    """r0 is the result, r1 to r5 are 0, r6 to r10 as they were; whoever the helper is."""
    helpers = {1: lambda *_: 0xABC, 2: NativeHelper(ctypes.cast(NATIVE, ctypes.c_void_p).value or 0, NATIVE)}
    memory = bytearray(88)
    start = "mov r6, r1\n" + "".join(
        f"lddw r{n}, {0x0101010101010101 * n}\n" for n in (1, 2, 3, 4, 5, 7, 8, 9)
    )
    for helper, result in ((1, 0xABC), (2, 0x0101010101010101)):
        for before in ("", "call 1\n", "call local f\n"):
            text = start + before + start[11:] + f"call {helper}\n" + DUMP.format(base=6) + "exit\nf: exit"
            both = Both(text, helpers=helpers)
            registers = _dumped(both.run(region(memory)))
            assert registers[:7] == [result, 0, 0, 0, 0, 0, address_of(memory)]
            assert registers[7:] == [0x0101010101010101 * n for n in (7, 8, 9)] + [both.stack.top]


@in_child
def test_registers_in_and_after_a_local_call() -> None:
    """The callee sees its caller's registers, and a frame of its own; the caller keeps r6 to r10."""
    memory = bytearray(88 * 2)
    start = "mov r6, r1\n" + "".join(f"mov r{n}, {100 + n}\n" for n in (0, 1, 2, 3, 4, 5, 7, 8, 9))
    change = "".join(f"mov r{n}, {200 + n}\n" for n in range(10))
    for call in ("call local f", "lddw r9, f ll\ncallx r9"):
        if call.startswith("lddw"):
            code = assemble(start + "exit")[:-8]
            body = assemble(DUMP.format(base=6) + "exit")
            function = assemble("add r6, 88\n" + DUMP.format(base=6) + change + "exit")
            lddw = bytes.fromhex("1849000000000000") + bytes(8)
            distance = 2 + 1 + len(body) // 8 - 1
            lddw = lddw[:4] + distance.to_bytes(4, "little") + lddw[8:]
            code = code + lddw + word("CALLX", 9) + body + function
        else:
            code = assemble(
                start + call + "\n" + DUMP.format(base=6) + "exit\nf: add r6, 88\n" + DUMP.format(base=6)
                + change + "exit"
            )  # fmt: skip
        both = Both(code)
        everything = _dumped(both.run(region(memory)), 22)
        after, inside = everything[:11], everything[11:]
        assert inside[:6] == [100 + n for n in range(6)]
        assert inside[6] == address_of(memory) + 88
        assert inside[10] == both.stack.top - 512
        assert after[:6] == [200 + n for n in range(6)]
        assert after[6:9] == [address_of(memory), 107, 108]
        assert after[10] == both.stack.top


def _dump_frame(base: str = "r6", size: int = 512) -> str:
    """Copy the frame, 8 bytes at a time, at constant offsets."""
    return "".join(
        f"ldxdw r0, [r10-{offset}]\nstxdw [{base}+{size - offset}], r0\n" for offset in range(8, size + 1, 8)
    )


@in_child
def test_every_byte_of_the_stack_is_zero_at_the_start() -> None:
    """In main, and in a callee whose frame another callee has filled; read at constants and at variables."""
    fill = "".join(f"stdw [r10-{offset}], -1\n" for offset in range(8, 513, 8))
    variable = (
        "mov r2, 512\nloop: mov r3, r10\nsub r3, r2\nldxb r0, [r3]\nmov r4, r6\nadd r4, r2\nstxb [r4-1], r0\n"
        "sub r2, 1\njne r2, 0, loop\n"
    )
    calls = f"call local f\ncall local g\nexit\nf: {fill}mov r0, 0\nexit\ng: "
    for read in (_dump_frame(), variable):
        for text in (f"{read}exit", f"{calls}{read}exit", f"{calls}call local h\nexit\nh: {read}exit"):
            left = Both("mov r6, r1\n" + text).run(region(bytearray(b"\xff" * 512)))
            assert left.kind == "ok"
            assert left.memory == bytes(512)


@in_child
def test_the_stack_of_one_run_is_not_seen_by_the_next() -> None:
    vm = EbpfVmRaw(assemble("ldxdw r0, [r10-8]\nlddw r2, 0x5ec5e75ec5e7\nstxdw [r10-8], r2\nexit"))
    vm.jit_compile()
    assert [vm.execute_program_jit(b"") for _ in range(50)] == [0] * 50


DIRTY = "stdw [r10-8], 77\nstdw [r10-16], 78\nmov r0, 0\n"
READ = "ldxdw r0, [r10-8]"


@dataclass(frozen=True)
class Look:
    """How `g` looks at its frame, which `f` has had before: what g, main and f do besides."""

    reading: str
    main: str = "call local f\ncall local g"
    more: str = ""


FRAMES = {
    "plain": Look(READ),
    "one byte": Look(f"stw [r10-8], 0\n{READ}"),
    "one path writes": Look(f"jne r1, 0, l\nstdw [r10-8], 0\nl: {READ}"),
    "variable": Look("mov r2, r10\nmov r3, 8\nand r1, 0\nlsh r3, r1\nsub r2, r3\nldxb r0, [r2]"),
    "an atomic reads": Look("mov r0, 1\nlock fetch add [r10-8], r0"),
    "to a helper": Look("mov r1, r10\nsub r1, 16\ncall 1"),
    "to a helper in r5": Look("mov r5, r10\nsub r5, 16\ncall 2"),
    "in memory": Look("stxdw [r6], r10\nldxdw r1, [r6]\nldxdw r0, [r1-8]"),
    "xchg into memory": Look("mov r2, r10\nlock xchg [r6], r2\nldxdw r1, [r6]\nldxdw r0, [r1-8]"),
    "in the frame": Look("stxdw [r10-24], r10\nldxdw r1, [r10-24]\nldxdw r0, [r1-8]"),
    "to a callee": Look("mov r1, r10\ncall local h"),
    "to a callee in r9": Look("mov r9, r10\ncall local k"),
    "in halves": Look(
        "mov r1, r10\nmov r2, r10\nrsh r1, 32\nlsh r1, 32\nmov32 r2, r2\nor r1, r2\nldxdw r0, [r1-8]"
    ),
    "by two negations": Look("mov r1, r10\nneg r1\nneg r1\nldxdw r0, [r1-8]"),
    "through arithmetic": Look("mov r1, r10\nmul r1, 1\nldxdw r0, [r1-8]"),
    "subtracted from a number": Look("mov r1, 0\nsub r1, r10\nneg r1\nldxdw r0, [r1-8]"),
    "from two pointers": Look("mov r1, r10\nsub r1, r6\nadd r1, r6\nldxdw r0, [r1-8]"),
    "one of two pointers": Look(
        "mov r2, r10\njeq r1, 0, l\nmov r2, r6\nl: ldxdw r0, [r2-8]", "call local f\nmov r1, 0\ncall local g"
    ),
    "a pointer or a number": Look(
        "mov r2, r10\njeq r1, 0, l\nmov r2, 0\nl: ldxdw r0, [r2-8]", "call local f\nmov r1, 0\ncall local g"
    ),
    "returned in r0": Look("ldxdw r0, [r1-8]", "call local f\nmov r1, r0\ncall local g", "mov r0, r10"),
    "left in r1": Look("ldxdw r0, [r1-8]", more="mov r1, r10"),
    "left in r5 by a callee's callee": Look("ldxdw r0, [r5-8]", "call local e\ncall local g"),
    "from below": Look("call local up"),
    "computed from main's": Look("ldxdw r0, [r1-8]", "call local f\nmov r1, r10\nsub r1, 512\ncall local g"),
    "main again": Look(
        "exit", f"jeq r9, 5, again\nmov r9, 5\ncall local f\ncall local main\nexit\nagain: {READ}"
    ),
    "the same function again": Look(f"{READ}\nstdw [r10-8], 5", "call local g\ncall local g"),
    "in a loop": Look(READ, "mov r9, 3\nloop: call local f\ncall local g\nsub r9, 1\njne r9, 0, loop"),
    "code of two functions": Look(f"ja shared\nshared: {READ}", more="jeq r1, 0, shared"),
    "read by a callee of its own": Look(f"{READ}\ncall local nothing"),
}


CALLEES = {
    "h": "h: ldxdw r0, [r1-8]\nexit\n",
    "k": "k: ldxdw r0, [r9-8]\nexit\n",
    "up": "up: ldxdw r0, [r10+504]\nexit\n",
    "nothing": "nothing: exit\n",
    "e": f"e: {DIRTY}call local e2\nexit\ne2: mov r5, r10\nadd r5, 512\nexit\n",
}


@in_child
def test_frames_are_zeroed_where_anything_may_read_them() -> None:
    """A frame that an earlier callee left dirty is as new for the next one, however that looks at it."""
    seen = {name: _left_in_a_frame(look) for name, look in FRAMES.items()}
    assert seen == dict.fromkeys(FRAMES, ("ok", 0))


def _left_in_a_frame(look: Look) -> tuple[str, Any]:
    """Return what a function sees in its frame, as its value, where an earlier one left it dirty."""
    text = f"main: mov r6, r1\n{look.main}\nexit\nf: {DIRTY}{look.more}\nexit\ng: {look.reading}\nexit\n"
    # No others: what they do with frames would have all of them zeroed.
    text += "".join(body for name, body in CALLEES.items() if f"call local {name}\n" in f"{text}\n")
    from ebpfjit.runtime import memory

    helpers = {
        1: lambda r1, *others: int.from_bytes(memory.read(r1 + 8, 8), "little"),
        2: lambda r1, r2, r3, r4, r5: int.from_bytes(memory.read(r5 + 8, 8), "little"),
    }
    left = Both(text, helpers=helpers).run(region(bytearray(16)))
    return left.kind, left.details


@in_child
def test_a_callee_may_touch_its_callers_frame_and_no_more() -> None:
    """r10+0 is its caller's; r10-513 is nobody's; main's callers' are not there."""
    inside = ((0, 8), (504, 8), (-512, 8), (-4, 8))
    outside = ((505, 8), (-513, 1), (512, 1))
    for offset, size in inside + outside:
        fine = (offset, size) in inside
        access = {1: "ldxb", 8: "ldxdw"}[size]
        left = Both(f"call local f\nexit\nf: {access} r0, [r10{offset:+d}]\nexit").run()
        assert left.kind == ("ok" if fine else "MemoryFault"), offset
    both = Both("ldxb r0, [r10+0]\nexit")
    assert both.run().kind == "MemoryFault"
    # After a callee has gone its frame is out of reach.
    left = Both("call local f\nldxb r0, [r10-513]\nexit\nf: stb [r10-1], 1\nmov r0, 0\nexit").run()
    assert left.has(pc=1, size=1, access="load")


# -- bad input ----------------------------------------------------------------------------------

MACHINES: dict[str, Callable[..., Any]] = {
    "raw": EbpfVmRaw,
    "mbuff": EbpfVmMbuff,
    "no data": EbpfVmNoData,
    "fixed": lambda prog=None, **options: EbpfVmFixedMbuff(prog, 0, 8, **options),
}


@pytest.mark.parametrize("machine", MACHINES)
@pytest.mark.parametrize("limit", [0, -1, -(2**63), 1.0, "1", b"1", (1,)])
def test_a_limit_that_is_no_positive_number(machine: str, limit: Any) -> None:
    with pytest.raises(ValueError, match="instruction_limit is a positive number"):
        MACHINES[machine](instruction_limit=limit)


@engines
@pytest.mark.parametrize("limit", [1, SLICE, SLICE + 1, 2**32, 2**63, 2**64 - 1, 2**64, 2**80])
def test_limits_of_any_size(engine: str, limit: int) -> None:
    vm = EbpfVmNoData(assemble("exit"), instruction_limit=limit)
    assert run(vm, engine) == 0


@pytest.mark.parametrize("limit", [SLICE - 3, SLICE, SLICE + 5, 2 * SLICE + 1])
def test_limits_around_a_slice(limit: int) -> None:
    """In machine code: millions of instructions would take the interpreter too long."""
    text = "loop: add r0, 1\nadd r0, 1\nadd r0, 1\njne r0, 0, loop\nexit"
    vm = EbpfVmNoData(assemble(text), instruction_limit=limit)
    with pytest.raises(BudgetExhausted) as caught:
        run(vm, "execute_program_jit")
    assert caught.value.pc == 0


@pytest.mark.parametrize(
    "memory",
    [
        b"",
        bytearray(),
        memoryview(b""),
        range(0),
        range(7, 7),
        range(9, 8),
        range(-8, 8),
        range(-8, -1),
        range(0, 16, 8),
        range(2**64 - 8, 2**64 + 1),
        range(2**64, 2**64 + 8),
        range(0, 2**63),
        range(1, 2**64),
    ],
)
def test_allowed_memory_that_is_empty_or_overflows(memory: Any) -> None:
    with pytest.raises(ValueError, match="allowed memory"):
        EbpfVmNoData().register_allowed_memory(memory)


@pytest.mark.parametrize("memory", [5, "text", None, [1], object()])
def test_allowed_memory_that_is_no_memory(memory: Any) -> None:
    with pytest.raises(TypeError):
        EbpfVmNoData().register_allowed_memory(memory)


def test_allowed_memory_that_is_not_contiguous() -> None:
    with pytest.raises(BufferError, match="contiguous"):
        EbpfVmNoData().register_allowed_memory(memoryview(bytearray(8))[::2])


@engines
def test_a_buffer_cannot_shrink_or_go_while_it_is_allowed(engine: str) -> None:
    memory, mapped = bytearray(b"\5" * 8), mmap.mmap(-1, PAGE)
    vm = EbpfVmNoData(assemble(f"lddw r1, {address_of(memory)}\nldxb r0, [r1+7]\nexit"))
    view = memoryview(memory)
    vm.register_allowed_memory(view)
    vm.register_allowed_memory(mapped)
    for change in (memory.clear, memory.pop, lambda: memory.extend(b"x"), mapped.close):
        with pytest.raises(BufferError):
            change()
    view.release()  # the machine has a view of its own
    with pytest.raises(BufferError):
        memory.clear()
    assert run(vm, engine) == 5
    del vm
    gc.collect()
    memory.clear()
    mapped.close()


@engines
def test_a_buffer_cannot_shrink_or_go_while_a_program_runs_on_it(engine: str) -> None:
    memory, mapped = bytearray(8), mmap.mmap(-1, PAGE)
    refused = []

    def shrink(*arguments: int) -> int:
        for change in (memory.clear, lambda: memory.append(1), mapped.close):
            try:
                change()
            except BufferError:
                refused.append(change)
        return 0

    vm = EbpfVmMbuff(assemble("mov r6, r1\ncall 1\nldxb r0, [r6+7]\nexit"))
    vm.register_helper(1, shrink)
    assert run(vm, engine, mapped, memory) == 0
    assert len(refused) == 3
    memory.clear()
    mapped.close()


def test_a_released_view_is_refused_as_python_does() -> None:
    vm, view = EbpfVmRaw(assemble("ldxb r0, [r1]\nexit")), memoryview(bytearray(1))
    vm.jit_compile()
    view.release()
    for attempt in (vm.execute_program, vm.execute_program_jit, vm.register_allowed_memory):
        with pytest.raises(ValueError, match="released"):
            attempt(view)


@pytest.mark.parametrize("engine", ENGINES)
@in_child
def test_a_buffer_in_use_outlives_its_other_references(engine: str) -> None:
    """Memory, metadata, allowed and granted memory: a helper drops all else that holds them."""

    class Watched(bytearray):
        gone = 0

        def __del__(self) -> None:
            Watched.gone += 1

    holders: dict[str, Any] = {}
    pointers: list[int] = []

    def drop(*arguments: int) -> int:
        granted = Watched(b"granted!")
        grant(granted)
        pointers.append(address_of(granted))
        del granted
        holders.clear()
        gc.collect()
        for _ in range(200):  # whatever was freed is overwritten
            pointers.append(len(bytearray(b"\xee" * 8)))
        assert Watched.gone == 0
        return pointers[0]

    text = (
        "mov r6, r1\nldxdw r7, [r1]\nldxdw r8, [r1+8]\ncall 1\nldxb r2, [r0]\n"  # g
        "ldxb r3, [r7]\nldxb r4, [r8]\nldxb r5, [r6+16]\n"
        "lsh r3, 8\nlsh r4, 16\nlsh r5, 24\nor r2, r3\nor r2, r4\nor r2, r5\nmov r0, r2\nexit"
    )
    packet, allowed = Watched(b"packet--"), Watched(b"allowed-")
    mbuff = Watched(
        address_of(packet).to_bytes(8, "little") + address_of(allowed).to_bytes(8, "little") + b"mbuff"
    )
    machine = EbpfVmMbuff(assemble(text))
    machine.register_helper(1, drop)
    machine.register_allowed_memory(allowed)
    if engine == "execute_program_jit":
        machine.jit_compile()
    holders["vm"] = machine
    call = getattr(machine, engine)
    result = _call_and_forget([call], packet, mbuff)
    assert result == int.from_bytes(b"gpam", "little")
    del packet, mbuff, allowed, machine, call
    gc.collect()
    assert Watched.gone == 4


def _call_and_forget(calls: list[Any], *buffers: Any) -> int:
    return int(calls.pop()(*buffers))


@in_child
def test_a_machine_and_its_code_outlive_their_last_reference_while_they_run() -> None:
    memory: list[Any] = [bytearray(b"last")]
    holder: dict[str, Any] = {}
    sizes = []

    def drop(*arguments: int) -> int:
        holder.clear()
        gc.collect()
        for number in range(20):  # new code where the old one was, had it gone
            other = EbpfVmNoData(assemble(f"mov r0, {number}\nexit"))
            other.jit_compile()
            sizes.append(other.execute_program_jit())
        return 1

    holder["vm"] = EbpfVmRaw(assemble("mov r6, r1\ncall 1\ncall 1\nldxb r0, [r6]\nexit"))
    holder["vm"].register_helper(1, drop)
    holder["vm"].jit_compile()
    del drop
    assert holder["vm"].execute_program_jit(memory.pop()) == ord("l")
    assert sizes == list(range(20)) * 2


# -- memory that a helper grants ----------------------------------------------------------------


@in_child
def test_granted_memory_is_there_at_once_and_exact_to_the_byte() -> None:
    around = bytearray(64)

    def hand_out(size: int, *others: int) -> int:
        granted = memoryview(around)[16 : 16 + size]
        grant(granted)
        return address_of(around) + 16

    for size in range(1, 18):
        for access, width in (("ldxb", 1), ("ldxh", 2), ("ldxw", 4), ("ldxdw", 8)):
            for offset in sorted({-1, 0, 1, size - width, size - width + 1, size, -width}):
                text = f"mov r1, {size}\ncall 1\n{access} r0, [r0{offset:+d}]\nexit"
                left = Both(text, helpers={1: hand_out}).run(limit=None)
                assert (left.kind == "ok") == (0 <= offset <= size - width), (size, access, offset)


@in_child
def test_granted_memory_is_for_this_run_and_may_come_many_times() -> None:
    chunks = [bytearray([n]) * 8 for n in range(100)]
    numbers = iter(chunks * 2)

    def hand_out(*arguments: int) -> int:
        chunk = next(numbers)
        grant(chunk)
        return address_of(chunk)

    text = (
        "mov r6, r1\nmov r7, 100\nmov r8, 0\nldxdw r9, [r6]\njeq r9, 0, loop\nldxb r0, [r9]\nexit\n"
        "loop: call 1\nldxb r1, [r0]\nadd r8, r1\nstxdw [r0], r8\nsub r7, 1\njne r7, 0, loop\n"
        "mov r0, r8\nexit"
    )
    vm = EbpfVmRaw(assemble(text))
    vm.register_helper(1, hand_out)
    vm.jit_compile()
    assert vm.execute_program_jit(bytes(8)) == sum(range(100))
    # What an earlier run was given is not this one's.
    for engine in ENGINES:
        with pytest.raises(MemoryFault):
            getattr(vm, engine)(address_of(chunks[5]).to_bytes(8, "little"))


@in_child
def test_memory_granted_read_only_or_by_a_nested_run_is_not_more_than_that() -> None:
    frozen = b"12345678"
    inner_memory = bytearray(8)

    def give_frozen(*arguments: int) -> int:
        grant(frozen)
        return address_of(frozen)

    both = Both("call 1\nldxb r2, [r0]\nstb [r0+7], 1\nexit", helpers={1: give_frozen})
    assert both.run().has(pc=2, address=address_of(frozen) + 7, access="store")

    def give_inner(*arguments: int) -> int:
        grant(inner_memory)
        return address_of(inner_memory)

    def nested(*arguments: int) -> int:
        inner = EbpfVmNoData(assemble("call 1\nldxb r0, [r0]\nexit"))
        inner.register_helper(1, give_inner)
        inner.jit_compile()
        assert inner.execute_program_jit() == 0
        return address_of(inner_memory)

    outer = Both("call 1\nldxb r0, [r0]\nexit", helpers={1: nested})
    assert outer.run().has(pc=1, address=address_of(inner_memory))


# -- regions, exact to the byte -----------------------------------------------------------------

ACCESSES = [row for row in TABLE if row.kind in (Kind.LOAD, Kind.STORE, Kind.ATOMIC)]
MARGIN = 64


@dataclass(frozen=True)
class World:
    """Regions of every kind, each with memory around it that is nobody's; two are neighbours."""

    buffers: dict[str, bytearray]
    regions: list[Region]
    cell: bytearray
    granted: memoryview

    @classmethod
    def make(cls) -> World:
        names = ("mem", "allowed", "read-only", "neighbours", "empty", "granted", "odd")
        buffers = {name: bytearray(range(2 * MARGIN + 48)) for name in names}
        # Addresses that are multiples of 8, whatever the allocator gave.
        starts = {name: MARGIN + -address_of(buffer) % 8 for name, buffer in buffers.items()}

        def part(name: str, first: int, last: int) -> memoryview:
            return memoryview(buffers[name])[starts[name] + first : starts[name] + last]

        cell = bytearray(8)
        regions = [
            region(part("mem", 0, 24)),
            region(part("allowed", 0, 16), "allowed"),
            region(part("read-only", 0, 16).toreadonly(), "read-only"),
            region(part("neighbours", 0, 8), "left neighbour"),
            region(part("neighbours", 8, 16), "right neighbour"),
            Region(
                "empty",
                address_of(part("empty", 8, 9)),
                address_of(part("empty", 8, 9)),
                True,
                memoryview(bytearray()),
            ),
            region(part("odd", 1, 4), "odd"),
            region(cell, "cell"),
        ]
        return cls(buffers, regions, cell, part("granted", 0, 16))

    def allows(self, address: int, row: Row, stack: tuple[int, int]) -> bool:
        """What the documentation says: all bytes inside one region, which may be written if need be."""
        known = [(r.start, r.stop, r.writable) for r in self.regions]
        granted = address_of(self.granted)
        known += [(granted, granted + 16, True), (*stack, True)]
        return any(
            start <= address and address + row.size <= stop and (writable or row.kind is Kind.LOAD)
            for start, stop, writable in known
        )


PREFIXES = {
    # How r3 gets the address in the cell, so that each kind of region is the first one tried.
    "argument": word("MOV64_X", 3, 6) + word("SUB64_X", 4, 6) + word("ADD64_X", 3, 4),
    "packet": word("MOV64_X", 3, 4),
    "stack": word("MOV64_X", 3, 10) + word("SUB64_X", 4, 10) + word("ADD64_X", 3, 4),
}


def _fault_free(row: Row, address: int) -> bool:
    return not row.is_ordered or address % row.size == 0


@pytest.mark.parametrize("prefix", PREFIXES)
@in_child
def test_every_access_is_exact_at_both_ends_of_every_kind_of_region(prefix: str) -> None:
    """Loads, stores and atomics of all sizes; the interpreter agrees, and so does arithmetic."""
    world = World.make()

    def hand_out(*arguments: int) -> int:
        grant(world.granted)
        return 0

    outcomes: set[tuple[Kind, str]] = set()
    for row in ACCESSES:
        loads = row.kind is Kind.LOAD
        code = word("MOV64_X", 6, 1) + word("CALL", imm=1) + constant(4, address_of(world.cell))
        code += word("LDXDW", 4, 4) + PREFIXES[prefix] + word("MOV64_K", 0, imm=5)
        pc = len(code) // 8
        code += word(row.name, 0 if loads else 3, 3 if loads else 0, 0, 7) + EXIT
        both = Both(code, helpers={1: hand_out})
        both.watched.append(world.granted)
        stack = (both.stack.top - 512, both.stack.top)
        ends = [(r.start, r.stop) for r in world.regions[:-1]] + [stack]
        ends.append((address_of(world.granted), address_of(world.granted) + 16))
        addresses = {0, 1, U64, 2**64 - row.size, 2**63}
        for start, stop in ends:
            for edge in (start, stop):
                addresses |= {edge - row.size, edge - 1, edge, edge + 1, edge - row.size + 1, edge + row.size}
        for address in sorted(address % 2**64 for address in addresses):
            world.cell[:] = address.to_bytes(8, "little")
            left = both.run(*world.regions)
            if not _fault_free(row, address):
                assert left.kind == "AlignmentFault", (row, hex(address))
            elif world.allows(address, row, stack):
                assert left.kind == "ok", (row, hex(address), left)
            else:
                assert left.has(pc=pc, address=address, size=row.size), (row, hex(address), left)
            outcomes.add((row.kind, left.kind))
    for kind in (Kind.LOAD, Kind.STORE, Kind.ATOMIC):
        assert {name for k, name in outcomes if k is kind} == {"ok", "MemoryFault", "AlignmentFault"}


@in_child
def test_every_access_is_exact_at_constant_offsets() -> None:
    """From r1 and from r10, which need no arithmetic at run time: the check is merged, folded or proven."""
    for size in (0, 1, 7, 8, 9):
        around = bytearray(64)
        memory = region(memoryview(around)[32 : 32 + size])
        for row in ACCESSES:
            if row.is_ordered and address_of(around) % 8:
                continue
            loads = row.kind is Kind.LOAD
            for base, low, high in ((1, 0, size), (10, -512, 0)):
                for offset in {low - 1, low - row.size, low, high - row.size, high - row.size + 1, high}:
                    if row.is_ordered and offset % row.size:
                        continue
                    code = word("MOV64_K", 0, imm=5)
                    code += word(row.name, 0 if loads else base, base if loads else 0, offset, 7) + EXIT
                    left = Both(code).run(memory)
                    fine = low <= offset <= high - row.size
                    if base == 1 and size == 0:
                        fine = False
                    assert (left.kind == "ok") == fine, (row, size, base, offset, left)


@in_child
def test_frames_of_any_size_are_exact() -> None:
    for frame in (0, 16, 32, 496, 4096):
        for offset in (-frame - 1, -frame, -frame + 1, -8, -1, 0):
            for access, width in (("ldxb", 1), ("ldxdw", 8)):
                moved = f"mov r2, r10\nadd r2, {offset}\nldxb r3, [r2]\n{access} r0, [r2]"
                added = f"mov r2, r10\nadd r2, r3\n{access} r0, [r2{offset:+d}]"
                for text in (f"{access} r0, [r10{offset:+d}]", added, moved):
                    left = Both(f"{text}\nexit", frame_size=frame).run()
                    fine = -frame <= offset <= -width
                    assert (left.kind == "ok") == fine, (frame, text)


# -- merged checks ------------------------------------------------------------------------------


def _merged(both: Both) -> int:
    """How many accesses rely on the check of another."""
    notes = listing_of(Recipe(both.verified)).notes
    return sum(note.startswith("no check: one at pc") for note in notes.values())


@in_child
def test_where_a_merged_check_fails_the_fault_is_that_of_the_right_access() -> None:
    """Every order of accesses, on memory of every length: the pc, and what was written before it."""
    offsets = (0, 5, 8, 16)
    faults = set()
    for order in permutations(range(4)):
        body = "".join(
            ("stdw [r1+{0}], {1}\n", "ldxw r2, [r1+{0}]\n", "stxh [r1+{0}], r2\n", "stb [r1+{0}], {1}\n")[
                index
            ].format(offsets[index], index + 100)
            for index in order
        )
        both = Both(f"mov r2, 7\n{body}mov r0, 1\nexit")
        assert _merged(both) >= 1
        for size in range(26):
            left = both.run(region(bytearray(b"\xaa" * size)))
            if left.kind != "ok":
                faults.add((order, dict(left.details[1])["pc"]))
            assert (left.kind == "ok") == (size >= 17)
    assert {pc for _, pc in faults} == {1, 2, 3, 4}


@in_child
def test_merged_checks_on_bases_that_move() -> None:
    """Below the base, across a moved copy, with a store in read-only memory in the middle."""
    text = (
        "mov r6, r1\nadd r6, 8\nldxb r0, [r6-8]\nmov r7, r6\nadd r7, 4\nldxb r2, [r7]\nstb [r6-1], 3\n"
        "ldxdw r2, [r7+3]\nsub r7, 12\nstw [r7+4], 9\nexit"
    )
    both = Both(text)
    assert _merged(both) >= 3
    for size in range(28):
        assert (both.run(region(bytearray(size))).kind == "ok") == (size >= 23)
    assert both.run(region(bytes(32))).has(pc=6, access="store", size=1)
    for start in (1, 7, 9):  # where the base is not at the start of what it may touch
        shifted = Both(text.replace("add r6, 8", f"add r6, {8 + start}"))
        for size in range(22, 34):
            assert (shifted.run(region(bytearray(size))).kind == "ok") == (size >= 23 + start)


@in_child
def test_merged_checks_around_a_call_that_grants_the_memory() -> None:
    """The first access is fine, the second only after the helper has granted what it touches."""
    whole = bytearray(32)
    first = memoryview(whole)[:8]

    def extend(*arguments: int) -> int:
        grant(memoryview(whole)[:24])
        return 0

    text = "mov r6, r1\nldxb r0, [r6]\n{before}call 1\nstb [r6+23], 5\nldxb r0, [r6+{last}]\nexit"
    both = Both(text.format(before="", last=16), helpers={1: extend})
    assert _merged(both) == 2
    assert both.run(region(first)).details == 0
    left = Both(text.format(before="ldxb r0, [r6+8]\n", last=16), helpers={1: extend}).run(region(first))
    assert left.has(pc=2)
    left = Both(text.format(before="", last=24), helpers={1: extend}).run(region(first))
    assert left.has(pc=4)


@in_child
def test_merged_checks_with_atomics_fault_in_the_right_order() -> None:
    """An address that is not aligned is a fault before one that is out of bounds, and where it stands."""
    text = "mov r3, 1\n{}\nldxb r0, [r1+16]\nexit"
    for atomic, offset in (("lock add [r1+{}], r3", 1), ("lock fetch or32 [r1+{}], r3", 2),
                           ("lock cmpxchg [r1+{}], r3", 4)):  # fmt: skip
        for at in (0, 8, offset, 8 + offset):
            for first in ("", "ldxb r2, [r1]\n"):
                both = Both(text.format(first + atomic.format(at)))
                around = bytearray(64)
                for size in (0, 1, 8, 12, 16, 17):
                    start = 16 + -address_of(around) % 8
                    left = both.run(region(memoryview(around)[start : start + size]))
                    assert left.kind in ("ok", "MemoryFault", "AlignmentFault")


@in_child
def test_a_random_search_of_merged_checks() -> None:
    rng = random.Random(20)
    kinds = {"merged": 0, "ok": 0, "MemoryFault": 0}
    for _ in range(150):
        body, count = "mov r2, 1\nmov r7, r1\nmov r8, r1\n", rng.randrange(2, 9)
        for number in range(count):
            base = rng.choice(("r1", "r7", "r8", "r7"))
            if rng.random() < 0.2:
                body += f"add {base if base != 'r1' else 'r7'}, {rng.choice((1, 4, 8, -4))}\n"
            offset = rng.randrange(-1, 24)
            suffix = rng.choice(("b", "h", "w", "dw"))
            body += rng.choice(
                (f"ldx{suffix} r2, [{base}{offset:+d}]\n", f"st{suffix} [{base}{offset:+d}], {number}\n")
            )
        both = Both(f"{body}mov r0, r2\nexit")
        kinds["merged"] += _merged(both)
        for size in rng.sample(range(36), 8):
            kinds[both.run(region(bytearray(range(size)))).kind] += 1
    assert all(kinds.values()), kinds


def test_pairs_of_regions_that_touch_are_still_two() -> None:
    """The picture that the tests above rely on: neighbours, with no byte between."""
    world = World.make()
    pairs = [(a.name, b.name) for a, b in pairwise(world.regions) if a.stop == b.start and a.size and b.size]
    assert pairs == [("left neighbour", "right neighbour")]
