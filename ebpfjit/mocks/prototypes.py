"""What Linux's helpers take, by name: facts of include/uapi/linux/bpf.h, Linux 6.1 and 6.2.

A letter for each argument:

    u  u64       d  u32      h  u16      i  s32
    p  a pointer to something of the kernel's, or to a function
    b  a pointer to as many bytes as the argument behind it says
    m  a map     k  a pointer to a key of the map    v  a pointer to a value of the map
"""

from __future__ import annotations

from collections.abc import Mapping

_ALL = """
map_lookup_elem mk, map_update_elem mkvu, map_delete_elem mk, probe_read bdp, ktime_get_ns -, trace_printk
bd, get_prandom_u32 -, get_smp_processor_id -, skb_store_bytes pdbdu, l3_csum_replace pduuu, l4_csum_replace
pduuu, tail_call pmd, clone_redirect pdu, get_current_pid_tgid -, get_current_uid_gid -, get_current_comm
bd, get_cgroup_classid p, skb_vlan_push phh, skb_vlan_pop p, skb_get_tunnel_key pbdu, skb_set_tunnel_key
pbdu, perf_event_read mu, redirect du, get_route_realm p, perf_event_output pmubu, skb_load_bytes pdbd,
get_stackid pmu, csum_diff bdbdd, skb_get_tunnel_opt pbd, skb_set_tunnel_opt pbd, skb_change_proto phu,
skb_change_type pd, skb_under_cgroup pmd, get_hash_recalc p, get_current_task -, probe_write_user pbd,
current_task_under_cgroup md, skb_change_tail pdu, skb_pull_data pd, csum_update pd, set_hash_invalid p,
get_numa_node_id -, skb_change_head pdu, xdp_adjust_head pi, probe_read_str bdp, get_socket_cookie p,
get_socket_uid p, set_hash pd, setsockopt piibi, skb_adjust_room pidu, redirect_map mdu, sk_redirect_map
pmdu, sock_map_update pmku, xdp_adjust_meta pi, perf_event_read_value mubd, perf_prog_read_value pbd,
getsockopt piibi, override_return pu, sock_ops_cb_flags_set pi, msg_redirect_map pmdu, msg_apply_bytes pd,
msg_cork_bytes pd, msg_pull_data pddu, bind pbi, xdp_adjust_tail pi, skb_get_xfrm_state pdbdu, get_stack
pbdu, skb_load_bytes_relative pdbdd, fib_lookup pbid, sock_hash_update pmku, msg_redirect_hash pmku,
sk_redirect_hash pmku, lwt_push_encap pdbd, lwt_seg6_store_bytes pdbd, lwt_seg6_adjust_srh pdi,
lwt_seg6_action pdbd, rc_repeat p, rc_keydown pdud, skb_cgroup_id p, get_current_cgroup_id -,
get_local_storage mu, sk_select_reuseport pmku, skb_ancestor_cgroup_id pi, sk_lookup_tcp pbduu,
sk_lookup_udp pbduu, sk_release p, map_push_elem mvu, map_pop_elem mv, map_peek_elem mv, msg_push_data pddu,
msg_pop_data pddu, rc_pointer_rel pii, spin_lock p, spin_unlock p, sk_fullsock p, tcp_sock p, skb_ecn_set_ce
p, get_listener_sock p, skc_lookup_tcp pbduu, tcp_check_syncookie pbdbd, sysctl_get_name pbuu,
sysctl_get_current_value pbu, sysctl_get_new_value pbu, sysctl_set_new_value pbu, strtol buup, strtoul buup,
sk_storage_get mpvu, sk_storage_delete mp, send_signal d, tcp_gen_syncookie pbdbd, skb_output pmubu,
probe_read_user bdp, probe_read_kernel bdp, probe_read_user_str bdp, probe_read_kernel_str bdp, tcp_send_ack
pd, send_signal_thread d, jiffies64 -, read_branch_records pbdu, get_ns_current_pid_tgid uubd, xdp_output
pmubu, get_netns_cookie p, get_current_ancestor_cgroup_id i, sk_assign ppu, ktime_get_boot_ns -, seq_printf
pbdbd, seq_write pbd, sk_cgroup_id p, sk_ancestor_cgroup_id pi, ringbuf_output mbuu, ringbuf_reserve muu,
ringbuf_submit pu, ringbuf_discard pu, ringbuf_query mu, csum_level pu, skc_to_tcp6_sock p, skc_to_tcp_sock
p, skc_to_tcp_timewait_sock p, skc_to_tcp_request_sock p, skc_to_udp6_sock p, get_task_stack pbdu,
load_hdr_opt pbdu, store_hdr_opt pbdu, reserve_hdr_opt pdu, inode_storage_get mpvu, inode_storage_delete mp,
d_path pbd, copy_from_user bdp, snprintf_btf bdbdu, seq_printf_btf pbdu, skb_cgroup_classid p,
redirect_neigh dbiu, per_cpu_ptr pd, this_cpu_ptr p, redirect_peer du, task_storage_get mpvu,
task_storage_delete mp, get_current_task_btf -, bprm_opts_set pu, ktime_get_coarse_ns -, ima_inode_hash pbd,
sock_from_file p, check_mtu pdpiu, for_each_map_elem mppu, snprintf bdpbd, sys_bpf dbd,
btf_find_by_name_kind bidi, sys_close d, timer_init pmu, timer_set_callback pp, timer_start puu,
timer_cancel p, get_func_ip p, get_attach_cookie p, task_pt_regs p, get_branch_snapshot bdu, trace_vprintk
bdbd, skc_to_unix_sock p, kallsyms_lookup_name biip, find_vma puppu, loop dppu, strncmp bdp, get_func_arg
pdp, get_func_ret pp, get_func_arg_cnt p, get_retval -, set_retval i, xdp_get_buff_len p, xdp_load_bytes
pdbd, xdp_store_bytes pdbd, copy_from_user_task bdppu, skb_set_tstamp pud, ima_file_hash pbd, kptr_xchg pp,
map_lookup_percpu_elem mkd, skc_to_mptcp_sock p, dynptr_from_mem bdup, ringbuf_reserve_dynptr mdup,
ringbuf_submit_dynptr pu, ringbuf_discard_dynptr pu, dynptr_read bdpdu, dynptr_write pdbdu, dynptr_data pdd,
tcp_raw_gen_syncookie_ipv4 pbd, tcp_raw_gen_syncookie_ipv6 pbd, tcp_raw_check_syncookie_ipv4 pp,
tcp_raw_check_syncookie_ipv6 pp, ktime_get_tai_ns -, user_ringbuf_drain mppu, cgrp_storage_get
mpvu, cgrp_storage_delete mp
"""

PROTOTYPES: Mapping[str, str] = {
    f"bpf_{name}": "" if letters == "-" else letters
    for name, letters in (entry.split() for entry in _ALL.replace("\n", " ").split(","))
}
