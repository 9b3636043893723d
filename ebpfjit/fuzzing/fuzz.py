"""`fuzz`: packets that find what is wrong with a program, in batches of machine code, guided by branches.

pool -> 1,024 changed packets -> counted machine code -> a branch that went a new way? -> which packet -> pool
-> comparisons that were not met (steer.py)      -> a fault, a forbidden verdict, another version's verdict?
-> again alone, made small (shrink.py) -> Finding
"""

from __future__ import annotations

import random
import time
from array import array
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import field
from functools import partial
from itertools import groupby
from typing import Any, NamedTuple

from ebpfjit.difftest.inputs import compared_with
from ebpfjit.errors import ExecutionError, InputError
from ebpfjit.fuzzing.batches import Batch, Mutator
from ebpfjit.fuzzing.contexts import Fields
from ebpfjit.fuzzing.engines import Engines
from ebpfjit.fuzzing.features import Features
from ebpfjit.fuzzing.finding import Finding, plain
from ebpfjit.fuzzing.predicate import OF_RESULT, Predicate
from ebpfjit.fuzzing.samples import Inputs, Sample, Sizes
from ebpfjit.fuzzing.shrink import MOST_TRIES, shrunk, shrunk_list, shrunk_sequence, without_fields
from ebpfjit.fuzzing.side import FAULT, ROWS, Side, counting
from ebpfjit.fuzzing.state import Contents, Entry, Held
from ebpfjit.fuzzing.steer import steered
from ebpfjit.program import Program
from ebpfjit.record import dataclass

LIMIT = 1_000_000
"""Instructions of a run, where nobody says: what takes more is a finding."""
FRESH, FEW = 128, 16
"""Packets that are made anew at a time, and where each is run slowly."""
MOST_FINDINGS = 64
VERDICT, DIFFERENCE, ENGINES = ("verdict",), ("difference",), ("engines",)
"""What is reported once."""
PATIENCE, PATIENT_BATCHES = 16, 128
"""How often something is met that only shows behind other samples, or how many batches go by, before it is
noted so: looking for it alone puts maps back, and it may need what they held.
"""
MOST_AGAIN = 1024
"""How often the same sample is run until it shows something."""
ENGINES_EVERY = 50
"""Batches of which one has engines compared on one of its packets, besides those that went new ways."""
TRIES_BEHIND = 400
"""How often a sample is made smaller, where a try takes long."""


@dataclass
class Report:
    """What a run found, and how far it came: so many `runs`, `kept` packets that went new ways.

    For programs without packets these are the bytes of a context, or memory. `contexts` are fields of the
    context, for each of those kept. `refused` runs did not begin, since no context has such fields.
    `reached` of `instructions` were executed, `ways` of `all_ways` of branches gone. `worst` is the packet of
    those kept that took most instructions, `worst_cost` how many.
    """

    findings: list[Finding] = field(default_factory=list)
    runs: int = 0
    faults: int = 0
    refused: int = 0
    kept: list[bytes] = field(default_factory=list)
    contexts: list[dict[str, Any]] = field(default_factory=list)
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
        said |= {"kept": plain(self.kept), "contexts": plain(self.contexts), "worst": self.worst.hex()}
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
    sizes: Sizes | None = None,
    compare_engines: bool = False,
    progress: Callable[[Report], None] = lambda report: None,
) -> Report:
    """Look for packets on which a program faults, a predicate does not hold, or another version differs.

    Programs without packets are given the bytes of their context's struct, with fields that are no part of
    them; those without a type memory: of the struct that their function takes, or up to 128 bytes. `sizes`
    (least, most) says otherwise of packets and memory.

    It ends after `seconds`, or so many `runs`, or with Ctrl-C, with the report so far. `packets` (or structs,
    or memories) are what it starts from, besides those of its own. A run that takes more than `limit`
    instructions is a finding. Maps are a copy of the program's: runs change them, and where `changes_maps`
    so does the fuzzer, as if others had filled them, but for those that `check` names. `against` has its own.
    The program's own maps stay as they are. Where engines are compared, what goes a new way is run by the
    interpreter and in machine code, and some of the rest.

    Raises InputError for another version of another type, and for sizes that the program's runs cannot have;
    an EbpfError for a program that cannot be run here, ValueError for a limit that is none.
    """
    if against is not None and against.type != program.type:
        raise InputError(f"the other version is of type {against.type}, not {program.type}")
    predicate = Predicate(check) if isinstance(check, str) else check
    other = Side(against, limit) if against is not None else None
    fuzzer = Fuzzer(Side(program, limit), predicate, other, seed, changes_maps=changes_maps, sizes=sizes)
    if compare_engines and fuzzer.side.engine == "jit":
        fuzzer.engines = Engines(program, limit)
    given = [fuzzer.inputs.sample(bytes(each)) for each in packets]
    return fuzzer.run(given, seconds, runs, progress)


