"""The context of programs on socket buffers: struct __sk_buff (net/bpf/test_run.c,
bpf_prog_test_run_skb).
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from typing import Any

from ebpfjit.errors import InputError
from ebpfjit.runtime.contexts.outcome import FieldValues, Outcome
from ebpfjit.runtime.contexts.packet import LINK_HEADER_SIZE, ROOM, PacketContext
from ebpfjit.runtime.contexts.structs import SK_BUFF, SOCK
from ebpfjit.runtime.contexts.types import ProgramType
from ebpfjit.runtime.network import LOOPBACK, TunnelKey

LARGEST_SIZE = 16384 - 320
"""How long helpers may make a packet: SKB_MAX_ALLOC, four pages without struct skb_shared_info."""

SETTABLE = (
    "mark", "priority", "ingress_ifindex", "ifindex", "cb", "tstamp", "wire_len", "gso_segs",
    "gso_size", "hwtstamp",
)  # fmt: skip
LARGEST_WIRE_LEN, LARGEST_GSO_SEGS = 65536, 0xFFFF

ETH_P_IP, ETH_P_IPV6, ETH_P_802_3, ETH_P_802_2, ETH_P_8021Q, ETH_P_8021AD = (
    0x0800, 0x86DD, 0x0001, 0x0004, 0x8100, 0x88A8,
)  # fmt: skip
SMALLEST_ETHERTYPE = 0x600
PACKET_HOST, PACKET_BROADCAST, PACKET_MULTICAST, PACKET_OTHERHOST = range(4)
AF_INET, AF_INET6 = 2, 10

SOCK_AT = 256
"""Where in the context's memory its bpf_sock is."""

SOCK_FIELDS = (
    "family", "remote_ip4", "local_ip4", "remote_ip6", "local_ip6", "remote_port", "local_port",
)  # fmt: skip
"""Fields of sk_skb alone: its socket's."""

_ADDRESSES = ("data", "data_end", "data_meta", "flow_keys", "sk")

_SOCK_FIELDS = tuple(
    (SK_BUFF.by_name[name].offset, SK_BUFF.by_name[name].stop, SOCK.by_name[source].offset)
    for name, source in {
        "family": "family", "remote_ip4": "dst_ip4", "local_ip4": "src_ip4", "remote_ip6": "dst_ip6",
        "local_ip6": "src_ip6",
    }.items()
)  # fmt: skip
"""What __sk_buff shows of the socket: (start, stop) there, start in bpf_sock."""

_NEW_SOCK = bytes(72) + (7).to_bytes(4, "little") + b"\xff" * 4
"""A bpf_sock of the state TCP_CLOSE, without an rx queue."""


def ethertype(data: bytes | memoryview) -> int:
    """Return the protocol of an Ethernet frame, as eth_type_trans finds it (host byte order)."""
    number = data[12] << 8 | data[13]
    if number >= SMALLEST_ETHERTYPE:
        return number
    return ETH_P_802_3 if bytes(data[14:16]) == b"\xff\xff" else ETH_P_802_2


def packet_type(destination: bytes) -> int:
    """Return what a destination address means to the loopback device: PACKET_*.

    Its own address and its broadcast address are zero, so ff:ff:ff:ff:ff:ff is any multicast.
    """
    if destination == bytes(6):
        return PACKET_HOST
    return PACKET_MULTICAST if destination[0] & 1 else PACKET_OTHERHOST


def _swapped(number: int) -> int:
    """Return 16 bits in the other byte order."""
    return (number & 0xFF) << 8 | number >> 8 & 0xFF


