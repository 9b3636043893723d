"""What calls of kernel functions do to all that is known, and what they give."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from ebpfjit.program import Instruction
from ebpfjit.verifier import arguments, branches, calls, contexts, results
from ebpfjit.verifier.arguments import Dynptr, Given
from ebpfjit.verifier.kernel_functions import KernelFunction, kernel_functions
from ebpfjit.verifier.kernel_types import KernelTypes
from ebpfjit.verifier.numbers import DOMAIN
from ebpfjit.verifier.objects import Own
from ebpfjit.verifier.refusals import Refused, Undecided
from ebpfjit.verifier.state import INTERRUPTS, PREEMPTION, RCU, RESILIENT, Frame, State
from ebpfjit.verifier.values import Cell, Pointer, Scalar, Value, fresh, known, unknown

if TYPE_CHECKING:
    from ebpfjit.verifier.walk import Walk

LARGEST_PERCPU = 512
"""Bytes of a struct that each processor has at most (BPF_GLOBAL_PERCPU_MA_MAX_SIZE)."""

_UNSEEN = frozenset({"bpf_timer", "bpf_wq", "bpf_task_work"})

WORDS = {"iter_bits": 2, "iter_css": 3, "iter_task": 3}
"""Words of iterators; all others have one."""

ENDS = Scalar(DOMAIN.unknown)
"""What stands for a result where the program ends."""


class Calling:
    """A call whose arguments were found right."""

    __slots__ = ("given", "insn", "state", "takes", "walk")

    def __init__(
        self, walk: Walk, state: State, takes: KernelFunction, given: Given, insn: Instruction
    ) -> None:
        self.walk = walk
        self.state = state
        self.takes = takes
        self.given = given
        self.insn = insn

    @property
    def name(self) -> str:
        """The function's name."""
        return self.takes.name

    @property
    def special(self) -> dict[str, Any]:
        """The function's own arguments, by kind."""
        return self.given.special

    def acquire(self) -> int:
        """Return the number of a reference that the program has from here on, 0 where it gets none."""
        return calls.acquire(self.state, self.insn, self.name) if self.takes.acquires else 0

    def fork(self, result: Value) -> State:
        """Return a state that is walked later, behind the call, with another result."""
        other = self.walk.fork(self.state, self.insn.next_pc)
        for number in range(1, 6):
            other.registers[number] = None
        other.registers[0] = result
        return other


def result(call: Calling) -> Value:
    """Return what a function gives that does nothing else."""
    takes = call.takes
    match takes.returns:
        case "void":
            return None
        case "int":
            return unknown()
        case "mem":
            return Pointer("mem", takes.name, size=takes.returns_size)
        case "*":
            ref, null = call.acquire(), takes.returns_null
            return Pointer("btf_id", takes.returns_btf, null=null, id=ref or fresh(), ref=ref)
    raise Undecided(f"what {takes.name} does is not known here")


# -- objects of the program's own -------------------------------------------------------------------------


def _own(call: Calling, own: Own, *flags: str, off: int = 0, null: bool = True) -> Pointer:
    """Return an object of the program's, which the program has a reference to where it acquires one."""
    ref = call.acquire()
    said = frozenset({"alloc", *flags})
    return Pointer("btf_id", own, off=off, null=null, id=ref or fresh(), ref=ref, flags=said)


def _new_object(call: Calling) -> Value:
    own = call.walk.objects.of(call.given.constant or 0)
    if own is None:
        raise Refused("type", f"{call.name} type ID argument must be of a struct")
    if call.takes.returns == "object":
        return _own(call, own)
    if own.size > LARGEST_PERCPU:
        raise Refused("type", f"bpf_percpu_obj_new type size ({own.size}) is greater than {LARGEST_PERCPU}")
    if own.fields and all(field.kind in _UNSEEN for field in own.fields):
        raise Undecided("whether an object that each processor has may have a work queue or a timer")
    if not own.is_scalar:
        raise Refused("type", "bpf_percpu_obj_new type ID argument must be of a struct of scalars")
    return _own(call, own, "percpu")


