"""Calls of kernel functions: whether there may be one, and what it is given.

    held against a row of `kernel_functions`, argument by argument    (_RULES)
    then what it does to all that is known                            (`kfunc_effects`)

Rules: check_kfunc_call and check_kfunc_args of kernel/bpf/verifier.c, Linux 6.18.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from ebpfjit.compatibility import lookup
from ebpfjit.compatibility.release import LAST
from ebpfjit.elf.contexts import BPF_TRACE_ITER
from ebpfjit.program import Instruction, Program
from ebpfjit.runtime.kfuncs.table import kfuncs
from ebpfjit.runtime.maps.special import HEADS, LOCKS
from ebpfjit.verifier import arguments, calls, kfunc_effects, memory, stack
from ebpfjit.verifier.arguments import Call
from ebpfjit.verifier.kernel_functions import KernelFunction, kernel_functions
from ebpfjit.verifier.kfunc_effects import EFFECTS, ENDS, WORDS, Calling, Iterator, section_of
from ebpfjit.verifier.objects import Own
from ebpfjit.verifier.prototypes import Argument
from ebpfjit.verifier.refusals import DECLARE_GPL, Refused, Undecided
from ebpfjit.verifier.state import State
from ebpfjit.verifier.values import Pointer, Poison, Scalar, Value, mark_precise

if TYPE_CHECKING:
    from ebpfjit.verifier.walk import Walk

_APART = frozenset({"task_struct", "cgroup", "file", "bpf_key", "bpf_cpumask"})
"""Structs of which none begins with another."""

_NEW = "___init"
"""What the name of a struct ends with that is not in use yet: it stands for no other."""

_OTHER_STRUCTS = {
    "map": "bpf_map",
    "socket": "sock",
    "sock_common": "sock_common",
    "tcp_sock": "tcp_sock",
    "xdp_sock": "xdp_sock",
}
"""What pointers of other kinds point to (reg2btf_ids)."""

_SCALARS = frozenset({"cpumask", "bpf_cpumask"})
"""Structs of numbers alone, for which any memory of their size will do."""

_ALIKE = {
    "cpumask": frozenset({"bpf_cpumask"}),
    "sock": frozenset({"tcp_sock", "xdp_sock"}),
    "sock_common": frozenset({"sock", "tcp_sock", "xdp_sock"}),
}
"""Structs that begin with another one, whatever types a program comes with."""


def comes_again(program: Program, insn: Instruction) -> bool:
    """True of calls at which rounds of a loop begin whose end the verifier is not to find."""
    called = program.kfuncs.get(insn.imm)
    return called is not None and (called.name.endswith("_next") or called.name == "bpf_rbtree_add_impl")


def named(program: Program, insn: Instruction) -> str | None:
    """Return the name of the kernel function that is called, None where that is not known."""
    weak = program.weak_kfuncs.get(insn.pc)
    called = program.kfuncs.get(insn.imm) if weak is None else weak[1]
    return None if called is None else called.name


def is_only_linux_s(walk: Walk, insn: Instruction) -> bool:
    """True of a weak kernel function that Linux has, and engines lack: its call looks like a helper's."""
    name = named(walk.program, insn) if insn.pc in walk.program.weak_kfuncs else None
    return name is not None and lookup.kfunc(name, walk.caller).since is not None


def call(walk: Walk, state: State, insn: Instruction) -> bool:
    """Call a kernel function; False where the program ends there. Raises Refused, Undecided."""
    takes = _taken(walk, insn)
    _check_place(walk, state, takes)
    given = arguments.check(walk.setting, state, takes, _RULES)
    for argument, value in zip(takes.arguments, given.values, strict=True):
        if isinstance(value, Poison) and argument.kind not in ("number", "ignored"):
            raise Undecided(f"{takes.name} of what a refused instruction gave", goes_on=True)
    effect = EFFECTS.get(takes.name, kfunc_effects.result)
    if given.released:
        calls.release(walk, state, given.released, takes.name)
    for do in given.after:
        do()
    if takes.moves_packet:
        calls.packet_moved(state, takes.name, privileged=walk.setting.privileged)
    result = effect(Calling(walk, state, takes, given, insn))
    if result is ENDS:
        return False
    registers = state.registers
    for number in range(1, 6):
        registers[number] = None
    registers[0] = result
    return True


