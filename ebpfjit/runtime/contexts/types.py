"""What a program type is to a run: its context, where its packet starts, the names of its results."""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from typing import Any

from ebpfjit.errors import InputError
from ebpfjit.once import once
from ebpfjit.record import dataclass, field, replace
from ebpfjit.runtime.attach import attachment
from ebpfjit.runtime.contexts import structs
from ebpfjit.runtime.contexts.fields import Struct
from ebpfjit.runtime.contexts.structs import SK_BUFF, XDP_MD
from ebpfjit.runtime.rights import Rights


class ContextKind(Enum):
    """What r1 points to when the program starts."""

    XDP = XDP_MD
    SK_BUFF = SK_BUFF
    STRUCT = None  # one whose bytes or fields the caller gives


def _numbered(prefix: str, names: str) -> dict[int, str]:
    return {number: prefix + name for number, name in enumerate(names.split())}


XDP_ACTIONS = _numbered("XDP_", "ABORTED DROP PASS TX REDIRECT")
TC_ACTIONS = _numbered("TC_ACT_", "OK RECLASSIFY SHOT PIPE STOLEN QUEUED REPEAT REDIRECT TRAP")
TC_ACTIONS[0xFFFFFFFF] = "TC_ACT_UNSPEC"
FLOW_ACTIONS = {0: "BPF_OK", 2: "BPF_DROP", 129: "BPF_FLOW_DISSECTOR_CONTINUE"}
SK_ACTIONS = {0: "SK_DROP", 1: "SK_PASS"}
HOOK_ACTIONS = {0: "NF_DROP", 1: "NF_ACCEPT"}
LWT_ACTIONS = {0: "BPF_OK", 2: "BPF_DROP", 7: "BPF_REDIRECT", 128: "BPF_LWT_REROUTE"}


@dataclass(frozen=True, slots=True)
class ProgramType:
    """How programs of one type are run; names as the kernel's `*_is_valid_access` have them.

    `actions` names return values. `passes` are the return values that let a packet go on.
    `layout` is the context's struct with what programs may do to it, None where that is the caller's matter.
    `network_layer` is true where
    the program sees a packet from its network header on; `reads_packet` and `writes_packet` say
    whether loads and stores reach the packet. `has_payload` is true where a run's data is what such a context
    points to. `frames` is true where packets have a link header, `has_lane` where machine code may make the
    context by itself of what a run is given (`translators/x86_64/lanes.py`).
    """

    name: str
    context: ContextKind
    actions: Mapping[int, str] = field(default_factory=dict)
    passes: frozenset[int] = frozenset()
    layout: Struct | None = None
    network_layer: bool = False
    reads_packet: bool = True
    writes_packet: bool = True
    struct_writable: bool = True
    has_payload: bool = False
    frames: bool = True
    has_lane: bool = True

    @property
    def context_size(self) -> int:
        """Bytes of the context's struct, 0 where the caller's bytes decide."""
        return self.context.value.size if self.context.value is not None else 0

    @property
    def data_size(self) -> int | None:
        """Bytes of the struct that a run's data are; None where they are a packet, or bytes of any kind."""
        is_struct = self.layout is not None and not self.has_packet and not self.has_payload
        return self.layout.size if self.layout is not None and is_struct else None

    @property
    def rights(self) -> Rights | None:
        """What programs may do to the context's struct, None for anything."""
        return None if self.layout is None else self.layout.rights

    @property
    def has_packet(self) -> bool:
        """True where the program runs on a packet."""
        return self.context is not ContextKind.STRUCT

    def action(self, value: int) -> str | None:
        """Return the name of a return value, None where it has none."""
        return self.actions.get(value)

    def lets_pass(self, value: int) -> bool:
        """True where a packet goes on after this return value (socket filters: bytes to keep)."""
        if self.name == "socket_filter":
            return value != 0
        if self.name == "cgroup_skb":
            return value & 1 == 1
        return value in self.passes


def _xdp(name: str, *, has_lane: bool = True) -> ProgramType:
    return ProgramType(name, ContextKind.XDP, XDP_ACTIONS, frozenset({2}), XDP_MD, has_lane=has_lane)


def _skb(name: str, **others: Any) -> ProgramType:
    return ProgramType(name, ContextKind.SK_BUFF, layout=SK_BUFF.at_hook(name), **others)


