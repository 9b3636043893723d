"""A run: claims by room, decided one by one or in several processes; what came of them."""

from __future__ import annotations

import importlib
import multiprocessing
import signal
import time
from collections.abc import Callable, Iterator, Sequence

from ebpfjit.errors import EbpfError
from ebpfjit.prove.claims import Claim, Result, Verdict, decide
from ebpfjit.record import dataclass

ROOMS = {
    "ranges": ("range_rules", "range_rules"),
    "verifier": ("verifier_rules", "verifier_rules"),
    "algebra": ("algebra_rules", "algebra_rules"),
    "passes": ("code_rules", "code_rules"),
    "translators": ("stencils", "translators"),
    "values": ("value_stencils", "value_translators"),
    "reductions": ("reductions", "reductions"),
}
"""Where the claims of each room are made: module and function."""
CHUNK = 8

Progress = Callable[[int, int, str], None]
"""progress(done, all, name): so many claims are decided, the last one of this name."""


class ProveError(EbpfError):
    """There is nothing to prove with, or no such room."""


@dataclass(frozen=True)
class Report:
    """What came of claims, in their order, and how many seconds it took."""

    results: tuple[Result, ...]
    seconds: float
    interrupted: bool = False

    def of(self, verdict: Verdict) -> list[Result]:
        """Return the results of a verdict."""
        return [result for result in self.results if result.verdict is verdict]


def claims_of(rooms: Sequence[str]) -> Iterator[Claim]:
    """Yield the claims of rooms. Raises ProveError where one is not there, or Triton is not."""
    for room in rooms:
        if room not in ROOMS:
            raise ProveError(f"no room {room!r}; there are: {', '.join(ROOMS)}")
    for room in rooms:
        module, function = ROOMS[room]
        try:
            found = importlib.import_module(f"ebpfjit.prove.{module}")
        except ModuleNotFoundError as error:
            raise ProveError(f"{error.name} is not there: pip install 'ebpfjit[prove]'") from None
        yield from getattr(found, function)()


def run(claims: Sequence[Claim], seconds: float, jobs: int = 1, progress: Progress | None = None) -> Report:
    """Decide claims, so many seconds for each question; Ctrl-C ends it with those that are decided."""
    start = time.monotonic()
    results: list[Result] = []
    interrupted = False
    try:
        for result in _decided(claims, seconds, jobs):
            results.append(result)
            if progress is not None:
                progress(len(results), len(claims), result.claim.name)
    except KeyboardInterrupt:
        interrupted = True
    return Report(tuple(results), time.monotonic() - start, interrupted)


_work: tuple[Sequence[Claim], float] = ((), 0.0)
"""What children decide: they are forked behind this, as claims are functions."""


def _decided(claims: Sequence[Claim], seconds: float, jobs: int) -> Iterator[Result]:
    global _work
    if jobs == 1:
        yield from (decide(claim, seconds) for claim in claims)
        return
    _work = claims, seconds
    with multiprocessing.get_context("fork").Pool(jobs, _leave_interrupts) as pool:
        for index, found in enumerate(pool.imap(_decide, range(len(claims)), CHUNK)):
            yield Result(claims[index], *found)


def _leave_interrupts() -> None:
    """Have Ctrl-C end the parent only, which ends its children."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _decide(index: int) -> tuple[Verdict, int, float, dict[str, int]]:
    claims, seconds = _work
    found = decide(claims[index], seconds)
    return found.verdict, found.paths, found.seconds, found.against
