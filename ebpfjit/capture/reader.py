"""`read`: a capture, batch by batch."""

from __future__ import annotations

from collections.abc import Iterator

from ebpfjit.capture import formats
from ebpfjit.capture.batch import Batch
from ebpfjit.capture.formats import Damaged
from ebpfjit.capture.spare import Spare
from ebpfjit.capture.walk import NEVER, WRONG, Interface, Status, Walked, walk
from ebpfjit.capture.windows import Source, Window, Windows, opened
from ebpfjit.errors import CaptureError
from ebpfjit.record import dataclass

PACKETS = 1 << 12
"""Packets of a batch, at most, where nothing else is said."""

MOST_COLUMNS = 1 << 22
"""Bytes of columns that are used again."""


def read(source: Source, *, packets: int = PACKETS) -> Iterator[Batch]:
    """Yield the packets of a capture, in batches of at most so many.

    `source` is a path ("-" is the standard input), or a file that is open for reading in binary mode: pcap
    and pcapng, each of either byte order, as they are or compressed by gzip or zstd (`ebpfjit[zstd]`). A
    megabyte of the capture is read at a time, into memory that the batches of it have: nothing is copied once
    more.

    Raises CaptureError, behind the batches of all packets before it, for what is damaged or was cut off;
    OSError where the file cannot be read, ValueError for `packets` below 1.

        for batch in ebpfjit.capture.read("big.pcap"):
            verdicts = fn.map(batch)
    """
    if packets < 1:
        raise ValueError(f"a batch has at least 1 packet, not {packets}")
    with opened(source) as (windows, name):
        yield from Reader(windows, name, first_state(windows, name), packets).batches()


@dataclass(frozen=True, slots=True)
class State:
    """Where reading a capture is, and what its headers have said so far: all that reading on needs.

    `form` is "pcap" or "pcapng", `order` "<" or ">" as `struct` has it; `position` is the byte of the next
    record, `packets` are those before it.
    """

    form: str
    order: str = "<"
    interfaces: tuple[Interface, ...] = ()
    link: int = 0
    position: int = 0
    packets: int = 0


def first_state(windows: Windows, name: str) -> State:
    """Return the state behind the header of a capture. Raises CaptureError for what is none."""
    try:
        window = windows.at(0, formats.PCAP_HEADER)
    except Damaged as damaged:
        raise CaptureError(f"{name}: {damaged}") from None
    magic = bytes(window.view[:4])
    if magic in formats.PCAP:
        header = bytes(window.view[: formats.PCAP_HEADER])
        if len(header) < formats.PCAP_HEADER:
            early = formats.PCAP_HEADER - len(header)
            raise CaptureError(f"{name}: packet 1, byte 0: the file ends {early} bytes early")
        try:
            order, interface = formats.pcap_interface(header)
        except Damaged as damaged:
            raise CaptureError(f"{name}: {damaged}") from None
        return State("pcap", order, (interface,), interface.link_type, formats.PCAP_HEADER)
    if magic == formats.PCAPNG.to_bytes(4, "little"):
        return State("pcapng")
    if magic in formats.MODIFIED:
        raise CaptureError(
            f"{name}: a pcap file of a patched libpcap (it starts with {magic.hex(' ')}), whose records have"
            " longer headers; tcpdump -r FILE -w OTHER makes a usual one"
        )
    starts = f"starts with {magic.hex(' ')}" if magic else "is empty"
    raise CaptureError(f"{name}: not a capture: neither pcap nor pcapng ({starts})")


