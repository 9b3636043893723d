"""Checked, unchecked and baseline machine code against gcc -O2 and clang -O2, over the C kernels in kernels/.

baseline is code that was compiled without optimising, checked.

Each kernel is one C function of memory and its length, compiled to eBPF (kernels/*.o) and natively,
where there is a compiler. First all engines must agree on results and memory. Then they take turns in
one process, on the same memory, filled anew before each call:

    round 1: gcc clang unchecked checked   round 2: clang unchecked checked gcc   round 3: ...

The time of a round is the best of a few calls; what is reported is the median of the rounds.
Nothing is subtracted: the time of a call from Python is in it, measured and printed besides.
"""

from __future__ import annotations

import ctypes
import functools
import math
import mmap
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from ebpfjit.bench import native
from ebpfjit.bench.benchmark import Bars, Benchmark, Plan, Section, Step
from ebpfjit.bench.inputs import KERNELS, SOURCES, Kernel
from ebpfjit.bench.measure import BenchError, Rounds, geomean, in_turn, median, timed
from ebpfjit.elf.loader import load
from ebpfjit.program import Program
from ebpfjit.vm import EbpfVmRaw

CALLS = 3  # per engine and round; the best counts
EMPTY = bytes.fromhex("b700000000000000 9500000000000000")  # mov64 r0, 0; exit
ENGINES = (*native.COMPILERS, "unchecked", "checked", "baseline")

#     column                 of           over
RATIOS = {
    "unchecked/gcc": ("unchecked", "gcc"),
    "checked/gcc": ("checked", "gcc"),
    "unchecked/clang": ("unchecked", "clang"),
    "checked/clang": ("checked", "clang"),
    "checked/unchecked": ("checked", "unchecked"),
    "baseline/checked": ("baseline", "checked"),
}

Call = Callable[[], int]


@dataclass(frozen=True, slots=True)
class Timing:
    """What a kernel took: nanoseconds of each round, by engine."""

    kernel: str
    kind: str
    bytes: int
    rounds: Mapping[str, Sequence[float]]

    def median(self, engine: str) -> float:
        """Return the median of an engine's rounds, in nanoseconds; NaN where it did not run."""
        return median(self.rounds.get(engine))

    def ratio(self, column: str) -> float:
        """Return a column of RATIOS; NaN where one of its engines did not run."""
        engine, other = RATIOS[column]
        return self.median(engine) / self.median(other)


class Workspace:
    """A kernel's memory, page-aligned, at one address for all engines."""

    def __init__(self, content: bytes) -> None:
        self.content = content
        self.size = len(content)
        self.buffer = mmap.mmap(-1, self.size)
        self._pin = (ctypes.c_char * self.size).from_buffer(self.buffer)
        self.address = ctypes.addressof(self._pin)

    def restore(self) -> None:
        """Fill the memory with what every call starts from."""
        ctypes.memmove(self.address, self.content, self.size)


def compile_native(kernel: Kernel, compiler: str) -> Callable[[int, int], int]:
    """Return a kernel compiled by "gcc" or "clang": a function of address and length."""
    source = (SOURCES / f"{kernel.name}.c").read_text()
    function = native.load(source, options=[f"-I{SOURCES}"], compiler=compiler).kernel
    function.argtypes = (ctypes.c_void_p, ctypes.c_ulong)
    function.restype = ctypes.c_ulong
    return function


class Contest:
    """A kernel on all engines: "gcc" and "clang" where they are installed, ours as ENGINES says."""

    def __init__(self, kernel: Kernel) -> None:
        self.kernel = kernel
        program = load(SOURCES / f"{kernel.name}.o").program("kernel")
        self._native = {name: compile_native(kernel, name) for name in native.compilers()}
        self._interpreter = EbpfVmRaw(program)
        self._machines = {
            "unchecked": EbpfVmRaw(program, checked=False, optimize=True),
            "checked": EbpfVmRaw(program, optimize=True),
            "baseline": EbpfVmRaw(program, optimize=False),
        }
        for machine in self._machines.values():
            machine.jit_compile()

    def calls(self, space: Workspace) -> dict[str, Call]:
        """Return what runs the kernel on a workspace, by engine."""
        calls: dict[str, Call] = {}
        for name, function in self._native.items():
            calls[name] = lambda function=function: function(space.address, space.size)  # type: ignore[misc]
        for name, machine in self._machines.items():
            calls[name] = lambda machine=machine: machine.execute_program_jit(space.buffer)  # type: ignore[misc]
        return calls

    def check(self, space: Workspace, *, interpret: bool) -> None:
        """Raise BenchError unless all engines leave the same result and memory."""
        calls = self.calls(space)
        if interpret:
            calls = {"interpreter": lambda: self._interpreter.execute_program(space.buffer), **calls}
        outcomes: dict[str, tuple[int, bytes]] = {}
        for name, call in calls.items():
            space.restore()
            outcomes[name] = (call(), space.buffer[:])
        (first, expected), *others = outcomes.items()
        for name, outcome in others:
            if outcome != expected:
                memory = "the same" if outcome[1] == expected[1] else "not"
                raise BenchError(
                    f"engines disagree: {self.kernel.name} on {space.size} bytes: {first} returns "
                    f"{expected[0]:#x}, {name} {outcome[0]:#x}; the memory is {memory}"
                )

    def run(self, rounds: Rounds) -> list[Timing]:
        """Check that engines agree, then time them in turn."""
        self.check(Workspace(self.kernel.memory(self.kernel.small)), interpret=True)
        space = Workspace(self.kernel.memory(self.kernel.size))
        self.check(space, interpret=False)
        ways = {
            name: timed(call, prepare=space.restore, best_of=CALLS)
            for name, call in self.calls(space).items()
        }
        return [Timing(self.kernel.name, self.kernel.kind, space.size, in_turn(ways, rounds))]


