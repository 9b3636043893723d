"""Which kernel functions (kfuncs) each release of Linux has, and which programs may call them.

Sources, read on 2026-11-30: ebpf-docs (github.com/isovalent/ebpf-docs, data/feature-versions.yaml,
data/feature-versions-new.yaml and data/kfuncs.yaml) up to 6.10 and for 6.16; the kernel's BTF_ID_FLAGS and
register_btf_kfunc_id_set in 6.1 and 6.12; Linux 6.18, whose BTF names its kfuncs and which was asked, through
bpf(2), which programs may call them. What modules bring that are no part of Linux is not here.
"""

from __future__ import annotations

KFUNCS = """
    5.13: bbr_init bbr_main bbr_sndbuf_expand bbr_undo_cwnd bbr_cwnd_event bbr_ssthresh
        bbr_min_tso_segs bbr_set_state cubictcp_init cubictcp_recalc_ssthresh cubictcp_cong_avoid
        cubictcp_state cubictcp_cwnd_event cubictcp_acked dctcp_init dctcp_update_alpha
        dctcp_cwnd_event dctcp_ssthresh dctcp_cwnd_undo dctcp_state tcp_reno_ssthresh
        tcp_reno_cong_avoid tcp_reno_undo_cwnd tcp_slow_start tcp_cong_avoid_ai
    5.18: bpf_xdp_ct_lookup bpf_skb_ct_lookup bpf_ct_release bpf_kfunc_call_test_release
        bpf_kfunc_call_memb_release
    6.0: bpf_xdp_ct_alloc bpf_skb_ct_alloc bpf_ct_insert_entry bpf_ct_set_timeout
        bpf_ct_change_timeout bpf_ct_set_status bpf_ct_change_status
    6.1: cgroup_rstat_updated cgroup_rstat_flush bpf_lookup_user_key bpf_lookup_system_key
        bpf_key_put bpf_verify_pkcs7_signature crash_kexec bpf_ct_set_nat_info
    6.2: bpf_obj_new_impl bpf_obj_drop_impl bpf_list_pop_front bpf_list_pop_back bpf_task_acquire
        bpf_task_release bpf_cgroup_acquire bpf_cgroup_release bpf_cgroup_ancestor bpf_task_from_pid
        bpf_cast_to_kern_ctx bpf_rdonly_cast bpf_rcu_read_lock bpf_rcu_read_unlock
        bpf_skb_get_xfrm_info bpf_skb_set_xfrm_info bpf_list_push_front bpf_list_push_back
        bpf_task_kptr_get bpf_cgroup_kptr_get
    6.3: bpf_cpumask_create bpf_cpumask_release bpf_cpumask_acquire bpf_cpumask_first
        bpf_cpumask_first_zero bpf_cpumask_set_cpu bpf_cpumask_clear_cpu bpf_cpumask_test_cpu
        bpf_cpumask_test_and_set_cpu bpf_cpumask_test_and_clear_cpu bpf_cpumask_setall
        bpf_cpumask_clear bpf_cpumask_and bpf_cpumask_or bpf_cpumask_xor bpf_cpumask_equal
        bpf_cpumask_intersects bpf_cpumask_subset bpf_cpumask_empty bpf_cpumask_full
        bpf_cpumask_copy bpf_rbtree_remove bpf_rbtree_first bpf_xdp_metadata_rx_timestamp
        bpf_xdp_metadata_rx_hash hid_bpf_get_data hid_bpf_attach_prog hid_bpf_allocate_context
        hid_bpf_release_context hid_bpf_hw_request bpf_rbtree_add bpf_cpumask_any
        bpf_cpumask_any_and bpf_cpumask_kptr_get
    6.4: bpf_refcount_acquire_impl bpf_list_push_front_impl bpf_list_push_back_impl
        bpf_rbtree_add_impl bpf_cgroup_from_id bpf_dynptr_slice bpf_dynptr_slice_rdwr
        bpf_iter_num_new bpf_iter_num_next bpf_iter_num_destroy bpf_dynptr_from_skb
        bpf_dynptr_from_xdp bpf_skb_set_fou_encap bpf_skb_get_fou_encap
    6.5: bpf_cpumask_first_and bpf_cpumask_any_distribute bpf_cpumask_any_and_distribute
        bpf_task_under_cgroup bpf_dynptr_adjust bpf_dynptr_is_null bpf_dynptr_is_rdonly
        bpf_dynptr_size bpf_dynptr_clone bpf_sock_destroy
    6.6: bpf_map_sum_elem_count
    6.7: bpf_percpu_obj_new_impl bpf_percpu_obj_drop_impl bpf_throw bpf_iter_task_vma_new
        bpf_iter_task_vma_next bpf_iter_task_vma_destroy bpf_iter_css_task_new
        bpf_iter_css_task_next bpf_iter_css_task_destroy bpf_iter_css_new bpf_iter_css_next
        bpf_iter_css_destroy bpf_iter_task_new bpf_iter_task_next bpf_iter_task_destroy
        bpf_sock_addr_set_sun_path
    6.8: bpf_get_file_xattr bpf_cpumask_weight bpf_task_get_cgroup1 bpf_get_fsverity_digest
        bpf_xdp_metadata_rx_vlan_tag bpf_xdp_get_xfrm_state bpf_xdp_xfrm_state_release
    6.9: bpf_arena_alloc_pages bpf_arena_free_pages bpf_sk_assign_tcp_reqsk
    6.10: bpf_wq_init bpf_wq_set_callback_impl bpf_wq_start bpf_preempt_disable bpf_preempt_enable
        bpf_crypto_ctx_create bpf_crypto_ctx_release bpf_crypto_ctx_acquire bpf_crypto_decrypt
        bpf_crypto_encrypt bpf_session_is_return bpf_session_cookie hid_bpf_hw_output_report
        hid_bpf_input_report
    6.11: bpf_iter_bits_new bpf_iter_bits_next bpf_iter_bits_destroy bpf_xdp_flow_lookup
        hid_bpf_try_input_report
    6.12: bpf_copy_from_user_str bpf_get_dentry_xattr bpf_get_task_exe_file bpf_put_file
        bpf_path_d_path scx_bpf_select_cpu_dfl scx_bpf_dispatch scx_bpf_dispatch_vtime
        scx_bpf_dispatch_nr_slots scx_bpf_dispatch_cancel scx_bpf_consume
        scx_bpf_dispatch_from_dsq_set_slice scx_bpf_dispatch_from_dsq_set_vtime
        scx_bpf_dispatch_from_dsq scx_bpf_dispatch_vtime_from_dsq scx_bpf_reenqueue_local
        scx_bpf_create_dsq scx_bpf_kick_cpu scx_bpf_dsq_nr_queued scx_bpf_destroy_dsq
        bpf_iter_scx_dsq_new bpf_iter_scx_dsq_next bpf_iter_scx_dsq_destroy scx_bpf_exit_bstr
        scx_bpf_error_bstr scx_bpf_dump_bstr scx_bpf_cpuperf_cap scx_bpf_cpuperf_cur
        scx_bpf_cpuperf_set scx_bpf_nr_cpu_ids scx_bpf_get_possible_cpumask
        scx_bpf_get_online_cpumask scx_bpf_put_cpumask scx_bpf_get_idle_cpumask
        scx_bpf_get_idle_smtmask scx_bpf_put_idle_cpumask scx_bpf_test_and_clear_cpu_idle
        scx_bpf_pick_idle_cpu scx_bpf_pick_any_cpu scx_bpf_task_running scx_bpf_task_cpu
        scx_bpf_cpu_rq scx_bpf_task_cgroup
    6.13: bpf_get_kmem_cache bpf_iter_kmem_cache_new bpf_iter_kmem_cache_next
        bpf_iter_kmem_cache_destroy bpf_send_signal_task bpf_task_from_vpid scx_bpf_dsq_insert
        scx_bpf_dsq_insert_vtime scx_bpf_dsq_move_to_local scx_bpf_dsq_move_set_slice
        scx_bpf_dsq_move_set_vtime scx_bpf_dsq_move scx_bpf_dsq_move_vtime
    6.14: bpf_local_irq_save bpf_local_irq_restore scx_bpf_now
    6.15: bpf_copy_from_user_task_str bpf_cpumask_populate bpf_dynptr_copy bpf_set_dentry_xattr
        bpf_remove_dentry_xattr bpf_res_spin_lock bpf_res_spin_unlock bpf_res_spin_lock_irqsave
        bpf_res_spin_unlock_irqrestore bpf_sock_ops_enable_tx_tstamp
    6.16: __bpf_trap bpf_iter_dmabuf_new bpf_iter_dmabuf_next bpf_iter_dmabuf_destroy
        bpf_probe_read_user_dynptr bpf_probe_read_kernel_dynptr bpf_probe_read_user_str_dynptr
        bpf_probe_read_kernel_str_dynptr bpf_copy_from_user_dynptr bpf_copy_from_user_str_dynptr
        bpf_copy_from_user_task_dynptr bpf_copy_from_user_task_str_dynptr bpf_list_front
        bpf_list_back bpf_rbtree_root bpf_rbtree_left bpf_rbtree_right bpf_qdisc_bstats_update
        bpf_qdisc_watchdog_schedule bpf_qdisc_init_prologue bpf_qdisc_reset_destroy_epilogue
        bpf_skb_get_hash bpf_kfree_skb bpf_qdisc_skb_drop scx_bpf_select_cpu_and css_rstat_updated
        css_rstat_flush
    6.17: bpf_arena_reserve_pages bpf_stream_vprintk bpf_dynptr_memset bpf_cgroup_read_xattr
        bpf_strcmp bpf_strnchr bpf_strchr bpf_strchrnul bpf_strrchr bpf_strlen bpf_strnlen
        bpf_strspn bpf_strcspn bpf_strnstr bpf_strstr
    6.18: bpf_dynptr_from_skb_meta bpf_strcasecmp bpf_stream_vprintk_impl
        bpf_task_work_schedule_signal_impl bpf_task_work_schedule_resume_impl bpf_xdp_pull_data
"""
"""The release that first has a kfunc."""

