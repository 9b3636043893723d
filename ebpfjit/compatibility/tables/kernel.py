"""The release that has each type of program, of map, each flag, instruction and kind of type.

Sources, read on 2026-11-30: ebpf-docs (github.com/isovalent/ebpf-docs, data/feature-versions.yaml, and the
pages of contexts), bcc's docs/kernel-versions.md, the kernel's include/uapi/linux/bpf.h and
kernel/bpf/verifier.c in 6.1 and 6.12, libbpf's section_defs; Linux 6.18 itself, asked through bpf(2), which
tests hold against this. What only other processors than x86-64 got later is not told apart.
"""

from __future__ import annotations

PROGRAM_TYPES = """
    3.19: socket_filter
    4.1: kprobe tc sched_act
    4.7: tracepoint
    4.8: xdp
    4.9: perf_event
    4.10: cgroup_skb cgroup_sock lwt_in lwt_out lwt_xmit
    4.13: sock_ops
    4.14: sk_skb
    4.15: cgroup_device
    4.17: sk_msg raw_tracepoint cgroup_sock_addr
    4.18: lwt_seg6local lirc_mode2
    4.19: sk_reuseport
    4.20: flow_dissector
    5.2: cgroup_sysctl raw_tracepoint_writable
    5.3: cgroup_sockopt
    5.5: tracing
    5.6: struct_ops ext
    5.7: lsm
    5.9: sk_lookup
    5.14: syscall
    6.4: netfilter
"""

#  section                  since   in enum bpf_attach_type
ATTACH_TYPES = (
    ("xdp/devmap",             "5.8",  "BPF_XDP_DEVMAP"),
    ("xdp/cpumap",             "5.9",  "BPF_XDP_CPUMAP"),
    ("tcx/ingress",            "6.6",  "BPF_TCX_INGRESS"),
    ("tcx/egress",             "6.6",  "BPF_TCX_EGRESS"),
    ("netkit/primary",         "6.7",  "BPF_NETKIT_PRIMARY"),
    ("netkit/peer",            "6.7",  "BPF_NETKIT_PEER"),
    ("cgroup_skb/ingress",     "4.10", "BPF_CGROUP_INET_INGRESS"),
    ("cgroup_skb/egress",      "4.10", "BPF_CGROUP_INET_EGRESS"),
    ("cgroup/sock_create",     "4.10", "BPF_CGROUP_INET_SOCK_CREATE"),
    ("cgroup/sock_release",    "5.9",  "BPF_CGROUP_INET_SOCK_RELEASE"),
    ("cgroup/sock",            "4.10", "BPF_CGROUP_INET_SOCK_CREATE"),
    ("cgroup/post_bind4",      "4.17", "BPF_CGROUP_INET4_POST_BIND"),
    ("cgroup/post_bind6",      "4.17", "BPF_CGROUP_INET6_POST_BIND"),
    ("cgroup/bind4",           "4.17", "BPF_CGROUP_INET4_BIND"),
    ("cgroup/bind6",           "4.17", "BPF_CGROUP_INET6_BIND"),
    ("cgroup/connect4",        "4.17", "BPF_CGROUP_INET4_CONNECT"),
    ("cgroup/connect6",        "4.17", "BPF_CGROUP_INET6_CONNECT"),
    ("cgroup/connect_unix",    "6.7",  "BPF_CGROUP_UNIX_CONNECT"),
    ("cgroup/sendmsg4",        "4.18", "BPF_CGROUP_UDP4_SENDMSG"),
    ("cgroup/sendmsg6",        "4.18", "BPF_CGROUP_UDP6_SENDMSG"),
    ("cgroup/sendmsg_unix",    "6.7",  "BPF_CGROUP_UNIX_SENDMSG"),
    ("cgroup/recvmsg4",        "5.2",  "BPF_CGROUP_UDP4_RECVMSG"),
    ("cgroup/recvmsg6",        "5.2",  "BPF_CGROUP_UDP6_RECVMSG"),
    ("cgroup/recvmsg_unix",    "6.7",  "BPF_CGROUP_UNIX_RECVMSG"),
    ("cgroup/getpeername4",    "5.8",  "BPF_CGROUP_INET4_GETPEERNAME"),
    ("cgroup/getpeername6",    "5.8",  "BPF_CGROUP_INET6_GETPEERNAME"),
    ("cgroup/getpeername_unix", "6.7", "BPF_CGROUP_UNIX_GETPEERNAME"),
    ("cgroup/getsockname4",    "5.8",  "BPF_CGROUP_INET4_GETSOCKNAME"),
    ("cgroup/getsockname6",    "5.8",  "BPF_CGROUP_INET6_GETSOCKNAME"),
    ("cgroup/getsockname_unix", "6.7", "BPF_CGROUP_UNIX_GETSOCKNAME"),
    ("cgroup/getsockopt",      "5.3",  "BPF_CGROUP_GETSOCKOPT"),
    ("cgroup/setsockopt",      "5.3",  "BPF_CGROUP_SETSOCKOPT"),
    ("cgroup/sysctl",          "5.2",  "BPF_CGROUP_SYSCTL"),
    ("cgroup/dev",             "4.15", "BPF_CGROUP_DEVICE"),
    ("sk_skb/stream_parser",   "4.14", "BPF_SK_SKB_STREAM_PARSER"),
    ("sk_skb/stream_verdict",  "4.14", "BPF_SK_SKB_STREAM_VERDICT"),
    ("sk_skb/verdict",         "5.13", "BPF_SK_SKB_VERDICT"),
    ("sk_reuseport/migrate",   "5.14", "BPF_SK_REUSEPORT_SELECT_OR_MIGRATE"),
    ("kprobe.multi",           "5.18", "BPF_TRACE_KPROBE_MULTI"),
    ("kretprobe.multi",        "5.18", "BPF_TRACE_KPROBE_MULTI"),
    ("kprobe.session",         "6.10", "BPF_TRACE_KPROBE_SESSION"),
    ("uprobe.multi",           "6.6",  "BPF_TRACE_UPROBE_MULTI"),
    ("uretprobe.multi",        "6.6",  "BPF_TRACE_UPROBE_MULTI"),
    ("uprobe.session",         "6.13", "BPF_TRACE_UPROBE_SESSION"),
    ("fentry",                 "5.5",  "BPF_TRACE_FENTRY"),
    ("fexit",                  "5.5",  "BPF_TRACE_FEXIT"),
    ("fmod_ret",               "5.7",  "BPF_MODIFY_RETURN"),
    ("tp_btf",                 "5.5",  "BPF_TRACE_RAW_TP"),
    ("iter",                   "5.8",  "BPF_TRACE_ITER"),
    ("lsm",                    "5.7",  "BPF_LSM_MAC"),
    ("lsm_cgroup",             "6.0",  "BPF_LSM_CGROUP"),
)  # fmt: skip
"""What sections ask for besides the type; of all others libbpf asks an old kernel for the type alone."""

