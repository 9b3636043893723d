"""The structs that programs get as context: one table for each, with what programs may do.

    name   type   which loads Linux takes   which stores                 (the *_is_valid_access of Linux)

whole     as wide as the field, no other
narrow    and parts of it: 1, 2 or 4 bytes, at a multiple of their size
front     and parts of it that start where it does
wide      as narrow, and pairs of 4 bytes at a multiple of 8
write     stores as wide as the field (and pairs, where loads are wide)
write-any stores as loads are

`word@hook` is for some programs only (`_HOOKS`; more than one with commas between): those of attach types, or
for packets of program types. A program whose section does not tell its attach type may do what any may.

Linux has most checks in net/core/filter.c, others in kernel/bpf/cgroup.c, kernel/trace/bpf_trace.c and
net/netfilter/nf_bpf_link.c.
Types are u8 to u64, an array of them, or a pointer of 8 bytes: to a `sock`, to the `start` and the `end`
of what comes with the struct; `-` is room between fields. A row `name = other` is another name, of a field or
(`other 1`) of one of its elements.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from ebpfjit.runtime.contexts.fields import Access, Field, Hook, Struct
from ebpfjit.runtime.rights import SIZES

_POINTERS = ("sock", "start", "end")

_Rule = tuple[int, int, int]
"""Of a field's accesses: how many bytes they lie in (0: the field's own), their sizes, their alignment."""

_LOADS: dict[str, Callable[[int], tuple[_Rule, ...]]] = {
    "whole":    lambda size: ((0, size, 1),),
    "narrow":   lambda size: ((0, 2 * size - 1, 1),),
    "front":    lambda size: ((0, 2 * size - 1, size),),
    "wide":     lambda size: ((0, 1 | 2 | 4 | 8, 1),),
    "halves":   lambda size: ((0, 2 | 4, 1),),              # eth_protocol: from two bytes on
    "padded":   lambda size: ((4, 1 | 2 | 4, 1),),          # two bytes that were four
    "also4":    lambda size: ((0, 1 | 2, 1), (4, 4, 1)),
}  # fmt: skip

_HOOKS: dict[str, frozenset[Hook]] = {  # which section is which attach type says `ebpfjit/runtime/attach.py`
    "devmap":     frozenset({33}),
    "inet4":      frozenset({8, 10, 14, 19, 29, 31}),   # bind4, connect4, and so on
    "inet6":      frozenset({9, 11, 15, 20, 30, 32}),
    "sendmsg4":   frozenset({14}),
    "sendmsg6":   frozenset({15}),
    "socket":     frozenset({2, 34}),                   # sock_create, sock_release
    "bound4":     frozenset({12}),                      # post_bind4
    "bound6":     frozenset({13}),
    "bound":      frozenset({12, 13}),
    "getsockopt": frozenset({21}),
    "setsockopt": frozenset({22}),
    "pointer":    frozenset({"pointer"}),               # no hook: what is behind a pointer
    "tc":         frozenset({"tc", "sched_act"}),
    "filter":     frozenset({"socket_filter"}),
    "cgroup":     frozenset({"cgroup_skb"}),
    "lwt":        frozenset({"lwt_in", "lwt_out", "lwt_xmit", "lwt_seg6local"}),
    "stream":     frozenset({"sk_skb"}),
    "flow":       frozenset({"flow_dissector"}),
}  # fmt: skip
_HOOKS["skb"] = frozenset().union(*(_HOOKS[name] for name in ("tc", "filter", "cgroup", "lwt", "stream")))


def _access(offset: int, size: int, span: int, words: Iterable[str]) -> tuple[Access, ...]:
    """Return what a row's words allow of a field of `span` bytes, in elements of `size` bytes."""
    accesses: list[Access] = []
    rules = [word.partition("@") for word in words]
    loads = [rule for word, _, _ in rules if word in _LOADS for rule in _LOADS[word](size)]
    stores = {
        "write": size | (8 if any(sizes & 8 for _, sizes, _ in loads) else 0),
        "write-any": sum({each for _, sizes, _ in loads for each in SIZES if sizes & each}),
    }
    for word, _, names in rules:
        hooks = frozenset().union(*(_HOOKS[name] for name in names.split(",") if name))
        if word in stores:
            accesses.append(Access(offset, offset + span, stores[word], stores=True, hooks=hooks))
        else:
            accesses += (
                Access(offset, offset + (room or span), sizes, alignment, hooks=hooks)
                for room, sizes, alignment in _LOADS[word](size)
            )
    return tuple(accesses)


def _alias(name: str, meant: Field, words: list[str]) -> Field:
    """Return another name of a field, or of one of its elements, with what more programs may do there."""
    offset, count = meant.offset, meant.count
    if words and words[0].isdecimal():
        offset, count = offset + int(words.pop(0)) * meant.size, 0
    accesses = _access(offset, meant.size, meant.size * (count or 1), words)
    return Field(name, offset, meant.size, count, accesses, alias=True)


