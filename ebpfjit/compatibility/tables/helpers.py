"""Which helper each release of Linux has, and for programs of which types.

Sources, read on 2026-11-30: ebpf-docs (github.com/isovalent/ebpf-docs, data/feature-versions.yaml and
data/helpers-functions.yaml) for the release of each helper; the kernel's own *_func_proto functions, in 4.19,
5.4, 5.10, 5.15, 6.1 and 6.12, for who may call it; Linux 6.18 itself, asked through bpf(2), which tests hold
against this.

A line is names, which programs of the type may call since there are both; behind `5.10:`, since that release.
Where only two long-term releases are known between which a type got a helper, the later one stands here, so
that it is never said of a release too early.
"""

from __future__ import annotations

HELPERS = """
    3.18: map_lookup_elem map_update_elem
    3.19: map_delete_elem
    4.1: probe_read ktime_get_ns trace_printk get_prandom_u32 get_smp_processor_id skb_store_bytes
        l3_csum_replace l4_csum_replace
    4.2: tail_call clone_redirect get_current_pid_tgid get_current_uid_gid get_current_comm
    4.3: get_cgroup_classid skb_vlan_push skb_vlan_pop skb_get_tunnel_key skb_set_tunnel_key
        perf_event_read
    4.4: redirect get_route_realm perf_event_output
    4.5: skb_load_bytes
    4.6: get_stackid csum_diff skb_get_tunnel_opt skb_set_tunnel_opt
    4.8: skb_change_proto skb_change_type skb_under_cgroup get_hash_recalc get_current_task
        probe_write_user
    4.9: current_task_under_cgroup skb_change_tail skb_pull_data csum_update set_hash_invalid
    4.10: get_numa_node_id skb_change_head xdp_adjust_head
    4.11: probe_read_str
    4.12: get_socket_cookie get_socket_uid
    4.13: set_hash setsockopt skb_adjust_room
    4.14: redirect_map sk_redirect_map sock_map_update
    4.15: xdp_adjust_meta perf_event_read_value perf_prog_read_value getsockopt
    4.16: override_return sock_ops_cb_flags_set
    4.17: msg_redirect_map msg_apply_bytes msg_cork_bytes msg_pull_data bind
    4.18: xdp_adjust_tail skb_get_xfrm_state get_stack skb_load_bytes_relative fib_lookup
        sock_hash_update msg_redirect_hash sk_redirect_hash lwt_push_encap lwt_seg6_store_bytes
        lwt_seg6_adjust_srh lwt_seg6_action rc_repeat rc_keydown skb_cgroup_id get_current_cgroup_id
    4.19: get_local_storage sk_select_reuseport skb_ancestor_cgroup_id
    4.20: sk_lookup_tcp sk_lookup_udp sk_release map_push_elem map_pop_elem map_peek_elem
        msg_push_data
    5.0: msg_pop_data rc_pointer_rel
    5.1: spin_lock spin_unlock sk_fullsock tcp_sock skb_ecn_set_ce get_listener_sock
    5.2: skc_lookup_tcp tcp_check_syncookie sysctl_get_name sysctl_get_current_value
        sysctl_get_new_value sysctl_set_new_value strtol strtoul sk_storage_get sk_storage_delete
    5.3: send_signal
    5.4: tcp_gen_syncookie
    5.5: skb_output probe_read_user probe_read_kernel probe_read_user_str probe_read_kernel_str
    5.6: tcp_send_ack send_signal_thread jiffies64
    5.7: read_branch_records get_ns_current_pid_tgid xdp_output get_netns_cookie
        get_current_ancestor_cgroup_id sk_assign
    5.8: ktime_get_boot_ns seq_printf seq_write sk_cgroup_id sk_ancestor_cgroup_id ringbuf_output
        ringbuf_reserve ringbuf_submit ringbuf_discard ringbuf_query csum_level
    5.9: skc_to_tcp6_sock skc_to_tcp_sock skc_to_tcp_timewait_sock skc_to_tcp_request_sock
        skc_to_udp6_sock get_task_stack
    5.10: load_hdr_opt store_hdr_opt reserve_hdr_opt inode_storage_get inode_storage_delete d_path
        copy_from_user snprintf_btf seq_printf_btf skb_cgroup_classid redirect_neigh per_cpu_ptr
        this_cpu_ptr redirect_peer
    5.11: task_storage_get task_storage_delete get_current_task_btf bprm_opts_set
        ktime_get_coarse_ns ima_inode_hash sock_from_file
    5.12: check_mtu
    5.13: for_each_map_elem snprintf
    5.14: sys_bpf btf_find_by_name_kind sys_close
    5.15: timer_init timer_set_callback timer_start timer_cancel get_func_ip get_attach_cookie
        task_pt_regs
    5.16: get_branch_snapshot trace_vprintk skc_to_unix_sock kallsyms_lookup_name
    5.17: find_vma loop strncmp get_func_arg get_func_ret get_func_arg_cnt
    5.18: get_retval set_retval xdp_get_buff_len xdp_load_bytes xdp_store_bytes copy_from_user_task
        skb_set_tstamp ima_file_hash
    5.19: kptr_xchg map_lookup_percpu_elem skc_to_mptcp_sock dynptr_from_mem ringbuf_reserve_dynptr
        ringbuf_submit_dynptr ringbuf_discard_dynptr dynptr_read dynptr_write dynptr_data
    6.0: tcp_raw_gen_syncookie_ipv4 tcp_raw_gen_syncookie_ipv6 tcp_raw_check_syncookie_ipv4
        tcp_raw_check_syncookie_ipv6
    6.1: ktime_get_tai_ns user_ringbuf_drain
    6.2: cgrp_storage_get cgrp_storage_delete
"""
"""The release that first has a helper, for programs of some type."""