SLEEPABLE = {
    "fentry": "5.10", "fexit": "5.10", "fmod_ret": "5.10", "lsm": "5.10", "iter": "5.18", "syscall": "5.14",
    "uprobe": "6.0", "uretprobe": "6.0", "usdt": "6.0",
    "uprobe.multi": "6.6", "uretprobe.multi": "6.6", "uprobe.session": "6.13", "struct_ops": "6.3",
}  # fmt: skip
"""Since when programs of a section may sleep; those of all others may not."""

FRAGS = "5.18"
"""Since when XDP programs may say that they take packets in pieces."""

ITERATORS = """
    5.8: bpf_map ipv6_route netlink task task_file
    5.9: bpf_map_elem bpf_sk_storage_map bpf_prog tcp udp
    5.10: sockmap
    5.12: task_vma
    5.15: unix
    5.19: bpf_link
    6.0: ksym
    6.1: cgroup
    6.13: kmem_cache
    6.16: dmabuf
"""
"""What iterators (SEC("iter/...")) go over."""

OPERATIONS = """
    5.6: tcp_congestion_ops
    5.16: bpf_dummy_ops
    6.11: hid_bpf_ops
    6.12: sched_ext_ops
    6.16: Qdisc_ops
"""
"""The structs of operations that programs may be for."""

