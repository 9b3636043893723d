"""Accesses: what a load, a store or a helper may do behind a pointer, by its kind."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ebpfjit.record import dataclass
from ebpfjit.runtime.maps.definition import MapFlag, MapType
from ebpfjit.runtime.maps.special import POINTERS, REFERENCED, SpecialField
from ebpfjit.verifier import contexts, stack
from ebpfjit.verifier.arithmetic import PACKET, named
from ebpfjit.verifier.kernel_types import KernelTypes
from ebpfjit.verifier.numbers import DOMAIN
from ebpfjit.verifier.objects import Objects, Own
from ebpfjit.verifier.refusals import DECLARE_GPL, Refused, Undecided
from ebpfjit.verifier.state import RCU, State
from ebpfjit.verifier.values import (
    Pointer,
    Poison,
    Scalar,
    Stale,
    Value,
    fresh,
    known,
    mark_precise,
    poison,
)

FARTHEST_IN_PACKET = 0xFFFF
FLOW_KEYS_SIZE = 56
"""Bytes of struct bpf_flow_keys."""

_READ_ONLY = frozenset({MapType.DEVMAP, MapType.DEVMAP_HASH})
"""Maps whose values are the kernel's own: programs only read them."""

_PIECES = {"pkt": "packet", "pkt_meta": "packet_meta", "pkt_end": "packet_end"}
_SOCKETS = {"sock": "socket", "sock_common": "sock_common"}


@dataclass(frozen=True, slots=True)
class Setting:
    """What is so for all of a program: its type and attach type, and who loads it.

    `privileged` programs may leak pointers and read what they have not written. `context_size` are the bytes
    of the context of a program without a type, None where nobody says. `is_restricted` programs have a
    licence for which Linux keeps things back.
    """

    type: str | None = None
    attach: int | None = None
    privileged: bool = True
    context_size: int | None = None
    types: KernelTypes | None = None
    objects: Objects | None = None
    is_sleepable: bool = False
    is_restricted: bool = False


def load(setting: Setting, state: State, number: int, base: Value, offset: int, size: int) -> Value:
    """Return what `size` bytes at `base` (register `number`) + offset are. Raises Refused."""
    if isinstance(base, Poison):
        return poison()
    pointer = _pointer(number, base)
    if pointer.kind == "stack":
        frame = state.frames[pointer.what]
        return stack.load(frame, number, pointer, offset, size, privileged=setting.privileged)
    rule = _RULES.get(pointer.kind)
    if rule is None:
        raise _no_memory(number, pointer)
    return rule(setting, state, number, pointer, offset, size, False)


def store(
    setting: Setting, state: State, number: int, base: Value, offset: int, size: int, value: Value
) -> None:
    """Put the low `size` bytes of a value at `base` (register `number`) + offset. Raises Refused."""
    if isinstance(base, Poison):
        return
    pointer = _pointer(number, base)
    if pointer.kind == "stack":
        frame = state.frames[pointer.what]
        stack.store(frame, number, pointer, offset, size, value, privileged=setting.privileged)
        return
    rule = _RULES.get(pointer.kind)
    if rule is None:
        raise _no_memory(number, pointer)
    if isinstance(value, Pointer) and not setting.privileged:
        raise Refused("leak", f"R{number} leaks addr into {named(pointer)}")
    rule(setting, state, number, pointer, offset, size, True)
    field = _special_at(pointer, offset, size) if pointer.kind == "map_value" else None
    if field is not None:
        _stored_kptr(setting, state, field, value)


def _pointer(number: int, base: Value) -> Pointer:
    if base is None:
        raise Refused(
            "uninitialised", f"R{number} !read_ok", "write the register on every path that leads here"
        )
    if isinstance(base, Scalar):
        raise Refused(
            "type",
            f"R{number} invalid mem access 'scalar'" + (f": {base.why}" if isinstance(base, Stale) else ""),
            "only pointers that the context, maps and helpers give are followed",
        )
    _still_there(base)
    if base.null:
        raise Refused(
            "null",
            f"R{number} invalid mem access '{named(base)}': it may be NULL",
            "compare it with NULL before",
        )
    return base


