"""What it takes to get in and out: calls from Python, helpers in Python, batches, threads.

Each comparison is between two ways to do the same, which take turns in one process:

    calls     a program that loads one byte of 64, called from Python: fn(mem), a machine's
              execute_program_jit(mem), a C extension's METH_FASTCALL function that does the same,
              and a C function that does it through ctypes, with an address that is ready; and the
              same program with the context of its type, beside the one without; a program that looks
              something up in a map, with Python's lock and without
    packet-helpers   programs that call a helper of Linux's which is machine code, and the same where that
              helper is called in Python, as all were that Python did
    helpers   a program that calls a helper which returns its first argument: a Python function,
              through the gate, and the same function as a ctypes callback
    batch     fn.map over packets of 64 bytes, and a loop in C that calls the same machine code; and one as
              users of uBPF write it: it calls a bare function, which checks and counts nothing, has no
              block to be filled in, and gets no stack of zeros
    threads   two threads that run a program without Python's lock, and one thread

The C extension and the C loop are built with the system's compiler, and left out where there is none.
"""

from __future__ import annotations

import ctypes
import functools
import math
import os
import threading
import time
from array import array
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import repeat
from typing import Any

from ebpfjit.assembler import assemble
from ebpfjit.bench import native
from ebpfjit.bench.benchmark import Bars, Benchmark, Section, Step
from ebpfjit.bench.measure import BenchError, Rounds, Way, in_turn, median, timed
from ebpfjit.function import JitFunction, raw_execution
from ebpfjit.jit.entry import Run
from ebpfjit.jit.map_routines import compile_routine
from ebpfjit.jit.routines import WORD, routines
from ebpfjit.literals import named_type
from ebpfjit.program import Program
from ebpfjit.record import dataclass
from ebpfjit.runtime.environment import Environment
from ebpfjit.runtime.execution import NativeHelper
from ebpfjit.runtime.helpers import table
from ebpfjit.runtime.helpers.names import NUMBERS
from ebpfjit.runtime.maps import MapDefinition, MapType, create
from ebpfjit.runtime.memory import address_of
from ebpfjit.sealed import inside
from ebpfjit.vm import EbpfVmRaw

ONE_LOAD = "ldxb r0, [r1]\nexit"
CALLS = 5_000  # in a try
TRIES = 3  # per way and round; the best counts
HELPER_CALLS = 1000  # in one run of the program
BY_MAP = "map() in Python"  # calls a function of Python from C, and does nothing else
SIZE = 64  # bytes of a packet
ENTRIES = 50_000_000  # of the loop that threads run
UNITS = {"ns": 1.0, "ms": 1e6}
ALONE = ("", "", math.nan)  # where there is nothing to compare with

EXTENSION = r"""
#define PY_SSIZE_T_CLEAN
#include <Python.h>
static PyObject *first(PyObject *self, PyObject *const *args, Py_ssize_t count) {
    if (count != 1) { PyErr_SetString(PyExc_TypeError, "first() takes one argument"); return NULL; }
    Py_buffer view;
    if (PyObject_GetBuffer(args[0], &view, PyBUF_SIMPLE) < 0) return NULL;
    if (view.len < 1) { PyBuffer_Release(&view); PyErr_SetString(PyExc_IndexError, "empty"); return NULL; }
    unsigned long long value = *(unsigned char *)view.buf;
    PyBuffer_Release(&view);
    return PyLong_FromUnsignedLongLong(value);
}
static PyMethodDef methods[] = {{"first", (PyCFunction)(void (*)(void))first, METH_FASTCALL, ""}, {0}};
static struct PyModuleDef definition = {PyModuleDef_HEAD_INIT, "extension", "", -1, methods};
PyMODINIT_FUNC PyInit_extension(void) { return PyModule_Create(&definition); }
"""

FIRST = r"""
#include <stdint.h>
uint64_t first(const uint8_t *start, uint64_t size) { return size ? *start : 0; }
"""

