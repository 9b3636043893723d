"""Checked and unchecked machine code against gcc -O2 and clang -O2, over the C kernels in kernels/.

    python benchmarks/kernels.py [--kernels a,b] [--rounds N] [--json FILE] [--markdown] [--write]

Each kernel is one C function of memory and its length, compiled to eBPF (kernels/*.o) and, in a
temporary directory, natively. First all engines must agree on results and memory. Then they take
turns in one process, on the same memory, filled anew before each call:

    round 1: gcc clang unchecked checked   round 2: clang unchecked checked gcc   round 3: ...

The time of a round is the best of a few calls; what is reported is the median of the rounds.
Nothing is subtracted: the time of a call from Python is in it, measured and printed besides.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import math
import mmap
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import date
from pathlib import Path

from kernel_inputs import KERNELS, Kernel
from rich.console import Console
from rich.table import Table

from ebpfjit import EbpfVmRaw, Program, load

HERE = Path(__file__).resolve().parent
SOURCES = HERE / "kernels"
RESULTS = HERE / "RESULTS.md"
BEGIN, END = "<!-- kernels: begin -->", "<!-- kernels: end -->"

NATIVE = {"gcc": ("gcc", "-O2", "-fPIC", "-shared"), "clang": ("clang", "-O2", "-fPIC", "-shared")}
EBPF = ("clang", "-O2", "-g0", "-target", "bpf", "-mcpu=v3", "-c")
CALLS = 3  # per engine and round; the best counts
WARM_UP = 0.5  # seconds
ENOUGH = 0.02  # the part of a run that the call from Python may take
EMPTY = bytes.fromhex("b700000000000000 9500000000000000")  # mov64 r0, 0; exit

#     column                 of           over
RATIOS = {
    "unchecked/gcc": ("unchecked", "gcc"),
    "checked/gcc": ("checked", "gcc"),
    "unchecked/clang": ("unchecked", "clang"),
    "checked/clang": ("checked", "clang"),
    "checked/unchecked": ("checked", "unchecked"),
}

Call = Callable[[], int]


@dataclass(frozen=True, slots=True)
class Timing:
    """What a kernel took: nanoseconds of each round, by engine."""

    kernel: str
    kind: str
    bytes: int
    rounds: Mapping[str, Sequence[int]]

    def median(self, engine: str) -> float:
        """Return the median of an engine's rounds, in nanoseconds; NaN where it did not run."""
        return statistics.median(self.rounds[engine]) if engine in self.rounds else math.nan

    def ratio(self, column: str) -> float:
        """Return a column of RATIOS; NaN where one of its engines did not run."""
        engine, other = RATIOS[column]
        return self.median(engine) / self.median(other)


class DisagreementError(Exception):
    """Two engines did not leave the same result or the same memory."""


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


def compile_native(kernel: Kernel, compiler: str, directory: Path) -> Callable[[int, int], int]:
    """Return a kernel compiled by "gcc" or "clang": a function of address and length."""
    library = directory / f"{kernel.name}.{compiler}.so"
    source = SOURCES / f"{kernel.name}.c"
    subprocess.run([*NATIVE[compiler], str(source), "-o", str(library)], check=True)
    function = ctypes.CDLL(str(library)).kernel
    function.argtypes = (ctypes.c_void_p, ctypes.c_ulong)
    function.restype = ctypes.c_ulong
    return function


def rebuild(kernels: Sequence[Kernel]) -> None:
    """Compile the eBPF objects beside their sources anew."""
    for kernel in kernels:
        subprocess.run([*EBPF, f"{kernel.name}.c", "-o", f"{kernel.name}.o"], check=True, cwd=SOURCES)


class Contest:
    """A kernel on all engines: "gcc" and "clang" where they are installed, "unchecked", "checked"."""

    def __init__(self, kernel: Kernel, directory: Path) -> None:
        self.kernel = kernel
        program = load(SOURCES / f"{kernel.name}.o").program("kernel")
        self._native = {
            name: compile_native(kernel, name, directory) for name in NATIVE if shutil.which(name)
        }
        self._interpreter = EbpfVmRaw(program)
        self._machines = {"unchecked": EbpfVmRaw(program, checked=False), "checked": EbpfVmRaw(program)}
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
        """Raise DisagreementError unless all engines leave the same result and memory."""
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
                raise DisagreementError(
                    f"{self.kernel.name} on {space.size} bytes: {first} returns {expected[0]:#x}, {name} "
                    f"{outcome[0]:#x}; the memory is {'the same' if outcome[1] == expected[1] else 'not'}"
                )

    def run(self, rounds: int) -> Timing:
        """Check that engines agree, then time them in turn."""
        self.check(Workspace(self.kernel.memory(self.kernel.small)), interpret=True)
        space = Workspace(self.kernel.memory(self.kernel.size))
        self.check(space, interpret=False)
        times = time_in_turn(self.calls(space), space.restore, rounds)
        return Timing(self.kernel.name, self.kernel.kind, space.size, times)


