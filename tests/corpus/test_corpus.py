"""Every file of this folder: interpreter and machine code agree, with and without BMI2."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.differential.engines import outcomes
from tests.differential.generate import Case

FILES = sorted(Path(__file__).parent.glob("*.txt"))


def parse(path: Path) -> Case:
    lines = [line.partition(":") for line in path.read_text().splitlines() if line and line[0] != "#"]
    fields = {name.strip(): value.strip() for name, _, value in lines}
    return Case(
        0, bytes.fromhex(fields["code"]), bytes.fromhex(fields.get("memory", "")), int(fields["limit"])
    )


def test_there_is_a_corpus() -> None:
    assert FILES


@pytest.mark.parametrize("features", [frozenset(), None], ids=["plain", "native"])
@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_engines_agree(path: Path, features: frozenset[str] | None) -> None:
    both = outcomes(parse(path), features)
    assert both is not None
    assert both[0] == both[1]