def _taken(walk: Walk, insn: Instruction) -> KernelFunction:
    name = named(walk.program, insn)
    if name is None:
        raise Undecided("a kernel function is called that only who runs the program knows")
    takes = kernel_functions().get(name)
    if takes is None:
        raise Undecided(f"what {name} takes is not known here")
    if name == "__bpf_trap":
        said = "unexpected __bpf_trap() due to uninitialized variable?"
        raise Refused(
            "structure", said, "a compiler puts it where code makes no sense: look at what is read before"
        )
    if takes.name.startswith("bpf_xdp_metadata_"):
        raise Undecided(f"{takes.name} is for programs that are bound to a device")
    answer = lookup.kfunc(takes.name, walk.caller)
    if not answer.is_known:
        raise Undecided(answer.reason)
    if answer.since is None:
        raise Refused("call", f"calling kernel function {takes.name} is not allowed", answer.reason)
    if answer.until is not None and answer.until < LAST:
        raise Undecided(f"Linux {answer.until} was the last to have {takes.name}")
    if walk.setting.is_restricted:
        raise Refused(
            "call",
            "cannot call kernel function from non-GPL compatible program",
            DECLARE_GPL,
        )
    if not walk.setting.privileged:
        raise Undecided("whether unprivileged programs may call kernel functions")
    return takes


def _check_place(walk: Walk, state: State, takes: KernelFunction) -> None:
    """Raise Refused where the function must not be called here."""
    name = takes.name
    known = kfuncs().get(name)
    if state.holds_a_lock and not (known is not None and known.under_lock):
        raise Refused(
            "lock", f"function calls are not allowed while holding a lock: {name}", "give the lock back first"
        )
    if takes.might_sleep:
        if not is_sleepable(walk, state):
            raise Refused("call", f"program must be sleepable to call sleepable kfunc {name}")
        if state.sections:
            raise Refused("lock", f"kernel func {name} is sleepable within {state.region} region")
    if name == "bpf_iter_css_task_new" and not _iterates_tasks(walk, state):
        said = "css_task_iter is only allowed in bpf_lsm, bpf_iter and sleepable progs"
        raise Refused("call", said)
    if takes.protected and not memory.holds_rcu(walk.setting, state):
        raise Refused(
            "lock",
            f"kernel func {name} requires RCU critical section protection",
            "call bpf_rcu_read_lock before",
        )


def _iterates_tasks(walk: Walk, state: State) -> bool:
    """True where the tasks of a cgroup may be iterated (check_css_task_iter_allowlist)."""
    type_, attach = walk.setting.type, walk.setting.attach
    return type_ == "lsm" or (type_ == "tracing" and attach == BPF_TRACE_ITER) or is_sleepable(walk, state)


def is_sleepable(walk: Walk, state: State) -> bool:
    """True where the program may sleep, unless it holds something."""
    callback = state.frames[0].callback
    if callback is not None and callback.is_async:
        return callback.helper == "bpf_wq_set_callback_impl"
    return walk.is_sleepable


# -- arguments --------------------------------------------------------------------------------------------


def _context(call: Call, argument: Argument, value: Value) -> None:
    """The context; where programs see something else, the kernel's struct that it stands for."""
    type_, takes = call.setting.type, call.prototype.name
    is_other = type_ in _OTHER_CONTEXTS and takes in _STANDS_FOR
    if (
        is_other
        and isinstance(value, Pointer)
        and value.kind == "btf_id"
        and value.what == _STANDS_FOR[takes]
    ):
        _struct(call, argument, value)
        return
    arguments.RULES["ptr_to_ctx"](call, argument, value)