def _same_object(call: Calling) -> Value:
    there: Pointer = call.special["object"]
    return _own(call, there.what, null=not there.ref)


def _hang(call: Calling) -> Value:
    """The head owns the object from now on; the program may look at it while it holds the lock."""
    node: Pointer = call.special["node"]
    if call.given.function is not None:
        call.walk.callback(call.state, call.insn, "bpf_rbtree_add", call.given)
    call.state.references = tuple(each for each in call.state.references if each.id != node.ref)

    def change(value: Value) -> Value:
        if isinstance(value, Pointer) and value.ref == node.ref:
            return value.but(ref=0, flags=value.flags | {"borrowed"})
        return value

    branches.replaced(call.state, change)
    return unknown()


def _taken_out(call: Calling) -> Value:
    own, offset = _hangs(call)
    if call.name == "bpf_rbtree_remove" and arguments.is_comparing(call.state):
        raise Refused("lock", "rbtree_remove not allowed in rbtree cb")
    return _own(call, own, off=offset)


def _looked_at(call: Calling) -> Value:
    own, offset = _hangs(call)
    return _own(call, own, "borrowed", off=offset)


def _hangs(call: Calling) -> tuple[Own, int]:
    """Return the struct that hangs in a head, and where its node is. Raises Undecided."""
    struct, offset = call.special["head"].contains
    return call.walk.objects.named(struct), offset


# -- iterators --------------------------------------------------------------------------------------------


class Iterator:
    """An iterator in a frame: of which struct, whether it may have more to give, and its reference.

    `state` is "active", "drained", or "lost" where RCU is held no longer, which it needs (`protected`).
    """

    __slots__ = ("id", "kind", "protected", "ref", "slot", "state", "words")

    def __init__(self, kind: str, slot: int, ref: int, *, protected: bool, state: str = "active") -> None:
        self.kind = kind
        self.slot = slot
        self.ref = ref
        self.id = 0
        self.words = WORDS.get(kind, 1)
        self.protected = protected
        self.state = state

    def put(self, frame: Frame, state: str = "active") -> None:
        """Let the iterator be in that state, in a frame."""
        made = Iterator(self.kind, self.slot, self.ref, protected=self.protected, state=state)
        for word in range(self.words):
            frame.stack[self.slot + word] = Cell("i" * 8, made)


