"""What people wait for every day: a process until its first result, the interpreter, maps from Python.

All in processor time, children's included, so that other work on the machine disturbs little.
"""

from __future__ import annotations

import functools
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ebpfjit.analysis.verified import prepare
from ebpfjit.bench.benchmark import Bars, Benchmark, Plan, Section, Step
from ebpfjit.bench.compiling import environment_of_children
from ebpfjit.bench.inputs import KERNELS, SOURCES, Kernel
from ebpfjit.bench.measure import BenchError, Rounds, in_turn, median
from ebpfjit.elf.loader import load
from ebpfjit.interpreter import interpret
from ebpfjit.record import dataclass
from ebpfjit.runtime.execution import Execution
from ebpfjit.runtime.maps import MapDefinition, MapType, create
from ebpfjit.runtime.memory import Region

INTERPRETED = ("murmur64", "hash_table", "json", "utf8", "heap_sort")
"""The kernels that the interpreter runs, on their small memories."""
OPERATIONS = 20_000
PROGRAM = "r0 = 1\nexit\n"
LOOP = (str(SOURCES / "gcd.o"), "--hex", "00" * 8)
COMMANDS = {
    "python -c pass": ("-c", "pass"),
    "import ebpfjit": ("-c", "import ebpfjit"),
    "ebpfjit run x.s": ("-m", "ebpfjit", "run", "x.s"),
    "ebpfjit run x.s --engine interpreter": ("-m", "ebpfjit", "run", "x.s", "--engine", "interpreter"),
    "ebpfjit run gcd.o": ("-m", "ebpfjit", "run", *LOOP),
    "ebpfjit run gcd.o --cache DIR, kept": ("-m", "ebpfjit", "run", *LOOP, "--cache", "kept"),
    "ebpfjit --help": ("-m", "ebpfjit", "--help"),
}


@dataclass(frozen=True, slots=True)
class Cost:
    """The median of something, in a unit."""

    what: str
    value: float
    unit: str


def time_processes(rounds: Rounds) -> list[Cost]:
    """Measure whole processes, their modules compiled before."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "x.s").write_text(PROGRAM)
        ways = {name: functools.partial(_process, command, folder) for name, command in COMMANDS.items()}
        for way in ways.values():
            way()
        times = in_turn(ways, rounds)
    return [Cost(name, median(found) / 1e6, "ms") for name, found in times.items()]


def _process(command: Sequence[str], folder: str) -> float:
    """Return the nanoseconds of processor time that a Python takes."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(
        [sys.executable, *command], cwd=folder, env=environment_of_children(), capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    if done.returncode:
        raise BenchError(f"{' '.join(command)}: {done.stderr.strip()}")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return (after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime) * 1e9


def time_kernel(kernel: Kernel, rounds: Rounds) -> list[Cost]:
    """Return how many million instructions the interpreter executes in a second of a kernel."""
    verified, content = prepare(load(kernel.object).program("kernel")), kernel.memory(kernel.small)

    def run() -> float:
        memory = Region.of_buffer("mem", bytearray(content))
        execution = Execution((memory.start, memory.size), [memory], memory)
        taken = _timed(lambda: interpret(verified, execution))
        return 1e3 * execution.instructions / taken

    speeds = in_turn({"run": run}, rounds)["run"]
    return [Cost(f"interpreter, {kernel.name}", median(speeds), "M instructions/s")]


def time_maps(rounds: Rounds) -> list[Cost]:
    """Return what Python's own operations on maps cost, with keys and values of bytes, and of ints."""
    ways: dict[str, Callable[[], float]] = {}
    for kind in (MapType.ARRAY, MapType.HASH, MapType.LRU_HASH):
        m: Any = create(MapDefinition("m", kind, 4, 8, 1000))
        name = kind.name.lower()
        m[5] = 7
        for key, value, of in (((5).to_bytes(4, "little"), bytes(8), "bytes"), (5, 7, "ints")):
            ways[f"{name}: value read, {of}"] = functools.partial(_read, m, key)
            ways[f"{name}: value stored, {of}"] = functools.partial(_write, m, key, value)
    times = in_turn(ways, rounds)
    return [Cost(name, median(found), "ns") for name, found in times.items()]


def _read(m: Any, key: Any) -> float:
    def work() -> None:
        for _ in range(OPERATIONS):
            m[key]

    return _timed(work) / OPERATIONS


def _write(m: Any, key: Any, value: Any) -> float:
    def work() -> None:
        for _ in range(OPERATIONS):
            m[key] = value

    return _timed(work) / OPERATIONS


def _timed(work: Callable[[], Any]) -> float:
    """Return the nanoseconds of processor time that something takes."""
    start = time.process_time_ns()
    work()
    return time.process_time_ns() - start


def section(found: Sequence[Cost]) -> Section:
    """Return the section of what was measured."""
    return Section(
        name="everyday",
        title="What people wait for, in processor time",
        headings=("what", "median", "unit"),
        align="lrl",
        rows=tuple((one.what, f"{one.value:,.1f}", one.unit) for one in found),
        bars=Bars(
            "as the table says", tuple(one.what for one in found), {"": tuple(one.value for one in found)}
        ),
        data={"costs": [asdict(one) for one in found]},
    )


def steps(plan: Plan) -> list[Step]:
    """Return the steps; they are the same for all plans."""
    kernels = [kernel for kernel in KERNELS if kernel.name in INTERPRETED]
    return [
        Step("processes", time_processes),
        *(Step(kernel.name, functools.partial(time_kernel, kernel)) for kernel in kernels),
        Step("maps from Python", time_maps),
    ]


BENCHMARK = Benchmark("everyday", "processes, the interpreter, maps from Python", steps, section)
