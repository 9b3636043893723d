"""What a program type is to a run: its context, where its packet starts, the names of its results."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum

from ebpfjit.errors import ExecutionError
from ebpfjit.runtime.contexts.fields import SK_BUFF, XDP_MD


class ContextKind(Enum):
    """What r1 points to when the program starts."""

    XDP = XDP_MD
    SK_BUFF = SK_BUFF
    STRUCT = None  # one whose bytes the caller gives


def _numbered(prefix: str, names: str) -> dict[int, str]:
    return {number: prefix + name for number, name in enumerate(names.split())}


XDP_ACTIONS = _numbered("XDP_", "ABORTED DROP PASS TX REDIRECT")
TC_ACTIONS = _numbered("TC_ACT_", "OK RECLASSIFY SHOT PIPE STOLEN QUEUED REPEAT REDIRECT TRAP")
TC_ACTIONS[0xFFFFFFFF] = "TC_ACT_UNSPEC"
LWT_ACTIONS = {0: "BPF_OK", 2: "BPF_DROP", 7: "BPF_REDIRECT", 128: "BPF_LWT_REROUTE"}

_CB_AND_MARK = ("mark", "priority", "cb")


@dataclass(frozen=True, slots=True)
class ProgramType:
    """How programs of one type are run; names as the kernel's `*_is_valid_access` have them.

    `actions` names return values. `passes` are the return values that let a packet go on.
    `writable` are the context's fields that a program may store to. `network_layer` is true where
    the program sees a packet from its network header on; `reads_packet` and `writes_packet` say
    whether loads and stores reach the packet.
    """

    name: str
    context: ContextKind
    actions: Mapping[int, str] = field(default_factory=dict)
    passes: frozenset[int] = frozenset()
    writable: tuple[str, ...] = ()
    network_layer: bool = False
    reads_packet: bool = True
    writes_packet: bool = True
    struct_writable: bool = True

    @property
    def context_size(self) -> int:
        """Bytes of the context's struct, 0 where the caller's bytes decide."""
        return self.context.value.size if self.context.value is not None else 0

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


def _tc(name: str) -> ProgramType:
    writable = ("mark", "queue_mapping", "priority", "tc_index", "cb", "tc_classid", "tstamp")
    goes_on = frozenset({0, 1, 3, 0xFFFFFFFF})
    return ProgramType(name, ContextKind.SK_BUFF, TC_ACTIONS, goes_on, writable)


def _lwt(name: str, *, writes_packet: bool = False) -> ProgramType:
    return ProgramType(
        name, ContextKind.SK_BUFF, LWT_ACTIONS, frozenset({0, 128}), _CB_AND_MARK,
        network_layer=True, writes_packet=writes_packet,
    )  # fmt: skip


def _struct(name: str, *, writable: bool = True) -> ProgramType:
    return ProgramType(name, ContextKind.STRUCT, struct_writable=writable)


_READ_ONLY = "kprobe tracepoint raw_tracepoint perf_event tracing lsm struct_ops"
_WRITABLE = (
    "raw_tracepoint_writable cgroup_sock cgroup_sock_addr cgroup_sockopt cgroup_sysctl "
    "sock_ops sk_skb sk_msg sk_lookup sk_reuseport flow_dissector netfilter lwt_seg6local "
    "lirc_mode2 ext syscall"
)

_TYPES = (
    ProgramType("xdp", ContextKind.XDP, XDP_ACTIONS, frozenset({2})),
    _tc("tc"),
    _tc("sched_act"),
    ProgramType("socket_filter", ContextKind.SK_BUFF, writable=("cb",), network_layer=True,
                reads_packet=False, writes_packet=False),
    ProgramType("cgroup_skb", ContextKind.SK_BUFF, writable=("mark", "priority", "cb", "tstamp"),
                network_layer=True, writes_packet=False),
    _lwt("lwt_in"),
    _lwt("lwt_out"),
    _lwt("lwt_xmit", writes_packet=True),
    *(_struct(name, writable=False) for name in _READ_ONLY.split()),
    _struct("cgroup_device", writable=False),
    *(_struct(name) for name in _WRITABLE.split()),
)  # fmt: skip

_OTHER_NAMES = {"xdp.frags": "xdp", "classifier": "tc", "sched_cls": "tc", "action": "sched_act"}

TYPES: dict[str, ProgramType] = {type_.name: type_ for type_ in _TYPES}
TYPES.update({other: TYPES[name] for other, name in _OTHER_NAMES.items()})


def program_type(name: str) -> ProgramType:
    """Return a program type by its name. Raises ExecutionError listing those there are."""
    try:
        return TYPES[name]
    except KeyError:
        known = ", ".join(TYPES)
        raise ExecutionError(f"no program type {name!r}; there are: {known}") from None