_OTHER_CONTEXTS = frozenset({"netfilter", "tracing", "lsm", "struct_ops"})
_STANDS_FOR = {"bpf_dynptr_from_skb": "sk_buff", "bpf_dynptr_from_xdp": "xdp_buff"}


def _number(call: Call, argument: Argument, value: Value) -> None:
    if not isinstance(value, Scalar):
        raise Refused("type", f"R{call.number} is not a scalar")


def _constant(call: Call, argument: Argument, value: Value) -> None:
    if not isinstance(value, Scalar):
        raise Refused("type", f"R{call.number} is not a scalar")
    if not value.number.is_known:
        raise Refused("type", f"R{call.number} must be a known constant")
    mark_precise(value)
    size = call.given.constant = value.number.value
    place = call.place - 1
    before = call.prototype.arguments[place] if place >= 0 else None
    if before is None or before.kind != "buffer":
        return
    buffer = call.given.values[place]
    if isinstance(buffer, Scalar) and buffer.number.is_known and not buffer.number.value:
        return
    if size >= 1 << 29:
        raise Refused("memory", f"R{call.number} unbounded memory access: {size} bytes")
    if isinstance(buffer, Pointer) and buffer.null:
        raise memory.wrong_type(call.number - 1, buffer, "fp, pkt, pkt_meta, map_key, map_value, mem")
    Call(call.setting, call.state, call.prototype, call.given, place).region(before, buffer, size)


def _is_null(value: Value) -> bool:
    return isinstance(value, Scalar) and value.number.is_known and not value.number.value


def _memory(call: Call, argument: Argument, value: Value) -> None:
    """Memory; NULL where the next argument says that it is of no size."""
    if argument.size or not _is_null(value):
        arguments.RULES["ptr_to_mem"](call, argument, value)


def _size(call: Call, argument: Argument, value: Value) -> None:
    is_nothing = _is_null(value) and _is_null(call.given.values[call.place - 1])
    if not is_nothing:
        arguments.RULES["const_size_or_zero"](call, argument, value)


def _buffer(call: Call, argument: Argument, value: Value) -> None:
    """How much of it there must be, the next argument says."""


def _struct(call: Call, argument: Argument, value: Value) -> None:
    """A struct of the kernel's, which must be there for as long as the function needs it."""
    number, takes = call.number, call.prototype
    assert isinstance(takes, KernelFunction)
    if not isinstance(value, Pointer):
        if _is_null(value):
            raise Refused("null", f"Possibly NULL pointer passed to trusted arg{number - 1}")
        raise Refused("type", f"arg#{number - 1} pointer type STRUCT {argument.btf} must point to scalar")
    if value.null:
        raise Refused(
            "null",
            f"Possibly NULL pointer passed to trusted arg{number - 1}",
            "compare it with NULL before",
        )
    if value.kind in _OTHER_STRUCTS:
        value = value.but(what=_OTHER_STRUCTS[value.kind], flags=frozenset({"trusted"}))
        if argument.btf != value.what and value.what not in _ALIKE.get(argument.btf, ()):
            raise _another_struct(call, argument, value)
    elif value.kind != "btf_id":
        _memory_for(call, argument, value)
        return
    flags = value.flags
    if "alloc" in flags or isinstance(value.what, Own):
        raise Refused("type", f"arg#{number - 1} is an object of the program, not a {argument.btf}")
    is_trusted = bool(value.ref) or ("trusted" in flags and "untrusted" not in flags)
    if takes.needs == "plain" and not flags - {"rcu"}:
        is_trusted = True
    if not is_trusted and (takes.needs != "rcu" or "rcu" not in flags):
        if takes.needs == "rcu":
            raise Refused("type", f"R{number} must be a rcu pointer")
        raise Refused("type", f"R{number} must be referenced or trusted")
    if value.what == (argument.btf or value.what) and not value.off and value.var is None:
        return
    if value.what in _ALIKE.get(argument.btf, ()) and not value.off and value.var is None:
        return
    types = call.setting.types
    is_apart = value.what in _APART and argument.btf in _APART and not value.off
    is_alias = value.what.partition(_NEW)[0] == argument.btf.partition(_NEW)[0]
    if is_apart or is_alias or argument.release:
        raise _another_struct(call, argument, value)
    if types is None or value.var is not None or not value.what:
        raise Undecided(f"whether a {value.what} is a {argument.btf}", goes_on=True)
    if not types.begins_with(value.what, value.off, argument.btf):
        raise _another_struct(call, argument, value)