def _still_there(pointer: Pointer) -> None:
    if pointer.kind == "left":
        raise Undecided("whether a slice lies in the frame of a function that has returned", goes_on=True)


def _no_memory(number: int, pointer: Pointer) -> Refused:
    return Refused("type", f"R{number} invalid mem access '{named(pointer)}'")


# -- by kind of pointer -----------------------------------------------------------------------------------


def _context(
    setting: Setting, state: State, number: int, pointer: Pointer, offset: int, size: int, writes: bool
) -> Value:
    at = pointer.off + offset
    if setting.type is None:
        return _sized(setting, state, number, pointer, offset, size, writes)
    if pointer.var is not None:
        raise Refused(
            "memory", f"variable ctx access var_off in R{number}: the context is read at fixed offsets"
        )
    if pointer.off and setting.type != "syscall":
        raise Refused(
            "type",
            f"dereference of modified ctx ptr R{number} off={pointer.off} disallowed",
            "keep a copy of the context's pointer as it came",
        )
    said = f"invalid bpf_context access off={at} size={size}"
    if not setting.privileged and contexts.needs_bpf(setting.type, at, writes=writes):
        raise Refused("memory", said, "it needs CAP_BPF")
    if writes:
        if not contexts.context_store(setting.type, setting.attach, at, size):
            raise Refused("memory", said, f"programs of type {setting.type} must not write there, or not so")
        return None
    found = contexts.context_load(setting.type, setting.attach, at, size)
    if found is None and setting.type in ("tracing", "lsm"):
        return _types(setting).argument(at, size)
    if found is None:
        raise Refused(
            "memory", said, f"programs of type {setting.type} have no such field, or not of this size"
        )
    return _field(setting, state, found, at, size)


def _field(setting: Setting, state: State, found: str, at: int, size: int) -> Value:
    if found == "scalar":
        return Scalar(DOMAIN.sized(size))
    null = found.endswith("_or_null")
    found = found.removesuffix("_or_null")
    if found in _PIECES:
        return Pointer(_PIECES[found], id=0)
    if found in _SOCKETS:
        return Pointer(_SOCKETS[found], id=fresh(), null=null)
    if found.startswith("trusted_ptr_"):
        name = found.removeprefix("trusted_ptr_")
        return Pointer("btf_id", name, id=fresh(), null=null, flags=frozenset({"trusted"}))
    if found == "argument":
        return _types(setting).argument(at, size)
    return Pointer(found, id=fresh() if null else 0, null=null)


def _packet(
    setting: Setting, state: State, number: int, pointer: Pointer, offset: int, size: int, writes: bool
) -> Value:
    if writes and (setting.type is None or not contexts.writes_packet(setting.type)):
        raise Refused(
            "memory", "cannot write into packet", f"programs of type {setting.type} only read packets"
        )
    in_packet(number, pointer, offset, size)
    return Scalar(DOMAIN.sized(size))


def in_packet(number: int, pointer: Pointer, offset: int, size: int) -> None:
    """Raise Refused where not all of these bytes are known to lie in the packet."""
    low = pointer.off + offset
    end = "data" if pointer.kind == "packet_meta" else "data_end"
    var = pointer.var
    if var is not None and var.smin < 0:
        raise Refused(
            "memory",
            f"R{number} min value is negative: it may point up to {-var.smin} bytes before where it started",
            "mask the index, make it unsigned, or compare it with 0 first",
        )
    if low >= 0 and low + size <= pointer.range:
        return
    register = f"r{number}" + (f" + {offset}" if offset > 0 else f" - {-offset}" if offset else "")
    if low < 0:
        said = f"{register} begins {-low} bytes before the packet"
        raise Refused("memory", f"invalid access to packet, off={low} size={size}, R{number}: {said}")
    most = low + size - pointer.range
    shown = f"invalid access to packet, off={low} size={size}, R{number}(r={pointer.range})"
    raise Refused(
        "memory",
        f"{shown}: {register} may be up to {most} byte{'s' * (most != 1)} past {end}",
        f"compare `r{number} + {offset + size} > {end}` first, with this very pointer or a copy of it",
    )


