"""What a helper is given, held against its prototype: a rule for each kind of argument."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Protocol

from ebpfjit.runtime.maps.definition import MapType
from ebpfjit.runtime.maps.special import REFERENCED, SpecialField
from ebpfjit.verifier import branches, memory, stack
from ebpfjit.verifier.arithmetic import FARTHEST
from ebpfjit.verifier.objects import Own
from ebpfjit.verifier.prototypes import Argument
from ebpfjit.verifier.refusals import Refused, Undecided
from ebpfjit.verifier.state import RESILIENT, State
from ebpfjit.verifier.values import Pointer, Poison, Scalar, Value, mark_precise

if TYPE_CHECKING:
    from ebpfjit.verifier.memory import Setting

_FOLLOWED = frozenset({"trusted", "rcu"})
"""What may be said of pointers to structs of the kernel's that helpers follow."""

_READ_ONLY = frozenset({"mem", "buf"})
"""Memory that may be for reading only, and goes only where that is asked for (MEM_RDONLY)."""

SOCKET_KINDS = frozenset({"socket", "sock_common", "tcp_sock", "xdp_sock"})


class Takes(Protocol):
    """What a helper, or a kernel function, takes."""

    @property
    def name(self) -> str:
        """Its name: "bpf_loop"."""

    @property
    def arguments(self) -> tuple[Argument, ...]:
        """Its arguments."""

    @property
    def packet_access(self) -> bool:
        """True where memory may lie in the packet."""

    @property
    def reads_what_it_writes(self) -> bool:
        """True where memory that is written to must be readable, too."""


class _Special(dict[str, Any]):
    def __missing__(self, key: str) -> Any:
        raise Undecided(f"a {key} that an instruction gave which was refused", goes_on=True)


class Given:
    """What a call was given, as far as its result and what it does depend on that.

    `map` is the map, `constant` the size of what is allocated, `key` the number that a map's key is known to
    be, `most` the largest size that an argument tells, by its place; `released` the reference that is given
    back, `source` the first pointer that has one. `function` is the slot of a callback, `dynptr` the dynptr
    that is read, `text` a constant string. `special` is what a kernel function's own arguments are, by kind.
    """

    __slots__ = (
        "after",
        "constant",
        "dynptr",
        "function",
        "key",
        "map",
        "most",
        "released",
        "source",
        "special",
        "text",
        "values",
    )

    def __init__(self, values: list[Value]) -> None:
        self.values = values
        self.map: Any = None
        self.constant: int | None = None
        self.key: int | None = None
        self.most: dict[int, int] = {}
        self.released = 0
        self.source: Pointer | None = None
        self.function: int | None = None
        self.dynptr: Any = None
        self.text = b""
        self.special: dict[str, Any] = _Special()
        self.after: list[Callable[[], None]] = []
        """What the call does to memory, done when all arguments were found right."""


def check(
    setting: Setting,
    state: State,
    prototype: Takes,
    rules: Mapping[str, Rule] | None = None,
) -> Given:
    """Hold r1 to r5 against what a helper takes, by rules for each kind. Raises Refused, Undecided."""
    rules = RULES if rules is None else rules
    given = Given(state.registers[1 : 1 + len(prototype.arguments)])
    for place, argument in enumerate(prototype.arguments):
        value = given.values[place]
        number = place + 1
        if isinstance(value, Poison) or argument.kind == "ignored":
            continue
        if value is None:
            raise memory.wrong_type(number, None, "")
        if isinstance(value, Pointer) and not setting.privileged and argument.kind == "anything":
            raise Refused("leak", f"R{number} leaks addr into helper function")
        if argument.maybe_null and isinstance(value, Scalar) and _is_zero(value):
            mark_precise(value)
            continue
        rule = rules.get(argument.kind)
        if rule is None:
            raise Refused("call", f"{prototype.name}: argument {number} of a kind that is not known here")
        if argument.release:
            _released(given, number, value)
        rule(Call(setting, state, prototype, given, place), argument, value)
        if isinstance(value, Pointer) and value.ref and given.source is None:
            given.source = value
    return given


