"""What it takes to get in and out: calls from Python, helpers in Python, batches, threads.

    python benchmarks/calls.py [--rounds N] [--json FILE] [--markdown] [--write]

Each comparison is between two ways to do the same, which take turns in one process:

    call      a program that loads one byte of 64, called from Python: fn(mem), a machine's
              execute_program_jit(mem), a C extension's METH_FASTCALL function that does the same,
              and the same machine code through ctypes, with an address that is ready
    helper    a program that calls a helper which returns its first argument: a Python function,
              through the gate, and the same function as a ctypes callback
    batch     fn.map over packets of 64 bytes, and a loop in C that calls the same machine code
    threads   two threads that run a program without Python's lock, and one thread

The C extension and the C loop are built with the system's compiler, and left out where there is none.
"""

from __future__ import annotations

import argparse
import ctypes
import importlib.util
import json
import os
import shutil
import statistics
import subprocess
import sys
import sysconfig
import tempfile
import threading
import time
from array import array
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

from kernels import RESULTS, machine_line, warm_up
from rich.console import Console
from rich.table import Table

from ebpfjit import EbpfVmRaw, JitFunction, NativeHelper, Program
from ebpfjit.assembler import assemble
from ebpfjit.jit.entry import Run
from ebpfjit.jit.routines import WORD, routines

BEGIN, END = "<!-- calls: begin -->", "<!-- calls: end -->"
ONE_LOAD = "ldxb r0, [r1]\nexit"
CALLS = 20_000  # in a round
HELPER_CALLS = 1000  # in one run of the program
PACKETS, SIZE = 1_000_000, 64
ENTRIES = 50_000_000  # of the loop that threads run

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
"""


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two ways to do the same: nanoseconds of each round for one of it, and the ratio wanted."""

    title: str
    ours: Sequence[float]
    other: str
    theirs: Sequence[float]
    at_most: float | None

    @property
    def ratio(self) -> float:
        """The ratio of the medians."""
        return statistics.median(self.ours) / statistics.median(self.theirs)

    def row(self) -> list[str]:
        """Return the cells of the table."""
        wanted = "" if self.at_most is None else f"{self.at_most:.2f}"
        ours, theirs = statistics.median(self.ours), statistics.median(self.theirs)
        return [self.title, f"{ours:.1f}", self.other, f"{theirs:.1f}", f"{self.ratio:.2f}", wanted]


def in_turn(ways: Mapping[str, Callable[[], float]], rounds: int) -> dict[str, list[float]]:
    """Return what each way took, round by round; each round starts with another one."""
    times: dict[str, list[float]] = {name: [] for name in ways}
    order = list(ways)
    for _ in range(rounds):
        for name in order:
            times[name].append(ways[name]())
        order.append(order.pop(0))
    return times


def timed(work: Callable[[], Any], count: int) -> Callable[[], float]:
    """Return a function that does `work` and returns the nanoseconds that one of `count` took."""

    def once() -> float:
        start = time.perf_counter_ns()
        work()
        return (time.perf_counter_ns() - start) / count

    return once


def calling(function: Callable[..., Any], *arguments: Any) -> Callable[[], float]:
    """As `timed`, for many calls of a function; the loop around them is measured with them."""
    numbers = range(CALLS)

    def work(function: Callable[..., Any] = function, arguments: tuple[Any, ...] = arguments) -> None:
        if len(arguments) == 1:
            (mem,) = arguments
            for _ in numbers:
                function(mem)
        else:
            a, b, c = arguments
            for _ in numbers:
                function(a, b, c)

    return timed(work, CALLS)


def build(source: str, name: str, directory: Path, *options: str) -> Path | None:
    """Compile a C source into a shared library; None where there is no compiler."""
    compiler = shutil.which("cc")
    if compiler is None:
        return None
    path, library = directory / f"{name}.c", directory / f"{name}.so"
    path.write_text(source)
    subprocess.run([compiler, "-O2", "-shared", "-fPIC", *options, str(path), "-o", str(library)], check=True)
    return library


def extension(directory: Path) -> Callable[[Any], int] | None:
    """Return the C extension's function."""
    include = sysconfig.get_paths()["include"]
    if not (Path(include) / "Python.h").exists():
        return None
    library = build(EXTENSION, "extension", directory, f"-I{include}")
    if library is None:
        return None
    spec = importlib.util.spec_from_file_location("extension", library)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    function: Callable[[Any], int] = module.first
    return function


def compiled(text: str, **options: Any) -> JitFunction:
    """Return a program as a function."""
    return Program.from_bytes(assemble(text)).compile(**options)


