"""What Linux's helpers take and give: a row for each (struct bpf_func_proto of Linux 6.18).

    skb_load_bytes   ctx any out size -> int    gpl         name, arguments, result, what else is so
    sk_assign@sk_lookup   ...                               the same for programs of these types

    any u32 u16 s32     a number or, where pointers may leak, whatever there is; `any` is a u64 to the helper
    map key value       a map; a key of it; a value of it
    in out inout        memory: the helper reads it; writes it, whatever was there; reads and writes it
    in[20] out[8]       of so many bytes (where it is written, at a multiple of them); else `size` follows
    size size0          how much: at least 1, at least 0; a u32 where nothing else stands behind it (size:u64)
    alloc               how much, a constant: so large is the result
    ctx stack           the context; memory in the frame, of any size
    lock timer kptr     a place in a map's value
    func str            a function of the program; text in a map that nothing changes
    sock_common sock    a socket of any kind; `sock`: or one of the kernel's own structs
    socket              a whole one
    record              what bpf_ringbuf_reserve gave
    dynptr:ringbuf:out  a dynptr of a kind; `out`: the helper makes it; `in`: it does not change it
    *task_struct        a struct of the kernel's
    percpu              a variable of the kernel's that each processor has
    x? x:release        or NULL; it is given back

Results are `int`, `void`, or the same words. What else is so:

    pkt        memory and keys may lie in the packet
    moves      pointers into the packet are void afterwards
    gpl        for programs whose license is GPL
    sleep      for programs that may sleep
    fastcall   registers but r0 are kept
    acquires   the result is to be given back
    casts      the result is the first argument as another type, and as much to be given back
    at-most=N  the result is negative, or at most argument N (from 0)
    below=N    the result is from 0 to N - 1

`tests/unit/test_prototypes.py` holds them against the helpers of `ebpfjit/runtime/helpers`, and
`tests/unit/test_prototypes_kernel.py` against the kernel at hand. What numbers are to the helper is from
include/uapi/linux/bpf.h; the verifier does not ask.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from ebpfjit.once import once
from ebpfjit.record import dataclass
from ebpfjit.runtime.helpers.names import NAMES, NUMBERS

_TABLE = """
map_lookup_elem             map key                            -> value?                pkt
map_update_elem             map key value any                  -> int                   pkt
map_delete_elem             map key                            -> int                   pkt
probe_read                  out size0 any                      -> int                   gpl
ktime_get_ns                                                   -> int
trace_printk                in size                            -> int                   gpl
get_prandom_u32                                                -> int
get_smp_processor_id                                           -> int                   fastcall below=8192
skb_store_bytes             ctx u32 in size any                -> int                   moves
l3_csum_replace             ctx u32 any any any                -> int                   moves
l4_csum_replace             ctx u32 any any any                -> int                   moves
tail_call                   ctx map u32                        -> void
clone_redirect              ctx u32 any                        -> int                   moves
get_current_pid_tgid                                           -> int
get_current_uid_gid                                            -> int
get_current_comm            out size                           -> int
get_cgroup_classid                                             -> int
skb_vlan_push               ctx u16 u16                        -> int                   moves
skb_vlan_pop                ctx                                -> int                   moves
skb_get_tunnel_key          ctx out size any                   -> int
skb_set_tunnel_key          ctx in size any                    -> int
perf_event_read             map any                            -> int                   gpl
redirect                    u32 any                            -> int
get_route_realm             ctx                                -> int
perf_event_output           ctx map any in size0:u64           -> int                   gpl
skb_load_bytes              ctx u32 out size                   -> int
get_stackid                 ctx map any                        -> int                   gpl
csum_diff                   in? size0 in? size0 u32            -> int                   pkt
skb_get_tunnel_opt          ctx out size                       -> int
skb_set_tunnel_opt          ctx in size                        -> int
skb_change_proto            ctx u16 any                        -> int                   moves
skb_change_type             ctx u32                            -> int
skb_under_cgroup            ctx map u32                        -> int
get_hash_recalc             ctx                                -> int
get_current_task                                               -> int                   gpl
probe_write_user            any in size                        -> int                   gpl
current_task_under_cgroup   map u32                            -> int
skb_change_tail             ctx u32 any                        -> int                   moves
skb_pull_data               ctx u32                            -> int                   moves
csum_update                 ctx u32                            -> int
set_hash_invalid            ctx                                -> int
get_numa_node_id                                               -> int
skb_change_head             ctx u32 any                        -> int                   moves
xdp_adjust_head             ctx s32                            -> int                   moves
probe_read_str              out size0 any                      -> int                   gpl at-most=1
get_socket_cookie           ctx                                -> int
get_socket_uid              ctx                                -> int
set_hash                    ctx u32                            -> int
setsockopt                  ctx s32 s32 in size:s32            -> int
skb_adjust_room             ctx s32 u32 any                    -> int                   moves
redirect_map                map u32 any                        -> int
sk_redirect_map             ctx map u32 any                    -> int
sock_map_update             ctx map key any                    -> int                   pkt
xdp_adjust_meta             ctx s32                            -> int                   moves
perf_event_read_value       map any out size                   -> int                   gpl
perf_prog_read_value        ctx out size                       -> int                   gpl
getsockopt                  ctx s32 s32 out size:s32           -> int
override_return             ctx any                            -> int                   gpl
sock_ops_cb_flags_set       ctx s32                            -> int
msg_redirect_map            ctx map u32 any                    -> int
msg_apply_bytes             ctx u32                            -> int
msg_cork_bytes              ctx u32                            -> int
msg_pull_data               ctx u32 u32 any                    -> int                   moves
bind                        ctx in size:s32                    -> int
xdp_adjust_tail             ctx s32                            -> int                   moves
skb_get_xfrm_state          ctx u32 out size any               -> int
get_stack                   ctx out size0 any                  -> int                   gpl at-most=2
skb_load_bytes_relative     ctx u32 out size u32               -> int
fib_lookup                  ctx inout size:s32 u32             -> int                   gpl
sock_hash_update            ctx map key any                    -> int                   pkt
msg_redirect_hash           ctx map key any                    -> int
sk_redirect_hash            ctx map key any                    -> int
lwt_push_encap              ctx u32 in size                    -> int                   moves
lwt_seg6_store_bytes        ctx u32 in size                    -> int                   moves
lwt_seg6_adjust_srh         ctx u32 s32                        -> int                   moves
lwt_seg6_action             ctx u32 in size                    -> int                   moves
rc_repeat                   ctx                                -> int                   gpl
rc_keydown                  ctx u32 any u32                    -> int                   gpl
skb_cgroup_id               ctx                                -> int
get_current_cgroup_id                                          -> int
get_local_storage           map any                            -> value
sk_select_reuseport         ctx map key any                    -> int
skb_ancestor_cgroup_id      ctx s32                            -> int
sk_lookup_tcp               ctx in size0 any any               -> socket?               pkt acquires
sk_lookup_udp               ctx in size0 any any               -> socket?               pkt acquires
sk_release                  sock:release                       -> int
map_push_elem               map value any                      -> int                   pkt
map_pop_elem                map value:out                      -> int
map_peek_elem               map value:out                      -> int
msg_push_data               ctx u32 u32 any                    -> int                   moves
msg_pop_data                ctx u32 u32 any                    -> int                   moves
rc_pointer_rel              ctx s32 s32                        -> int                   gpl
spin_lock                   lock                               -> void
spin_unlock                 lock                               -> void
sk_fullsock                 sock_common                        -> socket?               casts
tcp_sock                    sock_common                        -> tcp_sock?             casts
skb_ecn_set_ce              ctx                                -> int
get_listener_sock           sock_common                        -> socket?
skc_lookup_tcp              ctx in size0 any any               -> sock_common?          pkt acquires
tcp_check_syncookie         sock in size in size               -> int                   gpl pkt
sysctl_get_name             ctx inout size:u64 any             -> int
sysctl_get_current_value    ctx out size:u64                   -> int
sysctl_get_new_value        ctx out size:u64                   -> int
sysctl_set_new_value        ctx in size:u64                    -> int
strtol                      in size:u64 any out[8]             -> int
strtoul                     in size:u64 any out[8]             -> int
sk_storage_get              map sock value? any                -> value?
sk_storage_delete           map sock                           -> int
send_signal                 u32                                -> int
tcp_gen_syncookie           sock in size in size               -> int                   gpl pkt
skb_output                  *sk_buff map any in size0:u64      -> int                   gpl
probe_read_user             out size0 any                      -> int                   gpl
probe_read_kernel           out size0 any                      -> int                   gpl
probe_read_user_str         out size0 any                      -> int                   gpl at-most=1
probe_read_kernel_str       out size0 any                      -> int                   gpl at-most=1
tcp_send_ack                *tcp_sock u32                      -> int
send_signal_thread          u32                                -> int
jiffies64                                                      -> int
read_branch_records         ctx inout? size0 any               -> int                   gpl
get_ns_current_pid_tgid     any any out size                   -> int
xdp_output                  *xdp_buff map any in size0:u64     -> int                   gpl
get_netns_cookie            ctx?                               -> int
get_current_ancestor_cgroup_id s32                                -> int
sk_assign                   ctx sock any                       -> int
ktime_get_boot_ns                                              -> int
seq_printf                  *seq_file in size in? size0        -> int                   gpl
seq_write                   *seq_file in size0                 -> int                   gpl
sk_cgroup_id                sock                               -> int
sk_ancestor_cgroup_id       sock s32                           -> int
ringbuf_output              map in size0:u64 any               -> int
ringbuf_reserve             map alloc:u64 any                  -> record?               acquires
ringbuf_submit              record:release any                 -> void
ringbuf_discard             record:release any                 -> void
ringbuf_query               map any                            -> int
csum_level                  ctx any                            -> int
skc_to_tcp6_sock            sock                               -> *tcp6_sock?           casts
skc_to_tcp_sock             sock                               -> *tcp_sock?            casts
skc_to_tcp_timewait_sock    sock                               -> *tcp_timewait_sock?   casts
skc_to_tcp_request_sock     sock                               -> *tcp_request_sock?    casts
skc_to_udp6_sock            sock                               -> *udp6_sock?           casts
get_task_stack              *task_struct out size0 any         -> int                   at-most=2
load_hdr_opt                ctx inout size any                 -> int
store_hdr_opt               ctx in size any                    -> int                   moves
reserve_hdr_opt             ctx u32 any                        -> int
inode_storage_get           map *inode? value? any             -> value?
inode_storage_delete        map *inode?                        -> int
d_path                      *path inout size0                  -> int
copy_from_user              out size0 any                      -> int                   sleep
snprintf_btf                inout size in size any             -> int
seq_printf_btf              *seq_file in size0 any             -> int                   gpl
skb_cgroup_classid          ctx                                -> int
redirect_neigh              u32 in? size0:s32 any              -> int
per_cpu_ptr                 percpu u32                         -> percpu:rdonly?
this_cpu_ptr                percpu                             -> percpu:rdonly
redirect_peer               u32 any                            -> int
task_storage_get            map *task_struct? value? any       -> value?
task_storage_delete         map *task_struct?                  -> int
get_current_task_btf                                           -> *task_struct:trusted  gpl
bprm_opts_set               *linux_binprm any                  -> int
ktime_get_coarse_ns                                            -> int
ima_inode_hash              *inode out size                    -> int                   sleep
sock_from_file              *file                              -> *socket?
check_mtu                   ctx u32 inout[4] s32 any           -> int                   gpl
for_each_map_elem           map func stack? any                -> int
snprintf                    inout? size0 str in? size0         -> int                   gpl
sys_bpf                     u32 in size                        -> int
btf_find_by_name_kind       in size:s32 u32 s32                -> int
sys_close                   u32                                -> int
timer_init                  timer map any                      -> int                   gpl
timer_set_callback          timer func                         -> int                   gpl
timer_start                 timer any any                      -> int                   gpl
timer_cancel                timer                              -> int                   gpl
get_func_ip                 ctx                                -> int                   gpl
get_attach_cookie           ctx                                -> int
task_pt_regs                *task_struct                       -> *pt_regs              gpl
get_branch_snapshot         out size0                          -> int                   gpl
trace_vprintk               in size in? size0                  -> int                   gpl
skc_to_unix_sock            sock                               -> *unix_sock?
kallsyms_lookup_name        in size0:s32 s32 out[8]            -> int
find_vma                    *task_struct any func stack? any   -> int
loop                        u32 func stack? any                -> int
strncmp                     in size str                        -> int
get_func_arg                ctx u32 out[8]                     -> int
get_func_ret                ctx out[8]                         -> int
get_func_arg_cnt            ctx                                -> int
get_retval                                                     -> int
set_retval                  s32                                -> int
xdp_get_buff_len            ctx                                -> int
xdp_load_bytes              ctx u32 out size                   -> int
xdp_store_bytes             ctx u32 in size                    -> int
copy_from_user_task         out size0 any *task_struct any     -> int                   gpl sleep
skb_set_tstamp              ctx any u32                        -> int
ima_file_hash               *file out size                     -> int                   sleep
kptr_xchg                   kptr *:release?                    -> *?                    acquires
map_lookup_percpu_elem      map key u32                        -> value?                pkt
skc_to_mptcp_sock           sock_common                        -> *mptcp_sock?          casts
dynptr_from_mem             out size0 any dynptr:local:out     -> int
ringbuf_reserve_dynptr      map u32 any dynptr:ringbuf:out     -> int
ringbuf_submit_dynptr       dynptr:ringbuf:release any         -> void
ringbuf_discard_dynptr      dynptr:ringbuf:release any         -> void
dynptr_read                 out size0 dynptr:in u32 any        -> int
dynptr_write                dynptr:in u32 in size0 any         -> int
dynptr_data                 dynptr:in u32 alloc                -> dynptr_mem?
tcp_raw_gen_syncookie_ipv4  in[20] in size0                    -> int                   gpl pkt
tcp_raw_gen_syncookie_ipv6  in[40] in size0                    -> int                   gpl pkt
tcp_raw_check_syncookie_ipv4 in[20] in[20]                      -> int                   gpl pkt
tcp_raw_check_syncookie_ipv6 in[40] in[20]                      -> int                   gpl pkt
ktime_get_tai_ns                                               -> int
user_ringbuf_drain          map func stack? any                -> int
cgrp_storage_get            map *cgroup? value? any            -> value?
cgrp_storage_delete         map *cgroup?                       -> int

