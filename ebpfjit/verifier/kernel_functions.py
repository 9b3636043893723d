"""What Linux's kernel functions take and give: a row for each that is known (BTF_ID_FLAGS, 6.18).

    task_acquire   *task_struct -> *task_struct?   acquired rcu      name, arguments, result, what else is so

    int               a number                      const       one that is known
    ign               whatever there is, even nothing
    ctx map str func  as for helpers (`ebpfjit.verifier.prototypes`)
    mem size mem[8]   memory that is read and written: as much as the next argument says, or so many bytes
    buffer const      the same with a size that is known, of which the result is
    dynptr dynptr:out a dynptr; one that is made
    *task_struct      a struct of the kernel's
    iter              the iterator, which lies in the frame
    object            an object of the program's own, as bpf_obj_new makes it, which is given back
    percpu_object     the same of bpf_percpu_obj_new
    refcounted        an object with a bpf_refcount
    list_head list_node rb_root rb_node     heads, and the nodes that hang in them
    res_lock irq wq   a lock; the place of saved interrupt flags; a work queue

Results are `int`, `void`, `mem[4]`, `*struct`, or one of `list_node`, `rb_node`, `object`, `percpu_object`,
`slice`, `arena`, `cast`, which are the function's own. What else is so:

    acquired   the result is to be given back
    release    the first argument is given back
    trusted    structs must be referenced or trusted;  rcu: or protected by RCU;  plain: or loaded from others
    moves      pointers into the packet are void afterwards
    protected  RCU must be held
    sleep      for programs that may sleep
    new next destroy     what it does to an iterator
"""

from __future__ import annotations

from collections.abc import Mapping

from ebpfjit.once import once
from ebpfjit.record import dataclass
from ebpfjit.verifier.prototypes import Argument, word

