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

VARIABLE = "EBPFJIT_COVERAGE"
SUFFIX = ".coverage.json"


class _Process:
    """What this process counts, and the folder where it leaves that."""

    def __init__(self, folder: str) -> None:
        self.folder = folder
        self.coverage = Coverage()
        self.coverage.start()
        self.is_over = False

    def leave(self) -> None:
        """Write down what was counted, once; where the folder is gone nobody asks."""
        if self.is_over:
            return
        self.is_over = True
        self.coverage.stop()
        if self.coverage.programs and Path(self.folder).is_dir():
            self.coverage.save(Path(self.folder, f"{os.getpid()}-{uuid4().hex}{SUFFIX}"))

    def forked(self) -> None:
        """In a child: what was counted so far is its parent's to tell."""
        if self.is_over:
            return
        self.coverage.forget()
        util = sys.modules.get("multiprocessing.util")
        if util is not None:
            util.register_after_fork(self, lambda process: util.Finalize(None, process.leave, exitpriority=0))


_running: _Process | None = None


def start(folder: str) -> None:
    """Count in this process, and in those that it starts; what was counted is left in the folder."""
    global _running
    if _running is not None and not _running.is_over:
        return
    os.environ[VARIABLE] = folder
    first = _running is None
    _running = _Process(folder)
    if first:
        atexit.register(leave)
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=_forked)


def leave() -> None:
    """Count no more in this process, and leave what was counted."""
    if _running is not None:
        _running.leave()


def _forked() -> None:
    if _running is not None:
        _running.forked()


def collected(folder: str, programs: Collection[str] | None = None) -> Coverage:
    """Return what all processes have left in a folder."""
    found = Coverage(programs)
    for path in sorted(Path(folder).glob(f"*{SUFFIX}")):
        found.load(path)
    return found
