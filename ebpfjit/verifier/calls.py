"""Calls of helpers: whether there may be one, what it gives, what it does to all that is known."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from ebpfjit.compatibility import lookup
from ebpfjit.elf.contexts import BPF_TRACE_ITER
from ebpfjit.program import Instruction
from ebpfjit.runtime.helpers import maps as map_helpers
from ebpfjit.runtime.helpers.table import helpers
from ebpfjit.runtime.maps.definition import MapFlag, MapType
from ebpfjit.verifier import (
    arguments,
    arithmetic,
    branches,
    formats,
    memory,
    operations,
    stack,
    unprivileged,
)
from ebpfjit.verifier.arguments import Dynptr, Given
from ebpfjit.verifier.numbers import DOMAIN
from ebpfjit.verifier.objects import Own
from ebpfjit.verifier.prototypes import Prototype, prototype
from ebpfjit.verifier.refusals import DECLARE_GPL, Refused
from ebpfjit.verifier.state import Reference, State
from ebpfjit.verifier.values import Cell, Pointer, Poison, Scalar, Stale, Value, fresh, poison, unknown

if TYPE_CHECKING:
    from ebpfjit.verifier.memory import Setting
    from ebpfjit.verifier.walk import Walk

MOST_ERRORS = 4095
"""Results of helpers are no lower than minus that."""


_PERCPU = frozenset({"alloc", "percpu"})
_WRITERS = frozenset({"bpf_map_update_elem", "bpf_map_delete_elem", "bpf_map_push_elem", "bpf_map_pop_elem"})
_MEMORY = frozenset({"ptr_to_mem", "ptr_to_map_key", "ptr_to_map_value", "ptr_to_dynptr"})
_OF_SOCKETS = frozenset({MapType.SOCKMAP, MapType.SOCKHASH})
_UPDATE_SOCKETS = frozenset({"bpf_map_update_elem", "bpf_map_delete_elem"})
_SOCKETS_UNLOCKED = frozenset({
    "socket_filter", "tc", "sched_act", "xdp", "sk_reuseport", "flow_dissector", "sk_lookup",
})  # fmt: skip
"""Programs that hold no socket's lock, and may so change maps of sockets (may_update_sockmap)."""

_CONST_KEYED = frozenset({MapType.ARRAY, MapType.PERCPU_ARRAY})


def call(walk: Walk, state: State, insn: Instruction) -> None:
    """Call a helper: r0 and memory are what it makes of them; r1 to r5 are void. Raises Refused."""
    takes = _prototype(walk, insn)
    name = takes.name
    if state.holds_a_lock and not _is_allowed_under_lock(state, name, insn.imm):
        raise Refused(
            "lock", f"function calls are not allowed while holding a lock: {name}", "give the lock back first"
        )
    if takes.might_sleep and not walk.is_sleepable:
        raise Refused("call", f"helper call {name} might sleep, and the program must not")
    if takes.might_sleep and state.sections:
        raise Refused("lock", f"sleepable helper {name} in {state.region} region")
    given = arguments.check(walk.setting, state, takes)
    _right_map(walk.setting, name, given)
    if name in _ALSO:
        _ALSO[name](given)
    if name == "bpf_tail_call":
        if not walk.setting.privileged:
            walk.moves.array(insn.pc, given.map)
        held_at(state, "tail_call would lead to reference leak", "tail_call")
        if len(state.frames) > 1:
            walk.leave(state, insn, unknown(), "the program that bpf_tail_call calls")
    if given.released:
        release(walk, state, given.released, name)
    for do in given.after:
        do()
    for argument, value in zip(takes.arguments, given.values, strict=False):
        if argument.kind in _MEMORY:
            walk.deepened(state, value)
    _dynptr_made(walk, state, takes, given)
    if takes.moves_packet or _writes_packet(takes, given):
        packet_moved(state, name, privileged=walk.setting.privileged)
    if given.function is not None:
        walk.callback(state, insn, name, given)
    registers = state.registers
    result = _result(walk, state, takes, given, insn)
    for number in range(1, 6):
        registers[number] = None
    registers[0] = result


