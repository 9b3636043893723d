"""Fresh Python processes for tests: what crashes or hangs there is a failure here, with what it wrote."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

from tests.support import warm

ROOT = Path(__file__).resolve().parent.parent.parent


def fresh_process(
    source: str,
    *arguments: str,
    seconds: float = 60,
    tiers: bool = True,
    signals: int = 0,
    cold: bool = True,
) -> str:
    """Run Python source in a process of its own; return what it printed, without the last newline.

    Fails where it ends by a signal (but the one that is expected, `signals`), with another exit status than
    0, or not in time. Two tiers as for users, unless `tiers` is False. One that need not be `cold` is a fork
    of a process that has compiled before.
    """
    environment = {**os.environ, "EBPFJIT_TIERS": "" if tiers else "off"}
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH", "")]))
    text = textwrap.dedent(source)
    command = [sys.executable, "-c", text, *arguments]
    if cold:
        ended = subprocess.run(
            command, capture_output=True, text=True, timeout=seconds, env=environment, check=False
        )
    else:
        ended = warm.run(command, text=True, timeout=seconds, env=environment)
    if ended.returncode != -signals:
        how = f"exit status {ended.returncode}"
        if ended.returncode < 0:
            how = signal.Signals(-ended.returncode).name
        raise AssertionError(f"{how}\n{ended.stdout}\n{ended.stderr}")
    return ended.stdout.rstrip("\n")
