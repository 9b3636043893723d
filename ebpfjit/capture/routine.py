"""What is done to each packet, as eBPF: on machine code where there is some, else on the interpreter."""

from __future__ import annotations

import struct
from collections.abc import Callable
from importlib import resources
from typing import Any

from ebpfjit.errors import JitUnavailable
from ebpfjit.once import once
from ebpfjit.program import Program
from ebpfjit.runtime.counters import OURS
from ebpfjit.runtime.memory import address_of
from ebpfjit.vm import EbpfVmMbuff

_DATA = struct.Struct("<2Q")
Routine = Callable[[Any, bytearray], int]


def run(name: str, data: memoryview, work: bytearray) -> int:
    """Run a routine on a window of a capture, whose address and size it puts in front of the work."""
    _DATA.pack_into(work, 0, address_of(data), data.nbytes)
    return _routine(name)(data, work)


@once
def _routine(name: str) -> Routine:
    code = resources.files("ebpfjit.capture").joinpath("routines", f"{name}.bin").read_bytes()
    machine = EbpfVmMbuff(Program(code, name=name, origin=OURS))
    try:
        machine.jit_compile()
    except JitUnavailable:
        return machine.execute_program
    return machine.execute_program_jit