def time_in_turn(calls: Mapping[str, Call], prepare: Callable[[], None], rounds: int) -> dict[str, list[int]]:
    """Return the nanoseconds of each round, by engine; each round starts with another engine."""
    times: dict[str, list[int]] = {name: [] for name in calls}
    order = list(calls)
    for _ in range(rounds):
        for name in order:
            call = calls[name]
            times[name].append(min(_time(call, prepare) for _ in range(CALLS)))
        order.append(order.pop(0))
    return times


def _time(call: Call, prepare: Callable[[], None]) -> int:
    prepare()
    start = time.perf_counter_ns()
    call()
    return time.perf_counter_ns() - start


def warm_up() -> None:
    """Keep the processor busy until it runs at its speed."""
    stop = time.perf_counter() + WARM_UP
    while time.perf_counter() < stop:
        sum(range(1000))


def overhead(rounds: int) -> float:
    """Return what a call of machine code from Python takes by itself, in nanoseconds."""
    space = Workspace(bytes(4096))
    machine = EbpfVmRaw(Program.from_bytes(EMPTY))
    machine.jit_compile()
    times = time_in_turn(
        {"empty": lambda: machine.execute_program_jit(space.buffer)}, space.restore, max(rounds, 15)
    )
    return statistics.median(times["empty"])


def geomean(values: Sequence[float]) -> float:
    """Return the geometric mean; NaN where a value is."""
    return math.exp(statistics.fmean(map(math.log, values)))


def summary(timings: Sequence[Timing]) -> list[tuple[str, dict[str, str]]]:
    """Return the closing rows: a title, and a text for each column of RATIOS."""
    ratios = {column: [timing.ratio(column) for timing in timings] for column in RATIOS}
    return [
        ("geomean", {column: _text(geomean(values), 2) for column, values in ratios.items()}),
        ("worst", {column: _text(max(values), 2) for column, values in ratios.items()}),
    ]


