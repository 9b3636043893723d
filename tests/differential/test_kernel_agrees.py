"""Interpreter, machine code and the Linux kernel agree on generated programs: r0 and memory.

EBPFJIT_KERNEL_PROGRAMS sets how many (200 unless told).
"""

from __future__ import annotations

import os

import pytest

from ebpfjit import kernel
from ebpfjit.difftest.coverage import ENDING, NO_ANSWER
from ebpfjit.difftest.fuzz import Options, fuzz
from ebpfjit.difftest.report import report_text

REASON = kernel.unavailable_reason()
PROGRAMS = int(os.environ.get("EBPFJIT_KERNEL_PROGRAMS", "200"))


@pytest.mark.skipif(REASON is not None, reason=f"the kernel as an engine: {REASON}")
def test_the_kernel_agrees() -> None:
    report = fuzz(Options(("interpreter", "jit", "kernel"), programs=PROGRAMS))
    assert report.findings == [], report_text(report)
    refused = report.coverage.counts[ENDING, NO_ANSWER.format("kernel")]
    assert refused <= PROGRAMS // 20, "the generators no longer write what the kernel accepts"