MAP_TYPES = """
    3.19: hash array
    4.2: prog_array
    4.3: perf_event_array
    4.6: percpu_hash percpu_array stack_trace
    4.8: cgroup_array
    4.10: lru_hash lru_percpu_hash
    4.11: lpm_trie
    4.12: array_of_maps hash_of_maps
    4.14: devmap sockmap
    4.15: cpumap
    4.18: xskmap sockhash
    4.19: cgroup_storage reuseport_sockarray
    4.20: percpu_cgroup_storage queue stack
    5.2: sk_storage
    5.4: devmap_hash
    5.6: struct_ops
    5.8: ringbuf
    5.10: inode_storage
    5.11: task_storage
    5.16: bloom_filter
    6.1: user_ringbuf
    6.2: cgrp_storage
    6.9: arena
"""

MAP_FLAGS = """
    4.6: NO_PREALLOC
    4.10: NO_COMMON_LRU
    4.14: NUMA_NODE
    4.15: RDONLY WRONLY
    4.17: STACK_BUILD_ID
    5.0: ZERO_SEED
    5.2: RDONLY_PROG WRONLY_PROG
    5.4: CLONE
    5.5: MMAPABLE
    5.10: PRESERVE_ELEMS INNER_MAP
    6.4: LINK
    6.5: PATH_FD
    6.9: VTYPE_BTF_OBJ_FD TOKEN_FD SEGV_ON_FAULT NO_USER_CONV
"""
"""BPF_F_* that maps are made with, in the order of their bits."""

MAP_FIELDS = """
    5.1: bpf_spin_lock
    5.15: bpf_timer
    5.19: kptr kptr_untrusted
    6.2: bpf_list_head
    6.3: bpf_rb_root
    6.4: bpf_refcount
    6.7: percpu_kptr
    6.10: bpf_wq
    6.13: uptr
    6.15: bpf_res_spin_lock
    6.18: bpf_task_work
"""
"""Fields of values that are the kernel's."""

POINTERS_IN_STORAGE = "6.4"
"""Since when local storage has values with kernel pointers."""
LOCKS_OF_VARIABLES = "6.2"
"""Since when a lock may be a variable."""

CONTEXT_FIELDS = {
    "__sk_buff": """
        4.20: flow_keys
        5.0: tstamp wire_len
        5.1: gso_segs sk
        5.7: gso_size
        5.16: hwtstamp
        5.18: tstamp_type
    """,
    "xdp_md": "5.8: egress_ifindex",
    "bpf_sock_ops": """
        5.3: sk
        5.10: skb_data skb_data_end skb_len skb_tcp_flags
        6.2: skb_hwtstamp
    """,
    "bpf_sock_addr": "5.3: sk",
    "bpf_sk_lookup": "5.17: ingress_ifindex",
    "sk_msg_md": "5.0: size 5.8: sk",
    "sk_reuseport_md": "5.14: sk migrating_sk",
    "bpf_sock": "5.1: dst_ip4 dst_ip6 dst_port state",
}
"""Of the structs of contexts the fields that are younger than 4.19; all others are as old as that."""

TRACED = frozenset({"kprobe", "tracepoint", "perf_event", "raw_tracepoint", "raw_tracepoint_writable"})
REFUSED_FIELDS = {
    "bpf_spin_lock": TRACED | {"socket_filter"},
    "bpf_timer": TRACED,
    "bpf_list_head": TRACED,
    "bpf_rb_root": TRACED,
    "bpf_wq": TRACED,
}
"""Program types that may have no map with such a field (check_map_prog_compatibility)."""

MAPS_OF_SLEEPERS = """
    5.10: array hash lru_hash
    5.13: percpu_array percpu_hash lru_percpu_hash array_of_maps hash_of_maps ringbuf
    5.17: inode_storage sk_storage task_storage
    6.1: user_ringbuf
    6.2: cgrp_storage
    6.5: queue stack
    6.9: arena
"""
"""The map types that programs which may sleep have (check_map_prog_compatibility)."""