class SkbContext(PacketContext):
    """__sk_buff with its packet.

    `mac_header` and `network_header` are offsets into the memory, as the kernel keeps them beside
    the data. `tunnel` and `tunnel_options` are what bpf_skb_set_tunnel_key and _opt stored.
    `encapsulated` is true once bpf_skb_adjust_room made room for an outer header. `checksums`
    counts those known to be good, beyond the first; None: none is.
    """

    struct = SK_BUFF
    headroom = tailroom = 1 << 15

    @property
    def headers(self) -> SkbContext:
        """Itself: it has a link header and a network header."""
        return self

    def __init__(self, type_: ProgramType, room: int = ROOM) -> None:
        super().__init__(type_, room)
        self.sock = self.memory.region(SOCK.name, SOCK_AT, SOCK_AT + SOCK.size, writable=False)
        self.sock.rights = SOCK.rights
        self.regions.append(self.sock)
        self.link_header = b""
        self.mac_header = self.network_header = self.first
        self.tunnel: TunnelKey | None = None
        self.tunnel_options = b""
        self.encapsulated = False
        self.checksums: int | None = None

    def start(self, data: bytes | memoryview, fields: Mapping[str, Any] | None) -> None:
        """Begin a run on a copy of `data`, an Ethernet frame.

        Types of the network layer see it from byte 14 on; without frames `data` is any part of a stream.
        Raises InputError.
        """
        size = len(data)
        if self.type.frames and size < LINK_HEADER_SIZE:
            raise InputError(
                f"{self.type.name} programs run on packets of at least {LINK_HEADER_SIZE} bytes (an "
                f"Ethernet header), this one has {size}"
            )
        start = self.first + self.headroom
        self.view[start : start + size] = data
        self._begin(size)
        words = bytearray(self.template[: SK_BUFF.size])
        protocol = ethertype(data) if self.type.frames else 0
        if self.type.frames:
            struct.pack_into("<I", words, 4, packet_type(bytes(data[:6])))
            struct.pack_into("<I", words, 16, _swapped(protocol))
        struct.pack_into("<I", words, 160, self.size)
        if fields:
            self._set_fields(words, fields)
        self.words[:] = words
        if self.type.frames:
            self._fill_sock(protocol)
        else:
            self._fill_stream_sock()
        self.stack.reset()
        self.place()

    def _begin(self, size: int) -> None:
        """Forget the last run; `size` bytes of frame are in place."""
        self.mac_header = self.first + self.headroom
        self.network_header = self.mac_header + (LINK_HEADER_SIZE if self.type.frames else 0)
        hidden = LINK_HEADER_SIZE if self.type.network_layer else 0
        self.link_header = bytes(self.view[self.mac_header : self.mac_header + hidden])
        self.move(self.mac_header + hidden, self.mac_header + size)
        self.redirect, self.tunnel, self.tunnel_options = None, None, b""
        self.encapsulated, self.checksums, self.clones = False, None, []

    @property
    def lowest(self) -> int:
        """Where the packet starts, or the first of its headers that its program does not see."""
        return min(self.data_meta, self.mac_header, self.network_header)

    def slide(self, distance: int) -> None:
        """Move the packet, its headers with it."""
        super().slide(distance)
        self.shift_headers(distance)

    def shift_headers(self, distance: int) -> None:
        """Move the headers with the bytes before some offset. Raises InputError as `move`."""
        if min(self.mac_header, self.network_header) + distance < self.first:
            raise InputError(f"headers {-distance} bytes further in front would leave the packet's memory")
        self.mac_header += distance
        self.network_header += distance

    def insert(self, at: int, size: int) -> bool:
        """Put `size` zeros in at offset `at`; what is before moves down. False: there is no room."""
        if not 0 <= at <= self.size or not self.make_room(before=size):
            return False
        before = self.bytes_at(0, at)
        self.move(self.data - size, self.data_end)
        self.store_at(0, before + bytes(size))
        return True

    def remove(self, at: int, size: int) -> bool:
        """Take `size` bytes out at offset `at`; what is before moves up. False: they are not there."""
        if at < 0 or size < 0 or at + size > self.size:
            return False
        before = self.bytes_at(0, at)
        self.move(self.data + size, self.data_end)
        self.store_at(0, before)
        return True

    def adopt(self, size: int) -> None:
        """Go on with a run on what is there already: struct, socket, and `size` bytes of packet."""
        self._begin(size + (LINK_HEADER_SIZE if self.type.network_layer else 0))
        self.place()

    @property
    def template(self) -> bytes:
        """What struct and socket start as, but for what follows from the packet."""
        words = bytearray(SOCK_AT)
        struct.pack_into("<I", words, 40, LOOPBACK)
        struct.pack_into("<Q", words, 168, self.memory.start + SOCK_AT)
        return bytes(words) + _NEW_SOCK

    def clear(self) -> None:
        """Make what no run writes anew as it was: all is written."""

    @property
    def link(self) -> int:
        """The address of the link header."""
        return self.memory.start + self.mac_header

    @property
    def network(self) -> int:
        """The address of the network header."""
        return self.memory.start + self.network_header

    @property
    def protocol(self) -> int:
        """The ethertype, in host byte order."""
        return _swapped(self.get("protocol"))

    @protocol.setter
    def protocol(self, number: int) -> None:
        self.set("protocol", _swapped(number))

    def _set_fields(self, words: bytearray, fields: Mapping[str, Any]) -> None:
        settable = SETTABLE if self.type.frames else SETTABLE + SOCK_FIELDS
        for name, value in self.struct.settings(fields, settable).items():
            field = self.struct.by_name[name]
            encoded = field.encode(value)
            if (name == "ifindex" or name == "wire_len") and not any(encoded):
                continue  # 0 means the default, to the kernel as well
            words[field.offset : field.stop] = encoded
        wire_len, segments = (
            self.struct.by_name[name].read(memoryview(words)) for name in ("wire_len", "gso_segs")
        )
        assert isinstance(wire_len, int)
        assert isinstance(segments, int)
        if not self.size <= wire_len <= max(LARGEST_WIRE_LEN, self.size):
            raise InputError(
                f"context field wire_len is from the packet's size, {self.size}, to {LARGEST_WIRE_LEN}, "
                f"not {wire_len}"
            )
        if segments > LARGEST_GSO_SEGS:
            raise InputError(f"context field gso_segs is at most {LARGEST_GSO_SEGS}, not {segments}")

    def _fill_sock(self, protocol: int) -> None:
        """Make the socket that the kernel's test run gives a packet: unbound, of no protocol."""
        view, header = self.sock.view, self.network_header
        view[:] = _NEW_SOCK
        room = self.data_end - header
        family = {ETH_P_IP: AF_INET, ETH_P_IPV6: AF_INET6}.get(protocol, 0)
        view[4:8] = family.to_bytes(4, "little")
        if family == AF_INET and room >= 20:
            view[24:28] = self.view[header + 12 : header + 16]
            view[52:56] = self.view[header + 16 : header + 20]
        if family == AF_INET6 and room >= 40:
            view[28:44] = self.view[header + 8 : header + 24]
            view[56:72] = self.view[header + 24 : header + 40]
        for start, stop, source in _SOCK_FIELDS:
            self.words[start:stop] = view[source : source + stop - start]

    def _fill_stream_sock(self) -> None:
        """Make the socket whose stream this is, from what the struct shows of it."""
        self.sock.view[:] = _NEW_SOCK
        for start, stop, source in _SOCK_FIELDS:
            self.sock.view[source : source + stop - start] = self.words[start:stop]

    def write_pointers(self) -> None:
        """Write len, and data, data_end and data_meta where the type's programs see them."""
        words, base = self.words, self.memory.start
        words[0:4] = self.size.to_bytes(4, "little")
        if self.type.reads_packet:
            words[76:80] = (base + self.data).to_bytes(4, "little")
            words[80:84] = (base + self.data_end).to_bytes(4, "little")
            words[140:144] = (base + self.data_meta).to_bytes(4, "little")

    def outcome(self) -> Outcome:
        """Return the packet, its link header before it, and all fields that are no addresses."""
        fields: FieldValues = {**self.struct.read(self.words)}
        for name in (*_ADDRESSES, *(SOCK_FIELDS if self.type.frames else ())):
            del fields[name]
        data = self.link_header + bytes(self.view[self.data : self.data_end])
        return Outcome(data, b"", fields, self.redirect, tuple(self.clones))
