"""What programs of each type may do with their context and packet, and what they may return.

    xdp_md.data          "pkt"                     what a load of a field gives: names as in Linux's log
    __sk_buff.sk         "sock_common_or_null"
    cgroup_skb, egress   (0, 3)                    what r0 must be at the end

Which loads and stores there are is in `ebpfjit/runtime/contexts/structs.py`, for runs too; who reads and
writes packets in `ebpfjit/runtime/contexts/types.py` (may_access_direct_pkt_data). Other facts:
kernel/bpf/verifier.c (check_return_code, may_access_skb), net/core/filter.c (*_is_valid_access),
kernel/trace/bpf_trace.c, Linux 6.18.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum

from ebpfjit.once import once
from ebpfjit.runtime.contexts import structs
from ebpfjit.runtime.contexts.fields import Struct
from ebpfjit.runtime.contexts.types import program_type
from ebpfjit.runtime.rights import SIZES

SCALAR = "scalar"

_POINTERS: Mapping[str, Mapping[str, str]] = {
    "xdp_md": {"data": "pkt", "data_meta": "pkt_meta", "data_end": "pkt_end"},
    "__sk_buff": {
        "data": "pkt",
        "data_meta": "pkt_meta",
        "data_end": "pkt_end",
        "flow_keys": "flow_keys",
        "sk": "sock_common_or_null",
    },
    "bpf_sock_addr": {"sk": "sock"},
    "bpf_sk_lookup": {"sk": "sock_or_null"},
    "bpf_sock_ops": {"skb_data": "pkt", "skb_data_end": "pkt_end", "sk": "sock_or_null"},
    "bpf_sockopt": {"optval": "pkt", "optval_end": "pkt_end", "sk": "sock"},
    "sk_msg_md": {"data": "pkt", "data_end": "pkt_end", "sk": "sock"},
    "sk_reuseport_md": {
        "data": "pkt",
        "data_end": "pkt_end",
        "sk": "sock",
        "migrating_sk": "sock_common_or_null",
    },
    "bpf_nf_ctx": {"state": "trusted_ptr_nf_hook_state", "skb": "trusted_ptr_sk_buff"},
}
"""The fields that are no numbers, by struct."""

_WORDS = 12
"""Arguments of a function or a tracepoint, 8 bytes each (MAX_BPF_FUNC_ARGS)."""

_TRACE_SIZE, _TRACE_HEADER = 8192, 8
"""Bytes of a tracepoint's record (PERF_MAX_TRACE_SIZE), and those at its start that are not for programs."""

_ANY_SIZE = 0xFFFF
"""Bytes of the context of syscall programs."""


@once
def _layout(name: str, attach: int | None) -> Struct | None:
    layout = program_type(name).layout
    return layout if layout is None or attach is None else layout.at_hook(attach)


@once
def _pointers_of(struct: str) -> Mapping[int, str]:
    """Return what the pointers of a struct are, by offset."""
    layouts = (each for each in vars(structs).values() if isinstance(each, Struct))
    layout = next(each for each in layouts if each.name == struct)
    return {layout.by_name[name].offset: kind for name, kind in _POINTERS.get(struct, {}).items()}


def context_load(
    type_: str, attach: int | None, offset: int, size: int, *, signed: bool = False
) -> str | None:
    """Return what a load from the context gives, None where programs of the type may not do it.

    `attach` is the expected attach type, None where it is not known (then any will do); offset and size are
    in bytes. The result is "scalar", "pkt", "pkt_meta", "pkt_end", "flow_keys", "sock", "sock_common",
    "tp_buffer" or "trusted_ptr_STRUCT", with "_or_null" behind where it has to be looked at; or "argument":
    number offset / 8 of the function that the program is attached to, whose type BTF tells. `signed`: the
    load extends the sign, which no pointer is loaded with.
    Raises InputError for a type that there is not.
    """
    name = program_type(type_).name
    layout = _layout(name, attach)
    if layout is None:
        found = _plain_load(name, offset, size)
    else:
        found = (
            _pointers_of(layout.name).get(offset, SCALAR)
            if layout.allows(offset, size, store=False)
            else None
        )
    return found if found == SCALAR or not signed else None


def _plain_load(name: str, offset: int, size: int) -> str | None:
    """Return what a load gives where no struct of ours says it."""
    if size not in SIZES or offset < 0 or offset % size:
        return None
    match name:
        case "raw_tracepoint_writable" if offset == 0:
            return "tp_buffer" if size == 8 else None
        case "raw_tracepoint" | "raw_tracepoint_writable":
            return SCALAR if offset < 8 * _WORDS else None
        case "tracing" | "lsm" | "struct_ops" | "ext":
            return "argument" if offset < 8 * _WORDS else None
        case "tracepoint":
            return SCALAR if _TRACE_HEADER <= offset < _TRACE_SIZE else None
        case "syscall":
            return SCALAR if offset < _ANY_SIZE else None
        case "lirc_mode2":
            return SCALAR if (offset, size) == (0, 4) else None
    return None


