"""Writing captures: pcap or pcapng, with nanoseconds, whole or not at all."""

from __future__ import annotations

import contextlib
import os
import secrets
import struct
import sys
from array import array
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from types import TracebackType
from typing import BinaryIO

from ebpfjit.capture import moves
from ebpfjit.capture.batch import Batch
from ebpfjit.capture.formats import PCAPNG
from ebpfjit.capture.links import ETHERNET, link_name
from ebpfjit.capture.spare import Spare
from ebpfjit.capture.walk import LARGEST_PACKET
from ebpfjit.errors import CaptureError

AT_ONCE = 1 << 11
"""Packets whose records are made before they are written: what fits into the processor's cache."""

MOST_RECORDS = 1 << 22
"""Bytes of memory for records that is used again."""

_TIMES = (1 << 32) * 10**9
"""Nanoseconds that pcap can tell."""
_HEADER, _MAGIC = struct.Struct("<IHHiIII"), 0xA1B23C4D
_SECTION = struct.pack("<IIIHHqI", PCAPNG, 28, 0x1A2B3C4D, 1, 0, -1, 28)
_INTERFACE = struct.Struct("<IIHHIHHB3xII")
"""An interface: its link type, all bytes of packets kept, times of 10**-9 seconds."""


@contextlib.contextmanager
def naming(path: str) -> Iterator[None]:
    """Have errors of the system say which file it was, by the name that it is to have."""
    try:
        yield
    except OSError as error:
        if error.errno is None:
            raise
        raise OSError(error.errno, error.strerror, "<stdout>" if path == "-" else path) from None


class Writer:
    """A capture that is written batch by batch to `path`; "-" is the standard output.

    It is a pcap file, of one link type (`link_type`, a u16, else ValueError); where the name ends in
    ".pcapng" it is that, of as many as come. The file has its name when it is whole: what was there before
    stays until the `with` statement ends, and for good where that ends with an exception.

        with Writer("passed.pcap") as writer:
            for batch in read("all.pcap"):
                writer.write(batch, fn.map(batch))
    """

    def __init__(self, path: str | os.PathLike[str], *, link_type: int = ETHERNET) -> None:
        if not 0 <= link_type < 1 << 16:
            raise ValueError(f"a link type is a number from 0 to 65535, not {link_type}")
        self.path = os.fspath(path)
        self.link_type = link_type
        self.written = 0
        self._unfinished = ""
        self._spare = Spare(MOST_RECORDS)
        self._interfaces: dict[int, int] | None = {} if self.path.endswith(".pcapng") else None
        with naming(self.path):
            self._file = self._opened()
            self._begin()

    def _opened(self) -> BinaryIO:
        if self.path == "-":
            return sys.stdout.buffer
        if os.path.exists(self.path) and not os.path.isfile(self.path):
            return open(self.path, "wb")  # a pipe, or a device: nothing is to be kept
        self._unfinished = f"{self.path}.{secrets.token_hex(4)}.unfinished"
        return open(self._unfinished, "xb")

    def _begin(self) -> None:
        """Write what comes first."""
        if self._interfaces is None:
            self._file.write(_HEADER.pack(_MAGIC, 2, 4, 0, 0, LARGEST_PACKET, self.link_type))
        else:
            self._file.write(_SECTION)

    def write(self, batch: Batch, keep: Sequence[int] | None = None) -> int:
        """Write the packets of a batch, those for which `keep` is not 0; return how many.

        Raises CaptureError where a pcap file is given a batch of another link type, ValueError where `keep`
        has another length.
        """
        chosen, count = None, len(batch)
        if keep is not None:
            if len(keep) != count:
                raise ValueError(f"{len(keep)} values for {count} packets")
            chosen = keep if isinstance(keep, bytes | bytearray) else bytes(map(bool, keep))
            count -= chosen.count(0)
        if not count:
            return 0
        with naming(self.path):
            records = self._records(batch.link_type)
            for start in range(0, len(batch), AT_ONCE):
                part = None if chosen is None else chosen[start : start + AT_ONCE]
                self._file.write(records(batch.slice(start, start + AT_ONCE), part))
            if not self._unfinished:
                self._file.flush()  # whoever reads the pipe may wait for it
        self.written += count
        return count

    def _records(self, link_type: int) -> Callable[[Batch, moves.Bytes | None], memoryview]:
        """Return what makes records of packets of a link type, of which the file has to know."""
        if self._interfaces is not None:
            if link_type not in self._interfaces:
                self._interfaces[link_type] = len(self._interfaces)
                self._file.write(_INTERFACE.pack(1, 32, link_type, 0, 0, 9, 1, 9, 0, 32))
            return partial(moves.blocks, interface=self._interfaces[link_type], spare=self._spare)
        if link_type != self.link_type:
            raise CaptureError(
                f"{self.path}: packets of link type {link_type} ({link_name(link_type)}), behind those of"
                f" {self.link_type} ({link_name(self.link_type)}): a pcap file has one link type; one whose"
                " name ends in .pcapng has all"
            )
        return partial(moves.records, spare=self._spare)

    def add(self, data: bytes, timestamp: int, wire_length: int = 0) -> None:
        """Write one packet, `data`, whose `timestamp` is in nanoseconds since 1970.

        It had `wire_length` bytes before it was cut off (0: it was not). Raises ValueError where it is larger
        than captures take, OSError.
        """
        size = len(data)
        if size > LARGEST_PACKET:
            raise ValueError(f"a packet of {size} bytes; captures have up to {LARGEST_PACKET}")
        wire = min(max(wire_length, size), 0xFFFFFFFF)
        time = timestamp % (_TIMES if self._interfaces is None else 1 << 64)
        offset, length, moment, whole = (memoryview(array("Q", [value])) for value in (0, size, time, wire))
        self.write(Batch(memoryview(data), offset, length, moment, whole, self.link_type))

    def __enter__(self) -> Writer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.path == "-":
            with naming(self.path):
                self._file.flush()
            return
        try:
            with naming(self.path):
                self._file.close()  # where the disk is full that is said here
                if error is None and self._unfinished:
                    os.replace(self._unfinished, self.path)
        finally:
            if self._unfinished:
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(self._unfinished)
