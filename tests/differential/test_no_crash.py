"""No bytes take the process down: random valid and invalid programs, compiled and run in children.

EBPFJIT_CRASH_PROGRAMS sets how many (20,000 unless told). Whatever a verifier lets through, only an
EbpfError may come out of loading, compiling and running it.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

PROGRAMS = int(os.environ.get("EBPFJIT_CRASH_PROGRAMS", "20000"))
CHILDREN = 2
SECONDS_A_PROGRAM = 1.0  # a child that takes longer hangs
CHECKOUT = Path(__file__).parents[2]
EXPECTED_KINDS = (
    "ok",
    "AlignmentFault",
    "BudgetExhausted",
    "CallDepthExceeded",
    "DecodeError",
    "HelperError",
    "HelperNotFound",
    "IllegalInstruction",
    "LoadError",
    "MemoryFault",
    "VerifierError",
)


def _complaint(first: int, last: int, place: Path) -> tuple[str, dict[str, int]]:
    """Run a child over some seeds; return what went wrong, or nothing, and how programs ended."""
    command = [sys.executable, "-m", "tests.differential.crash_worker", str(first), str(last), str(place)]
    try:
        child = subprocess.run(
            command,
            capture_output=True,
            text=True,
            cwd=CHECKOUT,
            check=False,
            timeout=60 + SECONDS_A_PROGRAM * (last - first),
        )
    except subprocess.TimeoutExpired:
        return f"a child hangs at {place.read_text()}", {}
    if child.returncode < 0:
        name = signal.Signals(-child.returncode).name
        return f"a child died of {name} at {place.read_text()}{child.stderr[-2000:]}", {}
    if child.returncode:
        return (
            f"exit {child.returncode} at {place.read_text()}{child.stdout[:4000]}{child.stderr[-2000:]}",
            {},
        )
    kinds = child.stdout.strip().splitlines()[-1].split()
    assert kinds[0] == "kinds"
    return "", {kind: int(count) for kind, _, count in (item.partition("=") for item in kinds[1:])}


def test_no_bytes_crash_the_process(tmp_path: Path) -> None:
    bounds = [PROGRAMS * part // CHILDREN for part in range(CHILDREN + 1)]
    places = [tmp_path / f"running_{part}" for part in range(CHILDREN)]
    with ThreadPoolExecutor(CHILDREN) as children:
        results = list(children.map(_complaint, bounds[:-1], bounds[1:], places))
    assert "".join(complaint for complaint, _ in results) == ""
    counts = [kinds for _, kinds in results]
    assert sum(sum(kinds.values()) for kinds in counts) == 2 * PROGRAMS  # each with either verifier
    if PROGRAMS >= 2000:
        missing = [kind for kind in EXPECTED_KINDS if not any(kind in kinds for kinds in counts)]
        assert missing == [], f"the generator no longer reaches {missing}: {counts}"