def _writes_packet(takes: Prototype, given: Given) -> bool:
    """True where bpf_dynptr_write may move the packet."""
    return takes.name == "bpf_dynptr_write" and getattr(given.dynptr, "kind", "").startswith("skb")


def _prototype(walk: Walk, insn: Instruction) -> Prototype:
    program_type = walk.setting.type
    takes = prototype(insn.imm, program_type)
    if takes is None:
        raise Refused("call", f"invalid func unknown#{insn.imm}", "the number of no helper")
    there = helpers().get(insn.imm)
    types = frozenset() if there is None else there.program_types
    if types and program_type is not None and program_type not in types:
        raise Refused(
            "call",
            f"program of this type cannot use helper {takes.name}#{insn.imm}",
            f"it is for programs of type {', '.join(sorted(types))}",
        )
    if program_type is not None:
        answer = lookup.helper(takes.name, walk.caller)
        if answer.is_known and answer.since is None and not takes.might_sleep:
            said = f"program of this type cannot use helper {takes.name}#{insn.imm}"
            raise Refused("call", said, answer.reason)
    if not operations.has_helper(walk.program, takes.name):
        raise Refused("call", f"program of this type cannot use helper {takes.name}#{insn.imm}")
    if not walk.setting.privileged:
        unprivileged.must_be_given(walk.setting, takes.name, insn.imm)
    if takes.gpl and walk.setting.is_restricted:
        raise Refused(
            "call",
            f"cannot call GPL-restricted function from non-GPL compatible program: {takes.name}",
            DECLARE_GPL,
        )
    return takes


def _is_allowed_under_lock(state: State, name: str, number: int) -> bool:
    if name == "bpf_spin_lock" and state.lock is None:  # of two of these is told elsewhere
        return False
    found = helpers().get(number)
    return name == "bpf_spin_unlock" or (found is not None and found.under_lock)


def _right_map(setting: Setting, name: str, given: Given) -> None:
    """Raise Refused where a helper does not take maps of this type."""
    allowed = map_helpers.TAKES.get(name)
    if given.map is None:
        return
    type_ = given.map.definition.type
    if type_ in _OF_SOCKETS and name in _UPDATE_SOCKETS:
        if not _may_update_sockets(setting, name):
            raise Refused("call", f"cannot update sockmap in this context: {name}")
        return
    if allowed is not None and type_ not in allowed:
        raise Refused("type", f"cannot pass map_type {type_} into func {name}: {given.map.definition}")
    definition = given.map.definition
    if name in _WRITERS and (definition.is_readonly or definition.flags & MapFlag.RDONLY_PROG):
        raise Refused("memory", f"write into map forbidden: {definition.name!r} is for reading only")


def _may_update_sockets(setting: Setting, name: str) -> bool:
    if setting.type == "tracing":
        return setting.attach == BPF_TRACE_ITER
    if setting.type == "sock_ops":
        return name == "bpf_map_delete_elem"
    return setting.type is None or setting.type in _SOCKETS_UNLOCKED


def _of_a_map(given: Given) -> None:
    """Raise Refused where a dynptr is made of what is no map's value."""
    data = given.values[0]
    if isinstance(data, Poison) or (isinstance(data, Pointer) and data.kind == "map_value"):
        return
    kind = arithmetic.named(data) if isinstance(data, Pointer) else "scalar"
    raise Refused(
        "type", f"Unsupported reg type {kind} for bpf_dynptr_from_mem data", "give it a map's value"
    )