def is_over(state: State) -> bool:
    """True where r1 points to an iterator that has no more to give: going round with it is no progress."""
    place = state.registers[1]
    if not isinstance(place, Pointer) or place.kind != "stack":
        return False
    cell = state.frames[place.what].stack.get(place.off // 8)
    return cell is not None and isinstance(cell.value, Iterator) and cell.value.state != "active"


def _begin(call: Calling) -> Value:
    frame, slot = call.special["place"]
    reference = calls.acquire(call.state, call.insn, call.name)
    Iterator(call.takes.iterator, slot, reference, protected=call.takes.protected).put(frame)
    return unknown()


def _next(call: Calling) -> Value:
    """One way goes on with what it gives, the other with NULL: then it has no more."""
    frame, slot = call.special["place"]
    there: Iterator = frame.stack[slot].value
    if there.state != "active":
        return known(0)
    takes = call.takes
    if takes.returns == "mem":
        flags, size = frozenset({"rdonly"}), takes.returns_size
        found = Pointer("mem", takes.name, size=size, id=fresh(), ref=there.ref, flags=flags)
    else:
        flags = frozenset({"rcu" if there.protected else "trusted"})
        found = Pointer("btf_id", takes.returns_btf, id=fresh(), flags=flags)
    depth = next(index for index, each in enumerate(call.state.frames) if each is frame)
    before = call.state.point
    other = call.fork(found)
    other.rounds += 1
    there.put(other.frames[depth])
    if before is not None:
        call.walk.seen.widened(other, before.before, call.insn.pc)
    there.put(frame, "drained")
    return known(0)


def _end(call: Calling) -> Value:
    frame, slot = call.special["place"]
    there: Iterator = frame.stack[slot].value
    calls.release(call.walk, call.state, there.ref, call.name)
    for word in range(there.words):
        frame.stack[slot + word] = Cell("?" * 8)
    return None


# -- stretches of code ------------------------------------------------------------------------------------


class Saved:
    """Interrupt flags in a frame: the how many-th that are saved (`state`), by which kind of function."""

    __slots__ = ("id", "kind", "ref", "slot", "state", "words")

    def __init__(self, kind: str, slot: int, depth: int) -> None:
        self.kind = kind
        self.slot = slot
        self.state = depth
        self.ref = 0
        self.id = 0
        self.words = 1


def _enter_rcu(call: Calling) -> Value:
    state = call.state
    if any(name == RCU for name, _ in state.sections):
        raise Refused("lock", f"nested rcu read lock (kernel function {call.name})")
    state.sections = (*state.sections, (RCU, call.insn.pc))
    return None


def _leave_rcu(call: Calling) -> Value:
    """What RCU kept may be gone from now on."""
    _leave(call.state, RCU, f"unmatched rcu read unlock (kernel function {call.name})")

    def change(value: Value) -> Value:
        if isinstance(value, Pointer) and "rcu" in value.flags:
            return value.but(null=False, flags=value.flags - {"rcu"} | {"untrusted"})
        return value

    branches.replaced(call.state, change)
    for frame in call.state.frames:
        for cell in list(frame.stack.values()):
            if isinstance(cell.value, Iterator) and cell.value.protected:
                cell.value.put(frame, "lost")
    return None


def _stop_preemption(call: Calling) -> Value:
    call.state.sections = (*call.state.sections, (PREEMPTION, call.insn.pc))
    return None


def _let_preempt(call: Calling) -> Value:
    said = f"unmatched attempt to enable preemption (kernel function {call.name})"
    _leave(call.state, PREEMPTION, said)
    return None


def _leave(state: State, section: str, said: str) -> None:
    """Leave the stretch of a name that was entered last. Raises Refused where there is none."""
    sections = list(state.sections)
    for index in reversed(range(len(sections))):
        if sections[index][0] == section:
            del sections[index]
            state.sections = tuple(sections)
            return
    raise Refused("lock", said)


def _saved_by(name: str) -> str:
    return "lock" if "spin" in name else "native"


def _save(call: Calling) -> Value:
    state = call.state
    frame, slot = call.special["flags"]
    depth = sum(name == INTERRUPTS for name, _ in state.sections) + 1
    frame.stack[slot] = Cell("q" * 8, Saved(_saved_by(call.name), slot, depth))
    state.sections = (*state.sections, (INTERRUPTS, call.insn.pc))
    return None


def _restore(call: Calling) -> Value:
    state = call.state
    frame, slot = call.special["flags"]
    saved: Saved = frame.stack[slot].value
    kind = _saved_by(call.name)
    if saved.kind != kind:
        said = f"irq flag acquired by {saved.kind} kfuncs cannot be restored with {kind} kfuncs"
        raise Refused("lock", said)
    if saved.state != sum(name == INTERRUPTS for name, _ in state.sections):
        raise Refused("lock", "cannot restore irq state out of order", "restore what was saved last first")
    _leave(state, INTERRUPTS, "")
    frame.stack[slot] = Cell("?" * 8)
    return None


# -- locks ------------------------------------------------------------------------------------------------


def section_of(lock: Pointer) -> str:
    """Return the stretch of code in which a bpf_res_spin_lock is held."""
    what, number = arguments.place_of(lock)
    return f"{RESILIENT} {what}:{number}"


def _lock(call: Calling) -> Value:
    """One way goes on with the lock, the other without it: with a negative number."""
    state, section = call.state, section_of(call.special["lock"])
    if any(name == section for name, _ in state.sections):
        raise Refused("lock", "Acquiring the same lock again, AA deadlock detected")
    lowest = -calls.MOST_ERRORS
    call.fork(Scalar(DOMAIN.some(smin=lowest, smax=-1, smin32=lowest, smax32=-1)))
    if "flags" in call.special:
        _save(call)
    state.sections = (*state.sections, (section, call.insn.pc))
    return known(0)


def _unlock(call: Calling) -> Value:
    state, section = call.state, section_of(call.special["lock"])
    held = [name for name, _ in state.sections if name.startswith(RESILIENT)]
    if not held:
        raise Refused("lock", f"{call.name} without taking a lock")
    if section not in held:
        raise Refused("lock", f"{call.name} of different lock")
    if held[-1] != section:
        raise Refused("lock", f"{call.name} cannot be out of order")
    _leave(state, section, "")
    branches.forget_borrowed(state)
    if "flags" in call.special:
        _restore(call)
    return None


# -- dynptrs ----------------------------------------------------------------------------------------------


def _put_dynptr(frame: Frame, made: Dynptr) -> None:
    for word in range(made.words):
        frame.stack[made.slot + word] = Cell("d" * 8, made)


def _of_packet(call: Calling) -> Value:
    ((frame, slot),) = call.special["dynptrs"]
    type_ = call.walk.setting.type
    rdonly = type_ is None or not contexts.writes_packet(type_)
    kind = call.name.removeprefix("bpf_dynptr_from_")
    _put_dynptr(frame, Dynptr(kind, slot, 0, fresh(), rdonly=rdonly))
    return unknown()


def _clone(call: Calling) -> Value:
    source, (frame, slot) = call.special["dynptrs"]
    _put_dynptr(frame, Dynptr(source.kind, slot, source.ref, fresh(), rdonly=source.rdonly))
    return unknown()


def buffer_of(depth: int) -> str:
    """Return what is said of a slice that may lie in a buffer in the frame of a function, by its depth."""
    return f"buffer {depth}"


def _slice(call: Calling) -> Value:
    source: Dynptr = call.special["dynptrs"][0]
    buffer, depth = call.given.values[2], len(call.state.frames) - 1
    flags, type_ = set[str](), call.walk.setting.type
    if isinstance(buffer, Pointer) and buffer.kind == "stack" and buffer.what == depth > 0:
        flags.add(buffer_of(depth))
        call.walk.slices_in_frames = True
    if call.name == "bpf_dynptr_slice" or source.rdonly:
        flags.add("rdonly")
    if call.name == "bpf_dynptr_slice_rdwr" and (type_ is None or not contexts.writes_packet(type_)):
        raise Refused("call", "the prog does not allow writes to packet data")
    if source.kind in ("skb", "skb_meta", "xdp"):
        flags.add("packet")
    said, size = frozenset(flags), call.given.constant or 0
    return Pointer("mem", call.name, size=size, null=True, id=fresh(), ref=source.ref, flags=said)


# -- others -----------------------------------------------------------------------------------------------


def _throw(call: Calling) -> Value:
    thrown = call.walk.program.exception_callback
    if any(frame.callback is not None or frame.start == thrown for frame in call.state.frames):
        raise Refused("call", "bpf_throw kfunc cannot be called from callback subprog", "return a result")
    calls.held_at(call.state, "bpf_throw would lead to reference leak", "bpf_throw")
    if call.walk.program.exception_callback is None:
        results.check_result(call.walk, call.state, call.state.registers[1], "R1")
    return ENDS


def _pages(call: Calling) -> Value:
    return Pointer("arena")


def _cast_context(call: Calling) -> Value:
    type_ = call.walk.setting.type or ""
    struct = _OF_CONTEXTS.get(type_)
    if struct is None:
        raise Refused("type", f"kern ctx type is not a struct: programs of type {type_} see other memory")
    return Pointer("btf_id", struct, id=fresh(), flags=frozenset({"trusted"}))


_SKB = ("tc", "sched_act", "socket_filter", "cgroup_skb", "sk_skb")
_LWT = ("lwt_in", "lwt_out", "lwt_xmit", "lwt_seg6local")
_OF_CONTEXTS = {
    **dict.fromkeys((*_SKB, *_LWT), "sk_buff"),
    "xdp": "xdp_buff",
    "cgroup_sock": "sock",
    "cgroup_sock_addr": "bpf_sock_addr_kern",
    "cgroup_device": "bpf_cgroup_dev_ctx",
    "cgroup_sysctl": "bpf_sysctl_kern",
    "cgroup_sockopt": "bpf_sockopt_kern",
    "sock_ops": "bpf_sock_ops_kern",
    "sk_msg": "sk_msg",
    "sk_reuseport": "sk_reuseport_kern",
    "sk_lookup": "bpf_sk_lookup_kern",
    "flow_dissector": "bpf_flow_dissector",
    "netfilter": "bpf_nf_ctx",
    "kprobe": "pt_regs",
    "perf_event": "bpf_perf_event_data_kern",
}
"""What the kernel has where programs see their context (bpf_ctx_convert); others have numbers, or nothing."""


def _kernel_types(call: Calling) -> KernelTypes:
    types = call.walk.setting.types
    if types is None:
        raise Undecided("which struct of the kernel has a number, its types say", goes_on=True)
    return types


def _cast_any(call: Calling) -> Value:
    """Anything as a struct of the kernel's, by its number in the kernel's types, or as memory (0: void)."""
    name = _kernel_types(call).named_by(call.given.constant or 0)
    if not name:
        flags = frozenset({"rdonly", "untrusted"})
        return Pointer("mem", call.name, flags=flags)
    return Pointer("btf_id", name, flags=frozenset({"untrusted"}))


def _call_later(call: Calling) -> Value:
    call.walk.callback(call.state, call.insn, call.name, call.given)
    return unknown()


_ITERATES = {"new": _begin, "next": _next, "destroy": _end}

EFFECTS: dict[str, Callable[[Calling], Value]] = {
    **{each.name: _ITERATES[each.iterates] for each in kernel_functions().values() if each.iterates},
    "bpf_obj_new_impl": _new_object,
    "bpf_percpu_obj_new_impl": _new_object,
    "bpf_refcount_acquire_impl": _same_object,
    "bpf_list_push_front_impl": _hang,
    "bpf_list_push_back_impl": _hang,
    "bpf_list_pop_front": _taken_out,
    "bpf_list_pop_back": _taken_out,
    "bpf_list_front": _looked_at,
    "bpf_list_back": _looked_at,
    "bpf_rbtree_add_impl": _hang,
    "bpf_rbtree_remove": _taken_out,
    "bpf_rbtree_first": _looked_at,
    "bpf_rbtree_root": _looked_at,
    "bpf_rbtree_left": _looked_at,
    "bpf_rbtree_right": _looked_at,
    "bpf_rcu_read_lock": _enter_rcu,
    "bpf_rcu_read_unlock": _leave_rcu,
    "bpf_preempt_disable": _stop_preemption,
    "bpf_preempt_enable": _let_preempt,
    "bpf_local_irq_save": _save,
    "bpf_local_irq_restore": _restore,
    "bpf_res_spin_lock": _lock,
    "bpf_res_spin_lock_irqsave": _lock,
    "bpf_res_spin_unlock": _unlock,
    "bpf_res_spin_unlock_irqrestore": _unlock,
    "bpf_dynptr_from_skb": _of_packet,
    "bpf_dynptr_from_skb_meta": _of_packet,
    "bpf_dynptr_from_xdp": _of_packet,
    "bpf_dynptr_clone": _clone,
    "bpf_dynptr_slice": _slice,
    "bpf_dynptr_slice_rdwr": _slice,
    "bpf_throw": _throw,
    "bpf_arena_alloc_pages": _pages,
    "bpf_cast_to_kern_ctx": _cast_context,
    "bpf_rdonly_cast": _cast_any,
    "bpf_wq_set_callback_impl": _call_later,
}
"""The functions that do more than give a number, or a pointer to a struct; each returns r0."""
