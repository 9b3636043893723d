"""Programs that call kernel functions by name: on both engines, which must agree, and in the kernel.

Texts name kernel functions in braces: call kfunc {bpf_iter_num_new}.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from ebpfjit.assembler import assemble
from ebpfjit.bits import W32
from ebpfjit.errors import EbpfError
from ebpfjit.program import Kfunc, Program
from ebpfjit.runner import Result

PACKET = bytes(12) + b"\x08\x00" + bytes(range(50))


def program_of(text: str, type: str | None = "tc", **fields: Any) -> Program:
    """Return the program of a text, its kernel functions numbered from 1."""
    names = dict.fromkeys(re.findall(r"{(\w+)}", text))
    numbers = {name: number for number, name in enumerate(names, 1)}
    kfuncs = {number: Kfunc(name) for name, number in numbers.items()}
    return Program(assemble(text.format(**numbers)), type=type, kfuncs=kfuncs, **fields)


def run(program: Program | str, data: bytes = PACKET, **how: Any) -> Result:
    """Run on both engines, which must agree, and return what they say; a fault is raised."""
    program = program_of(program) if isinstance(program, str) else program
    seen: list[Result] = []
    errors: list[EbpfError] = []
    for engine in ("interpreter", "jit"):
        try:
            seen.append(program.run(data, engine=engine, **how))
        except EbpfError as error:
            errors.append(error)
    if errors:
        assert len(errors) == 2, (seen, errors)
        assert (type(errors[0]), str(errors[0])) == (type(errors[1]), str(errors[1]))
        raise errors[0]
    one, other = seen
    assert (one.return_value, one.data, one.output, one.events) == (
        other.return_value, other.data, other.output, other.events,
    )  # fmt: skip
    return one


def value(program: Program | str, data: bytes = PACKET, **how: Any) -> int:
    """Return r0 as a signed number of 32 bits."""
    return W32.signed(run(program, data, **how).return_value)


def in_kernel(program: Program | str, data: bytes = PACKET) -> int:
    """Return what the kernel makes of it."""
    program = program_of(program) if isinstance(program, str) else program
    return W32.signed(program.run(data, engine="kernel").return_value)


def kernel_cpus() -> int:
    """Return how many processors the kernel may have."""
    return int(Path("/sys/devices/system/cpu/possible").read_text().strip().rpartition("-")[2]) + 1
