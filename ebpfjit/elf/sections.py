"""What a section's name says about the type of the programs in it.

The names are libbpf's (`section_defs` in libbpf.c; Documentation/bpf/libbpf/program_types.rst), and
those of loaders that are older.
A type is the kernel's BPF_PROG_TYPE_* in lower case, with the short names of the public API for the
commonest: "xdp", "tc" (BPF_PROG_TYPE_SCHED_CLS), "socket_filter".
"""

from __future__ import annotations

#  type                       section names
SECTION_NAMES = (
    ("xdp", "xdp xdp.frags xdp/devmap xdp/cpumap xdp.frags/devmap xdp.frags/cpumap"),
    ("tc", "tc tcx classifier tc/ingress tc/egress tcx/ingress tcx/egress"),
    ("tc", "netkit/primary netkit/peer"),
    ("sched_act", "action"),
    # Programs that iproute2, OVS and Cilium load by section, without libbpf's names.
    ("xdp", "prog"),
    ("tc", "ingress egress downcall from-container to-container from-netdev to-netdev"),
    ("tc", "from-host to-host from-overlay to-overlay from-network from-lxc to-lxc"),
    ("socket_filter", "socket"),
    ("cgroup_skb", "cgroup/skb cgroup_skb/ingress cgroup_skb/egress cgroup_skb"),
    ("cgroup_sock", "cgroup/sock cgroup/sock_create cgroup/sock_release"),
    ("cgroup_sock", "cgroup/post_bind4 cgroup/post_bind6"),
    ("cgroup_sock_addr", "cgroup/bind4 cgroup/bind6 cgroup/connect4 cgroup/connect6 cgroup/connect_unix"),
    ("cgroup_sock_addr", "cgroup/sendmsg4 cgroup/sendmsg6 cgroup/sendmsg_unix"),
    ("cgroup_sock_addr", "cgroup/recvmsg4 cgroup/recvmsg6 cgroup/recvmsg_unix"),
    ("cgroup_sock_addr", "cgroup/getpeername4 cgroup/getpeername6 cgroup/getpeername_unix"),
    ("cgroup_sock_addr", "cgroup/getsockname4 cgroup/getsockname6 cgroup/getsockname_unix"),
    ("cgroup_sockopt", "cgroup/getsockopt cgroup/setsockopt"),
    ("cgroup_sysctl", "cgroup/sysctl"),
    ("cgroup_device", "cgroup/dev"),
    ("sock_ops", "sockops"),
    ("sk_skb", "sk_skb sk_skb/stream_parser sk_skb/stream_verdict sk_skb/verdict"),
    ("sk_msg", "sk_msg"),
    ("sk_lookup", "sk_lookup"),
    ("sk_reuseport", "sk_reuseport sk_reuseport/migrate"),
    ("flow_dissector", "flow_dissector"),
    ("netfilter", "netfilter"),
    ("lwt_in", "lwt_in"),
    ("lwt_out", "lwt_out"),
    ("lwt_xmit", "lwt_xmit"),
    ("lwt_seg6local", "lwt_seg6local"),
    ("lirc_mode2", "lirc_mode2"),
    ("kprobe", "kprobe kretprobe kprobe.multi kretprobe.multi kprobe.session ksyscall kretsyscall"),
    ("kprobe", "uprobe uprobe.s uretprobe uretprobe.s usdt usdt.s"),
    ("kprobe", "uprobe.multi uprobe.multi.s uretprobe.multi uretprobe.multi.s"),
    ("kprobe", "uprobe.session uprobe.session.s"),
    ("tracepoint", "tracepoint tp"),
    ("raw_tracepoint", "raw_tracepoint raw_tp"),
    ("raw_tracepoint_writable", "raw_tracepoint.w raw_tp.w"),
    ("tracing", "tp_btf fentry fentry.s fexit fexit.s fmod_ret fmod_ret.s iter iter.s"),
    ("ext", "freplace"),
    ("lsm", "lsm lsm.s lsm_cgroup"),
    ("perf_event", "perf_event"),
    ("syscall", "syscall"),
    ("struct_ops", "struct_ops struct_ops.s"),
)

TYPE_OF_SECTION: dict[str, str] = {name: type_ for type_, names in SECTION_NAMES for name in names.split()}

_LONGEST_NAME = max(map(len, TYPE_OF_SECTION))

_SEPARATORS = "/._-0123456789"
"""What may follow a name: libbpf's "/extras", and the "xdp_prog", "socket1" of libbpf before 1.0."""


def program_type(section: str) -> str | None:
    """Return the type that a section's name stands for, None where it does not tell.

    The longest known name decides: "xdp.frags/eth0" is "xdp", "tcp_filter" is nothing.
    A leading "?" (libbpf: do not load by default) is not part of the name.
    """
    section = section.removeprefix("?")
    for length in range(min(len(section), _LONGEST_NAME), 1, -1):
        type_ = TYPE_OF_SECTION.get(section[:length])
        if type_ is not None and (length == len(section) or section[length] in _SEPARATORS):
            return type_
    return None