class Call:
    """One argument of one call."""

    __slots__ = ("given", "place", "prototype", "setting", "state")

    def __init__(self, setting: Setting, state: State, prototype: Takes, given: Given, place: int) -> None:
        self.setting = setting
        self.state = state
        self.prototype = prototype
        self.given = given
        self.place = place

    @property
    def number(self) -> int:
        """The register."""
        return self.place + 1

    def region(self, argument: Argument, pointer: Value, size: int, *, is_fixed: bool = True) -> None:
        """Let the helper read or write so many bytes from a pointer on."""
        if isinstance(pointer, Poison):
            return
        if not isinstance(pointer, Pointer):
            raise memory.wrong_type(self.number, pointer, "fp, pkt, pkt_meta, map_key, map_value, mem")
        if pointer.null and not argument.maybe_null:
            raise memory.wrong_type(self.number, pointer, "fp, pkt, pkt_meta, map_key, map_value, mem")
        writes = argument.write or argument.uninit
        is_readonly = pointer.kind in _READ_ONLY and "rdonly" in pointer.flags
        if is_readonly and not argument.rdonly and not self.prototype.reads_what_it_writes:
            raise memory.wrong_type(self.number, pointer, "memory that is not for reading only")
        for is_written in (False, True) if writes and self.prototype.reads_what_it_writes else (writes,):
            memory.region(
                self.setting, self.state, self.number, pointer, size,
                reads=not (argument.uninit and is_fixed), writes=is_written,
                packet_access=self.prototype.packet_access,
            )  # fmt: skip


Rule = Callable[[Call, Argument, Value], None]


def _is_zero(value: Scalar) -> bool:
    return value.number.is_known and not value.number.value


def _released(given: Given, number: int, value: Value) -> None:
    if not isinstance(value, Pointer):
        return  # its rule says more
    if value.kind == "stack":
        return  # a dynptr
    if not value.ref:
        raise Refused("reference", f"R{number} must be referenced when passed to release function")
    if value.off or value.var is not None:
        raise Refused(
            "type", f"R{number} must have zero offset when passed to release func: it has {value.off}"
        )
    given.released = value.ref


def _anything(call: Call, argument: Argument, value: Value) -> None:
    """Whatever there is."""


def _map(call: Call, argument: Argument, value: Value) -> None:
    if not isinstance(value, Pointer) or value.kind != "map" or value.null:
        raise memory.wrong_type(call.number, value, "map_ptr")
    timed = call.given.source
    if call.prototype.name == "bpf_timer_init" and timed is not None and timed.what is not value.what:
        raise Refused("type", "timer pointer in R1 doesn't match map pointer in R2: it is of another map")
    call.given.map = value.what


def _key(call: Call, argument: Argument, value: Value) -> None:
    map_ = call.given.map
    if map_ is None:
        raise Undecided("which map it is, nobody knows", goes_on=True)
    size = map_.definition.key_size
    call.region(argument, value, size)
    is_known = call.setting.privileged and isinstance(value, Pointer) and value.kind == "stack"
    if is_known and isinstance(value, Pointer) and 0 < size <= 8:
        call.given.key = stack.known_number(call.state.frames[value.what], value, size)


def _value(call: Call, argument: Argument, value: Value) -> None:
    if call.given.map is None:
        raise Undecided("which map it is, nobody knows", goes_on=True)
    if call.given.map.definition.type in (MapType.SOCKMAP, MapType.SOCKHASH):
        _socket(call, _SOCKET_VALUE, value)
        return
    if call.given.map.definition.type == MapType.BLOOM_FILTER:  # it tells whether the value is in it
        argument = replace(argument, uninit=False, write=False)
    call.region(argument, value, call.given.map.definition.value_size)


def _memory(call: Call, argument: Argument, value: Value) -> None:
    if isinstance(value, Scalar):
        raise memory.wrong_type(call.number, value, "fp, pkt, pkt_meta, map_key, map_value, mem")
    if argument.size:
        call.region(argument, value, argument.size)
        if argument.aligned and isinstance(value, Pointer) and (value.off % argument.size):
            raise Refused("memory", f"R{call.number} misaligned access off {value.off} size {argument.size}")
    # else the next argument says how much


