"""The context of sk_msg programs: struct sk_msg_md with its message, whose bytes helpers move.

[ message ................................ ][ room ]
            [ what the program sees ]
            data                    data_end
"""

from __future__ import annotations

from ebpfjit.runtime import memory
from ebpfjit.runtime.contexts.named import NamedContext
from ebpfjit.runtime.contexts.outcome import FieldValues, Outcome
from ebpfjit.runtime.memory import Region, address_of

ROOM = 1 << 16
"""Bytes that helpers may put into a message: MAX_MSG_FRAGS pages are hardly less."""


class MessageContext(NamedContext):
    """sk_msg_md with its message, in one piece. `told` is what helpers say beside the verdict."""

    def _make_payload(self, name: str, data: memoryview) -> Region:
        self.told: dict[str, int] = {}
        self._message = memoryview(bytearray(len(data) + ROOM))
        self._message[: len(data)] = data
        self._size = len(data)
        start = address_of(self._message)
        return Region(name, start, start + len(data), True, self._message[: len(data)])

    def see(self, start: int, end: int) -> None:
        """Let the program see the bytes from `start` to `end` of the message, in the middle of a run."""
        assert self.payload is not None  # messages always have one
        first = address_of(self._message)
        self.payload.start, self.payload.stop = first + start, first + end
        self.payload.view = self._message[start:end]
        self._point_to_payload("data", "data_end", self.payload)
        self.put("size", self._size.to_bytes(4, "little"))
        space = memory.running()
        if space is not None:
            space.changed()

    def splice(self, start: int, gone: int, more: int) -> bool:
        """Take bytes out of the message and put zeros in at `start`, all within; False: there is no room."""
        size = self._size - gone + more
        if size > len(self._message):
            return False
        memory.pay(self._size)
        rest = bytes(self._message[start + gone : self._size])
        self._message[start : start + more] = bytes(more)
        self._message[start + more : size] = rest
        self._size = size
        self.see(0, size)
        return True

    @property
    def size(self) -> int:
        """Bytes of the message."""
        return self._size

    def bytes_at(self, offset: int, size: int) -> bytes:
        """Return bytes of the message; the caller has checked the range."""
        return bytes(self._message[offset : offset + size])

    def outcome(self) -> Outcome:
        """Return the message after the run, and the fields."""
        return Outcome(self.bytes_at(0, self._size), b"", self._values(), self.redirect)

    def _values(self) -> FieldValues:
        return {**super()._values(), **self.told}
