"""Listings as people see them, whole; `make bless` writes them anew."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from ebpfjit import Program, runtime_info

HERE = Path(__file__).parent / "shown"
COUNT = "mov r0, 0\nl: add r0, 1\njlt r0, 3, l\nldxb r4, [r1+1]\ncall 6\nexit"


def test_listings(golden: Callable[[Path, str], None]) -> None:
    wrong = Program.from_assembly("mov r0, 1\nja +5", name="wrong")
    golden(HERE / "wrong.txt", wrong.listing())
    if runtime_info().engines["jit"] != "available":
        pytest.skip("listings show machine code, which is not to be had here")
    program = Program.from_assembly(COUNT, name="count")
    golden(HERE / "count.optimised.txt", program.listing())
    golden(HERE / "count.baseline.txt", program.listing(optimize=False))
