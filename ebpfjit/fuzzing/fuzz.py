"""`fuzz`: packets that find what is wrong with a program, in batches of machine code, guided by branches.

pool -> 1,024 changed packets -> counted machine code -> a branch that went a new way? -> which packet -> pool
-> comparisons that were not met (steer.py)      -> a fault, a forbidden verdict, another version's verdict?
-> again alone, made small (shrink.py) -> Finding
"""

from __future__ import annotations

import copy
import random
import time
from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence, Set
from contextlib import suppress
from dataclasses import field
from functools import partial
from typing import Any

from ebpfjit.coverage.shape import shape_of
from ebpfjit.difftest.frames import frame
from ebpfjit.difftest.guided import compared_with
from ebpfjit.engines import best_engine
from ebpfjit.errors import ExecutionError, InputError
from ebpfjit.fuzzing.batches import Batch, Mutator
from ebpfjit.fuzzing.finding import Finding
from ebpfjit.fuzzing.predicate import Predicate
from ebpfjit.fuzzing.shrink import shrunk, shrunk_sequence
from ebpfjit.fuzzing.state import Contents, Maps
from ebpfjit.fuzzing.steer import steered
from ebpfjit.program import Program
from ebpfjit.record import dataclass
from ebpfjit.runtime import counters
from ebpfjit.runtime.contexts.packet import LINK_HEADER_SIZE
from ebpfjit.runtime.contexts.types import program_type

LIMIT = 1_000_000
"""Instructions of a run, where nobody says: what takes more is a finding."""
FRESH = 128
"""Packets that are made anew at a time."""
SPAN = 16
"""Batches after which maps are as they were at the start of the span."""
MOST_FINDINGS = 64
Feature = tuple[str, int]
_FAULT = (1 << 64) - 0xF417
"""What stands for a fault among verdicts."""


