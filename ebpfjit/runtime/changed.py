"""`Changed`: the packets that a batch left, side by side."""

from __future__ import annotations

from array import array
from collections.abc import Iterator

NO_REASON = (1 << 64) - 1
"""What stands for the slot that set a result, where that is not known."""


class Changed:
    """Packets as a batch left them, one behind the other in one buffer; `fn.map(..., changed=...)` fills it.

    `buffer` holds them, `offsets` and `lengths` are bytes, u64 each: `fn.map` takes the object as packets, as
    it does a batch of a capture. A packet that the program faulted on has no bytes. A VLAN tag that a helper
    set is in the packet. Until a batch has come
    to its end, and behind one that an exception ended, there are none.
    """

    __slots__ = ("_bytes", "_lengths", "_offsets", "_size", "_spare")

    def __init__(self) -> None:
        self._spare: list[bytearray] = []
        self.fill(bytearray(), 0, array("Q"), array("Q"))

    def memory(self, size: int) -> bytearray:
        """Hold nothing any more; return memory for packets, of at least `size` bytes.

        It is what was held in, where nothing has a view of that, and it is large enough.
        """
        self._bytes, self._size, self._offsets, self._lengths = bytearray(), 0, array("Q"), array("Q")
        try:
            data = self._spare.pop()  # it is nobody else's from here on
            data.append(0)  # an error where there is a view
        except (IndexError, BufferError):
            return bytearray(size)
        return data if len(data) >= size else bytearray(size)

    def fill(self, data: bytearray, size: int, offsets: array[int], lengths: array[int]) -> None:
        """Hold these packets, in the first `size` bytes of data, and nothing else any more."""
        self._bytes, self._size, self._offsets, self._lengths = data, size, offsets, lengths
        self._spare[:] = [data]

    @property
    def buffer(self) -> memoryview:
        """All bytes."""
        return memoryview(self._bytes)[: self._size]

    @property
    def offsets(self) -> memoryview:
        """Where in the buffer each packet starts."""
        return memoryview(self._offsets)

    @property
    def lengths(self) -> memoryview:
        """How long each is."""
        return memoryview(self._lengths)

    def __len__(self) -> int:
        return len(self._lengths)

    def __getitem__(self, index: int) -> memoryview:
        start = self._offsets[index]
        return memoryview(self._bytes)[start : start + self._lengths[index]]

    def __iter__(self) -> Iterator[memoryview]:
        return (self[index] for index in range(len(self)))

    def __repr__(self) -> str:
        return f"<{len(self)} packets, {self._size} bytes>"