get_stackid@perf_event      ctx map any                        -> int
get_cgroup_classid@tc,sched_act,lwt_in,lwt_out,lwt_xmit,lwt_seg6local ctx -> int
get_socket_cookie@tracing,syscall,lsm,sk_reuseport sock? -> int
setsockopt@tracing,lsm,struct_ops,cgroup_sockopt sock s32 s32 in size:s32 -> int
getsockopt@tracing,lsm,struct_ops,cgroup_sockopt sock s32 s32 out size:s32 -> int
sk_storage_get@cgroup_sock map ctx value? any -> value?
sk_storage_get@tracing,syscall map *sock_common? value? any -> value?
sk_storage_delete@tracing,syscall map *sock_common? -> int
sk_assign@sk_lookup ctx socket? any -> int
xdp_get_buff_len@tracing,syscall *xdp_buff -> int
"""


@dataclass(frozen=True, slots=True)
class Argument:
    """What one argument of a helper must be.

    `kind` is Linux's ARG_* in lower case. `maybe_null`: NULL is taken too. `uninit`: what is there need not
    be initialised, for the helper writes it. `write`: the helper writes to it; `rdonly`: it does not.
    `release`: it is given back. `aligned`: it lies at a multiple of its size. `size`: bytes of memory, 0
    where the next argument tells them. `btf` names the kernel's struct, `dynptr` what a dynptr is of
    ("": any). `number` is what C takes a number for: "u64", "u32", "u16", "s32".
    """

    kind: str
    maybe_null: bool = False
    uninit: bool = False
    write: bool = False
    rdonly: bool = False
    release: bool = False
    aligned: bool = False
    size: int = 0
    btf: str = ""
    dynptr: str = ""
    number: str = "u64"


@dataclass(frozen=True, slots=True)
class Prototype:
    """What a helper takes and gives.

    `returns` is Linux's RET_* in lower case, without its "or_null" (`returns_null`); memory is
    "ptr_to_ringbuf_mem", "ptr_to_dynptr_mem" or "ptr_to_mem_or_btf_id". `returns_btf` names the kernel's
    struct; `returns_trusted`: other functions take it; `returns_rdonly`: programs do not write to it.
    `acquires`: the result is to be given back. `casts`: it is the first argument as another type.
    `moves_packet`: pointers into the packet are void afterwards. `packet_access`: memory and keys may lie in
    the packet. `might_sleep`, `gpl`: for programs that may sleep, whose license is GPL. `fastcall`: r1 to r5
    are kept. `result_range`: the least and the greatest result, as s64, where they are known. `at_most`:
    which argument (from 0) is a size that the result, where it is not negative, does not exceed.
    """

    name: str
    number: int
    arguments: tuple[Argument, ...]
    returns: str = "integer"
    returns_null: bool = False
    returns_btf: str = ""
    returns_trusted: bool = False
    returns_rdonly: bool = False
    acquires: bool = False
    casts: bool = False
    moves_packet: bool = False
    packet_access: bool = False
    might_sleep: bool = False
    gpl: bool = False
    fastcall: bool = False
    result_range: tuple[int, int] | None = None
    at_most: int | None = None

    @property
    def reads_what_it_writes(self) -> bool:
        """False: each argument says whether it is read or written to."""
        return False


_NUMBERS = frozenset({"u64", "u32", "u16", "s32"})
_KINDS = {
    "any": "anything",
    **dict.fromkeys(_NUMBERS, "anything"),
    "map": "const_map_ptr",
    "key": "ptr_to_map_key",
    "value": "ptr_to_map_value",
    "in": "ptr_to_mem",
    "out": "ptr_to_mem",
    "inout": "ptr_to_mem",
    "size": "const_size",
    "size0": "const_size_or_zero",
    "alloc": "const_alloc_size_or_zero",
    "ctx": "ptr_to_ctx",
    "stack": "ptr_to_stack",
    "lock": "ptr_to_spin_lock",
    "timer": "ptr_to_timer",
    "kptr": "kptr_xchg_dest",
    "func": "ptr_to_func",
    "sock_common": "ptr_to_sock_common",
    "socket": "ptr_to_socket",
    "sock": "ptr_to_btf_id_sock_common",
    "record": "ptr_to_ringbuf_mem",
    "str": "ptr_to_const_str",
    "dynptr": "ptr_to_dynptr",
    "percpu": "ptr_to_percpu_btf_id",
    "*": "ptr_to_btf_id",
}
_MEMORY = ("fp", "pkt", "pkt_meta", "map_key", "map_value", "mem", "ringbuf_mem", "buf", "trusted_ptr_")
_SOCKETS = ("sock_common", "sock", "tcp_sock", "xdp_sock")

REGISTERS: Mapping[str, tuple[str, ...]] = {
    "const_map_ptr": ("map_ptr",),
    "ptr_to_map_key": _MEMORY,
    "ptr_to_map_value": _MEMORY,
    "ptr_to_mem": _MEMORY,
    "const_size": ("scalar",),
    "const_size_or_zero": ("scalar",),
    "const_alloc_size_or_zero": ("scalar",),
    "ptr_to_ctx": ("ctx",),
    "ptr_to_stack": ("fp",),
    "ptr_to_spin_lock": ("map_value", "ptr_"),
    "ptr_to_timer": ("map_value",),
    "kptr_xchg_dest": ("map_value", "ptr_"),
    "ptr_to_func": ("func",),
    "ptr_to_sock_common": _SOCKETS,
    "ptr_to_btf_id_sock_common": (*_SOCKETS, "ptr_", "trusted_ptr_"),
    "ptr_to_socket": ("sock",),
    "ptr_to_ringbuf_mem": ("ringbuf_mem",),
    "ptr_to_const_str": ("map_value",),
    "ptr_to_dynptr": ("fp", "dynptr_ptr"),
    "ptr_to_percpu_btf_id": ("percpu_ptr_", "percpu_rcu_ptr_", "percpu_trusted_ptr_"),
    "ptr_to_btf_id": ("ptr_", "trusted_ptr_", "rcu_ptr_"),
}
"""What a register must hold for each kind of argument, in the words of Linux's log (compatible_reg_types).