# What a run needs anew for each packet: where it is, its stack, its budget.
LOOP = r"""
#include <stdint.h>
typedef uint64_t (*run_t)(uint64_t *block, uint64_t program, uint64_t unlocked);
static inline int one(run_t run, uint64_t *block, uint64_t program, uint64_t packet, uint64_t *result) {
    block[ARGUMENT_START] = block[PACKET_START] = block[ARGUMENT_1] = packet;
    block[STACK_START] = block[STACK_TOP];
    block[BUDGET] = 1 << 25;
    *result = run(block, program, 0);
    return block[FAULT_KIND] != 0;
}
long by_stride(run_t run, uint64_t *block, uint64_t program, uint64_t base, long stride, long count,
               uint64_t *results) {
    for (long i = 0; i < count; i++)
        if (one(run, block, program, base + i * stride, &results[i])) return i;
    return count;
}
long by_offsets(run_t run, uint64_t *block, uint64_t program, uint64_t base, uint64_t size, long count,
                uint64_t *results, const int64_t *offsets, const int64_t *lengths) {
    for (long i = 0; i < count; i++) {
        uint64_t offset = offsets[i], length = lengths[i];
        if (offset > size || length > size - offset) return i;
        block[ARGUMENT_2] = length;
        if (one(run, block, program, base + offset, &results[i])) return i;
    }
    return count;
}
typedef uint64_t (*bare_t)(uint64_t packet, uint64_t length);
long bare_by_stride(bare_t function, uint64_t base, long stride, long count, uint64_t *results) {
    for (long i = 0; i < count; i++) results[i] = function(base + i * stride, stride);
    return count;
}
long bare_by_offsets(bare_t function, uint64_t base, uint64_t size, long count, uint64_t *results,
                     const int64_t *offsets, const int64_t *lengths) {
    for (long i = 0; i < count; i++) {
        uint64_t offset = offsets[i], length = lengths[i];
        if (offset > size || length > size - offset) return i;
        results[i] = function(base + offset, length);
    }
    return count;
}
"""


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two ways to do the same: nanoseconds of each round for one of it, and the ratio wanted.

    `other` and `theirs` are empty where there is nothing to compare with.
    """

    title: str
    ours: Sequence[float]
    other: str
    theirs: Sequence[float]
    at_most: float | None

    @property
    def ratio(self) -> float:
        """The ratio of the medians."""
        return median(self.ours) / median(self.theirs)

    def row(self, unit: str) -> tuple[str, ...]:
        """Return the cells of the table, times in a unit of UNITS."""
        wanted = "" if self.at_most is None else f"{self.at_most:.2f}"
        ours, theirs = median(self.ours) / UNITS[unit], median(self.theirs) / UNITS[unit]
        if not self.theirs:
            return self.title, f"{ours:.1f}", "", "", "", ""
        return self.title, f"{ours:.1f}", self.other, f"{theirs:.1f}", f"{self.ratio:.2f}", wanted

    def as_json(self) -> dict[str, Any]:
        """Return everything that was measured."""
        return {
            "title": self.title,
            "ns": list(self.ours),
            "median_ns": median(self.ours),
            "other": self.other,
            "other_ns": list(self.theirs),
            "other_median_ns": median(self.theirs),
            "ratio": self.ratio,
            "at_most": self.at_most,
        }


def calling(function: Callable[..., Any], *arguments: Any) -> Way:
    """As `timed`, the best of some tries, for many calls of a function in a loop, which is measured too."""
    numbers = range(CALLS)

    def work(function: Callable[..., Any] = function, arguments: tuple[Any, ...] = arguments) -> None:
        if len(arguments) == 1:
            (mem,) = arguments
            for _ in numbers:
                function(mem)
        else:
            a, b = arguments
            for _ in numbers:
                function(a, b)

    return best(timed(work, CALLS))


def best(way: Way) -> Way:
    """Return the best of a few tries as one: calls are so short that anything disturbs them."""
    return lambda: min(way() for _ in range(TRIES))


@functools.cache
def extension() -> Callable[[Any], int] | None:
    """Return the C extension's function; None where it cannot be built."""
    module = native.load_extension(EXTENSION, "extension")
    return None if module is None else module.first