def _size(call: Call, argument: Argument, value: Value) -> None:
    if not isinstance(value, Scalar):
        raise memory.wrong_type(call.number, value, "scalar")
    number = value.number
    if number.smin < 0:
        raise Refused(
            "memory",
            f"R{call.number} min value is negative, either use unsigned or 'var &= const'",
            "mask the size, or compare it with 0 first",
        )
    if number.umin == 0 and argument.kind == "const_size":
        raise Refused(
            "memory",
            f"R{call.number} invalid zero-sized read: u64=[{number.umin},{number.umax}]",
            "see that the size is at least 1",
        )
    if number.umax >= FARTHEST:
        raise Refused(
            "memory",
            f"R{call.number} unbounded memory access, use 'var &= const' or 'if (var < const)'",
            "bound the size by what there is room for",
        )
    mark_precise(value)
    call.given.most[call.place] = number.umax
    pointer = call.given.values[call.place - 1]
    before = call.prototype.arguments[call.place - 1]
    if before.maybe_null and isinstance(pointer, Scalar) and _is_zero(pointer):
        if number.umax:
            raise (
                Refused(
                    "null",
                    f"R{call.number - 1} type=scalar expected=fp, pkt, pkt_meta, map_key, map_value: "
                    f"there are {number.umax} bytes to read, and it is NULL",
                )
                if not argument.kind.endswith("zero") or number.umin
                else Refused("null", f"R{call.number - 1} is NULL where the size may be {number.umax}")
            )
        return
    shifted = Call(call.setting, call.state, call.prototype, call.given, call.place - 1)
    shifted.region(before, pointer, number.umax, is_fixed=number.is_known)


def _alloc(call: Call, argument: Argument, value: Value) -> None:
    if not isinstance(value, Scalar) or not value.number.is_known:
        found = "a pointer" if isinstance(value, Pointer) else "it varies"
        raise Refused("type", f"R{call.number} is not a known constant: {found}")
    mark_precise(value)
    call.given.constant = value.number.value


def _context(call: Call, argument: Argument, value: Value) -> None:
    if not isinstance(value, Pointer) or value.kind != "ctx" or value.null:
        raise memory.wrong_type(call.number, value, "ctx")
    if value.off or value.var is not None:
        raise Refused("type", f"dereference of modified ctx ptr R{call.number} off={value.off} disallowed")


def _stack(call: Call, argument: Argument, value: Value) -> None:
    if not isinstance(value, Pointer) or value.kind != "stack":
        raise memory.wrong_type(call.number, value, "fp")


def _function(call: Call, argument: Argument, value: Value) -> None:
    if not isinstance(value, Pointer) or value.kind != "func":
        raise memory.wrong_type(call.number, value, "func")
    call.given.function = value.what


def fields_of(value: Pointer) -> tuple[str, tuple[SpecialField, ...]]:
    """Return what a pointer's map, or struct, is called, and its special fields."""
    if isinstance(value.what, Own):
        return f"struct {value.what.name}", value.what.fields
    return f"map '{value.what.definition.name}'", value.what.definition.special


def place_of(value: Pointer) -> tuple[Any, int]:
    """Return what tells the map's value, or the object, that a pointer points into from all others."""
    if isinstance(value.what, Own):
        return value.what, value.ref or value.id
    return id(value.what), value.id


def special_field(call: Call, value: Value, kinds: frozenset[str], said: str) -> tuple[Pointer, Any]:
    """Return a pointer to a field of the kernel's, in a map's value or an object, and the field."""
    is_there = isinstance(value, Pointer) and (value.kind == "map_value" or isinstance(value.what, Own))
    if not isinstance(value, Pointer) or not is_there or value.null:
        raise memory.wrong_type(call.number, value, "map_value")
    if value.var is not None:
        raise Refused(
            "type", f"R{call.number} doesn't have constant offset. {said} has to be at the constant offset"
        )
    name, there = fields_of(value)
    for special in there:
        if special.offset == value.off and special.kind in kinds:
            return value, special
    fields = [special for special in there if special.kind in kinds]
    if not fields:
        raise Refused("type", f"{name} has no valid {said}")
    raise Refused("type", f"off {value.off} doesn't point to 'struct {said}' that is at {fields[0].offset}")


def is_comparing(state: State) -> bool:
    """True in the function by which bpf_rbtree_add compares."""
    callbacks = (frame.callback for frame in state.frames)
    return any(callback is not None and callback.helper == "bpf_rbtree_add" for callback in callbacks)