GROUPS = {
    "base": """
        map_lookup_elem map_update_elem map_delete_elem ktime_get_ns trace_printk get_prandom_u32
        get_smp_processor_id tail_call get_numa_node_id map_push_elem map_pop_elem map_peek_elem
        spin_lock spin_unlock jiffies64 ktime_get_boot_ns ringbuf_output ringbuf_reserve
        ringbuf_submit ringbuf_discard ringbuf_query snprintf_btf per_cpu_ptr this_cpu_ptr
        for_each_map_elem snprintf timer_init timer_set_callback timer_start timer_cancel
        trace_vprintk loop strncmp kptr_xchg map_lookup_percpu_elem dynptr_from_mem
        ringbuf_reserve_dynptr ringbuf_submit_dynptr ringbuf_discard_dynptr dynptr_read dynptr_write
        dynptr_data ktime_get_tai_ns user_ringbuf_drain cgrp_storage_get cgrp_storage_delete
        5.10: get_current_task probe_read_user probe_read_kernel probe_read_user_str
            probe_read_kernel_str
        6.1: strtol strtoul get_current_task_btf task_pt_regs
        6.10: get_current_pid_tgid get_ns_current_pid_tgid
        6.12: get_current_cgroup_id get_current_ancestor_cgroup_id
        6.16: get_cgroup_classid get_current_uid_gid get_current_comm perf_event_read
            current_task_under_cgroup perf_event_read_value send_signal send_signal_thread
            get_task_stack copy_from_user task_storage_get task_storage_delete get_branch_snapshot
            find_vma copy_from_user_task
    """,
    "tracing": """
        map_lookup_elem map_update_elem map_delete_elem probe_read ktime_get_ns trace_printk
        get_prandom_u32 get_smp_processor_id tail_call get_current_pid_tgid get_current_uid_gid
        get_current_comm perf_event_read perf_event_output get_stackid get_current_task
        probe_write_user current_task_under_cgroup get_numa_node_id probe_read_str
        perf_event_read_value get_stack get_current_cgroup_id send_signal probe_read_user
        probe_read_kernel probe_read_user_str probe_read_kernel_str send_signal_thread jiffies64
        get_ns_current_pid_tgid ktime_get_boot_ns ringbuf_output ringbuf_reserve ringbuf_submit
        ringbuf_discard ringbuf_query get_task_stack copy_from_user snprintf_btf per_cpu_ptr
        this_cpu_ptr get_current_task_btf for_each_map_elem snprintf timer_init timer_set_callback
        timer_start timer_cancel task_pt_regs get_branch_snapshot trace_vprintk find_vma loop
        strncmp copy_from_user_task kptr_xchg map_lookup_percpu_elem dynptr_from_mem
        ringbuf_reserve_dynptr ringbuf_submit_dynptr ringbuf_discard_dynptr dynptr_read dynptr_write
        dynptr_data ktime_get_tai_ns user_ringbuf_drain cgrp_storage_get cgrp_storage_delete
        5.2: map_push_elem map_pop_elem map_peek_elem
        5.13: task_storage_get task_storage_delete
        5.15: spin_lock spin_unlock get_current_ancestor_cgroup_id
        6.1: strtol strtoul
        6.16: get_cgroup_classid
    """,
    "sk": """
        skc_to_tcp6_sock skc_to_tcp_sock skc_to_tcp_timewait_sock skc_to_tcp_request_sock
        skc_to_udp6_sock skc_to_unix_sock skc_to_mptcp_sock ktime_get_coarse_ns
    """,
    "lwt": """
        get_cgroup_classid get_route_realm perf_event_output skb_load_bytes csum_diff
        skb_under_cgroup get_hash_recalc skb_pull_data
    """,
    "tc": """
        skb_store_bytes l3_csum_replace l4_csum_replace clone_redirect get_cgroup_classid
        skb_vlan_push skb_vlan_pop skb_get_tunnel_key skb_set_tunnel_key redirect get_route_realm
        perf_event_output skb_load_bytes csum_diff skb_get_tunnel_opt skb_set_tunnel_opt
        skb_change_proto skb_change_type skb_under_cgroup get_hash_recalc skb_change_tail
        skb_pull_data csum_update set_hash_invalid get_socket_cookie get_socket_uid set_hash
        skb_adjust_room skb_get_xfrm_state skb_load_bytes_relative fib_lookup skb_cgroup_id
        skb_ancestor_cgroup_id sk_lookup_tcp sk_lookup_udp sk_release sk_fullsock tcp_sock
        skb_ecn_set_ce get_listener_sock skc_lookup_tcp tcp_check_syncookie sk_storage_get
        sk_storage_delete tcp_gen_syncookie sk_assign csum_level skb_cgroup_classid redirect_neigh
        redirect_peer check_mtu skb_set_tstamp tcp_raw_gen_syncookie_ipv4 tcp_raw_gen_syncookie_ipv6
        tcp_raw_check_syncookie_ipv4 tcp_raw_check_syncookie_ipv6
        5.8: skb_change_head
        6.15: get_netns_cookie
    """,
}
"""What programs of several types may call."""

