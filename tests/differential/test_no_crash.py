"""No bytes take the process down: random valid and invalid programs, compiled and run in children.

EBPFJIT_CRASH_PROGRAMS sets how many (600 unless told; `make nightly`: 200,000). Whatever a program is,
only an EbpfError may come out of verifying, compiling and running it.
"""

from __future__ import annotations

import os

from ebpfjit.difftest.coverage import ENDING
from ebpfjit.difftest.fuzz import Options, fuzz
from ebpfjit.difftest.report import report_text

PROGRAMS = int(os.environ.get("EBPFJIT_CRASH_PROGRAMS", os.environ.get("EBPFJIT_PROGRAMS", "600")))
SOURCES = ("mutated", "rows", "wild-rows", "opcodes", "bytes")
ENDINGS = (
    "ok",
    "AlignmentFault",
    "BudgetExhausted",
    "CallDepthExceeded",
    "HelperNotFound",
    "IllegalInstruction",
    "MemoryFault load",
    "helper raised",
    "refused",
)


def test_no_bytes_crash_the_process() -> None:
    report = fuzz(Options(programs=PROGRAMS, jobs=2, seed=3, sources=SOURCES))
    assert report.findings == [], report_text(report)
    missing = [ending for ending in ENDINGS if not report.coverage.counts[ENDING, ending]]
    spare = 0 if PROGRAMS >= 2000 else 2
    assert len(missing) <= spare, f"the generators no longer reach {missing}"
