"""Where compiling is: each stage says when it is done, to whoever measures it (`timing.py`)."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

STAGES = ("decode", "verify", "analyse", "translate", "assemble", "layout", "map")
"""In order; what comes before the first is decoding, and what comes behind the last is making a callable."""


class _Listener(threading.local):
    tell: Callable[[str], None] | None = None


_listener = _Listener()


def done(stage: str) -> None:
    """Say that a stage of this thread's compilation is done."""
    tell = _listener.tell
    if tell is not None:
        tell(stage)


@contextmanager
def told_to(tell: Callable[[str], None]) -> Iterator[None]:
    """Have the stages of this thread's compilations told to somebody meanwhile."""
    before, _listener.tell = _listener.tell, tell
    try:
        yield
    finally:
        _listener.tell = before
