"""Helpers that lead from one struct of the kernel to another: kinds of a socket, a file's socket, a task's
memory areas and registers. What is there is what the environment describes (`runtime.objects`).
"""

from __future__ import annotations

import errno
import struct
from collections.abc import Callable
from typing import NamedTuple

from ebpfjit.runtime import memory
from ebpfjit.runtime.helpers.table import engine_of, helper
from ebpfjit.runtime.objects import UNDESCRIBED, KernelPointer
from ebpfjit.runtime.sockets import SOCK_SIZE
from ebpfjit.runtime.world import World

AF_UNIX, AF_INET6 = 1, 10
TCP, UDP = (1, 6), (2, 17)
"""SOCK_STREAM and IPPROTO_TCP, SOCK_DGRAM and IPPROTO_UDP."""
TCP_TIME_WAIT, TCP_NEW_SYN_RECV = 6, 12
_STATE_AT = 72
_DIFFERS = "an object of the environment by its struct; of other sockets, a struct of zeros"


class _Sock(NamedTuple):
    """What struct bpf_sock says of a socket that decides its kind."""

    family: int
    kind: tuple[int, int]
    state: int

    @property
    def is_full(self) -> bool:
        """False for what a connection is before it is there, and when it is gone."""
        return self.state not in (TCP_TIME_WAIT, TCP_NEW_SYN_RECV)


#   helper                            structs that are one               sockets that are one
_KINDS: dict[str, tuple[frozenset[str], Callable[[_Sock], bool]]] = {
    "bpf_skc_to_tcp_sock": (
        frozenset({"tcp_sock", "tcp6_sock"}), lambda sock: sock.is_full and sock.kind == TCP,
    ),
    "bpf_skc_to_tcp6_sock": (
        frozenset({"tcp6_sock"}),
        lambda sock: sock.is_full and sock.kind == TCP and sock.family == AF_INET6,
    ),
    "bpf_skc_to_tcp_timewait_sock": (
        frozenset({"tcp_timewait_sock"}),
        lambda sock: sock.kind == TCP and sock.state == TCP_TIME_WAIT,
    ),
    "bpf_skc_to_tcp_request_sock": (
        frozenset({"tcp_request_sock"}),
        lambda sock: sock.kind == TCP and sock.state == TCP_NEW_SYN_RECV,
    ),
    "bpf_skc_to_udp6_sock": (
        frozenset({"udp6_sock"}),
        lambda sock: sock.is_full and sock.kind == UDP and sock.family == AF_INET6,
    ),
    "bpf_skc_to_unix_sock": (
        frozenset({"unix_sock"}), lambda sock: sock.is_full and sock.family == AF_UNIX,
    ),
    "bpf_skc_to_mptcp_sock": (frozenset({"mptcp_sock"}), lambda sock: False),
}  # fmt: skip


def _register(name: str, structs: frozenset[str], is_one: Callable[[_Sock], bool]) -> None:
    @helper(name, differs=_DIFFERS)
    def skc_to(world: World, address: int) -> int:
        """Return a socket as the struct of its kind, 0 where it is none of that kind."""
        described = world.environment.objects.at(address)
        if described is not None:
            return address if described.pointer.struct in structs else 0
        found = memory.find(address, SOCK_SIZE, "probe") if address else None
        if found is None:
            return 0
        family, kind, protocol = struct.unpack_from("<III", found, 4)
        (state,) = struct.unpack_from("<I", found, _STATE_AT)
        return UNDESCRIBED if is_one(_Sock(family, (kind, protocol), state)) else 0


for _name, (_structs, _is_one) in _KINDS.items():
    _register(_name, _structs, _is_one)


@helper("bpf_sk_cgroup_id", "bpf_sk_ancestor_cgroup_id", differs="the number of Environment.task's cgroup")
def sk_cgroup_id(world: World, address: int) -> int:
    """Return the number of the cgroup that a socket is in, 0 for no socket."""
    return world.environment.current_task.cgroup_id if address else 0


@helper("bpf_sock_from_file", differs="the struct socket that a file of the environment has as private_data")
def sock_from_file(world: World, file: int) -> int:
    """Return the struct socket of a file, 0 where it is none of a socket."""
    described = world.environment.objects.at(file)
    found = described.members.get("private_data", 0) if described is not None else 0
    return int(found) if isinstance(found, KernelPointer) and found.struct == "socket" else 0


@helper("bpf_task_pt_regs", gpl=True, differs="the first struct pt_regs of the environment, else zeros")
def task_pt_regs(world: World, task: int) -> int:
    """Return the address of the registers that a task had in user mode."""
    first = next(world.environment.objects.of_struct("pt_regs"), None)
    return UNDESCRIBED if first is None else int(first.pointer)


@helper(
    "bpf_find_vma",
    ends_rights=True,
    calls_functions=True,
    differs="every task has the vm_area_structs of the environment",
)
def find_vma(world: World, task: int, address: int, function: int, context: int, flags: int) -> int:
    """Call function(task, vma, context) for the memory area at an address; 0 or a negative error number."""
    if flags:
        return -errno.EINVAL
    if not task:
        return -errno.ENOENT
    for area in world.environment.objects.of_struct("vm_area_struct"):
        if area.number("vm_start") <= address < area.number("vm_end"):
            engine_of(world).call_function(function, (task, int(area.pointer), context))
            return 0
    return -errno.ENOENT


@helper("bpf_get_branch_snapshot", gpl=True, differs="no processor here records branches: always -ENOENT")
def get_branch_snapshot(world: World, entries: int, size: int, flags: int) -> int:
    """Copy the last branches; return their bytes or a negative error number."""
    memory.check(entries, size & 0xFFFFFFFF, "store")
    return -errno.EINVAL if flags else -errno.ENOENT


@helper("bpf_read_branch_records", gpl=True, differs="no event here has branches: always -ENOENT")
def read_branch_records(world: World, context: int, buffer: int, size: int, flags: int) -> int:
    """Copy the branches of a perf event; return their bytes or a negative error number."""
    memory.check(buffer, size & 0xFFFFFFFF, "store")
    return -errno.EINVAL if flags & ~1 else -errno.ENOENT
