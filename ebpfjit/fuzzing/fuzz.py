"""`fuzz`: packets that find what is wrong with a program, in batches of machine code, guided by branches.

supply.py: 1,024 changed packets -> counted machine code -> a branch that went a new way? -> which one?
-> it is changed further, comparisons that were not met are tried (steer.py)
-> a fault, a forbidden verdict (judge.py), another one in another version (versions.py)?
   -> again alone, made small (showing.py) -> Finding
"""

from __future__ import annotations

import time
from array import array
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from typing import Any

from ebpfjit.errors import EbpfError, ExecutionError, InputError
from ebpfjit.failures import are_raised
from ebpfjit.fuzzing.batches import Batch
from ebpfjit.fuzzing.engines import Engines
from ebpfjit.fuzzing.features import Features
from ebpfjit.fuzzing.finding import Finding
from ebpfjit.fuzzing.judge import Judge
from ebpfjit.fuzzing.predicate import Predicate
from ebpfjit.fuzzing.report import Report
from ebpfjit.fuzzing.samples import Inputs, Sample, Sizes
from ebpfjit.fuzzing.showing import TRIES_BEHIND, Showing, Shown, Shows
from ebpfjit.fuzzing.shrink import shrunk
from ebpfjit.fuzzing.side import Side, counting
from ebpfjit.fuzzing.state import Contents
from ebpfjit.fuzzing.steer import steered
from ebpfjit.fuzzing.supply import Supply
from ebpfjit.fuzzing.versions import Versions
from ebpfjit.program import Program
from ebpfjit.record import dataclass

LIMIT = 1_000_000
"""Instructions of a run, where nobody says: what takes more is a finding."""
MOST_FINDINGS = 64
Key = tuple[object, ...]
"""What was found: its kind, and of a fault what and where."""
VERDICT, DIFFERENCE, ENGINES = ("verdict",), ("difference",), ("engines",)
"""What is reported once."""
PATIENCE, PATIENT_BATCHES = 16, 128
"""How often something is met that only shows behind other samples, or how many batches go by, before it is
noted so: looking for it alone puts maps back, and it may need what they held.
"""
ENGINES_EVERY = 50
"""Batches of which one has engines compared on one of its packets, besides those that went new ways."""


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

    It ends after `seconds`, or so many `runs`, or with Ctrl-C, or an error of our own in making inputs (which
    EBPFJIT_FAILURES=raise raises), with the report so far. `packets` (or structs,
    or memories) are what it starts from, besides those of its own. A run that takes more than `limit`
    instructions is a finding. Maps are a copy of the program's: runs change them, and where `changes_maps` so
    does the fuzzer, as if others had filled them, but for those that `check` names. `against` has its own.
    The program's own maps stay as they are. The same `seed` has the same inputs. With `compare_engines`, what
    goes a new way is run by the interpreter and in machine code, and some of the rest. `progress` is called
    with the report now and then.

    Raises InputError for another version of another type, for verdicts that the type does not have, and for
    sizes that the program's runs cannot have; an EbpfError for a program that cannot be run here, ValueError
    for a limit that is none.
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


@dataclass
class Waiting:
    """What samples behind others show, and how often it was met since."""

    shown: Shown
    shows: Shows
    note: Callable[[Shown], None]
    since: int
    """The number of its batch."""
    count: int = 0


class _MakingError(Exception):
    """An error of our own where inputs are made; its text is one line."""


@contextmanager
def _making() -> Iterator[None]:
    """Have an error of our own end the run, and not lose what it found."""
    try:
        yield
    except EbpfError:
        raise
    except Exception as error:
        if are_raised():
            raise
        said = " ".join(str(error).split())
        raise _MakingError(f"inputs could not be made: {type(error).__name__}: {said}") from error


