"""What compiling costs: stage by stage, from cold and warm, for programs of several sizes.

    python -m ebpfjit.bench.compiling MODE SIZE BUILD REPEATS        a figure, as JSON

The programs are made of the C kernels in kernels/, as a large program is of functions: each function is
one of the kernels with r6 to r9 exchanged and its larger constants changed, so no two are the same; a
main function calls all of them. Each figure is of a process of its own:

    cold    the first program: every table is empty, keystone is called (the routines that all programs
            share are there already; making them is a part of what a process costs)
    other   a program that is new in a process that has compiled another one of 20,000 instructions
    warm    the same program again: the best of some rounds

Builds: baseline is what `Program.compile` makes first, optimised what it makes of programs that have run for
long enough, unchecked the same without checks.

Nothing is left out: from bytes to mapped code, verification and analysis included, in processor time of
the thread that compiles, so that other work on the machine disturbs little. What is measured besides, by
the clock on the wall: loading a saved image, a hit in the cache folder, `import ebpfjit`, `ebpfjit run`.
"""

from __future__ import annotations

import functools
import gc
import json
import os
import random
import subprocess
import sys
import tempfile
import tracemalloc
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from typing import Any

from ebpfjit.assembler import assemble
from ebpfjit.bench.benchmark import Bars, Benchmark, Plan, Section, Step
from ebpfjit.bench.inputs import SOURCES
from ebpfjit.bench.measure import BenchError, Rounds, in_turn, median, stop_where_asked, timed
from ebpfjit.elf.loader import load
from ebpfjit.function import JitFunction
from ebpfjit.isa.spec import Imm, Kind
from ebpfjit.jit.stages import STAGES
from ebpfjit.jit.timing import time_stages
from ebpfjit.memo import forget
from ebpfjit.program import Program, decode, encode
from ebpfjit.record import dataclass

MODES = ("cold", "other", "warm")
#         build        checked, optimize
BUILDS = {"baseline": (True, False), "optimised": (True, True), "unchecked": (False, True)}
"""How programs are compiled, by name."""
TABLE_FILLER = 20_000
LARGE_CONSTANT = 64
WARM_INSTRUCTIONS = 10_000  # in a round, where a program is compiled again and again
IMAGE_SIZE = 10_000


@dataclass(frozen=True, slots=True)
class Stages:
    """Microseconds an instruction for a program of `size` instructions, in all and by stage."""

    mode: str
    size: int
    build: str
    total: float
    keystone_calls: int
    stages: dict[str, float]


@dataclass(frozen=True, slots=True)
class Again:
    """Microseconds an instruction to have a program: compiled at first, optimised, and as it was before."""

    compile: float
    optimize: float
    load: float
    hit: float


@dataclass(frozen=True, slots=True)
class Kept:
    """Bytes an instruction that optimised code keeps besides its program and the machine code, by size."""

    bytes: dict[int, float]


@dataclass(frozen=True, slots=True)
class Processes:
    """Milliseconds of whole processes, by what they run."""

    milliseconds: dict[str, float]


def _varied(code: bytes, rng: random.Random) -> bytes:
    """Return a kernel with r6 to r9 exchanged and its larger constants changed."""
    exchanged = dict(zip((6, 7, 8, 9), rng.sample((6, 7, 8, 9), 4), strict=True))
    changed = []
    for insn in decode(code):
        row, imm = insn.row, insn.imm
        assert row is not None  # clang wrote it
        if row.imm is Imm.OPERAND and row.kind in (Kind.BINARY, Kind.MOVE) and imm > LARGE_CONSTANT:
            imm ^= rng.getrandbits(imm.bit_length() - 1)
        src = exchanged.get(insn.src_reg, insn.src_reg) if row.uses_src else insn.src_reg
        changed.append(replace(insn, imm=imm, dst_reg=exchanged.get(insn.dst_reg, insn.dst_reg), src_reg=src))
    return encode(changed)


