"""Kernel functions that say of what type a pointer is: for which loads are the kernel's."""

from __future__ import annotations

from collections.abc import Mapping

from ebpfjit.errors import ExecutionError
from ebpfjit.runtime.contexts.types import ContextKind
from ebpfjit.runtime.kfuncs.table import kfunc
from ebpfjit.runtime.objects import UNDESCRIBED
from ebpfjit.runtime.world import World

_KERNEL_STRUCTS: Mapping[str, str] = {
    "cgroup_sock": "sock",
    "cgroup_sock_addr": "bpf_sock_addr_kern",
    "cgroup_sockopt": "bpf_sockopt_kern",
    "cgroup_sysctl": "bpf_sysctl_kern",
    "flow_dissector": "bpf_flow_dissector",
    "perf_event": "bpf_perf_event_data_kern",
    "sk_lookup": "bpf_sk_lookup_kern",
    "sk_msg": "sk_msg",
    "sk_reuseport": "sk_reuseport_kern",
    "sock_ops": "bpf_sock_ops_kern",
}
"""What the kernel has where programs of a type see a context (include/linux/bpf_types.h)."""


@kfunc("bpf_rdonly_cast", leads_out=True)
def rdonly_cast(world: World, pointer: int, type_id: int) -> int:
    """Return the same address, as one of the kernel's: what is not there reads as zero."""
    return pointer


@kfunc(
    "bpf_cast_to_kern_ctx",
    leads_out=True,
    differs="the first such struct of the environment (`environment.struct(...)`), else zeros",
)
def cast_to_kern_ctx(world: World, pointer: int) -> int:
    """Return the address of the struct that the kernel has where the program sees its context (`sk_buff`)."""
    context = world.context
    if context is None or pointer != context.arguments[0]:
        raise ExecutionError(f"bpf_cast_to_kern_ctx of {pointer:#x}, which is not the program's context")
    kind, name = context.type.context, context.type.name
    usual = {ContextKind.XDP: "xdp_buff", ContextKind.SK_BUFF: "sk_buff"}.get(kind)
    struct = _KERNEL_STRUCTS.get(name, usual)
    if struct is None:
        return pointer  # the kernel sees the same
    found = next(world.environment.objects.of_struct(struct), None)
    return UNDESCRIBED if found is None else int(found.pointer)
