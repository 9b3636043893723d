"""The bytes of a capture, a stretch at a time: of a file, or of what can only be read on."""

from __future__ import annotations

import gzip
import io
import os
import stat
import sys
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, BinaryIO, NamedTuple, Protocol

from ebpfjit.capture.spare import Spare
from ebpfjit.errors import CaptureError

Source = str | os.PathLike[str] | BinaryIO

SIZE = 1 << 20
"""Bytes of a window: so few that they are in a cache of the processor from being read until a program runs,
so many that what each batch takes besides its packets is little.

Mapping the file takes twice as long: each record is then a place in memory that nobody has touched. And a
file that is made shorter meanwhile would end the process.
"""

GZIP, ZSTD = b"\x1f\x8b", b"\x28\xb5\x2f\xfd"


class Window(NamedTuple):
    """Bytes of a capture from `start` on; `is_last` where it ends with them."""

    view: memoryview
    start: int
    is_last: bool


NOTHING = Window(memoryview(b""), 0, False)


class Windows(Protocol):
    """What gives windows; positions that are asked for never go back."""

    def at(self, position: int, size: int) -> Window:
        """Return a window with at least so many bytes behind a position, or all there are."""


class FileWindows:
    """Windows of a file, read where they are asked for, each into memory that nobody has a view of."""

    def __init__(self, file: BinaryIO) -> None:
        self._number = file.fileno()
        self._window = NOTHING
        self._memory = Spare(SIZE)

    def at(self, position: int, size: int) -> Window:
        """Return a window; see `Windows`."""
        view, start, is_last = self._window
        if not start <= position or (position + size > start + len(view) and not is_last):
            del view
            self._window = NOTHING
            data = memoryview(self._memory.take(max(size, SIZE)))
            filled = _read_into(self._number, data, position)
            self._window = Window(data[:filled], position, filled < len(data))
        return self._window


def _read_into(number: int, view: memoryview, position: int) -> int:
    """Fill memory from a place in a file; return how many bytes there were."""
    filled = 0
    while filled < len(view):
        got = os.preadv(number, [view[filled:]], position + filled)
        if not got:
            break
        filled += got
    return filled


class StreamWindows:
    """Windows of what can only be read on: what was not used is put in front of what follows."""

    def __init__(self, file: BinaryIO, name: str, damaged: type[Exception] = EOFError) -> None:
        self._file, self._name, self._damaged = file, name, damaged
        self._window = NOTHING

    def at(self, position: int, size: int) -> Window:
        """Return a window; see `Windows`. Raises CaptureError where compressed data is damaged."""
        kept = self._window.view[position - self._window.start :]
        if len(kept) < max(size, 1) and not self._window.is_last:
            parts, length, is_last = [kept], len(kept), False
            while length < max(size, SIZE) and not is_last:
                part = self._read(max(size, SIZE) - length)
                parts.append(memoryview(part))
                length += len(part)
                is_last = not part
            self._window = Window(memoryview(b"".join(parts)), position, is_last)
        return self._window

    def _read(self, size: int) -> bytes:
        try:
            return self._file.read(size)
        except (OSError, EOFError, ValueError, self._damaged) as error:
            if isinstance(error, OSError) and error.errno is not None:
                raise  # the system's; what is wrong with the data has no number
            raise CaptureError(f"{self._name}: {error}") from None


@contextmanager
def opened(source: Source) -> Iterator[tuple[Windows, str]]:
    """Yield the windows of a capture, and what messages call it; "-" is the standard input."""
    if isinstance(source, str) and source == "-":
        yield _windows(sys.stdin.buffer, "<stdin>"), "<stdin>"
    elif isinstance(source, (str, os.PathLike)):
        with open(source, "rb") as file:
            yield _windows(file, os.fspath(source)), os.fspath(source)
    elif hasattr(source, "read"):
        name = getattr(source, "name", None)
        name = name if isinstance(name, str) else "<file>"
        yield _windows(source, name), name
    else:
        kind = type(source).__name__
        raise TypeError(f"a capture is given by its path, or open for reading, not as {kind}")


def _windows(file: BinaryIO, name: str) -> Windows:
    """Return the windows of an open file, of what it holds if it is compressed."""
    reader: Any = file if isinstance(file, io.BufferedReader) else io.BufferedReader(_Raw(file))
    first = reader.peek(4)[:4]
    if len(first) < 4:  # a stream that gives less at a time
        first = reader.read(4)
        reader = io.BufferedReader(_Raw(reader, first))
    if first.startswith(GZIP):
        unpacked: Any = gzip.GzipFile(fileobj=reader)
        return StreamWindows(unpacked, name, zlib.error)
    if first == ZSTD:
        return StreamWindows(*_zstd(reader, name))
    return FileWindows(file) if _is_whole_file(reader) else StreamWindows(reader, name)


def _is_whole_file(reader: Any) -> bool:
    """True for an open file whose bytes are those on the disk, from the first on."""
    is_file = isinstance(reader.raw, io.FileIO) and stat.S_ISREG(os.fstat(reader.fileno()).st_mode)
    return is_file and reader.tell() == 0


class _Raw(io.RawIOBase):
    """An object with `read`, as what a BufferedReader reads, behind what was read of it already."""

    def __init__(self, file: BinaryIO, first: bytes = b"") -> None:
        self._file, self._first = file, first

    def readable(self) -> bool:
        """True."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Fill a buffer as far as one read goes."""
        data, self._first = self._first or self._file.read(len(buffer)), b""
        buffer[: len(data)] = data
        return len(data)


def _zstd(file: BinaryIO, name: str) -> tuple[BinaryIO, str, type[Exception]]:
    """Return what reads zstd, the name, and what that raises for damaged data. Raises CaptureError."""
    try:
        from compression import zstd  # type: ignore[import-not-found]  # Python 3.14
    except ImportError:
        pass
    else:
        stream: BinaryIO = zstd.open(file)
        return stream, name, zstd.ZstdError
    try:
        import zstandard
    except ImportError:
        raise CaptureError(f"{name}: compressed with zstd; pip install 'ebpfjit[zstd]' reads that") from None
    reader: BinaryIO = zstandard.ZstdDecompressor().stream_reader(file, read_across_frames=True)
    return reader, name, zstandard.ZstdError
