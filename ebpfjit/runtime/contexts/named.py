"""The contexts of `ebpfjit/runtime/contexts/structs.py`: structs whose fields the caller names.

    [ struct ]   with rights: what Linux lets programs load, or store
      | sk `--> [ bpf_sock ]    80 bytes, read-only
      `-------> [ payload ]     data to data_end, optval to optval_end, skb_data to skb_data_end

Pointers of these structs have 64 bits, so that each part is memory of its own.
"""

from __future__ import annotations

import errno
import struct
from collections.abc import Mapping
from typing import Any, ClassVar

from ebpfjit.errors import InputError
from ebpfjit.runtime.contexts.fields import Field, Struct
from ebpfjit.runtime.contexts.outcome import FieldValues, Outcome
from ebpfjit.runtime.contexts.packet import LARGEST_PACKET
from ebpfjit.runtime.contexts.plain import StructContext, aligned
from ebpfjit.runtime.contexts.structs import SOCK
from ebpfjit.runtime.contexts.types import ProgramType
from ebpfjit.runtime.memory import Region, flat_view
from ebpfjit.runtime.sockets import TCP_LISTEN, Socket

TCP_CLOSE, NO_QUEUE = 7, -1
ETH_P_IP, IPPROTO_UDP = 0x0800, 17
AF_INET, AF_INET6 = 2, 10
LARGEST_PORT = 0xFFFF

_DEFAULTS = {
    "bpf_sk_lookup": {"family": AF_INET},
    # A datagram over IPv4; eth_protocol is in network byte order.
    "sk_reuseport_md": {"eth_protocol": ETH_P_IP >> 8, "ip_protocol": IPPROTO_UDP},
}
_LENGTHS = {
    "sk_msg_md": "size", "sk_reuseport_md": "len", "bpf_sockopt": "optlen", "bpf_sock_ops": "skb_len",
}  # fmt: skip
"""Which field says how long the payload is, where the caller does not."""

_OF_SOCKET = ("family", "type", "protocol")
"""What a bpf_sock has of the context's own fields, where nobody says."""
_OFTEN_NULL = {("bpf_sk_lookup", "sk"), ("bpf_sock_ops", "sk"), ("sk_reuseport_md", "migrating_sk")}
"""Sockets that are NULL where the caller gives none; the others are always there."""


