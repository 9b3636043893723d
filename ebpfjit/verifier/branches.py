"""Branches: which ways they may go, and what is known on each."""

from __future__ import annotations

from collections.abc import Callable

from ebpfjit.bits import W32, W64
from ebpfjit.isa.spec import Row
from ebpfjit.optimizer import intervals
from ebpfjit.verifier.arithmetic import PACKET
from ebpfjit.verifier.memory import FARTHEST_IN_PACKET
from ebpfjit.verifier.numbers import DOMAIN, Number
from ebpfjit.verifier.refusals import Refused
from ebpfjit.verifier.state import State
from ebpfjit.verifier.values import Cell, Pointer, Poison, Scalar, Stale, Value, known, mark_precise

NEVER_NULL = frozenset({
    "socket", "tcp_sock", "sock_common", "xdp_sock", "map_value", "map_key", "mem", "map", "func",
})  # fmt: skip
"""Pointers that are surely not zero where they may not be NULL."""

_TRUSTED = frozenset({"trusted", "alloc", "borrowed"})
_OF_PACKET = PACKET | {"packet_end"}

Way = Callable[[State], None]
"""Says to a state what is known of it where a branch goes one way."""


def ways(row: Row, dst: Value, src: Value, *, privileged: bool) -> tuple[Way | None, Way | None]:
    """Return what is known where a comparison does not hold, and where it holds; None: it never ends so.

    Raises Refused.
    """
    if isinstance(dst, Poison) or isinstance(src, Poison):
        return _nothing, _nothing
    if isinstance(dst, Scalar) and isinstance(src, Scalar):
        return _numbers(row, dst, src)
    if not privileged and isinstance(src, Pointer) and not _are_in_packet(dst, src):
        raise Refused("leak", "pointer comparison prohibited")
    if row.width is W64:
        for pointer, other, relation in ((dst, src, row.meaning), (src, dst, _swapped(row.meaning))):
            if not isinstance(pointer, Pointer):
                continue
            if isinstance(other, Scalar) and other.number.is_known and not other.number.value:
                found = _with_null(pointer, relation, told=not row.uses_src)
                if found is not None:
                    return found
            if isinstance(other, Pointer) and relation is not None:
                found = _in_packet(pointer, other, relation) or _same(pointer, other, relation)
                if found is not None:
                    return found
    if not privileged:
        raise Refused("leak", "pointer comparison prohibited")
    return _nothing, _nothing


def _are_in_packet(*values: Value) -> bool:
    return all(isinstance(value, Pointer) and value.kind in _OF_PACKET for value in values)


def _nothing(state: State) -> None:
    """Nothing more is known."""


def _swapped(meaning: str) -> str | None:
    """Return the comparison of src with dst that says the same; None: there is none."""
    relation = intervals.RELATIONS.get(meaning)
    if relation is None:
        return None
    wanted = intervals.MIRRORED[relation[0]]
    for name, (holds, _) in intervals.RELATIONS.items():
        if holds == wanted and (name in intervals.SIGNED) == (meaning in intervals.SIGNED):
            return name
    return None


# -- numbers ----------------------------------------------------------------------------------------------


def _numbers(row: Row, dst: Scalar, src: Scalar) -> tuple[Way | None, Way | None]:
    is_full = row.width is W64
    found: list[Way | None] = []
    for holds in (False, True):
        assumed = DOMAIN.assume(row.meaning, is_full, dst.number, src.number, holds=holds)
        found.append(None if assumed is None else _refining(dst, src, assumed))
    if found[0] is None or found[1] is None:  # what was not walked depends on these very numbers
        mark_precise(dst)
        mark_precise(src)
    if found[0] is None and found[1] is None:  # the ranges contradict each other: no run comes here
        return None, None
    return found[0], found[1]


def _refining(dst: Scalar, src: Scalar, numbers: tuple[Number, Number]) -> Way:
    def refine(state: State) -> None:
        for old, number in zip((dst, src), numbers, strict=True):
            if number is not old.number:
                refined(state, old, number)

    return refine


def refined(state: State, old: Scalar, number: Number) -> None:
    """Say of a scalar, and of all that differ from it by a constant, what it is known to be."""
    made: dict[int, Scalar] = {}

    def better(value: Scalar) -> Scalar:
        found = made.get(id(value))
        if found is None:
            known_now = number if value is old else _told(value, old, number)
            found = made[id(value)] = Scalar(
                known_now, (value, old), old.link, value.delta, is_half=value.is_half
            )
        return found

    replaced(
        state, lambda value: better(value) if isinstance(value, Scalar) and value.link == old.link else value
    )


def _told(value: Scalar, old: Scalar, number: Number) -> Number:
    """Return what is known of a scalar where one that it is linked to is known to be `number`."""
    is_full = not (value.is_half or old.is_half)
    if not is_full and value.number.umax > W32.mask:
        return value.number  # only its low half is told of
    if value.delta != old.delta or not is_full:
        number = DOMAIN.binary("ADD", is_full, number, DOMAIN.known(W64.wrap(value.delta - old.delta)))
    return DOMAIN.both(value.number, number) or value.number


