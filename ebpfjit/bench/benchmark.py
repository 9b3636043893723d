"""What a benchmark is: steps that measure, and the section that is made of their results."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ebpfjit.bench.holdout import HELD_OUT
from ebpfjit.bench.inputs import KERNELS
from ebpfjit.bench.measure import BenchError, Rounds
from ebpfjit.record import dataclass


@dataclass(frozen=True, slots=True)
class Plan:
    """How much to measure.

    `rounds` of each comparison; with `seconds` as many as fit, all benchmarks together. `kernels` are
    names; a batch has `packets`, maps at most `entries`; `sizes` of compiled programs are instructions,
    `builds` are the ways in which they are compiled (`compiling.BUILDS`); `processes` is how often what
    is a process of its own is started.
    """

    rounds: int = 5
    seconds: float | None = None
    kernels: tuple[str, ...] = (
        "fnv1a",
        "crc32_table",
        "packet_parse",
        "json",
        "lz4",
        "quick_sort",
        "xtea",
        "gcd",
        "regex",
        "bloom",
        "small_vm",
    )
    packets: int = 100_000
    entries: int = 1 << 10
    sizes: tuple[int, ...] = (100, 1_000, 10_000)
    builds: tuple[str, ...] = ("baseline", "optimised")
    processes: int = 1

    def __post_init__(self) -> None:
        known = [kernel.name for kernel in (*KERNELS, *HELD_OUT)]
        for name in self.kernels:
            if name not in known:
                raise BenchError(f"no kernel {name!r}; there are: {', '.join(known)}")


SHORT = Plan()
FULL = Plan(
    rounds=21,
    kernels=tuple(kernel.name for kernel in (*KERNELS, *HELD_OUT)),
    packets=1_000_000,
    entries=1 << 20,
    sizes=(100, 1_000, 10_000, 100_000),
    builds=("baseline", "optimised", "unchecked"),
    processes=3,
)
"""What benchmarks/RESULTS.md is made with."""


@dataclass(frozen=True, slots=True)
class Step:
    """A part of a benchmark: what it is called while it runs, and what measures it."""

    title: str
    run: Callable[[Rounds], Sequence[Any]]


@dataclass(frozen=True, slots=True)
class Bars:
    """What a plot shows: for each label a bar of each series, in `unit`; NaN where there is none."""

    unit: str
    labels: tuple[str, ...]
    series: Mapping[str, tuple[float, ...]]
    stacked: bool = False


@dataclass(frozen=True, slots=True)
class Section:
    """The results of a benchmark, ready to be shown.

    `align` has "l" or "r" for each column; `closing` rows at the end sum up those before. `data` is
    what JSON has: plain dictionaries, lists, numbers and strings.
    """

    name: str
    title: str
    headings: tuple[str, ...]
    align: str
    rows: tuple[tuple[str, ...], ...]
    bars: Bars
    data: Mapping[str, Any]
    remarks: tuple[str, ...] = ()
    closing: int = 0


@dataclass(frozen=True, slots=True)
class Benchmark:
    """What is measured under a name: its steps for a plan, and the section made of their results.

    The section is made of what there is: of fewer results where somebody pressed Ctrl-C.
    """

    name: str
    what: str
    steps: Callable[[Plan], Sequence[Step]]
    section: Callable[[Sequence[Any]], Section]
