"""The benchmarks, by name."""

from __future__ import annotations

from collections.abc import Sequence

from ebpfjit.bench import calls, compiling, contest, everyday, maps, passes, payloads, tiers
from ebpfjit.bench.benchmark import Benchmark

_ALL = (
    *calls.BENCHMARKS,
    *(maps.BENCHMARK, compiling.BENCHMARK, tiers.BENCHMARK, everyday.BENCHMARK),
    *contest.BENCHMARKS,
    *(payloads.BENCHMARK, passes.BENCHMARK),
)
BENCHMARKS = {one.name: one for one in _ALL}


def choose(names: Sequence[str]) -> tuple[Benchmark, ...]:
    """Return the benchmarks of these names, each once; all of them where there are no names."""
    return tuple(BENCHMARKS[name] for name in dict.fromkeys(names or BENCHMARKS))
