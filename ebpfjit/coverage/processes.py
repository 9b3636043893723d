"""Coverage of many processes: each leaves what it counted in one folder, which EBPFJIT_COVERAGE names.

A process that has the variable counts from the moment it imports the library, and writes a file when it ends;
so do those that it forks, if they end as Python's or multiprocessing's do. Who wants to know loads all files.
"""

from __future__ import annotations

import atexit
import os
import sys
from collections.abc import Collection
from pathlib import Path
from uuid import uuid4

from ebpfjit.coverage.recording import Coverage
from ebpfjit.once import once
from ebpfjit.runtime import counters

VARIABLE = "EBPFJIT_COVERAGE"
SUFFIX = ".coverage.json"


class _Process:
    """What this process counts, and the folder where it leaves that."""

    def __init__(self, folder: str) -> None:
        self.folder = folder
        self.coverage = Coverage()
        self.coverage.start()

    def leave(self) -> None:
        """Write down what was counted; where the folder is gone nobody asks."""
        self.coverage.stop()
        if self.coverage.programs and Path(self.folder).is_dir():
            self.coverage.save(Path(self.folder, f"{os.getpid()}-{uuid4().hex}{SUFFIX}"))

    def forked(self) -> None:
        """In a child: what was counted so far is its parent's to tell."""
        self.coverage.forget()
        util = sys.modules.get("multiprocessing.util")
        if util is not None:  # its children end without Python's exit
            util.register_after_fork(self, lambda _: util.Finalize(None, leave, exitpriority=0))


_running: list[_Process] = []
"""What counts: one at most."""


def start(folder: str) -> None:
    """Count in this process, and in those that it starts from now on; each leaves a file in the folder."""
    os.environ[VARIABLE] = folder
    if not _running:
        _running.append(_Process(folder))
        _at_exit()


@once
def _at_exit() -> None:
    atexit.register(leave)
    counters.at_exit.append(leave)
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=_forked)


def leave() -> None:
    """Count no more in this process, and leave what was counted."""
    while _running:
        _running.pop().leave()


def stop() -> None:
    """As `leave`; and processes that are started from now on do not count either."""
    leave()
    os.environ.pop(VARIABLE, None)


def _forked() -> None:
    for process in _running:
        process.forked()


def collected(folder: str, programs: Collection[str] | None = None) -> Coverage:
    """Return what all processes have left in a folder."""
    found = Coverage(programs)
    for path in sorted(Path(folder).glob(f"*{SUFFIX}")):
        found.load(path)
    return found