def in_value(number: int, pointer: Pointer) -> None:
    """Raise Refused where a pointer does not point to a byte of a map's value that is the program's."""
    definition = pointer.what.definition
    _inside(number, pointer, 0, 1, definition.value_size, f"map {definition.name!r} value")
    special = _special_at(pointer, 0, 1)
    if special is not None:
        raise Refused("type", f"{special.kind} cannot be accessed indirectly by helper")


def _special_at(pointer: Pointer, offset: int, size: int) -> Any:
    """Return the kernel's field that an access touches, None where there is none."""
    low, high = pointer.lowest + offset, pointer.highest + offset + size
    for special in pointer.what.definition.special:
        if special.offset < high and low < special.offset + special.size:
            return special
    return None


def _map_value(
    setting: Setting, state: State, number: int, pointer: Pointer, offset: int, size: int, writes: bool
) -> Value:
    map_ = pointer.what
    definition = map_.definition
    flags = definition.flags
    is_readonly = flags & MapFlag.RDONLY_PROG or definition.is_readonly or definition.type in _READ_ONLY
    if is_readonly and writes:
        raise Refused("memory", f"write into map forbidden, value_size={definition.value_size}")
    if flags & MapFlag.WRONLY_PROG and not writes:
        raise Refused("memory", f"read from map forbidden, value_size={definition.value_size}")
    _inside(number, pointer, offset, size, definition.value_size, f"map {definition.name!r} value")
    special = _special_at(pointer, offset, size)
    if special is not None:
        return _special(setting, state, number, pointer, offset, size, special, writes)
    if not writes and pointer.var is None and definition.is_readonly and definition.type == MapType.ARRAY:
        constant = constant_at(map_, pointer.off + offset, size)
        return Scalar(DOMAIN.sized(size)) if constant is None else known(constant)
    return Scalar(DOMAIN.sized(size))


RCU_SAFE = frozenset({"task_struct", "cgroup", "bpf_cpumask", "bpf_crypto_ctx", "prog_test_ref_kfunc"})
"""Structs of the kernel's that stay while RCU is held (rcu_protected_types)."""


def holds_rcu(setting: Setting, state: State) -> bool:
    """True where RCU is held: always, in programs that do not sleep."""
    return (
        not setting.is_sleepable or state.holds_a_lock or any(name == RCU for name, _ in state.sections)
    )  # fmt: skip


def _special(
    setting: Setting,
    state: State,
    number: int,
    pointer: Pointer,
    offset: int,
    size: int,
    special: SpecialField,
    writes: bool,
) -> Value:
    """Return what a field of the kernel's gives: pointers may be loaded, all else is left alone."""
    kind = special.kind
    at = pointer.off + offset
    if kind not in POINTERS:
        raise Refused("type", f"{kind} cannot be accessed directly by load/store")
    if pointer.var is not None or at != special.offset or size != 8:
        raise Refused(
            "type", f"kptr access misaligned expected={special.offset} off={at}, or of less than 8 bytes"
        )
    if writes and kind != "kptr_untrusted":
        raise Refused("type", "store to referenced kptr disallowed", "use bpf_kptr_xchg")
    return kptr(setting, state, special)


def kptr(setting: Setting, state: State, field: SpecialField) -> Pointer:
    """Return what is loaded from a field that holds a pointer of the kernel's. Raises Undecided."""
    what = _objects(setting).pointed_to(field)
    if field.kind == "uptr":
        raise Undecided("what users map into a program's values", goes_on=True)
    is_kept = field.kind in REFERENCED and holds_rcu(setting, state)
    if isinstance(what, str):
        flags = {"rcu"} if is_kept and what in RCU_SAFE else {"untrusted"}
    else:
        flags = {"rcu", "alloc"} if is_kept else {"untrusted"}
    if field.kind == "percpu_kptr":
        flags.add("percpu")
    return Pointer("btf_id", what, id=fresh(), null=True, flags=frozenset(flags))


def _stored_kptr(setting: Setting, state: State, field: SpecialField, value: Value) -> None:
    """Hold what is stored to a field that holds a pointer of the kernel's against the field's type."""
    if isinstance(value, Poison):
        return
    if isinstance(value, Pointer):
        fits_kptr(setting, state, field, "what is stored", value)
        return
    if not isinstance(value, Scalar) or not value.number.is_known or value.number.value:
        raise Refused("type", f"invalid kptr access, a number is stored at off={field.offset}", "0 may be")
    mark_precise(value)