def _tc(name: str) -> ProgramType:
    return _skb(name, actions=TC_ACTIONS, passes=frozenset({0, 1, 3, 0xFFFFFFFF}))


def _lwt(name: str, *, writes_packet: bool = False) -> ProgramType:
    passes = frozenset({0, 128})
    return _skb(name, actions=LWT_ACTIONS, passes=passes, network_layer=True, writes_packet=writes_packet)


def _struct(name: str, *, writable: bool = True) -> ProgramType:
    return ProgramType(name, ContextKind.STRUCT, struct_writable=writable)


def _fields(name: str, layout: Struct, **others: Any) -> ProgramType:
    return ProgramType(name, ContextKind.STRUCT, layout=layout, **others)


def _made(name: str, layout: Struct, **others: Any) -> ProgramType:
    """Return a type whose struct is more than the bytes that a run is given."""
    return _fields(name, layout, has_lane=False, **others)


def _verdict(name: str, layout: Struct, **others: Any) -> ProgramType:
    return _made(name, layout, actions=SK_ACTIONS, passes=frozenset({1}), **others)


_READ_ONLY = "tracepoint raw_tracepoint tracing lsm struct_ops"
_WRITABLE = "raw_tracepoint_writable lirc_mode2 ext syscall"


_TYPES = (
    _xdp("xdp"),
    _tc("tc"),
    _tc("sched_act"),
    _skb("socket_filter", network_layer=True, reads_packet=False, writes_packet=False),
    _skb("cgroup_skb", network_layer=True, writes_packet=False),
    _lwt("lwt_in"),
    _lwt("lwt_out"),
    _lwt("lwt_xmit", writes_packet=True),
    _xdp("xdp.frags", has_lane=False),
    _lwt("lwt_seg6local"),
    _skb("sk_skb", frames=False, has_lane=False),
    _skb("flow_dissector", actions=FLOW_ACTIONS, writes_packet=False, has_lane=False),
    _verdict("sk_msg", structs.SK_MSG, has_payload=True),
    _verdict("sk_reuseport", structs.SK_REUSEPORT, has_payload=True, writes_packet=False),
    _verdict("sk_lookup", structs.SK_LOOKUP),
    _made("sock_ops", structs.SOCK_OPS, writes_packet=False),
    _fields("cgroup_sock", structs.CGROUP_SOCK),
    _fields("cgroup_sock_addr", structs.SOCK_ADDR),
    _fields("cgroup_sockopt", structs.SOCKOPT),
    _made("cgroup_sysctl", structs.SYSCTL),
    _fields("cgroup_device", structs.CGROUP_DEVICE),
    _made("netfilter", structs.NETFILTER, actions=HOOK_ACTIONS, passes=frozenset({1})),
    _fields("kprobe", structs.PT_REGS),
    _fields("perf_event", structs.PERF_EVENT),
    *(_struct(name, writable=False) for name in _READ_ONLY.split()),
    *(_struct(name) for name in _WRITABLE.split()),
)  # fmt: skip

_OTHER_NAMES = {"classifier": "tc", "sched_cls": "tc", "action": "sched_act"}

TYPES: dict[str, ProgramType] = {type_.name: type_ for type_ in _TYPES}
TYPES.update({other: TYPES[name] for other, name in _OTHER_NAMES.items()})


FRAGS = "xdp.frags"


@once
def _at_hook(name: str, attach_type: int) -> ProgramType:
    """Return a type as its programs of one attach type have it, the same one each time."""
    known = program_type(name)
    layout = None if known.layout is None else known.layout.at_hook(attach_type)
    return known if layout is known.layout else replace(known, layout=layout)


def effective_type(name: str, section: str | None) -> ProgramType:
    """Return the type of a program: its section says whether an XDP program's packets may be in pieces, and
    which attach type decides what others may do to their context.

    Raises InputError as `program_type`.
    """
    known = program_type(name)
    attached = attachment(known.name, section)
    if known.name == "xdp" and (section or "").removeprefix("?").startswith(FRAGS):
        known = TYPES[FRAGS]
    return _at_hook(known.name, attached.type) if attached.is_said else known


def program_type(name: str) -> ProgramType:
    """Return a program type by its name. Raises InputError listing those there are."""
    try:
        return TYPES[name]
    except KeyError:
        known = ", ".join(TYPES)
        raise InputError(f"no program type {name!r}; there are: {known}") from None
