"""Every engine, run on the same bytes at the same addresses, in a child process that may crash.

    [Job, ...] -> child -> one dict per Job: engine -> [Outcome, one per input]

A child that dies is reported for the job and engine it was at, and a new one takes up the rest.
"""

from __future__ import annotations

import io
import os
import pickle
import signal
import struct
import subprocess
import sys
import traceback
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any

import ebpfjit.interpreter.machine
import ebpfjit.jit.compiler
from ebpfjit.analysis import verifier
from ebpfjit.analysis.accesses import Promises
from ebpfjit.analysis.verified import Verified, prepare
from ebpfjit.errors import EbpfError
from ebpfjit.interpreter import interpret
from ebpfjit.isa.table import BY_NAME
from ebpfjit.jit.code_buffer import CodeBuffer
from ebpfjit.jit.entry import Compiled, compile_program
from ebpfjit.options import Options
from ebpfjit.program import Instruction, Program
from ebpfjit.runtime.execution import MAX_LOOPS, Execution, HelperFunction, NativeHelper
from ebpfjit.runtime.memory import Region, Stack
from tests.support import warm

TESTS = Path(__file__).parents[1]
ALIGNED_HELPER = TESTS / "conformance" / "aligned_helper.hex"
U64 = (1 << 64) - 1


MACHINE_CODE: dict[str, Options] = {
    "checked": Options(),
    "checked-plain": Options(features=frozenset()),
    "hardened": Options(harden=True),
    "baseline": Options(optimize=False),
    "promised": Options(),
    "audit": Options(audit=True),
    "audit-promised": Options(audit=True),
    "audit-baseline": Options(audit=True, optimize=False),
    "unchecked": Options(checked=False),
    "unchecked-plain": Options(checked=False, features=frozenset()),
    "unchecked-baseline": Options(checked=False, optimize=False),
}
"""Machine code in its variants; "plain" is without what newer CPUs add (BMI2), "promised" code is told how
long memory is, so that fewer checks remain."""

ENGINES = ("interpreter", *MACHINE_CODE)
CHECKED = tuple(name for name in ENGINES if not name.startswith("unchecked"))


def word(name: str, dst: int = 0, src: int = 0, offset: int = 0, imm: int = 0, next_imm: int = 0) -> bytes:
    """Encode the row `name`; fields that the row fixes keep its values."""
    row = BY_NAME[name]
    given = {"dst": dst, "src": src, "offset": offset, "imm": imm, "next_imm": next_imm}
    fixed = {key: value for key in given if isinstance(value := getattr(row, key), int)}
    fields = {**given, **fixed}
    return Instruction(
        0,
        row.opcode,
        fields["dst"],
        fields["src"],
        fields["offset"],
        signed32(fields["imm"]),
        signed32(fields["next_imm"]) if row.is_wide else None,
    ).encode()


def signed32(value: int) -> int:
    """Return the low 32 bits as the number that an imm field holds."""
    return int(struct.unpack("<i", struct.pack("<I", value & 0xFFFFFFFF))[0])


def constant(dst: int, value: int) -> bytes:
    """Encode dst = a 64-bit constant."""
    return word("LDDW", dst, imm=value, next_imm=value >> 32)


def weigh(r1: int, r2: int, r3: int, r4: int, r5: int) -> int:
    """Helper 1: tells every argument and its place."""
    return r1 + 2 * r2 + 4 * r3 + 8 * r4 + 16 * r5


def first(r1: int, r2: int, r3: int, r4: int, r5: int) -> int:
    """Helper 5, as in bpf_conformance: its first argument."""
    return r1


@cache
def aligned() -> NativeHelper:
    """Helper 9: native code that faults where the stack is not aligned (aligned_helper.c)."""
    lines = ALIGNED_HELPER.read_text().splitlines()
    buffer = CodeBuffer(bytes.fromhex("".join(line.partition("#")[0] for line in lines)))
    return NativeHelper(buffer.address, owner=buffer)


KFUNCS: dict[int, HelperFunction] = {70001: weigh}


def helpers() -> dict[int, HelperFunction]:
    """The helpers that every test program may call."""
    return {1: weigh, 5: first, 9: aligned()}


@dataclass(frozen=True)
class Job:
    """A program and the inputs it is run on.

    `inputs` are contents of memory, all of one length; None is a run without memory.
    `references` and `code` may name addresses of it as ("mem", offset). `verify` asks the verifier
    first. `frame_sizes` answers as a stack usage calculator does, by pc. `max_loops` is what may_goto
    has in each frame.
    """

    name: str
    code: bytes
    inputs: tuple[bytes | None, ...] = (None,)
    engines: tuple[str, ...] = ENGINES
    references: dict[int, int | tuple[str, int]] = field(default_factory=dict)
    limit: int | None = 1_000_000
    read_only: bool = False
    verify: bool = True
    frame_sizes: dict[int, int] | None = None
    max_loops: int = MAX_LOOPS


@dataclass(frozen=True)
class Outcome:
    """What one run left: r0 or an error, the memory after, and where memory and stack were.

    `error` is the exception's type and `details` its attributes; "crash" where the process died.
    """

    value: int | None
    memory: bytes = b""
    error: str = ""
    message: str = ""
    details: tuple[tuple[str, Any], ...] = ()
    start: int = 0
    stack_top: int = 0

    @property
    def pc(self) -> int | None:
        """The slot that the error names."""
        return dict(self.details).get("pc")

    def __str__(self) -> str:
        if self.error:
            return f"{self.error} ({self.message})"
        return f"r0 = {self.value:#x}" if self.value is not None else "nothing"


