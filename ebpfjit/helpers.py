"""The helpers that rbpf ships under their public name: `ebpfjit.helpers`."""

from ebpfjit.runtime.helpers.stock import (
    BPF_KTIME_GETNS_IDX,
    BPF_TRACE_PRINTK_IDX,
    bpf_time_getns,
    bpf_trace_printf,
    gather_bytes,
    memfrob,
    rand,
    sqrti,
    strcmp,
)

__all__ = [
    "BPF_KTIME_GETNS_IDX",
    "BPF_TRACE_PRINTK_IDX",
    "bpf_time_getns",
    "bpf_trace_printf",
    "gather_bytes",
    "memfrob",
    "rand",
    "sqrti",
    "strcmp",
]
