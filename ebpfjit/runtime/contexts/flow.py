"""The context of flow dissectors: __sk_buff whose flow_keys point to what the program is to fill
(net/bpf/test_run.c, bpf_prog_test_run_flow_dissector).
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from typing import Any

from ebpfjit.errors import InputError
from ebpfjit.runtime.contexts.outcome import Outcome
from ebpfjit.runtime.contexts.packet import LINK_HEADER_SIZE, ROOM, STRUCT_ROOM
from ebpfjit.runtime.contexts.skb import SOCK_AT, SkbContext
from ebpfjit.runtime.contexts.structs import FLOW_KEYS, SK_BUFF, SOCK
from ebpfjit.runtime.contexts.types import ProgramType

FLOW_KEYS_AT = SOCK_AT + SOCK.size
"""Where in the context's memory its bpf_flow_keys are."""

SETTABLE = ("flags",)
KNOWN_FLAGS = 1 | 2 | 4
"""BPF_FLOW_DISSECTOR_F_PARSE_1ST_FRAG, _STOP_AT_FLOW_LABEL, _STOP_AT_ENCAP."""


class FlowContext(SkbContext):
    """__sk_buff with a frame and its flow keys, by whose names fields are set and left."""

    def __init__(self, type_: ProgramType, room: int = ROOM) -> None:
        super().__init__(type_, room)
        self.keys = self.memory.region(
            FLOW_KEYS.name, FLOW_KEYS_AT, FLOW_KEYS_AT + FLOW_KEYS.size, writable=True
        )
        self.regions.append(self.keys)

    def start(self, data: bytes | memoryview, fields: Mapping[str, Any] | None) -> None:
        """Begin a run on a copy of `data`, a frame, all of which is seen. Raises InputError."""
        given = FLOW_KEYS.settings(fields or {}, SETTABLE)
        flags = FLOW_KEYS.by_name["flags"].encode(given.get("flags", 0))
        if int.from_bytes(flags, "little") & ~KNOWN_FLAGS:
            raise InputError(f"context field flags is a sum of 1, 2 and 4, not {given['flags']}")
        super().start(data, None)
        offset = SK_BUFF.by_name["flow_keys"].offset
        struct.pack_into("<Q", self.words, offset, self.memory.start + FLOW_KEYS_AT)
        keys = bytearray(FLOW_KEYS.size)
        struct.pack_into("<HH", keys, 0, LINK_HEADER_SIZE, LINK_HEADER_SIZE)
        protocol, at = FLOW_KEYS.by_name["n_proto"], FLOW_KEYS.by_name["flags"].offset
        keys[protocol.offset : protocol.stop] = data[LINK_HEADER_SIZE - 2 : LINK_HEADER_SIZE]
        keys[at : at + len(flags)] = flags
        self.keys.view[:] = keys

    def outcome(self) -> Outcome:
        """Return the frame and the keys, their offsets held within the frame, as the kernel does."""
        keys = {field.name: field.read(self.keys.view) for field in FLOW_KEYS.shown}
        nhoff, thoff = struct.unpack_from("<HH", self.keys.view)
        nhoff = min(max(nhoff, LINK_HEADER_SIZE), self.size & 0xFFFF)
        keys["nhoff"], keys["thoff"] = nhoff, min(max(thoff, nhoff), self.size & 0xFFFF)
        return Outcome(super().outcome().data, b"", {**keys})


assert FLOW_KEYS_AT + FLOW_KEYS.size <= STRUCT_ROOM
