"""A program over many packets on the interpreter: what stands in where there is no machine code.

for_batches(program) -> JitFunction, or an Interpreted that is called, and maps, in the same way
"""

from __future__ import annotations

import operator
import warnings
from array import array
from typing import TYPE_CHECKING, cast

from ebpfjit.bits import W64
from ebpfjit.errors import EbpfWarning, ExecutionError, InputError, JitUnavailable
from ebpfjit.named import of_packet
from ebpfjit.once import load_package
from ebpfjit.ready import environment_of, is_plain, ready
from ebpfjit.runner import ENGINES, Run
from ebpfjit.runtime.memory import Region

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from ebpfjit.function import JitFunction
    from ebpfjit.literals import AnyBuffer
    from ebpfjit.program import Program


def for_batches(program: Program, *, optimize: bool | None = None) -> JitFunction | Interpreted:
    """Return a program as a function of packets; where it has to be interpreted an EbpfWarning says why."""
    try:
        return program.compile(optimize=optimize)
    except JitUnavailable as error:
        warnings.warn(f"{error}; the interpreter runs {program.name!r}", EbpfWarning, stacklevel=3)
        return Interpreted(program)


class Interpreted:
    """A function of a packet, fn(mem) -> r0, that the interpreter runs; `map` is that of a JitFunction."""

    def __init__(self, program: Program) -> None:
        self.program = program

    def __call__(self, mem: AnyBuffer = b"") -> int:
        """Run the program and return r0. Raises as `Program.run`.

        As in machine code, what gets plain memory writes it in place.
        """
        if not is_plain(self.program):
            return self.program.run(mem, engine="interpreter").return_value
        this = Run(ENGINES["interpreter"], environment_of(self.program), Region.of_buffer("mem", mem))
        try:
            return this.whole(ready(self.program), None)
        finally:
            this.end()

    def map(
        self,
        buffers: AnyBuffer | Iterable[AnyBuffer],
        *,
        offsets: AnyBuffer | Sequence[int] | None = None,
        lengths: AnyBuffer | Sequence[int] | None = None,
        stride: int | None = None,
        on_fault: int | None = None,
    ) -> array[int]:
        """Run the program on many packets; return all r0 as array("Q").

        Packets are a sequence of buffers (a batch of a capture is one), records of `stride` bytes in a
        buffer, or places in it: `offsets` and `lengths`, or what lies between `offsets`. What faults stops
        it, or gives `on_fault`. Raises ValueError and TypeError as a JitFunction's does.
        """
        load_package("ebpfjit.jit")
        from ebpfjit.jit import batch

        batch.check_options(offsets, lengths, stride, on_fault)
        found, packets = array("Q"), cast("Iterable[AnyBuffer]", buffers)
        if stride is not None:
            there = batch.records(buffers, stride)
            packets = map(there.at, range(there.count))
        elif offsets is not None:
            there = batch.places(buffers, offsets, lengths, natively=False)
            packets = map(there.at, range(there.count))
        for index, packet in enumerate(packets):
            try:
                found.append(self(packet))
            except (ExecutionError, InputError) as error:
                if on_fault is None:
                    of_packet(error, index)
                    raise
                found.append(W64.wrap(operator.index(on_fault)))
            except Exception as error:
                error.add_note(f"packet {index} of the batch")
                raise
        return found
