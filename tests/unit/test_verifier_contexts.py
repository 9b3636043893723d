"""What is known of contexts, packets and results, for each type of programs."""

from __future__ import annotations

import pytest

from ebpfjit.runtime.contexts.types import TYPES
from ebpfjit.verifier.contexts import (
    PacketUse,
    context_load,
    context_store,
    has_legacy_loads,
    packet_use,
    pointee_load,
    result_range,
    writes_packet,
)

EGRESS = 1


@pytest.mark.parametrize(
    ("type_", "attach", "offset", "size", "kind"),
    [
        ("xdp", 37, 0, 4, "pkt"),
        ("xdp", 37, 4, 4, "pkt_end"),
        ("xdp.frags", 37, 8, 4, "pkt_meta"),
        ("xdp", 37, 20, 4, None),
        ("xdp", 33, 20, 4, "scalar"),
        ("xdp", 37, 0, 8, None),
        ("classifier", 0, 76, 4, "pkt"),
        ("socket_filter", 0, 76, 4, None),
        ("tc", 0, 168, 8, "sock_common_or_null"),
        ("tc", 0, 40, 8, None),
        ("tc", 0, 56, 8, "scalar"),
        ("cgroup_sock_addr", 10, 64, 8, "sock"),
        ("sk_reuseport", 39, 48, 8, "sock_common_or_null"),
        ("netfilter", 45, 8, 8, "trusted_ptr_sk_buff"),
        ("raw_tracepoint", 0, 88, 8, "scalar"),
        ("raw_tracepoint", 0, 96, 8, None),
        ("raw_tracepoint_writable", 0, 0, 8, "tp_buffer"),
        ("tracing", 24, 8, 8, "argument"),
        ("tracepoint", 0, 4, 4, None),
    ],
)
def test_loads(type_: str, attach: int, offset: int, size: int, kind: str | None) -> None:
    assert context_load(type_, attach, offset, size) == kind


def test_pointers_are_not_loaded_with_their_sign() -> None:
    assert context_load("xdp", 37, 0, 4, signed=True) is None
    assert context_load("xdp", 37, 12, 4, signed=True) == "scalar"


def test_stores() -> None:
    assert context_store("tc", 0, 8, 4)  # mark
    assert not context_store("xdp", 37, 12, 4)
    assert context_store("syscall", None, 16, 8)
    assert not context_store("tracing", 24, 0, 8)


def test_what_pointers_to_sockets_are_good_for() -> None:
    assert [pointee_load(kind, 8, 4) for kind in ("sock", "sock_common")] == [True, False]  # type
    assert pointee_load("sock_common", 4, 4)
    assert pointee_load("tcp_sock", 0, 4)
    assert pointee_load("xdp_sock", 0, 4)


def test_who_uses_packets() -> None:
    """Those of may_access_direct_pkt_data, which allows cgroup_sockopt memory whatever the helper."""
    only_read = {"lwt_in", "lwt_out", "lwt_seg6local", "sk_reuseport", "flow_dissector", "cgroup_skb"}
    written = {"tc", "sched_act", "xdp", "xdp.frags", "lwt_xmit", "sk_skb", "sk_msg"}
    names = {type_.name for type_ in TYPES.values()}
    assert {name for name in names if writes_packet(name)} == written | {"cgroup_sockopt"}
    assert {name for name in names if packet_use(name) is PacketUse.WHERE_ALLOWED} == written | only_read
    assert {name for name in names if packet_use(name) is PacketUse.ALWAYS} == {"cgroup_sockopt"}
    assert {name for name in names if has_legacy_loads(name)} == {"socket_filter", "tc", "sched_act"}


def test_results() -> None:
    assert result_range("xdp", 37) is result_range("tc", 0) is result_range("socket_filter", None) is None
    assert [result_range("cgroup_skb", hook) for hook in (None, 0, EGRESS)] == [(0, 1), (0, 1), (0, 3)]
    assert result_range("cgroup_sock_addr", 29) == (1, 1)
