"""A fuzzing run: programs by number, in child processes, until there are enough or time is up.

    parent      hands out batches of numbers, watches for crashes and hangs, adds up
    children    check programs (`worker.py`), each noting in a mapped file what it runs

Which child runs a program changes nothing: number n of a seed is the same program in every run, and
what children return adds up the same in any order.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import field
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

from ebpfjit.difftest.batch import NOTE_SIZE, Assignment, Batch, BatchResult, Note
from ebpfjit.difftest.case import Case
from ebpfjit.difftest.check import CRASH, HANG
from ebpfjit.difftest.children import processor_seconds, took_too_long
from ebpfjit.difftest.coverage import Coverage
from ebpfjit.difftest.engines import check_engines, default_engines
from ebpfjit.difftest.finding import Finding
from ebpfjit.difftest.sources import FOR_THE_KERNEL, SOURCES, case_of, check_builds, check_sources
from ebpfjit.record import dataclass

BATCH = 40
HANG_SECONDS = 8.0
SHRINK_SECONDS = 120.0
POLL_SECONDS = 0.2
MOST_SHRUNK = 5

PACKAGE_ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True, slots=True)
class Options:
    """What a run does: for `seconds`, or so many `programs`, in `jobs` children.

    Machine code is made in these ways (`builds`, none: the usual ones). It ends early after `stop_at`
    findings. The first `shrink` of them are shrunk; the others are likely the same. A program
    that takes `hang_seconds` of its process's time counts as one that hangs.
    """

    engines: tuple[str, ...] = field(default_factory=default_engines)
    seed: int = 1
    sources: tuple[str, ...] = ()
    corpus: tuple[Case, ...] = ()
    programs: int | None = None
    seconds: float | None = None
    jobs: int = 1
    stop_at: int | None = None
    planted: str = ""
    shrink: int = MOST_SHRUNK
    hang_seconds: float = HANG_SECONDS
    builds: tuple[str, ...] = ()

    def chosen_sources(self) -> tuple[str, ...]:
        """Return the sources asked for; by default those that suit the engines."""
        if self.sources:
            return self.sources
        return FOR_THE_KERNEL if "kernel" in self.engines else tuple(SOURCES)


@dataclass(slots=True)
class FuzzReport:
    """What a run came to.

    `seconds` is how long it took, `first_finding` after how many there was the first finding,
    `interrupted` whether Ctrl-C ended it.
    """

    options: Options
    total: BatchResult = field(default_factory=BatchResult)
    findings: list[Finding] = field(default_factory=list)
    seconds: float = 0.0
    first_finding: float | None = None
    interrupted: bool = False

    @property
    def coverage(self) -> Coverage:
        """What the programs reached."""
        return self.total.coverage

    @property
    def per_core(self) -> float:
        """Programs in a second of processor time."""
        return self.total.programs / self.total.seconds if self.total.seconds else 0.0


class _Child:
    """A child process, its connection, and what it is at."""

    def __init__(self, assignment: Assignment, folder: str, number: int) -> None:
        self.path = os.path.join(folder, f"running_{number}")
        with open(self.path, "wb") as file:
            file.truncate(NOTE_SIZE)
        self.note = Note(self.path)
        ours, theirs = socket.socketpair()
        environment = {**os.environ}
        environment["PYTHONPATH"] = os.pathsep.join(
            [str(PACKAGE_ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
        )
        with theirs:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "ebpfjit.difftest.worker", str(theirs.fileno()), self.path],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                env=environment,
            )
        self.connection = Connection(ours.detach())
        self.connection.send(assignment)
        self.task: Batch | Finding | None = None
        self.ready = False
        self.last: int | None = None  # the program of the task before
        self.count = 0
        self._note_time()

    def _note_time(self) -> None:
        """Start to count the time of what it is at."""
        self.changed, self.used = time.monotonic(), processor_seconds(self.process.pid) or 0.0

    def give(self, task: Batch | Finding) -> None:
        """Send it something to do."""
        self.task = task
        self._note_time()
        self.connection.send(task)

    def hangs(self, seconds: float) -> bool:
        """True where it is at the same program for longer than that."""
        count, _ = self.note.read()
        if count != self.count:
            self.count = count
            self._note_time()
        patience = SHRINK_SECONDS if isinstance(self.task, Finding) else seconds
        return self.task is not None and took_too_long(self.process.pid, self.changed, self.used, patience)

    def end(self) -> int:
        """Kill it and wait; return its exit status."""
        self.connection.close()
        self.process.kill()
        status = self.process.wait()
        self.note.close()
        return status


class Fuzzer:
    """One run. `progress` is called now and then with the totals so far and the findings."""

    def __init__(self, options: Options, progress: Callable[[FuzzReport], None] | None = None) -> None:
        sources = options.chosen_sources()
        check_sources(sources)
        check_engines(options.engines, of_filters=sources == ("classic",) and not options.corpus)
        check_builds(options.builds)
        for case in options.corpus:
            case.check()
        if options.planted:
            from ebpfjit.difftest.planted import bug_named

            bug_named(options.planted)
        self.options = options
        self.progress = progress
        self.report = FuzzReport(options)
        self.assignment = Assignment(
            options.seed,
            options.engines,
            options.chosen_sources(),
            options.corpus,
            options.planted,
            options.builds,
        )
        self._next = 0
        self._again: deque[Batch | Finding] = deque()
        self._children: dict[Connection, _Child] = {}
        self._started = time.monotonic()
        self._started_children = 0
        self._folder = ""

    def run(self) -> FuzzReport:
        """Run to the end, or to Ctrl-C, and return the report; no child is left behind."""
        with tempfile.TemporaryDirectory(prefix="ebpfjit-fuzz-") as self._folder:
            try:
                self._loop(self._next_batch)
                self._shrink()
            except KeyboardInterrupt:
                self.report.interrupted = True
            finally:
                for child in self._children.values():
                    child.end()
                self._children.clear()
        self.report.findings.sort(key=lambda finding: finding.number)
        self.report.seconds = time.monotonic() - self._started
        return self.report

    def _has_enough(self) -> bool:
        """True where there are as many findings as were wanted."""
        stop_at = self.options.stop_at
        return stop_at is not None and len(self.report.findings) >= stop_at

    def _next_batch(self) -> Batch | None:
        """Return the next numbers to run, None where the run is over."""
        options = self.options
        if self._has_enough():
            return None
        if options.seconds is not None and time.monotonic() - self._started >= options.seconds:
            return None
        stop = self._next + BATCH
        if options.programs is not None:
            stop = min(stop, options.programs)
        if self._next >= stop:
            return None
        batch = Batch(self._next, stop)
        self._next = stop
        return batch

    def _shrink(self) -> None:
        """Make the first findings small."""
        self.report.findings.sort(key=lambda finding: finding.number)
        waiting = deque(self.report.findings[: self.options.shrink])
        self._loop(lambda: waiting.popleft() if waiting else None)

    def _loop(self, next_task: Callable[[], Batch | Finding | None]) -> None:
        """Hand out tasks until there are none, and take in what comes back."""
        while True:
            idle = [child for child in self._children.values() if child.ready and child.task is None]
            busy = sum(child.task is not None for child in self._children.values())
            out_of_tasks = False
            while idle or len(self._children) < self.options.jobs:
                task = self._again.popleft() if self._again else next_task()
                if task is None:
                    out_of_tasks = True
                    break
                if idle:
                    idle.pop().give(task)
                    busy += 1
                else:
                    self._again.appendleft(task)
                    self._start()
                    busy += 1
                    break
            if out_of_tasks and not busy and not self._again:
                return
            for connection in wait(list(self._children), POLL_SECONDS):
                assert isinstance(connection, Connection)  # we wait for nothing else
                self._receive(self._children[connection])
            patience = self.options.hang_seconds
            for child in [child for child in self._children.values() if child.hangs(patience)]:
                self._lost(child, hangs=True)
            if self.report.findings and self.report.first_finding is None:
                self.report.first_finding = time.monotonic() - self._started
            if self.progress is not None:
                self.report.seconds = time.monotonic() - self._started
                self.progress(self.report)

    def _start(self) -> None:
        """Start a child; it inherits that Ctrl-C is blocked meanwhile, and leaves it to us."""
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            child = _Child(self.assignment, self._folder, self._started_children)
            self._started_children += 1
            self._children[child.connection] = child
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)

    def _receive(self, child: _Child) -> None:
        """Take in what a child sends, or that it died."""
        try:
            message: Any = child.connection.recv()
        except (EOFError, ConnectionResetError):
            self._lost(child, hangs=False)
            return
        if not child.ready:
            child.ready = True
            return
        task, child.task = child.task, None
        if isinstance(message, BatchResult):
            assert isinstance(task, Batch)  # whose result it is
            child.last = task.stop - 1
            self.report.findings += message.findings
            message.findings = []
            self.report.total.add(message)
        else:
            assert isinstance(task, Finding)  # which comes back shrunk
            child.last = task.number
            self.report.findings[self.report.findings.index(task)] = message

    def _lost(self, child: _Child, *, hangs: bool) -> None:
        """A child died or hangs: the program it was at is a finding, the rest of its batch runs anew.

        One that dies between two programs was left damaged by the program before.
        """
        if not hangs:
            child.process.wait()
        count, _ = child.note.read()
        del self._children[child.connection]
        status = child.end()
        task = child.task
        if isinstance(task, Finding):
            return  # it stays as it is: not shrunk
        is_inside = task is not None and task.first < count <= task.stop  # or the note is an older one
        number = count - 1 if is_inside else child.last
        if number is None:
            raise RuntimeError(f"a child of the fuzzer ended with status {status} before it ran anything")
        nature = HANG if hangs else CRASH
        seen = (
            f"it does not end in {self.options.hang_seconds:g} s"
            if hangs
            else f"the process died of {_signal(status)}" + ("" if is_inside else ", some time after it")
        )
        given = self.assignment
        case = case_of(given.seed, number, given.sources, given.corpus, given.builds)
        self.report.findings.append(Finding(number, nature, seen, case))
        if task is None:
            return
        if not is_inside:
            self._again.append(task)
            return
        self.report.total.programs += 1
        self.report.total.slots += len(case.code) // 8
        for first, stop in ((task.first, number), (number + 1, task.stop)):
            if first < stop and (first < number or not self._has_enough()):
                self._again.append(Batch(first, stop))


def _signal(status: int) -> str:
    return signal.Signals(-status).name if status < 0 else f"exit status {status}"


def fuzz(options: Options, progress: Callable[[FuzzReport], None] | None = None) -> FuzzReport:
    """Run what the options say and return the report.

    Raises UnknownEngine, JitUnavailable, CorpusError, UnknownBug.
    """
    return Fuzzer(options, progress).run()


def save(findings: Sequence[Finding], folder: Path) -> list[Path]:
    """Write a corpus file for each finding that was shrunk; return their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for finding in findings:
        if finding.details:
            path = folder / finding.file_name
            path.write_text(finding.corpus_text(), encoding="utf-8")
            paths.append(path)
    return paths