def prepared(function: JitFunction, mem: Any) -> Run:
    """Return a run of a program that is ready to start, with a block of its own."""
    from ebpfjit.function import raw_execution

    return Run.start(function._compiled, raw_execution(mem, {}))


def compare_calls(rounds: int, directory: Path) -> list[Comparison]:
    """Compare a call of the gate with a C extension and with ctypes."""
    function, machine = compiled(ONE_LOAD), EbpfVmRaw(assemble(ONE_LOAD))
    machine.jit_compile()
    native = extension(directory)
    found = []
    for kind in (bytes, bytearray):
        mem = kind(SIZE)
        run = prepared(function, mem)
        prototype = ctypes.CFUNCTYPE(ctypes.c_uint64, ctypes.c_size_t, ctypes.c_size_t, ctypes.c_size_t)
        raw = prototype(routines().addresses["run"])
        # The budget of a prepared run is never used up here: 2 instructions a call.
        ways = {
            "fn": calling(function, mem),
            "machine": calling(machine.execute_program_jit, mem),
            "ctypes": calling(raw, run.address, function._compiled.entry, 0),
        }
        if native is not None:
            ways["extension"] = calling(native, mem)
        times = in_turn(ways, rounds)
        for title, ours in (
            (f"fn({kind.__name__})", "fn"),
            (f"execute_program_jit({kind.__name__})", "machine"),
        ):
            found.append(Comparison(title, times[ours], "ctypes, ready address", times["ctypes"], 0.12))
            if native is not None:
                found.append(Comparison(title, times[ours], "C extension", times["extension"], 1.25))
    return found


