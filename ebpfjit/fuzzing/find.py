"""Inputs with which a program goes wrong at a place that is known: witnesses of what a verifier says."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import field
from typing import Any

from ebpfjit.errors import EbpfError, ExecutionError
from ebpfjit.fuzzing.batches import Batch
from ebpfjit.fuzzing.contexts import frozen
from ebpfjit.fuzzing.finding import plain
from ebpfjit.fuzzing.fuzz import Fuzzer
from ebpfjit.fuzzing.samples import Inputs, Sample
from ebpfjit.fuzzing.showing import Showing, Shown, Shows
from ebpfjit.fuzzing.side import Side
from ebpfjit.fuzzing.state import KEYED, Contents, Held
from ebpfjit.isa.spec import Kind
from ebpfjit.program import Program
from ebpfjit.record import dataclass
from ebpfjit.runtime.helpers.names import NAMES

LIMIT = 100_000
"""Instructions of a run: what takes more ends as BudgetExhausted."""
SECONDS, RUNS = 0.5, 400_000
MOST_ATTEMPTS = 4
"""How often a fault is tried again alone, before it is left."""
MOST_TRIES = 600
_MAY_FAIL = """
ringbuf_reserve sk_lookup_tcp sk_lookup_udp skc_lookup_tcp sk_fullsock tcp_sock get_listener_sock
skc_to_tcp6_sock skc_to_tcp_sock skc_to_tcp_timewait_sock skc_to_tcp_request_sock skc_to_udp6_sock
skc_to_unix_sock skc_to_mptcp_sock sk_storage_get inode_storage_get task_storage_get
cgrp_storage_get per_cpu_ptr map_lookup_percpu_elem dynptr_data kptr_xchg sock_from_file
"""
MAY_FAIL = frozenset("bpf_" + name for name in _MAY_FAIL.split())
"""Helpers that return a pointer or NULL, which Linux does where memory is short, or nothing is there."""

Wanted = int | tuple[str, int] | Callable[[ExecutionError], bool]
Seed = bytes | tuple[bytes, Mapping[str, Any]]


@dataclass
class Witness:
    """What a program goes wrong with: the last of `packets`, run one after the other, ends with `error`.

    `packets` are what `Program.run` takes as data (of a struct context its bytes), `contexts` the fields that
    it takes as `context`, one mapping for each packet. `maps` are what maps hold before, by name, those that
    hold something else than the program's do now: (key, value) of all their entries. The helpers named in
    `failing` return 0 (NULL).
    """

    packets: list[bytes]
    contexts: list[dict[str, Any]]
    error: ExecutionError
    maps: dict[str, list[tuple[bytes, Held]]] = field(default_factory=dict)
    failing: tuple[str, ...] = ()

    @property
    def packet(self) -> bytes:
        """The packet that the program goes wrong with."""
        return self.packets[-1]

    @property
    def context(self) -> dict[str, Any]:
        """Fields of its context."""
        return self.contexts[-1]

    def run(self, program: Program, *, limit: int = LIMIT) -> None:
        """Run a copy of the program on the interpreter as told here: raises what was found.

        It takes at most `limit` instructions.
        """
        mine = copy.deepcopy(program)
        for map_ in mine.maps:
            entries = self.maps.get(map_.definition.name)
            if entries is not None:
                if map_.definition.type in KEYED:
                    map_.clear()
                for key, value in entries:
                    map_[key] = value
        helpers = dict.fromkeys(self.failing, _nothing)
        for packet, context in zip(self.packets, self.contexts, strict=True):
            mine.run(packet, engine="interpreter", limit=limit, context=context or None, helpers=helpers)

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON has it, bytes in hex."""
        return {
            "packets": plain(self.packets),
            "contexts": plain(self.contexts),
            "maps": {name: plain(entries) for name, entries in self.maps.items()},
            "failing": [*self.failing],
            "error": type(self.error).__name__,
            "pc": self.error.pc,
            "text": str(self.error),
        }


def _nothing(*arguments: int) -> int:
    return 0


def find_input(
    program: Program,
    reaches: Wanted,
    *,
    seeds: Iterable[Seed] = (),
    seconds: float = SECONDS,
    runs: int = RUNS,
    limit: int = LIMIT,
    seed: int = 1,
) -> Witness | None:
    """Return an input with which a run of the program ends with a fault at a slot, None where none is found.

    `reaches` is the pc of the fault (any ExecutionError there counts), with a name before it that of one in a
    program that this one tail-calls, or a function that says of an ExecutionError whether it is one that is
    looked for. `seeds` are what to begin with: data, or pairs of data and fields of the context. `seconds`,
    `runs`, `limit` and `seed` are as for `find_inputs`, which looks for several at once: one search of a
    program costs less than one for each.
    """
    return find_inputs(
        program, [reaches], seeds=seeds, seconds=seconds, runs=runs, limit=limit, seed=seed
    ).get(reaches)


