"""Kernel functions that say of what type a pointer is: for which loads are the kernel's."""

from __future__ import annotations

from ebpfjit.runtime.helpers.table import engine_of
from ebpfjit.runtime.kfuncs.table import kfunc
from ebpfjit.runtime.objects import UNDESCRIBED
from ebpfjit.runtime.world import World

CONTEXTS = {
    "cgroup_device": "bpf_cgroup_dev_ctx",
    "cgroup_sock": "sock",
    "cgroup_sock_addr": "bpf_sock_addr_kern",
    "cgroup_sockopt": "bpf_sockopt_kern",
    "cgroup_sysctl": "bpf_sysctl_kern",
    "perf_event": "bpf_perf_event_data_kern",
    "kprobe": "pt_regs",
    "sk_lookup": "bpf_sk_lookup_kern",
    "sk_msg": "sk_msg",
    "sk_reuseport": "sk_reuseport_kern",
    "sock_ops": "bpf_sock_ops_kern",
    "xdp": "xdp_buff",
    "xdp.frags": "xdp_buff",
}
"""The kernel's struct behind the context, by program type (include/linux/bpf_types.h); others: sk_buff."""


@kfunc("bpf_rdonly_cast", leads_out=True)
def rdonly_cast(world: World, pointer: int, type_id: int) -> int:
    """Return the same address, as one of the kernel's: what is not there reads as zero."""
    return pointer


@kfunc(
    "bpf_cast_to_kern_ctx",
    leads_out=True,
    differs="the first struct of that kind that the environment describes, else one of zeros",
)
def cast_to_kern_ctx(world: World, context: int) -> int:
    """Return the address of the kernel's struct behind the context: a struct sk_buff, xdp_buff and so on."""
    program, _ = engine_of(world).place()
    wanted = CONTEXTS.get(program.type or "", "sk_buff")
    described = (each for each in list(world.environment.objects.all) if each.pointer.struct == wanted)
    first = next(described, None)
    return UNDESCRIBED if first is None else int(first.pointer)
