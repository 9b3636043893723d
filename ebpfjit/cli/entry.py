"""Where the command line starts: what it stands on may not be installed."""

from __future__ import annotations

import gc
import importlib.util
import sys

NEEDED = ("typer", "rich")
OBJECTS = 20_000
"""New ones behind which Python looks for cycles: hardly any that a short process makes is garbage."""


def main() -> int:
    """Run the command line and return its exit status: 1, and one line, where its packages lack."""
    gc.set_threshold(OBJECTS)
    missing = [name for name in NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        what = f"ebpfjit: the command line needs {' and '.join(missing)}: pip install 'ebpfjit[cli]'"
        print(what, file=sys.stderr)
        return 1
    from ebpfjit.cli.app import main as run

    return run()