class Reader:
    """Reads a capture on from a state, up to the first record at `stop` or behind it."""

    def __init__(self, windows: Windows, name: str, state: State, capacity: int, stop: int = NEVER) -> None:
        self.windows, self.name, self.capacity, self.stop = windows, name, capacity, stop
        self.form, self.order, self.link = state.form, state.order, state.link
        self.interfaces = list(state.interfaces)
        self.packed = bytearray().join(each.packed for each in self.interfaces)
        self.position, self.packets = state.position, state.packets
        self._spare = Spare(MOST_COLUMNS)

    @property
    def state(self) -> State:
        """Where reading is."""
        known = tuple(self.interfaces)
        return State(self.form, self.order, known, self.link, self.position, self.packets)

    def batches(self) -> Iterator[Batch]:
        """Yield batches up to the end. Raises CaptureError."""
        wanted = 1
        while True:
            window = self._window(wanted)
            walked = self._walk(window)
            self.position = window.start + walked.position
            if walked.count:
                yield self._batch(window, walked)
                self.packets += walked.count
            status = walked.status
            wanted = 1
            if status is Status.STOPPED or (status is Status.END and window.is_last):
                return
            if status is Status.PARTIAL:
                there, wanted = len(window.view) - walked.position, self._record_size(window)
                if window.is_last:
                    raise self.damaged(f"the file ends {wanted - there} bytes early")
            elif status is Status.HEADER:
                self._header(window)
                while self._is_header(window):  # a walk costs what all interfaces before it do
                    self._header(window)
            elif status is Status.OTHER_LINK:
                self._use_link_of(window)
            elif status in WRONG:
                raise self.damaged(WRONG[status])
            del window, walked  # their memory is free then, and still in the processor's cache

    def _window(self, size: int) -> Window:
        """Return a window with so many bytes from where reading is, or all there are. Raises CaptureError."""
        try:
            return self.windows.at(self.position, size)
        except Damaged as damaged:
            raise self.damaged(str(damaged)) from None

    def _walk(self, window: Window) -> Walked:
        start = self.position - window.start
        if start >= len(window.view):  # nothing follows
            return Walked((window.view,) * 4, 0, start, Status.END)
        swapped = self.order == ">"
        return walk(
            self.form, window.view, start, self.packed, self.link, swapped=swapped,
            capacity=self.capacity, spare=self._spare, stop=max(self.stop - window.start, 0),
        )  # fmt: skip

    def _batch(self, window: Window, walked: Walked) -> Batch:
        offsets, lengths, times, wires = walked.columns
        place = self.packets, self.position, self.name
        return Batch(window.view, offsets, lengths, times, wires, self.link, *place)

    def damaged(self, reason: str) -> CaptureError:
        """Return the error for what comes behind the packets so far."""
        where = f"packet {self.packets + 1}, byte {self.position}"
        return CaptureError(f"{self.name}: {where}: {reason}", self.packets, self.position)

    def _record_size(self, window: Window) -> int:
        """Return how many bytes the record has where reading is, as far as those in the window say."""
        there = bytes(window.view[self.position - window.start :][: formats.RECORD_HEADER])
        return formats.record_size(self.form, self.order, there)

    def _bytes(self, window: Window, size: int) -> bytes:
        """Return so many bytes from where reading is."""
        if len(window.view) - (self.position - window.start) < size and not window.is_last:
            window = self._window(size)
        start = self.position - window.start
        found = bytes(window.view[start : start + size])
        if len(found) < size:
            raise self.damaged(f"the file ends {size - len(found)} bytes early")
        return found

    def _header(self, window: Window) -> None:
        """Take in a section or an interface, where reading is, and go on behind it."""
        try:
            head = self._bytes(window, 12)
            is_section = head[:4] == formats.PCAPNG.to_bytes(4, "little")
            order = formats.section_order(head) if is_section else self.order
            size = formats.block_size(order, head, 28 if is_section else 20)
            block = self._bytes(window, size)
            formats.check_block(order, block)
            if is_section:
                self.order, self.interfaces, self.packed = order, [], bytearray()
            elif len(self.interfaces) == formats.MAX_INTERFACES:
                raise Damaged(f"more than {formats.MAX_INTERFACES} interfaces")
            else:
                self.interfaces.append(formats.interface(order, block))
                self.packed += self.interfaces[-1].packed
                if len(self.interfaces) == 1:
                    self.link = self.interfaces[0].link_type
        except Damaged as damaged:
            raise self.damaged(str(damaged)) from None
        self.position += size

    def _is_header(self, window: Window) -> bool:
        """True where an interface is seen in the window, where reading is."""
        start = self.position - window.start
        kind = bytes(window.view[start : start + 4]) if self.position < self.stop else b""
        return kind == formats.INTERFACE.to_bytes(4, "little" if self.order == "<" else "big")

    def _use_link_of(self, window: Window) -> None:
        """Go on with the link type of the packet where reading is."""
        head = self._bytes(window, 12)
        self.link = self.interfaces[formats.interface_of(self.order, head)].link_type
