"""docs/kfuncs.md lists the kernel functions that are there; `make bless` writes it anew."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from ebpfjit.runtime.kfuncs.table import KernelFunction, kfuncs

PAGE = Path(__file__).parents[2] / "docs" / "kfuncs.md"

START = """\
# Kernel functions (kfuncs)

What programs may call by name, as in `extern int bpf_iter_num_new(...) __ksym;`, and where one here differs
from Linux. They are held against a kernel in `tests/unit/test_kfuncs*.py`. This page is written by
`make bless`, from the registry. Any other can be given, by name:

    def lookup(context, key, size):               # as BTF declares it: numbers, and pointers as addresses
        return bytearray(8) if ... else None      # memory that the program may touch, or 0

    program.run(packet, kfuncs={"bpf_xdp_ct_lookup": lookup})
    program.compile(kfuncs={"bpf_xdp_ct_lookup": lookup})

A function that is given takes the place of one that is there. Numbers come as their types say (an `int` is
negative where it is), and the result becomes r0 as its type says; `read(address, size)` and
`write(address, data)` of `ebpfjit.runtime.memory` go to the program's memory, and fault where it is not the
program's. A program that
calls one which nobody has is refused when it is run or compiled, with the name and the line; where it is weak
(`__weak`), its address is 0 unless it is given. Without BTF (`Program(code, kfuncs={1: Kfunc("name")})`),
each gets five u64.

Objects that programs make (`bpf_obj_new`) are in memory of their own. A run can touch those that it owns,
and those that it put away until it gives the lock back; what it forgets to put away or drop is an error that
names the place, and what hangs in a map goes with its value. What the kptrs of a map's values point to can
be read, the first 128 objects of it, by a run that begins after they were put there. Sets of processors
(`bpf_cpumask`) have a bit for each of `Environment(cpus=)`.

What a kernel function does is bounded and paid for as what helpers do, and faults in the same words: see
[helpers.md](helpers.md).

| Kernel function | What it does | What differs |
| --- | --- | --- |
"""


def sentence(entry: KernelFunction) -> str:
    """The first paragraph of the docstring, as one line."""
    text = " ".join((entry.function.__doc__ or "").split("\n\n")[0].split())
    return text.replace("|", "\\|")


def page() -> str:
    rows = (f"| `{name}` | {sentence(entry)} | {entry.differs} |\n" for name, entry in kfuncs().items())
    return START + "".join(rows)


def test_the_page_is_current(golden: Callable[[Path, str], None]) -> None:
    golden(PAGE, page())
