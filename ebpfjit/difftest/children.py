"""Work in child processes that may crash or hang, without taking this one along."""

from __future__ import annotations

import ctypes
import faulthandler
import os
import pickle
import select
import signal
import time
from collections.abc import Callable
from typing import Any

from ebpfjit.record import dataclass
from ebpfjit.runtime import counters

PR_SET_PDEATHSIG = 1
PATIENCE = 10
"""A process hangs after so many seconds of its own time, or this many times as long by the clock."""

_TICKS = os.sysconf("SC_CLK_TCK")
_POLL_SECONDS = 0.1


def processor_seconds(pid: int) -> float | None:
    """Return how much processor time a process has used, None where the system does not tell."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            fields = file.read().rpartition(b")")[2].split()
    except OSError:
        return None
    return (int(fields[11]) + int(fields[12])) / _TICKS  # utime, stime


def took_too_long(pid: int, since: float, used: float, seconds: float) -> bool:
    """True where a process is past `seconds` of its own time since `since`, when it had used `used`.

    Its own time, so that a machine that is busy with other things makes no finding.
    """
    elapsed = time.monotonic() - since
    if elapsed < seconds:
        return False
    now = processor_seconds(pid)
    return now is None or now - used >= seconds or elapsed >= PATIENCE * seconds


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
    """Run `work` in a forked child for at most so many seconds of its time; what it returns must pickle.

    What it raises counts as a value of None. To be called from a process without threads.
    """
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        _in_child(work, reading, writing)
    os.close(writing)
    try:
        data = _read_all(reading, child, seconds)
    except BaseException:  # Ctrl-C: nothing is left behind
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        raise
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
        faulthandler.disable()  # who waits for it tells of a crash
        os.close(reading)
        with os.fdopen(writing, "wb") as sink:
            sink.write(pickle.dumps(work()))
        for leave in counters.at_exit:
            leave()
    finally:
        os._exit(0)


def _read_all(source: int, child: int, seconds: float) -> bytes | None:
    """Read what a child sends, to the end; None where that does not come in time."""
    parts: list[bytes] = []
    started = time.monotonic()
    while True:
        ready, _, _ = select.select([source], [], [], min(seconds, _POLL_SECONDS))
        if not ready:
            if took_too_long(child, started, 0.0, seconds):
                return None
            continue
        part = os.read(source, 1 << 16)
        if not part:
            return b"".join(parts)
        parts.append(part)
