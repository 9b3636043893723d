"""The bytes of a capture, a stretch at a time: of a file, or of what can only be read on."""

from __future__ import annotations

import io
import os
import select
import stat
import sys
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, BinaryIO, NamedTuple, Protocol

from ebpfjit.capture.formats import Damaged
from ebpfjit.capture.spare import Spare
from ebpfjit.errors import CaptureError

Source = str | os.PathLike[str] | BinaryIO

SIZE = 1 << 20
"""Bytes of a window: so few that they are in a cache of the processor from being read until a program runs,
so many that what each batch takes besides its packets is little.

Mapping the file takes twice as long: each record is then a place in memory that nobody has touched. And a
file that is made shorter meanwhile would end the process.
"""

GZIP_PIECE, ZSTD_PIECE = 1 << 14, 1 << 10
"""Compressed bytes that are unpacked at a time: they become 16 MiB with gzip at most, 32 with zstd."""

_GZIP_ONLY = 31
"""How zlib is told that data has gzip's header."""

GZIP, ZSTD = b"\x1f\x8b", b"\x28\xb5\x2f\xfd"


class Window(NamedTuple):
    """Bytes of a capture from `start` on; `is_last` where it ends with them."""

    view: memoryview
    start: int
    is_last: bool


NOTHING = Window(memoryview(b""), 0, False)


class Stream(Protocol):
    """What can only be read on."""

    def read1(self, size: int = -1, /) -> bytes:
        """Return what one read gives, some bytes; none at the end."""


class Frame(Protocol):
    """What unpacks one stream of gzip, or one frame of zstd; behind its end (`eof`) there are other bytes."""

    eof: bool
    unused_data: bytes

    def decompress(self, data: bytes, /) -> bytes:
        """Return what these bytes add."""


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
    """Windows of what can only be read on: what was not used is put in front of what follows.

    What goes wrong is said where the bytes before it have been used. A window has what `is_there` for now:
    packets of a capture that is still being made are not kept waiting for others.
    """

    def __init__(
        self, file: Stream, is_there: Callable[[], bool], damaged: type[Exception] = EOFError
    ) -> None:
        self._file, self._is_there, self._damaged = file, is_there, damaged
        self._window = NOTHING
        self._error: Exception | None = None

    def at(self, position: int, size: int) -> Window:
        """Return a window; see `Windows`. Raises Damaged where compressed data is, OSError."""
        kept = self._window.view[position - self._window.start :]
        if len(kept) < max(size, 1) and not self._window.is_last:
            parts, length, is_last = [kept], len(kept), False
            while length < max(size, SIZE) and not is_last and self._error is None:
                if length >= max(size, 1) and not self._is_there():
                    break
                part = self._read(max(size, SIZE) - length)
                parts.append(memoryview(part))
                length += len(part)
                is_last = not part and self._error is None
            self._window = Window(memoryview(b"".join(parts)), position, is_last)
            if length < max(size, 1) and self._error is not None:
                raise self._error
        return self._window

    def _read(self, size: int) -> bytes:
        """Return what one read gives; nothing where it fails, or at the end."""
        try:
            return self._file.read1(size)
        except (OSError, EOFError, ValueError, self._damaged) as error:
            is_system = isinstance(error, OSError) and error.errno is not None  # the data's has no number
            self._error = error if is_system else Damaged(str(error))
            return b""


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
    is_there = _more_of(file)
    try:
        first = reader.peek(4)[:4]
        if len(first) < 4:  # a stream that gives less at a time
            first = reader.read(4)
            reader = io.BufferedReader(_Raw(reader, first))
    except (OSError, EOFError, zlib.error) as error:  # of a stream that unpacks something itself
        if isinstance(error, OSError) and error.errno is not None:
            raise
        raise CaptureError(f"{name}: {error}") from None
    if first.startswith(GZIP):
        return StreamWindows(_Unpacked(reader, _gzip, GZIP_PIECE), is_there, zlib.error)
    if first == ZSTD:
        frame, damaged = _zstd(name)
        return StreamWindows(_Unpacked(reader, frame, ZSTD_PIECE), is_there, damaged)
    return FileWindows(file) if _is_whole_file(reader) else StreamWindows(reader, is_there)


def _more_of(file: BinaryIO) -> Callable[[], bool]:
    """Return what tells whether a read gives something at once: bytes, or the end. Only pipes and the like
    have to be asked.
    """
    try:
        number = file.fileno()
    except (AttributeError, OSError, ValueError):  # an object in Python, or closed
        return lambda: True
    if stat.S_ISREG(os.fstat(number).st_mode):
        return lambda: True
    poll = select.poll()
    poll.register(number, select.POLLIN)
    return lambda: bool(poll.poll(0))


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
        read = getattr(self._file, "read1", self._file.read)  # which loses nothing where it fails
        data, self._first = self._first or read(len(buffer)), b""
        buffer[: len(data)] = data
        return len(data)


def _gzip() -> Any:
    return zlib.decompressobj(_GZIP_ONLY)


def _zstd(name: str) -> tuple[Callable[[], Any], type[Exception]]:
    """Return what makes a `Frame` of zstd, and what that raises for damaged data. Raises CaptureError."""
    try:
        from compression import zstd  # type: ignore[import-not-found]  # Python 3.14
    except ImportError:
        pass
    else:
        return zstd.ZstdDecompressor, zstd.ZstdError
    try:
        import zstandard
    except ImportError:
        raise CaptureError(f"{name}: compressed with zstd; pip install 'ebpfjit[zstd]' reads that") from None
    return zstandard.ZstdDecompressor().decompressobj, zstandard.ZstdError


class _Unpacked:
    """What compressed data holds, one frame behind the other; of one that ends early what there is of it.

    Readers of whole files (`gzip.GzipFile`, `zstandard`'s) lose that, or do not say that it ended.
    """

    def __init__(self, file: Stream, new: Callable[[], Frame], piece: int) -> None:
        self._file, self._new, self._piece = file, new, piece
        self._frame = new()
        self._rest = b""

    def read1(self, size: int = -1) -> bytes:
        """Return what the next bytes add, however many. Raises EOFError, and what the frame raises."""
        while True:
            data = self._rest or self._file.read1(self._piece)
            self._rest = b""
            if self._frame.eof:
                data = data.lstrip(b"\0")  # which fill up blocks of tapes
                if data:
                    self._frame = self._new()
            elif not data:
                raise EOFError("the compressed data ends early")
            if not data:
                return b""
            found = self._frame.decompress(data)
            self._rest = self._frame.unused_data
            if found:
                return found