def _memory_for(call: Call, argument: Argument, value: Pointer) -> None:
    """Take memory for a struct of the kernel's, where that has nothing but numbers in it."""
    if argument.btf not in _SCALARS:
        said = f"arg#{call.number - 1} pointer type STRUCT {argument.btf} must point to scalar"
        raise Refused("type", f"{said}, or struct with scalar")
    if argument.release:
        said = f"release kernel function {call.prototype.name} expects refcounted PTR_TO_BTF_ID"
        raise Refused("reference", said)
    types = call.setting.types
    if types is None:
        raise Undecided(f"how large a struct {argument.btf} is, the kernel's types say", goes_on=True)
    call.region(replace(argument, write=True), value, types.size_of(argument.btf))


def _another_struct(call: Call, argument: Argument, value: Pointer) -> Refused:
    said = (
        f"expected pointer to STRUCT {argument.btf} but R{call.number} has a pointer to STRUCT {value.what}"
    )
    return Refused("type", f"kernel function {call.prototype.name} args#{call.place} {said}")


def _place_on_stack(call: Call, value: Value, what: str, words: int) -> Pointer:
    if not isinstance(value, Pointer) or value.kind != "stack" or value.null:
        raise Refused("type", f"arg#{call.number - 1} expected pointer to {what} on stack")
    if value.var is not None or value.off % 8:
        raise Refused("type", f"{what} has to be at a constant offset, a multiple of 8: it is at {value.off}")
    if not -stack.SIZE <= value.off <= -8 * words:
        raise Refused("memory", f"cannot pass in {what} at an offset={value.off}")
    return value


def _iterator(call: Call, argument: Argument, value: Value) -> None:
    takes = call.prototype
    assert isinstance(takes, KernelFunction)
    kind = takes.iterator
    words = WORDS.get(kind, 1)
    pointer = _place_on_stack(call, value, "an iterator", words)
    frame, slot = call.state.frames[pointer.what], pointer.off // 8
    cells = [frame.stack.get(slot + word) for word in range(words)]
    call.given.special["place"] = frame, slot
    if takes.iterates == "new":
        if any(cell is not None and cell.kinds[0] == "i" for cell in cells):
            raise Refused("type", f"expected uninitialized {kind} as arg #{call.number - 1}")
        stack.region(
            frame, call.number, pointer, 8 * words, reads=False, writes=True, privileged=True
        )  # fmt: skip
        return
    for cell in cells:
        if (
            cell is None
            or cell.kinds[0] != "i"
            or not isinstance(cell.value, Iterator)
            or (cell.value.kind, cell.value.slot) != (kind, slot)
        ):
            raise Refused("type", f"expected an initialized {kind} as arg #{call.number - 1}")
        cell.mark_read()
    assert cells[0] is not None
    if cells[0].value.state == "lost" and takes.iterates == "next":
        raise Refused("lock", f"expected an RCU CS when using {takes.name}")