def program(size: int, seed: int) -> bytes:
    """Return a program of about `size` instructions, made of kernels."""
    rng = random.Random(seed)
    kernels = [load(path).program("kernel").code for path in sorted(SOURCES.glob("*.o"))]
    kernels = [code for code in kernels if len(code) < 8 * size]
    functions: list[bytes] = []
    while not functions or sum(map(len, functions)) + 24 * len(functions) < 8 * size:
        functions.append(_varied(rng.choice(kernels), rng))
    lines = ["mov r6, r1", "mov r7, r2"]
    start = 2 + 3 * len(functions) + 1
    for function in functions:
        here = len(lines) + 2
        lines += ["mov r1, r6", "mov r2, r7", f"call local {start - here - 1:+}"]
        start += len(function) // 8
    return assemble("\n".join([*lines, "exit"])) + b"".join(functions)


def time_here(mode: str, size: int, build: str, repeats: int) -> Stages:
    """Measure in this process, in which nothing was compiled so far."""
    import keystone  # noqa: F401 - what is measured is compiling, not importing

    code = program(size, seed=1)
    time_stages(assemble("exit"))
    forget()
    if mode == "other":
        time_stages(program(TABLE_FILLER, seed=2))
    checked, optimize = BUILDS[build]
    timings = [
        time_stages(code, checked=checked, optimize=optimize)
        for _ in range(repeats + 1 if mode == "warm" else 1)
    ]
    best = min(timings[1:] or timings, key=lambda timing: timing.total)
    keystone_calls = max(timing.keystone_calls for timing in timings)
    stages = {stage: best.microseconds(stage) for stage in STAGES}
    return Stages(mode, best.instructions, build, best.microseconds(), keystone_calls, stages)


