"""What Linux says of a program: accepted, or refused with the words of its verifier, and their class.

Programs are loaded in a forked child, a few at a time: a verifier that is wrong may take the process that
asks it along. Maps are made once; an array of programs belongs to the first type that uses it, so each type
has its own.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from ebpfjit.difftest.children import run_forked
from ebpfjit.difftest.verdicts import maps
from ebpfjit.difftest.verdicts.sample import Sample
from ebpfjit.difftest.verdicts.words import Reason, pc_of, reason_of
from ebpfjit.errors import EbpfError
from ebpfjit.kernel import syscalls
from ebpfjit.kernel.loading import kind_of
from ebpfjit.kernel.maps import KernelMaps, with_descriptors
from ebpfjit.kernel.syscalls import LoadAttributes
from ebpfjit.kernel.types import types_of
from ebpfjit.runtime.attach import attachment

BATCH = 64
"""Programs that one child loads."""
SECONDS = 120.0
"""How long a child may take."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What Linux says: `reason` None where it accepts; `log` the end of the verifier's, where it refuses.

    `reason.name` is "unknown" where Linux gave no answer: the process that asked it ended.
    """

    reason: Reason | None
    log: str = ""
    pc: int | None = None

    @property
    def accepted(self) -> bool:
        """True where Linux loads it."""
        return self.reason is None


_UNKNOWN = Answer(Reason("unknown", ""))
_LOG_KEPT, _LOG_SIZE = 1500, 1 << 18


class Judge:
    """Asks Linux; holds the maps that programs refer to. Raises KernelUnavailable."""

    def __init__(self) -> None:
        self._maps: dict[tuple[str, str], int] = {}
        self._owner = KernelMaps()

    def __enter__(self) -> Judge:
        return self

    def __exit__(self, *_: object) -> None:
        self._owner.__exit__(None, None, None)

    def ask(self, samples: Sequence[Sample]) -> list[Answer]:
        """Return what Linux says of each program."""
        answers: list[Answer] = []
        for start in range(0, len(samples), BATCH):
            batch = samples[start : start + BATCH]
            for sample in batch:
                self._prepare(sample)
            ended = run_forked(lambda batch=batch: [self._one(each) for each in batch], SECONDS)  # type: ignore[misc]
            answers += ended.value or self._singly(batch)
        return answers

    def _singly(self, batch: Sequence[Sample]) -> Iterator[Answer]:
        """Yield answers where one of a batch ended the process: each program in one of its own."""
        for sample in batch:
            ended = run_forked(lambda sample=sample: self._one(sample), SECONDS)  # type: ignore[misc]
            yield ended.value or _UNKNOWN

    def _prepare(self, sample: Sample) -> None:
        for name in sample.maps:
            self._fd(sample.type, name)

    def _fd(self, type_: str, name: str) -> int:
        key = maps.of(name, type_)
        if key not in self._maps:
            self._maps[key] = self._owner.descriptor(maps.made(*key))
        return self._maps[key]

    def _one(self, sample: Sample) -> Answer:
        """Load a program. What does not even get there is refused for its structure."""
        try:
            program = sample.program()
            code = with_descriptors(program, [self._fd(sample.type, name) for name in sample.maps])
            kind, types = kind_of(program), types_of(program)
        except EbpfError as error:
            return Answer(Reason("structural", str(error)))
        what = attachment(program.type, program.section)
        attributes = LoadAttributes(
            what.type,
            what.flags | kind.flags,
            btf=types.btf.fd if types is not None else 0,
            functions=types.functions if types is not None else b"",
        )
        result, log = syscalls.load_once(code, kind.number, attributes, 0, 0)
        if result == -errno.E2BIG:  # the million instructions of a log take seconds
            return Answer(reason_of("", errno.E2BIG))
        if result < 0:
            result, log = syscalls.load_once(code, kind.number, attributes, 1, _LOG_SIZE)
        if "verifier bug" in log:  # it gave up by itself
            return _UNKNOWN
        if result < 0:
            return Answer(reason_of(log, -result), log[-_LOG_KEPT:], pc_of(log))
        os.close(result)
        return Answer(None)
