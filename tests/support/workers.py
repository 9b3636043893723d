"""The fuzzer's child processes as forks of the tests' own: they have imported all that they need."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import pytest

from ebpfjit.difftest import fuzz, worker


class _Forked:
    """What the fuzzer asks of `subprocess.Popen`."""

    def __init__(self, command: Sequence[str], **_: Any) -> None:
        sys.stdout.flush()
        self.pid = os.fork()
        self._status: int | None = None
        if self.pid:
            return
        status = 1
        try:
            assert list(command[:3]) == [sys.executable, "-m", "ebpfjit.difftest.worker"]
            status = worker.main(command[3:])
        finally:
            os._exit(status)

    def kill(self) -> None:
        if self._status is None:
            os.kill(self.pid, signal.SIGKILL)

    def wait(self) -> int:
        if self._status is None:
            self._status = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        return self._status


@pytest.fixture
def forked_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let fuzzing runs of this process fork; those of the command line start processes."""
    monkeypatch.setattr(fuzz, "subprocess", SimpleNamespace(Popen=_Forked, DEVNULL=None))