TYPES = {
    "socket_filter": (
        "base sk",
        """
        skb_load_bytes get_socket_cookie get_socket_uid skb_load_bytes_relative
        5.4: perf_event_output
        6.15: get_netns_cookie
    """,
    ),
    "kprobe": (
        "tracing",
        """
        override_return get_func_ip get_attach_cookie
    """,
    ),
    "tc": ("base sk tc", ""),
    "sched_act": ("base sk tc", ""),
    "tracepoint": (
        "tracing",
        """
        get_attach_cookie
        5.10: perf_event_read_value
    """,
    ),
    "xdp": (
        "base sk",
        """
        redirect perf_event_output csum_diff xdp_adjust_head redirect_map xdp_adjust_meta
        xdp_adjust_tail fib_lookup skc_lookup_tcp tcp_check_syncookie tcp_gen_syncookie check_mtu
        xdp_get_buff_len xdp_load_bytes xdp_store_bytes tcp_raw_gen_syncookie_ipv4
        tcp_raw_gen_syncookie_ipv6 tcp_raw_check_syncookie_ipv4 tcp_raw_check_syncookie_ipv6
        5.0: sk_lookup_tcp sk_lookup_udp sk_release
    """,
    ),
    "perf_event": (
        "tracing",
        """
        perf_prog_read_value read_branch_records get_attach_cookie
        5.10: perf_event_read_value
    """,
    ),
    "cgroup_skb": (
        "base sk",
        """
        skb_load_bytes get_socket_cookie get_socket_uid skb_load_bytes_relative get_local_storage
        sk_fullsock tcp_sock skb_ecn_set_ce get_listener_sock sk_storage_get sk_storage_delete
        sk_cgroup_id sk_ancestor_cgroup_id
        5.4: perf_event_output skb_cgroup_id
        5.8: skb_ancestor_cgroup_id sk_lookup_tcp sk_lookup_udp sk_release skc_lookup_tcp
        6.15: get_netns_cookie
    """,
    ),
    "cgroup_sock": (
        "base",
        """
        get_local_storage get_netns_cookie ktime_get_coarse_ns
        4.10: get_current_uid_gid
        5.7: get_current_pid_tgid get_current_comm get_cgroup_classid perf_event_output
            get_current_cgroup_id get_current_ancestor_cgroup_id
        5.10: get_socket_cookie sk_storage_get
        6.1: get_retval set_retval
        6.12: current_task_under_cgroup
    """,
    ),
    "lwt_in": (
        "base sk lwt",
        """
        lwt_push_encap
    """,
    ),
    "lwt_out": ("base sk lwt", ""),
    "lwt_xmit": (
        "base sk lwt",
        """
        skb_store_bytes l3_csum_replace l4_csum_replace clone_redirect skb_get_tunnel_key
        skb_set_tunnel_key redirect skb_get_tunnel_opt skb_set_tunnel_opt skb_change_tail
        csum_update set_hash_invalid skb_change_head csum_level
        5.1: lwt_push_encap
    """,
    ),
    "sock_ops": (
        "base sk",
        """
        get_socket_cookie setsockopt sock_map_update getsockopt sock_ops_cb_flags_set
        sock_hash_update get_local_storage sk_storage_get sk_storage_delete load_hdr_opt
        store_hdr_opt reserve_hdr_opt
        5.3: tcp_sock
        5.4: perf_event_output
        6.1: get_netns_cookie
    """,
    ),
    "sk_skb": (
        "base sk",
        """
        skb_store_bytes skb_load_bytes skb_change_tail skb_pull_data skb_change_head
        get_socket_cookie get_socket_uid sk_redirect_map sk_redirect_hash sk_lookup_tcp
        sk_lookup_udp sk_release skc_lookup_tcp
        5.4: perf_event_output
        5.10: skb_adjust_room
    """,
    ),
    "cgroup_device": (
        "base",
        """
        get_local_storage get_retval set_retval
        4.15: get_current_uid_gid
        5.4: get_current_cgroup_id
        5.8: ktime_get_ns get_prandom_u32 get_smp_processor_id tail_call perf_event_output
            get_numa_node_id map_push_elem map_pop_elem map_peek_elem spin_lock spin_unlock
        6.1: get_current_pid_tgid get_current_comm get_cgroup_classid get_current_ancestor_cgroup_id
        6.12: current_task_under_cgroup
    """,
    ),
    "sk_msg": (
        "base sk",
        """
        msg_redirect_map msg_apply_bytes msg_cork_bytes msg_pull_data msg_redirect_hash
        msg_push_data msg_pop_data
        5.8: get_current_pid_tgid get_current_uid_gid get_cgroup_classid perf_event_output
            get_current_cgroup_id sk_storage_get sk_storage_delete get_current_ancestor_cgroup_id
        6.1: get_netns_cookie
    """,
    ),
    "raw_tracepoint": (
        "tracing",
        """
        5.10: perf_event_read_value
        6.10: get_attach_cookie
    """,
    ),
    "cgroup_sock_addr": (
        "base sk",
        """
        get_socket_cookie bind get_local_storage skc_lookup_tcp get_netns_cookie
        4.17: get_current_uid_gid
        5.0: sk_lookup_tcp sk_lookup_udp sk_release
        5.4: sk_storage_get sk_storage_delete
        5.7: get_current_pid_tgid get_current_comm get_cgroup_classid perf_event_output
            get_current_cgroup_id get_current_ancestor_cgroup_id
        5.8: setsockopt getsockopt
        6.1: get_retval set_retval
        6.12: current_task_under_cgroup
    """,
    ),
    "lwt_seg6local": (
        "base sk lwt",
        """
        lwt_seg6_store_bytes lwt_seg6_adjust_srh lwt_seg6_action
    """,
    ),
    "lirc_mode2": (
        "",
        """
        map_lookup_elem map_update_elem map_delete_elem ktime_get_ns trace_printk get_prandom_u32
        tail_call rc_repeat rc_keydown rc_pointer_rel ktime_get_boot_ns
        5.2: map_push_elem map_pop_elem map_peek_elem
    """,
    ),
    "sk_reuseport": (
        "base",
        """
        skb_load_bytes skb_load_bytes_relative sk_select_reuseport ktime_get_coarse_ns
        6.1: get_socket_cookie
    """,
    ),
    "flow_dissector": (
        "base sk",
        """
        skb_load_bytes
    """,
    ),
    "cgroup_sysctl": (
        "base",
        """
        get_local_storage sysctl_get_name sysctl_get_current_value sysctl_get_new_value
        sysctl_set_new_value ktime_get_coarse_ns get_retval set_retval
        5.2: get_current_uid_gid get_current_cgroup_id strtol strtoul
        5.8: ktime_get_ns get_prandom_u32 get_smp_processor_id tail_call perf_event_output
            get_numa_node_id map_push_elem map_pop_elem map_peek_elem spin_lock spin_unlock
        6.1: get_current_pid_tgid get_current_comm get_cgroup_classid get_current_ancestor_cgroup_id
        6.12: current_task_under_cgroup
    """,
    ),
    "raw_tracepoint_writable": (
        "tracing",
        """
        5.10: perf_event_read_value
        6.10: get_attach_cookie
    """,
    ),
    "cgroup_sockopt": (
        "base",
        """
        get_local_storage tcp_sock sk_storage_get sk_storage_delete get_retval set_retval
        5.3: get_current_uid_gid get_current_cgroup_id
        5.8: ktime_get_ns get_prandom_u32 get_smp_processor_id tail_call perf_event_output
            get_numa_node_id map_push_elem map_pop_elem map_peek_elem spin_lock spin_unlock
        5.15: setsockopt getsockopt
        6.1: get_current_pid_tgid get_current_comm get_cgroup_classid get_netns_cookie
            get_current_ancestor_cgroup_id
        6.12: current_task_under_cgroup
    """,
    ),
    "tracing": (
        "tracing",
        """
        skb_output xdp_output seq_printf seq_write skc_to_tcp6_sock skc_to_tcp_sock
        skc_to_tcp_timewait_sock skc_to_tcp_request_sock skc_to_udp6_sock d_path seq_printf_btf
        sock_from_file get_func_ip skc_to_unix_sock get_func_arg get_func_ret get_func_arg_cnt
        xdp_get_buff_len skc_to_mptcp_sock
        5.11: sk_storage_get sk_storage_delete
        5.12: get_socket_cookie
        5.15: getsockopt setsockopt
        5.19: get_attach_cookie
    """,
    ),
    "lsm": (
        "tracing",
        """
        skb_output xdp_output skc_to_tcp6_sock skc_to_tcp_sock skc_to_tcp_timewait_sock
        skc_to_tcp_request_sock skc_to_udp6_sock inode_storage_get inode_storage_delete d_path
        bprm_opts_set ima_inode_hash sock_from_file skc_to_unix_sock get_func_arg get_func_ret
        get_func_arg_cnt xdp_get_buff_len ima_file_hash skc_to_mptcp_sock
        5.10: sk_storage_get sk_storage_delete
        5.11: spin_lock spin_unlock task_storage_get task_storage_delete
        5.19: get_attach_cookie
        6.0: setsockopt getsockopt
        6.1: get_socket_cookie get_local_storage get_retval set_retval
    """,
    ),
    "sk_lookup": (
        "base sk",
        """
        perf_event_output sk_release sk_assign
    """,
    ),
    "syscall": (
        "tracing",
        """
        get_socket_cookie skb_output xdp_output skc_to_tcp6_sock skc_to_tcp_sock
        skc_to_tcp_timewait_sock skc_to_tcp_request_sock skc_to_udp6_sock sock_from_file sys_bpf
        btf_find_by_name_kind sys_close skc_to_unix_sock kallsyms_lookup_name xdp_get_buff_len
        skc_to_mptcp_sock
    """,
    ),
    "netfilter": ("base", ""),
    "tcp_congestion_ops": (
        "base",
        """
        sk_storage_get sk_storage_delete tcp_send_ack ktime_get_coarse_ns
        5.15: setsockopt getsockopt
    """,
    ),
}
"""Of each program type the groups, and what it has besides, or later or earlier than these."""