#  operations of rows of the instruction table, "*" for any rest      since, and what to call it
INSTRUCTIONS = (
    ("JLT JLE JSLT JSLE",                "4.14", "jump if less"),
    ("JA32",                             "6.6",  "long jump (gotol)"),
    ("JEQ32 JGT32 JGE32 JSET32 JNE32 JSGT32 JSGE32 JLT32 JLE32 JSLT32 JSLE32", "5.1", "32-bit jump (JMP32)"),
    ("MAY_GOTO",                         "6.9",  "may_goto"),
    ("SDIV* SMOD*",                      "6.6",  "signed division"),
    ("MOVSX*",                           "6.6",  "sign-extending move"),
    ("LDXS*",                            "6.6",  "sign-extending load"),
    ("BSWAP*",                           "6.6",  "byte swap"),
    ("ADDR_SPACE_CAST",                  "6.9",  "address space cast"),
    ("LOAD_ACQ*",                        "6.15", "load-acquire"),
    ("STORE_REL*",                       "6.15", "store-release"),
    ("ATOMIC_ADD32 ATOMIC_ADD64",        "3.18", "atomic add"),
    ("ATOMIC_*",                         "5.12", "atomic operation"),
    ("CALL_LOCAL",                       "4.16", "call of a function"),
    ("LDDW_CODE",                        "5.13", "address of a function (callback)"),
    ("LDDW_VARIABLE",                    "5.10", "variable of the kernel"),
    ("LDDW_MAP_VALUE LDDW_MAP_IDX_VALUE", "5.2", "global variable"),
)  # fmt: skip
"""Of operations that are not here, Linux had all from the start, but for those of NEVER."""

NEVER = {
    "CALLX": "indirect call (callx)",
    "LDABSDW": "packet load of 8 bytes",
    "LDINDDW": "packet load of 8 bytes",
}
"""What no release of Linux runs."""

PACKET_LOADERS = frozenset({"socket_filter", "tc", "sched_act"})
"""The program types that have loads of the packet (LD_ABS, LD_IND)."""

LOOPS = "5.3"
TAIL_CALLS_OF_FUNCTIONS = "5.10"
"""Since when a program of several functions may make tail calls."""
LARGE = "5.2"
SMALL_SLOTS, MOST_SLOTS = 4096, 1_000_000
"""Slots of a program before, and since LARGE."""

TYPE_KINDS = {
    "FUNC": "5.0", "FUNC_PROTO": "5.0", "VAR": "5.2", "DATASEC": "5.2", "FLOAT": "5.13", "DECL_TAG": "5.16",
    "TYPE_TAG": "5.17", "ENUM64": "6.0",
}  # fmt: skip
"""Kinds of BTF that are younger than BTF."""
TYPES, GLOBAL_FUNCTION, CORE = "4.18", "5.6", "5.2"
"""BTF; functions that are verified on their own; the kernel's own types, which CO-RE needs (or a file)."""

MARKS = """
    5.2: BPF_FUNC_strtoul
    5.3: BPF_FUNC_send_signal
    5.4: BPF_FUNC_tcp_gen_syncookie
    5.5: BPF_FUNC_probe_read_kernel
    5.6: BPF_FUNC_jiffies64
    5.7: BPF_FUNC_sk_assign
    5.8: BPF_FUNC_ringbuf_query
    5.9: BPF_FUNC_get_task_stack
    5.10: BPF_FUNC_redirect_peer
    5.11: BPF_FUNC_sock_from_file
    5.12: BPF_FUNC_check_mtu
    5.13: BPF_FUNC_snprintf
    5.14: BPF_FUNC_sys_close
    5.15: BPF_FUNC_task_pt_regs
    5.16: BPF_FUNC_kallsyms_lookup_name
    5.17: BPF_FUNC_get_func_arg_cnt
    5.18: BPF_FUNC_ima_file_hash
    5.19: BPF_FUNC_dynptr_data
    6.0: BPF_FUNC_tcp_raw_check_syncookie_ipv6
    6.1: BPF_FUNC_user_ringbuf_drain
    6.2: BPF_FUNC_cgrp_storage_delete
    6.3: bpf_rb_root
    6.4: BPF_NETFILTER
    6.5: BPF_F_PATH_FD
    6.6: BPF_TCX_EGRESS
    6.7: BPF_NETKIT_PEER
    6.8: bpf_cpumask_weight
    6.9: BPF_MAP_TYPE_ARENA
    6.10: BPF_TRACE_KPROBE_SESSION
    6.11: bpf_iter_bits_new
    6.12: bpf_copy_from_user_str
    6.13: BPF_TRACE_UPROBE_SESSION
    6.14: bpf_local_irq_save
    6.15: bpf_res_spin_lock
    6.16: bpf_list_front
    6.17: bpf_stream_elem
    6.18: bpf_task_work
"""
"""A name that the types of every kernel have since a release, however it was configured."""
