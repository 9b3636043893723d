"""What programs are given that are attached to a function of the kernel, a tracepoint or a hook.

    fentry/do_unlinkat      r1 -> dfd, name            each as large as the register that it comes in
    fexit/do_unlinkat       r1 -> dfd, name, result
    tp_btf/sched_switch     r1 -> preempt, prev, next  pointers that are trusted, some of them NULL at times

The types of the kernel say what they are. Rules: btf_ctx_access and raw_tp_null_args of kernel/bpf/btf.c,
bpf_lsm_is_trusted of kernel/bpf/bpf_lsm.c, Linux 6.18.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NoReturn

from ebpfjit.elf.btf import VOID, Btf, Kind, Type, essential_name
from ebpfjit.program import Program
from ebpfjit.runtime.attach import Attachment, attachment
from ebpfjit.verifier import lsm_hooks
from ebpfjit.verifier.numbers import DOMAIN
from ebpfjit.verifier.refusals import Refused, Undecided
from ebpfjit.verifier.values import Pointer, Scalar, Value, fresh

_WORD = 8
TRACEPOINT, FENTRY, FEXIT, MODIFY_RETURN = 23, 24, 25, 26
_FUNCTIONS: Mapping[int, str] = {
    FENTRY: "", FEXIT: "", MODIFY_RETURN: "", lsm_hooks.BPF_LSM_MAC: "bpf_lsm_",
    lsm_hooks.BPF_LSM_CGROUP: "bpf_lsm_",
}  # fmt: skip
"""What names of functions begin with, by attach type."""

_HAVE_RESULT = frozenset({FEXIT, MODIFY_RETURN, lsm_hooks.BPF_LSM_MAC, lsm_hooks.BPF_LSM_CGROUP})
_NUMBERS = frozenset({Kind.INT, Kind.ENUM, Kind.ENUM64, Kind.STRUCT})
_STRUCTS = frozenset({Kind.STRUCT, Kind.UNION})
_TAGS = frozenset({"user", "percpu", "rcu"})

_NULL: Mapping[int, str] = {
    0: """
        afs_protocol_error cachefiles_io_error cachefiles_lookup cachefiles_mark_active
        cachefiles_mark_failed cachefiles_mark_inactive cachefiles_ondemand_close
        cachefiles_ondemand_copen cachefiles_ondemand_cread cachefiles_ondemand_fd_release
        cachefiles_ondemand_fd_write cachefiles_ondemand_open cachefiles_ondemand_read
        cachefiles_prep_read cachefiles_rename cachefiles_unlink cachefiles_vfs_error
        mm_collapse_huge_page_isolate mm_page_alloc mm_page_alloc_zone_locked mm_page_pcpu_drain
        rxrpc_recvdata sched_process_wait tcp_send_reset tmigr_update_events xs_stream_read_data
    """,
    1: """
        afs_flock_ev afs_make_fs_call afs_make_fs_call1 afs_make_fs_call2 afs_make_fs_calli
        break_lease_block break_lease_noblock break_lease_unblock device_pm_callback_start
        ext4_mballoc_discard ext4_mballoc_free fcntl_setlk flock_lock_inode folio_wait_writeback
        generic_delete_lease locks_remove_posix mm_khugepaged_collapse_file mm_khugepaged_scan_file
        mm_khugepaged_scan_pmd netfs_failure posix_lock_inode rxrpc_resend sched_pi_setprio tcp_send_reset
        time_out_leases writeback_dirty_folio xprt_get_cong xprt_put_cong xprt_release_cong
        xprt_reserve_cong
    """,
    2: """
        fib_table_lookup sched_stick_numa sched_swap_numa tegra_dma_tx_status
    """,
    3: """
        kfree_skb qdisc_dequeue
    """,
    4: """
        host1x_cdma_push_gather
    """,
}
"""Arguments that may be NULL, by their number, and the tracepoints."""

_ERRORS: Mapping[str, frozenset[int]] = {
    "cachefiles_lookup": frozenset({2}),
    "mr_integ_alloc": frozenset({3}),
    "signal_deliver": frozenset({1}),
    "signal_generate": frozenset({1}),
}
"""Arguments that may be errors: numbers to programs."""


def argument(program: Program, offset: int, size: int) -> Value:
    """Return what a load from the context of a traced program gives. Raises Refused, Undecided, LoadError."""
    attached, types = attachment(program.type or "", program.section), program.kernel_types
    name = attached.target
    if offset % _WORD:
        raise Refused("memory", f"func '{name}' offset {offset} is not multiple of 8")
    said = None if types is None else _function(types, attached)
    if types is not None and said is not None:
        return _argument(types, attached, said, offset, size)
    raise Undecided(
        f"what '{name}' is given, the types of the kernel say, and there are none with it: give load(btf=)",
        goes_on=True,
    )


def _function(types: Btf, attached: Attachment) -> Type | None:
    """Return the prototype of what a program is attached to."""
    if not attached.target:
        return None
    if attached.type == TRACEPOINT:
        for id in types.named(f"btf_trace_{attached.target}", {Kind.TYPEDEF}):
            pointer = types.resolve(id)
            found = types.resolve(pointer.target) if pointer.kind is Kind.PTR else VOID
            if found.kind is Kind.FUNC_PROTO:
                return found
    if attached.type in _FUNCTIONS:
        for id in types.named(_FUNCTIONS[attached.type] + attached.target, {Kind.FUNC}):
            return types.resolve(types.type(id).target)
    return None


def _argument(types: Btf, attached: Attachment, said: Type, offset: int, size: int) -> Value:
    first = int(attached.type == TRACEPOINT)  # void *__data
    parameters = said.parameters[first:]
    at = 0
    for number, (name, id) in enumerate(parameters):
        at += -(-max(types.size_of(id), 1) // _WORD) * _WORD
        if offset < at:
            return _given(types, attached, number, name, id, size)
    number = len(parameters)
    if offset >= at + _WORD or attached.type not in _HAVE_RESULT or types.resolve(said.target) is VOID:
        raise Refused("memory", f"func '{attached.target}' doesn't have {number + 1}-th argument")
    if attached.type == lsm_hooks.BPF_LSM_MAC:
        found = lsm_hooks.result_range(attached.target, attached.type)
        if found is not None:
            low, high = found
            return Scalar(DOMAIN.some(smin=low, smax=high, smin32=low, smax32=high))
    return _given(types, attached, number, "", said.target, size)


def _given(types: Btf, attached: Attachment, number: int, name: str, id: int, size: int) -> Value:
    target, what = types.resolve(id), f"func '{attached.target}' arg{number}"
    if target.kind in _NUMBERS:
        return Scalar(DOMAIN.sized(size))
    if target.kind is not Kind.PTR:
        said = f"{what} '{name}' has type {types.describe(id)}. Only pointer access is allowed"
        raise Refused("type", said)
    if size != _WORD:
        raise Refused("memory", f"func '{attached.target}' size {size} must be 8")
    inner = types.resolve(target.target)
    if inner is VOID or inner.kind is Kind.INT or number in _ERRORS.get(attached.target, ()):
        return Scalar(DOMAIN.unknown)
    if inner.kind not in _STRUCTS:
        _no_struct(what, types.describe(target.target))
    tag = types.type(target.target)
    flags = {tag.name} & _TAGS if tag.kind is Kind.TYPE_TAG else set()
    if _is_trusted(attached):
        flags |= {"trusted"}
    null = name.endswith("__nullable")
    if attached.type == TRACEPOINT:
        null = null or attached.target in _NULL.get(number, "").split()
    return Pointer(
        "btf_id", essential_name(inner.name), id=fresh() if null else 0, null=null, flags=frozenset(flags)
    )


def _no_struct(what: str, found: str) -> NoReturn:
    raise Refused("type", f"{what} type {found} is not a struct")


def _is_trusted(attached: Attachment) -> bool:
    if attached.type in (lsm_hooks.BPF_LSM_MAC, lsm_hooks.BPF_LSM_CGROUP):
        return attached.target not in lsm_hooks.UNTRUSTED
    return attached.type == TRACEPOINT
