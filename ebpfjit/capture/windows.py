"""The bytes of a capture, a stretch at a time: mapped from a file, or read from a stream."""

from __future__ import annotations

import gzip
import io
import mmap
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, BinaryIO, NamedTuple, Protocol

from ebpfjit.errors import CaptureError

Source = str | os.PathLike[str] | BinaryIO

SIZE, STREAM_SIZE = 1 << 24, 1 << 22
"""Bytes of a window: what is in memory at once, but for larger records; of a stream thrice as much."""

GZIP, ZSTD = b"\x1f\x8b", b"\x28\xb5\x2f\xfd"


class Window(NamedTuple):
    """Bytes of a capture from `start` on; `is_last` where it ends with them."""

    view: memoryview
    start: int
    is_last: bool


class Windows(Protocol):
    """What gives windows; positions that are asked for never go back."""

    def at(self, position: int, size: int) -> Window:
        """Return a window with at least so many bytes behind a position, or all there are."""


class Mapped:
    """Windows of a file, which is mapped: nothing is copied, and pages come as they are touched."""

    def __init__(self, file: BinaryIO) -> None:
        self._number = file.fileno()

    def at(self, position: int, size: int) -> Window:
        """Return a window; see `Windows`."""
        whole = os.fstat(self._number).st_size
        start = position // mmap.ALLOCATIONGRANULARITY * mmap.ALLOCATIONGRANULARITY
        length = min(position - start + max(size, SIZE), whole - start)
        if length <= 0:
            return Window(memoryview(b""), position, True)
        view = memoryview(mmap.mmap(self._number, length, access=mmap.ACCESS_READ, offset=start))
        return Window(view, start, start + length == whole)


class Streamed:
    """Windows of what can only be read on: what was not used is put in front of what follows."""

    def __init__(self, file: BinaryIO, name: str) -> None:
        self._file, self._name = file, name
        self._window = Window(memoryview(b""), 0, False)

    def at(self, position: int, size: int) -> Window:
        """Return a window; see `Windows`. Raises CaptureError where compressed data is damaged."""
        kept = self._window.view[position - self._window.start :]
        if len(kept) < max(size, 1) and not self._window.is_last:
            parts, length, is_last = [kept], len(kept), False
            while length < max(size, STREAM_SIZE) and not is_last:
                part = self._read(max(size, STREAM_SIZE) - length)
                parts.append(memoryview(part))
                length += len(part)
                is_last = not part
            self._window = Window(memoryview(b"".join(parts)), position, is_last)
        return self._window

    def _read(self, size: int) -> bytes:
        try:
            return self._file.read(size)
        except (OSError, EOFError, ValueError) as error:
            if isinstance(error, OSError) and error.errno is not None:
                raise  # the system's; what is wrong with the data has no number
            raise CaptureError(f"{self._name}: {error}") from None


@contextmanager
def opened(source: Source, *, mapped: bool) -> Iterator[tuple[Windows, str]]:
    """Yield the windows of a capture, and what messages call it; "-" is the standard input."""
    if isinstance(source, str) and source == "-":
        yield _windows(sys.stdin.buffer, "<stdin>", mapped=False), "<stdin>"
    elif isinstance(source, (str, os.PathLike)):
        with open(source, "rb") as file:
            yield _windows(file, os.fspath(source), mapped=mapped), os.fspath(source)
    elif hasattr(source, "read"):
        name = getattr(source, "name", None)
        name = name if isinstance(name, str) else "<file>"
        yield _windows(source, name, mapped=False), name
    else:
        kind = type(source).__name__
        raise TypeError(f"a capture is given by its path, or open for reading, not as {kind}")


def _windows(file: BinaryIO, name: str, *, mapped: bool) -> Windows:
    """Return the windows of an open file: mapped where it is one, of what it holds if it is compressed."""
    reader: Any = file if hasattr(file, "peek") else io.BufferedReader(_Raw(file))
    first = reader.peek(4)[:4]
    if first.startswith(GZIP):
        return Streamed(gzip.GzipFile(fileobj=reader), name)  # type: ignore[arg-type]  # it reads as any file
    if first == ZSTD:
        return Streamed(_zstd(reader, name), name)
    is_file = mapped and os.path.isfile(name)
    return Mapped(file) if is_file else Streamed(reader, name)


class _Raw(io.RawIOBase):
    """An object with `read`, as what a BufferedReader reads."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file

    def readable(self) -> bool:
        """True."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Fill a buffer as far as one read goes."""
        data = self._file.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)


def _zstd(file: BinaryIO, name: str) -> BinaryIO:
    """Return what reads zstd. Raises CaptureError where nothing here does."""
    try:
        from compression import zstd  # type: ignore[import-not-found]  # Python 3.14
    except ImportError:
        pass
    else:
        stream: BinaryIO = zstd.open(file)
        return stream
    try:
        import zstandard
    except ImportError:
        raise CaptureError(f"{name}: compressed with zstd; pip install 'ebpfjit[zstd]' reads that") from None
    reader: BinaryIO = zstandard.ZstdDecompressor().stream_reader(file, read_across_frames=True)
    return reader