_TABLE = """
arena_alloc_pages           map ign int int int                -> arena                 sleep
arena_free_pages            map ign int                        -> void                  sleep
arena_reserve_pages         map ign int                        -> int                   sleep

cast_to_kern_ctx            ctx                                -> cast
rdonly_cast                 ign const                          -> cast

cgroup_acquire              *cgroup                            -> *cgroup?              acquired rcu
cgroup_ancestor             *cgroup int                        -> *cgroup?              acquired rcu
cgroup_from_id              int                                -> *cgroup?              acquired
cgroup_release              *cgroup                            -> void                  release
task_acquire                *task_struct                       -> *task_struct?         acquired rcu
task_from_pid,task_from_vpid int                               -> *task_struct?         acquired
task_get_cgroup1            *task_struct int                   -> *cgroup?              acquired rcu
task_release                *task_struct                       -> void                  release
get_task_exe_file           *task_struct                       -> *file?                acquired trusted
put_file                    *file                              -> void                  release
path_d_path                 *path mem size                     -> int                   trusted
lookup_user_key             int int                            -> *bpf_key?             acquired sleep
lookup_system_key           int                                -> *bpf_key?             acquired
key_put                     *bpf_key                           -> void                  release

cpumask_create                                                 -> *bpf_cpumask?         acquired
cpumask_acquire             *bpf_cpumask                       -> *bpf_cpumask          acquired trusted
cpumask_release             *bpf_cpumask                       -> void                  release
cpumask_set_cpu,cpumask_clear_cpu int *bpf_cpumask             -> void                  rcu
cpumask_test_and_set_cpu,cpumask_test_and_clear_cpu int *bpf_cpumask -> int             rcu
cpumask_test_cpu            int *cpumask                       -> int                   rcu
cpumask_setall,cpumask_clear *bpf_cpumask                      -> void                  rcu
cpumask_first,cpumask_first_zero,cpumask_weight *cpumask       -> int                   rcu
cpumask_empty,cpumask_full,cpumask_any_distribute *cpumask     -> int                   rcu
cpumask_first_and,cpumask_any_and_distribute *cpumask *cpumask -> int                   rcu
cpumask_equal,cpumask_intersects,cpumask_subset *cpumask *cpumask -> int                rcu
cpumask_and                 *bpf_cpumask *cpumask *cpumask     -> int                   rcu
cpumask_or,cpumask_xor      *bpf_cpumask *cpumask *cpumask     -> void                  rcu
cpumask_copy                *bpf_cpumask *cpumask              -> void                  rcu
cpumask_populate            *cpumask mem size                  -> int                   rcu

dynptr_from_skb             ctx int dynptr:out                 -> int
dynptr_from_skb_meta        ctx int dynptr:out                 -> int
dynptr_from_xdp             ctx int dynptr:out                 -> int
dynptr_adjust               dynptr int int                     -> int
dynptr_clone                dynptr dynptr:out                  -> int
dynptr_copy                 dynptr int dynptr int int          -> int
dynptr_memset               dynptr int int int                 -> int
dynptr_is_null,dynptr_is_rdonly,dynptr_size dynptr             -> int
dynptr_slice,dynptr_slice_rdwr dynptr int buffer? const        -> slice?

iter_num_new                iter int int                       -> int                   new
iter_num_next               iter                               -> mem[4]?               next
iter_num_destroy            iter                               -> void                  destroy
iter_bits_new               iter ign int                       -> int                   new
iter_bits_next              iter                               -> mem[4]?               next
iter_bits_destroy           iter                               -> void                  destroy
iter_css_new                iter *cgroup_subsys_state int      -> int                   new trusted protected
iter_css_next               iter                               -> *cgroup_subsys_state? next
iter_css_destroy            iter                               -> void                  destroy
iter_css_task_new           iter *cgroup_subsys_state int      -> int                   new trusted
iter_css_task_next          iter                               -> *task_struct?         next
iter_css_task_destroy       iter                               -> void                  destroy
iter_task_new               iter *task_struct? int             -> int                   new trusted protected
iter_task_next              iter                               -> *task_struct?         next
iter_task_destroy           iter                               -> void                  destroy
iter_task_vma_new           iter *task_struct int              -> int                   new rcu
iter_task_vma_next          iter                               -> *vm_area_struct?      next
iter_task_vma_destroy       iter                               -> void                  destroy
iter_dmabuf_new             iter                               -> int                   new sleep
iter_dmabuf_next            iter                               -> *dma_buf?             next sleep
iter_dmabuf_destroy         iter                               -> void                  destroy sleep
iter_kmem_cache_new         iter                               -> int                   new sleep
iter_kmem_cache_next        iter                               -> *kmem_cache?          next sleep
iter_kmem_cache_destroy     iter                               -> void                  destroy sleep

obj_new_impl,obj_new        const ign                          -> object?               acquired
obj_drop_impl,obj_drop      object ign                         -> void                  release
percpu_obj_new_impl,percpu_obj_new const ign                   -> percpu_object?        acquired
percpu_obj_drop_impl,percpu_obj_drop percpu_object ign         -> void                  release
refcount_acquire_impl,refcount_acquire refcounted ign          -> object?               acquired
list_push_front_impl,list_push_front list_head list_node ign int -> int
list_push_back_impl,list_push_back list_head list_node ign int -> int
list_pop_front,list_pop_back list_head                         -> list_node?            acquired
list_front,list_back        list_head                          -> list_node?
rbtree_add_impl,rbtree_add  rb_root rb_node func ign int       -> int
rbtree_remove               rb_root rb_node                    -> rb_node?              acquired
rbtree_first,rbtree_root    rb_root                            -> rb_node?
rbtree_left,rbtree_right    rb_root rb_node                    -> rb_node?

rcu_read_lock,rcu_read_unlock                                  -> void
preempt_disable,preempt_enable                                 -> void
local_irq_save,local_irq_restore irq                           -> void
res_spin_lock               res_lock                           -> int
res_spin_unlock             res_lock                           -> void
res_spin_lock_irqsave       res_lock irq                       -> int
res_spin_unlock_irqrestore  res_lock irq                       -> void
throw                       int                                -> void
wq_init                     wq map int                         -> int
wq_set_callback_impl        wq func int ign                    -> int
wq_start                    wq int                             -> int
map_sum_elem_count          map                                -> int

strcmp,strcasecmp,strcspn,strspn,strstr ign ign                -> int
strchr,strchrnul,strrchr    ign int                            -> int
strlen                      ign                                -> int
strnlen                     ign int                            -> int
strnchr                     ign int int                        -> int
strnstr                     ign ign int                        -> int

xdp_metadata_rx_timestamp   ctx mem[8]                         -> int                   trusted
xdp_metadata_rx_hash        ctx mem[4] mem[4]                  -> int                   trusted
xdp_metadata_rx_vlan_tag    ctx mem[2] mem[2]                  -> int                   trusted
"""