Key = tuple[object, ...]
"""What was found: its kind, and of a fault what and where."""
Shows = Callable[[Side, Sample], bool]


class Shown(NamedTuple):
    """Samples, one after the other on maps with these contents: the last of them shows something."""

    samples: list[Sample]
    contents: Contents


@dataclass
class Waiting:
    """What samples behind others show, and how often it was met since."""

    shown: Shown
    shows: Shows
    note: Callable[[Shown], None]
    since: int
    """The number of its batch."""
    count: int = 0


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
        sizes: Sizes | None = None,
    ) -> None:
        self.rng = random.Random(seed)
        self.predicate = predicate
        self.side, self.other = side, other
        self.engines: Engines | None = None
        self.waiting: dict[Key, Waiting] = {}
        self.said = ""
        """How versions differed, where they were looked at last."""
        self.inputs = Inputs(side.program, sizes)
        self.actions: Mapping[int, str] = {} if self.inputs.type is None else self.inputs.type.actions
        self.changes_maps = changes_maps
        if predicate is not None:  # what it judges by is what runs leave
            side.maps.leave(predicate.maps)
        self.mutator = Mutator(seed, _constants(side.program), self.inputs)
        self.pool: list[Sample] = []
        self.queue: list[Sample] = []
        """Those that are tried next: steered ones."""
        self.report = Report()
        self.known: set[Key] = set()
        self.features = Features(side.programs)
        self.seen = self.features.gone()
        self.snapshot: Contents = self.side.start
        self.since: list[Batch] = []
        self.batches = 0
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
            for key in [*self.waiting]:
                self.settle(key)
        except KeyboardInterrupt:
            report.interrupted = True
        report.seconds = self.clock() - start
        report.kept = [each.data for each in self.pool]
        report.contexts = [each.context or {} for each in self.pool]
        self.sum_up()
        return report

    @property
    def watches(self) -> bool:
        """True where runs are looked at one by one."""
        return self.predicate is not None and self.predicate.needs_state and VERDICT not in self.known

    def is_over(self) -> bool:
        """Return whether nothing more is looked for."""
        return len(self.report.findings) >= MOST_FINDINGS

    def next_batch(self, number: int) -> Batch:
        """Return what is tried next."""
        if number % self.span == 0:
            self.new_span(number)
        if self.queue:
            return self.from_queue()
        if not self.pool or number % (4 if self.watches else 16) == 1:  # then making one costs little beside
            return Batch.of(self.fresh())
        recent = self.pool[-8:] if self.rng.random() < 0.4 else self.pool
        is_fast = self.side.rows() == ROWS  # but where runs are given fields: few of those
        has_fields = bool(self.inputs.usual) or (
            bool(self.inputs.read) and (number % 8 == 3 if is_fast else number % 2 == 1)
        )
        rows = self.side.rows(with_fields=has_fields)
        rows = FEW if is_fast and rows != ROWS else rows
        changed = self.mutator.batch([each.data for each in recent], rows)
        if not has_fields and not self.inputs.is_linked:
            return changed
        samples = [self.inputs.sample(changed.packet(index), self.fields(recent)) for index in range(rows)]
        return Batch.of(samples)

    def fields(self, recent: Sequence[Sample]) -> Fields:
        """Return fields for a run: new ones, or those of one that was kept."""
        if self.rng.random() < 0.5:
            return self.inputs.contexts(self.rng)
        return self.rng.choice(recent).fields

    def fresh(self) -> list[Sample]:
        """Return some that are made anew."""
        count = FEW if self.side.rows() != ROWS else 4 * FRESH if self.watches else FRESH
        return [self.inputs.fresh(self.rng) for _ in range(count)]

    def from_queue(self) -> Batch:
        """Return the first ones that wait, all with fields or all without."""
        with_fields = bool(self.queue[0].fields)
        rows = self.side.rows(with_fields=with_fields)
        chosen, others = list[Sample](), list[Sample]()
        for each in self.queue:
            (chosen if bool(each.fields) is with_fields and len(chosen) < rows else others).append(each)
        self.queue = others
        return Batch.of(chosen)

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
        verdicts = self.watched(batch, faults) if self.watches else self.side.verdicts(batch, faults)
        report.runs += len(batch)
        refused = sum(isinstance(fault, InputError) for fault in faults)
        report.refused += refused
        report.faults += len(faults) - refused
        self.look_for_ways(batch)
        for fault in faults:
            if isinstance(fault, ExecutionError):
                self.note_fault(fault, batch)
        self.look_at_verdicts(batch, verdicts)
        if self.other is not None:
            self.look_for_differences(batch, verdicts)
        self.batches += 1
        for key in [key for key, each in self.waiting.items() if self.batches - each.since > PATIENT_BATCHES]:
            self.settle(key)
        if self.batches % ENGINES_EVERY == 1:
            self.look_at_engines([batch.sample(self.rng.randrange(len(batch)))], self.snapshot)

    # -- what is new --

    def look_for_ways(self, batch: Batch) -> None:
        """Keep the packets of a batch with which a branch went a new way."""
        new = self.features.gone() - self.seen
        if not new:
            return
        if not self.side.all_told:  # branches behind faults that nobody told seem to have been taken
            self.features.begin()
        else:
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
                self.seen |= gone
                self.keep(sample)
                if not waiting:
                    return

    def keep(self, sample: Sample) -> None:
        """Change a sample further from now on; those that comparisons ask for are tried next."""
        self.pool.append(sample)
        if len(sample.data) < self.inputs.most:  # what is behind it may be reached with more bytes
            longer = sample.data.ljust(min(2 * len(sample.data) + 16, self.inputs.most), b"\0")
            self.queue.append(self.inputs.sample(longer, sample.fields))
        self.look_at_engines([sample], self.snapshot)
        self.compare_data(sample)
        with counting():  # faults are counted in any case
            if self.changes_maps:
                self.side.maps.observe(sample)
            self.queue += steered(self.side.program, sample, self.features.open(self.seen), self.inputs)

    # -- what is wrong --

    def note_fault(self, fault: ExecutionError, batch: Batch) -> None:
        """Report a fault, if it is the first of its kind at its place."""
        kind, place = type(fault).__name__, (fault.program, fault.pc)
        key = ("fault", kind, fault.pc, fault.program)
        if self.is_known(key, note=False):
            return
        text = str(fault).removeprefix(f"packet {fault.index}: ")

        def shows(side: Side, sample: Sample) -> bool:
            try:
                side.verdict(sample)
            except ExecutionError as error:
                return (type(error).__name__, (error.program, error.pc)) == (kind, place)
            except InputError:
                pass
            return False

        def note(shown: Shown) -> None:
            self.look_at_engines(shown.samples, shown.contents)
            made = self.finding("fault", self.told_of(shown) or text, shown)
            made.pc, made.line, made.fault = fault.pc, fault.line or "", kind
            if fault.program != self.side.program.name:
                made.program = fault.program or ""
                made.text += f"; in program {made.program!r}, which was tail-called"

        self.show(key, batch, fault.index or 0, shows, note)

    def finding(self, kind: str, text: str, shown: Shown) -> Finding:
        """Return a finding, which is in the report from now on."""
        data = [each.data for each in shown.samples]
        contexts = [dict(each.fields) for each in shown.samples]
        entries, cleared = self.named(shown.contents)
        made = Finding(kind, text, data, entries, contexts if any(contexts) else [], cleared=cleared)
        made.frames, made.limit = self.inputs.frames, self.side.limit
        self.report.findings.append(made)
        return made

    def told_of(self, shown: Shown) -> str:
        """Return how the last of the samples ends, as text: its fault, or its verdict."""
        said = ""

        def note(side: Side, sample: Sample) -> bool:
            nonlocal said
            try:
                value = side.verdict(sample)
            except (ExecutionError, InputError) as error:
                said = str(error)
            else:
                said = f"the verdict is {self.actions.get(value & 0xFFFFFFFF) or value}"
            return True

        self.shows_on(shown.contents, shown.samples, note)
        return said

    def look_at_verdicts(self, batch: Batch, verdicts: array[int]) -> None:
        """Report the first verdict that the predicate forbids."""
        predicate = self.predicate
        if predicate is None or predicate.needs_state or (not predicate.is_cheap and VERDICT in self.known):
            return
        if predicate.is_cheap:
            new = set(verdicts) - self.verdict_holds.keys() - {FAULT}
            for value in new:
                self.verdict_holds[value] = predicate.holds(self.told(self.side, value, b""))
            if all(self.verdict_holds.get(value, True) for value in set(verdicts)):
                return
        for index, value in enumerate(verdicts):
            if value == FAULT:
                continue
            if predicate.is_cheap:
                holds = self.verdict_holds[value]
            else:
                packet = batch.sample(index).packet
                holds = self.judged(self.told(self.side, value, packet))
            if not holds:
                self.note_verdict(batch, index)
                return

    def watched(self, batch: Batch, faults: list[Any]) -> array[int]:
        """Return the verdicts of a batch whose runs are looked at one by one: what they leave is judged."""
        verdicts, failing = array("Q"), None
        for index in range(len(batch)):
            sample = batch.sample(index)
            try:
                told = self.observed(self.side, sample)
            except (ExecutionError, InputError) as error:
                error.index = index
                faults.append(error)
                verdicts.append(FAULT)
                continue
            verdicts.append(told["return_value"])
            if failing is None and not self.judged(told):
                failing = index
        if failing is not None:
            self.note_verdict(batch, failing)
        return verdicts

    def note_verdict(self, batch: Batch, index: int) -> None:
        """Report a run of which the predicate does not hold, if that can be shown again."""
        assert self.predicate is not None  # it was looked at
        if self.is_known(VERDICT, note=False):
            return
        words = self.predicate.text

        def note(shown: Shown) -> None:
            text = f"{words} does not hold: {self.told_of(shown)}"
            self.finding("verdict", text, shown).predicate = words

        self.show(VERDICT, batch, index, lambda side, each: not self.holds(side, each), note)

    def holds(self, side: Side, sample: Sample) -> bool:
        """Return whether the predicate holds of a run; a fault is a finding of its own."""
        try:
            told = self.observed(side, sample)
        except (ExecutionError, InputError):
            return True
        return self.judged(told)

    def observed(self, side: Side, sample: Sample) -> dict[str, Any]:
        """Run a sample; return what predicates may name. Raises as `Program.run`."""
        assert self.predicate is not None  # it was looked at
        if not self.predicate.needs_result:
            return self.told(side, side.verdict(sample), sample.packet)
        result = side.run(sample)
        told = self.told(side, result.return_value, sample.packet)
        return told | {name: getattr(result, name) for name in OF_RESULT}

    def judged(self, told: dict[str, Any]) -> bool:
        """Return whether the predicate holds of what was told. Raises InputError, which names the packet."""
        assert self.predicate is not None  # it was looked at
        try:
            return self.predicate.holds(told)
        except InputError as error:
            raise InputError(f"{error}; packet {told['packet'].hex()}") from None

    def told(self, side: Side, value: int, packet: bytes) -> dict[str, Any]:
        """Return what predicates may name of a run without what its `Result` alone has."""
        action = self.actions.get(value & 0xFFFFFFFF)
        return {"action": action, "return_value": value, "packet": packet, **side.state}

    def look_at_engines(self, samples: list[Sample], contents: Contents) -> None:
        """Report that engines differ on the last of some samples, unless that is known."""
        engines = self.engines
        if engines is None or ENGINES in self.known:
            return
        text = engines.difference(contents, samples)
        if not text:
            return
        self.is_known(ENGINES)
        *first, last = samples

        def is_still(data: bytes) -> bool:
            return bool(engines.difference(contents, [*first, last.with_data(data)]))

        small = last.with_data(shrunk(last.data, is_still, self.inputs.least, TRIES_BEHIND))
        text = engines.difference(contents, [*first, small]) or text
        self.finding("engines", f"engines differ, {text}", Shown([*first, small], contents))

    def look_for_differences(self, batch: Batch, verdicts: array[int]) -> None:
        """Report the first verdict that is another one in the other version."""
        assert self.other is not None  # it was looked at
        others = self.other.verdicts(batch, [])
        if others == verdicts or self.is_known(DIFFERENCE, note=False):
            return
        for index, (one, two) in enumerate(zip(verdicts, others, strict=True)):
            if one != two:
                self.show(DIFFERENCE, batch, index, self.differs, partial(self.note_difference, self.differs))
                return

    def note_difference(self, differs: Shows, shown: Shown) -> None:
        """Report how the versions differ."""
        if self.shows_on(shown.contents, shown.samples, differs):
            self.finding("difference", f"the versions differ: {self.said}", shown)

    def differs(self, side: Side, sample: Sample) -> bool:
        """Return whether the versions end differently, and note how."""
        assert self.other is not None  # it was looked at
        one, two = self.ending(side, sample), self.ending(self.other, sample)
        self.said = f"{one} here, {two} in the other"
        return one != two

    def leaves_other(self, side: Side, sample: Sample) -> bool:
        """Return whether the versions leave different packets, and note how."""
        assert self.other is not None  # it was looked at
        try:
            one, two = side.run(sample).data, self.other.run(sample).data
        except (ExecutionError, InputError):
            return False
        at = next((at for at, (a, b) in enumerate(zip(one, two, strict=False)) if a != b), None)
        if at is not None:
            self.said = f"byte {at} of the packet is {one[at]:#04x} here, {two[at]:#04x} in the other"
        else:
            self.said = f"{len(one)} bytes of packet here, {len(two)} in the other"
        return one != two

    def compare_data(self, sample: Sample) -> None:
        """Report that the versions leave different packets."""
        if self.other is not None and DIFFERENCE not in self.known:
            shown = self.alone(sample, self.leaves_other)
            if shown is not None:
                self.is_known(DIFFERENCE)
                self.note_difference(self.leaves_other, shown)

    def ending(self, side: Side, sample: Sample) -> str:
        """Return how a run ends: its verdict, or the kind of error."""
        try:
            value = side.verdict(sample)
        except (ExecutionError, InputError) as error:
            return type(error).__name__
        return str(self.actions.get(value & 0xFFFFFFFF) or value)

    def is_known(self, key: Key, *, note: bool = True) -> bool:
        """Return whether such a thing was found before; it is from now on."""
        if key in self.known:
            for finding in self.report.findings:
                if key[0] == finding.kind and (key[0] != "fault" or key[1:3] == (finding.fault, finding.pc)):
                    finding.count += 1
            return True
        if note:
            self.known.add(key)
        return False

    def show(self, key: Key, batch: Batch, index: int, shows: Shows, note: Callable[[Shown], None]) -> None:
        """Note what shows something, made small: one sample, or, where that is not to be had for a while,
        one behind others.
        """
        shown = self.alone(batch.sample(index), shows)
        if shown is not None:
            self.waiting.pop(key, None)
            self.is_known(key)
            note(shown)
            return
        if key not in self.waiting:
            behind = self.behind(batch, index, shows)
            if behind is None:
                return
            self.waiting[key] = Waiting(behind, shows, note, self.batches)
        self.waiting[key].count += 1
        if self.waiting[key].count >= PATIENCE:
            self.settle(key)

    def settle(self, key: Key) -> None:
        """Note what only samples behind others show."""
        waiting = self.waiting.pop(key)
        self.is_known(key)
        waiting.note(self.fewest(waiting.shown, waiting.shows))

    def reproduced(self, batch: Batch, index: int, shows: Shows) -> Shown | None:
        """Return what can be shown again: one sample on maps as they were at first, on maps as they were
        then, or behind others; made small. None where it does not come again.
        """
        shown = self.alone(batch.sample(index), shows)
        if shown is not None:
            return shown
        behind = self.behind(batch, index, shows)
        return None if behind is None else self.fewest(behind, shows)

    def behind(self, batch: Batch, index: int, shows: Shows) -> Shown | None:
        """Return one of a batch behind all those before it, None where it shows nothing there."""
        sequence = [each.sample(i) for each in self.since[:-1] for i in range(len(each))]
        sequence += [batch.sample(i) for i in range(index + 1)]
        return Shown(sequence, self.snapshot) if self.shows_on(self.snapshot, sequence, shows) else None

    def fewest(self, shown: Shown, shows: Shows) -> Shown:
        """Return a sequence of samples made small."""
        contents, samples = shown.contents, shown.samples
        *first, last = samples
        again = self.again(contents, last, shows)
        if again is not None:
            return again
        plain = [*(each for each in first if not each.fields), last]  # those with fields take long
        if len(plain) < len(samples) and self.shows_on(contents, plain, shows):
            samples = plain
        *first, last = shrunk_sequence(samples, lambda each: self.shows_on(contents, each, shows))
        return Shown([*first, self.small(contents, first, last, shows, TRIES_BEHIND)], contents)

    def again(self, contents: Contents, sample: Sample, shows: Shows) -> Shown | None:
        """Return one sample as often as it takes, made small: what counts does. None: it never shows it."""

        def shows_after(count: int) -> bool:
            return self.shows_on(contents, [sample] * count, shows)

        most = next(
            (1 << power for power in range(1, MOST_AGAIN.bit_length()) if shows_after(1 << power)), None
        )
        if most is None:
            return None
        possible = range(most // 2 + 1, most)
        count = possible.start + bisect_left(possible, True, key=shows_after)

        def is_still(data: bytes) -> bool:
            return self.shows_on(contents, [sample.with_data(data)] * count, shows)

        small = sample.with_data(shrunk(sample.data, is_still, self.inputs.least, TRIES_BEHIND))
        return Shown([small] * count, contents)

    def alone(self, sample: Sample, shows: Shows) -> Shown | None:
        """Return what one sample shows that is behind no others, made small; None where it does not."""
        for contents in self.states():
            if self.shows_on(contents, [sample], shows):
                contents = self.fewer(contents, sample, shows)
                return Shown([self.small(contents, [], sample, shows, MOST_TRIES)], contents)
        return None

    def small(
        self, contents: Contents, first: list[Sample], sample: Sample, shows: Shows, tries: int
    ) -> Sample:
        """Return a sample without what is not needed to show it, behind others."""

        def is_still(each: Sample) -> bool:
            return self.shows_on(contents, [*first, each], shows)

        is_fast = self.side.rows(with_fields=bool(sample.fields)) == ROWS
        tries = tries if is_fast else min(tries, TRIES_BEHIND)
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
        """Return contents that are as at the start, but for the entries that a finding needs."""
        if contents is self.side.start:
            return contents
        kept = [(map_, [*entries]) for map_, entries in contents]

        def shows_with(entries: list[Entry], now: list[Entry]) -> bool:
            before, entries[:] = [*entries], now
            if self.shows_on(kept, [sample], shows):
                return True
            entries[:] = before
            return False

        different = [
            (map_, entries)
            for (map_, entries), (_, usual) in zip(kept, self.side.start, strict=True)
            if entries != usual and not shows_with(entries, usual)
        ]
        for map_, entries in different:
            if map_ in self.side.maps.keyed:
                shrunk_list([*entries], partial(shows_with, entries))
        return kept

    def shows_on(self, contents: Contents, samples: Sequence[Sample], shows: Shows) -> bool:
        """Return whether the last of some samples shows it, run one after the other on these maps."""
        self.side.maps.put_back(contents)
        if self.other is not None:
            self.other.maps.put_back(self.translated(contents))
        for _, part in groupby(samples[:-1], lambda each: bool(each.fields)):
            first = Batch.of([*part])
            for side in (self.side, self.other):
                if side is not None:
                    side.verdicts(first, [])
        return shows(self.side, samples[-1])

    def named(self, contents: Contents) -> tuple[dict[str, list[tuple[bytes, Held]]], list[str]]:
        """Return what has to be put into maps, and which are to be made empty before."""
        entries, cleared = dict[str, list[tuple[bytes, Held]]](), list[str]()
        for (map_, now), (_, usual) in zip(contents, self.side.start, strict=True):
            name, keys = map_.definition.name, {key for key, _ in now}
            if any(key not in keys for key, _ in usual):
                cleared.append(name)
                entries[name] = now
            else:
                there = set(usual)
                entries[name] = [each for each in now if each not in there]
        return {name: each for name, each in entries.items() if each}, cleared

    # -- the end --

    def sum_up(self) -> None:
        """Say how far the run came, and which packet costs most."""
        report, features = self.report, self.features
        gone, segments = self.seen, [*features.segments()]
        report.instructions = sum(count for _, count in segments)
        report.reached = sum(count for segment, count in segments if segment in gone)
        report.all_ways = features.ways
        report.ways = sum(what != "segment" for _, what, _ in gone)
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
