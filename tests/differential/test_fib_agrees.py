"""bpf_fib_lookup answers as the kernel does, on a network that both are given."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from ebpfjit import kernel
from tests.support.whole import WHOLE


@pytest.mark.skipif(kernel.unavailable_reason() is not None, reason=str(kernel.unavailable_reason()))
@pytest.mark.skipif(
    not shutil.which("unshare") or not shutil.which("ip"), reason="needs unshare(1) and ip(8)"
)
def test_routes_are_found_as_in_the_kernel() -> None:
    worker = Path(__file__).with_name("fib_worker.py")
    run = subprocess.run(
        ["unshare", "-n", sys.executable, str(worker)],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    if run.stdout.startswith("skipped") or "unshare" in run.stderr:
        pytest.skip(f"no network of our own: {run.stdout}{run.stderr}")
    assert run.returncode == 0, run.stderr
    *differences, count = run.stdout.splitlines()
    assert differences == []
    assert int(count.split()[0]) > (2000 if WHOLE else 400)
