"""Our verdict and Linux's of the same programs, held against each other.

sample -> Linux: accepted, or a class of reason
       -> ours:  accepted, refused, undecided   -> Pair.side   "both accept", "ours only", ...
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from ebpfjit.difftest.verdicts.linux import Answer, Judge
from ebpfjit.difftest.verdicts.sample import Sample
from ebpfjit.difftest.verdicts.words import JUDGED
from ebpfjit.verifier.verdict import Verdict

BOTH_ACCEPT, BOTH_REFUSE, OURS_ONLY, LINUX_ONLY = "both accept", "both refuse", "ours only", "Linux only"
UNDECIDED, NO_ANSWER = "undecided", "no answer of Linux"
SIDES = (BOTH_ACCEPT, BOTH_REFUSE, OURS_ONLY, LINUX_ONLY, UNDECIDED, NO_ANSWER)
"""How two verdicts lie to each other; "ours only": we accept what Linux refuses."""

LIMIT = 200_000
"""Instructions that our walk takes at most: what needs more is not decided."""


@dataclass(frozen=True, slots=True)
class Pair:
    """Both verdicts of a program; `number` is its seed, `seconds` what ours took."""

    number: int
    sample: Sample
    linux: Answer
    ours: Verdict
    seconds: float

    @property
    def side(self) -> str:
        """One of SIDES."""
        if self.linux.reason is not None and self.linux.reason.name == "unknown":
            return NO_ANSWER
        if self.ours.status == "undecided":
            return UNDECIDED
        if self.ours.is_accepted:
            return BOTH_ACCEPT if self.linux.accepted else OURS_ONLY
        return LINUX_ONLY if self.linux.accepted else BOTH_REFUSE

    @property
    def reason(self) -> str:
        """The class of Linux's refusal, "accepted" where there is none."""
        return "accepted" if self.linux.reason is None else self.linux.reason.name

    def __str__(self) -> str:
        linux = self.linux.reason.words if self.linux.reason is not None else "accepted"
        ours = self.ours.reason or "; ".join(str(each) for each in self.ours.errors[:1]) or "accepted"
        return f"{self.number}: {self.side} ({self.sample.type})\n  Linux: {linux}\n  ours:  {ours}"


def pairs(judge: Judge, samples: Sequence[tuple[int, Sample]], limit: int = LIMIT) -> Iterator[Pair]:
    """Yield both verdicts of each program, of the user that the judge asks as."""
    answers = judge.ask([sample for _, sample in samples])
    for (number, sample), answer in zip(samples, answers, strict=True):
        program = sample.program()
        before = time.process_time()
        ours = program.verify(limit=limit, seconds=0, unprivileged=judge.unprivileged)
        yield Pair(number, sample, answer, ours, time.process_time() - before)


@dataclass(slots=True)
class Figures:
    """What came of many programs: how many of each class of Linux's and side, and what ours cost."""

    count: Counter[tuple[str, str]] = field(default_factory=Counter)
    visited: int = 0
    seconds: float = 0.0

    def add(self, pair: Pair) -> None:
        """Count one program."""
        self.count[pair.reason, pair.side] += 1
        self.visited += pair.ours.visited
        self.seconds += pair.seconds

    def total(self, reasons: Iterable[str], sides: Iterable[str] = SIDES) -> int:
        """Return how many programs are of these classes and sides."""
        sides = set(sides)
        return sum(self.count[reason, side] for reason in reasons for side in sides)

    @property
    def accepted(self) -> float:
        """The share of what Linux accepts that we accept, 0 to 1."""
        return _share(self.total(["accepted"], [BOTH_ACCEPT]), self.total(["accepted"]))

    @property
    def refused(self) -> float:
        """The share of what Linux refuses for memory, null, type or termination that we refuse, 0 to 1."""
        return _share(self.total(JUDGED, [BOTH_REFUSE]), self.total(JUDGED))

    @property
    def speed(self) -> float:
        """Instructions that our walk visits in a second of processor time."""
        return self.visited / self.seconds if self.seconds else 0.0


def _share(part: int, whole: int) -> float:
    return part / whole if whole else 1.0