def _fields(table: str) -> tuple[Field, ...]:
    """Return the fields of a table, laid out as C does."""
    fields: dict[str, Field] = {}
    at = 0
    for row in filter(None, map(str.strip, table.splitlines())):
        name, kind, *words = row.split()
        if kind == "=":
            fields[name] = _alias(name, fields[words[0]], words[1:])
            continue
        pointer = kind if kind in _POINTERS else ""
        element, _, count = ("u64" if pointer else kind).rstrip("]").partition("[")
        size = int(element[1:]) // 8
        at = -(-at // size) * size
        span = size * int(count or 1)
        if name != "-":
            fields[name] = Field(name, at, size, int(count or 0), _access(at, size, span, words), pointer)
        at += span
    return tuple(fields.values())


def _struct(name: str, table: str, whose: str = "this attach type") -> Struct:
    """Return a struct from its table: its size is that of its fields, a multiple of the widest one's."""
    fields = _fields(table)
    widest, last = max(field.size for field in fields), max(field.stop for field in fields)
    return Struct(name, -(-last // widest) * widest, fields, whose)


XDP_MD = _struct("xdp_md", """
    data              u32       whole
    data_end          u32       whole
    data_meta         u32       whole
    ingress_ifindex   u32       whole
    rx_queue_index    u32       whole
    egress_ifindex    u32       whole@devmap
""")  # fmt: skip

SK_BUFF = _struct("__sk_buff", """
    len               u32       narrow@skb
    pkt_type          u32       narrow@skb
    mark              u32       narrow@tc,filter,cgroup,lwt  write@tc,cgroup,lwt
    queue_mapping     u32       narrow@skb            write@tc
    protocol          u32       narrow@skb
    vlan_present      u32       narrow@skb
    vlan_tci          u32       narrow@skb
    vlan_proto        u32       narrow@skb
    priority          u32       narrow@skb            write@tc,cgroup,lwt,stream
    ingress_ifindex   u32       narrow@skb
    ifindex           u32       narrow@skb
    tc_index          u32       narrow@skb            write@tc,stream
    cb                u32[5]    wide@skb              write-any@tc,filter,cgroup,lwt
    hash              u32       narrow@skb
    tc_classid        u32       narrow@tc             write@tc
    data              u32       whole@tc,cgroup,lwt,stream,flow
    data_end          u32       whole@tc,cgroup,lwt,stream,flow
    napi_id           u32       narrow@skb
    family            u32       narrow@cgroup,stream
    remote_ip4        u32       whole@cgroup,stream
    local_ip4         u32       whole@cgroup,stream
    remote_ip6        u32[4]    whole@cgroup,stream
    local_ip6         u32[4]    whole@cgroup,stream
    remote_port       u32       narrow@cgroup,stream
    local_port        u32       narrow@cgroup,stream
    data_meta         u32       whole@tc
    flow_keys         u64       whole@flow
    tstamp            u64       whole@tc,cgroup       write@tc,cgroup
    wire_len          u32       narrow@tc
    gso_segs          u32       narrow@skb
    sk                u64       whole@skb
    gso_size          u32       narrow@skb
    tstamp_type       u8        whole@tc
    hwtstamp          u64       whole@tc,cgroup
""", "this type")  # fmt: skip

SOCK_ADDR = _struct("bpf_sock_addr", """
    user_family       u32       whole
    user_ip4          u32       narrow@inet4     write@inet4
    user_ip6          u32[4]    wide@inet6       write@inet6
    user_port         u32       narrow  write
    family            u32       whole
    type              u32       whole
    protocol          u32       whole
    msg_src_ip4       u32       narrow@sendmsg4  write@sendmsg4
    msg_src_ip6       u32[4]    wide@sendmsg6    write@sendmsg6
    sk                sock      whole
""")  # fmt: skip

CGROUP_SOCK = _struct("bpf_sock", """
    bound_dev_if      u32       whole@socket,pointer  write@socket
    family            u32       front
    type              u32       front
    protocol          u32       front
    mark              u32       whole@socket,pointer  write@socket
    priority          u32       whole@socket,pointer  write@socket
    src_ip4           u32       narrow@bound4,pointer
    src_ip6           u32[4]    narrow@bound6,pointer
    src_port          u32       front@bound,pointer
    dst_port          u16       also4
    dst_ip4           u32       narrow
    dst_ip6           u32[4]    narrow
    state             u32       front
    rx_queue_mapping  u32       front
""")  # fmt: skip

SOCK = CGROUP_SOCK.at_hook("pointer")
"""What contexts and helpers point to, whichever the type."""

_TCP = """
    rtt_min           u32       whole
    snd_ssthresh      u32       whole
    rcv_nxt           u32       whole
    snd_nxt           u32       whole
    snd_una           u32       whole
    mss_cache         u32       whole
    ecn_flags         u32       whole
    rate_delivered    u32       whole
    rate_interval_us  u32       whole
    packets_out       u32       whole
    retrans_out       u32       whole
    total_retrans     u32       whole
    segs_in           u32       whole
    data_segs_in      u32       whole
    segs_out          u32       whole
    data_segs_out     u32       whole
    lost_out          u32       whole
    sacked_out        u32       whole
"""
"""What bpf_tcp_sock and bpf_sock_ops both have of a struct tcp_sock, in this order."""

TCP_SOCK = _struct("bpf_tcp_sock", f"""
    snd_cwnd          u32       whole
    srtt_us           u32       whole
    {_TCP}
    bytes_received    u64       whole
    bytes_acked       u64       whole
    dsack_dups        u32       whole
    delivered         u32       whole
    delivered_ce      u32       whole
    icsk_retransmits  u32       whole
""")  # fmt: skip

SK_LOOKUP = _struct("bpf_sk_lookup", """
    sk                sock      whole
    family            u32       narrow
    protocol          u32       narrow
    remote_ip4        u32       narrow
    remote_ip6        u32[4]    narrow
    remote_port       u16       padded
    -                 u16
    local_ip4         u32       narrow
    local_ip6         u32[4]    narrow
    local_port        u32       narrow
    ingress_ifindex   u32       narrow
""")  # fmt: skip

SOCK_OPS = _struct("bpf_sock_ops", f"""
    op                u32       whole
    args              u32[4]    whole
    family            u32       whole
    remote_ip4        u32       whole
    local_ip4         u32       whole
    remote_ip6        u32[4]    whole
    local_ip6         u32[4]    whole
    remote_port       u32       whole
    local_port        u32       whole
    is_fullsock       u32       whole
    snd_cwnd          u32       whole
    srtt_us           u32       whole
    bpf_sock_ops_cb_flags  u32  whole
    state             u32       whole
    {_TCP}
    sk_txhash         u32       whole   write
    bytes_received    u64       whole
    bytes_acked       u64       whole
    sk                sock      whole
    skb_data          start     whole
    skb_data_end      end       whole
    skb_len           u32       whole
    skb_tcp_flags     u32       front
    skb_hwtstamp      u64       whole
    reply             = args 0  write
    replylong         = args
""")  # fmt: skip

SOCKOPT = _struct("bpf_sockopt", """
    sk                sock      whole
    optval            start     whole
    optval_end        end       whole
    level             u32       whole            write@setsockopt
    optname           u32       whole            write@setsockopt
    optlen            u32       whole            write
    retval            u32       whole@getsockopt write@getsockopt
""")  # fmt: skip

SYSCTL = _struct("bpf_sysctl", """
    write             u32       narrow
    file_pos          u32       narrow  write
""")  # fmt: skip

SK_REUSEPORT = _struct("sk_reuseport_md", """
    data              start     whole
    data_end          end       whole
    len               u32       narrow
    eth_protocol      u32       halves
    ip_protocol       u32       narrow
    bind_inany        u32       narrow
    hash              u32       whole
    sk                sock      whole
    migrating_sk      sock      whole
""")  # fmt: skip

SK_MSG = _struct("sk_msg_md", """
    data              start     whole
    data_end          end       whole
    family            u32       whole
    remote_ip4        u32       whole
    local_ip4         u32       whole
    remote_ip6        u32[4]    whole
    local_ip6         u32[4]    whole
    remote_port       u32       whole
    local_port        u32       whole
    size              u32       whole
    sk                sock      whole
""")  # fmt: skip

_REGISTERS = "r15 r14 r13 r12 bp bx r11 r10 r9 r8 ax cx dx si di orig_ax ip cs flags sp ss"
_OTHER_NAMES = {  # those of arch/x86/include/uapi/asm/ptrace.h
    "rbp": "bp", "rbx": "bx", "rax": "ax", "rcx": "cx", "rdx": "dx", "rsi": "si", "rdi": "di",
    "orig_rax": "orig_ax", "rip": "ip", "eflags": "flags", "rsp": "sp",
}  # fmt: skip


def _registers(loads: str) -> str:
    rows = [f"{name} u64 {loads}" for name in _REGISTERS.split()]
    return "\n".join([*rows, *(f"{name} = {meant}" for name, meant in _OTHER_NAMES.items())])


PT_REGS = _struct("pt_regs", _registers("narrow"))

PERF_EVENT = _struct("bpf_perf_event_data", _registers("whole") + """
    sample_period     u64       narrow
    addr              u64       narrow
""")  # fmt: skip

CGROUP_DEVICE = _struct("bpf_cgroup_dev_ctx", """
    access_type       u32       narrow
    major             u32       whole
    minor             u32       whole
""")  # fmt: skip

NETFILTER = _struct("bpf_nf_ctx", """
    state             u64       whole
    skb               u64       whole
""")  # fmt: skip

FLOW_KEYS = _struct("bpf_flow_keys", """
    nhoff             u16
    thoff             u16
    addr_proto        u16
    is_frag           u8
    is_first_frag     u8
    is_encap          u8
    ip_proto          u8
    n_proto           u16
    sport             u16
    dport             u16
    ipv6_src          u32[4]
    ipv6_dst          u32[4]
    flags             u32
    flow_label        u32
    ipv4_src          = ipv6_src 0
    ipv4_dst          = ipv6_src 1
""")  # fmt: skip