def _lock(call: Call, argument: Argument, value: Value) -> None:
    pointer, _ = special_field(call, value, frozenset({"bpf_spin_lock"}), "bpf_spin_lock")
    key = place_of(pointer)
    state = call.state
    takes = call.prototype.name == "bpf_spin_lock"
    if takes and state.lock is not None:
        raise Refused("lock", "Locking two bpf_spin_locks are not allowed")
    if not takes and state.lock is None:
        raise Refused("lock", "bpf_spin_unlock without taking a lock")
    if not takes and state.lock is not None and state.lock[0] != key:
        raise Refused("lock", "bpf_spin_unlock of different lock")
    if not takes and any(name.startswith(RESILIENT) for name, _ in state.sections):
        raise Refused("lock", "bpf_spin_unlock cannot be out of order")
    if is_comparing(state):
        raise Refused("lock", "can't spin_{lock,unlock} in rbtree cb")
    here = state.pc

    def change() -> None:
        state.lock = (key, here) if takes else None
        if not takes:
            branches.forget_borrowed(state)

    call.given.after.append(change)


def _timer(call: Call, argument: Argument, value: Value) -> None:
    pointer, _ = special_field(call, value, frozenset({"bpf_timer"}), "bpf_timer")
    call.given.map = pointer.what if call.given.map is None else call.given.map
    call.given.source = pointer


def _kptr(call: Call, argument: Argument, value: Value) -> None:
    _, call.given.special["kptr"] = special_field(call, value, REFERENCED, "kptr")


def _owned(call: Call, value: Pointer) -> None:
    """Hold a pointer against the place that bpf_kptr_xchg puts it into."""
    if not value.ref:
        raise Refused("reference", f"R{call.number} must be referenced when passed to release function")
    memory.fits_kptr(call.setting, call.state, call.given.special["kptr"], f"R{call.number}", value)


def _socket(call: Call, argument: Argument, value: Value) -> None:
    kinds = {"ptr_to_socket": frozenset({"socket"})}.get(argument.kind, SOCKET_KINDS)
    is_sock = isinstance(value, Pointer) and value.kind in kinds and (argument.maybe_null or not value.null)
    is_kernel_s = (
        argument.kind == "ptr_to_btf_id_sock_common" and isinstance(value, Pointer)
        and value.kind == "btf_id" and (argument.maybe_null or not value.null)
        and value.flags <= {"trusted"}
    )  # fmt: skip
    if not (is_sock or is_kernel_s):
        expected = {"ptr_to_socket": "sock", "ptr_to_sock_common": "sock_common, sock, tcp_sock, xdp_sock"}
        raise memory.wrong_type(call.number, value, expected.get(argument.kind, "sock_common, sock, ptr_"))


def _kernel_struct(call: Call, argument: Argument, value: Value) -> None:
    if (
        not isinstance(value, Pointer)
        or value.kind not in {"btf_id", *SOCKET_KINDS}
        or (value.null and (argument.release or not argument.maybe_null))
    ):
        raise memory.wrong_type(call.number, value, f"ptr_{argument.btf}")
    if value.kind != "btf_id":
        return
    if not argument.btf:
        _owned(call, value)
        return
    if value.flags - _FOLLOWED:
        raise memory.wrong_type(call.number, value, f"ptr_{argument.btf}, trusted_ptr_, rcu_ptr_")
    types = call.setting.types
    if value.what == argument.btf and not value.off and value.var is None:
        return
    if types is None or value.var is not None or isinstance(value.what, Own):
        raise Undecided("the types of the kernel say whether a struct begins with another", goes_on=True)
    if not types.begins_with(value.what, value.off, argument.btf):
        raise Refused("type", f"R{call.number} is of type {value.what} but {argument.btf} is expected")


def _text(call: Call, argument: Argument, value: Value) -> None:
    if not isinstance(value, Pointer) or value.kind != "map_value" or value.null:
        raise memory.wrong_type(call.number, value, "map_value")
    map_ = value.what
    if not map_.definition.is_readonly:
        raise Refused("type", f"R{call.number} does not point to a readonly map'")
    if value.var is not None:
        raise Refused("type", f"R{call.number} is not a constant address'")
    text = bytearray()
    for at in range(value.off, map_.definition.value_size):
        byte = memory.constant_at(map_, at, 1)
        if byte == 0:
            call.given.text = bytes(text)
            return
        text.append(byte or 0)
    raise Refused("type", "string is not zero-terminated")


def _record(call: Call, argument: Argument, value: Value) -> None:
    if not isinstance(value, Pointer) or value.kind != "mem" or "ringbuf" not in value.flags or value.null:
        raise memory.wrong_type(call.number, value, "ringbuf_mem")