def fits_kptr(setting: Setting, state: State, field: SpecialField, what: str, value: Pointer) -> None:
    """Raise Refused where a pointer is none that a kptr may hold (map_kptr_match_type)."""
    wanted = kptr(setting, state, field)
    allowed = {"trusted", "rcu"}
    if isinstance(wanted.what, Own):
        allowed = {"alloc"}
    elif field.kind == "kptr_untrusted":
        allowed.add("untrusted")
    if field.kind == "percpu_kptr":
        allowed.add("percpu")
    is_it = (
        value.kind == "btf_id"
        and not value.flags - allowed
        and ("alloc" in value.flags) is isinstance(wanted.what, Own)
        and ("percpu" in value.flags) is (field.kind == "percpu_kptr")
    )
    if is_it and (value.var is not None or value.off < 0):
        raise Refused("type", f"variable ptr_{value.what} access is disallowed: {what} is not its start")
    if is_it and value.what == wanted.what and not value.off:
        return
    if is_it and field.kind == "kptr_untrusted" and isinstance(value.what, str):
        is_it = _types(setting).begins_with(value.what, value.off, str(wanted.what))
    else:
        is_it = False
    if not is_it:
        found = f"ptr_{value.what}" if value.kind == "btf_id" else named(value)
        raise Refused("type", f"invalid kptr access, {what} is {found}, expected=ptr_{wanted.what}")


def _objects(setting: Setting) -> Objects:
    if setting.objects is None:
        raise Undecided("the program's types say what its objects are, and there are none", goes_on=True)
    return setting.objects


def constant_at(map_: Any, at: int, size: int) -> int | None:
    """Return the number that bytes of a map of one entry are, None where they have no memory."""
    for region in map_.regions:
        start = map_.value_address + at - region.start
        if start >= 0 and start + size <= region.size:
            return int.from_bytes(region.view[start : start + size], "little")
    return None


def _map_key(
    setting: Setting, state: State, number: int, pointer: Pointer, offset: int, size: int, writes: bool
) -> Value:
    if writes:
        raise Refused("memory", f"write to change key R{number} not allowed")
    _inside(number, pointer, offset, size, pointer.what.definition.key_size, "map key")
    return Scalar(DOMAIN.sized(size))


def _sized(
    setting: Setting, state: State, number: int, pointer: Pointer, offset: int, size: int, writes: bool
) -> Value:
    if pointer.size < 0:
        raise Undecided("nobody says how much memory the program is given: verify(context_size=...)")
    if writes and "rdonly" in pointer.flags:
        raise Refused("memory", f"R{number} cannot write into rdonly_mem")
    if "dynptr" in pointer.flags and not stack.has_dynptr(state, pointer):
        raise Refused("memory", f"R{number} invalid mem access 'scalar': its dynptr was written over")
    if "untrusted" not in pointer.flags:  # what is read of such memory is read with care
        _inside(number, pointer, offset, size, pointer.size, "memory")
    return Scalar(DOMAIN.sized(size))


def _flow_keys(
    setting: Setting, state: State, number: int, pointer: Pointer, offset: int, size: int, writes: bool
) -> Value:
    low = pointer.off + offset
    if low < 0 or low + size > FLOW_KEYS_SIZE:
        raise Refused("memory", f"invalid access to flow keys off={low} size={size}")
    return Scalar(DOMAIN.sized(size))


def _socket(
    setting: Setting, state: State, number: int, pointer: Pointer, offset: int, size: int, writes: bool
) -> Value:
    kind = "sock" if pointer.kind == "socket" else pointer.kind
    if writes:
        raise Refused("memory", f"R{number} cannot write into {named(pointer)}")
    if pointer.var is not None and pointer.var.smin < 0:
        raise Refused("memory", f"R{number} min value is negative")
    if pointer.var is not None or not contexts.pointee_load(kind, pointer.off + offset, size):
        raise Refused(
            "memory", f"R{number} invalid {named(pointer)} access off={pointer.off + offset} size={size}"
        )
    return Scalar(DOMAIN.sized(size))


