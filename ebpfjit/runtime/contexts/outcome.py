"""What a run left of its context, of whatever kind that was."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ebpfjit.record import dataclass, field

FieldValues = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Redirect:
    """Where a program redirected its packet: to an interface, or to an entry of a map.

    `helper` names how: "bpf_redirect", "bpf_redirect_neigh", ... `ifindex` is None where `map` and
    `key` say it. `flags` are those that the program gave.
    """

    helper: str
    ifindex: int | None = None
    map: str | None = None
    key: bytes | int | None = None
    flags: int = 0


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a run left of its context: the packet, what stands before it, the struct's fields."""

    data: bytes
    metadata: bytes = b""
    fields: FieldValues = field(default_factory=dict)
    redirect: Redirect | None = None
    clones: tuple[tuple[int, bytes], ...] = ()

    @property
    def frame(self) -> bytes:
        """The packet as it goes on: with the VLAN tag in it that stands beside it."""
        return with_tag(self.data, self.fields)


def with_tag(data: bytes, fields: Mapping[str, Any]) -> bytes:
    """Return a frame with the VLAN tag in it that fields of __sk_buff show, or as it is."""
    if not fields.get("vlan_present"):
        return data
    protocol: int = fields["vlan_proto"]
    tag: int = fields["vlan_tci"]
    return data[:12] + protocol.to_bytes(2, "little") + tag.to_bytes(2, "big") + data[12:]
