"""Checked, unchecked and baseline machine code against gcc -O2 and clang -O2, over the C kernels in kernels/.

baseline is code that was compiled without optimising, checked; llvm is what LLVM makes of the same
bytecode, unchecked, where llvmlite is installed.

Each kernel is one C function of memory and its length, compiled to eBPF (kernels/*.o) and natively,
where there is a compiler. First all engines must agree on results and memory. Then they take turns in
one process, on the same memory, filled anew before each call, with their code at each of LEADS:

    round 1: gcc+0 gcc+16 gcc+32 clang+0 ... checked+32   round 2: gcc+16 gcc+32 clang+0 ... gcc+0   ...

The time of a round is the best of a few calls. A kernel's time is the median of the rounds, of that the
median over the places of the code, less what an empty function costs that is called in the same way.
"""

from __future__ import annotations

import ctypes
import functools
import mmap
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

from ebpfjit.bench import llvm, native
from ebpfjit.bench.benchmark import Bars, Benchmark, Plan, Section, Step
from ebpfjit.bench.holdout import HELD_OUT
from ebpfjit.bench.inputs import KERNELS, SOURCES, Kernel
from ebpfjit.bench.measure import BenchError, Rounds, geomean, in_turn, median, timed
from ebpfjit.elf.loader import load
from ebpfjit.jit.code_buffer import CodeBuffer
from ebpfjit.jit.entry import Compiled, host_addresses
from ebpfjit.jit.image import relocate
from ebpfjit.jit.relocation import layout
from ebpfjit.jit.translation import assemble_lines
from ebpfjit.options import Options
from ebpfjit.program import Program
from ebpfjit.record import dataclass
from ebpfjit.vm import EbpfVmRaw

CALLS = 3  # per engine, place and round; the best counts
LEADS = (0, 16, 32)
"""Bytes in front of the code: where loops lie moves some of them by 40 %."""

EMPTY = Program.from_bytes(bytes.fromhex("b700000000000000 9500000000000000"))  # r0 = 0; exit
EMPTY_C = "unsigned long kernel(unsigned char *mem, unsigned long len) { return 0; }"
OURS: Mapping[str, Mapping[str, Any]] = {
    "unchecked": {"checked": False, "optimize": True},
    "checked": {"optimize": True},
    "baseline": {"optimize": False},
}
"""How each of our engines is made."""

ENGINES = (*native.COMPILERS, "llvm", *OURS)

#     column                 of           over
RATIOS = {
    "unchecked/gcc": ("unchecked", "gcc"),
    "checked/gcc": ("checked", "gcc"),
    "unchecked/clang": ("unchecked", "clang"),
    "checked/clang": ("checked", "clang"),
    "llvm/clang": ("llvm", "clang"),
    "checked/unchecked": ("checked", "unchecked"),
    "baseline/checked": ("baseline", "checked"),
}


@dataclass(frozen=True, slots=True)
class Timing:
    """What a kernel took: nanoseconds by engine, by place of the code, of each round.

    `empty` is what an empty function took that is called in the same way, by engine, of each round.
    """

    kernel: str
    kind: str
    bytes: int
    rounds: Mapping[str, Sequence[Sequence[float]]]
    empty: Mapping[str, Sequence[float]]

    def median(self, engine: str) -> float:
        """Return an engine's time, net, in nanoseconds; NaN where it did not run."""
        places = [median(rounds) for rounds in self.rounds.get(engine, ())]
        return median(places) - median(self.empty.get(engine))

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


Run = Callable[[Workspace], int]
"""Runs a kernel on a workspace, and returns its result."""


class Placed(EbpfVmRaw):
    """A machine whose optimised and baseline code has bytes in front of it."""

    lead = 0

    def _compiler(self) -> Callable[[Options], Compiled]:
        compile_as = super()._compiler()
        return lambda options: with_lead(compile_as(options), self.lead)


def with_lead(compiled: Compiled, lead: int) -> Compiled:
    """Return a compiled program whose code lies so many bytes further on."""
    listing = compiled.listing
    assemble_lines(listing)  # of a large program it is made anew
    image = layout(listing, lead)
    return replace(compiled, image=image, buffer=CodeBuffer(relocate(image, host_addresses())))


def compile_ours(program: Program, engine: str, lead: int) -> Run:
    """Return a program as one of OURS, its code behind so many bytes."""
    machine = Placed(program, **OURS[engine])
    machine.lead = lead
    machine.jit_compile()
    return lambda space: machine.execute_program_jit(space.buffer)


def compile_native(source: str, compiler: str, lead: int) -> Run:
    """Return what "gcc" or "clang" makes of C text, behind so many bytes."""
    placed = f'__asm__(".text\\n.p2align 6\\n.skip {lead}");\n{source}'
    function = native.load(placed, options=[f"-I{SOURCES}"], compiler=compiler).kernel
    function.argtypes = (ctypes.c_void_p, ctypes.c_ulong)
    function.restype = ctypes.c_ulong
    return lambda space: function(space.address, space.size)


@functools.cache
def empty_native(compiler: str) -> Run:
    """Return an empty function as a compiler makes it."""
    return compile_native(EMPTY_C, compiler, 0)