def compiled(text: str, **options: Any) -> JitFunction:
    """Return a program as a function."""
    return Program.from_bytes(assemble(text)).compile(**options)


def prepared(function: JitFunction, mem: Any) -> Run:
    """Return a run of a program that is ready to start, with a block of its own."""
    return Run.start(inside(function).plain.compiled, raw_execution(mem, {}))


def compare_calls(kind: type[bytes] | type[bytearray], rounds: Rounds) -> list[Comparison]:
    """Compare a call of the gate with a C extension and with ctypes."""
    function, machine = compiled(ONE_LOAD), EbpfVmRaw(assemble(ONE_LOAD))
    machine.jit_compile()
    mem = kind(SIZE)
    ways = {
        "fn": calling(function, mem),
        "execute_program_jit": calling(machine.execute_program_jit, mem),
    }
    others = []
    if native.compilers():
        prototype = ctypes.CFUNCTYPE(ctypes.c_uint64, ctypes.c_size_t, ctypes.c_size_t)
        ways["ctypes"] = calling(prototype(("first", native.load(FIRST))), address_of(mem), SIZE)
        others.append(("ctypes", "ctypes, ready address", 0.12))
    in_c = extension()
    if in_c is not None:
        ways["extension"] = calling(in_c, mem)
        others.append(("extension", "C extension", 1.25))
    times = in_turn(ways, rounds)
    return [
        Comparison(f"{ours}({kind.__name__})", times[ours], title, times.get(theirs, ()), at_most)
        for ours in ("fn", "execute_program_jit")
        for theirs, title, at_most in others or [ALONE]
    ]


def compare_contexts(rounds: Rounds) -> list[Comparison]:
    """Compare a call of a program with a context, whose packet is copied, with one without."""
    mem = bytes(range(SIZE))
    bare = calling(compiled(ONE_LOAD), mem)
    found = []
    for type_, data in (("xdp", 0), ("tc", 76)):
        code = assemble(f"ldxw r1, [r1+{data}]\nldxb r0, [r1]\nexit")
        function = Program.from_bytes(code, type=named_type(type_)).compile()
        times = in_turn({"context": calling(function, mem), "bare": bare}, rounds)
        found.append(Comparison(f"fn(bytes), {type_}", times["context"], "fn(bytes)", times["bare"], None))
    return found


def compare_unlocked(rounds: Rounds) -> list[Comparison]:
    """Compare a program that looks something up in a map, without Python's lock, with the same with it.

    And with what a call took when it was prepared in Python, as all were without the lock.
    """

    def compiled_as(*, release_gil: bool) -> JitFunction:
        ports = create(MapDefinition("ports", MapType.HASH, 4, 4, 16))  # of its own: all lock a shared one
        program = Program(LOAD_FIRST + assemble(LOOK_UP), name="lookup", type=named_type("xdp"))
        program = replace(program, references={0: ports.address}, maps=(ports,))
        return program.compile(optimize=True, release_gil=release_gil)

    unlocked, locked = compiled_as(release_gil=True), compiled_as(release_gil=False)
    packet, packets = bytes(range(SIZE)), [bytes(range(SIZE))] * 10 * PACKETS

    def prepared() -> None:
        inside(unlocked).plain(packet)

    found, mine, title = [], "release_gil=True", "the same with the lock"
    calls = {
        mine: in_processor_time(unlocked, packet),
        title: in_processor_time(locked, packet),
        "prepared in Python": timed(prepared, clock=time.process_time_ns),
    }
    batches = {
        name: timed(functools.partial(function.map, packets), len(packets), clock=time.process_time_ns)
        for name, function in ((mine, unlocked), (title, locked))
    }
    for name, ways in (("fn(bytes)", calls), ("fn.map, a packet", batches)):
        times = in_turn(ways, rounds)
        found += [
            Comparison(f"{name}, xdp, a map, {mine}", times[mine], other, times[other], None)
            for other in ways
            if other != mine
        ]
    return found


