"""Python's collector of cyclic garbage, which waits while a program becomes many objects."""

from __future__ import annotations

import gc
import os
from collections.abc import Iterator
from contextlib import contextmanager
from threading import get_ident


@contextmanager
def collector_paused() -> Iterator[None]:
    """Let nobody look for cyclic garbage meanwhile.

    A large program becomes hundreds of thousands of objects, none of them in a cycle: looking through
    all of them again and again would take a third of the time that compiling takes, two thirds of decoding.
    """
    if not gc.isenabled():  # here, in another thread, or by the user
        yield
        return
    _pausing.add(get_ident())
    gc.disable()
    try:
        yield
    finally:
        _pausing.discard(get_ident())
        gc.enable()


_pausing: set[int] = set()
"""The threads that paused the collector."""


def _after_fork() -> None:
    """In a child process: a thread that is not there does not start the collector again."""
    if _pausing and get_ident() not in _pausing:
        gc.enable()
    _pausing.intersection_update({get_ident()})


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
