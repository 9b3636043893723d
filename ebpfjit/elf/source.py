"""The bytes of a file, as many as a file may have: a device, or a pipe, may go on for ever."""

from __future__ import annotations

import os
import stat
from typing import BinaryIO

from ebpfjit.errors import LoadError

MAX_FILE = 1 << 28
"""Bytes of an object file, of bytecode, of a packet."""
MAX_TYPES = 1 << 31
"""Bytes of a file that BTF is read from: a kernel with its debugging information is large."""

CHUNK = 1 << 20


def read_path(path: str | os.PathLike[str], limit: int = MAX_FILE) -> bytes:
    """Return what a file holds. Raises LoadError for one of more than `limit` bytes, and OSError."""
    with open(path, "rb", buffering=0) as file:
        return read_stream(file, os.fspath(path), limit)


def read_stream(file: BinaryIO, name: str, limit: int = MAX_FILE) -> bytes:
    """Return what is left of an open file, which is called `name`; see `read_path`."""
    try:
        _refuse_large(file, name, limit)
        parts: list[bytes] = []
        left = limit
        while part := file.read(min(CHUNK, left + 1)):
            if not isinstance(part, bytes):
                raise LoadError(f"{name}: open the file in binary mode")
            parts.append(part)
            left -= len(part)
            if left < 0:
                raise LoadError(f"{name}: more than {limit} bytes, which is too much for such a file")
        return b"".join(parts)
    except MemoryError:
        raise LoadError(f"{name}: there is not enough memory to read the file") from None


def _refuse_large(file: BinaryIO, name: str, limit: int) -> None:
    """Raise LoadError where the system says that a regular file is too large, before it is read."""
    try:
        status = os.fstat(file.fileno())
    except (OSError, AttributeError, ValueError):
        return  # no file of the system's
    if stat.S_ISREG(status.st_mode) and status.st_size > limit:
        raise LoadError(f"{name}: {status.st_size} bytes, at most {limit} are read of such a file")
