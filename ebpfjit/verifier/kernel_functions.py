"""What Linux's kernel functions take and give: a row for each that the library has (BTF_ID_FLAGS, 6.18).

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
    trusted    structs must be referenced or trusted;  rcu: or protected by RCU
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
    "*": "struct",
}
"""What is another word for helpers, or for Python."""


@dataclass(frozen=True, slots=True)
class KernelFunction:
    """What a kernel function takes and gives.

    `returns` is a word of the table ("*": the struct `returns_btf`), `returns_size` the bytes of memory.
    `acquires`: the result is to be given back; `releases`: the first argument is. `needs` says what structs
    must be: "trusted", "rcu", or "" where a function has rules of its own. `protected`: RCU must be held.
    `iterates` is "new", "next", "destroy", or "" for what is no iterator's.
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
        needs="trusted" if said & {"trusted", "release"} else "rcu" if "rcu" in said else "",
        protected="protected" in said,
        might_sleep="sleep" in said,
        iterates=next(iter(said & {"new", "next", "destroy"}), ""),
    )


@once
def kernel_functions() -> Mapping[str, KernelFunction]:
    """Return what each kernel function takes and gives, by name."""
    found: dict[str, KernelFunction] = {}
    for row in filter(None, _TABLE.splitlines()):
        left, _, rest = row.partition("->")
        names, _, arguments = left.partition(" ")
        found |= {f"bpf_{name}": _function(f"bpf_{name}", arguments, rest) for name in names.split(",")}
    return found
