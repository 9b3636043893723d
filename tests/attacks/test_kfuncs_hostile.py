"""Kernel functions in any order, with results of each other: both engines say the same, and no more."""

from __future__ import annotations

import random
from pathlib import Path

from ebpfjit import load
from ebpfjit.assembler import assemble
from ebpfjit.elf import Object
from ebpfjit.errors import EbpfError
from ebpfjit.program import Kfunc, Program
from ebpfjit.runtime.kfuncs.table import kfuncs
from tests.support.kfunc_runs import PACKET

OBJECT = Path(__file__).parent.parent / "elf" / "objects.o"
NAMES = sorted(kfuncs())
NUMBERS = (0, 1, 7, 8, 64, 4096, 0xFFFF, 0x7FFFFFFF, 0x80000000, (1 << 63) - 1, 1 << 63, (1 << 64) - 1)
CALLS = 12
GRAPH = [
    name for name in NAMES if name.startswith(("bpf_obj", "bpf_list", "bpf_rb", "bpf_ref", "bpf_cpumask"))
]


def _program(source: random.Random, obj: Object) -> Program:
    """Return a program that calls kernel functions with whatever it has, results among it.

    r6 is the context, r7 a result, r8 a value with a lock and a list, r9 one more result.
    """
    made = obj.program("queued")
    lines = ["mov r6, r1", "mov r7, 0", "mov r9, 0", f"lddw r8, {obj.maps['queues'].regions[0].start:#x}"]
    lines += [f"stdw [r10-{at}], 0" for at in range(8, 136, 8)]
    kinds = [id for id, each in made.kfuncs.items() if each.name == "bpf_obj_new_impl"]
    types = list(range(1, 60)) if kinds else [1]
    for _ in range(CALLS):
        name = source.choice(NAMES if source.randrange(3) else GRAPH)
        for register in range(1, 6):
            lines.append(source.choice((
                f"lddw r{register}, {source.choice(NUMBERS):#x}",
                f"mov r{register}, r10\nadd r{register}, -{8 * source.randrange(1, 16)}",
                f"mov r{register}, r7",
                f"mov r{register}, r7\nadd r{register}, 8",
                f"mov r{register}, r9",
                f"mov r{register}, r8",
                f"mov r{register}, r8\nadd r{register}, 8",
                f"mov r{register}, r6",
                f"mov r{register}, {source.choice(types)}",
            )))  # fmt: skip
        if "obj_new" in name:
            lines.append(f"mov r1, {source.choice(types)}")
        lines.append(f"call kfunc {1 + NAMES.index(name)}")
        lines.append(source.choice(("mov r7, r0", "mov r9, r0", "mov r9, r7\nmov r7, r0")))
        if not source.randrange(4):
            lines.append(f"mov r1, r8\ncall {source.choice((93, 94))}")
    lines += ["mov r0, 0", "exit"]
    called = {number: Kfunc(name) for number, name in enumerate(NAMES, 1)}
    return Program(assemble("\n".join(lines)), type="tc", maps=made.maps, kfuncs=called, types=made.types)


def _outcome(seed: int, obj: Object, engine: str) -> tuple[str, int | None]:
    """Return how a program ends, and where; each engine has maps of its own."""
    program = _program(random.Random(seed), obj)
    try:
        program.run(PACKET, engine=engine, limit=100_000)
    except EbpfError as error:
        return type(error).__name__, getattr(error, "pc", None)
    return "ended", None


def test_both_engines_end_alike() -> None:
    ends = set()
    objects = load(OBJECT), load(OBJECT)
    for seed in range(14):
        ends.add(end := _outcome(seed, objects[0], "interpreter"))
        assert _outcome(seed, objects[1], "jit") == end, seed
    assert len(ends) > 3
