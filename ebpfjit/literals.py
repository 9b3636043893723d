"""What signatures are made of: the names that users write, which a type checker then knows; buffers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeAlias, cast, get_args

if TYPE_CHECKING:
    from typing_extensions import Buffer


class Array(Protocol):
    """An array of numpy's, whose own stubs tell of its buffer from Python 3.12 on only."""

    @property
    def __array_interface__(self) -> dict[str, Any]:
        """Where it is, and of what."""


class Places(Protocol):
    """Packets in one buffer, as a batch of `ebpfjit.capture` has them: offsets and lengths are bytes."""

    @property
    def buffer(self) -> AnyBuffer:
        """What they are in."""

    @property
    def offsets(self) -> AnyBuffer:
        """Where each starts."""

    @property
    def lengths(self) -> AnyBuffer:
        """How long each is."""


AnyBuffer: TypeAlias = "Buffer | Array"
"""What has the buffer protocol: bytes, bytearray, memoryview, array, mmap, numpy's arrays."""

EngineName: TypeAlias = Literal["jit", "interpreter", "kernel"]
"""What runs a program."""

TypeName: TypeAlias = Literal[
    "xdp", "tc", "sched_act", "socket_filter", "cgroup_skb", "lwt_in", "lwt_out", "lwt_xmit", "xdp.frags",
    "lwt_seg6local", "sk_skb", "flow_dissector", "sk_msg", "sk_reuseport", "sk_lookup", "sock_ops",
    "cgroup_sock", "cgroup_sock_addr", "cgroup_sockopt", "cgroup_sysctl", "cgroup_device", "netfilter",
    "kprobe", "perf_event", "tracepoint", "raw_tracepoint", "tracing", "lsm", "struct_ops",
    "raw_tracepoint_writable", "lirc_mode2", "ext", "syscall", "classifier", "sched_cls", "action",
]  # fmt: skip
"""The types of programs (`ebpfjit.runtime.contexts.types`), and other names of some."""

ActionName: TypeAlias = Literal[
    "XDP_ABORTED", "XDP_DROP", "XDP_PASS", "XDP_TX", "XDP_REDIRECT",
    "TC_ACT_OK", "TC_ACT_RECLASSIFY", "TC_ACT_SHOT", "TC_ACT_PIPE", "TC_ACT_STOLEN", "TC_ACT_QUEUED",
    "TC_ACT_REPEAT", "TC_ACT_REDIRECT", "TC_ACT_TRAP", "TC_ACT_UNSPEC",
    "BPF_OK", "BPF_DROP", "BPF_REDIRECT", "BPF_LWT_REROUTE", "BPF_FLOW_DISSECTOR_CONTINUE",
    "SK_DROP", "SK_PASS", "NF_DROP", "NF_ACCEPT",
]  # fmt: skip
"""What return values of programs are called, by their type."""

DialectName: TypeAlias = Literal["rbpf", "linux"]
"""How a program is written as text."""

Types: TypeAlias = TypeName | Literal[""] | Mapping[str, TypeName]
"""The type of programs whose section does not tell; or types by the names of programs and sections."""

ENGINES: tuple[EngineName, ...] = get_args(EngineName)


def named_type(name: str | None) -> TypeName | None:
    """Return a name that comes from a file; whether there is such a type is asked where the program runs."""
    return cast("TypeName | None", name)


def named_engine(name: str) -> EngineName:
    """Return a name that comes from a command line; `arguments.check_engine` says whether there is one."""
    return cast("EngineName", name)