_KERNELS = """
__bpf_trap                                                     -> void
bpf_kfunc_call_test_release *prog_test_ref_kfunc               -> void                  release
bpf_kfunc_call_memb_release *prog_test_member                  -> void                  release
bpf_get_kmem_cache          int                                -> *kmem_cache?
bpf_stream_vprintk_impl     int str mem size ign               -> int
bpf_copy_from_user_dynptr,bpf_copy_from_user_str_dynptr dynptr int int ign -> int               sleep plain
bpf_copy_from_user_str      mem size ign int                   -> int                   sleep plain
bpf_copy_from_user_task_dynptr dynptr int int ign *task_struct -> int                   sleep trusted
bpf_copy_from_user_task_str_dynptr dynptr int int ign *task_struct -> int               sleep trusted
bpf_copy_from_user_task_str mem size ign *task_struct int      -> int                   sleep plain
bpf_probe_read_user_dynptr,bpf_probe_read_user_str_dynptr dynptr int int ign -> int
bpf_probe_read_kernel_dynptr,bpf_probe_read_kernel_str_dynptr dynptr int int ign -> int

bpf_send_signal_task        *task_struct int int int           -> int                   trusted
bpf_task_under_cgroup       *task_struct *cgroup               -> int                   rcu
bpf_cgroup_read_xattr       *cgroup str dynptr                 -> int                   rcu
css_rstat_updated           *cgroup_subsys_state int           -> void                  plain
css_rstat_flush             *cgroup_subsys_state               -> void                  sleep plain
bpf_get_file_xattr          *file str dynptr                   -> int                   sleep trusted
bpf_get_dentry_xattr        *dentry str dynptr                 -> int                   sleep trusted
bpf_set_dentry_xattr        *dentry str dynptr int             -> int                   sleep trusted
bpf_remove_dentry_xattr     *dentry str                        -> int                   sleep trusted
bpf_get_fsverity_digest     *file dynptr                       -> int                   sleep trusted
bpf_verify_pkcs7_signature  dynptr dynptr *bpf_key             -> int                   sleep plain

bpf_crypto_ctx_create       mem size mem[4]                    -> *bpf_crypto_ctx?      acquired sleep
bpf_crypto_ctx_acquire      *bpf_crypto_ctx                    -> *bpf_crypto_ctx?      acquired rcu
bpf_crypto_ctx_release      *bpf_crypto_ctx                    -> void                  release
bpf_crypto_encrypt,bpf_crypto_decrypt *bpf_crypto_ctx dynptr dynptr dynptr? -> int      rcu

bpf_xdp_ct_alloc,bpf_skb_ct_alloc ctx mem size mem size        -> *nf_conn___init?      acquired
bpf_xdp_ct_lookup,bpf_skb_ct_lookup ctx mem size mem size      -> *nf_conn?             acquired trusted
bpf_ct_insert_entry         *nf_conn___init                    -> *nf_conn?             acquired release
bpf_ct_release              *nf_conn                           -> void                  release
bpf_ct_set_timeout,bpf_ct_set_status *nf_conn___init int       -> int                   trusted
bpf_ct_change_timeout,bpf_ct_change_status *nf_conn int        -> int                   trusted
bpf_ct_set_nat_info         *nf_conn___init mem[16] int int    -> int                   trusted

bpf_skb_get_xfrm_info,bpf_skb_set_xfrm_info ctx mem[8]         -> int
bpf_skb_get_fou_encap       ctx mem[4]                         -> int
bpf_skb_set_fou_encap       ctx mem[4] int                     -> int
bpf_sk_assign_tcp_reqsk     ctx *sock mem size                 -> int                   trusted
bpf_sock_addr_set_sun_path  *bpf_sock_addr_kern mem size       -> int                   plain
bpf_sock_destroy            *sock_common                       -> int                   trusted
bpf_sock_ops_enable_tx_tstamp *bpf_sock_ops_kern int           -> int                   trusted
bpf_xdp_get_xfrm_state      ctx mem size                       -> *xfrm_state?          acquired
bpf_xdp_xfrm_state_release  *xfrm_state                        -> void                  release
bpf_xdp_pull_data           ctx int                            -> int                   moves

bpf_session_is_return                                          -> int
bpf_session_cookie                                             -> mem[8]

tcp_reno_ssthresh,tcp_reno_undo_cwnd *sock                     -> int                   plain
tcp_reno_cong_avoid         *sock int int                      -> void                  plain
tcp_slow_start              *tcp_sock int                      -> int                   plain
tcp_cong_avoid_ai           *tcp_sock int int                  -> void                  plain
cubictcp_init,bbr_init,dctcp_init *sock                        -> void                  plain
cubictcp_recalc_ssthresh,bbr_undo_cwnd,bbr_ssthresh,bbr_min_tso_segs,bbr_sndbuf_expand *sock -> int plain
dctcp_ssthresh,dctcp_cwnd_undo *sock                           -> int                   plain
cubictcp_cong_avoid,bbr_main *sock int int                     -> void                  plain
cubictcp_state,cubictcp_cwnd_event,bbr_cwnd_event,bbr_set_state *sock int -> void       plain
dctcp_update_alpha,dctcp_cwnd_event,dctcp_state *sock int      -> void                  plain
cubictcp_acked              *sock *ack_sample                  -> void                  plain
"""
"""The same of functions that only a kernel has: verdicts know them, engines do not. Names are whole."""

