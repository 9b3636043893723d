"""A program run once on an engine, with a Result; or compiled into a Python callable.

What `Program.run` and `Program.compile` do.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

from ebpfjit.analysis import verifier
from ebpfjit.analysis.verified import Verified, prepare
from ebpfjit.errors import ExecutionError
from ebpfjit.interpreter import interpret
from ebpfjit.program import Program
from ebpfjit.runtime.execution import Execution, HelperFunction
from ebpfjit.runtime.helpers import stock as helpers
from ebpfjit.runtime.memory import Region, flat_view

if TYPE_CHECKING:
    from ebpfjit.jit.entry import Compiled


@dataclass(frozen=True)
class Result:
    """What a run left behind.

    `return_value` is r0 (u64), `data` the packet after the run, `output` the lines that the
    program printed, `instructions` how many eBPF instructions were executed (interpreter only).
    `context` and `events` are for programs with a context and with perf or ring buffers.
    """

    return_value: int
    data: bytes
    context: Mapping[str, int] = field(default_factory=dict)
    output: tuple[str, ...] = ()
    events: tuple[tuple[str, bytes], ...] = ()
    instructions: int | None = None


class JitFunction:
    """A compiled program that is called like a function: fn(mem) -> r0, or fn() without memory.

    `mem` is a buffer, written in place; r1 is its address and r2 its length. May be called from
    several threads at once.
    """

    def __init__(self, compiled: Compiled, table: Mapping[int, HelperFunction], limit: int | None) -> None:
        self._compiled = compiled
        self._helpers = table
        self._limit = limit

    def __call__(self, mem: Any = b"") -> int:
        """Run the program and return r0, unsigned. Raises ExecutionError for a wrong program."""
        return self._compiled.run(raw_execution(mem, self._helpers, self._limit))

    def listing(self) -> str:
        """Return eBPF, assembly text and bytes side by side."""
        from ebpfjit.jit.listing import render

        return render(self._compiled.listing, self._compiled.image)


def raw_execution(mem: Any, table: Mapping[int, HelperFunction], limit: int | None = None) -> Execution:
    """Return the start of a run on plain memory: r1 its address, r2 its length, 0 where it is empty."""
    region = Region.of_buffer("mem", mem)
    start = region.start if region.size else 0
    return Execution((start, region.size), [region], region, region, helpers=table, limit=limit)


def _collect(lines: list[str], *arguments: int) -> int:
    line = helpers.trace_line(*arguments)
    lines.append(line)
    return len(line) + 1


def stock_helpers(output: list[str]) -> dict[int, HelperFunction]:
    """Return the helpers that every program finds; what they print is appended to `output`."""
    return {
        helpers.BPF_KTIME_GETNS_IDX: helpers.bpf_time_getns,
        helpers.BPF_TRACE_PRINTK_IDX: partial(_collect, output),
    }


def _on_interpreter(verified: Verified, execution: Execution) -> int:
    return interpret(verified, execution)


def _on_machine_code(verified: Verified, execution: Execution) -> int:
    from ebpfjit.jit.entry import compile_program

    return compile_program(verified, helpers=execution.helpers).run(execution)


ENGINES: dict[str, Callable[[Verified, Execution], int]] = {
    "jit": _on_machine_code,
    "interpreter": _on_interpreter,
}


def run(program: Program, data: Any = b"", *, engine: str = "jit", limit: int | None = None) -> Result:
    """Verify a program and run it once on a copy of `data`.

    `engine` is "jit", "interpreter" or "kernel". Raises VerifierError, ExecutionError, or
    JitUnavailable and KernelUnavailable where the engine is not to be had.
    """
    if engine == "kernel":
        return _run_on_kernel(program, data)
    if engine not in ENGINES:
        raise ValueError(f"no engine {engine!r}; there are: {', '.join([*ENGINES, 'kernel'])}")
    _refuse_context(program)
    verifier.check(program)
    verified = prepare(program)
    memory = bytearray(flat_view(data))
    output: list[str] = []
    execution = raw_execution(memory, stock_helpers(output), limit)
    value = ENGINES[engine](verified, execution)
    counted = execution.instructions if engine == "interpreter" else None
    return Result(value, bytes(memory), output=tuple(output), instructions=counted)


def _run_on_kernel(program: Program, data: Any) -> Result:
    from ebpfjit import kernel

    outcome = kernel.run_program(program, bytes(flat_view(data)))
    return Result(outcome.return_value, outcome.data)


def _refuse_context(program: Program) -> None:
    if program.type is not None:
        raise ExecutionError(
            f"program {program.name or '<unnamed>'} is of type {program.type}, whose context this "
            f"version does not make; a machine such as EbpfVmFixedMbuff gives it one by hand"
        )


def compile(
    program: Program,
    *,
    helpers: Mapping[int, HelperFunction] | None = None,
    limit: int | None = None,
    checked: bool = True,
    harden: bool = False,
) -> JitFunction:
    """Verify a program and compile it into a function of one buffer.

    `helpers` maps numbers to functions, `limit` is the instruction limit of each call (positive;
    None: no limit). `checked=False` leaves out all memory checks: a wrong program can then crash
    the process. `harden=True` keeps immediates of the program's choosing out of the machine code
    (two more instructions for each) and puts guard pages around it. Raises VerifierError, or
    JitUnavailable where there is no machine code here.
    """
    from ebpfjit.jit.entry import compile_program

    verifier.check(program)
    table = dict(helpers or {})
    compiled = compile_program(prepare(program), helpers=table, checked=checked, harden=harden)
    return JitFunction(compiled, table, limit)