class Dynptr:
    """A dynptr: of which kind, its reference (0: none), the slot of its frame where it starts (0: it is in
    none, a function is given it), a number of its own.
    """

    __slots__ = ("id", "kind", "rdonly", "ref", "slot", "words")

    def __init__(self, kind: str, slot: int, ref: int, id: int, *, rdonly: bool = False) -> None:
        self.kind = kind
        self.slot = slot
        self.ref = ref
        self.id = id
        self.words = 2
        self.rdonly = rdonly


def dynptr_at(state: State, number: int, value: Value) -> Dynptr:
    """Return the dynptr that an argument points to. Raises Refused."""
    if isinstance(value, Pointer) and value.kind == "dynptr":
        if value.off or value.var is not None:
            raise Refused(
                "type", f"dereference of modified dynptr_ptr ptr R{number} off={value.off} disallowed"
            )
        found: Dynptr = value.what
        return found
    pointer = _on_stack(number, value)
    cell = state.frames[pointer.what].stack.get(pointer.off // 8)
    if cell is None or cell.kinds[0] != "d" or cell.value.slot != pointer.off // 8:
        raise Refused("type", f"Expected an initialized dynptr as arg #{number - 1}")
    cell.mark_read()
    found = cell.value
    assert isinstance(found, Dynptr)
    return found


def _on_stack(number: int, value: Value) -> Pointer:
    if not isinstance(value, Pointer) or value.kind != "stack" or value.null:
        raise Refused("type", f"arg#{number - 1} expected pointer to stack or const struct bpf_dynptr")
    if value.var is not None or value.off % 8:
        raise Refused("type", f"dynptr has to be at a constant offset, a multiple of 8: it is at {value.off}")
    return value


def _dynptr(call: Call, argument: Argument, value: Value) -> None:
    state, number = call.state, call.number
    if argument.uninit:
        pointer = _on_stack(number, value)
        frame, slot = state.frames[pointer.what], pointer.off // 8
        if not -stack.SIZE <= pointer.off <= -16:
            raise Refused("memory", f"cannot pass in dynptr at an offset={pointer.off}")
        for each in (slot, slot + 1):
            cell = frame.stack.get(each)
            if cell is not None and cell.kinds[0] in "di" and getattr(cell.value, "ref", 0) > 0:
                raise Refused("reference", "Dynptr has to be an uninitialized dynptr")
        call.given.dynptr = frame, slot, argument.dynptr
        return
    found = dynptr_at(state, number, value)
    if argument.dynptr and found.kind != argument.dynptr:
        raise Refused("type", f"Expected a dynptr of type {argument.dynptr} as arg #{number - 1}")
    if argument.release:
        if not found.ref:
            raise Refused("reference", f"arg {number} is an unacquired reference")
        call.given.released = found.ref
    call.given.dynptr = found


def _percpu(call: Call, argument: Argument, value: Value) -> None:
    is_percpu = isinstance(value, Pointer) and value.kind == "btf_id" and "percpu" in value.flags
    if not isinstance(value, Pointer) or not is_percpu or value.null:
        raise memory.wrong_type(call.number, value, "percpu_ptr_")
    if {"alloc", "rcu"} & value.flags == {"alloc"}:
        raise memory.wrong_type(call.number, value, "percpu_rcu_ptr_")


_SOCKET_VALUE = Argument("ptr_to_btf_id_sock_common")
"""A value of a map of sockets (resolve_map_arg_type)."""

RULES: dict[str, Rule] = {
    "anything": _anything,
    "const_map_ptr": _map,
    "ptr_to_map_key": _key,
    "ptr_to_map_value": _value,
    "ptr_to_mem": _memory,
    "const_size": _size,
    "const_size_or_zero": _size,
    "const_alloc_size_or_zero": _alloc,
    "ptr_to_ctx": _context,
    "ptr_to_stack": _stack,
    "ptr_to_func": _function,
    "ptr_to_spin_lock": _lock,
    "ptr_to_timer": _timer,
    "kptr_xchg_dest": _kptr,
    "ptr_to_sock_common": _socket,
    "ptr_to_socket": _socket,
    "ptr_to_btf_id_sock_common": _socket,
    "ptr_to_btf_id": _kernel_struct,
    "ptr_to_percpu_btf_id": _percpu,
    "ptr_to_const_str": _text,
    "ptr_to_ringbuf_mem": _record,
    "ptr_to_dynptr": _dynptr,
}
"""What each kind of argument must be."""