def _compilers(kernel: Kernel) -> dict[str, tuple[Callable[[int], Run], Run]]:
    """Return for each engine what compiles the kernel behind so many bytes, and an empty function."""
    program, source = load(kernel.object).program("kernel"), kernel.source.read_text()
    found: dict[str, tuple[Callable[[int], Run], Run]] = {}
    for name in native.compilers():
        found[name] = functools.partial(compile_native, source, name), empty_native(name)
    if llvm.is_here():
        found["llvm"] = functools.partial(llvm.compile_program, program), llvm.compile_program(EMPTY, 0)
    for name in OURS:
        found[name] = functools.partial(compile_ours, program, name), compile_ours(EMPTY, name, 0)
    return found


class Contest:
    """A kernel on all engines: "gcc", "clang" and "llvm" where they are installed, and OURS."""

    def __init__(self, kernel: Kernel, leads: Sequence[int] = LEADS) -> None:
        self.kernel = kernel
        self._interpreter = EbpfVmRaw(load(kernel.object).program("kernel"))
        self.placed: dict[str, list[Run]] = {}
        self.empty: dict[str, Run] = {}
        for name, (compile_behind, empty) in _compilers(kernel).items():
            self.placed[name] = [compile_behind(lead) for lead in leads]
            self.empty[name] = empty

    def check(self, space: Workspace, *, interpret: bool) -> None:
        """Raise BenchError unless all engines leave the same result and memory."""
        runs = {name: run for name, placed in self.placed.items() for run in placed[:1]}
        if interpret:
            runs = {"interpreter": lambda space: self._interpreter.execute_program(space.buffer), **runs}
        outcomes: dict[str, tuple[int, bytes]] = {}
        for name, run in runs.items():
            space.restore()
            outcomes[name] = (run(space), space.buffer[:])
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
        runs: dict[tuple[str, int | None], Run] = {
            (name, place): run for name, placed in self.placed.items() for place, run in enumerate(placed)
        } | {(name, None): run for name, run in self.empty.items()}
        times = in_turn(
            {
                key: timed(functools.partial(run, space), prepare=space.restore, best_of=CALLS)
                for key, run in runs.items()
            },
            rounds,
        )
        by_engine = {
            name: [times[name, place] for place in range(len(placed))] for name, placed in self.placed.items()
        }
        empty = {name: times[name, None] for name in self.empty}
        return [Timing(self.kernel.name, self.kernel.kind, space.size, by_engine, empty)]


def time_kernel(kernel: Kernel, rounds: Rounds) -> list[Timing]:
    """Return what a kernel takes on all engines."""
    return Contest(kernel).run(rounds)


def section(name: str, title: str, timings: Sequence[Timing]) -> Section:
    """Return the section of the kernels that were timed."""
    engines = [name for name in ENGINES if any(name in timing.rounds for timing in timings)]
    ratios = [name for name, pair in RATIOS.items() if set(pair) <= set(engines)]
    closing = summary(timings, ratios)
    return Section(
        name=name,
        title=title,
        headings=("kernel", "kind", *(f"{engine}, µs" for engine in engines), *ratios),
        align="ll" + "r" * (len(engines) + len(ratios)),
        rows=(
            *(_row(timing, engines, ratios) for timing in timings),
            *((title, "", *("" for _ in engines), *map(_ratio, values)) for title, values in closing.items()),
        ),
        closing=len(closing),
        bars=_bars(timings, ratios),
        data={
            "call_ns": _call_times(timings, engines),
            "kernels": [_as_json(timing, ratios) for timing in timings],
            "summary": {title: dict(zip(ratios, values, strict=True)) for title, values in closing.items()},
        },
        remarks=(*_call_remark(timings, engines), *native.left_out(), *llvm.left_out()),
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


def _call_times(timings: Sequence[Timing], engines: Sequence[str]) -> dict[str, float]:
    """Return what an empty function takes, by engine, in nanoseconds."""
    return {engine: median([median(timing.empty[engine]) for timing in timings]) for engine in engines}


def _call_remark(timings: Sequence[Timing], engines: Sequence[str]) -> list[str]:
    calls = _call_times(timings, engines)
    listed = ", ".join(f"{name} {time / 1000:.2f}" for name, time in calls.items())
    return [f"Net of an empty function, called in the same way (µs): {listed}."] if timings else []


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


def steps(kernels: Sequence[Kernel], plan: Plan) -> list[Step]:
    """Return a step for each of these kernels that is in the plan."""
    chosen = [kernel for kernel in kernels if kernel.name in plan.kernels]
    return [Step(kernel.name, functools.partial(time_kernel, kernel)) for kernel in chosen]


def _benchmark(name: str, what: str, title: str, kernels: Sequence[Kernel]) -> Benchmark:
    return Benchmark(name, what, functools.partial(steps, kernels), functools.partial(section, name, title))


BENCHMARKS = (
    _benchmark(
        "kernels",
        "C kernels, beside gcc -O2 and clang -O2",
        "Machine code of C kernels: net times and their ratios",
        KERNELS,
    ),
    _benchmark(
        "holdout",
        "C kernels that nobody tuned for, in the same way",
        "Machine code of C kernels that nobody tuned for: net times and their ratios",
        HELD_OUT,
    ),
)