def find_inputs(
    program: Program,
    wanted: Iterable[Wanted],
    *,
    seeds: Iterable[Seed] = (),
    seconds: float = SECONDS,
    runs: int = RUNS,
    limit: int = LIMIT,
    seed: int = 1,
) -> dict[Wanted, Witness]:
    """Return inputs with which runs of the program end with the `wanted` faults: those that were found.

    `wanted` and `seeds` are as for `find_input`. Runs are in machine code, where that is to be had; what they
    show is shown once more by the interpreter, or it is not returned. It ends after so many `seconds` of
    processor time, or `runs`, or when all are found. Inputs are tried in the same order for the same `seed`:
    only time may end the search at another place (and helpers that give the time, or random numbers).
    Programs of all types are run: with packets (short ones first), with the bytes of a struct, with memory
    where there is no type; with maps as they are, empty, filled with what the program asks for, and full;
    with fields of the context; and with helpers that return NULL. A run takes `limit` instructions at most.
    The program and its maps stay as they are.

    A program that cannot be run here has no witness. Raises ValueError for a limit that is none.
    """
    searched = {each: _test_of(each, program.name) for each in wanted}
    found: dict[Wanted, Witness] = {}
    start = [_sample(each) for each in seeds]
    deadline = time.thread_time() + seconds
    called = {NAMES.get(i.imm, "") for i in program.instructions if i.row and i.row.kind is Kind.CALL_HELPER}
    may_fail = tuple(sorted(called & MAY_FAIL))
    for failing in ((), may_fail) if may_fail else ((),):
        missing = {each: test for each, test in searched.items() if each not in found}
        if not missing:
            break
        now = time.thread_time()
        until = (now + deadline) / 2 if may_fail and not failing else deadline
        try:
            finder = _Finder(program, missing, failing, limit, seed, until)
        except EbpfError:
            break
        finder.run(start, until - time.thread_time(), runs, lambda report: None)
        found |= finder.witnesses
    return found


def _test_of(wanted: Wanted, name: str | None) -> Callable[[ExecutionError], bool]:
    if callable(wanted):
        return wanted
    place = wanted if isinstance(wanted, tuple) else (name, wanted)
    return lambda error: (error.program, error.pc) == place


def _sample(given: Seed) -> Sample:
    if isinstance(given, tuple):
        return Sample(bytes(given[0]), tuple(sorted((name, frozen(each)) for name, each in given[1].items())))
    return Sample(bytes(given))


class _Timed(Showing):
    """Makes samples small as long as there is time."""

    def __init__(self, side: Side, inputs: Inputs, deadline: float) -> None:
        super().__init__(side, None, inputs)
        self.deadline = deadline

    def small(
        self, contents: Contents, first: list[Sample], sample: Sample, shows: Shows, tries: int
    ) -> Sample:
        def is_still(side: Side, each: Sample) -> bool:
            return time.thread_time() < self.deadline and shows(side, each)

        return super().small(contents, first, sample, is_still, min(tries, MOST_TRIES))


class _Finder(Fuzzer):
    """A fuzzer that looks for some faults only."""

    span = 4

    def __init__(
        self,
        program: Program,
        wanted: Mapping[Wanted, Callable[[ExecutionError], bool]],
        failing: tuple[str, ...],
        limit: int,
        seed: int,
        deadline: float,
    ) -> None:
        side = Side(program, limit, dict.fromkeys(failing, _nothing), optimize=False)
        super().__init__(side, None, None, seed, changes_maps=True)
        self.original = program
        self.wanted = dict(wanted)
        self.failing = failing
        self.clock = time.thread_time
        self.showing = _Timed(side, self.inputs, deadline)
        self.attempts: dict[Wanted, int] = {}
        self.witnesses: dict[Wanted, Witness] = {}

    def is_over(self) -> bool:
        return not self.wanted

    def note_fault(self, fault: ExecutionError, batch: Batch) -> None:
        for key, test in [*self.wanted.items()]:
            if test(fault) and self.attempts.get(key, 0) < MOST_ATTEMPTS:
                self.attempts[key] = self.attempts.get(key, 0) + 1
                shown = self.showing.reproduced(batch, fault.index or 0, _shows(test))
                witness = None if shown is None else self.confirmed(shown, test)
                if witness is not None:
                    self.witnesses[key] = witness
                    del self.wanted[key]

    def confirmed(self, shown: Shown, test: Callable[[ExecutionError], bool]) -> Witness | None:
        """Return what the interpreter says of it, None where it does not end so there."""
        maps = {}
        if shown.contents is not self.side.start:
            start = {map_.definition.name: entries for map_, entries in self.side.start}
            maps = {
                map_.definition.name: entries
                for map_, entries in shown.contents
                if entries != start[map_.definition.name]
            }
        data = [each.data for each in shown.samples]
        contexts = [dict(each.fields) for each in shown.samples]
        witness = Witness(data, contexts, ExecutionError(""), maps, self.failing)
        try:
            witness.run(self.original, limit=self.side.limit)
        except ExecutionError as error:
            if test(error):
                witness.error = error.with_traceback(None)
                return witness
        except EbpfError:
            pass
        return None


def _shows(test: Callable[[ExecutionError], bool]) -> Shows:
    def shows(side: Side, sample: Sample) -> bool:
        try:
            side.verdict(sample)
        except ExecutionError as error:
            return test(error)
        except EbpfError:
            pass
        return False

    return shows
