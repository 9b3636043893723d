"""`measure`: a program over packets, its instructions counted packet by packet; then its time, uncounted.

packets -> counted runs -> Counts (ebpfjit/coverage)  -> instructions, calls, operations on maps
-> plain runs                                -> nanoseconds a packet
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict
from statistics import median
from typing import TYPE_CHECKING, Any

from ebpfjit.cost.places import FunctionCost, LineCost, by_place, called
from ebpfjit.cost.stack import Chain, deepest
from ebpfjit.coverage.counts import counts_of
from ebpfjit.coverage.shape import shape_of
from ebpfjit.engines import best_engine
from ebpfjit.errors import ExecutionError, InputError
from ebpfjit.program import Program
from ebpfjit.record import dataclass
from ebpfjit.runtime import counters
from ebpfjit.runtime.maps.definition import MapType

if TYPE_CHECKING:
    from ebpfjit.keywords import GivenOptions
    from ebpfjit.runtime.environment import Environment

ROUNDS, BATCH, ENOUGH = 5, 10_000, 100_000_000
"""How often packets are run to time them, where the median counts; how many in a round, but where fewer take
so many nanoseconds (programs that go through Python)."""


@dataclass
class Cost:
    """What a program cost on so many `packets`.

    `instructions` were executed in all; `by_packet` has how many for each packet, `worst` is the number of
    the one with most, `worst_packet` its bytes. `helpers` and kernel functions were called so often, by name;
    `maps` has operations by (map, what was done). `nanoseconds` are those of a packet, in the median of
    several rounds over all of them; `engine` is what ran it. `faults` counts packets on which the program
    went wrong, `first_fault` says how at first. `stack` is the deepest chain of calls that there may be.
    `functions` and `lines` start with what cost most.
    """

    name: str
    packets: int
    engine: str
    instructions: int
    by_packet: list[int]
    worst: int
    worst_packet: bytes
    nanoseconds: float
    faults: int
    first_fault: str
    helpers: dict[str, int]
    maps: dict[tuple[str, str], int]
    functions: list[FunctionCost]
    lines: list[LineCost]
    stack: Chain

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON has it; packets in hex."""
        said = asdict(self)
        said["worst_packet"] = self.worst_packet.hex()
        said["maps"] = [{"map": name, "operation": what, "count": n} for (name, what), n in self.maps.items()]
        return said


def measure(
    program: Program,
    packets: Iterable[bytes | bytearray | memoryview],
    *,
    environment: Environment | None = None,
    helpers: Mapping[int | str, Callable[..., Any]] | None = None,
    kfuncs: Mapping[int | str, Callable[..., Any]] | None = None,
    rounds: int = ROUNDS,
) -> Cost:
    """Return what a program costs on packets, one after the other, with its maps as they are.

    `environment`, `helpers` and `kfuncs` are as for `Program.run`. Time is taken in so many
    `rounds`, of which the median counts.

    Counts are exact and the same each time; maps are left as the packets leave them. Time is measured on
    copies of the program and its maps, in machine code where that is to be had. Raises InputError where there
    is no packet, and for one that the program does not take (too short).
    """
    given = [bytes(packet) for packet in packets]
    if not given:
        raise InputError("there is no packet to measure a program on")
    options: GivenOptions = {"environment": environment, "helpers": helpers, "kfuncs": kfuncs}
    timed = copy.deepcopy(program)
    counters.start()
    try:
        run, engine = _runner(program, options)
        parts = [_Part(each) for each in _reachable(program)]
        by_packet, faults, first_fault = _counted(run, parts, given)
    finally:
        counters.stop()
    worst = max(range(len(given)), key=by_packet.__getitem__)
    functions, lines = by_place([(part.program, part.counts()) for part in parts])
    helper_calls, map_calls = called([(part.program, part.counts()) for part in parts])
    return Cost(
        program.name or "program",
        len(given),
        engine,
        sum(by_packet),
        by_packet,
        worst,
        given[worst],
        _time(timed, given, options, rounds),
        faults,
        first_fault,
        helper_calls,
        map_calls,
        functions,
        lines,
        deepest(program),
    )


def _reachable(program: Program) -> list[Program]:
    """Return a program and those that its tail calls may go on with."""
    found = [program]
    for each in found:
        for map_ in each.maps:
            if map_.definition.type == MapType.PROG_ARRAY:
                for other in map_.values():
                    if isinstance(other, Program) and other not in found:
                        found.append(other)
    return found


def _runner(program: Program, options: GivenOptions) -> tuple[Callable[[bytes], object], str]:
    """Return what runs a program on a packet, and which engine that is."""
    if best_engine() == "jit":
        function = program.compile(optimize=True, **options)
        return lambda packet: function(bytearray(packet)), "jit"
    return lambda packet: program.run(packet, engine="interpreter", **options), "interpreter"


def _counted(
    run: Callable[[bytes], object], parts: Sequence[_Part], packets: Sequence[bytes]
) -> tuple[list[int], int, str]:
    """Run each packet; return how many instructions each took, how many faulted, and the first fault."""
    by_packet: list[int] = []
    faults, first_fault = 0, ""
    before = sum(part.executed() for part in parts)
    for number, packet in enumerate(packets):
        try:
            run(packet)
        except ExecutionError as error:
            faults += 1
            first_fault = first_fault or f"packet {number}: {error}"
        now = sum(part.executed() for part in parts)
        by_packet.append(now - before)
        before = now
    return by_packet, faults, first_fault


class _Part:
    """A program that takes part: what was counted of it since this was made."""

    def __init__(self, program: Program) -> None:
        self.program = program.own()
        self.found = counters.counters_of(self.program)
        self.before = counts_of(self.found)
        self.shape = shape_of(self.program)

    def executed(self) -> int:
        """Return how many instructions were executed so far."""
        words, shape = self.found.words, self.shape
        undone = sum(count * shape.behind.get(pc, 0) for pc, count in self.found.faults.items())
        return sum([words[word] * count for word, count in shape.segments]) - undone

    def counts(self) -> dict[int, int]:
        """Return how often each instruction was executed, by its slot."""
        now, before = counts_of(self.found).executed, self.before.executed
        return {pc: count - before[pc] for pc, count in now.items()}


def _time(program: Program, packets: Sequence[bytes], options: GivenOptions, rounds: int) -> float:
    """Return the nanoseconds of a packet, in the median of several rounds, faults included."""
    if best_engine() == "jit":
        function = program.compile(optimize=True, **options)
        each = _median_time(lambda: function.map([*packets], on_fault=0), 1, 1)
        many = [*packets] * max(1, min(-(-BATCH // len(packets)), int(ENOUGH / max(each, 1))))
        return _median_time(lambda: function.map(many, on_fault=0), len(many), rounds)
    return _median_time(lambda: _interpreted(program, packets, options), len(packets), rounds)


def _interpreted(program: Program, packets: Iterable[bytes], options: GivenOptions) -> None:
    for packet in packets:
        with suppress(ExecutionError):
            program.run(packet, engine="interpreter", **options)


def _median_time(work: Callable[[], object], packets: int, rounds: int) -> float:
    times = []
    for _ in range(max(rounds, 1)):
        start = time.perf_counter_ns()
        work()
        times.append((time.perf_counter_ns() - start) / packets)
    return median(times)