class Fuzzer:
    """The loop: what is new of what was tried, and what is wrong with it."""

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
        self.side = side
        self.inputs = Inputs(side.program, sizes)
        self.actions = {} if self.inputs.type is None else self.inputs.type.actions
        self.judge = None if predicate is None else Judge(predicate, self.actions)
        self.versions = None if other is None else Versions(other, self.actions)
        self.engines: Engines | None = None
        self.changes_maps = changes_maps
        if predicate is not None:  # what it judges by is what runs leave
            predicate.check_verdicts(self.actions.values(), side.program.type)
            side.maps.leave(predicate.maps)
        self.supply = Supply(side, self.inputs, seed, watches=self.watches)
        self.rng = self.supply.rng
        self.showing = Showing(side, other, self.inputs)
        self.report = Report()
        self.known: set[Key] = set()
        self.waiting: dict[Key, Waiting] = {}
        self.features = Features(side.programs)
        self.seen = self.features.gone()
        self.batches = 0
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
            with _making():
                self.supply.begin(given)
            while not self.is_over():
                if runs is not None and report.runs >= runs:
                    break
                if seconds is not None and self.clock() - start >= seconds:
                    break
                if self.batches % self.span == 0:
                    self.new_span()
                with _making():
                    batch = self.supply.batch(self.batches)
                self.take(batch.first(None if runs is None else runs - report.runs))
                progress(report)
            for key in [*self.waiting]:
                self.settle(key)
        except KeyboardInterrupt:
            report.interrupted = True
        except _MakingError as error:
            report.failure = str(error)
        report.seconds = self.clock() - start
        self.sum_up()
        return report

    @property
    def watches(self) -> bool:
        """True where what a predicate is about tells no verdict alone: each run is looked at."""
        return self.judge is not None and self.judge.predicate.needs_state

    def is_over(self) -> bool:
        """Return whether nothing more is looked for."""
        return len(self.report.findings) >= MOST_FINDINGS

    def new_span(self) -> None:
        """Have maps hold what they did at the start, or something else."""
        maps, number, snapshot = self.side.maps, self.batches // self.span, self.side.start
        if maps:
            maps.put_back(snapshot)
            if self.changes_maps and number % 2:
                maps.change(self.rng, [each.data for each in self.supply.pool], number // 2)
                snapshot = maps.contents()
        self.showing.begin(snapshot)

    def take(self, batch: Batch) -> None:
        """Run a batch; look for what is new and what is wrong."""
        report, faults, forbidden = self.report, list[Any](), None
        self.showing.since.append(batch)
        if self.judge is not None and self.watches and VERDICT not in self.known:
            verdicts, forbidden = self.judge.watched(self.side, batch, faults)
        else:
            verdicts = self.side.verdicts(batch, faults)
        report.runs += len(batch)
        refused = sum(isinstance(fault, InputError) for fault in faults)
        report.refused += refused
        report.faults += len(faults) - refused
        if forbidden is not None:
            self.note_verdict(batch, forbidden)
        self.supply.brought(new=self.look_for_ways(batch))
        for fault in faults:
            if isinstance(fault, ExecutionError):
                self.note_fault(fault, batch)
        self.look_at_verdicts(batch, verdicts)
        self.look_for_differences(batch, verdicts)
        self.batches += 1
        for key in [key for key, each in self.waiting.items() if self.batches - each.since > PATIENT_BATCHES]:
            self.settle(key)
        if self.batches % ENGINES_EVERY == 1:
            sample = batch.sample(self.rng.randrange(len(batch)))
            self.look_at_engines([sample], self.showing.snapshot)

    # -- what is new --

    def look_for_ways(self, batch: Batch) -> bool:
        """Keep the packets of a batch with which a branch went a new way; return whether one did."""
        new = self.features.gone() - self.seen
        if not new:
            return False
        if not self.side.all_told:  # branches behind faults that nobody told seem to have been taken
            self.features.begin()
        else:
            self.seen |= new
        count = self.features.count
        waiting = {feature: count(feature) for feature in new}
        for index in range(len(batch)):
            sample = batch.sample(index)
            with suppress(ExecutionError, InputError):
                self.side.verdict(sample)
            gone = {feature for feature, before in waiting.items() if count(feature) > before}
            if gone:
                self.seen |= gone
                self.keep(sample)
                waiting = {feature: count(feature) for feature in waiting.keys() - gone}
                if not waiting:
                    break
        return True

    def keep(self, sample: Sample) -> None:
        """Change a sample further from now on; those that comparisons ask for are tried next."""
        self.supply.keep(sample)
        self.look_at_engines([sample], self.showing.snapshot)
        self.compare_packets(sample)
        with counting(), _making():  # faults are counted in any case
            if self.changes_maps:
                self.side.maps.observe(sample)
            self.supply.queue += steered(
                self.side.program, sample, self.features.open(self.seen), self.inputs
            )

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

    def look_at_verdicts(self, batch: Batch, verdicts: array[int]) -> None:
        """Report the first verdict that the predicate forbids."""
        judge = self.judge
        if judge is None or self.watches or (not judge.predicate.is_cheap and VERDICT in self.known):
            return
        failing = judge.failing(self.side, batch, verdicts)
        if failing is not None:
            self.note_verdict(batch, failing)

    def note_verdict(self, batch: Batch, index: int) -> None:
        """Report a run of which the predicate does not hold, if that can be shown again."""
        judge = self.judge
        assert judge is not None  # it was asked
        if self.is_known(VERDICT, note=False):
            return
        words = judge.predicate.text

        def note(shown: Shown) -> None:
            text = f"{words} does not hold: {self.told_of(shown)}"
            self.finding("verdict", text, shown).predicate = words

        self.show(VERDICT, batch, index, judge.forbids, note)

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
        versions = self.versions
        if versions is None:
            return
        index = versions.first_difference(batch, verdicts)
        if index is not None and not self.is_known(DIFFERENCE, note=False):
            shows = versions.end_differently
            self.show(DIFFERENCE, batch, index, shows, partial(self.note_difference, shows))

    def compare_packets(self, sample: Sample) -> None:
        """Report that the versions leave different packets."""
        if self.versions is not None and DIFFERENCE not in self.known:
            shows = self.versions.leave_different_packets
            shown = self.showing.alone(sample, shows)
            if shown is not None:
                self.is_known(DIFFERENCE)
                self.note_difference(shows, shown)

    def note_difference(self, differs: Shows, shown: Shown) -> None:
        """Report how the versions differ."""
        assert self.versions is not None  # it was asked
        if self.showing.shows_on(shown.contents, shown.samples, differs):
            self.finding("difference", f"the versions differ: {self.versions.said}", shown)

    # -- what becomes a finding --

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
        """Note what shows something, made small: one sample, once or again and again on maps as they were at
        first, or, where neither is to be had for a while, one behind others.
        """
        sample, showing = batch.sample(index), self.showing
        shown = showing.alone(sample, shows)
        if shown is None and key not in self.waiting:
            shown = showing.again(self.side.start, sample, shows)
        if shown is not None:
            self.waiting.pop(key, None)
            self.is_known(key)
            note(shown)
            return
        if key not in self.waiting:
            behind = showing.behind(batch, index, shows)
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
        waiting.note(self.showing.fewest(waiting.shown, waiting.shows))

    def finding(self, kind: str, text: str, shown: Shown) -> Finding:
        """Return a finding, which is in the report from now on."""
        data = [each.data for each in shown.samples]
        contexts = [dict(each.fields) for each in shown.samples]
        entries, cleared = self.showing.named(shown.contents)
        made = Finding(kind, text, data, entries, contexts if any(contexts) else [], cleared=cleared)
        made.frames, made.limit = self.inputs.frames, self.side.limit
        made.handlers = self.side.handlers
        made.other_handlers = [] if self.versions is None else self.versions.other.handlers
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

        self.showing.shows_on(shown.contents, shown.samples, note)
        return said

    # -- the end --

    def sum_up(self) -> None:
        """Say how far the run came, and which packet costs most."""
        report, features, pool = self.report, self.features, self.supply.pool
        report.kept = [each.data for each in pool]
        report.contexts = [each.context or {} for each in pool]
        gone, segments = self.seen, [*features.segments()]
        report.instructions = sum(count for _, count in segments)
        report.reached = sum(count for segment, count in segments if segment in gone)
        report.all_ways = features.ways
        report.ways = sum(what != "segment" for _, what, _ in gone)
        for sample in pool:
            before = features.cost()
            with suppress(ExecutionError, InputError):
                self.side.verdict(sample)
            cost = features.cost() - before
            if cost > report.worst_cost:
                report.worst, report.worst_cost = sample.data, cost
