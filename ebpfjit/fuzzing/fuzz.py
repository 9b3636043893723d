"""`fuzz`: packets that find what is wrong with a program, in batches of machine code, guided by branches.

pool -> 1,024 changed packets -> counted machine code -> a branch that went a new way? -> which packet -> pool
-> comparisons that were not met (steer.py)      -> a fault, a forbidden verdict, another version's verdict?
-> again alone, made small (shrink.py) -> Finding
"""

from __future__ import annotations

import random
import time
from array import array
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import field
from itertools import groupby
from typing import Any, NamedTuple

from ebpfjit.difftest.guided import compared_with
from ebpfjit.errors import ExecutionError, InputError
from ebpfjit.fuzzing.batches import Batch, Mutator
from ebpfjit.fuzzing.features import Features
from ebpfjit.fuzzing.finding import Finding
from ebpfjit.fuzzing.predicate import Predicate
from ebpfjit.fuzzing.samples import Fields, Inputs, Sample
from ebpfjit.fuzzing.shrink import MOST_TRIES, shrunk, shrunk_sequence, without_fields
from ebpfjit.fuzzing.side import FAULT, ROWS, Side
from ebpfjit.fuzzing.state import Contents, Held
from ebpfjit.fuzzing.steer import steered
from ebpfjit.program import Program
from ebpfjit.record import dataclass
from ebpfjit.runtime import counters
from ebpfjit.runtime.contexts.types import program_type

LIMIT = 1_000_000
"""Instructions of a run, where nobody says: what takes more is a finding."""
FRESH, FEW = 128, 16
"""Packets that are made anew at a time, and where each is run slowly."""
MOST_FINDINGS = 64
TRIES_BEHIND = 400
"""How often a sample is made smaller, where a try takes long."""


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
    other = Side(against, limit) if against is not None else None
    fuzzer = Fuzzer(Side(program, limit), predicate, other, seed, changes_maps=changes_maps)
    return fuzzer.run([Sample(each) for each in packets], seconds, runs, progress)


Shows = Callable[[Side, Sample], bool]


class Shown(NamedTuple):
    """Samples, one after the other on maps with these contents: the last of them shows something."""

    samples: list[Sample]
    contents: Contents