def time_kernel(kernel: Kernel, rounds: Rounds) -> list[Timing]:
    """Return what a kernel takes on all engines."""
    return Contest(kernel).run(rounds)


def time_call(rounds: Rounds) -> list[float]:
    """Return what a call of machine code from Python takes by itself, in nanoseconds."""
    space = Workspace(bytes(4096))
    machine = EbpfVmRaw(Program.from_bytes(EMPTY))
    machine.jit_compile()
    times = in_turn(
        {"empty": timed(lambda: machine.execute_program_jit(space.buffer), best_of=CALLS)}, rounds
    )
    return [median(times["empty"])]


def section(found: Sequence[Timing | float]) -> Section:
    """Return the section of the kernels that were timed, and of the call from Python."""
    timings = [one for one in found if isinstance(one, Timing)]
    calls = [one for one in found if isinstance(one, float)]
    engines = [name for name in ENGINES if any(name in timing.rounds for timing in timings)]
    ratios = [name for name, pair in RATIOS.items() if set(pair) <= set(engines)]
    closing = summary(timings, ratios)
    return Section(
        name="kernels",
        title="Machine code of C kernels: median times and their ratios",
        headings=("kernel", "kind", *(f"{engine}, µs" for engine in engines), *ratios),
        align="ll" + "r" * (len(engines) + len(ratios)),
        rows=(
            *(_row(timing, engines, ratios) for timing in timings),
            *((title, "", *("" for _ in engines), *map(_ratio, values)) for title, values in closing.items()),
        ),
        closing=len(closing),
        bars=_bars(timings, ratios),
        data={
            "call_ns": calls[0] if calls else math.nan,
            "kernels": [_as_json(timing, ratios) for timing in timings],
            "summary": {title: dict(zip(ratios, values, strict=True)) for title, values in closing.items()},
        },
        remarks=(*(_call_remark(calls[0], timings) for _ in calls[:1] if timings), *native.left_out()),
    )


def summary(timings: Sequence[Timing], ratios: Sequence[str]) -> dict[str, list[float]]:
    """Return the closing rows: of each ratio the geometric mean and the worst."""
    if not timings:
        return {}
    columns = [[timing.ratio(name) for timing in timings] for name in ratios]
    return {"geomean": [geomean(values) for values in columns], "worst": [max(values) for values in columns]}


def _row(timing: Timing, engines: Sequence[str], ratios: Sequence[str]) -> tuple[str, ...]:
    times = (f"{timing.median(engine) / 1000:.0f}" for engine in engines)
    return timing.kernel, timing.kind, *times, *(_ratio(timing.ratio(name)) for name in ratios)


def _ratio(value: float) -> str:
    return f"{value:.2f}"


def _call_remark(call: float, timings: Sequence[Timing]) -> str:
    shortest = min(timing.median(engine) for timing in timings for engine in ("unchecked", "checked"))
    return (
        f"Nothing is subtracted: a call from Python takes {call / 1000:.1f} µs, "
        f"at most {100 * call / shortest:.2f}% of a run of machine code."
    )


def _bars(timings: Sequence[Timing], ratios: Sequence[str]) -> Bars:
    """Return the times over those of the first compiler there is; of unchecked code where there is none."""
    base = next((name for name in native.COMPILERS if f"checked/{name}" in ratios), "unchecked")
    shown = [name for name in ratios if name.endswith(f"/{base}")]
    labels = tuple(timing.kernel for timing in timings)
    series = {name: tuple(timing.ratio(name) for timing in timings) for name in shown}
    return Bars(f"time, {base} = 1", labels, series)


def _as_json(timing: Timing, ratios: Sequence[str]) -> dict[str, Any]:
    return {
        **asdict(timing),
        "median_ns": {engine: timing.median(engine) for engine in timing.rounds},
        "ratios": {name: timing.ratio(name) for name in ratios},
    }


def steps(plan: Plan) -> list[Step]:
    """Return a step for each kernel of the plan, and one for the call from Python."""
    chosen = [kernel for kernel in KERNELS if kernel.name in plan.kernels]
    timed = [Step(kernel.name, functools.partial(time_kernel, kernel)) for kernel in chosen]
    return [Step("a call", time_call), *timed]


BENCHMARK = Benchmark("kernels", "C kernels, beside gcc -O2 and clang -O2", steps, section)
