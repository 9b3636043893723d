"""What each pass of the optimizer is worth: kernels compiled with all passes, and with all but one.

Checked code. A kernel's time is net of an empty function, the median over two places of its code, as in
`contest`; beside it stands clang -O2.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from ebpfjit.bench import native
from ebpfjit.bench.benchmark import Bars, Benchmark, Plan, Section, Step
from ebpfjit.bench.contest import EMPTY, Placed, Run, Workspace, compile_native, empty_native
from ebpfjit.bench.holdout import HELD_OUT
from ebpfjit.bench.inputs import KERNELS, Kernel
from ebpfjit.bench.measure import BenchError, Rounds, geomean, in_turn, median, timed
from ebpfjit.elf.loader import load
from ebpfjit.optimizer.passes import PASSES
from ebpfjit.program import Program
from ebpfjit.record import dataclass

LEADS = (0, 32)
ALL, CLANG = "all", "clang"
SLOTS = "slots"
LEFT_OUT = (SLOTS, *(name for name in PASSES if name != "dead again"))
"""What is left out, one at a time; `slots` are no pass, but found while Code is built."""


@dataclass(frozen=True, slots=True)
class Timing:
    """What a kernel took, net, in nanoseconds: by the pass that was left out, ALL and CLANG."""

    kernel: str
    is_held_out: bool
    times: Mapping[str, float]

    def ratio(self, name: str, over: str) -> float:
        """Return a time over another one."""
        return self.times[name] / self.times[over]


def compile_without(program: Program, name: str, lead: int) -> Run:
    """Return a program as machine code without a pass, behind so many bytes; or as ALL has it."""
    machine = Placed(program, optimize=True)
    machine.lead = lead
    left = {SLOTS, *PASSES} - {name, *(["dead again"] if name == "dead" else [])}
    machine._options = replace(machine._options, passes=frozenset(left))
    machine.jit_compile()
    return lambda space: machine.execute_program_jit(space.buffer)


def time_kernel(kernel: Kernel, rounds: Rounds) -> list[Timing]:
    """Time a kernel in all ways, which must agree."""
    program, source = load(kernel.object).program("kernel"), kernel.source.read_text()
    makers: dict[str, Callable[[Program, int], Run]] = {
        name: functools.partial(lambda name, program, lead: compile_without(program, name, lead), name)
        for name in (ALL, *LEFT_OUT)
    }
    placed = {(name, lead): make(program, lead) for name, make in makers.items() for lead in LEADS}
    empty = {ALL: makers[ALL](EMPTY, 0)}
    if CLANG in native.compilers():
        placed |= {(CLANG, lead): compile_native(source, CLANG, lead) for lead in LEADS}
        empty[CLANG] = empty_native(CLANG)
    small = Workspace(kernel.memory(kernel.small))
    outcomes: dict[str, tuple[int, bytes]] = {}
    for (name, _), run in placed.items():
        small.restore()
        outcomes[name] = run(small), small.buffer[:]
    if len(set(outcomes.values())) > 1:
        raise BenchError(f"engines disagree: {kernel.name}, with a pass left out")
    space = Workspace(kernel.memory(kernel.size))
    runs: dict[tuple[str, int | None], Run] = {(name, lead): run for (name, lead), run in placed.items()}
    runs |= {(name, None): run for name, run in empty.items()}
    times = in_turn(
        {
            key: timed(functools.partial(run, space), prepare=space.restore, best_of=2)
            for key, run in runs.items()
        },
        rounds,
    )
    names = dict.fromkeys(name for name, _ in placed)
    net = {
        name: median([median(times[name, lead]) for lead in LEADS])
        - median(times[name if name in empty else ALL, None])
        for name in names
    }
    return [Timing(kernel.name, kernel in HELD_OUT, net)]


def _section(timings: Sequence[Timing]) -> Section:
    rows, data = [], {}
    for name in (ALL, *LEFT_OUT):
        cells = []
        for held_out in (False, True):
            chosen = [timing for timing in timings if timing.is_held_out is held_out]
            over = ALL if name != ALL else CLANG
            ratios = [(timing.ratio(name, over), timing.kernel) for timing in chosen if over in timing.times]
            worst, kernel = max(ratios, default=(float("nan"), ""))
            mean = geomean([ratio for ratio, _ in ratios]) if ratios else float("nan")
            cells += [f"{mean:.2f}", f"{worst:.2f} {kernel}"]
            data[f"{name}, {'held out' if held_out else 'own'}"] = {each: ratio for ratio, each in ratios}
        title = "all passes / clang" if name == ALL else f"without {name} / all"
        rows.append((title, *cells))
    return Section(
        name="passes",
        title="Passes of the optimizer: times of checked code without each",
        headings=("code", "own kernels", "worst", "held out", "worst"),
        align="lrlrl",
        rows=tuple(rows),
        bars=Bars("time, all = 1", (), {}),
        data=data,
    )


def _steps(plan: Plan) -> list[Step]:
    chosen = [kernel for kernel in (*KERNELS, *HELD_OUT) if kernel.name in plan.kernels]
    return [Step(kernel.name, functools.partial(time_kernel, kernel)) for kernel in chosen]


BENCHMARK = Benchmark("passes", "what each pass of the optimizer is worth", _steps, _section)
