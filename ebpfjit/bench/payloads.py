"""Programs of XDP with loops over their packet: checked, unchecked, without checks before loops, and native.

Each is one C function (kernels/packets), compiled to eBPF and natively, where clang is. A program's time is
net of what an empty one takes on the same packet, the median over LEADS of that over rounds, as in `contest`.
"""

from __future__ import annotations

import ctypes
import functools
import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from ebpfjit import compiling
from ebpfjit.bench import native
from ebpfjit.bench.benchmark import Bars, Benchmark, Plan, Section, Step
from ebpfjit.bench.contest import LEADS, with_lead
from ebpfjit.bench.inputs import SOURCES
from ebpfjit.bench.measure import BenchError, Rounds, geomean, in_turn, median, timed
from ebpfjit.elf.loader import load
from ebpfjit.function import JitFunction
from ebpfjit.optimizer.passes import ALL_PASSES
from ebpfjit.options import Options
from ebpfjit.program import Program
from ebpfjit.ready import environment_of, ready
from ebpfjit.record import dataclass
from ebpfjit.runtime.contexts.memory import LowMemory

FOLDER = SOURCES / "packets"
PROGRAMS = ("checksum", "fletcher", "histogram", "options", "scramble", "token")
CALLS = 200
"""Per way and round."""

HEADERS = bytes.fromhex(
    "0200000000010200000000020800"
    "4500057400004000400600000a0000010a000002"
    "04d2005000000001000000029010fde800000000"
    "020405b401030307 0402080a0102030405060708 010101"
)
PACKET = HEADERS + bytes(number * 7 + 3 & 0xFF for number in range(1400 - len(HEADERS)))
"""Ethernet, IP, TCP with options; then what looks like nothing."""

EMPTY = Program(bytes.fromhex("b700000002000000 9500000000000000"), type="xdp")  # r0 = 2; exit
CHECKED, UNCHECKED, IN_LOOPS, CLANG, NOTHING = "checked", "unchecked", "checks in loops", "clang", "nothing"
OURS: Mapping[str, Options] = {
    CHECKED: Options(),
    UNCHECKED: Options(checked=False),
    IN_LOOPS: Options(passes=ALL_PASSES - {"hoisting"}),
}
MANY = """
extern int program(void *context);
int many(void *context, long count)
{
    int result = 0;
    while (count--)
        result = program(context);
    return result;
}
"""


@dataclass(frozen=True, slots=True)
class Timing:
    """What a program took, net, in nanoseconds, by way."""

    program: str
    times: Mapping[str, float]


def compiled(program: Program, options: Options, lead: int) -> JitFunction:
    """Return a program of XDP as a function, its code behind so many bytes."""
    start = replace(ready(program), options=options, compiled={})
    environment = environment_of(program)
    code = start.machine_code(environment)
    for key in start.compiled:
        start.compiled[key] = with_lead(code, lead)
    return compiling._typed_function(start, None, {}, {})


def called(function: JitFunction) -> Callable[[], None]:
    """Return what calls a function CALLS times."""

    def work() -> None:
        for _ in itertools.repeat(None, CALLS):
            function(PACKET)

    return work


class Natively:
    """A program as clang makes it, on a packet below 4 GiB."""

    def __init__(self, source: Path) -> None:
        include = f"-I{source.parent}"
        library = native.load(source.read_text(), MANY, options=[include], compiler=CLANG)
        self.many = library.many
        self.many.argtypes, self.many.restype = (ctypes.c_void_p, ctypes.c_long), ctypes.c_uint
        self.memory = LowMemory(4096)
        start = self.memory.start + 256
        ends = start.to_bytes(4, "little") + (start + len(PACKET)).to_bytes(4, "little")
        self.memory.view[: len(ends)] = ends

    def run(self, count: int) -> int:
        """Run it on the packet, again and again; return the last result."""
        self.memory.view[256 : 256 + len(PACKET)] = PACKET
        return int(self.many(self.memory.start, count))


def time_program(name: str, rounds: Rounds) -> list[Timing]:
    """Time a program in all ways, which must agree. Raises BenchError."""
    program = load(FOLDER / f"{name}.o").program("program")
    placed = {(way, lead): compiled(program, OURS[way], lead) for way in OURS for lead in LEADS}
    results = {way: function(PACKET) for way, function in placed.items()}
    ways = {way: timed(called(function), CALLS) for way, function in placed.items()}
    ways[NOTHING, 0] = timed(called(compiled(EMPTY, Options(), 0)), CALLS)
    names = list(OURS)
    if CLANG in native.compilers():
        natively = Natively(FOLDER / f"{name}.c")
        results[CLANG, 0] = natively.run(1)
        ways[CLANG, 0] = timed(functools.partial(natively.run, CALLS), CALLS)
        names.append(CLANG)
    if len(set(results.values())) > 1:
        raise BenchError(f"engines disagree: {name}: {results}")
    times = in_turn(ways, rounds)
    empty = median(times.pop((NOTHING, 0)))
    net = {
        way: median([median(found) for (one, _), found in times.items() if one == way])
        - (empty if way in OURS else 0)
        for way in names
    }
    return [Timing(name, net)]


#     column                  of         over
RATIOS = {
    "checked/unchecked":       (CHECKED, UNCHECKED),
    "checks in loops/checked": (IN_LOOPS, CHECKED),
    "checked/clang":           (CHECKED, CLANG),
}  # fmt: skip


def _section(timings: Sequence[Timing]) -> Section:
    ways = [way for way in (CLANG, *OURS) if all(way in timing.times for timing in timings)]
    ratios = {name: pair for name, pair in RATIOS.items() if set(pair) <= set(ways)}
    found = {
        name: [timing.times[one] / timing.times[other] for timing in timings]
        for name, (one, other) in ratios.items()
    }
    rows = [
        (
            timing.program,
            *(f"{timing.times[way]:.0f}" for way in ways),
            *(f"{found[name][number]:.2f}" for name in ratios),
        )
        for number, timing in enumerate(timings)
    ]
    means = [f"{geomean(found[name]):.2f}" if timings else "" for name in ratios]
    return Section(
        name="payloads",
        title="Loops over packets: XDP programs on 1,400 bytes",
        headings=("program", *(f"{way}, ns" for way in ways), *ratios),
        align="l" + "r" * (len(ways) + len(ratios)),
        rows=(*rows, ("geomean", *("" for _ in ways), *means)),
        closing=1,
        bars=Bars(
            "time, ns",
            tuple(timing.program for timing in timings),
            {way: tuple(timing.times[way] for timing in timings) for way in ways},
        ),
        data={timing.program: dict(timing.times) for timing in timings},
        remarks=() if CLANG in ways else ("Without a column of clang: not in PATH, or not working.",),
    )


def _steps(plan: Plan) -> list[Step]:
    return [Step(name, functools.partial(time_program, name)) for name in PROGRAMS]


BENCHMARK = Benchmark("payloads", "XDP programs with loops over their packet", _steps, _section)
