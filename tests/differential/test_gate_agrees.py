"""Generated programs through the native gate: the results and faults of the interpreter."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).resolve().parents[2]
PROGRAMS = int(os.environ.get("EBPFJIT_PROGRAMS", "800")) // 4
CHILDREN = 1
EXPECTED_KINDS = ("ok", "MemoryFault", "BudgetExhausted", "IllegalInstruction")


@pytest.mark.parametrize("part", range(CHILDREN))
def test_the_gate_agrees_with_the_interpreter(part: int) -> None:
    """In a child, as machine code may crash; programs whose results depend on the stack's place are out."""
    first, last = PROGRAMS * part // CHILDREN, PROGRAMS * (part + 1) // CHILDREN
    command = [sys.executable, "-m", "tests.differential.gate_worker", str(first), str(last)]
    child = subprocess.run(command, capture_output=True, text=True, cwd=CHECKOUT, check=False)
    last_seed = child.stderr.strip().splitlines()[-1:]
    assert child.returncode == 0, f"exit {child.returncode}, {last_seed}\n{child.stdout[:4000]}"
    kinds = child.stdout.strip().splitlines()[-1]
    for kind in EXPECTED_KINDS:
        assert f"{kind}=" in kinds, f"none of the programs ends with {kind}: {kinds}"
