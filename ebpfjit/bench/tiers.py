"""What the two tiers are worth: compiling a program and calling it so many times, all together.

    never       baseline code for good (`optimize=False`)
    tiers       baseline code first, optimised once it has run for as long as that takes: the default
    at once     optimised (`optimize=True`)

Each time the program is a new one, from its bytes on, in a process that has compiled it before.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict

from ebpfjit.bench.benchmark import Bars, Benchmark, Plan, Section, Step
from ebpfjit.bench.inputs import KERNELS, SOURCES, Kernel
from ebpfjit.bench.measure import Rounds, in_turn, median
from ebpfjit.elf.loader import load
from ebpfjit.program import Program
from ebpfjit.record import dataclass

NAMES = ("packet_parse", "crc32_table", "xtea", "shell_sort")
CALLS = (1, 30, 1_000, 30_000)
WAYS = {"never": False, "tiers": None, "at once": True}
"""What `optimize` is, by what the column is called."""


@dataclass(frozen=True, slots=True)
class Total:
    """Milliseconds for compiling a kernel of so many instructions and for all calls, by way."""

    kernel: str
    instructions: int
    calls: int
    milliseconds: dict[str, float]

    @property
    def over_best(self) -> float:
        """How many times as long the tiers take as what would have been best."""
        return self.milliseconds["tiers"] / min(self.milliseconds.values())


def time_kernel(kernel: Kernel, calls: int, rounds: Rounds) -> list[Total]:
    """Measure a kernel on its small memory."""
    code = load(SOURCES / f"{kernel.name}.o").program("kernel").code
    memory = kernel.memory(kernel.small)
    ways = {name: functools.partial(_total, code, memory, calls, optimize) for name, optimize in WAYS.items()}
    for way in ways.values():
        way()
    times = in_turn(ways, rounds)
    found = {name: median(each) / 1e6 for name, each in times.items()}
    return [Total(kernel.name, len(Program(code).instructions), calls, found)]


def _total(code: bytes, memory: bytes, calls: int, optimize: bool | None) -> float:
    """Return the nanoseconds that it takes to compile a program and to call it."""
    buffer = bytearray(memory)
    start = time.perf_counter_ns()
    function = Program(code).compile(optimize=optimize)
    for _ in range(calls):
        function(buffer)
    return time.perf_counter_ns() - start


def section(found: Sequence[Total]) -> Section:
    """Return the section of all that was measured."""
    worst = max((one.over_best for one in found), default=0.0)
    series: Mapping[str, tuple[float, ...]] = {
        way: tuple(one.milliseconds[way] for one in found) for way in WAYS
    }
    return Section(
        name="tiers",
        title="Compiling a program and calling it, ms altogether",
        headings=("kernel", "instructions", "calls", *WAYS, "tiers/best"),
        align="lrr" + "r" * (len(WAYS) + 1),
        rows=tuple(_row(one) for one in found),
        bars=Bars("ms", tuple(f"{one.kernel}, {one.calls:,}" for one in found), series),
        data={"totals": [asdict(one) for one in found]},
        remarks=(f"At worst the tiers take {worst:.2f} times as long as what would have been best.",),
    )


def _row(one: Total) -> tuple[str, ...]:
    times = (f"{one.milliseconds[way]:.2f}" for way in WAYS)
    return one.kernel, str(one.instructions), f"{one.calls:,}", *times, f"{one.over_best:.2f}"


def steps(plan: Plan) -> list[Step]:
    """Return a step for each kernel and number of calls."""
    kernels = [kernel for kernel in KERNELS if kernel.name in NAMES and kernel.name in plan.kernels]
    return [
        Step(f"{kernel.name}, {calls:,} calls", functools.partial(time_kernel, kernel, calls))
        for kernel in kernels
        for calls in CALLS
    ]


BENCHMARK = Benchmark("tiers", "compiling and calling together: baseline, optimised, both", steps, section)