LOAD_FIRST = bytes((0x18, 5 << 4 | 1)) + bytes(14)
"""r1 = map 0"""
LOOK_UP = f"""
    stw [r10-4], 7
    mov r2, r10
    add r2, -4
    call {NUMBERS["bpf_map_lookup_elem"]}
    jne r0, 0, +1
    mov r0, 2
    exit
"""


def in_processor_time(function: JitFunction, packet: bytes) -> Way:
    """As `calling`, in processor time: what Python takes is long enough for others to come in between."""

    def way() -> float:
        start = time.process_time_ns()
        for _ in range(PACKETS):
            function(packet)
        return (time.process_time_ns() - start) / PACKETS

    return way


PACKETS = 1_000  # of a round
PACKET_CALLS = {
    "bpf_xdp_adjust_head": ("xdp", "mov r2, 14"),
    "bpf_xdp_load_bytes": ("xdp", "mov r2, 14\nmov r3, r10\nadd r3, -20\nmov r4, 20"),
    "bpf_skb_load_bytes": ("tc", "mov r2, 14\nmov r3, r10\nadd r3, -20\nmov r4, 20"),
    "bpf_skb_pull_data": ("tc", "mov r2, 64"),
    "bpf_tail_call": ("xdp", ""),  # r2 is its map
    "bpf_ktime_get_ns": ("xdp", ""),  # with an environment of its own
}
"""Helpers that machine code calls by itself: a program type, and what puts arguments into registers."""
LOAD_MAP = bytes((0x18, 5 << 4 | 2)) + bytes(14)
"""r2 = map 0"""


def compare_packet_helpers(rounds: Rounds) -> list[Comparison]:
    """Compare helpers in machine code with the same ones called in Python, once in a run."""
    packet, found = bytes(range(SIZE)), []
    for name, (type_, arguments) in PACKET_CALLS.items():
        jumps: Any = create(MapDefinition("jumps", MapType.PROG_ARRAY, 4, 4, 1))
        jumps[0] = Program.from_assembly("r0 = 2\nexit", name="target", type=named_type(type_))
        call = assemble(f"{arguments or 'mov r3, 0'}\ncall {NUMBERS[name]}\nmov r0, 2\nexit")
        program = Program(call, name=name, type=named_type(type_))
        if not arguments:
            references = {0: jumps.address}
            program = replace(program, code=LOAD_MAP + call, references=references, maps=(jumps,))
        ours = table.bound()[NUMBERS[name]]

        def in_python(*numbers: int, ours: Callable[..., int] = ours) -> int:
            return ours(*numbers)

        world = Environment()
        in_code = program.compile(optimize=True, environment=world)
        called = program.compile(optimize=True, environment=world, helpers={name: in_python})
        ways = {"code": in_processor_time(in_code, packet), "Python": in_processor_time(called, packet)}
        times = in_turn(ways, rounds)
        found.append(Comparison(name, times["code"], "the same in Python", times["Python"], None))
    return [*found, compare_events(rounds)]


RECORD = f"""
    mov r2, 16
    mov r3, 0
    call {NUMBERS["bpf_ringbuf_reserve"]}
    jeq r0, 0, +4
    stdw [r0+0], 1
    mov r1, r0
    mov r2, 0
    call {NUMBERS["bpf_ringbuf_submit"]}
    mov r0, 2
    exit
"""