_NEED_BPF: Mapping[bool, frozenset[str]] = {
    False: frozenset({"data", "data_end"}),
    True: frozenset({"data", "data_end", "tstamp"}),
}
"""Fields of struct __sk_buff that users without CAP_BPF do not load, nor store (cg_skb_is_valid_access)."""


def needs_bpf(type_: str, offset: int, *, writes: bool) -> bool:
    """True for fields of the context that programs of a type have only where their user has CAP_BPF."""
    if type_ != "cgroup_skb":
        return False
    fields = (structs.SK_BUFF.by_name[name] for name in _NEED_BPF[writes])
    return any(field.offset <= offset < field.stop for field in fields)


def context_store(type_: str, attach: int | None, offset: int, size: int) -> bool:
    """True where programs of a type may store into their context; arguments as for `context_load`.

    Raises InputError for a type that there is not.
    """
    name = program_type(type_).name
    layout = _layout(name, attach)
    if layout is not None:
        return layout.allows(offset, size, store=True)
    return name == "syscall" and _plain_load(name, offset, size) is not None


_SOCKS: Mapping[str, Struct] = {
    "sock": structs.SOCK,
    "sock_common": structs.SOCK,
    "tcp_sock": structs.TCP_SOCK,
}
_FULL_SOCKS_ONLY = ("type", "protocol", "mark", "priority")
_XDP_SOCK_SIZE = 4


def pointee_load(kind: str, offset: int, size: int) -> bool:
    """True where programs may load through a pointer to a "sock", "sock_common", "tcp_sock" or "xdp_sock".

    What they load is a number always. They may not store.
    """
    if kind == "xdp_sock":
        return (offset, size) == (0, _XDP_SOCK_SIZE)
    layout = _SOCKS[kind]
    if kind == "sock_common":
        fields = (layout.by_name[name] for name in _FULL_SOCKS_ONLY)
        if any(field.offset <= offset < field.stop for field in fields):
            return False
    return layout.allows(offset, size, store=False)


class PacketUse(Enum):
    """What helpers may be given of what "pkt" points to."""

    NEVER = "no memory of the packet"
    WHERE_ALLOWED = "memory of the packet, where the helper takes it (`Prototype.packet_access`)"
    ALWAYS = "memory of the packet, whatever the helper"


_LEGACY_LOADS = frozenset({"socket_filter", "tc", "sched_act"})


def writes_packet(type_: str) -> bool:
    """True where programs of a type may store to what "pkt" points to. Raises InputError for no such type."""
    kind = program_type(type_)
    return kind.writes_packet and packet_use(type_) is not PacketUse.NEVER


def packet_use(type_: str) -> PacketUse:
    """Return whether helpers take memory of the packet. Raises InputError for a type that there is not."""
    kind = program_type(type_)
    if kind.name == "cgroup_sockopt":
        return PacketUse.ALWAYS
    has_some = kind.has_packet or kind.has_payload
    return PacketUse.WHERE_ALLOWED if has_some and kind.reads_packet else PacketUse.NEVER


def has_legacy_loads(type_: str) -> bool:
    """True where programs of the type may use LDABS and LDIND. Raises InputError for no such type."""
    return program_type(type_).name in _LEGACY_LOADS


_EITHER = (0, 1)
_RANGES: Mapping[str, tuple[int, int]] = dict.fromkeys(
    (
        "cgroup_skb", "cgroup_sock", "cgroup_sock_addr", "cgroup_device", "cgroup_sysctl", "cgroup_sockopt",
        "sock_ops", "sk_lookup", "netfilter",
    ),
    _EITHER,
)  # fmt: skip
_RANGES_OF_HOOKS: Mapping[tuple[str, int], tuple[int, int] | None] = {
    ("cgroup_skb", 1): (0, 3),  # egress: 2 and 3 tell of congestion
    **{("cgroup_sock_addr", hook): (0, 3) for hook in (8, 9)},  # bind4, bind6: 2 and 3 let low ports be bound
    **{("cgroup_sock_addr", hook): (1, 1) for hook in (19, 20, 51, 29, 30, 52, 31, 32, 53)},
    **{("tracing", hook): (0, 0) for hook in (24, 25)},  # fentry, fexit
    ("tracing", 28): _EITHER,  # iter
    ("kprobe", 56): _EITHER,  # sessions
    ("kprobe", 57): _EITHER,
    ("lsm", 43): _EITHER,  # of cgroups; hooks that return nothing: 1
}
"""Names and numbers: `ebpfjit/runtime/attach.py`."""


def result_range(type_: str, attach: int | None) -> tuple[int, int] | None:
    """Return the least and the greatest result, as s64, that Linux takes of a program; None for any.

    `attach` None is Linux's 0. Other LSM programs than those of cgroups have the range of their hook.
    Raises InputError for a type that there is not.
    """
    name = program_type(type_).name
    return _RANGES_OF_HOOKS.get((name, attach or 0), _RANGES.get(name))