A `trusted_ptr_` is memory only where its struct is as large. What a lock or a place of a kptr's points to as
"ptr_" is an object that the program has allocated. A number 0 is NULL for an argument that may be that.
"""

_RESULTS = {
    "int": "integer",
    "void": "void",
    "value": "ptr_to_map_value",
    "socket": "ptr_to_socket",
    "tcp_sock": "ptr_to_tcp_sock",
    "sock_common": "ptr_to_sock_common",
    "record": "ptr_to_ringbuf_mem",
    "dynptr_mem": "ptr_to_dynptr_mem",
    "percpu": "ptr_to_mem_or_btf_id",
    "*": "ptr_to_btf_id",
}
_SIZES = frozenset({"size", "size0", "alloc"})
_WORD = re.compile(r"(?P<star>\*?)(?P<name>\w*)(\[(?P<size>\d+)\])?(?P<flags>(:\w+)*)(?P<null>\??)")

_Key = tuple[int, str]
"""A helper's number, and the type of programs that the row is for ("": all others)."""


def word(text: str) -> tuple[str, str, int, list[str], bool]:
    """Return what a word says: its name ("*": a struct), the struct, a size, flags, "or NULL"."""
    found = _WORD.fullmatch(text)
    assert found is not None, text
    star, name = found["star"], found["name"]
    flags = found["flags"].split(":")[1:]
    return star or name, name if star else "", int(found["size"] or 0), flags, bool(found["null"])


