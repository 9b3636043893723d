"""Every file of this folder: interpreter and machine code agree, however machine code is made."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from ebpfjit.difftest import BUILDS, read_case
from ebpfjit.difftest.check import Checker

FILES = sorted(Path(__file__).parent.glob("*.txt"))


def test_there_is_a_corpus() -> None:
    assert FILES


@pytest.mark.parametrize("build", BUILDS)
@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_engines_agree(path: Path, build: str) -> None:
    assert (
        Checker(("interpreter", "jit", "optimized", "tiered")).check(replace(read_case(path), build=build))
        is None
    )