class Fuzzer:
    """The loop: what is tried next, what was new of it, and what is wrong with it."""

    span = 16
    """Batches after which maps are as they were at first, or hold something else."""

    def __init__(
        self,
        side: Side,
        predicate: Predicate | None,
        other: Side | None,
        seed: int,
        *,
        changes_maps: bool,
    ) -> None:
        self.rng = random.Random(seed)
        self.predicate = predicate
        self.side, self.other = side, other
        self.inputs = Inputs(side.program)
        self.actions: Mapping[int, str] = {} if self.inputs.type is None else self.inputs.type.actions
        self.changes_maps = changes_maps
        self.mutator = Mutator(seed, _constants(side.program), self.inputs)
        self.pool: list[Sample] = []
        self.queue: list[Sample] = []
        """Those that are tried next: steered ones."""
        self.report = Report()
        self.known: set[tuple[object, ...]] = set()
        self.found = counters.counters_of(self.side.program.own())
        self.features = Features(self.found)
        self.seen = self.features.gone()
        self.snapshot: Contents = self.side.start
        self.since: list[Batch] = []
        self.verdict_holds: dict[int, bool] = {}
        self.clock: Callable[[], float] = time.monotonic

    # -- the loop --

    def run(
        self,
        given: list[Sample],
        seconds: float | None,
        runs: int | None,
        progress: Callable[[Report], None],
    ) -> Report:
        """Look until time, runs or findings are used up; begin with what is given."""
        report, start = self.report, self.clock()
        try:
            self.queue = [*given, *self.inputs.first(), *self.fresh()]
            number = 0
            while not self.is_over():
                if runs is not None and report.runs >= runs:
                    break
                if seconds is not None and self.clock() - start >= seconds:
                    break
                left = None if runs is None else runs - report.runs
                self.take(self.next_batch(number).first(left))
                number += 1
                progress(report)
        except KeyboardInterrupt:
            report.interrupted = True
        report.seconds = self.clock() - start
        report.kept = [each.data for each in self.pool]
        self.sum_up()
        return report

    def is_over(self) -> bool:
        """Return whether nothing more is looked for."""
        return len(self.report.findings) >= MOST_FINDINGS

    def next_batch(self, number: int) -> Batch:
        """Return what is tried next."""
        if number % self.span == 0:
            self.new_span(number)
        if self.queue:
            return self.from_queue()
        if not self.pool or number % 16 == 1:
            return Batch.of([each.data for each in self.fresh()])
        recent = self.pool[-8:] if self.rng.random() < 0.4 else self.pool
        fields: Fields = ()
        if self.inputs.read and number % 4 == 3:
            fields = self.rng.choice((self.inputs.contexts(self.rng), self.rng.choice(recent).fields))
        changed = self.mutator.batch([each.data for each in recent], self.side.rows(fields))
        changed.fields = fields
        return changed

    def fresh(self) -> list[Sample]:
        """Return some that are made anew."""
        count = FRESH if self.side.rows() == ROWS else FEW
        return [self.inputs.fresh(self.rng) for _ in range(count)]

    def from_queue(self) -> Batch:
        """Return the first ones that wait and have the same fields."""
        fields, rows = self.queue[0].fields, self.side.rows(self.queue[0].fields)
        same, others = list[Sample](), list[Sample]()
        for each in self.queue:
            (same if each.fields == fields and len(same) < rows else others).append(each)
        self.queue = others
        return Batch.of([each.data for each in same], fields)

    def new_span(self, number: int) -> None:
        """Have maps hold what they did at the start, or something else."""
        maps = self.side.maps
        if maps:
            maps.put_back(self.side.start)
            if self.changes_maps and number % (2 * self.span):
                maps.change(self.rng, [each.data for each in self.pool], number // (2 * self.span))
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
            sample = batch.sample(index)
            before = {feature: self.features.count(feature) for feature in waiting}
            with suppress(ExecutionError, InputError):
                self.side.verdict(sample)
            gone = {feature for feature, count in before.items() if self.features.count(feature) > count}
            if gone:
                waiting -= gone
                self.keep(sample)
                if not waiting:
                    return

    def keep(self, sample: Sample) -> None:
        """Change a sample further from now on; those that comparisons ask for are tried next."""
        self.pool.append(sample)
        if self.changes_maps:
            self.side.maps.observe(sample)
        program, open_branches = self.side.program, self.features.open(self.seen)
        self.queue += steered(program, sample, open_branches, self.inputs)

    # -- what is wrong --

    def note_fault(self, fault: ExecutionError, batch: Batch) -> None:
        """Report a fault, if it is the first of its kind at its place."""
        kind = type(fault).__name__
        key = ("fault", kind, fault.pc)
        if self.is_known(key):
            return
        text = str(fault).removeprefix(f"packet {fault.index}: ")

        def shows(side: Side, sample: Sample) -> bool:
            try:
                side.verdict(sample)
            except ExecutionError as error:
                return type(error).__name__ == kind and error.pc == fault.pc
            except InputError:
                pass
            return False

        shown = self.reproduced(batch, fault.index or 0, shows)
        if shown is not None:
            line = self.side.program.line_at(fault.pc)
            made = self.finding("fault", self.text_of(shown) or text, shown)
            made.pc, made.line, made.fault = fault.pc, "" if line is None else str(line), kind

    def finding(self, kind: str, text: str, shown: Shown) -> Finding:
        """Return a finding, which is in the report from now on."""
        data = [each.data for each in shown.samples]
        contexts = [dict(each.fields) for each in shown.samples]
        made = Finding(kind, text, data, self.named(shown.contents), contexts if any(contexts) else [])
        self.report.findings.append(made)
        return made

    def text_of(self, shown: Shown) -> str:
        """Return the fault's words on the packet that was made small."""
        try:
            for sample in shown.samples:
                self.side.verdict(sample)
        except ExecutionError as error:
            return str(error)
        except InputError:
            pass
        return ""

    def look_at_verdicts(self, batch: Batch, verdicts: array[int]) -> None:
        """Report the first verdict that the predicate forbids."""
        predicate = self.predicate
        if predicate is None:
            return
        if predicate.is_cheap:
            new = set(verdicts) - self.verdict_holds.keys() - {FAULT}
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
            if not predicate.is_cheap and self.holds(self.side, batch.sample(index)):
                continue
            self.is_known(("verdict",))
            shown = self.reproduced(batch, index, lambda side, each: not self.holds(side, each))
            if shown is not None:
                text = f"{predicate.text} does not hold: {self.told_of(shown.samples[-1])}"
                self.finding("verdict", text, shown).predicate = predicate.text
            else:
                self.known.discard(("verdict",))
            return

    def holds(self, side: Side, sample: Sample) -> bool:
        """Return whether the predicate holds of a run; a fault is a finding of its own."""
        predicate = self.predicate
        assert predicate is not None  # it was looked at
        maps: dict[str, Any] = {}
        try:
            if predicate.needs_state:
                result = side.run(sample)
                value, data = result.return_value, result.data
                maps = {each.definition.name: each for each in side.program.maps}
            else:
                value, data = side.verdict(sample), sample.data
        except (ExecutionError, InputError):
            return True
        return self.told(self.values(value, sample.data, data, maps))

    def told(self, values: dict[str, Any]) -> bool:
        """Return whether the predicate holds of these values. Raises InputError, which names the packet."""
        assert self.predicate is not None  # it was looked at
        try:
            return self.predicate.holds(values)
        except InputError as error:
            raise InputError(f"{error}; packet {values['packet'].hex()}") from None

    def values(self, value: int, packet: bytes, data: bytes, maps: dict[str, Any]) -> dict[str, Any]:
        """Return what predicates may name."""
        action = self.actions.get(value & 0xFFFFFFFF)
        return {"action": action, "return_value": value, "packet": packet, "data": data, "maps": maps}

    def told_of(self, sample: Sample) -> str:
        """Return the verdict on a packet as text."""
        try:
            value = self.side.verdict(sample)
        except (ExecutionError, InputError) as error:
            return str(error)
        return f"the verdict is {self.actions.get(value & 0xFFFFFFFF) or value}"

    def look_for_differences(self, batch: Batch, verdicts: array[int]) -> None:
        """Report the first verdict that is another one in the other version."""
        assert self.other is not None  # it was looked at
        others = self.other.verdicts(batch, [])
        if others == verdicts or self.is_known(("difference",), note=False):
            return
        for index, (one, two) in enumerate(zip(verdicts, others, strict=True)):
            if one != two:
                self.is_known(("difference",))
                shown = self.reproduced(batch, index, self.differs)
                if shown is not None:
                    last = shown.samples[-1]
                    verdict = self.ending(self.side, last), self.ending(self.other, last)
                    text = f"the versions differ: {verdict[0]} here, {verdict[1]} in the other"
                    self.finding("difference", text, shown)
                else:
                    self.known.discard(("difference",))
                return

    def differs(self, side: Side, sample: Sample) -> bool:
        """Return whether the versions end differently."""
        assert self.other is not None  # it was looked at
        return self.ending(side, sample) != self.ending(self.other, sample)

    def ending(self, side: Side, sample: Sample) -> str:
        """Return how a run ends: its verdict, or the kind of error."""
        try:
            value = side.verdict(sample)
        except (ExecutionError, InputError) as error:
            return type(error).__name__
        return str(self.actions.get(value & 0xFFFFFFFF) or value)

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

    def reproduced(self, batch: Batch, index: int, shows: Shows) -> Shown | None:
        """Return what can be shown again: one sample on maps as they were at first, on maps as they were
        then, or behind others; made small. None where it does not come again.
        """
        sample = batch.sample(index)
        for contents in self.states():
            if self.shows_on(contents, [sample], shows):
                small = self.small(contents, [], sample, shows, MOST_TRIES)
                return Shown([small], self.fewer(contents, small, shows))
        before = [each.sample(i) for each in self.since[:-1] for i in range(len(each))]
        before += [batch.sample(i) for i in range(index)]
        sequence = [*before, sample]
        if not self.shows_on(self.snapshot, sequence, shows):
            return None
        sequence = shrunk_sequence(sequence, lambda each: self.shows_on(self.snapshot, each, shows))
        first = sequence[:-1]
        return Shown([*first, self.small(self.snapshot, first, sample, shows, TRIES_BEHIND)], self.snapshot)

    def small(
        self, contents: Contents, first: list[Sample], sample: Sample, shows: Shows, tries: int
    ) -> Sample:
        """Return a sample without what is not needed to show it, behind others."""

        def is_still(each: Sample) -> bool:
            return self.shows_on(contents, [*first, each], shows)

        tries = tries if self.side.rows(sample.fields) == ROWS else min(tries, TRIES_BEHIND)
        sample = without_fields(sample, is_still)
        fields, inputs = sample.fields, self.inputs
        return Sample(
            shrunk(sample.data, lambda data: is_still(Sample(data, fields)), inputs.least, tries), fields
        )

    def states(self) -> Iterator[Contents]:
        """Yield what maps may hold when it is shown."""
        yield self.side.start
        if self.snapshot is not self.side.start:
            yield self.snapshot

    def fewer(self, contents: Contents, sample: Sample, shows: Shows) -> Contents:
        """Return contents without the entries that a finding does not need."""
        if contents is self.side.start:
            return contents
        kept = [(map_, [*entries]) for map_, entries in contents]
        for map_, entries in kept:
            for entry in [*entries] if map_ in self.side.maps.keyed else ():
                entries.remove(entry)
                if not self.shows_on(kept, [sample], shows):
                    entries.append(entry)
        return kept

    def shows_on(self, contents: Contents, samples: Sequence[Sample], shows: Shows) -> bool:
        """Return whether the last of some samples shows it, run one after the other on these maps."""
        self.side.maps.put_back(contents)
        if self.other is not None:
            self.other.maps.put_back(self.translated(contents))
        for fields, part in groupby(samples[:-1], lambda each: each.fields):
            first = Batch.of([each.data for each in part], fields)
            for side in (self.side, self.other):
                if side is not None:
                    side.verdicts(first, [])
        return shows(self.side, samples[-1])

    def named(self, contents: Contents) -> dict[str, list[tuple[bytes, Held]]]:
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
        for sample in self.pool:
            before = features.cost()
            with suppress(ExecutionError, InputError):
                self.side.verdict(sample)
            cost = features.cost() - before
            if cost > report.worst_cost:
                report.worst, report.worst_cost = sample.data, cost


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