@dataclass
class Report:
    """What a run found, and how far it came: so many `runs`, `kept` packets that went new ways.

    `reached` of `instructions` were executed, `ways` of `all_ways` of branches gone. `worst` is the packet of
    those kept that took most instructions, `worst_cost` how many.
    """

    findings: list[Finding] = field(default_factory=list)
    runs: int = 0
    faults: int = 0
    kept: list[bytes] = field(default_factory=list)
    reached: int = 0
    instructions: int = 0
    ways: int = 0
    all_ways: int = 0
    seconds: float = 0.0
    worst: bytes = b""
    worst_cost: int = 0
    interrupted: bool = False

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON has it."""
        said = dict(self.__dict__)
        said |= {"kept": [each.hex() for each in self.kept], "worst": self.worst.hex()}
        return {**said, "findings": [each.to_json() for each in self.findings]}


def fuzz(
    program: Program,
    *,
    check: str | Predicate | None = None,
    against: Program | None = None,
    seconds: float | None = None,
    runs: int | None = None,
    seed: int = 1,
    packets: Iterable[bytes] = (),
    limit: int = LIMIT,
    changes_maps: bool = True,
    progress: Callable[[Report], None] = lambda report: None,
) -> Report:
    """Look for packets on which a program faults, a predicate does not hold, or another version differs.

    It ends after `seconds`, or so many `runs`, or with Ctrl-C, with the report so far. `packets` are what it
    starts from, besides frames of its own. Maps are a copy of the program's: runs change them, and where
    `changes_maps` so does the fuzzer, as if others had filled them. `against` has its own. The program's own
    maps stay as they are.

    Raises InputError for a program that is given no packets, or one that cannot be run here.
    """
    if program.type is None or not program_type(program.type).has_packet:
        raise InputError(f"{program.name or 'the program'} is given no packets: its type is {program.type}")
    if against is not None and against.type != program.type:
        raise InputError(f"the other version is of type {against.type}, not {program.type}")
    predicate = Predicate(check) if isinstance(check, str) else check
    counters.start()
    try:
        fuzzer = _Fuzzer(program, predicate, against, seed, limit, changes_maps=changes_maps)
        return fuzzer.run(list(packets), seconds, runs, progress)
    finally:
        counters.stop()


class _Side:
    """A copy of a program with maps of its own: in machine code, where that is to be had."""

    def __init__(self, program: Program, limit: int) -> None:
        self.program = copy.deepcopy(program)
        self.limit = limit
        self.compiled = self.program.compile(limit=limit, optimize=True) if best_engine() == "jit" else None
        self.maps = Maps(self.program)
        self.start = self.maps.contents()

    def verdict(self, packet: bytes) -> int:
        """Run a packet; raises as `Program.run`."""
        if self.compiled is not None:
            return self.compiled(bytearray(packet))
        return self.program.run(packet, engine="interpreter", limit=self.limit).return_value

    def verdicts(self, batch: Batch, faults: list[Any]) -> array[int]:
        """Run a batch; faults are added to the list, with their number."""
        if self.compiled is not None:
            return self.compiled.map(
                batch.data, offsets=batch.offsets, lengths=batch.lengths, on_fault=_FAULT, faults=faults
            )
        found = array("Q")
        for index in range(len(batch)):
            try:
                found.append(self.verdict(batch.packet(index)))
            except (ExecutionError, InputError) as error:
                error.index = index
                faults.append(error)
                found.append(_FAULT)
        return found


class _Fuzzer:
    def __init__(
        self,
        program: Program,
        predicate: Predicate | None,
        against: Program | None,
        seed: int,
        limit: int,
        *,
        changes_maps: bool,
    ) -> None:
        self.rng = random.Random(seed)
        self.predicate = predicate
        self.side = _Side(program, limit)
        self.other = _Side(against, limit) if against is not None else None
        self.type = program_type(program.type or "")
        self.changes_maps = changes_maps
        self.mutator = Mutator(seed, _constants(self.side.program), LINK_HEADER_SIZE)
        self.pool: list[bytes] = []
        self.queue: list[bytes] = []
        """Packets that are tried next: steered ones."""
        self.report = Report()
        self.known: set[tuple[object, ...]] = set()
        self.found = counters.counters_of(self.side.program.own())
        self.features = _Features(self.found)
        self.seen = self.features.gone()
        self.snapshot: Contents = self.side.start
        self.since: list[Batch] = []
        self.verdict_holds: dict[int, bool] = {}

    # -- the loop --

    def run(
        self,
        given: list[bytes],
        seconds: float | None,
        runs: int | None,
        progress: Callable[[Report], None],
    ) -> Report:
        report, start = self.report, time.monotonic()
        try:
            self.take(Batch.of([*given, *self.fresh(FRESH)]).first(runs))
            number = 0
            while len(report.findings) < MOST_FINDINGS:
                if runs is not None and report.runs >= runs:
                    break
                if seconds is not None and time.monotonic() - start >= seconds:
                    break
                left = None if runs is None else runs - report.runs
                self.take(self.next_batch(number).first(left))
                number += 1
                progress(report)
        except KeyboardInterrupt:
            report.interrupted = True
        report.seconds = time.monotonic() - start
        report.kept = [*self.pool]
        self.sum_up()
        return report

    def next_batch(self, number: int) -> Batch:
        if number % SPAN == 0:
            self.new_span(number)
        if self.queue:
            queue, self.queue = self.queue[:1024], self.queue[1024:]
            return Batch.of(queue)
        if not self.pool or number % 16 == 1:
            return Batch.of(self.fresh(FRESH))
        recent = self.pool[-8:] if self.rng.random() < 0.4 else self.pool
        return self.mutator.batch(recent)

    def new_span(self, number: int) -> None:
        """Have maps hold what they did at the start, or something else."""
        maps = self.side.maps
        if maps:
            maps.put_back(self.side.start)
            if self.changes_maps and number % (2 * SPAN):
                maps.change(self.rng, self.pool)
                self.snapshot = maps.contents()
            else:
                self.snapshot = self.side.start
        if self.other is not None and self.other.maps:
            self.other.maps.put_back(self.translated(self.snapshot))
        self.since = []

    def translated(self, contents: Contents) -> Contents:
        """Return contents for the other version's maps, by their names."""
        assert self.other is not None  # it was looked at
        by_name = {map_.definition.name: entries for map_, entries in contents}
        return [(map_, by_name.get(map_.definition.name, entries)) for map_, entries in self.other.start]

    def fresh(self, count: int) -> list[bytes]:
        return [frame(self.rng).ljust(LINK_HEADER_SIZE, b"\0") for _ in range(count)]

    def take(self, batch: Batch) -> None:
        """Run a batch; look for what is new and what is wrong."""
        report, faults = self.report, list[Any]()
        self.since.append(batch)
        verdicts = self.side.verdicts(batch, faults)
        report.runs += len(batch)
        report.faults += len(faults)
        self.look_for_ways(batch)
        for fault in faults:
            if isinstance(fault, ExecutionError):
                self.note_fault(fault, batch)
        self.look_at_verdicts(batch, verdicts)
        if self.other is not None:
            self.look_for_differences(batch, verdicts)

    # -- what is new --

    def look_for_ways(self, batch: Batch) -> None:
        """Keep the packets of a batch with which a branch went a new way."""
        new = self.features.gone() - self.seen
        if not new:
            return
        self.seen |= new
        waiting = set(new)
        for index in range(len(batch)):
            packet = batch.packet(index)
            before = {feature: self.features.count(feature) for feature in waiting}
            with suppress(ExecutionError, InputError):
                self.side.verdict(packet)
            gone = {feature for feature, count in before.items() if self.features.count(feature) > count}
            if gone:
                waiting -= gone
                self.pool.append(packet)
                if self.changes_maps:
                    self.side.maps.observe(packet)
                self.queue += steered(self.side.program, packet, self.features.open(self.seen))
                if not waiting:
                    return

    # -- what is wrong --

    def note_fault(self, fault: ExecutionError, batch: Batch) -> None:
        kind = type(fault).__name__
        key = ("fault", kind, fault.pc)
        if self.is_known(key):
            return
        text = str(fault).removeprefix(f"packet {fault.index}: ")

        def shows(side: _Side, packet: bytes) -> bool:
            try:
                side.verdict(packet)
            except ExecutionError as error:
                return type(error).__name__ == kind and error.pc == fault.pc
            except InputError:
                pass
            return False

        made = self.reproduced(batch, fault.index or 0, shows)
        if made is not None:
            line = self.side.program.line_at(fault.pc)
            made.kind, made.text, made.pc = "fault", text, fault.pc
            made.line, made.fault = "" if line is None else str(line), kind
            made.text = self.text_of(made) or text
            self.report.findings.append(made)

    def text_of(self, finding: Finding) -> str:
        """Return the fault's words on the packet that was made small."""
        try:
            for packet in finding.packets:
                self.side.verdict(packet)
        except ExecutionError as error:
            return str(error)
        except InputError:
            pass
        return ""

    def look_at_verdicts(self, batch: Batch, verdicts: array[int]) -> None:
        predicate = self.predicate
        if predicate is None:
            return
        if predicate.is_cheap:
            new = set(verdicts) - self.verdict_holds.keys() - {_FAULT}
            for value in new:
                self.verdict_holds[value] = predicate.holds(self.values(value, b"", b"", {}))
            if all(self.verdict_holds.get(value, True) for value in set(verdicts)):
                return
            indexes: Iterable[int] = (
                index for index, value in enumerate(verdicts) if not self.verdict_holds.get(value, True)
            )
        else:
            indexes = range(len(batch))
        for index in indexes:
            if self.is_known(("verdict",), note=False):
                return
            packet = batch.packet(index)
            if not predicate.is_cheap and self.holds(self.side, packet):
                continue
            self.is_known(("verdict",))
            made = self.reproduced(batch, index, lambda side, each: not self.holds(side, each))
            if made is not None:
                made.kind, made.predicate = "verdict", predicate.text
                made.text = f"{predicate.text} does not hold: {self.shown(made.packet)}"
                self.report.findings.append(made)
            else:
                self.known.discard(("verdict",))
            return

    def holds(self, side: _Side, packet: bytes) -> bool:
        """Return whether the predicate holds of a run; a fault is a finding of its own."""
        predicate = self.predicate
        assert predicate is not None  # it was looked at
        maps: dict[str, Any] = {}
        try:
            if predicate.needs_state:
                result = side.program.run(packet)
                value, data = result.return_value, result.data
                maps = {each.definition.name: each for each in side.program.maps}
            else:
                value, data = side.verdict(packet), packet
        except (ExecutionError, InputError):
            return True
        return self.told(self.values(value, packet, data, maps))

    def told(self, values: dict[str, Any]) -> bool:
        """Return whether the predicate holds of these values. Raises InputError, which names the packet."""
        assert self.predicate is not None  # it was looked at
        try:
            return self.predicate.holds(values)
        except InputError as error:
            raise InputError(f"{error}; packet {values['packet'].hex()}") from None

    def values(self, value: int, packet: bytes, data: bytes, maps: dict[str, Any]) -> dict[str, Any]:
        """Return what predicates may name."""
        action = self.type.actions.get(value & 0xFFFFFFFF)
        return {"action": action, "return_value": value, "packet": packet, "data": data, "maps": maps}

    def shown(self, packet: bytes) -> str:
        """Return the verdict on a packet as text."""
        try:
            value = self.side.verdict(packet)
        except (ExecutionError, InputError) as error:
            return str(error)
        return f"the verdict is {self.type.actions.get(value & 0xFFFFFFFF) or value}"

    def look_for_differences(self, batch: Batch, verdicts: array[int]) -> None:
        assert self.other is not None  # it was looked at
        others = self.other.verdicts(batch, [])
        if others == verdicts or self.is_known(("difference",), note=False):
            return
        for index, (one, two) in enumerate(zip(verdicts, others, strict=True)):
            if one != two:
                self.is_known(("difference",))
                made = self.reproduced(batch, index, self.differs)
                if made is not None:
                    made.kind = "difference"
                    verdict = self.ending(self.side, made.packet), self.ending(self.other, made.packet)
                    made.text = f"the versions differ: {verdict[0]} here, {verdict[1]} in the other"
                    self.report.findings.append(made)
                else:
                    self.known.discard(("difference",))
                return

    def differs(self, side: _Side, packet: bytes) -> bool:
        assert self.other is not None  # it was looked at
        return self.ending(side, packet) != self.ending(self.other, packet)

    def ending(self, side: _Side, packet: bytes) -> str:
        try:
            value = side.verdict(packet)
        except (ExecutionError, InputError) as error:
            return type(error).__name__
        return str(self.type.actions.get(value & 0xFFFFFFFF) or value)

    def is_known(self, key: tuple[object, ...], *, note: bool = True) -> bool:
        """Return whether such a thing was found before; it is from now on."""
        if key in self.known:
            for finding in self.report.findings:
                if key[0] == finding.kind and (key[0] != "fault" or key[1:] == (finding.fault, finding.pc)):
                    finding.count += 1
            return True
        if note:
            self.known.add(key)
        return False

    def reproduced(self, batch: Batch, index: int, shows: Callable[[_Side, bytes], bool]) -> Finding | None:
        """Return a finding that can be shown again: one packet on maps as they were at first, on maps as they
        were then, or behind other packets; made small. None where it does not come again.
        """
        packet = batch.packet(index)
        for contents in self.states():
            if self.shows_on(contents, [packet], shows):
                small = shrunk(packet, partial(self.shows_alone, contents, shows), LINK_HEADER_SIZE)
                return Finding("", "", [small], self.named(self.fewer(contents, small, shows)))
        before = [each.packet(i) for each in self.since[:-1] for i in range(len(each))]
        before += [batch.packet(i) for i in range(index)]
        sequence = [*before, packet]
        if not self.shows_on(self.snapshot, sequence, shows):
            return None
        sequence = shrunk_sequence(sequence, lambda each: self.shows_on(self.snapshot, each, shows))
        first = sequence[:-1]
        last = shrunk(
            packet,
            lambda each: self.shows_on(self.snapshot, [*first, each], shows),
            LINK_HEADER_SIZE,
            tries=400,
        )
        sequence = [*first, last]
        return Finding("", "", sequence, self.named(self.snapshot))

    def states(self) -> Iterator[Contents]:
        yield self.side.start
        if self.snapshot is not self.side.start:
            yield self.snapshot

    def fewer(self, contents: Contents, packet: bytes, shows: Callable[[_Side, bytes], bool]) -> Contents:
        """Return contents without the entries that a finding does not need."""
        if contents is self.side.start:
            return contents
        kept = [(map_, [*entries]) for map_, entries in contents]
        for map_, entries in kept:
            for entry in [*entries] if map_ in self.side.maps.keyed else ():
                entries.remove(entry)
                if not self.shows_on(kept, [packet], shows):
                    entries.append(entry)
        return kept

    def shows_alone(self, contents: Contents, shows: Callable[[_Side, bytes], bool], packet: bytes) -> bool:
        """Return whether one packet shows it on these maps."""
        return self.shows_on(contents, [packet], shows)

    def shows_behind(self, first: list[bytes], shows: Callable[[_Side, bytes], bool], packet: bytes) -> bool:
        """Return whether a packet shows it behind others."""
        return self.shows_on(self.snapshot, [*first, packet], shows)

    def shows_on(
        self, contents: Contents, packets: Sequence[bytes], shows: Callable[[_Side, bytes], bool]
    ) -> bool:
        """Return whether the last of some packets shows it, run one after the other on these maps."""
        self.side.maps.put_back(contents)
        if self.other is not None:
            self.other.maps.put_back(self.translated(contents))
        if len(packets) > 1:
            first = Batch.of(packets[:-1])
            for side in (self.side, self.other):
                if side is not None:
                    side.verdicts(first, [])
        return shows(self.side, packets[-1])

    def named(self, contents: Contents) -> dict[str, list[tuple[bytes, bytes]]]:
        """Return what has to be put into maps: nothing where they are as at the start."""
        if contents is self.side.start:
            return {}
        start = {map_.definition.name: set(entries) for map_, entries in self.side.start}
        different = {
            map_.definition.name: [each for each in entries if each not in start[map_.definition.name]]
            for map_, entries in contents
        }
        return {name: entries for name, entries in different.items() if entries}

    # -- the end --

    def sum_up(self) -> None:
        """Say how far the run came, and which packet costs most."""
        report, features = self.report, self.features
        gone, segments = features.gone(), features.shape.segments
        report.instructions = sum(count for _, count in segments)
        report.reached = sum(count for word, count in segments if ("segment", word) in gone)
        report.all_ways = 2 * len(features.branches)
        report.ways = sum(what != "segment" for what, _ in gone)
        for packet in self.pool:
            before = features.cost()
            with suppress(ExecutionError, InputError):
                self.side.verdict(packet)
            cost = features.cost() - before
            if cost > report.worst_cost:
                report.worst, report.worst_cost = packet, cost