def _kernel_struct(
    setting: Setting, state: State, number: int, pointer: Pointer, offset: int, size: int, writes: bool
) -> Value:
    _readable(setting, pointer.what)
    if pointer.var is not None:
        raise Refused("memory", f"R{number} is ptr_{pointer.what} invalid variable offset")
    at = pointer.off + offset
    for whose in sorted(pointer.flags & {"user", "percpu"}):
        raise Refused("type", f"R{number} is ptr_{pointer.what} access {whose} memory: off={at}")
    if at < 0:
        raise Refused("memory", f"R{number} is ptr_{pointer.what} invalid negative access: off={at}")
    if "alloc" in pointer.flags:
        if not pointer.ref and not pointer.flags & {"rcu", "borrowed"}:
            raise Refused("type", f"R{number} points to an object of which the program holds nothing")
        return _objects(setting).access(pointer, at, size)
    if setting.is_restricted:
        said = f"Cannot access kernel 'struct {pointer.what}' from non-GPL compatible program"
        raise Refused("type", said, DECLARE_GPL)
    if writes and (setting.types is None or not setting.types.writes_to(pointer)):
        raise Refused("type", f"only read is supported: R{number} points to the kernel's memory")
    types = _types(setting)
    types.must_be_relocated(state.pc)
    if writes:
        types.store(at, size)
        return None
    return types.load(pointer, at, size, has_rcu=holds_rcu(setting, state))


def _readable(setting: Setting, name: object) -> None:
    """Raise Refused where the user must not see the kernel's memory."""
    if not setting.privileged:
        raise Refused("leak", f"'struct {name}' access is allowed only to CAP_PERFMON and CAP_SYS_ADMIN")


def _types(setting: Setting) -> KernelTypes:
    if setting.types is None:
        raise Undecided("the types of the kernel say what is there, and there are none", goes_on=True)
    return setting.types


def _arena(
    setting: Setting, state: State, number: int, pointer: Pointer, offset: int, size: int, writes: bool
) -> Value:
    return Scalar(DOMAIN.sized(size))


def _map(
    setting: Setting, state: State, number: int, pointer: Pointer, offset: int, size: int, writes: bool
) -> Value:
    if writes:
        raise Refused("type", f"only read from maps is supported: R{number}", "use the helpers of maps")
    _readable(setting, "bpf_map")
    if pointer.var is not None or pointer.off + offset < 0:
        raise Refused("memory", f"R{number} is map_ptr invalid offset")
    types = _types(setting)
    types.must_be_relocated(state.pc)
    return types.of_map(pointer.what, pointer.off + offset, size)


def _trace_buffer(
    setting: Setting, state: State, number: int, pointer: Pointer, offset: int, size: int, writes: bool
) -> Value:
    if pointer.var is not None or pointer.off + offset < 0:
        raise Refused(
            "memory", f"R{number} invalid tracepoint buffer access: off={pointer.off + offset}, size={size}"
        )
    return Scalar(DOMAIN.sized(size))


def _map_buffer(
    setting: Setting, state: State, number: int, pointer: Pointer, offset: int, size: int, writes: bool
) -> Value:
    """A key or a value that an iterator shows: how large it is, Linux asks where the program is attached."""
    kind = "rdonly_buf" if "rdonly" in pointer.flags else "rdwr"
    if writes and "rdonly" in pointer.flags:
        raise Refused("memory", f"R{number} cannot write into {kind}")
    if pointer.off + offset < 0:
        raise Refused("memory", f"R{number} invalid {kind} buffer access: off={offset}, size={size}")
    if pointer.var is not None:
        raise Refused("memory", f"R{number} invalid variable buffer offset: off={offset}")
    return Scalar(DOMAIN.sized(size))


