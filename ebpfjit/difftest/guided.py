"""Inputs for one program, guided by coverage: those that reach something new are kept, and changed further.

seeds -> pool -> pick one, change it -> interpreter -> new slots? -> pool, and all engines compared
"""

from __future__ import annotations

import random
import struct
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, field, replace

from ebpfjit.difftest import frames
from ebpfjit.difftest.case import Case, Input
from ebpfjit.difftest.compare import compare_program
from ebpfjit.difftest.finding import examine
from ebpfjit.difftest.reach import FAULTED, Reached, Sum, instructions_of, reach
from ebpfjit.isa.spec import Kind
from ebpfjit.program import Program
from ebpfjit.record import dataclass
from ebpfjit.runtime.contexts.packet import LINK_HEADER_SIZE
from ebpfjit.runtime.contexts.types import program_type

BATCH = 64
"""Inputs that one child runs."""
SEEDS = 32
LARGEST = 1024
"""Bytes of an input that grows."""
ODD = (0, 1, 2, 4, 6, 8, 0x10, 0x11, 0x40, 0x45, 0x7F, 0x80, 0x81, 0xFE, 0xFF)
LIMIT = 1_000_000
MOST_DIFFERENT = 8
"""Inputs on which engines differ, of which all is told."""


@dataclass(frozen=True, slots=True)
class Fault:
    """A fault that inputs lead to: its class, the pc, its text, and the smallest input so far."""

    kind: str
    pc: int | None
    text: str
    given: bytes
    count: int = 1

    def as_json(self) -> dict[str, object]:
        """Return the fault as JSON has it."""
        return {**asdict(self), "given": self.given.hex()}


@dataclass
class GuidedReport:
    """What a run found: what became of inputs, which were kept, faults, and where engines differ."""

    seed: int
    sum: Sum
    tried: int = 0
    kept: list[bytes] = field(default_factory=list)
    faults: dict[tuple[str, int | None], Fault] = field(default_factory=dict)
    differences: list[tuple[bytes, str]] = field(default_factory=list)
    compared: int = 0
    seconds: float = 0.0
    interrupted: bool = False

    @property
    def found(self) -> bool:
        """True where a fault or a difference was found."""
        return bool(self.faults or self.differences)

    def as_json(self) -> dict[str, object]:
        """Return the report as JSON has it."""
        return {
            "seed": self.seed,
            "inputs": self.tried,
            "kept": [each.hex() for each in self.kept],
            **self.sum.as_json(),
            "compared": self.compared,
            "faults": [each.as_json() for each in self.faults.values()],
            "differences": [{"input": given.hex(), "text": text} for given, text in self.differences],
            "seconds": round(self.seconds, 3),
            "interrupted": self.interrupted,
        }


def least_size(type_: str | None) -> int:
    """Return how many bytes an input of a program type has at least."""
    if type_ is None:
        return 0
    known = program_type(type_)
    return LINK_HEADER_SIZE if known.has_packet else known.data_size or 0


def fixed_size(type_: str | None) -> int | None:
    """Return how many bytes each input has, None where they may differ."""
    return None if type_ is None or program_type(type_).has_packet else program_type(type_).data_size


def make_input(rng: random.Random, type_: str | None) -> bytes:
    """Return an input for a program of a type: a packet, the bytes of a context, or any bytes."""
    if type_ is not None and program_type(type_).has_packet:
        return frames.frame(rng)
    size = fixed_size(type_)
    return rng.randbytes(rng.randrange(129) if size is None else size)


def fuzz_program(
    program: Program | Case,
    *,
    engines: Sequence[str],
    seed: int = 1,
    seconds: float | None = None,
    inputs: int | None = None,
    given: Sequence[bytes] = (),
    progress: Callable[[GuidedReport], None] = lambda report: None,
) -> GuidedReport:
    """Look for inputs that reach more of a program, fault, or have engines differ.

    It ends after so many `seconds`, or `inputs`; `given` are inputs to start from. Maps are as they are for
    each batch of 64 inputs, which follow each other on them; an input on which something was found does so
    on maps as they are. Ctrl-C ends it with the report so far.
    """
    fuzzer = _Fuzzer(program, engines, random.Random(seed))
    report = GuidedReport(seed, Sum(total=instructions_of(program)))
    start = time.monotonic()
    try:
        fuzzer.take(report, [*given, *(make_input(fuzzer.rng, fuzzer.type) for _ in range(SEEDS))])
        while not _is_over(report, start, seconds, inputs):
            left = BATCH if inputs is None else min(BATCH, inputs - report.tried)
            fuzzer.take(report, [fuzzer.changed() for _ in range(left)])
            progress(report)
    except KeyboardInterrupt:
        report.interrupted = True
    report.seconds = time.monotonic() - start
    return report


def _is_over(report: GuidedReport, start: float, seconds: float | None, inputs: int | None) -> bool:
    if inputs is not None:
        return report.tried >= inputs
    return seconds is not None and time.monotonic() - start >= seconds