OF_CONNECT = "cgroup/connect4 cgroup/connect6"
_DECIDING = f"""
    {OF_CONNECT} cgroup/connect_unix cgroup/bind4 cgroup/bind6
    cgroup/sendmsg4 cgroup/sendmsg6 cgroup/sendmsg_unix
"""
_TRAMPOLINES = "fentry fexit fmod_ret"
_OF_ADDRESSES = f"""
    {OF_CONNECT}
    5.12: cgroup/bind4 cgroup/bind6 cgroup/sendmsg4 cgroup/sendmsg6 cgroup/recvmsg4 cgroup/recvmsg6
        cgroup/getpeername4 cgroup/getpeername6 cgroup/getsockname4 cgroup/getsockname6
    6.7: cgroup/connect_unix cgroup/sendmsg_unix cgroup/recvmsg_unix cgroup/getpeername_unix
        cgroup/getsockname_unix
"""

#    type                helpers                          sections of the programs that may call them
ATTACHED = (
    ("cgroup_sock_addr", "bind",                          OF_CONNECT),
    ("cgroup_sock_addr", "get_retval set_retval",         _DECIDING),
    ("cgroup_sock_addr", "getsockopt setsockopt",         _OF_ADDRESSES),
    ("cgroup_sockopt",   "getsockopt setsockopt",         "cgroup/setsockopt"),
    ("tracing",          "seq_printf seq_printf_btf seq_write", "iter"),
    ("tracing",          "d_path",                        f"{_TRAMPOLINES} iter"),
    ("tracing",          "get_attach_cookie",             f"{_TRAMPOLINES} 6.10: tp_btf"),
    ("tracing",          "get_func_ip get_func_arg get_func_ret get_func_arg_cnt", _TRAMPOLINES),
    ("tracing",          "getsockopt setsockopt",         "iter/tcp 5.17: iter/unix"),
    ("lsm",              "getsockopt setsockopt get_local_storage get_retval set_retval", "lsm_cgroup"),
)  # fmt: skip
"""Helpers that not all programs of a type may call."""

PATH_HOOKS = """
    security_file_permission security_inode_getattr security_file_open security_path_truncate vfs_truncate
    vfs_fallocate dentry_open vfs_getattr filp_close
"""
"""The functions at which fentry programs and the like may call bpf_d_path (btf_allowlist_d_path)."""

SLEEPERS = (
    "copy_from_user copy_from_user_task ima_inode_hash ima_file_hash sys_bpf sys_close btf_find_by_name_kind"
)
"""What only programs that may sleep may call."""