def machine_line() -> str:
    """Return the machine in one line: processor, system, Python and compilers."""
    cpu = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        lines = info.read_text().split("\n\n")[0].splitlines()
        fields = {name.strip(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        name, family, model = (fields.get(key, "?") for key in ("model name", "cpu family", "model"))
        cpu = f"{name} (family {family}, model {model})"
    found = [
        f"{platform.system()} {platform.release()}",
        f"{platform.python_implementation()} {platform.python_version()}",
    ]
    for compiler in NATIVE:
        if shutil.which(compiler):
            found.append(_first_line(compiler, "--version"))
    return ", ".join([f"{os.cpu_count()} x {cpu}", *found])


def _first_line(*command: str) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()[0]


def _text(value: float, digits: int) -> str:
    return "-" if math.isnan(value) else f"{value:.{digits}f}"


def _rows(timings: Sequence[Timing], engines: Sequence[str]) -> Iterator[list[str]]:
    for timing in timings:
        yield [
            timing.kernel,
            timing.kind,
            *(_text(timing.median(engine) / 1000, 0) for engine in engines),
            *(_text(timing.ratio(column), 2) for column in RATIOS),
        ]
    for title, cells in summary(timings):
        yield [title, "", *("" for _ in engines), *(cells[column] for column in RATIOS)]


ENGINES = ("gcc", "clang", "unchecked", "checked")
HEADINGS = ("kernel", "kind", *(f"{engine}, µs" for engine in ENGINES), *RATIOS)


def draw(timings: Sequence[Timing]) -> Table:
    """Return the timings as a table for the terminal."""
    table = Table(title=f"Machine code of {len(timings)} C kernels, median times and their ratios")
    for number, heading in enumerate(HEADINGS):
        if number < 2:
            table.add_column(heading, overflow="fold")
        else:
            table.add_column(heading.replace(", ", "\n").replace("/", "/\n"), justify="right")
    for number, row in enumerate(_rows(timings, ENGINES)):
        table.add_row(*row, end_section=number == len(timings) - 1)
    return table


def markdown(timings: Sequence[Timing], rounds: int, call: float) -> str:
    """Return the section of RESULTS.md, between its markers."""
    shortest = min(timing.median(engine) for timing in timings for engine in ("unchecked", "checked"))
    lines = [
        BEGIN,
        "## Kernels: the cost of checks, and native code",
        "",
        "    python benchmarks/kernels.py --write",
        "",
        f"{date.today()}, {machine_line()}.",
        "",
        f"{len(timings)} C kernels (`kernels/*.c`), each one function of memory and its length, compiled to",
        f"eBPF by `{' '.join(EBPF)}` and natively by plain `gcc -O2`",
        "and `clang -O2`, SIMD as these levels have it. All engines agree on results and memory before",
        f"they are timed. Medians of {rounds} rounds in which the engines take turns, in one run; a round's",
        f"time is the best of {CALLS} calls. Nothing is subtracted: the call from Python takes",
        f"{call / 1000:.1f} µs, at most {100 * call / shortest:.1f}% of a run of machine code.",
        "Ratios are of times: below 1.00 is faster than what stands behind the slash.",
        "",
        "| " + " | ".join(HEADINGS) + " |",
        "|" + "|".join([":--"] * 2 + ["--:"] * (len(HEADINGS) - 2)) + "|",
        *("| " + " | ".join(row) + " |" for row in _rows(timings, ENGINES)),
        END,
    ]
    return "\n".join(lines) + "\n"


def write(section: str) -> None:
    """Put the section into RESULTS.md, in the place of the one before."""
    text = RESULTS.read_text() if RESULTS.exists() else f"# Benchmarks\n\n{BEGIN}\n{END}\n"
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END + "\n")
    if not begin or not end:
        raise SystemExit(f"{RESULTS.name}: no lines {BEGIN} and {END} to write between")
    RESULTS.write_text(before + section + after)


def as_json(timings: Sequence[Timing], call: float) -> str:
    """Return everything that was measured: nanoseconds of each round."""
    return json.dumps(
        {
            "date": str(date.today()),
            "machine": machine_line(),
            "call_ns": call,
            "kernels": [
                {
                    **asdict(timing),
                    "median_ns": {engine: timing.median(engine) for engine in timing.rounds},
                }
                for timing in timings
            ],
            "summary": dict(summary(timings)),
        },
        indent=1,
    )


def _choose(names: str | None) -> Sequence[Kernel]:
    if names is None:
        return KERNELS
    known = {kernel.name: kernel for kernel in KERNELS}
    unknown = [name for name in names.split(",") if name not in known]
    if unknown:
        raise SystemExit(f"no kernel {unknown[0]!r}; there are: {', '.join(known)}")
    return [known[name] for name in names.split(",")]


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--kernels", metavar="A,B", help="only these (default: all)")
    parser.add_argument("--rounds", type=int, default=21, help="rounds, each with all engines (default: 21)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write what was measured")
    parser.add_argument("--markdown", action="store_true", help="print the section of RESULTS.md")
    parser.add_argument("--write", action="store_true", help="replace that section in RESULTS.md")
    parser.add_argument("--check", action="store_true", help="see that engines agree; time nothing")
    parser.add_argument("--rebuild", action="store_true", help="compile the eBPF objects anew, first")
    arguments = parser.parse_args()
    if arguments.rounds < 1:
        parser.error("--rounds is at least 1")
    if arguments.write and arguments.kernels:
        parser.error("--write is for all kernels")
    return arguments


def main() -> int:
    """Run the benchmark; 1 where the call from Python took too much of a run."""
    arguments = _arguments()
    kernels = _choose(arguments.kernels)
    console = Console(stderr=True)
    if arguments.rebuild:
        rebuild(kernels)
    timings: list[Timing] = []
    warm_up()
    call = overhead(arguments.rounds)
    with tempfile.TemporaryDirectory() as directory, console.status("") as status:
        for number, kernel in enumerate(kernels, 1):
            status.update(f"{number}/{len(kernels)} {kernel.name}")
            contest = Contest(kernel, Path(directory))
            if arguments.check:
                contest.check(Workspace(kernel.memory(kernel.small)), interpret=True)
                contest.check(Workspace(kernel.memory(kernel.size)), interpret=False)
            else:
                timings.append(contest.run(arguments.rounds))
    if arguments.check:
        console.print(f"{len(kernels)} kernels: all engines agree")
        return 0
    if arguments.json:
        arguments.json.write_text(as_json(timings, call) + "\n")
    section = markdown(timings, arguments.rounds, call)
    if arguments.write:
        write(section)
    if arguments.markdown:
        sys.stdout.write(section)
    else:
        Console(width=max(Console().width, 140)).print(draw(timings))
    shortest = min(timing.median(engine) for timing in timings for engine in ("unchecked", "checked"))
    share = call / shortest
    console.print(f"call from Python: {call / 1000:.1f} µs, {100 * share:.1f}% of the shortest run")
    if share > ENOUGH:
        console.print(f"[red]that is more than {100 * ENOUGH:.0f}%: make the shortest kernel's input larger")
    return int(share > ENOUGH)


if __name__ == "__main__":
    try:
        sys.exit(main())
    except DisagreementError as error:
        sys.exit(f"engines disagree: {error}")
