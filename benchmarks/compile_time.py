"""What compiling costs: stage by stage, from cold and warm, for 100 to 100,000 instructions.

    python benchmarks/compile_time.py [--rounds N] [--json] [--write]

The programs are made of the C kernels in kernels/, as a large program is of functions: each function is
one of the kernels with r6 to r9 exchanged and its larger constants changed, so no two are the same; a
main function calls all of them. Each figure is for one process of its own:

    cold    the first program: every table is empty, keystone is called (the routines that all programs
            share are there already; making them is a part of what a process costs)
    other   a program that is new in a process that has compiled another one of 20,000 instructions
    warm    the same program again: the best of some rounds

Nothing is left out: from bytes to mapped code, verification and analysis included. What is measured
besides: loading a saved image, a hit in the cache folder, `import ebpfjit`, `ebpfjit run`.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from kernels import machine_line
from rich.console import Console
from rich.table import Table

from ebpfjit import JitFunction, Program, load
from ebpfjit.assembler import assemble
from ebpfjit.isa.spec import Imm, Kind
from ebpfjit.jit.timing import STAGES, forget, time_stages
from ebpfjit.program import decode, encode

HERE = Path(__file__).resolve().parent
RESULTS = HERE / "RESULTS.md"
BEGIN, END = "<!-- compile: begin -->", "<!-- compile: end -->"
SIZES = (100, 1_000, 10_000, 100_000)
TABLE_FILLER = 20_000
LARGE_CONSTANT = 64
PROCESSES = 15  # for what is measured as a whole process


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
    kernels = [load(path).program("kernel").code for path in sorted((HERE / "kernels").glob("*.o"))]
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


def _one_process(mode: str, size: int, checked: bool, rounds: int) -> dict[str, Any]:
    """Measure in this process; what `_child` runs."""
    import keystone  # noqa: F401 - what is measured is compiling, not importing

    code = program(size, seed=1)
    time_stages(assemble("exit"))
    forget()
    if mode == "other":
        time_stages(program(TABLE_FILLER, seed=2))
    timings = [time_stages(code, checked=checked) for _ in range(rounds if mode == "warm" else 1)]
    if mode == "warm":
        timings = timings[1:]
    best = min(timings, key=lambda timing: timing.total)
    return {
        "mode": mode,
        "size": best.instructions,
        "checked": checked,
        "total": best.microseconds(),
        "keystone": max(timing.keystone_calls for timing in timings),
        "stages": {stage: best.microseconds(stage) for stage in STAGES},
    }


def _child(mode: str, size: int, checked: bool, rounds: int) -> dict[str, Any]:
    arguments = ["--child", mode, str(size), str(int(checked)), str(rounds)]
    command = [sys.executable, str(Path(__file__).resolve()), *arguments]
    found: dict[str, Any] = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
    return found


def measure_stages(rounds: int) -> list[dict[str, Any]]:
    """Return the figures of every mode and size, each of a process of its own (the best of three)."""
    found = []
    for checked in (True, False):
        for mode in ("cold", "other", "warm"):
            for size in SIZES:
                repeats = max(3, min(rounds, 200_000 // size))
                tries = [_child(mode, size, checked, repeats) for _ in range(3)]
                found.append(min(tries, key=lambda one: one["total"]))
    return found


def measure_loading(size: int = 10_000) -> dict[str, float]:
    """Return microseconds an instruction: compiling in a warm process, loading, a hit in a folder."""
    source = Program(program(size, seed=1))
    count = len(source.instructions)

    def best(action: Any) -> float:
        times = []
        for _ in range(9):
            start = time.perf_counter()
            action()
            times.append(time.perf_counter() - start)
        return min(times) / count * 1e6

    with tempfile.TemporaryDirectory() as folder:
        source.compile().save(f"{folder}/saved")
        source.compile(cache=f"{folder}/cache")
        return {
            "compile": best(lambda: Program(source.code).compile()),
            "load": best(lambda: JitFunction.load(f"{folder}/saved")),
            "hit": best(lambda: source.compile(cache=f"{folder}/cache")),
        }


def _process(*command: str) -> float:
    """Return milliseconds that a process takes, its modules compiled before; the median of some."""
    times = []
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    subprocess.run(command, check=True, capture_output=True, env=environment)
    for _ in range(PROCESSES):
        start = time.perf_counter()
        subprocess.run(command, check=True, capture_output=True, env=environment)
        times.append((time.perf_counter() - start) * 1e3)
    return statistics.median(times)


def measure_processes() -> dict[str, float]:
    """Return milliseconds of whole processes."""
    python = sys.executable
    kernel = str(HERE / "kernels" / "gcd.o")
    return {
        "python -c pass": _process(python, "-c", "pass"),
        "python -c 'import ctypes, mmap'": _process(python, "-c", "import ctypes, mmap"),
        "python -c 'import ebpfjit'": _process(python, "-c", "import ebpfjit"),
        "ebpfjit run gcd.o": _process(python, "-m", "ebpfjit", "run", kernel, "--hex", "00" * 64),
    }


HEADINGS = ("mode", "instructions", "checks", "total", *STAGES, "keystone calls")


def _rows(stages: list[dict[str, Any]]) -> list[list[str]]:
    return [
        [
            one["mode"],
            str(one["size"]),
            "checked" if one["checked"] else "unchecked",
            f"{one['total']:.1f}",
            *(f"{one['stages'][stage]:.2f}" for stage in STAGES),
            str(one["keystone"]),
        ]
        for one in stages
    ]


def _linear(stages: list[dict[str, Any]], mode: str, checked: bool) -> float:
    """Return the largest cost of an instruction over the smallest, among all sizes."""
    totals = [one["total"] for one in stages if one["mode"] == mode and one["checked"] == checked]
    return max(totals) / min(totals)


def markdown(stages: list[dict[str, Any]], loading: dict[str, float], processes: dict[str, float]) -> str:
    """Return the section of RESULTS.md."""
    linear = [f"{mode} {_linear(stages, mode, True):.2f}" for mode in ("cold", "other", "warm")]
    whole = [f"`{name}` {value:.0f}" for name, value in processes.items()]
    compiled, loaded, hit = loading["compile"], loading["load"], loading["hit"]
    lines = [
        BEGIN,
        "## Compiling: what an instruction costs",
        "",
        "    python benchmarks/compile_time.py --write",
        "",
        machine_line(),
        "",
        "Programs of C kernels, each a function with registers exchanged and constants changed.",
        "Microseconds an instruction, from bytes to mapped code. cold: the first program of a process, but",
        "for the routines that all programs share, which are there.",
        f"other: a new program in a process that has compiled another of {TABLE_FILLER:,} instructions.",
        "warm: the same program again.",
        "",
        "| " + " | ".join(HEADINGS) + " |",
        "|:--|--:|:--|" + "--:|" * (len(HEADINGS) - 3),
        *("| " + " | ".join(row) + " |" for row in _rows(stages)),
        "",
        "Largest cost of an instruction over the smallest, 100 to 100,000 instructions, checked: "
        + ", ".join(linear) + ".",
        "",
        f"A program of 10,000 instructions in a warm process, µs an instruction: compile {compiled:.2f}, "
        f"`JitFunction.load` {loaded:.3f} (1/{compiled / loaded:.0f}), `compile(cache=)` of what is there "
        f"{hit:.3f} (1/{compiled / hit:.0f}).",
        "",
        f"Whole processes, ms (median): {', '.join(whole)}.",
        END,
    ]  # fmt: skip
    return "\n".join(lines) + "\n"


def write(section: str) -> None:
    """Put the section into RESULTS.md, in the place of the one before."""
    text = RESULTS.read_text()
    if BEGIN in text:
        before, _, rest = text.partition(BEGIN)
        after = rest.partition(END + "\n")[2]
    else:
        before, after = text.rstrip("\n") + "\n\n", ""
    RESULTS.write_text(before + section + after)


def main() -> int:
    """Measure, show, write."""
    parser = argparse.ArgumentParser(description="What compiling costs, stage by stage.")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--write", action="store_true")
    parser.add_argument("--child", nargs=4, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        mode, size, checked, rounds = arguments.child
        print(json.dumps(_one_process(mode, int(size), checked == "1", int(rounds))))
        return 0
    stages = measure_stages(arguments.rounds)
    loading, processes = measure_loading(), measure_processes()
    if arguments.json:
        print(json.dumps({"stages": stages, "loading": loading, "processes": processes}, indent=1))
        return 0
    table = Table(*HEADINGS)
    for row in _rows(stages):
        table.add_row(*row)
    Console().print(table)
    print(loading, processes, sep="\n")
    if arguments.write:
        write(markdown(stages, loading, processes))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
