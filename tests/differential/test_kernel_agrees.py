"""Interpreter, machine code and the Linux kernel agree on generated programs: r0 and memory.

EBPFJIT_KERNEL_PROGRAMS sets how many (2,000 unless told).
"""

from __future__ import annotations

import os

import pytest

from ebpfjit import Program, VerifierError, kernel
from tests.differential.kernel_programs import program

REASON = kernel.unavailable_reason()
PROGRAMS = int(os.environ.get("EBPFJIT_KERNEL_PROGRAMS", "2000"))


@pytest.mark.skipif(REASON is not None, reason=f"the kernel as an engine: {REASON}")
def test_the_kernel_agrees() -> None:
    refused, compared = 0, 0
    for seed in range(PROGRAMS):
        code, memory = program(seed)
        loaded = Program.from_bytes(code)
        try:
            expected = loaded.run(memory, engine="kernel")
        except VerifierError:
            refused += 1
            continue
        compared += 1
        for engine in ("interpreter", "jit"):
            result = loaded.run(memory, engine=engine)
            assert (result.return_value, result.data) == (expected.return_value, expected.data), (
                f"seed {seed}, {engine}: {code.hex()}"
            )
    assert refused <= PROGRAMS // 20, "the generator no longer writes what the kernel accepts"
    assert compared