UNTIL = """
    6.3: bpf_list_push_front bpf_list_push_back bpf_rbtree_add bpf_task_kptr_get bpf_cgroup_kptr_get
        bpf_cpumask_kptr_get
    6.4: bpf_cpumask_any bpf_cpumask_any_and
    6.10: hid_bpf_attach_prog
    6.14: scx_bpf_dispatch scx_bpf_dispatch_vtime scx_bpf_consume scx_bpf_dispatch_from_dsq
        scx_bpf_dispatch_from_dsq_set_slice scx_bpf_dispatch_from_dsq_set_vtime
        scx_bpf_dispatch_vtime_from_dsq
    6.15: cgroup_rstat_updated cgroup_rstat_flush
    6.17: bpf_stream_vprintk
"""
"""The last release that has it: what was renamed, or taken out again."""

CGROUP_TYPES = """
    6.12: cgroup_skb cgroup_sock cgroup_device cgroup_sock_addr cgroup_sockopt cgroup_sysctl
    6.15: sock_ops
"""

#  functions, "*" for any rest      types of programs, and since when where that is later
SETS = (
    (
        """
        bpf_cgroup_acquire bpf_cgroup_ancestor bpf_cgroup_from_id bpf_cgroup_kptr_get
        bpf_cgroup_release bpf_list_* bpf_obj_* bpf_percpu_obj_* bpf_rbtree_*
        bpf_refcount_acquire_impl bpf_send_signal_task bpf_task_acquire bpf_task_from_*
        bpf_task_get_cgroup1 bpf_task_kptr_get bpf_task_release bpf_task_under_cgroup bpf_throw
        crash_kexec
     """,
        f"""
        tracing lsm tc
        6.8: xdp struct_ops
        6.10: syscall
        6.12: tracepoint perf_event {CGROUP_TYPES}
     """,
    ),
    (
        "bpf_kfunc_call_test_release bpf_kfunc_call_memb_release",
        """
        tc
        6.1: tracing syscall
     """,
    ),
    (
        "bpf_key_put bpf_lookup_*_key",
        f"""
        tracing lsm
        6.12: tracepoint perf_event
        6.18: tc xdp struct_ops syscall {CGROUP_TYPES}
     """,
    ),
    (
        "bpf_verify_pkcs7_signature",
        """
        tracing lsm
        6.12: tracepoint perf_event
     """,
    ),
    (
        "bpf_cpumask_*",
        """
        tracing lsm struct_ops
        6.10: syscall
        6.12: tracepoint perf_event
     """,
    ),
    (
        "cgroup_rstat_* css_rstat_*",
        """
        tracing lsm
        6.12: tracepoint perf_event
     """,
    ),
    (
        """
        bpf_get_file_xattr bpf_get_fsverity_digest bpf_get_dentry_xattr bpf_get_task_exe_file
        bpf_path_d_path bpf_put_file bpf_set_dentry_xattr bpf_remove_dentry_xattr
     """,
        "lsm",
    ),
    (
        "bpf_xdp_metadata_* bpf_dynptr_from_xdp bpf_xdp_pull_data bpf_xdp_flow_lookup bpf_xdp_get_xfrm_state "
        "bpf_xdp_xfrm_state_release",
        "xdp",
    ),
    (
        "bpf_dynptr_from_skb",
        f"""
        tc sched_act sk_skb socket_filter cgroup_skb lwt_in lwt_out lwt_xmit lwt_seg6local
        netfilter
        6.12: tracing lsm tracepoint perf_event {CGROUP_TYPES}
     """,
    ),
    ("bpf_dynptr_from_skb_meta", "tc sched_act"),
    (
        "bpf_sock_addr_set_sun_path",
        f"""
        cgroup_sock_addr
        6.12: {CGROUP_TYPES}
     """,
    ),
    ("bpf_sock_ops_enable_tx_tstamp", CGROUP_TYPES),
    ("bpf_sk_assign_tcp_reqsk bpf_skb_*_fou_encap bpf_skb_*_xfrm_info", "tc"),
    ("bpf_sock_destroy", "tracing"),
    ("bpf_ct_* bpf_xdp_ct_* bpf_skb_ct_*", "xdp tc"),
    ("bpf_crypto_ctx_*", "syscall"),
    ("bpf_crypto_decrypt bpf_crypto_encrypt", "tc sched_act xdp"),
    ("bpf_session_*", "kprobe"),
    (
        """
        bbr_* cubictcp_* dctcp_* tcp_reno_* tcp_slow_start tcp_cong_avoid_ai
        bpf_qdisc_* bpf_skb_get_hash bpf_kfree_skb
     """,
        "struct_ops",
    ),
    ("hid_bpf_get_data hid_bpf_try_input_report", "6.11: struct_ops"),
    ("hid_bpf_attach_prog", "syscall"),
    (
        "hid_bpf_*",
        """
        syscall
        6.11: struct_ops
     """,
    ),
    (
        """
        scx_bpf_select_cpu_* scx_bpf_dispatch scx_bpf_dispatch_nr_slots scx_bpf_dispatch_cancel
        scx_bpf_dispatch_vtime scx_bpf_consume scx_bpf_reenqueue_local scx_bpf_dsq_insert*
        scx_bpf_dsq_move_to_local
     """,
        "struct_ops",
    ),
    ("scx_bpf_dispatch_* scx_bpf_create_dsq scx_bpf_dsq_move*", "struct_ops syscall"),
    (
        "scx_bpf_* bpf_iter_scx_*",
        """
        struct_ops tracing lsm syscall tracepoint perf_event
     """,
    ),
    ("*", "any"),
)
"""The first set that a kfunc is in says which programs may call it; the last is for programs of any type."""

ATTACHED = {
    "bpf_sock_destroy": "iter",
    "bpf_session_is_return": "kprobe.session uprobe.session",
    "bpf_session_cookie": "kprobe.session uprobe.session",
}
"""Kfuncs that only programs of some sections may call."""
