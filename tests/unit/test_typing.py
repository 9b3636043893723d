"""Type checkers find what users get wrong, and nothing where they are right."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
MISTAKES = "tests/typing/mistakes.py"
AT_LEAST = 16

COMMANDS = {
    "mypy": ["-m", "mypy", "--strict", "--no-error-summary", MISTAKES],
    "basedpyright": ["-m", "basedpyright", "-p", "tests/typing", MISTAKES],  # pyright, as a wheel has it
}


@pytest.mark.parametrize("checker", COMMANDS)
def test_mistakes_are_found_where_they_are(checker: str) -> None:
    pytest.importorskip(checker)
    done = subprocess.run(
        [sys.executable, *COMMANDS[checker]],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    found = {int(line) for line in re.findall(r"mistakes\.py:(\d+):.*?error", done.stdout)}
    lines = (ROOT / MISTAKES).read_text().splitlines()
    wrong = {number for number, line in enumerate(lines, 1) if line.endswith("# wrong")}
    assert len(wrong) == 19
    assert found <= wrong, done.stdout
    assert len(found) >= AT_LEAST, f"not found: {sorted(wrong - found)}\n{done.stdout}{done.stderr}"