class _Features:
    """What may be new of a run, since this was made, each a pair.

    ("segment", word)   instructions that are executed one after the other
    ("taken", slot)     the branch there goes this way; ("passed", slot): the other
    """

    def __init__(self, found: counters.Counters) -> None:
        self.found = found
        self.before = list(found.words)
        self.shape = shape_of(found.program)
        self.branches = {pc: (segment, passed) for pc, segment, passed in self.shape.branches}

    def count(self, feature: Feature) -> int:
        """Return how often a feature was so."""
        what, place = feature
        if what == "segment":
            return self.executed(place)
        segment, passed = self.branches[place]
        return self.executed(passed) if what == "passed" else self.executed(segment) - self.executed(passed)

    def executed(self, word: int) -> int:
        """Return what was added to a word."""
        added: int = self.found.words[word] - self.before[word]
        return added

    def gone(self) -> set[Feature]:
        """Return the features of all runs."""
        executed = self.executed
        found: set[Feature] = {("segment", word) for word, _ in self.shape.segments if executed(word)}
        for pc, segment, passed in self.shape.branches:
            not_taken = executed(passed)
            if not_taken:
                found.add(("passed", pc))
            if executed(segment) > not_taken:
                found.add(("taken", pc))
        return found

    def open(self, seen: Set[Feature]) -> frozenset[int]:
        """Return the branches that went one way only."""
        return frozenset(pc for pc in self.branches if (("taken", pc) in seen) != (("passed", pc) in seen))

    def cost(self) -> int:
        """Return how many instructions were executed so far, as if none faulted."""
        words = self.found.words
        return sum([words[word] * count for word, count in self.shape.segments])


def _constants(program: Program) -> list[bytes]:
    """Return the numbers that a program compares with, and those next to them, as bytes in either order."""
    found: dict[bytes, None] = {}
    for compared in sorted(compared_with(program)):
        for number in (compared, compared + 1, compared - 1):
            unsigned = number & 0xFFFFFFFF
            size = 1 if unsigned < 256 else 2 if unsigned < 1 << 16 else 4
            found[unsigned.to_bytes(size, "little")] = None
            found[unsigned.to_bytes(max(size, 2), "big")] = None
    return list(found)
