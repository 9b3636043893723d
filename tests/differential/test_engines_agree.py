"""Interpreter and machine code agree on generated programs: value, fault, memory, stack.

EBPFJIT_PROGRAMS sets how many (20,000 unless told); machine code runs in child processes.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAMS = int(os.environ.get("EBPFJIT_PROGRAMS", "20000"))
CHILDREN = 4
CHECKOUT = Path(__file__).parents[2]
EXPECTED_KINDS = ("ok", "MemoryFault", "BudgetExhausted", "AlignmentFault", "HelperNotFound", "helper_raised")


@pytest.mark.parametrize("part", range(CHILDREN))
def test_engines_agree_on_generated_programs(part: int) -> None:
    first, last = PROGRAMS * part // CHILDREN, PROGRAMS * (part + 1) // CHILDREN
    command = [sys.executable, "-m", "tests.differential.worker", str(first), str(last)]
    child = subprocess.run(command, capture_output=True, text=True, cwd=CHECKOUT, check=False)
    last_seed = child.stderr.strip().splitlines()[-1:]
    assert child.returncode == 0, f"exit {child.returncode}, {last_seed}\n{child.stdout[:4000]}"
    kinds = child.stdout.strip().splitlines()[-1]
    for kind in EXPECTED_KINDS:
        assert f"{kind}=" in kinds, f"the generator no longer reaches {kind}: {kinds}"
