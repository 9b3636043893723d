"""Checked and unchecked machine code against gcc -O2 and clang -O2, over C kernels.

    python benchmarks/kernels.py [--kernels A,B] [--rounds N] [--json FILE] [--write]
    python benchmarks/kernels.py --rebuild --check       objects made anew; engines agree; no times

What is measured, and how: ebpfjit/bench/contest.py; the kernels: ebpfjit/bench/kernels/.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace

from results import measure, parser

from ebpfjit import EbpfError
from ebpfjit.bench.benchmark import FULL
from ebpfjit.bench.contest import BENCHMARKS, CALLS, LEADS, Contest, Workspace
from ebpfjit.bench.holdout import HELD_OUT
from ebpfjit.bench.inputs import KERNELS, SOURCES, Kernel

ALL = (*KERNELS, *HELD_OUT)
EBPF = ("clang", "-O2", "-g0", "-target", "bpf", "-mcpu=v3", "-c")
WORDS = f"""
{len(KERNELS)} C kernels (`ebpfjit/bench/kernels/*.c`), and apart from them {len(HELD_OUT)} that were written
before the optimizer and that nobody tuned for (`holdout/*.c`). Each is one function of memory and its
length, compiled to eBPF by `{" ".join(EBPF)}`
and natively by plain `gcc -O2` and `clang -O2`, SIMD as these levels have it. llvm is LLVM on the same
bytecode, unchecked, for this processor. All engines agree on results and memory before they are timed.
{{rounds}} rounds in which the engines take turns, in one run, each with its code behind
{", ".join(map(str, LEADS))} bytes; a round's time is the best of {CALLS} calls. Shown is the median of the
rounds, of these the median over the places of the code, less what an empty function takes.
Ratios are of times: below 1.00 is faster than what stands behind the slash.
"""


def rebuild(kernels: Sequence[Kernel]) -> None:
    """Compile the eBPF objects beside their sources anew."""
    for kernel in kernels:
        command = [*EBPF, f"-I{SOURCES}", kernel.source.name, "-o", kernel.object.name]
        subprocess.run(command, check=True, cwd=kernel.folder)


def check(kernels: Sequence[Kernel]) -> None:
    """See that all engines agree."""
    for kernel in kernels:
        contest = Contest(kernel, leads=(0,))
        contest.check(Workspace(kernel.memory(kernel.small)), interpret=True)
        contest.check(Workspace(kernel.memory(kernel.size)), interpret=False)
    print(f"{len(kernels)} kernels: all engines agree")


def main() -> int:
    options = parser(__doc__ or "")
    options.add_argument("--kernels", metavar="A,B", help="only these (default: all)")
    options.add_argument("--check", action="store_true", help="see that engines agree; time nothing")
    options.add_argument("--rebuild", action="store_true", help="compile the eBPF objects anew, first")
    arguments = options.parse_args()
    if arguments.write and arguments.kernels:
        options.error("--write is for all kernels")
    try:
        names = tuple(arguments.kernels.split(",")) if arguments.kernels else FULL.kernels
        plan = replace(FULL, kernels=names)
        chosen = [kernel for kernel in ALL if kernel.name in names]
        if arguments.rebuild:
            rebuild(chosen)
        if arguments.check:
            check(chosen)
            return 0
    except EbpfError as error:
        sys.exit(str(error))
    title = "Kernels: the cost of checks, and native code"
    return measure("kernels", title, WORDS, BENCHMARKS, arguments, plan)


if __name__ == "__main__":
    sys.exit(main())
