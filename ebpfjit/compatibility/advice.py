"""What helps where a kernel lacks what a program needs: a few words for each feature, or else for its kind.

`{name}` stands for what the kernel calls it: a helper's BPF_FUNC_..., a function.
"""

from __future__ import annotations

_BY_COOKIE = "a hash map whose key is bpf_get_socket_cookie"
_BY_PID = "a hash map whose key is bpf_get_current_pid_tgid"
_BY_CGROUP = "a hash map whose key is bpf_get_current_cgroup_id"
_EVENTS = "bpf_perf_event_output into a map of type perf_event_array does the same (Linux 4.4)"
_DIRECT = "read and write it through data and data_end"
_OLD_READ = "bpf_probe_read does the same on x86-64"
_OLD_TEXT = "bpf_probe_read_str does the same on x86-64"
_CLOCK = "bpf_ktime_get_ns"
_ROUNDS = "a loop with a constant bound (Linux 5.3), or one that #pragma unroll unrolls"
_DYNPTR = "read and write through data and data_end, or pointers with a constant size"
_BY_INODE = "a hash map whose key is the number of the inode"
_STORAGE = {"sk": _BY_COOKIE, "task": _BY_PID, "cgrp": _BY_CGROUP, "inode": _BY_INODE}

_COMPILED = {
    "32-bit jump (JMP32)": "clang -mcpu=v2 leaves it out",
    "long jump (gotol)": "clang -mcpu=v3 leaves it out",
    "signed division": "clang -mcpu=v3 leaves it out: divide unsigned numbers",
    "sign-extending move": "clang -mcpu=v3 leaves it out",
    "sign-extending load": "clang -mcpu=v3 leaves it out",
    "byte swap": "clang -mcpu=v3 leaves it out",
    "load-acquire": "an atomic operation with a result orders as well (Linux 5.12)",
    "store-release": "an atomic operation with a result orders as well (Linux 5.12)",
    "atomic operation": "__sync_fetch_and_add without its result, or bpf_spin_lock (Linux 5.1)",
    "may_goto": _ROUNDS,
    "address space cast": "an array map in place of the arena",
    "address of a function (callback)": _ROUNDS,
    "variable of the kernel": "a value that user space writes to a map",
    "global variable": "an array map of one entry",
    "packet load (LD_ABS, LD_IND)": "bpf_skb_load_bytes, or loads through data and data_end",
    "packet load of 8 bytes": "two of 4 bytes",
    "indirect call (callx)": "a switch over the functions: clang then calls them directly",
    "a loop": "#pragma unroll, with a constant number of rounds",
    "a tail call of a program with functions": "__always_inline puts functions where they are called",
    "packets in pieces (xdp.frags)": 'SEC("xdp") takes packets that are in one piece',
    "a program without a type": 'its section says it, SEC("xdp"); of other files ebpfjit check --type xdp',
    "it may sleep": "a section without .s, and without helpers that sleep",
}

FEATURES = {
    **_COMPILED,
    **{f"bpf_ringbuf_{name}": _EVENTS for name in ("output", "reserve", "submit", "discard", "query")},
    "map type ringbuf": "a map of type perf_event_array takes events since Linux 4.3",
    "bpf_loop": _ROUNDS,
    "bpf_for_each_map_elem": "look up keys that are known, one by one",
    "bpf_probe_read_kernel": _OLD_READ,
    "bpf_probe_read_user": _OLD_READ,
    "bpf_probe_read_kernel_str": _OLD_TEXT,
    "bpf_probe_read_user_str": _OLD_TEXT,
    "bpf_ktime_get_boot_ns": f"{_CLOCK}, which stands still while the machine sleeps",
    "bpf_ktime_get_coarse_ns": _CLOCK,
    "bpf_ktime_get_tai_ns": f"{_CLOCK}, and a difference that user space writes to a map",
    "bpf_get_current_task_btf": "bpf_get_current_task and BPF_CORE_READ read the same task",
    "bpf_strncmp": "compare byte by byte",
    "bpf_snprintf": "write the text in user space, from the numbers",
    "bpf_trace_vprintk": "bpf_trace_printk, with three numbers at most",
    "bpf_xdp_load_bytes": _DIRECT,
    "bpf_xdp_store_bytes": _DIRECT,
    "bpf_dynptr_read": _DYNPTR,
    "bpf_dynptr_write": _DYNPTR,
    "bpf_dynptr_data": _DYNPTR,
    "bpf_get_func_ip": 'PT_REGS_IP(context), in a program of SEC("kprobe")',
    "bpf_get_attach_cookie": "a program for each place, each with its own constant",
    "bpf_jiffies64": _CLOCK,
    "bpf_skb_cgroup_classid": "bpf_get_cgroup_classid, where packets are sent",
    **{f"bpf_{name}_storage_{what}": _STORAGE[name] for name in _STORAGE for what in ("get", "delete")},
    **{f"map type {name}_storage": text for name, text in _STORAGE.items()},
    "map type bloom_filter": "a map of type hash",
    "map type devmap_hash": "a map of type devmap, with small keys",
}
"""What did nearly the same before there was a feature, or how to come by without it."""

_APART = "another program for older kernels, of which bpf_program__set_autoload(program, false) loads one"

KINDS = {
    "program type": _APART,
    "attach type": _APART,
    "flag": _APART,
    "helper": "ask bpf_core_enum_value_exists(enum bpf_func_id, {name}) around the call: "
    "what a kernel lacks is dead code there",
    "kfunc": "declare it __weak, and ask bpf_ksym_exists({name}) around the call",
    "context field": "ask bpf_core_field_exists around the access: what a kernel lacks is dead code there",
    "map type": "bpf_map__set_type or bpf_map__set_autocreate(map, false), before the object is loaded",
    "map flag": "bpf_map__set_map_flags without it, before the object is loaded",
    "map field": "a value without it, in an object for older kernels",
    "size": "split it, with tail calls between the parts",
    "variable": "declare it __weak, and look at its address first",
    "license": 'char LICENSE[] SEC("license") = "GPL"',
    "target": "a function that the kernel has: /proc/kallsyms lists them",
    "CO-RE": "ask bpf_core_field_exists or bpf_core_type_exists around it",
}
"""What helps with all else of a kind that a later release has."""
_WHATEVER = ("license", "size", "CO-RE")
"""What helps there helps also where no release has it."""


def advice(kind: str, feature: str, name: str, *, is_absent: bool) -> str:
    """Return what helps, "" where nothing is known to.

    `is_absent` is true of what no release has for the program, and of what is not known: then nothing helps
    but to do without.
    """
    known = FEATURES.get(feature, "")
    if known or (is_absent and kind not in _WHATEVER):
        return known
    return KINDS.get(kind, "").format(name=name)