def _argument(text: str) -> Argument:
    name, struct, size, flags, maybe_null = word(text)
    writes = name in ("out", "inout") or "out" in flags
    said = next((flag for flag in (name, *flags) if flag in _NUMBERS), "")
    return Argument(
        _KINDS[name],
        maybe_null=maybe_null,
        uninit=name == "out" or "out" in flags,
        write=writes,
        rdonly=name == "in" or "in" in flags,
        release="release" in flags,
        aligned=writes and size > 0,
        size=size,
        btf=struct,
        dynptr=next((flag for flag in flags if flag in ("local", "ringbuf")), ""),
        number=said or ("u32" if name in _SIZES else "u64"),
    )


def _prototype(name: str, row: str) -> Prototype:
    arguments, _, rest = row.partition("->")
    text, *others = rest.split()
    said = dict(other.partition("=")[::2] for other in others)
    result, struct, _, flags, maybe_null = word(text)
    below, at_most = said.get("below"), said.get("at-most")
    return Prototype(
        f"bpf_{name}",
        NUMBERS[f"bpf_{name}"],
        tuple(_argument(each) for each in arguments.split()),
        _RESULTS[result],
        returns_null=maybe_null,
        returns_btf=struct,
        returns_trusted="trusted" in flags,
        returns_rdonly="rdonly" in flags,
        acquires="acquires" in said,
        casts="casts" in said,
        moves_packet="moves" in said,
        packet_access="pkt" in said,
        might_sleep="sleep" in said,
        gpl="gpl" in said,
        fastcall="fastcall" in said,
        result_range=(0, int(below) - 1) if below else None,
        at_most=int(at_most) if at_most else None,
    )


@once
def _prototypes() -> Mapping[_Key, Prototype]:
    """Return all rows by number and program type."""
    found: dict[_Key, Prototype] = {}
    for row in filter(None, _TABLE.splitlines()):
        names, _, rest = row.partition(" ")
        name, _, types = names.partition("@")
        read = _prototype(name, rest)
        found |= {(read.number, type_): read for type_ in types.split(",")}
    return found


def prototype(helper: int | str, program_type: str | None = None) -> Prototype | None:
    """Return what a helper takes in programs of a type; None where there is none of that number or name.

    Whether programs of that type may call it at all is another matter (`Helper.program_types`).
    """
    number = NUMBERS.get(helper, 0) if isinstance(helper, str) else helper
    known = _prototypes()
    return known.get((number, program_type or "")) or known.get((number, ""))


def prototypes() -> Mapping[int, Prototype]:
    """Return what each helper takes where no program type has its own, by number."""
    known = _prototypes()
    return {number: known[number, ""] for number in NAMES}
