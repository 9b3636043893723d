"""When a state needs no walk of its own: all that may follow was walked from one seen before.

A state is covered by an older one if each value of it is among those that the older one stands for; of
scalars whose exact value never mattered, and of words that nobody read, nothing is asked. That is known only
once all ways from the older one were walked: before, everything counts (`exact`).
"""

from __future__ import annotations

from collections.abc import Sequence

from ebpfjit.verifier.numbers import DOMAIN
from ebpfjit.verifier.state import Frame, Point, State
from ebpfjit.verifier.values import Cell, Pointer, Poison, Scalar, Value, mark_precise


class Comparison:
    """One older state against one newer: the ids of one that stand for those of the other."""

    __slots__ = ("exact", "ids", "links", "privileged", "shared", "strict")

    def __init__(
        self, shared: frozenset[int], *, exact: bool, privileged: bool, strict: bool = False
    ) -> None:
        self.strict = strict
        self.exact = exact
        self.privileged = privileged
        self.shared = shared
        self.ids: dict[int, int] = {}
        self.links: dict[int, tuple[int, int]] = {}

    def value(self, old: Value, new: Value) -> bool:
        """True where the newer value is among those that the older one stands for."""
        if old is None:
            return True
        if old is new:  # its ids stand for themselves, and for no others
            return self._itself(old)
        if isinstance(old, Scalar):
            if not isinstance(new, Scalar):
                return False
            if self.strict and not _is_identical(old, new):
                return False
            if not (old.precise or self.exact):
                return True
            if isinstance(old, Poison) or isinstance(new, Poison):
                return isinstance(new, Poison) or isinstance(old, Poison)
            return new.number.within(old.number) and self._link(old, new)
        if not isinstance(new, Pointer):
            return False
        return self._pointer(old, new)

    def _itself(self, value: Scalar | Pointer) -> bool:
        if isinstance(value, Pointer):
            return self.same_id(value.id, value.id) and self.same_id(value.ref, value.ref)
        return not (value.precise or self.exact) or self._link(value, value)

    def _link(self, old: Scalar, new: Scalar) -> bool:
        """Scalars that a comparison of one told of must be so here, too."""
        if old.link not in self.shared:
            return True
        if old.is_half is not new.is_half:
            return False
        wanted = new.link, new.delta - old.delta
        return self.links.setdefault(old.link, wanted) == wanted

    def _pointer(self, old: Pointer, new: Pointer) -> bool:
        if (
            old.kind != new.kind
            or old.what != new.what
            or old.null != new.null
            or old.off != new.off
            or old.size != new.size
            or old.flags != new.flags
            or new.range < old.range
        ):
            return False
        if old.var is None or new.var is None:
            if old.var is not new.var:
                return False
        elif not new.var.within(old.var):
            return False
        return self.same_id(old.id, new.id) and self.same_id(old.ref, new.ref)

    def same_id(self, old: int, new: int) -> bool:
        """True where an id of the newer state may stand for one of the older."""
        if not old or not new:
            return old == new
        return self.ids.setdefault(old, new) == new

    def cell(self, old: Cell, new: Cell | None) -> bool:
        """True where a word of the newer state is among those that the older one stands for."""
        if not (old.read or self.exact):
            return True
        if new is None:
            return all(kind == "?" or (kind == "m" and self.privileged) for kind in old.kinds) or (
                self.privileged and self._is_any_number(old)
            )
        first = old.kinds[0]
        if first in "diq":
            return self._special(old, new)
        if new.kinds[0] in "diq":
            return all(kind == "?" for kind in old.kinds)
        if first == "s":
            if new.kinds[0] == "s" and new.kinds.count("s") == old.kinds.count("s"):
                if not self.value(old.value, new.value):
                    return False
            elif not self._is_any_number(old) or isinstance(new.spilled, Pointer):
                return False
        for was, now in zip(old.kinds, new.kinds, strict=True):
            if was in "?s":
                continue
            if was == "m":
                if now == "s" and isinstance(new.value, Pointer):
                    return False
                if now == "?" and not self.privileged:
                    return False
            elif now != "0" and not _is_zero(new, now):
                return False
        return True

    def _is_any_number(self, cell: Cell) -> bool:
        value = cell.spilled
        return isinstance(value, Scalar) and not (value.precise or self.exact) and "0" not in cell.kinds

    def _special(self, old: Cell, new: Cell) -> bool:
        if old.kinds != new.kinds:
            return False
        a, b = old.value, new.value
        return (
            type(a) is type(b)
            and a.kind == b.kind
            and a.slot == b.slot
            and getattr(a, "state", None) == getattr(b, "state", None)
            and self.same_id(a.ref, b.ref)
            and self.same_id(a.id, b.id)
        )

    def frame(self, old: Frame, new: Frame, live: int) -> bool:
        """True where a frame of the newer state is among those that the older one stands for."""
        if old.start != new.start or old.call != new.call or old.callback != new.callback:
            return False
        if old.rounds > new.rounds:  # it may be called more often than the older one was followed
            return False
        for number in range(10):
            if live >> number & 1 and not self.value(old.registers[number], new.registers[number]):
                return False
        stack = new.stack
        return all(self.cell(cell, stack.get(slot)) for slot, cell in old.stack.items())


