"""The context of sock_ops programs: struct bpf_sock_ops, its TCP header, and the SYN of its connection.

[ TCP header: 20 bytes, options ][ room ]        skb_data to skb_data_end; options that are stored go behind
remaining_opt_len                                bytes of options that may still be reserved, or stored
syn                                              the packet that the connection began with
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ebpfjit.errors import InputError
from ebpfjit.runtime import memory
from ebpfjit.runtime.contexts.ip import family_of_frame
from ebpfjit.runtime.contexts.named import NamedContext
from ebpfjit.runtime.contexts.outcome import FieldValues
from ebpfjit.runtime.contexts.packet import LINK_HEADER_SIZE
from ebpfjit.runtime.contexts.types import ProgramType
from ebpfjit.runtime.memory import Region, address_of, flat_view

HEADER_LENGTH, WRITE_HEADER = 14, 15
"""BPF_SOCK_OPS_HDR_OPT_LEN_CB, where options are reserved, and _WRITE_HDR_OPT_CB, where they are stored."""

TCP_HEADER_SIZE, MOST_OPTIONS = 20, 40
_IPV6_HEADER_SIZE = 40


class SockOpsContext(NamedContext):
    """bpf_sock_ops with a TCP header, whose end moves where options are stored.

    `remaining` counts the bytes that options may still take: by default as many as a TCP header has room for.
    `syn` are the headers of the connection's first packet (link, IP, TCP), None where nobody has them.
    Raises InputError for what is no number of bytes, or no such packet.
    """

    beside = ("remaining_opt_len", "syn")

    def __init__(
        self, type_: ProgramType, data: bytes | memoryview, fields: Mapping[str, Any] | None = None
    ) -> None:
        said = dict(fields or {})
        remaining, syn = said.pop("remaining_opt_len", None), said.pop("syn", None)
        self.syn = None if syn is None else _headers(syn)
        super().__init__(type_, data, said)
        header = max(self.size, TCP_HEADER_SIZE)
        self.remaining = max(TCP_HEADER_SIZE + MOST_OPTIONS - header, 0) if remaining is None else remaining
        if not isinstance(self.remaining, int) or not 0 <= self.remaining <= MOST_OPTIONS:
            raise InputError(
                f"context field remaining_opt_len is a number of bytes, at most {MOST_OPTIONS}, "
                f"not {remaining!r}"
            )

    @property
    def op(self) -> int:
        """Why the program is called: BPF_SOCK_OPS_*."""
        return self._number("op")

    @property
    def is_locked(self) -> bool:
        """True where the program may use the socket (is_locked_tcp_sock_ops), which it may in most calls."""
        return self.op <= WRITE_HEADER

    def _make_payload(self, name: str, data: memoryview) -> Region:
        self._header = memoryview(bytearray(len(data) + MOST_OPTIONS))
        self._header[: len(data)] = data
        start = address_of(self._header)
        return Region(name, start, start + len(data), False, self._header[: len(data)])

    def append(self, option: bytes) -> None:
        """Put an option behind the header, in the middle of a run; there is room for it."""
        assert self.payload is not None  # whoever stores one has looked
        size = self.payload.size
        self._header[size : size + len(option)] = option
        self.payload.stop += len(option)
        self.payload.view = self._header[: size + len(option)]
        self._point_to_payload("skb_data", "skb_data_end", self.payload)
        self.remaining -= len(option)
        space = memory.running()
        if space is not None:
            space.changed()

    def _values(self) -> FieldValues:
        values = super()._values()
        if self.op in (HEADER_LENGTH, WRITE_HEADER):
            values["remaining_opt_len"] = self.remaining
        return values


def _headers(packet: Any) -> tuple[bytes, bytes, bytes]:
    """Return link, IP and TCP header of a packet, a frame or one from its IP header on."""
    try:
        data = bytes(flat_view(packet))
    except TypeError:
        data = b""
    link = data[: LINK_HEADER_SIZE if family_of_frame(data) else 0]
    rest = data[len(link) :]
    version = rest[0] >> 4 if rest else 0
    size = {4: 4 * (rest[0] & 15), 6: _IPV6_HEADER_SIZE}.get(version, 0) if rest else 0
    tcp = rest[size:]
    length = 4 * (tcp[12] >> 4) if len(tcp) >= TCP_HEADER_SIZE else 0
    if size < 20 or not TCP_HEADER_SIZE <= length <= len(tcp):
        raise InputError(
            "context field syn is a packet with its IP and TCP headers: a frame, or from the IP header on"
        )
    return link, rest[:size], tcp[:length]
