"""How long it takes to load an object: one large program with BTF, source lines and relocations.

python benchmarks/loading.py            needs clang; makes the object in a temporary folder
"""

from __future__ import annotations

import subprocess
import tempfile
import time
from pathlib import Path

from ebpfjit import load

SUPPORT = Path(__file__).resolve().parents[1] / "tests" / "elf"
STATEMENTS = 1100
REPEATS = 9

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


def main() -> None:
    """Print the time of a whole `load`, the best of several."""
    with tempfile.TemporaryDirectory() as folder:
        data = make(Path(folder))
    times = []
    for _ in range(REPEATS):
        start = time.perf_counter()
        program = load(data).program("program")
        times.append(time.perf_counter() - start)
    count = len(program.instructions)
    print(
        f"{count} instructions, {len(program.references)} references, {len(program.lines)} source lines:"
        f" {min(times) * 1e3:.1f} ms, {min(times) / count * 1e6:.2f} us an instruction"
    )


if __name__ == "__main__":
    main()
