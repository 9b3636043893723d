"""The C stack of the running thread, on which runs inside of other runs lie one below the other.

A helper that runs a program takes more of it than Python counts: its recursion limit knows nothing of bytes.
So a run that is inside of another looks where the stack ends before it starts.

    start                floor                           here               top
    [ reserve            |        for more runs          | in use           )
"""

from __future__ import annotations

import ctypes
import os
import sys
import threading
from typing import Any

from ebpfjit.errors import StackExhausted
from ebpfjit.once import once

RESERVE = 64 * 1024
"""Bytes that stay for what a run calls, and for telling what went wrong; of a small stack a quarter."""
LEAST_RESERVE = 16 * 1024
AMPLE = 128 * 1024
"""Bytes at the top of a stack that any limit leaves; of a small stack a quarter."""

_STACK_POINTER = {"x86_64": 160}
"""Where glibc's ucontext_t has the stack pointer (sys/ucontext.h), in bytes."""
_CONTEXT_SIZE = 4096  # more than a ucontext_t takes
_ATTRIBUTES_SIZE = 256  # more than a pthread_attr_t takes
_NEEDED = ("getcontext", "pthread_getattr_np", "pthread_attr_getstack", "pthread_attr_destroy")


class _Known(threading.local):
    """What is known of a thread: its stack, for the limit (RLIMIT_STACK) that it was found out for.

    From `ample` on up nothing need be asked.
    """

    limit: int | None = None
    start = floor = 0
    ample = 1 << 64
    context: Any = None  # a ucontext_t


_known = _Known()


@once
def _libc() -> ctypes.CDLL | None:
    """Return the C library, None where it does not tell what is asked here: then nobody looks."""
    if sys.platform != "linux" or os.uname().machine not in _STACK_POINTER:
        return None
    libc = ctypes.CDLL(None)
    return libc if all(hasattr(libc, name) for name in _NEEDED) else None


def bounds() -> tuple[int, int] | None:
    """Return the lowest address of this thread's stack and its size in bytes, None where nobody tells."""
    libc = _libc()
    if libc is None:
        return None
    attributes = ctypes.create_string_buffer(_ATTRIBUTES_SIZE)
    start, size = ctypes.c_size_t(), ctypes.c_size_t()
    # CPython's number of a thread is what pthread_self() returns.
    if libc.pthread_getattr_np(ctypes.c_size_t(threading.get_ident()), attributes):
        return None
    libc.pthread_attr_getstack(attributes, ctypes.byref(start), ctypes.byref(size))
    libc.pthread_attr_destroy(attributes)
    return start.value, size.value


def _find_out() -> None:
    """Note where this thread's stack starts, and down to where runs may take it; 0 where nobody tells."""
    import resource  # what has pthread_getattr_np has it

    limit = resource.getrlimit(resource.RLIMIT_STACK)[0]
    if _known.limit != limit:  # the main thread's stack may grow that far
        start, size = bounds() or (0, 0)
        _known.start, _known.floor = start, start + min(RESERVE, max(LEAST_RESERVE, size // 4))
        _known.ample = start + size - min(AMPLE, size // 4) if size else 1 << 64
        _known.limit = limit


def pointer() -> int:
    """Return down to which address this thread's stack is in use, about; 0 where nobody tells."""
    libc = _libc()
    if libc is None:
        return 0
    if _known.context is None:
        _known.context = ctypes.create_string_buffer(_CONTEXT_SIZE)
    libc.getcontext(_known.context)
    at = _STACK_POINTER[os.uname().machine]
    return int.from_bytes(_known.context.raw[at : at + 8], "little")


def look(here: int | None = None) -> None:
    """Raise StackExhausted where a run inside of another is not to start: too little of the stack is left.

    `here` is the address down to which it is in use; without one that is found out. An address on no stack of
    this thread's own (some coroutines bring one) says nothing.
    """
    if here is not None and here >= _known.ample:
        return  # so it mostly is, in a tenth of the time
    if _libc() is None:
        return
    _find_out()
    address = pointer() if here is None else here
    if _known.start <= address < _known.floor:
        raise StackExhausted(
            "too little of the thread's C stack is left for one more run inside of runs; have helpers run "
            "fewer programs inside of each other, or give the thread more (threading.stack_size)"
        )
