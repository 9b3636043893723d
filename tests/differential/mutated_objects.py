"""Damaged object files, loaded, looked at, compiled and run: nothing but an EbpfError, and soon.

    python -m tests.differential.mutated_objects --seconds 1200 --seed 1 --memory 1G
    python -m tests.differential.mutated_objects --objects 40000

Each object follows from the seed and its number. Some at a time go through a child with RLIMIT_AS: a crash,
another exception (MemoryError is one), or more than 5 s of the processor for one object is a finding. What
is found is printed, with the number that makes it again (`--only NUMBER`).
"""

from __future__ import annotations

import argparse
import itertools
import math
import random
import resource
import sys
import time
import traceback
import warnings
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "tests")]

from support.mutation import mutate  # noqa: E402 - the folder of tests is no package

from ebpfjit import EbpfError, Environment, LicenseWarning, load  # noqa: E402
from ebpfjit.difftest.children import run_forked  # noqa: E402
from ebpfjit.disassembler import disassemble  # noqa: E402
from ebpfjit.elf import read_btf  # noqa: E402

SOURCES = sorted([*(ROOT / "tests" / "elf").glob("*.o"), *(ROOT / "examples").rglob("*.o")])
OTHER_MACHINES = ("x86_64.o", "big_endian.o")
TYPES_OF = {
    "core.o": "core_target.o", "missing_field.o": "core_target.o",
    "new_types_clang19.o": "new_types_target.o", "new_types_clang22.o": "new_types_target.o",
}  # fmt: skip
"""Objects whose CO-RE relocations are made for the types of another file."""

BATCH = 20
MOST_SECONDS = 5
LIMIT = 2000
KCONFIG = {"CONFIG_HZ": 1, "CONFIG_BPF": "y", "CONFIG_NET": "n", "CONFIG_LOCALVERSION": "x"}
FRAME = bytes(range(1, 13)) + b"\x08\x00" + bytes(50)
FIXED = Environment(clock=lambda: 1_000_000_000, random=lambda: 4, cpu=1, cpus=4)


@dataclass(frozen=True, slots=True)
class Finding:
    """What one object did: its number, and what went wrong."""

    number: int
    what: str


@dataclass(slots=True)
class Report:
    """What a run found, of how many objects, and how many of them could be loaded."""

    objects: int = 0
    loaded: int = 0
    slowest: float = 0.0
    findings: list[Finding] = field(default_factory=list)