def _right_format(given: Given) -> None:
    """Raise Refused where Linux does not take a format, or there are fewer arguments than it has."""
    count = formats.arguments_of(given.text)
    size = given.values[4]
    if count is None or (isinstance(size, Scalar) and count > size.number.value // 8):
        has = "what Linux has no conversion for" if count is None else f"{8 * count} bytes of data to print"
        raise Refused("type", f"Invalid format string: {given.text.decode('latin-1')!r}", f"it has {has}")


def _no_flags(given: Given) -> None:
    """Raise Refused where the storage of a cgroup is asked for with flags."""
    flags = given.values[1]
    if not isinstance(flags, Poison) and not (
        isinstance(flags, Scalar) and flags.number.is_known and not flags.number.value
    ):
        raise Refused("call", "get_local_storage() doesn't support non-zero flags")


_ALSO: dict[str, Callable[[Given], None]] = {
    "bpf_snprintf": _right_format,
    "bpf_dynptr_from_mem": _of_a_map,
    "bpf_get_local_storage": _no_flags,
}
"""What else is asked of arguments of some helpers."""


def held_at(state: State, said: str, where: str) -> None:
    """Raise Refused where a reference, a lock or a stretch of code is held."""
    if state.references:
        first = state.references[0]
        raise Refused("reference", f"{said}: {first.by} at pc {first.pc} acquired it")
    if state.lock is not None:
        raise Refused("lock", f"{where} cannot be used inside bpf_spin_lock-ed region")
    if state.sections:
        raise Refused("lock", f"{where} cannot be used inside {state.region}-ed region")


def packet_moved(state: State, name: str, *, privileged: bool) -> None:
    """Forget all pointers into the packet, and slices of it."""
    void = Stale(f"pointers into the packet are void after {name}: load them again") if privileged else None

    def change(value: Value) -> Value:
        if isinstance(value, Pointer) and (
            value.kind in ("packet", "packet_meta", "packet_end") or "packet" in value.flags
        ):
            return void
        return value

    branches.replaced(state, change)


def release(walk: Walk, state: State, reference: int, name: str) -> None:
    """Give a reference back: what holds it is void."""
    if all(each.id != reference for each in state.references):
        raise Refused("reference", f"reference {reference} has been released before")
    state.references = tuple(each for each in state.references if each.id != reference)
    why = f"{name} gave it back: nothing is to be done with it any more"
    void = Stale(why) if walk.setting.privileged else None
    has_rcu = memory.holds_rcu(walk.setting, state)

    def change(value: Value) -> Value:
        if isinstance(value, Pointer) and value.ref == reference:
            # Memory of each processor that a map takes stays while RCU is held.
            stays = name == "bpf_kptr_xchg" and value.flags >= _PERCPU and has_rcu
            return value.but(ref=0, flags=value.flags | {"rcu"}) if stays else void
        return value

    branches.replaced(state, change)
    for frame in state.frames:
        for slot, cell in list(frame.stack.items()):
            if cell.kinds[0] == "d" and cell.value.ref == reference:
                frame.stack[slot] = Cell("m" * 8)


def acquire(state: State, insn: Instruction, name: str) -> int:
    """Return the number of a reference that the program has from here on."""
    made = fresh()
    state.references = (*state.references, Reference(made, insn.pc, name))
    return made


def _dynptr_made(walk: Walk, state: State, takes: Prototype, given: Given) -> None:
    made = given.dynptr
    if not isinstance(made, tuple):
        return
    frame, slot, kind = made
    reference = 0
    if kind == "ringbuf":
        reference = fresh()
        state.references = (*state.references, Reference(reference, state.pc, takes.name))
    found = Dynptr(kind or "local", slot, reference, fresh())
    frame.stack[slot] = Cell("d" * 8, found)
    frame.stack[slot + 1] = Cell("d" * 8, found)


# -- results ----------------------------------------------------------------------------------------------


def _result(walk: Walk, state: State, takes: Prototype, given: Given, insn: Instruction) -> Value:
    null = takes.returns_null
    reference = 0
    acquires = takes.acquires or _gives_a_socket(takes, given)
    if acquires or (takes.casts and given.source is not None and given.source.ref):
        reference = acquire(state, insn, takes.name) if acquires else given.source.ref  # type: ignore[union-attr]
    if takes.returns == "ptr_to_dynptr_mem":  # gone when the dynptr is given back
        reference = getattr(given.dynptr, "ref", 0)
    made = _MADE[takes.returns](walk, takes, given)
    if not isinstance(made, Pointer):
        return made
    # What casts is NULL or not by itself: its id is not that of the reference, which stays.
    id = reference if acquires else fresh()
    return made.but(null=null and not _is_surely_there(takes, given), id=id, ref=reference)


def _is_surely_there(takes: Prototype, given: Given) -> bool:
    """True where a lookup cannot miss: an array has the element (Linux 6.15)."""
    if takes.name not in ("bpf_map_lookup_elem", "bpf_map_lookup_percpu_elem") or given.key is None:
        return False
    definition = given.map.definition
    if takes.name == "bpf_map_lookup_percpu_elem" or definition.type not in _CONST_KEYED:
        return False
    if definition.flags & MapFlag.INNER_MAP:  # the map that is there may have fewer
        return False
    return bool(definition.key_size == 4 and given.key < definition.max_entries)


def _integer(walk: Walk, takes: Prototype, given: Given) -> Value:
    if takes.result_range is not None:
        low, high = takes.result_range
        if takes.name == "bpf_get_smp_processor_id" and walk.setting.types is not None:
            high = walk.setting.types.most_processors(high + 1) - 1
        return Scalar(DOMAIN.some(smin=low, smax=high))
    if takes.at_most is not None and takes.at_most in given.most:
        most = given.most[takes.at_most]
        return Scalar(DOMAIN.some(smin=-MOST_ERRORS, smax=most, smin32=-MOST_ERRORS, smax32=most))
    return unknown()


def _map_value(walk: Walk, takes: Prototype, given: Given) -> Value:
    definition = given.map.definition
    if definition.type in (MapType.ARRAY_OF_MAPS, MapType.HASH_OF_MAPS) and definition.inner is not None:
        return Pointer("map", InnerMap(definition.inner, given.map))
    if definition.type == MapType.XSKMAP and takes.name == "bpf_map_lookup_elem":
        return Pointer("xdp_sock")
    if _gives_a_socket(takes, given):
        return Pointer("socket")
    return Pointer("map_value", given.map)


def _gives_a_socket(takes: Prototype, given: Given) -> bool:
    return takes.name == "bpf_map_lookup_elem" and given.map.definition.type in (
        MapType.SOCKMAP,
        MapType.SOCKHASH,
    )


class InnerMap:
    """A map inside of another: as its template says; which one it is only a run can tell."""

    regions: tuple[Any, ...] = ()

    def __init__(self, definition: Any, outer: Any) -> None:
        self.definition = definition
        self.outer = outer

    def __eq__(self, other: object) -> bool:
        return isinstance(other, InnerMap) and self.outer is other.outer

    def __hash__(self) -> int:
        return id(self.outer)


def _struct(walk: Walk, takes: Prototype, given: Given) -> Value:
    field = given.special.get("kptr")
    if field is not None:
        what = walk.objects.pointed_to(field)
        said = {"alloc"} if isinstance(what, Own) else set()
        return Pointer(
            "btf_id", what, flags=frozenset(said | ({"percpu"} if field.kind == "percpu_kptr" else set()))
        )
    return Pointer("btf_id", takes.returns_btf, flags=frozenset({"trusted"} if takes.returns_trusted else ()))


def _of_processor(walk: Walk, takes: Prototype, given: Given) -> Value:
    there = given.values[0]
    if not isinstance(there, Pointer):
        return poison()  # the argument is wrong, which was said
    return Pointer("btf_id", there.what, flags=there.flags - {"percpu"})


def _sized(flag: str) -> Callable[[Walk, Prototype, Given], Value]:
    def make(walk: Walk, takes: Prototype, given: Given) -> Value:
        size = given.constant or 0
        flags = {flag}
        if flag == "dynptr" and given.dynptr is not None:
            flags |= {stack.slice_of(given.dynptr), *(("rdonly",) if given.dynptr.rdonly else ())}
        return Pointer("mem", takes.name, size=size, flags=frozenset(flags))

    return make


_MADE: dict[str, Callable[[Any, Prototype, Given], Value]] = {
    "integer": _integer,
    "void": lambda walk, takes, given: None,
    "ptr_to_map_value": _map_value,
    "ptr_to_socket": lambda walk, takes, given: Pointer("socket"),
    "ptr_to_sock_common": lambda walk, takes, given: Pointer("sock_common"),
    "ptr_to_tcp_sock": lambda walk, takes, given: Pointer("tcp_sock"),
    "ptr_to_ringbuf_mem": _sized("ringbuf"),
    "ptr_to_dynptr_mem": _sized("dynptr"),
    "ptr_to_mem_or_btf_id": _of_processor,
    "ptr_to_btf_id": _struct,
}
"""What a helper gives, by what its prototype says."""