def replaced(state: State, change: Callable[[Value], Value]) -> None:
    """Put in place of each value of a state, in registers and on stacks, what `change` makes of it."""
    for frame in state.frames:
        registers = frame.registers
        for number in range(10):
            value = registers[number]
            if value is not None:
                registers[number] = change(value)
        for slot, cell in frame.stack.items():
            value = cell.value
            if isinstance(value, (Scalar, Pointer)):
                new = change(value)
                if new is not value:
                    frame.stack[slot] = Cell(cell.kinds, new, cell)


def forget_borrowed(state: State) -> None:
    """Forget the objects that the program may look at under a lock only."""

    def change(value: Value) -> Value:
        if isinstance(value, Pointer) and "borrowed" in value.flags:
            return Stale("the lock was given back: look it up again")
        return value

    replaced(state, change)


# -- pointers ---------------------------------------------------------------------------------------------


def _is_trusted(pointer: Pointer) -> bool:
    """True of a pointer to what is there (is_trusted_reg)."""
    return bool(pointer.ref or (_TRUSTED & pointer.flags and not pointer.flags - _TRUSTED))


def _with_null(pointer: Pointer, meaning: str | None, *, told: bool) -> tuple[Way | None, Way | None] | None:
    """Return the ways of a comparison of a pointer with zero.

    Linux learns of a pointer only where the zero is in the instruction (`told`), not in a register.
    """
    if meaning not in ("JEQ", "JNE"):
        return None
    if not pointer.null:
        if pointer.kind not in NEVER_NULL and not (pointer.kind == "btf_id" and _is_trusted(pointer)):
            return None
        return (_nothing, None) if meaning == "JEQ" else (None, _nothing)
    if not told:
        return None
    is_null, is_there = _null(pointer, there=False), _null(pointer, there=True)
    return (is_there, is_null) if meaning == "JEQ" else (is_null, is_there)


def _null(pointer: Pointer, *, there: bool) -> Way:
    def say(state: State) -> None:
        null(state, pointer, there=there)

    return say


def null(state: State, pointer: Pointer, *, there: bool) -> None:
    """Say of a pointer, and all that are NULL together with it, whether it is there."""

    def change(value: Value) -> Value:
        if not isinstance(value, Pointer) or not value.null or value.id != pointer.id:
            return value
        if not there:
            return known(0)
        # What is held, or locked in, is told apart by its id afterwards, too.
        return value.but(null=False)

    replaced(state, change)
    if not there and pointer.ref and pointer.ref == pointer.id:
        state.references = tuple(each for each in state.references if each.id != pointer.ref)


def _same(pointer: Pointer, other: Pointer, meaning: str) -> tuple[Way | None, Way | None] | None:
    """A pointer that equals one that is there is there, too."""
    if meaning not in ("JEQ", "JNE") or not pointer.null or other.null or pointer.kind == "btf_id":
        return None
    if other.kind not in NEVER_NULL and other.kind not in ("ctx", "stack", *PACKET):
        return None
    there = _null(pointer, there=True)
    return (_nothing, there) if meaning == "JEQ" else (there, _nothing)


def _in_packet(pointer: Pointer, end: Pointer, meaning: str) -> tuple[Way | None, Way | None] | None:
    """Return the ways of a comparison of a packet's pointer with what it ends at; None: it is none."""
    if pointer.kind not in PACKET or meaning not in intervals.RELATIONS or meaning in intervals.SIGNED:
        return None
    is_start = end.kind == "packet" and not end.id and not end.off and end.var is None
    if not (
        (pointer.kind == "packet" and end.kind == "packet_end")
        or (pointer.kind == "packet_meta" and is_start)
    ):
        return None
    holds, does_not = intervals.RELATIONS[meaning]
    return _ahead(pointer, does_not), _ahead(pointer, holds)


def _ahead(pointer: Pointer, relation: str) -> Way:
    """Say how much of the packet is ahead of a pointer that has a relation to its end."""
    ahead = {"<=": pointer.off, "<": pointer.off + 1}.get(relation, 0)
    most = pointer.var.umax if pointer.var is not None else 0
    if pointer.off < 0 or ahead <= 0 or most + pointer.off > FARTHEST_IN_PACKET:
        return _nothing

    def say(state: State) -> None:
        in_range(state, pointer, ahead)

    return say


def in_range(state: State, pointer: Pointer, ahead: int) -> None:
    """Say of all pointers with the same variable part that so many bytes of the packet follow it."""

    def change(value: Value) -> Value:
        if (
            isinstance(value, Pointer)
            and value.kind == pointer.kind
            and value.id == pointer.id
            and value.range < ahead
        ):
            return value.but(range=ahead)
        return value

    replaced(state, change)