class Objects:
    """The damaged objects of one seed, by number."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.sources = [path for path in SOURCES if path.name not in OTHER_MACHINES]
        self.contents = tuple(path.read_bytes() for path in self.sources)
        self.types = {name: read_btf(ROOT / "tests" / "elf" / name) for name in {*TYPES_OF.values()}}

    def source(self, number: int) -> Path:
        """Return the sound object that one was made from."""
        return self.sources[number % len(self.sources)]

    def make(self, number: int) -> bytes:
        """Return an object."""
        chance = random.Random(f"{self.seed}/{number}")
        return mutate(self.contents[number % len(self.sources)], chance, self.contents)

    def use(self, number: int) -> bool:
        """Do with an object all that one does; False where it cannot be loaded. Raises what should not be."""
        target = self.types.get(TYPES_OF.get(self.source(number).name, ""))
        return use(self.make(number), target)


def use(data: bytes, target: Any = None) -> bool:
    """Load an object, look at everything, run each program; False where it cannot be loaded."""
    pins: dict[str, Any] = {}
    try:
        obj = load(data, btf=target, environment=FIXED, kconfig=KCONFIG, pins=pins)
    except EbpfError:
        return False
    for each in (*obj.refusals.values(), *pins.values()):
        repr(each)
    with suppress(EbpfError):
        load(
            data,
            btf=target,
            environment=FIXED,
            maps=pins | dict.fromkeys(obj.maps, 64),
            only=[*obj.programs][:2],
        )
    with suppress(EbpfError):
        load(data, btf=target, environment=FIXED, maps=dict(obj.maps), strict=True)
    for map_ in obj.maps.values():
        _look_at(map_)
    for name in obj.globals:
        with suppress(EbpfError):
            obj.globals[name]
    if obj.btf is not None:
        for id in range(1, len(obj.btf)):
            with suppress(EbpfError):
                obj.btf.describe(obj.btf.type(id).id)
    str(obj.compatibility())  # there is always one: what is damaged is left out
    steps: list[Callable[[Any], object]] = [
        lambda program: disassemble(program, "rbpf"),
        lambda program: disassemble(program, "linux"),
        lambda program: program.run(FRAME, engine="interpreter", limit=LIMIT),
        lambda program: program.run(FRAME, engine="jit", limit=LIMIT),
        lambda program: program.compile(limit=LIMIT)(FRAME),
    ]
    for program, step in itertools.product(obj.programs.values(), steps):
        with suppress(EbpfError):
            step(program)
    for map_ in obj.maps.values():
        _look_at(map_)
    return True


def _look_at(map_: Any) -> None:
    repr(map_)
    for name in ("items", "typed"):
        with suppress(EbpfError):
            view = getattr(map_, name, None)
            items = view if callable(view) else getattr(view, "items", None)
            if items is not None:
                list(itertools.islice(items(), 3))


def run_batch(objects: Objects, numbers: range, memory: int | None) -> Report:
    """Use some objects in this process; called in a child."""
    if memory is not None:
        resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
    warnings.simplefilter("ignore", LicenseWarning)  # damaged licences, by the thousand
    report = Report()
    for number in numbers:
        began = time.process_time()
        try:
            report.loaded += objects.use(number)
        except BaseException as error:
            last = traceback.extract_tb(error.__traceback__)[-1]
            text = f"{type(error).__name__}: {str(error)[:200]} ({last.filename}:{last.lineno})"
            report.findings.append(Finding(number, text))
        took = time.process_time() - began
        report.objects += 1
        report.slowest = max(report.slowest, took)
        if took > MOST_SECONDS:
            report.findings.append(Finding(number, f"took {took:.1f} s"))
    return report


def run(seconds: float, seed: int, memory: int | None, first: int = 0, most: int = sys.maxsize) -> Report:
    """Use objects for so many seconds, or `most`; what a child does not survive is looked for one by one."""
    objects, total, end = Objects(seed), Report(), time.monotonic() + seconds
    for warm in range(2):
        objects.use(warm)  # what is imported and made first is there for all children
    number, last = first, first + most
    while time.monotonic() < end and number < last:
        numbers = range(number, min(number + BATCH, last))
        _add(total, objects, numbers, memory)
        number += BATCH
    return total


def _add(total: Report, objects: Objects, numbers: range, memory: int | None) -> None:
    patience = MOST_SECONDS * (2 if len(numbers) == 1 else 6)
    ended = run_forked(lambda: run_batch(objects, numbers, memory), patience)
    report = ended.value
    if isinstance(report, Report):
        total.objects += report.objects
        total.loaded += report.loaded
        total.slowest = max(total.slowest, report.slowest)
        total.findings += report.findings
    elif len(numbers) > 1:
        for number in numbers:
            _add(total, objects, range(number, number + 1), memory)
    else:
        total.objects += 1
        what = "does not end" if ended.hangs else ended.signal or "its child is gone"
        total.findings.append(Finding(numbers[0], what))


def _bytes(text: str) -> int:
    units = {"K": 10, "M": 20, "G": 30}
    return int(text[:-1]) << units[text[-1]] if text[-1] in units else int(text)


def main() -> int:
    """Run as the command says; 1 where there is a finding."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, help="20, or as long as so many --objects take")
    parser.add_argument("--objects", type=int, help="how many at the most")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--first", type=int, default=0, help="number of the first object")
    parser.add_argument("--memory", type=_bytes, default=1 << 30, help="RLIMIT_AS of each child: 1G")
    parser.add_argument("--only", type=int, help="use one object in this process, with a traceback")
    given = parser.parse_args()
    if given.only is not None:
        resource.setrlimit(resource.RLIMIT_AS, (given.memory, given.memory))
        print("loaded" if Objects(given.seed).use(given.only) else "refused")
        return 0
    seconds = given.seconds if given.seconds is not None else math.inf if given.objects is not None else 20
    most = given.objects if given.objects is not None else sys.maxsize
    report = run(seconds, given.seed, given.memory, given.first, most)
    for finding in report.findings:
        print(f"object {finding.number}: {finding.what}")
    print(
        f"{report.objects} objects, {report.loaded} loaded, slowest {report.slowest:.2f} s,"
        f" {len(report.findings)} findings"
    )
    return bool(report.findings)


if __name__ == "__main__":
    sys.exit(main())