def compare_events(rounds: Rounds) -> Comparison:
    """Compare packets of a batch of which each sends a record with the same where Python does that."""
    ring = create(MapDefinition("ring", MapType.RINGBUF, 0, 0, 1 << 16))
    program = Program(LOAD_FIRST + assemble(RECORD), name="records", type=named_type("xdp"))
    program = replace(program, references={0: ring.address}, maps=(ring,))
    reserve = table.bound()[NUMBERS["bpf_ringbuf_reserve"]]

    def in_python(*numbers: int) -> int:
        return reserve(*numbers)

    ways = {}
    for name, helpers in (("code", {}), ("Python", {"bpf_ringbuf_reserve": in_python})):
        function = program.compile(optimize=True, helpers=helpers)

        def work(function: JitFunction = function) -> None:
            events: list[tuple[int, str, bytes]] = []
            function.map([bytes(SIZE)] * PACKETS, events=events)
            assert len(events) == PACKETS

        ways[name] = timed(work, PACKETS, clock=time.process_time_ns)
    times = in_turn(ways, rounds)
    return Comparison("a record, in a batch", times["code"], "the same in Python", times["Python"], None)


def compare_helpers(count: int, rounds: Rounds) -> list[Comparison]:
    """Compare a helper in Python with the same as a ctypes callback, called `count` times in a run.

    And with what the interpreter itself takes to call it, from C: `map`.
    """
    text = f"mov r6, {count}\nagain: mov r1, r6\ncall 1\nsub r6, 1\njne r6, 0, again\nmov r0, 0\nexit"

    def helper(r1: int, r2: int, r3: int, r4: int, r5: int) -> int:
        return r1

    callback = ctypes.CFUNCTYPE(ctypes.c_uint64, *[ctypes.c_uint64] * 5)(helper)
    address = ctypes.cast(callback, ctypes.c_void_p).value or 0
    ways = {}
    for name, function in (("gate", helper), ("callback", NativeHelper(address, callback))):
        program = compiled(text, helpers={1: function})

        def work(program: JitFunction = program, runs: int = CALLS // count) -> None:
            for _ in range(runs):
                program(b"")

        ways[name] = best(timed(work, CALLS))

    def built_in() -> None:
        for _ in range(CALLS // HELPER_CALLS):
            deque(map(helper, range(HELPER_CALLS), *[repeat(0)] * 4), maxlen=0)

    ways["map"] = best(timed(built_in, CALLS))
    times = in_turn(ways, rounds)
    title = "helper in Python, " + (f"{count} calls in a run" if count > 1 else "one call in a run")
    return [
        Comparison(title, times["gate"], "ctypes callback", times["callback"], 0.7 if count > 1 else 0.75),
        Comparison(title, times["gate"], BY_MAP, times["map"], 1.6 if count > 1 else None),
    ]


@dataclass(frozen=True, slots=True)
class Packets:
    """The packets of a batch, side by side in one buffer, and the program that runs on them."""

    function: JitFunction
    buffer: bytes
    count: int

    @property
    def offsets(self) -> array[int]:
        """Where each starts."""
        return array("q", range(0, len(self.buffer), SIZE))

    def ways(self) -> dict[str, Callable[[], array[int]]]:
        """Return the ways to run the program on all."""
        offsets, lengths = self.offsets, array("q", [SIZE]) * self.count
        packets = [self.buffer[start : start + SIZE] for start in offsets]
        function, buffer = self.function, self.buffer
        return {
            "stride": lambda: function.map(buffer, stride=SIZE),
            "offsets": lambda: function.map(buffer, offsets=offsets, lengths=lengths),
            "list": lambda: function.map(packets),
        }

    def loops(self) -> dict[str, Callable[[], array[int]]]:
        """Return the same as loops in C; what they need stays alive with them."""
        names = ("argument_start", "packet_start", "stack_start", "stack_top", "budget", "fault_kind",
                 "argument_1", "argument_2")  # fmt: skip
        library = native.load(LOOP, options=[f"-D{name.upper()}={WORD[name] // 8}" for name in names])
        run = prepared(self.function, self.buffer[:SIZE])
        base = ctypes.cast(ctypes.c_char_p(self.buffer), ctypes.c_void_p).value or 0
        addresses = (
            routines().addresses["run"],
            run.address,
            inside(self.function).plain.compiled.entry,
            base,
        )
        words = [ctypes.c_uint64(word) for word in addresses]
        offsets, lengths = self.offsets, array("q", [SIZE]) * self.count

        def results_of(loop: Any, number: int, *arrays: array[int], run: Run = run) -> array[int]:
            results = array("Q", bytes(8 * self.count))
            where = [ctypes.c_uint64(a.buffer_info()[0]) for a in (results, *arrays)]
            assert loop(*words, ctypes.c_uint64(number), self.count, *where) & 0xFFFFFFFF == self.count
            return results

        routine = compile_routine(self.function.program)

        def bare(loop: Any, number: int, *arrays: array[int]) -> array[int]:
            results = array("Q", bytes(8 * self.count))
            where = [ctypes.c_uint64(a.buffer_info()[0]) for a in (results, *arrays)]
            known = (ctypes.c_uint64(routine.address), ctypes.c_uint64(base), ctypes.c_uint64(number))
            assert loop(*known, ctypes.c_long(self.count), *where) & 0xFFFFFFFF == self.count
            return results

        return {
            "C, stride": lambda: results_of(library.by_stride, SIZE),
            "C, offsets": lambda: results_of(library.by_offsets, len(self.buffer), offsets, lengths),
            "bare, stride": lambda: bare(library.bare_by_stride, SIZE),
            "bare, offsets": lambda: bare(library.bare_by_offsets, len(self.buffer), offsets, lengths),
        }


def compare_batches(count: int, rounds: Rounds) -> list[Comparison]:
    """Compare fn.map with a loop in C, on so many packets."""
    packets = Packets(compiled(ONE_LOAD), os.urandom(count * SIZE), count)
    ways = packets.ways()
    if native.compilers():
        ways |= packets.loops()
    wanted = array("Q", list(packets.buffer[::SIZE]))
    for name, way in ways.items():
        if way() != wanted:
            raise BenchError(f"a batch by {name} does not return what the packets begin with")
    clock = time.process_time_ns  # a batch is long enough to be interrupted
    times = in_turn({name: timed(way, count, clock=clock) for name, way in ways.items()}, rounds)
    found = [
        Comparison(f"map, {name}", times[name], "C loop", times[f"C, {name}"], most)
        for name, most in (("stride", 1.1), ("offsets", 1.2))
        if f"C, {name}" in times
    ]
    found += [
        Comparison(f"map, {name}", times[name], "C loop, bare function", times[f"bare, {name}"], None)
        for name in ("stride", "offsets")
        if f"bare, {name}" in times
    ]
    if not found:
        found = [Comparison("map, offsets", times["offsets"], "map, stride", times["stride"], None)]
    return [*found, Comparison("map, list of bytes", times["list"], "map, stride", times["stride"], None)]


def compare_threads(rounds: Rounds) -> list[Comparison]:
    """Compare two threads that run a program without Python's lock with one."""
    program = compiled(f"mov r0, {ENTRIES}\nagain: sub r0, 1\njne r0, 0, again\nexit", release_gil=True)

    def run(count: int) -> None:
        threads = [threading.Thread(target=program) for _ in range(count)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    ways = {str(count): timed(functools.partial(run, count)) for count in (1, 2)}
    times = in_turn(ways, rounds)
    return [Comparison("two threads, a run each", times["2"], "one thread", times["1"], None)]


def section(
    name: str, title: str, found: Sequence[Comparison], remarks: Sequence[str] = (), unit: str = "ns"
) -> Section:
    """Return comparisons as a section."""
    return Section(
        name=name,
        title=title,
        headings=("", unit, "compared with", unit, "ratio", "at most"),
        align="lrlrrr",
        rows=tuple(comparison.row(unit) for comparison in found),
        bars=_bars(found, unit),
        data={"comparisons": [comparison.as_json() for comparison in found]},
        remarks=tuple(remarks),
    )


def _bars(found: Sequence[Comparison], unit: str) -> Bars:
    """Return a bar for each way: ours, and beside it each that it is compared with."""
    medians = {(one.title, one.other): median(one.theirs) / UNITS[unit] for one in found}
    ours = {one.title: median(one.ours) / UNITS[unit] for one in found}
    series = {"ebpfjit": tuple(ours.values())}
    for other in dict.fromkeys(one.other for one in found if one.theirs):
        series[other] = tuple(medians.get((title, other), math.nan) for title in ours)
    return Bars(unit, tuple(ours), series)


def _without(what: str) -> list[str]:
    return [] if native.compilers() else [f"Without {what}: no C compiler in PATH that works."]


def _calls(found: Sequence[Comparison]) -> Section:
    remarks = _without("the C extension and ctypes")
    if not remarks and extension() is None:
        remarks = ["Without the C extension: Python's headers are not installed."]
    return section("calls", "A call from Python: one load of 64 bytes", found, remarks)


def _helpers(found: Sequence[Comparison]) -> Section:
    by_map = next((one for one in found if one.other == BY_MAP), None)
    remarks = []
    if by_map is not None:
        least = median(by_map.theirs) / median(found[0].theirs)
        remarks = [
            f"`map()` calls the same function from C, and does nothing else: {least:.2f} of a ctypes"
            " callback, and no way takes less. Behind each call machine code asks the processor's clock,"
            " so that loops of slow helpers can be stopped."
        ]
    return section("helpers", "A helper in Python, called from machine code: a call", found, remarks)


def _packet_helpers(found: Sequence[Comparison]) -> Section:
    return section("packet-helpers", "A run that calls a helper on its packet, once", found)


def _batch(found: Sequence[Comparison]) -> Section:
    rates = {one.title: 1e3 / median(one.ours) for one in found}
    remarks = [f"{title}: {rate:.0f} million packets a second." for title, rate in rates.items()]
    title = f"A batch: packets of {SIZE} bytes, one load of each: a packet"
    return section("batch", title, found, [*remarks, *_without("the C loop")])


def _threads(found: Sequence[Comparison]) -> Section:
    remark = f"Each runs a loop of {2 * ENTRIES:,} instructions; {os.cpu_count()} processors."
    return section("threads", "Threads without Python's lock", found, [remark], "ms")


BENCHMARKS = (
    Benchmark(
        "calls",
        "a call from Python, beside a C extension and ctypes",
        lambda plan: [
            *(Step(kind.__name__, functools.partial(compare_calls, kind)) for kind in (bytes, bytearray)),
            Step("contexts", compare_contexts),
            Step("without the lock", compare_unlocked),
        ],
        _calls,
    ),
    Benchmark(
        "helpers",
        "a helper in Python, beside a ctypes callback",
        lambda plan: [
            Step(f"{count} calls", functools.partial(compare_helpers, count)) for count in (HELPER_CALLS, 1)
        ],
        _helpers,
    ),
    Benchmark(
        "packet-helpers",
        "helpers on packets, tail calls and clocks in machine code, beside the same in Python",
        lambda plan: [Step("packet helpers", compare_packet_helpers)],
        _packet_helpers,
    ),
    Benchmark(
        "batch",
        "fn.map over many packets, beside a loop in C",
        lambda plan: [Step(f"{plan.packets:,} packets", functools.partial(compare_batches, plan.packets))],
        _batch,
    ),
    Benchmark(
        "threads",
        "two threads without Python's lock, beside one",
        lambda plan: [Step("two threads", compare_threads)],
        _threads,
    ),
)
