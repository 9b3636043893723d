"""The context of XDP programs that take packets in pieces: the first buffer, and pages behind it
(xdp_buff with fragments; net/bpf/test_run.c, bpf_prog_test_run_xdp).

    [ data .......... data_end ]   [ fragment ]  [ fragment ] ...
      up to 3520 bytes              up to 4096 bytes each, up to 17: reached by helpers alone
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ebpfjit.errors import InputError
from ebpfjit.record import replace
from ebpfjit.runtime.contexts.outcome import Outcome
from ebpfjit.runtime.contexts.packet import LINK_HEADER_SIZE, ROOM
from ebpfjit.runtime.contexts.types import ProgramType
from ebpfjit.runtime.contexts.xdp import FRAME_SIZE, HEADROOM, SHARED_INFO_SIZE, XdpContext

PAGE_SIZE = 4096
MAX_SKB_FRAGS = 17
LARGEST_LINEAR = FRAME_SIZE - HEADROOM - SHARED_INFO_SIZE
"""Bytes of packet in the first buffer: what a page has besides headroom and struct skb_shared_info."""


class FragsContext(XdpContext):
    """xdp_md with a packet of which only the first buffer lies between data and data_end."""

    def __init__(self, type_: ProgramType, room: int = ROOM) -> None:
        super().__init__(type_, room)
        self.fragments: list[bytearray] = []

    def start(self, data: bytes | memoryview, fields: Mapping[str, Any] | None) -> None:
        """Begin a run; the field `data_end` may say that less than 3520 bytes are in the first buffer.

        Raises InputError.
        """
        given = dict(fields or {})
        size, metadata = len(data), given.get("data", 0)
        metadata = metadata if isinstance(metadata, int) else 0  # what is wrong with it is said below
        linear = min(size, metadata + LARGEST_LINEAR)
        end = given.pop("data_end", None)
        if end is not None:
            if not isinstance(end, int) or not metadata <= end <= size:
                raise InputError(
                    f"context field data_end is how many of the {size} bytes are in the first buffer, "
                    f"not {end!r}"
                )
            linear = min(end, linear)
        if size - metadata < LINK_HEADER_SIZE:
            linear = size  # refused below
        rest = bytes(data[linear:])
        if len(rest) > MAX_SKB_FRAGS * PAGE_SIZE:
            raise InputError(
                f"packets have at most {MAX_SKB_FRAGS} fragments of {PAGE_SIZE} bytes behind the first "
                f"buffer, and behind its {linear} bytes there are {len(rest)} (ENOMEM)"
            )
        self.begin(data, linear, given)
        pieces = range(0, len(rest), PAGE_SIZE)
        self.fragments = [bytearray(rest[start : start + PAGE_SIZE]) for start in pieces]

    @property
    def whole(self) -> int:
        """Bytes of the packet, all of its buffers together."""
        return self.size + sum(map(len, self.fragments))

    def load_any(self, offset: int, size: int) -> bytes:
        """Return bytes of the packet, wherever they are; the caller has checked the range."""
        return b"".join(bytes(part) for part in self._parts(offset, size))

    def store_any(self, offset: int, data: bytes) -> None:
        """Write bytes of the packet, wherever they are; the caller has checked the range."""
        at = 0
        for part in self._parts(offset, len(data)):
            part[:] = data[at : at + len(part)]
            at += len(part)

    def _parts(self, offset: int, size: int) -> list[memoryview]:
        linear = self.view[self.data : self.data_end]
        parts, start = [], 0
        for buffer in (linear, *(memoryview(each) for each in self.fragments)):
            low, high = max(offset - start, 0), min(offset + size - start, len(buffer))
            if low < high:
                parts.append(buffer[low:high])
            start += len(buffer)
        return parts

    def grow_last(self, size: int) -> bool:
        """Make the last fragment longer by `size` zeros; False: its page has no room."""
        last = self.fragments[-1]
        if size > PAGE_SIZE - len(last):
            return False
        last += bytes(size)
        return True

    def shrink(self, size: int) -> bool:
        """Take `size` bytes off the end, fragments that are empty with them; False: that leaves too few."""
        if size > self.whole - LINK_HEADER_SIZE:
            return False
        while self.fragments and size > 0:
            taken = min(size, len(self.fragments[-1]))
            del self.fragments[-1][len(self.fragments[-1]) - taken :]
            size -= taken
            if not self.fragments[-1]:
                self.fragments.pop()
        if not self.fragments:
            self.move(self.data, self.data_end - max(size, 0), self.data_meta)
        return True

    def outcome(self) -> Outcome:
        """Return the whole packet; data_end counts the first buffer alone."""
        left = super().outcome()
        return replace(left, data=left.data + b"".join(self.fragments))
