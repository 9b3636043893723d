"""Work in child processes that may crash or hang, without taking this one along."""

from __future__ import annotations

import ctypes
import os
import pickle
import select
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

PR_SET_PDEATHSIG = 1


def die_with_parent() -> None:
    """Let the system end this process when its parent ends (Linux), and leave Ctrl-C to the parent."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    prctl = getattr(ctypes.CDLL(None), "prctl", None)
    if prctl is not None:
        prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


@dataclass(frozen=True, slots=True)
class Ended:
    """How a child ended: what it returned, or the name of its signal, or that it took too long."""

    value: Any = None
    signal: str = ""
    hangs: bool = False


def run_forked(work: Callable[[], Any], seconds: float) -> Ended:
    """Run `work` in a forked child for at most so many seconds; what it returns must pickle.

    What it raises counts as a value of None. To be called from a process without threads.
    """
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        _in_child(work, reading, writing)
    os.close(writing)
    try:
        data = _read_all(reading, time.monotonic() + seconds)
    finally:
        os.close(reading)
    if data is None:
        os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    if data is None:
        return Ended(hangs=True)
    if os.WIFSIGNALED(status):
        return Ended(signal=signal.Signals(os.WTERMSIG(status)).name)
    return Ended(pickle.loads(data) if data else None)


def _in_child(work: Callable[[], Any], reading: int, writing: int) -> None:
    """Send what `work` returns and leave, whatever happens."""
    try:
        die_with_parent()
        os.close(reading)
        with os.fdopen(writing, "wb") as sink:
            sink.write(pickle.dumps(work()))
    finally:
        os._exit(0)


def _read_all(source: int, deadline: float) -> bytes | None:
    """Read to the end; None where it does not come in time."""
    parts: list[bytes] = []
    while True:
        ready, _, _ = select.select([source], [], [], max(deadline - time.monotonic(), 0))
        if not ready:
            return None
        part = os.read(source, 1 << 16)
        if not part:
            return b"".join(parts)
        parts.append(part)
