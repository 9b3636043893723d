"""The context of XDP programs: struct xdp_md (net/bpf/test_run.c, bpf_prog_test_run_xdp)."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from typing import Any

from ebpfjit.bits import W32
from ebpfjit.errors import InputError
from ebpfjit.runtime.contexts.outcome import Outcome
from ebpfjit.runtime.contexts.packet import LINK_HEADER_SIZE, STRUCT_ROOM, PacketContext
from ebpfjit.runtime.contexts.structs import XDP_MD

HEADROOM = 256
"""XDP_PACKET_HEADROOM (include/uapi/linux/bpf.h)."""

FRAME_SIZE = 4096
"""What a packet, its head- and its tailroom share: a page."""

SHARED_INFO_SIZE = 320
"""struct skb_shared_info, at the end of the frame and not the program's."""

XDP_FRAME_SIZE = 40
"""struct xdp_frame, at the start of the headroom and not the program's."""

LARGEST_METADATA = 252
LOOPBACK = 1
SETTABLE = ("data", "data_end", "ingress_ifindex", "rx_queue_index")

_POINTERS = struct.Struct("<III")
_ZEROS = bytes(HEADROOM)


class XdpContext(PacketContext):
    """xdp_md with its packet: 256 bytes of headroom, tailroom up to the end of a page."""

    struct = XDP_MD
    headroom = HEADROOM
    tailroom = FRAME_SIZE

    def start(self, data: bytes | memoryview, fields: Mapping[str, Any] | None) -> None:
        """Begin a run on a copy of `data`.

        The field `data` says how many bytes at the front of `data` are metadata; `data_end`, where
        it is given, is the size of both. Raises InputError.
        """
        self.begin(data, len(data), fields)

    def begin(self, data: bytes | memoryview, linear: int, fields: Mapping[str, Any] | None) -> None:
        """Begin a run whose first `linear` bytes are in the first buffer. Raises InputError."""
        size = len(data)
        metadata, ifindex, queue = 0, LOOPBACK, 0
        if fields:
            metadata, ifindex, queue = self._settings(fields, size)
        if size - metadata < LINK_HEADER_SIZE:
            raise InputError(
                f"XDP programs run on packets of at least {LINK_HEADER_SIZE} bytes (an Ethernet "
                f"header), this one has {size - metadata}"
            )
        self.clear()
        self.words[12:24] = _POINTERS.pack(ifindex, queue, 0)
        start = self.first + HEADROOM - metadata
        self.view[start : start + linear] = data[:linear]
        self.stack.reset()
        self.adopt(linear, metadata)

    def clear(self) -> None:
        """Make what no run writes anew as it was: the headroom."""
        self.view[self.first : self.first + HEADROOM] = _ZEROS

    def adopt(self, size: int, metadata: int = 0) -> None:
        """Go on with a run on what is there already: `size` bytes, metadata included."""
        data = self.first + HEADROOM
        self.move(data, data - metadata + size, data - metadata)
        self.hard_end = self.first + max(FRAME_SIZE, HEADROOM + size + SHARED_INFO_SIZE) - SHARED_INFO_SIZE
        self.redirect = None
        self.place()

    def resume(self, size: int) -> None:
        """Go on with a run on `size` bytes that has moved its packet to where the struct says."""
        data, data_end, data_meta = (each - self.memory.start for each in _POINTERS.unpack(self.words[:12]))
        self.adopt(size)
        self.move(data, data_end, data_meta)
        self.place()

    @property
    def template(self) -> bytes:
        """What the struct starts as, but for what follows from the packet."""
        return bytes(12) + _POINTERS.pack(LOOPBACK, 0, 0)

    def _settings(self, fields: Mapping[str, Any], size: int) -> tuple[int, int, int]:
        """Return (bytes of metadata, ifindex, queue) from the fields that were given."""
        fields = self.struct.settings(fields, SETTABLE)
        for name, value in fields.items():
            self.struct.by_name[name].encode(value)
        metadata = fields.get("data", 0)
        if not 0 <= metadata <= min(LARGEST_METADATA, size) or metadata % 4:
            raise InputError(
                f"context field data is the size of the metadata in front of the packet: a multiple "
                f"of 4 up to {LARGEST_METADATA}, not {metadata}"
            )
        if fields.get("data_end", size) != size:
            raise InputError(f"context field data_end is the size of the data, {size}, or left out")
        ifindex, queue = fields.get("ingress_ifindex", 0), fields.get("rx_queue_index", 0)
        if queue and not ifindex:
            raise InputError("context field rx_queue_index needs ingress_ifindex beside it")
        return metadata, W32.wrap(ifindex) or LOOPBACK, W32.wrap(queue)

    def write_pointers(self) -> None:
        """Write data, data_end and data_meta."""
        base = self.memory.start
        self.words[:12] = _POINTERS.pack(base + self.data, base + self.data_end, base + self.data_meta)

    def outcome(self) -> Outcome:
        """Return packet and metadata; data and data_end count from the metadata, as the kernel's do."""
        meta, data, end = self.data_meta, self.data, self.data_end
        ifindex, queue, egress = _POINTERS.unpack_from(self.words, 12)
        return Outcome(
            bytes(self.view[data:end]),
            bytes(self.view[meta:data]),
            {
                "data": data - meta,
                "data_end": end - meta,
                "data_meta": 0,
                "ingress_ifindex": ifindex,
                "rx_queue_index": queue,
                "egress_ifindex": egress,
            },
            self.redirect,
        )


assert XDP_MD.size <= STRUCT_ROOM