def _failure(error: BaseException, memory: bytes, start: int, top: int) -> Outcome:
    details = tuple(
        sorted((key, value) for key, value in vars(error).items() if isinstance(value, int | str))
    )
    message = str(error) if isinstance(error, EbpfError) else "".join(traceback.format_exception(error)[-3:])
    return Outcome(None, memory, type(error).__name__, message, details, start, top)


class _Runner:
    """Runs one job: the same memory and the same stack for every engine, so pointers compare."""

    def __init__(self, job: Job) -> None:
        self.job = job
        sample = job.inputs[0]
        self.memory = bytearray(sample or b"")
        exposed: Any = memoryview(self.memory).toreadonly() if job.read_only else self.memory
        self.region = Region.of_buffer("mem", exposed)
        self.start = self.region.start if sample else 0
        self.stack = Stack()

    def outcomes(self, engine: str) -> list[Outcome]:
        try:
            run = self._engine(engine)
        except Exception as error:
            return [_failure(error, data or b"", self.start, self.stack.top) for data in self.job.inputs]
        return [self._one(run, data) for data in self.job.inputs]

    def _engine(self, engine: str) -> Callable[[Execution], int]:
        references = {
            pc: value if isinstance(value, int) else self.start + value[1]
            for pc, value in self.job.references.items()
        }
        program = Program(self.job.code, references=references)
        if self.job.verify:
            verifier.check(program)
        sizes = self.job.frame_sizes
        verified: Verified = prepare(program, None if sizes is None else lambda prog, pc: sizes[pc])
        if engine == "interpreter":
            return lambda execution: interpret(verified, execution)
        return _compile(verified, engine, 0 if self.job.read_only else self.region.size).run

    def _one(self, run: Callable[[Execution], int], data: bytes | None) -> Outcome:
        self.memory[:] = data or b""
        self.stack.reset()
        execution = Execution(
            arguments=(self.start, self.region.size),
            regions=[self.region],
            packet=self.region,
            argument=self.region,
            helpers=helpers(),
            kfuncs=KFUNCS,
            limit=self.job.limit,
            stack=self.stack,
        )
        try:
            value = run(execution)
        except Exception as error:
            return _failure(error, bytes(self.memory), self.start, self.stack.top)
        return Outcome(value, bytes(self.memory), start=self.start, stack_top=self.stack.top)


def serve() -> None:
    """Run in the child: read jobs, write (job, engine, outcomes) as each one is done."""
    source, sink = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    jobs: list[tuple[int, Job]] = pickle.load(source)
    for number, job in jobs:
        ebpfjit.interpreter.machine.MAX_LOOPS = ebpfjit.jit.recipe.MAX_LOOPS = job.max_loops
        runner = _Runner(job)
        for engine in job.engines:
            _send(sink, (number, engine, None))
            _send(sink, (number, engine, runner.outcomes(engine)))


def _send(sink: Any, message: object) -> None:
    pickle.dump(message, sink)
    sink.flush()


def run_python(source: str, data: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    """Run Python source in a child that can import this checkout and `support`; `data` is its input."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(TESTS), str(TESTS.parent)])}
    return warm.run([sys.executable, "-c", source], data, env=environment)


def _child(jobs: list[tuple[int, Job]]) -> tuple[list[tuple[int, str, Any]], int, str]:
    """Run jobs in a new child; return its messages, its exit status and its standard error."""
    child = run_python("from support.machines import serve; serve()", pickle.dumps(jobs))
    messages: list[tuple[int, str, Any]] = []
    stream = io.BytesIO(child.stdout)
    while True:
        try:
            messages.append(pickle.load(stream))
        except EOFError:
            break
    return messages, child.returncode, child.stderr.decode(errors="replace")


def run_jobs(jobs: Iterable[Job]) -> list[dict[str, list[Outcome]]]:
    """Run every job on its engines; a crash is the outcome of the job and engine it happened in."""
    numbered = list(enumerate(jobs))
    results: list[dict[str, list[Outcome]]] = [{} for _ in numbered]
    left = numbered
    while left:
        messages, status, errors = _child(left)
        for number, engine, outcomes in messages:
            if outcomes is not None:
                results[number][engine] = outcomes
        if status == 0:
            break
        assert status < 0, f"the child ended with exit status {status}:\n{errors[-3000:]}"
        number, engine, _ = messages[-1]
        reason = signal.Signals(-status).name
        results[number][engine] = [Outcome(None, error="crash", message=reason)] * len(
            numbered[number][1].inputs
        )
        left = _unfinished(numbered, results)
    return results


def _unfinished(
    numbered: list[tuple[int, Job]], results: list[dict[str, list[Outcome]]]
) -> list[tuple[int, Job]]:
    return [
        (number, replace(job, engines=missing))
        for number, job in numbered
        if (missing := tuple(engine for engine in job.engines if engine not in results[number]))
    ]


def machine_code(code: bytes, engine: str = "checked", references: dict[int, int] | None = None) -> Compiled:
    """Compile a program as `engine` does, to look at its listing and its bytes, not to run it."""
    return _compile(prepare(Program(code, references=references or {})), engine, 64)


def _compile(verified: Verified, engine: str, size: int) -> Compiled:
    """Compile a program that will have `size` bytes behind r1."""
    promises = Promises(size if "promised" in engine else 0)
    return compile_program(verified, replace(MACHINE_CODE[engine], promises=promises), helpers(), KFUNCS)