def compare_helpers(rounds: int) -> list[Comparison]:
    """Compare a helper in Python with the same as a ctypes callback."""
    text = "mov r6, {count}\nagain: mov r1, r6\n{call}sub r6, 1\njne r6, 0, again\nmov r0, 0\nexit"

    def helper(r1: int, r2: int, r3: int, r4: int, r5: int) -> int:
        return r1

    callback = ctypes.CFUNCTYPE(ctypes.c_uint64, *[ctypes.c_uint64] * 5)(helper)
    native = NativeHelper(ctypes.cast(callback, ctypes.c_void_p).value or 0, callback)
    found = []
    for count in (HELPER_CALLS, 1):
        loop = text.format(count=count, call="call 1\n")
        ways = {}
        for name, function in (("gate", helper), ("callback", native)):
            program = compiled(loop, helpers={1: function})

            def work(program: JitFunction = program, runs: int = CALLS // count) -> None:
                for _ in range(runs):
                    program(b"")

            ways[name] = timed(work, CALLS)
        times = in_turn(ways, rounds)
        title = "helper in Python, " + (f"{count} calls in a run" if count > 1 else "one call in a run")
        found.append(Comparison(title, times["gate"], "ctypes callback", times["callback"], 0.4))
    return found


def compare_batches(rounds: int, directory: Path) -> list[Comparison]:
    """Compare fn.map with a loop in C."""
    names = ("argument_start", "packet_start", "stack_start", "stack_top", "budget", "fault_kind",
             "argument_1", "argument_2")  # fmt: skip
    defines = [f"-D{name.upper()}={WORD[name] // 8}" for name in names]
    library = build(LOOP, "loop", directory, *defines)
    function = compiled(ONE_LOAD)
    buffer = os.urandom(PACKETS * SIZE)
    offsets, lengths = array("q", range(0, len(buffer), SIZE)), array("q", [SIZE]) * PACKETS
    packets = [buffer[start : start + SIZE] for start in offsets]
    ways: dict[str, Callable[[], array[int]]] = {
        "stride": lambda: function.map(buffer, stride=SIZE),
        "offsets": lambda: function.map(buffer, offsets=offsets, lengths=lengths),
        "list": lambda: function.map(packets),
    }
    if library is not None:
        loops = ctypes.PyDLL(str(library))
        run = prepared(function, buffer[:SIZE])
        base = ctypes.cast(ctypes.c_char_p(buffer), ctypes.c_void_p).value or 0
        words = [ctypes.c_uint64(routines().addresses["run"]), ctypes.c_uint64(run.address)]
        words += [ctypes.c_uint64(function._compiled.entry), ctypes.c_uint64(base)]

        def results_of(loop: Any, number: int, *arrays: array[int]) -> array[int]:
            results = array("Q", bytes(8 * PACKETS))
            where = [ctypes.c_uint64(a.buffer_info()[0]) for a in (results, *arrays)]
            assert loop(*words, ctypes.c_uint64(number), PACKETS, *where) & 0xFFFFFFFF == PACKETS
            return results

        ways["C, stride"] = lambda: results_of(loops.by_stride, SIZE)
        ways["C, offsets"] = lambda: results_of(loops.by_offsets, len(buffer), offsets, lengths)
    wanted = array("Q", list(buffer[::SIZE]))
    assert all(way() == wanted for way in ways.values())
    times = in_turn({name: timed(way, PACKETS) for name, way in ways.items()}, rounds)
    found = []
    if library is not None:
        found.append(Comparison("map, stride", times["stride"], "C loop", times["C, stride"], 1.5))
        found.append(Comparison("map, offsets", times["offsets"], "C loop", times["C, offsets"], 1.5))
    found.append(Comparison("map, list of bytes", times["list"], "map, stride", times["stride"], None))
    return found


def compare_threads(rounds: int) -> list[Comparison]:
    """Compare two threads that run a program without Python's lock with one."""
    program = compiled(f"mov r0, {ENTRIES}\nagain: sub r0, 1\njne r0, 0, again\nexit", release_gil=True)

    def run(count: int) -> None:
        threads = [threading.Thread(target=program) for _ in range(count)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    ways = {str(count): timed(lambda count=count: run(count), 1_000_000) for count in (1, 2)}
    times = in_turn(ways, rounds)
    return [Comparison("two threads, a run each (ms)", times["2"], "one thread", times["1"], None)]


HEADINGS = ("", "ns", "compared with", "ns", "ratio", "at most")


def draw(found: Sequence[Comparison]) -> Table:
    """Return the comparisons as a table for the terminal."""
    table = Table(title="In and out: medians, and their ratios")
    for number, heading in enumerate(HEADINGS):
        table.add_column(heading, justify="left" if number in (0, 2) else "right")
    for comparison in found:
        table.add_row(*comparison.row())
    return table


def markdown(found: Sequence[Comparison], rounds: int) -> str:
    """Return the section of RESULTS.md, between its markers."""
    lines = [
        BEGIN,
        "## In and out: calls, helpers, batches, threads",
        "",
        "    python benchmarks/calls.py --write",
        "",
        f"{date.today()}, {machine_line()}.",
        "",
        f"Medians of {rounds} rounds in which all ways take turns, in one run. A call is one of {CALLS} in a",
        "`for` loop, which is in the time. The C extension is a METH_FASTCALL function that takes the buffer",
        "and returns its first byte; ctypes calls the same machine code, everything ready. A batch is of",
        f"{PACKETS:,} packets of {SIZE} bytes, the results compared as part of it; the C loop calls the same",
        "machine code for each.",
        "",
        "| " + " | ".join(HEADINGS) + " |",
        "|:--|--:|:--|--:|--:|--:|",
        *("| " + " | ".join(comparison.row()) + " |" for comparison in found),
        END,
    ]
    return "\n".join(lines) + "\n"


def write(section: str) -> None:
    """Put the section into RESULTS.md, in the place of the one before or at the end."""
    text = RESULTS.read_text()
    before, begin, rest = text.partition(BEGIN)
    if not begin:
        RESULTS.write_text(text.rstrip("\n") + "\n\n" + section)
        return
    _, _, after = rest.partition(END + "\n")
    RESULTS.write_text(before + section + after)


def as_json(found: Sequence[Comparison]) -> str:
    """Return everything that was measured."""
    rows = [
        {"title": c.title, "ns": list(c.ours), "other": c.other, "other_ns": list(c.theirs), "ratio": c.ratio}
        for c in found
    ]
    return json.dumps({"date": str(date.today()), "machine": machine_line(), "comparisons": rows}, indent=1)


def main() -> int:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=21, help="rounds, each with all ways (default: 21)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write what was measured")
    parser.add_argument("--markdown", action="store_true", help="print the section of RESULTS.md")
    parser.add_argument("--write", action="store_true", help="replace that section in RESULTS.md")
    arguments = parser.parse_args()
    if arguments.rounds < 1:
        parser.error("--rounds is at least 1")
    warm_up()
    with tempfile.TemporaryDirectory() as directory:
        found = compare_calls(arguments.rounds, Path(directory))
        found += compare_helpers(arguments.rounds)
        found += compare_batches(max(arguments.rounds // 2, 1), Path(directory))
        found += compare_threads(max(arguments.rounds // 2, 1))
    if arguments.json:
        arguments.json.write_text(as_json(found) + "\n")
    section = markdown(found, arguments.rounds)
    if arguments.write:
        write(section)
    if arguments.markdown:
        sys.stdout.write(section)
    else:
        Console(width=max(Console().width, 110)).print(draw(found))
    return 0


if __name__ == "__main__":
    sys.exit(main())