class _Fuzzer:
    """The pool of inputs, and how they are changed."""

    def __init__(self, program: Program | Case, engines: Sequence[str], rng: random.Random) -> None:
        self.program = program
        self.engines = tuple(engines)
        self.rng = rng
        self.type = None if isinstance(program, Case) else program.type
        self.pool: list[bytes] = []
        self.constants = _constants(program)
        self.least, self.fixed = least_size(self.type), fixed_size(self.type)

    def take(self, report: GuidedReport, inputs: Sequence[bytes]) -> None:
        """Run inputs; keep those that reach something new, and compare engines on them."""
        for given, one in zip(inputs, reach(self.program, [_input(each) for each in inputs]), strict=True):
            report.tried += 1
            is_new = report.sum.is_new(one)
            report.sum.add(one)
            if is_new:
                self.pool.append(given)
                report.kept.append(given)
                self._compare(report, given)
            if one.how == FAULTED and _note(report, one, given):
                self._compare(report, given)

    def _compare(self, report: GuidedReport, given: bytes) -> None:
        """Compare engines on one input, unless many were found to differ."""
        if len(self.engines) < 2 or len(report.differences) >= MOST_DIFFERENT:
            return
        report.compared += 1
        text = ""
        if isinstance(self.program, Case):
            problem = examine(replace(self.program, inputs=(_input(given),)), self.engines)
            text = "" if problem is None else problem.text
        else:
            compared = compare_program(self.program, [_input(given)], self.engines)
            text = "" if compared.agree else str(compared)
        if text:
            report.differences.append((given, text))

    def changed(self) -> bytes:
        """Return an input of the pool, changed a little; now and then one that is new."""
        rng = self.rng
        if not self.pool or rng.random() < 0.05:
            return make_input(rng, self.type)
        data = bytearray(self._chosen())
        for _ in range(rng.choice((1, 1, 1, 2, 3, 5))):
            rng.choice(self._changes)(self, data)
        if self.fixed is not None:
            return bytes(data[: self.fixed].ljust(self.fixed, b"\0"))
        return bytes(data[:LARGEST].ljust(self.least, b"\0"))

    def _chosen(self) -> bytes:
        """Return an input of the pool; the latest ones are more likely."""
        index = int(len(self.pool) * self.rng.random() ** 0.5)
        return self.pool[min(index, len(self.pool) - 1)]

    def _flip(self, data: bytearray) -> None:
        if data:
            data[self.rng.randrange(len(data))] ^= 1 << self.rng.randrange(8)

    def _byte(self, data: bytearray) -> None:
        if data:
            data[self.rng.randrange(len(data))] = self.rng.choice((*ODD, self.rng.randrange(256)))

    def _constant(self, data: bytearray) -> None:
        """Write a number that the program compares with, in either order of bytes."""
        if not self.constants:
            return self._byte(data)
        size = self.rng.choice((1, 2, 2, 4, 8))
        number = self.rng.choice(self.constants) + self.rng.choice((0, 0, 0, 1, -1))
        raw = (number & (1 << 8 * size) - 1).to_bytes(size, self.rng.choice(("little", "big")))
        if len(data) >= size:
            at = self.rng.randrange(len(data) - size + 1)
            data[at : at + size] = raw
        return None

    def _shorten(self, data: bytearray) -> None:
        del data[self.rng.randrange(len(data) + 1) :]

    def _lengthen(self, data: bytearray) -> None:
        at = self.rng.randrange(len(data) + 1)
        data[at:at] = self.rng.randbytes(self.rng.choice((1, 2, 4, 8, 40)))

    def _splice(self, data: bytearray) -> None:
        """Go on as another input does."""
        at = self.rng.randrange(len(data) + 1)
        data[at:] = self._chosen()[at:]

    _changes = (_flip, _byte, _byte, _constant, _constant, _constant, _shorten, _lengthen, _splice)


def _input(data: bytes) -> Input:
    return Input(data, LIMIT)


def _note(report: GuidedReport, one: Reached, given: bytes) -> bool:
    """Note a fault; True for the first of its kind at its pc."""
    key = one.kind, one.pc
    known = report.faults.get(key)
    if known is None:
        report.faults[key] = Fault(one.kind, one.pc, one.text, given)
        return True
    smaller = given if len(given) < len(known.given) else known.given
    report.faults[key] = replace(known, count=known.count + 1, given=smaller)
    return False


def compared_with(program: Program) -> set[int]:
    """Return the numbers that a program compares with: what an input has to hold to go another way."""
    branches = (
        insn for insn in program.instructions if insn.row is not None and insn.row.kind is Kind.BRANCH
    )
    return {insn.imm for insn in branches if insn.row is not None and not insn.row.uses_src}


def _constants(program: Program | Case) -> tuple[int, ...]:
    """Return those numbers, and as they are in network order."""
    found = compared_with(Program.from_bytes(program.code))
    swapped = {struct.unpack(">H", struct.pack("<H", number & 0xFFFF))[0] for number in found}
    return tuple(sorted(found | swapped))