def _is_zero(cell: Cell, kind: str) -> bool:
    value = cell.value
    return kind == "s" and isinstance(value, Scalar) and value.number.is_known and not value.number.value


def covers(
    point: Point,
    state: State,
    live: Sequence[int],
    *,
    exact: bool,
    privileged: bool,
    strict: bool = False,
) -> bool:
    """True where all that may follow `state` may follow the older one. `live`: what frames read later.

    `strict`: numbers must be the same (Linux: explore_alu_limits).
    """
    old = point.state
    if len(old.frames) != len(state.frames) or len(old.references) != len(state.references):
        return False
    if len(old.sections) != len(state.sections) or (old.lock is None) != (state.lock is None):
        return False
    if any(a[0] != b[0] for a, b in zip(old.sections, state.sections, strict=True)):
        return False
    comparison = Comparison(point.shared_links(), exact=exact, privileged=privileged, strict=strict)
    for a, b, mask in zip(old.frames, state.frames, live, strict=True):
        if not comparison.frame(a, b, mask):
            return False
    if old.lock is not None and state.lock is not None:
        (place, number), (place_now, number_now) = old.lock[0], state.lock[0]
        if place != place_now or not comparison.same_id(number, number_now):
            return False
    return all(comparison.same_id(a.id, b.id) for a, b in zip(old.references, state.references, strict=True))


def is_same(point: Point, state: State, live: Sequence[int]) -> bool:
    """True where nothing at all is different: a run that comes here again may do so for ever."""
    if len(point.state.frames) != len(state.frames):
        return False
    for a, b, mask in zip(reversed(point.state.frames), reversed(state.frames), reversed(live), strict=True):
        for number in range(10):
            if mask >> number & 1 and not _is_identical(a.registers[number], b.registers[number]):
                return False
        if a.stack.keys() != b.stack.keys():
            return False
        for slot, cell in a.stack.items():
            other = b.stack[slot]
            if cell.kinds != other.kinds or not _is_identical(cell.value, other.value):
                return False
    return covers(point, state, live, exact=True, privileged=True)


def _is_identical(old: Value, new: Value) -> bool:
    if isinstance(old, Scalar) and isinstance(new, Scalar):
        a, b = old.number, new.number
        return a is b or (a.value == b.value and a.mask == b.mask and a.fields() == b.fields())
    if isinstance(old, Pointer) and isinstance(new, Pointer):
        if old.off != new.off or (old.var is None) != (new.var is None) or old.range != new.range:
            return False
        return old.var is None or new.var is None or old.var.fields() == new.var.fields()
    return type(old) is type(new)


def say_what_matters(point: Point, state: State, live: Sequence[int]) -> None:
    """Say of a state that is walked no further what mattered, or will, of the one that covers it."""
    is_done = point.is_done
    for a, b, mask in zip(point.state.frames, state.frames, live, strict=True):
        for number in range(10):
            if mask >> number & 1:
                _hand_back(a.registers[number], b.registers[number], is_done=is_done)
        for slot, cell in a.stack.items():
            now = b.stack.get(slot)
            if now is not None and (cell.read or not is_done):
                now.mark_read()
                _hand_back(cell.value, now.value, is_done=is_done)


def _hand_back(old: object, new: object, *, is_done: bool) -> None:
    if not isinstance(old, Scalar) or not isinstance(new, Scalar):
        return
    if old.precise:
        mark_precise(new)
    elif not is_done:
        old.parents = (*old.parents, new)


def widen(old: State, state: State) -> None:
    """Forget numbers that change from round to round, and whose exact value did not matter so far."""
    for a, b in zip(old.frames, state.frames, strict=True):
        for number in range(10):
            b.registers[number] = _wider(a.registers[number], b.registers[number])
        for slot, cell in b.stack.items():
            before = a.stack.get(slot)
            if before is None or not isinstance(cell.value, Scalar) or cell.kinds[0] != "s":
                continue
            wide = _wider(before.value, cell.value)
            if wide is not cell.value:
                b.stack[slot] = Cell(cell.kinds, wide, cell)


def _wider(old: Value, new: Value) -> Value:
    if not isinstance(old, Scalar) or not isinstance(new, Scalar) or old.precise or new.precise:
        return new
    if isinstance(new, Poison) or old.number.fields() == new.number.fields():
        return new
    return Scalar(DOMAIN.unknown, (new,))
