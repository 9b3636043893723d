"""The public cases of bpf_conformance pass on every engine, where they are here (support/public_cases.py).

The format is that project's: sections `-- asm`, `-- raw`, `-- mem`,
`-- result`, `-- error`.
"""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

import pytest
from support.machines import CHECKED, ENGINES, Job, Outcome, run_jobs
from support.public_cases import PATHS, WHY_NOT

from ebpfjit.assembler import assemble

# What is compiled for all of its tests is compiled once.
pytestmark = pytest.mark.xdist_group("public cases")


def sections(path: Path) -> dict[str, list[str]]:
    """Return the lines of each section: without comments and blank lines, but for asm."""
    found: dict[str, list[str]] = {}
    lines: list[str] = []
    for line in path.read_text(encoding="utf-8").splitlines():
        if line.startswith("-- "):
            lines = found.setdefault(line[3:].strip().split()[0], [])
        elif line.split("#")[0].strip():
            lines.append(line.split("#")[0].strip())
    return found


def program(case: dict[str, list[str]]) -> bytes:
    """Return the bytecode: raw words win over asm."""
    if "raw" in case:
        words = [int(word, 16) for line in case["raw"] for word in line.split()]
        return b"".join(word.to_bytes(8, "little") for word in words)
    return assemble("\n".join(case["asm"]))


def job(path: Path) -> Job:
    case = sections(path)
    memory = bytes.fromhex(" ".join(case["mem"])) if "mem" in case else None
    # A case that is to fail may do so by a bad access, which unchecked code does not refuse.
    return Job(path.stem, program(case), (memory,), CHECKED if "error" in case else ENGINES)


@cache
def outcomes() -> dict[str, dict[str, Outcome]]:
    """What became of each case, by its name and the engine; all run in one child."""
    found = run_jobs(job(path) for path in PATHS)
    return {
        path.stem: {engine: runs[0] for engine, runs in by_engine.items()}
        for path, by_engine in zip(PATHS, found, strict=True)
    }


@pytest.mark.skipif(not PATHS, reason=WHY_NOT)
@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)
def test_public_case(path: Path) -> None:
    case = sections(path)
    runs = outcomes()[path.stem]
    assert set(runs) == set(job(path).engines)
    if "error" in case and "result" not in case:
        assert {engine: str(run) for engine, run in runs.items() if not run.error} == {}
        assert "crash" not in {run.error for run in runs.values()}
        return
    (text,) = case["result"]
    expected = int(re.sub(r"\s", "", text), 0) % 2**64
    assert {engine: str(run) for engine, run in runs.items() if run.value != expected} == {}


@pytest.mark.skipif(not PATHS, reason=WHY_NOT)
def test_all_cases_were_seen() -> None:
    """The folder holds what its file names say: no case without a program or an expectation."""
    for path in PATHS:
        case = sections(path)
        assert {"asm", "raw"} & set(case), path.name
        assert {"result", "error"} & set(case), path.name