def _dynptr(call: Call, argument: Argument, value: Value) -> None:
    found: list[Any] = call.given.special.setdefault("dynptrs", [])
    if argument.uninit:
        pointer = _place_on_stack(call, value, "dynptr", 2)
        frame, slot = call.state.frames[pointer.what], pointer.off // 8
        for each in (slot, slot + 1):
            cell = frame.stack.get(each)
            if cell is not None and cell.kinds[0] in "di" and getattr(cell.value, "ref", 0) > 0:
                raise Refused("reference", "Dynptr has to be an uninitialized dynptr")
        stack.region(frame, call.number, pointer, 16, reads=False, writes=True, privileged=True)
        found.append((frame, slot))
        return
    found.append(arguments.dynptr_at(call.state, call.number, value))


def _object(call: Call, argument: Argument, value: Value) -> None:
    wanted = argument.kind == "percpu_object"
    if not _is_own(value) or not isinstance(value, Pointer) or value.null or not value.ref:
        raise Refused("type", f"arg#{call.number - 1} expected pointer to allocated object")
    if ("percpu" in value.flags) is not wanted:
        other = "bpf_obj_drop" if wanted else "bpf_percpu_obj_drop"
        raise Refused("type", f"arg#{call.number - 1} expected for {other}_impl()")


def _refcounted(call: Call, argument: Argument, value: Value) -> None:
    if not _is_own(value) or not isinstance(value, Pointer) or value.null or "percpu" in value.flags:
        raise Refused("type", f"arg#{call.number - 1} is neither owning or non-owning ref")
    if all(field.kind != "bpf_refcount" for field in value.what.fields):
        said = "doesn't point to a type with bpf_refcount field"
        raise Refused("type", f"arg#{call.number - 1} {said}")
    if value.off or value.var is not None:
        raise Undecided("bpf_refcount_acquire of what is inside of an object")
    call.given.special["object"] = value


def _is_own(value: Value) -> bool:
    return isinstance(value, Pointer) and value.kind == "btf_id" and isinstance(value.what, Own)


def _head(call: Call, argument: Argument, value: Value) -> None:
    kind = "bpf_rb_root" if argument.kind == "rb_root" else "bpf_list_head"
    number = call.number
    if not isinstance(value, Pointer) or value.null or not (value.kind == "map_value" or _is_own(value)):
        raise Refused("type", f"arg#{number - 1} expected pointer to map value or allocated object")
    if value.var is not None:
        raise Refused(
            "type", f"R{number} doesn't have constant offset. {kind} has to be at the constant offset"
        )
    _, fields = arguments.fields_of(value)
    head = next((each for each in fields if each.offset == value.off and each.kind == kind), None)
    if head is None:
        raise Refused("type", f"{kind} not found at offset={value.off}")
    lock = next((each for each in fields if each.kind in LOCKS), None)
    if lock is None or not _is_held(call.state, value):
        at = "" if lock is None else f" at off={lock.offset}"
        raise Refused(
            "lock", f"bpf_spin_lock{at} must be held for {kind}", "take the lock that stands beside it"
        )
    if head.contains is None:
        raise Refused("type", f"{kind} at offset={value.off}: what hangs in {head.name!r}, no tag says")
    call.given.special["head"] = head


def _node(call: Call, argument: Argument, value: Value) -> None:
    number, name = call.number, call.prototype.name
    kind = HEADS[call.given.special["head"].kind]
    if not _is_own(value) or not isinstance(value, Pointer) or value.null or "percpu" in value.flags:
        raise Refused("type", f"arg#{number - 1} expected pointer to allocated object")
    adds = "push" in name or "add" in name
    if adds and not value.ref:
        raise Refused("reference", "allocated object must be referenced")
    if not adds and not value.ref and "borrowed" not in value.flags:
        said = f"{name} can only take non-owning or refcounted {kind} pointer"
        raise Refused("reference", said)
    if value.var is not None:
        raise Refused("type", f"R{number} doesn't have constant offset")
    struct, offset = call.given.special["head"].contains
    if value.what.name != struct:
        said = f"operation on {kind} expects arg#{number - 1} {kind} at offset={offset} in struct {struct}"
        raise Refused("type", f"{said}, but arg is at offset={value.off} in struct {value.what.name}")
    if value.off != offset or value.what.field_at(offset, frozenset({kind})) is None:
        said = f"arg#{number - 1} offset={value.off}, but expected {kind} at offset={offset}"
        raise Refused("type", f"{said} in struct {struct}")
    call.given.special["node"] = value