OLDER = frozenset({"cgroup_rstat_updated", "cgroup_rstat_flush"})
"""Functions of older releases, which have no row."""

_KINDS = {
    "int": "number",
    "const": "constant",
    "ign": "ignored",
    "ctx": "ptr_to_ctx",
    "map": "const_map_ptr",
    "func": "ptr_to_func",
    "mem": "ptr_to_mem",
    "buffer": "buffer",
    "size": "const_size_or_zero",
    "dynptr": "dynptr",
    "str": "ptr_to_const_str",
    "*": "struct",
}
"""What is another word for helpers, or for Python."""


_NEEDS = frozenset({"trusted", "rcu", "plain"})


@dataclass(frozen=True, slots=True)
class KernelFunction:
    """What a kernel function takes and gives.

    `returns` is a word of the table ("*": the struct `returns_btf`), `returns_size` the bytes of memory.
    `acquires`: the result is to be given back; `releases`: the first argument is. `needs` says what structs
    must be: "trusted", "rcu", "plain", or "" where a function has rules of its own. `protected`: RCU must
    be held. `moves_packet`: pointers into the packet are void afterwards. `iterates` is "new", "next",
    "destroy", or "" for what is no iterator's.
    """

    name: str
    arguments: tuple[Argument, ...]
    returns: str
    returns_null: bool = False
    returns_btf: str = ""
    returns_size: int = 0
    acquires: bool = False
    releases: bool = False
    needs: str = ""
    protected: bool = False
    might_sleep: bool = False
    iterates: str = ""
    moves_packet: bool = False
    packet_access: bool = True

    @property
    def reads_what_it_writes(self) -> bool:
        """True: what a kernel function does with memory, no type says."""
        return True

    @property
    def iterator(self) -> str:
        """The struct of its iterator: "iter_num"."""
        return self.name.removeprefix("bpf_").rpartition("_")[0]


def _argument(text: str, *, release: bool) -> Argument:
    name, struct, size, flags, maybe_null = word(text)
    writes = name == "mem" or name == "buffer"
    return Argument(
        _KINDS.get(name, name),
        maybe_null=maybe_null,
        uninit="out" in flags,
        write=writes,
        release=release,
        size=size,
        btf=struct,
    )


def _function(name: str, arguments: str, rest: str) -> KernelFunction:
    result, *others = rest.split()
    returns, struct, size, _, maybe_null = word(result)
    said = set(others)
    releases = "release" in said
    return KernelFunction(
        name,
        tuple(
            _argument(text, release=releases and not index) for index, text in enumerate(arguments.split())
        ),
        returns,
        returns_null=maybe_null,
        returns_btf=struct,
        returns_size=size,
        acquires="acquired" in said,
        releases=releases,
        needs="trusted" if "release" in said else next(iter(said & _NEEDS), ""),
        protected="protected" in said,
        might_sleep="sleep" in said,
        moves_packet="moves" in said,
        iterates=next(iter(said & {"new", "next", "destroy"}), ""),
    )


@once
def kernel_functions() -> Mapping[str, KernelFunction]:
    """Return what each kernel function takes and gives, by name."""
    found: dict[str, KernelFunction] = {}
    for prefix, rows in (("bpf_", _TABLE), ("", _KERNELS)):
        for row in filter(None, rows.splitlines()):
            left, _, rest = row.partition("->")
            names, _, arguments = left.partition(" ")
            for name in names.split(","):
                found[prefix + name] = _function(prefix + name, arguments, rest)
    return found
