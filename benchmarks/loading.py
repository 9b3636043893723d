"""How long it takes to load an object: one large program with BTF, source lines and relocations.

python benchmarks/loading.py [--rounds N] [--write]       needs clang; makes the object itself
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from results import part, write

from ebpfjit import load
from ebpfjit.bench.measure import Rounds, in_turn, median, timed
from ebpfjit.elf import read_btf

SUPPORT = Path(__file__).resolve().parents[1] / "tests" / "elf"
KERNEL_TYPES = Path("/sys/kernel/btf/vmlinux")
STATEMENTS = 1100
ROUNDS = 9

SOURCE = """
#include "bpf_support.h"
u64 total, table[64];
static NOINLINE u64 work(u64 x) {{ {body} return x; }}
SEC("xdp") int program(void *context) {{ return work((u64)context); }}
"""


def make(folder: Path) -> bytes:
    """Return an object whose program has some 10,000 instructions."""
    statement = "x += (*(volatile u64 *)&table[{0}]) * {1}u; if (x & {1}) x ^= *(volatile u64 *)&total;\n"
    body = "".join(statement.format(index % 64, index) for index in range(STATEMENTS))
    (folder / "large.c").write_text(SOURCE.format(body=body))
    command = f"clang -O2 -g -target bpf -mcpu=v3 -I {SUPPORT} -c large.c -o large.o"
    subprocess.run(command.split(), cwd=folder, check=True)
    subprocess.run(["llvm-strip", "--strip-debug", "large.o"], cwd=folder, check=True)
    return (folder / "large.o").read_bytes()


def milliseconds(work: Any, rounds: int) -> float:
    """Return the median of a whole `load`."""
    return median(in_turn({"load": timed(work)}, Rounds(rounds))["load"]) / 1e6


def measured(data: bytes, rounds: int) -> str:
    """Return what to say of the object, and of CO-RE against a kernel's types where they are."""
    program = load(data).program("program")
    count, whole = len(program.instructions), milliseconds(lambda: load(data).program("program"), rounds)
    said = (
        f"A whole `load`, median of {rounds}: one program of {count:,} instructions with "
        f"{len(program.references):,} references\nto variables, BTF and {len(program.lines):,} source lines "
        f"takes {whole:.1f} ms, {whole / count * 1e3:.1f} µs an instruction (the aim was 20)."
    )
    if KERNEL_TYPES.exists():
        core, types = str(SUPPORT / "core.o"), read_btf(str(KERNEL_TYPES))
        first = milliseconds(lambda: load(core, btf=str(KERNEL_TYPES)), 3)
        again = milliseconds(lambda: load(core, btf=types), rounds)
        said += (
            f'\nWith a kernel\'s types (`btf="{KERNEL_TYPES}"`), `tests/elf/core.o` takes {first:.0f} ms, '
            f"{again:.0f} ms where\nthe `Btf` that `ebpfjit.elf.read_btf` gives is kept for several objects."
        )
    return said


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--write", action="store_true", help="replace the part of RESULTS.md")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        data = make(Path(folder))
    said = measured(data, arguments.rounds)
    print(said)
    if arguments.write:
        write("loading", part("Loading an object", "python benchmarks/loading.py --write", said))
    return 0


if __name__ == "__main__":
    sys.exit(main())
