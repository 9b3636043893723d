"""What Linux says of a program: accepted, or refused with the words of its verifier, and their class.

Programs are loaded in a forked child, a few at a time: a verifier that is wrong may take the process that
asks it along. Maps are made once; an array of programs belongs to the first type that uses it, so each type
has its own.
"""

from __future__ import annotations

import ctypes
import errno
import os
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

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


_CAPABILITY_VERSION = 0x20080522
"""_LINUX_CAPABILITY_VERSION_3: two words of capabilities."""


_FORBIDDEN = Path("/proc/sys/kernel/unprivileged_bpf_disabled")


def unprivileged_reason() -> str | None:
    """Return why Linux cannot be asked as a user without capabilities, None where it can."""
    try:
        return None if int(_FORBIDDEN.read_text()) == 0 else f"{_FORBIDDEN} is not 0"
    except (OSError, ValueError) as error:
        return f"{_FORBIDDEN}: {error}"


def drop_capabilities() -> None:
    """Give up all capabilities of this process, for good. Raises OSError."""
    header = struct.pack("=Ii", _CAPABILITY_VERSION, 0)
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.capset(header, bytes(24)):
        raise OSError(ctypes.get_errno(), "capset")


class Judge:
    """Asks Linux; holds the maps that programs refer to. Raises KernelUnavailable.

    `unprivileged`: it is asked as a user without any capability asks. That takes a system where such users
    may load programs (kernel.unprivileged_bpf_disabled=0).
    """

    def __init__(self, *, unprivileged: bool = False) -> None:
        self._maps: dict[tuple[str, str], int] = {}
        self._owner = KernelMaps()
        self.unprivileged = unprivileged

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
            ended = run_forked(lambda batch=batch: self._each(batch), SECONDS)  # type: ignore[misc]
            answers += ended.value or self._singly(batch)
        return answers

    def _singly(self, batch: Sequence[Sample]) -> Iterator[Answer]:
        """Yield answers where one of a batch ended the process: each program in one of its own."""
        for sample in batch:
            ended = run_forked(lambda sample=sample: self._each([sample]), SECONDS)  # type: ignore[misc]
            yield ended.value[0] if ended.value else _UNKNOWN

    def _each(self, batch: Sequence[Sample]) -> list[Answer]:
        if self.unprivileged:
            drop_capabilities()
        return [self._one(sample) for sample in batch]

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