def time_child(mode: str, size: int, build: str, processes: int, rounds: Rounds) -> list[Stages]:
    """Measure in so many processes, each of its own; the best counts."""
    repeats = max(2, rounds.count * WARM_INSTRUCTIONS // size)
    arguments = (mode, str(size), build, str(repeats))
    tries = []
    for _ in range(processes):
        text = _python("-m", __spec__.name, *arguments)
        tries.append(Stages(**json.loads(text)))
    return [min(tries, key=lambda one: one.total)]


def time_again(rounds: Rounds) -> list[Again]:
    """Compare compiling in a warm process, loading a saved image, and a hit in a cache folder."""
    source = Program(program(IMAGE_SIZE, seed=1))
    with tempfile.TemporaryDirectory() as folder:
        source.compile().save(f"{folder}/saved")
        source.compile(cache=f"{folder}/cache")
        ways: dict[str, Callable[[], Any]] = {
            "compile": lambda: Program(source.code).compile(),
            "optimize": lambda: Program(source.code).compile(optimize=True),
            "load": lambda: JitFunction.load(f"{folder}/saved"),
            "hit": lambda: source.compile(cache=f"{folder}/cache"),
        }
        count = len(source.instructions)
        times = in_turn({name: timed(way, count) for name, way in ways.items()}, rounds)
    return [Again(**{name: median(found) / 1e3 for name, found in times.items()})]


def measure_kept(sizes: Sequence[int], rounds: Rounds) -> list[Kept]:
    """Measure what Python keeps of programs that are compiled a second time."""
    found = {}
    for size in sizes:
        code = program(size, seed=1)
        Program(code).compile(optimize=True)
        source = Program(code)
        tracemalloc.start()
        compiled = source.compile(optimize=True)
        gc.collect()
        found[size] = tracemalloc.get_traced_memory()[0] / len(source.instructions)
        tracemalloc.stop()
        del compiled
    return [Kept(found)]


def time_processes(rounds: Rounds) -> list[Processes]:
    """Measure whole processes, their modules compiled before."""
    commands = {
        "python -c pass": ("-c", "pass"),
        "python -c 'import ctypes, mmap'": ("-c", "import ctypes, mmap"),
        "python -c 'import ebpfjit'": ("-c", "import ebpfjit"),
        "ebpfjit run gcd.o": ("-m", "ebpfjit", "run", str(SOURCES / "gcd.o"), "--hex", "00" * 64),
    }
    for command in commands.values():
        _python(*command)
    times = in_turn(
        {name: timed(functools.partial(_python, *command)) for name, command in commands.items()}, rounds
    )
    return [Processes({name: median(found) / 1e6 for name, found in times.items()})]


def environment_of_children() -> dict[str, str]:
    """Return the environment of a Python that finds modules where this one does, and keeps them compiled."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    return environment | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}


def _python(*arguments: str) -> str:
    """Return what a Python prints that finds the modules where this one does."""
    command = [sys.executable, *arguments]
    environment = environment_of_children()
    found = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    stop_where_asked()
    if found.returncode:
        lines = found.stderr.strip().splitlines() or [f"exit status {found.returncode}"]
        raise BenchError(f"{' '.join(arguments[:3])}: {lines[-1]}")
    return found.stdout


def section(found: Sequence[Stages | Again | Kept | Processes]) -> Section:
    """Return the section of all that was measured."""
    stages = [one for one in found if isinstance(one, Stages)]
    again = [one for one in found if isinstance(one, Again)]
    kept = [one for one in found if isinstance(one, Kept)]
    processes = [one for one in found if isinstance(one, Processes)]
    return Section(
        name="compile",
        title="Compiling, from bytes to mapped code: µs of processor time an instruction",
        headings=("mode", "instructions", "code", "total", *STAGES, "keystone, calls"),
        align="lrl" + "r" * (2 + len(STAGES)),
        rows=tuple(map(_row, stages)),
        bars=_bars(stages),
        data={
            "stages": [asdict(one) for one in stages],
            "again": [asdict(one) for one in again],
            "kept_bytes": [one.bytes for one in kept],
            "processes_ms": [one.milliseconds for one in processes],
        },
        remarks=(
            *_linear(stages),
            *map(_again_remark, again),
            *map(_kept_remark, kept),
            *map(_processes_remark, processes),
        ),
    )


def _row(one: Stages) -> tuple[str, ...]:
    stages = (f"{one.stages[stage]:.2f}" for stage in STAGES)
    return one.mode, str(one.size), one.build, f"{one.total:.1f}", *stages, str(one.keystone_calls)


def _linear(found: Sequence[Stages]) -> list[str]:
    """Return how far each mode is from linear: the largest cost of an instruction over the smallest."""
    totals: dict[str, list[float]] = {}
    for one in found:
        totals.setdefault(f"{one.build} {one.mode}", []).append(one.total)
    ratios = [f"{name} {max(costs) / min(costs):.2f}" for name, costs in totals.items() if len(costs) > 1]
    if not ratios:
        return []
    return [f"Largest cost of an instruction over the smallest, all sizes: {', '.join(ratios)}."]


def _again_remark(one: Again) -> str:
    return (
        f"A program of {IMAGE_SIZE:,} instructions in a warm process, µs an instruction: `compile()` "
        f"{one.compile:.2f}, `compile(optimize=True)` {one.optimize:.2f}, `JitFunction.load` {one.load:.3f} "
        f"(1/{one.compile / one.load:.0f} of the first), `compile(cache=)` of what is there {one.hit:.3f} "
        f"(1/{one.compile / one.hit:.0f})."
    )


def _kept_remark(one: Kept) -> str:
    sizes = ", ".join(f"{kept:.0f} of {size:,} instructions" for size, kept in one.bytes.items())
    return f"Bytes that optimised code keeps for each instruction, besides the program: {sizes}."


def _processes_remark(one: Processes) -> str:
    whole = ", ".join(f"`{name}` {value:.0f}" for name, value in one.milliseconds.items())
    return f"Whole processes, ms (median): {whole}."


def _bars(found: Sequence[Stages]) -> Bars:
    labels = (
        f"{one.mode}, {one.size:,}{'' if one.build == 'baseline' else f', {one.build}'}" for one in found
    )
    series = {stage: tuple(one.stages[stage] for one in found) for stage in STAGES}
    return Bars("µs an instruction", tuple(labels), series, stacked=True)


def steps(plan: Plan) -> list[Step]:
    """Return a step for each mode and size, one for images, one for whole processes."""
    figures = [(build, mode, size) for build in plan.builds for mode in MODES for size in plan.sizes]
    return [
        *(
            Step(
                f"{mode}, {size:,} instructions",
                functools.partial(time_child, mode, size, build, plan.processes),
            )
            for build, mode, size in figures
        ),
        Step("saved images", time_again),
        Step("memory", functools.partial(measure_kept, plan.sizes)),
        Step("whole processes", time_processes),
    ]


BENCHMARK = Benchmark("compile", "compiling, by stage; saved images; whole processes", steps, section)

if __name__ == "__main__":
    mode, size, build, repeats = sys.argv[1:]
    print(json.dumps(asdict(time_here(mode, int(size), build, int(repeats)))))