def _is_held(state: State, value: Pointer) -> bool:
    if state.lock is not None and state.lock[0] == arguments.place_of(value):
        return True
    return any(name == section_of(value) for name, _ in state.sections)


def _resilient_lock(call: Call, argument: Argument, value: Value) -> None:
    kind, number = "bpf_res_spin_lock", call.number
    if not isinstance(value, Pointer) or value.null or not (value.kind == "map_value" or _is_own(value)):
        raise Refused("type", f"arg#{number - 1} doesn't point to map value or allocated object")
    if value.var is not None:
        raise Refused(
            "type", f"R{number} doesn't have constant offset. {kind} has to be at the constant offset"
        )
    name, fields = arguments.fields_of(value)
    there = [each for each in fields if each.kind == kind]
    if not there:
        raise Refused("type", f"{name} has no valid {kind}")
    if there[0].offset != value.off:
        said = f"doesn't point to 'struct {kind}' that is at {there[0].offset}"
        raise Refused("type", f"off {value.off} {said}")
    call.given.special["lock"] = value


def _flags(call: Call, argument: Argument, value: Value) -> None:
    name = call.prototype.name
    pointer = _place_on_stack(call, value, "an irq flag", 1)
    frame, slot = call.state.frames[pointer.what], pointer.off // 8
    cell = frame.stack.get(slot)
    is_there = cell is not None and cell.kinds[0] == "q"
    if "restore" not in name:
        if is_there:
            raise Refused("type", f"expected uninitialized irq flag as arg#{call.number - 1}")
        stack.region(frame, call.number, pointer, 8, reads=False, writes=True, privileged=True)
    elif not is_there:
        raise Refused("type", f"expected an initialized irq flag as arg#{call.number - 1}")
    call.given.special["flags"] = frame, slot


def _work_queue(call: Call, argument: Argument, value: Value) -> None:
    pointer, _ = arguments.special_field(call, value, frozenset({"bpf_wq"}), "bpf_wq")
    call.given.map = pointer.what
    call.given.source = pointer


def _map(call: Call, argument: Argument, value: Value) -> None:
    if isinstance(value, Pointer) and value.kind == "btf_id":
        _struct(call, Argument(argument.kind, btf="bpf_map"), value)
        return
    if not isinstance(value, Pointer) or value.kind != "map" or value.null:
        raise Refused("type", f"pointer in R{call.number} isn't map pointer")
    if call.given.map is not None and call.given.map is not value.what:
        raise Refused("type", "workqueue pointer in R1 doesn't match map pointer in R2: it is of another map")
    call.given.map = value.what


_AS_FOR_HELPERS = ("ptr_to_func", "ptr_to_const_str")

_RULES: dict[str, arguments.Rule] = {
    **{kind: arguments.RULES[kind] for kind in _AS_FOR_HELPERS},
    "ptr_to_ctx": _context,
    "ptr_to_mem": _memory,
    "const_size_or_zero": _size,
    "number": _number,
    "constant": _constant,
    "buffer": _buffer,
    "struct": _struct,
    "const_map_ptr": _map,
    "dynptr": _dynptr,
    "iter": _iterator,
    "object": _object,
    "percpu_object": _object,
    "refcounted": _refcounted,
    "list_head": _head,
    "rb_root": _head,
    "list_node": _node,
    "rb_node": _node,
    "res_lock": _resilient_lock,
    "irq": _flags,
    "wq": _work_queue,
}
"""What each kind of argument must be."""