_Rule = Callable[[Setting, State, int, Pointer, int, int, bool], Value]
_RULES: dict[str, _Rule] = {
    "ctx": _context,
    "packet": _packet,
    "packet_meta": _packet,
    "map_value": _map_value,
    "map_key": _map_key,
    "mem": _sized,
    "flow_keys": _flow_keys,
    "socket": _socket,
    "sock_common": _socket,
    "tcp_sock": _socket,
    "xdp_sock": _socket,
    "btf_id": _kernel_struct,
    "arena": _arena,
    "tp_buffer": _trace_buffer,
    "buf": _map_buffer,
    "map": _map,
}
"""What an access through a pointer of each kind is held against; it returns what a load gives."""


def _inside(number: int, pointer: Pointer, offset: int, size: int, room: int, what: str) -> None:
    """Raise Refused where not all bytes are known to lie in the first `room` of what is pointed to."""
    var, fixed = pointer.var, pointer.off + offset
    if var is None:
        if fixed < 0 or fixed + size > room:
            raise Refused(
                "memory",
                f"invalid access to {what}, value_size={room} off={fixed} size={size}: "
                + (
                    f"it begins {-fixed} bytes before"
                    if fixed < 0
                    else f"it ends {fixed + size - room} bytes behind"
                ),
            )
        return
    if var.smin + fixed < 0:
        raise Refused(
            "memory",
            f"R{number} min value is negative, {what}: "
            f"it may point {-(var.smin + fixed)} bytes before the start",
            "mask the index, make it unsigned, or compare it with 0 first",
        )
    if var.umax >= 1 << 29:
        raise Refused(
            "memory",
            f"R{number} unbounded memory access, {what}: the index has no upper bound",
            f"compare it with {max(room - size - max(fixed, 0), 0)} first, or mask it",
        )
    if var.umax + fixed + size > room:
        raise Refused(
            "memory",
            f"R{number} max value is outside of the allowed memory range, {what}, value_size={room}: "
            f"it may point {var.umax + fixed + size - room} bytes too far",
            f"let the index be at most {room - size - fixed}" if room >= size + fixed else "",
        )


# -- what helpers are given -------------------------------------------------------------------------------


def region(
    setting: Setting,
    state: State,
    number: int,
    pointer: Pointer,
    size: int,
    *,
    reads: bool,
    writes: bool,
    packet_access: bool,
) -> None:
    """Let a function of the kernel read `size` bytes from a pointer on, or write to them. Raises Refused.

    `reads`: what is on a stack must be initialised, also where it is written to.
    """
    _still_there(pointer)
    kind = pointer.kind
    if kind in PACKET:
        use = contexts.packet_use(setting.type) if setting.type else contexts.PacketUse.NEVER
        if (use is not contexts.PacketUse.ALWAYS and not packet_access) or use is contexts.PacketUse.NEVER:
            raise Refused(
                "type", "helper access to the packet is not allowed", "copy the bytes to the stack first"
            )
        if writes and (setting.type is None or not contexts.writes_packet(setting.type)):
            raise Refused("memory", "cannot write into packet")
        in_packet(number, pointer, 0, size)
    elif kind == "stack":
        frame = state.frames[pointer.what]
        stack.region(frame, number, pointer, size, reads=reads, writes=writes, privileged=setting.privileged)
    elif kind in ("map_value", "mem", "map_key", "buf") and "untrusted" not in pointer.flags:
        _RULES[kind](setting, state, number, pointer, 0, size, writes)
    elif kind == "btf_id" and pointer.flags == {"trusted"} and not writes:
        _kernel_struct(setting, state, number, pointer, 0, size, False)
    elif kind == "arena":
        return
    elif kind == "ctx" and (setting.type is None or (setting.type == "syscall" and size)):
        rule = _RULES[kind] if setting.type is None else _sized
        rule(setting, state, number, pointer, 0, size, writes)
    else:
        raise wrong_type(number, pointer, "fp, pkt, pkt_meta, map_key, map_value, mem")


def wrong_type(number: int, value: Value, expected: str) -> Refused:
    """Return the error of an argument that is not what it must be."""
    if value is None:
        return Refused("uninitialised", f"R{number} !read_ok")
    found = "scalar" if isinstance(value, Scalar) else named(value)
    kind = "null" if isinstance(value, Pointer) and value.null else "type"
    why = f": {value.why}" if isinstance(value, Stale) else ""
    return Refused(kind, f"R{number} type={found} expected={expected}{why}")