class NamedContext(StructContext):
    """A struct of named fields, with what it points to.

    `payload` are the bytes that come with it: the run's data for types that `has_payload`. For others the
    data are the struct's first bytes; where there are none it is whole. `selected` is the socket that
    bpf_sk_assign chose, `sockets` are those of its fields by address (None: one that the caller gave no
    Socket for). `beside` names what can be said beside its fields. Raises InputError for fields, or
    values, that it cannot have.
    """

    beside: ClassVar[tuple[str, ...]] = ()

    def __init__(
        self, type_: ProgramType, data: bytes | memoryview, fields: Mapping[str, Any] | None = None
    ) -> None:
        assert type_.layout is not None  # `take` has looked
        self.layout: Struct = type_.layout
        given = dict(fields or {})
        if type_.name == "sk_lookup" and given.pop("cookie", 0):  # in a union with `sk`; outcomes have it
            raise InputError("context field cookie is 0 before the lookup: it is that of the socket found")
        self._refuse_unknown(type_, given)
        as_bytes = len(data) > 0 and type_.data_size is not None
        if as_bytes and any(data[self.layout.size :]):  # Linux: bpf_check_uarg_tail_zero
            raise InputError(
                f"{type_.name} programs get a {self.layout.name}, {self.layout.size} bytes; {len(data)} were "
                f"given, with more than zeros behind (E2BIG)"
            )
        self._hold(type_, len(data) if as_bytes else self.layout.size)
        self._hidden: list[Field] = []
        self.payload: Region | None = None
        self.selected: Socket | None = None
        self.sockets: dict[int, Socket | None] = {}
        self._as_made: list[tuple[memoryview, bytes]] = []
        if as_bytes:
            self.memory[:] = data
        else:
            given = {**_DEFAULTS.get(self.layout.name, {}), **given}
        self._attach_payload(given, data if type_.has_payload else None)
        if self.payload is not None and not as_bytes:
            given.setdefault(_LENGTHS[self.layout.name], self.payload.size)
        for name, value in given.items():
            if not self.layout.by_name[name].pointer:
                self.put(name, self.layout.by_name[name].encode(value))
        if self.type.name == "sk_lookup":
            self._check_lookup()
        for field in self.layout.fields:
            if field.pointer == "sock":
                self._attach_sock(field, given)
        # What was given may be longer than what there are rights for.
        self.argument = Region.of_buffer(self.layout.name, self.memory[: self.layout.size])
        self.argument.rights = type_.rights
        self.regions.insert(0, self.argument)

    def _refuse_unknown(self, type_: ProgramType, given: Mapping[str, Any]) -> None:
        layout = self.layout
        for name in given:
            if name not in layout.by_name:
                known = ", ".join((*layout.by_name, *self.beside))
                raise InputError(
                    f"{type_.name} programs get their context's bytes as data, or fields of {layout.name} by "
                    f"their names: {known}; field {name!r} of {layout.name} is not there"
                )

    def put(self, name: str, data: bytes) -> None:
        """Write the bytes of a field. Raises InputError where the struct was given without it."""
        field = self.layout.by_name[name]
        if field.stop > len(self.memory):
            raise InputError(
                f"field {name!r} of {self.layout.name} ends at byte {field.stop}, and the context that was "
                f"given has {len(self.memory)}: give {self.layout.size} bytes, or none and fields alone"
            )
        self.memory[field.offset : field.stop] = data

    def _check_lookup(self) -> None:
        """Take a lookup as bpf_prog_test_run_sk_lookup does: addresses of the other family are 0.

        Raises InputError for a family or a port that it refuses.
        """
        values = {name: field.read(self.memory) for name, field in self.layout.by_name.items()
                  if field.stop <= len(self.memory)}  # fmt: skip
        family, port = values.get("family"), values.get("local_port", 0)
        if family not in (AF_INET, AF_INET6):
            raise InputError(f"context field family is 2 (AF_INET) or 10 (AF_INET6), not {family}")
        if isinstance(port, int) and port > LARGEST_PORT:
            raise InputError(f"context field local_port is at most {LARGEST_PORT}, not {port}")
        if values.get("sk"):
            raise InputError("context field sk is 0 before the lookup: bpf_sk_assign sets it")
        for name in ("remote_ip6", "local_ip6") if family == AF_INET else ("remote_ip4", "local_ip4"):
            part = self.memory[self.layout.by_name[name].offset : self.layout.by_name[name].stop]
            part[:] = bytes(len(part))

    def _attach_payload(self, given: dict[str, Any], data: bytes | memoryview | None) -> None:
        """Make the payload and point to it; what was given of it is taken out of `given`."""
        ends = {field.pointer: field.name for field in self.layout.fields if field.pointer != "sock"}
        start, end = ends.get("start"), ends.get("end")
        if start is None or end is None:
            return
        value = given.pop(start, None)
        if given.pop(end, 0):
            raise InputError(f"field {end!r} of {self.layout.name} cannot be set: {start!r} decides (0)")
        if data is not None and value:
            raise InputError(f"field {start!r} of {self.layout.name} cannot be set: it is the run's data")
        content = value if data is None else data
        if content is None or content == 0:
            return
        if isinstance(content, int | str):
            raise InputError(f"field {start!r} takes the bytes that it points to, not {content!r}")
        view = flat_view(content)
        if len(view) > LARGEST_PACKET:
            raise InputError(f"packets have at most {LARGEST_PACKET} bytes, this one has {len(view)}")
        self.payload = self._make_payload("packet" if data is not None else start, view)
        self.regions.append(self.payload)
        self._point_to_payload(start, end, self.payload)

    def _make_payload(self, name: str, data: memoryview) -> Region:
        """Return a region over a copy of the payload."""
        payload = Region.of_buffer(name, bytearray(data))
        payload.writable = self.type.writes_packet
        return payload

    def _point_to_payload(self, start: str, end: str, payload: Region) -> None:
        self._point(start, payload.start)
        self._point(end, payload.stop)

    def _attach_sock(self, field: Field, given: Mapping[str, Any]) -> None:
        """Point to the socket that was given, or to one that every context of the type has."""
        often_null = (self.layout.name, field.name) in _OFTEN_NULL
        if field.name not in given and (often_null or any(self.memory[field.offset : field.stop])):
            return
        if field.name not in given and field.stop > len(self.memory):
            return
        value = given.get(field.name, {})
        if value is None or (isinstance(value, int) and value == 0):
            self.put(field.name, bytes(8))
            return
        memory = aligned(SOCK.size)
        memory[:] = self._sock_bytes(field, value)
        region = Region.of_buffer(SOCK.name, memory)
        region.writable, region.rights = False, SOCK.rights
        self.regions.append(region)
        self.sockets[region.start] = value if isinstance(value, Socket) else None
        self._point(field.name, region.start)

    def _point(self, name: str, address: int) -> None:
        """Let a field point to something of this context, which no result shows."""
        self.put(name, address.to_bytes(8, "little"))
        self._hidden.append(self.layout.by_name[name])

    def _sock_bytes(self, field: Field, value: Any) -> bytes:
        """Return a bpf_sock: closed, of the context's family, type and protocol, but for what is given."""
        if isinstance(value, Socket):
            return value.to_bytes()
        if not isinstance(value, Mapping):
            raise InputError(
                f"field {field.name!r} takes a Socket, a mapping of bpf_sock's fields, or None, not {value!r}"
            )
        content = bytearray(SOCK.size)
        struct.pack_into("<Ii", content, SOCK.by_name["state"].offset, TCP_CLOSE, NO_QUEUE)
        for name in _OF_SOCKET:
            own, there = self.layout.by_name.get(name), SOCK.by_name[name]
            if own is not None:
                content[there.offset : there.stop] = bytes(self.memory[own.offset : own.stop]).ljust(4, b"\0")
        for name, number in SOCK.settings(value, tuple(SOCK.by_name)).items():
            there = SOCK.by_name[name]
            content[there.offset : there.stop] = there.encode(number)
        return bytes(content)

    def _number(self, name: str) -> int:
        """Return a field that is no array, 0 where the struct was given without it."""
        field = self.layout.by_name[name]
        return int.from_bytes(self.memory[field.offset : field.stop], "little")

    def select(self, socket: Socket | None, address: int, replace: bool) -> int:
        """Choose the socket of a lookup (bpf_sk_lookup_assign); 0 or a negative error number."""
        if socket is not None:
            made = socket.to_bytes()
            family, _, protocol = struct.unpack_from("<III", made, 4)
            state = TCP_LISTEN if socket.protocol == "tcp" else TCP_CLOSE
            if socket.effective_state != state:
                return -errno.ESOCKTNOSUPPORT
            if protocol != self._number("protocol"):
                return -errno.EPROTOTYPE
            if family == AF_INET != self._number("family"):
                return -errno.EAFNOSUPPORT
        if self.selected is not None and not replace:
            return -errno.EEXIST
        self.selected = socket
        self._point("sk", address)
        return 0

    @property
    def links(self) -> list[tuple[int, int]]:
        """Which pointers it has that no caller gives: (offset, address)."""
        return [(each.offset, int.from_bytes(self.memory[each.offset : each.stop], "little"))
                for each in self._hidden]  # fmt: skip

    @property
    def copies(self) -> list[tuple[int, int]]:
        """Which 4 bytes of the struct stand in its socket too: (offset, address)."""
        return [
            (own.offset, address + SOCK.by_name[name].offset)
            for address in self.sockets
            for name in _OF_SOCKET
            if (own := self.layout.by_name.get(name)) is not None
        ]

    def adopt(self, size: int) -> None:
        """Go on with a run on what is there already: the whole struct, whatever `size` says."""
        self._as_made = [
            (region.view, bytes(region.view)) for region in self.regions if region.rights is SOCK.rights
        ]

    def clear(self) -> None:
        """Let go of what the run that was adopted has made of it."""
        for view, content in self._as_made:
            view[:] = content
        self.selected = self.redirect = None

    @property
    def size(self) -> int:
        """Bytes of the payload."""
        return 0 if self.payload is None else self.payload.size

    def bytes_at(self, offset: int, size: int) -> bytes:
        """Return bytes of the payload; the caller has checked the range."""
        return b"" if self.payload is None else bytes(self.payload.view[offset : offset + size])

    def outcome(self) -> Outcome:
        """Return payload or struct after the run, and all fields that are no addresses."""
        values = self._values()
        if self.type.has_payload:
            return Outcome(self.bytes_at(0, self.size), b"", values, self.redirect)
        data = bytearray(self.memory)
        for field in self._hidden:
            data[field.offset : field.stop] = bytes(8)
        return Outcome(bytes(data), b"", values, self.redirect)

    def _values(self) -> FieldValues:
        values: FieldValues = {}
        for field in self.layout.fields:
            if field.pointer == "start" and self.payload is not None and not self.type.has_payload:
                values[field.name] = self.bytes_at(0, self.size)
            elif field in self.layout.shown and field.stop <= len(self.memory):
                values[field.name] = field.read(self.memory)
        if self.type.name == "sk_lookup":
            values["cookie"] = 0 if self.selected is None else self.selected.cookie
        return values
