"""Objects of programs (bpf_obj_new): who owns them, what they hang in, and when they are gone.

    bpf_obj_new -> a run owns it -> list, tree or kptr of a map's value, or of another object -> a run owns it

What the program can touch is a region for each object that its run owns. One that it gave away stays readable
until the lock is given back (Linux: a non-owning reference), or, where it went into a kptr, for a while. What
the bytes of nodes, heads and kptrs say counts for nothing: who holds what is known here.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from itertools import islice
from typing import TYPE_CHECKING

from ebpfjit.errors import ExecutionError
from ebpfjit.record import dataclass, field, replace
from ebpfjit.runtime import held, memory
from ebpfjit.runtime.heap import heap
from ebpfjit.runtime.maps.special import OBJ_DROP, ObjectLayout, SpecialField
from ebpfjit.runtime.maps.storage import changing
from ebpfjit.runtime.memory import Region
from ebpfjit.runtime.tree import Tree

if TYPE_CHECKING:
    from ebpfjit.runtime.world import World

LARGEST = 4096
"""Bytes of an object at most (bpf_mem_alloc has no larger ones)."""

LARGEST_OF_ALL = 1 << 16
"""Bytes of an object for all processors together."""

MOST_OWNED = 512
"""Objects that a run may own at a time; there is no memory for one more."""

MOST_LENT = 256
"""Objects that stay readable after they went into kptrs, and dropped ones whose memory is not used yet."""

MOST_LENT_FIRST = 128
"""Objects in the kptrs of maps that a run can read from the start."""

OBJECT_COST = 1024
"""What an object takes besides its own bytes."""

PERCPU_OBJ_DROP = "bpf_percpu_obj_drop"
WRITABLE = frozenset({OBJ_DROP, PERCPU_OBJ_DROP})
"""What is given back by these, a program may write to."""

_MAKERS = {
    OBJ_DROP: "bpf_obj_new",
    PERCPU_OBJ_DROP: "bpf_percpu_obj_new",
    "bpf_cpumask_release": "bpf_cpumask_create",
}
"""Which kernel function makes what another one gives back."""

_STATE = "objects"
_NO_TREE = Tree()


@dataclass(slots=True)
class Holder:
    """What hangs in the special fields of a map's values, or of an object: by the field's address."""

    lists: dict[int, deque[tuple[Object, int]]] = field(default_factory=dict)
    trees: dict[int, Tree] = field(default_factory=dict)
    pointers: dict[int, Object] = field(default_factory=dict)

    def free(self, places: Iterable[int]) -> None:
        """Drop what hangs in the fields at these addresses."""
        release(self._taken_out(places))

    def _taken_out(self, places: Iterable[int]) -> list[Object]:
        found: list[Object] = []
        with changing.held:
            for place in places:
                hanging = [*self.lists.pop(place, ()), *self.trees.pop(place, _NO_TREE).items()]
                for one, node in hanging:
                    one.hangs_in.pop(node, None)
                    found.append(one)
                if place in self.pointers:
                    found.append(self.pointers.pop(place))
        return found


@dataclass(eq=False, slots=True, weakref_slot=True)
class Object:
    """One object. `references` are those of runs and of what it hangs in; `hangs_in` heads, by its node.

    `stride` is not 0 for one that has its struct once for each processor, that many bytes from one to the
    next: behind as many at its address, which nobody touches.
    """

    layout: ObjectLayout
    region: Region
    stride: int = 0
    references: int = 1
    hangs_in: dict[int, int] = field(default_factory=dict)
    holder: Holder = field(default_factory=Holder)

    def __del__(self, give_back: Callable[[int], None] = heap.give_back, cost: int = OBJECT_COST) -> None:
        give_back(self.region.size + cost)  # names of this module may be gone: a process ends

    @property
    def address(self) -> int:
        """Where it starts."""
        return self.region.start

    def count(self, more: int) -> int:
        """Count references, which threads do one after the other; return how many there are now."""
        with changing.held:
            self.references += more
            return self.references

    def on_processor(self, cpu: int) -> int:
        """Return where a processor has its struct, of one that has several; 0 where there is no such one."""
        place = self.address + self.stride * (1 + cpu)
        return place if place < self.region.stop else 0

    def __str__(self) -> str:
        """The object in an error message."""
        return f"an object of struct {self.layout.name}"


def release(objects: list[Object]) -> None:
    """Give references back; what is nobody's any more is gone, and what hung in it with it."""
    while objects:
        one = objects.pop()
        if one.count(-1) == 0:
            objects += one.holder._taken_out(one.region.start + each.offset for each in one.layout.fields)


@dataclass(slots=True)
class Owned:
    """The objects that one run can touch, by address: how many references it owns; those that are only lent.

    `until_unlock` are lent until the lock is given back, `for_a_while` until there are many. `fields` are the
    special fields of all of them, by address. `unused` is the memory of dropped ones, oldest first. `reach`
    is what can be touched of those that have a struct for each processor.
    """

    counts: dict[int, int] = field(default_factory=dict)
    objects: dict[int, Object] = field(default_factory=dict)
    fields: dict[int, tuple[Object, SpecialField]] = field(default_factory=dict)
    until_unlock: dict[int, Object] = field(default_factory=dict)
    for_a_while: dict[int, Object] = field(default_factory=dict)
    unused: deque[Region] = field(default_factory=deque)
    reach: dict[int, Region] = field(default_factory=dict)

    def within(self, one: Object) -> Region:
        """Return what of an object's memory a program can touch, the same region at each call."""
        if not one.stride:
            return one.region
        whole = one.region
        if one.address not in self.reach:
            start = whole.start + one.stride
            self.reach[one.address] = replace(whole, start=start, view=whole.view[one.stride :])
        return self.reach[one.address]


def state_of(world: World) -> Owned:
    """Return what a run has of objects."""
    found: Owned = world.shown.setdefault(_STATE, Owned())
    return found


def new(world: World, layout: ObjectLayout, by: str = "bpf_obj_new", processors: int = 0) -> int:
    """Return the address of a new object, which the run owns; 0 where there is no memory.

    With `processors` it has its struct once for each.
    """
    state = state_of(world)
    stride = (layout.size + 7) // 8 * 8 if processors else 0
    size = stride * (1 + processors) or layout.size
    largest = LARGEST_OF_ALL if processors else LARGEST
    if not 0 < size <= largest or len(state.counts) >= MOST_OWNED or not heap.take(size + OBJECT_COST):
        return 0
    memory.pay(size)
    name = f"object of struct {layout.name}"
    writable = layout.released_by in WRITABLE
    if len(state.unused) > MOST_LENT and (state.unused[0].size, state.unused[0].writable) == (size, writable):
        region = state.unused.popleft()
        region.view[:] = bytes(size)
        region.name = name
    else:
        region = replace(Region.of_buffer(name, bytearray(size)), writable=writable)
    if len(state.unused) > MOST_LENT:
        state.unused.popleft()
    made = Object(layout, region, stride)
    count = layout.field_of("bpf_refcount")
    if count is not None:
        region.view[count.offset : count.offset + 4] = (1).to_bytes(4, "little")
    own(world, made, by)
    return made.address


def own(world: World, one: Object, by: str) -> None:
    """Let the run own one reference more, which is one that somebody had."""
    state = state_of(world)
    _show(world, one)
    state.counts[one.address] = state.counts.get(one.address, 0) + 1
    back = f"{one.layout.released_by}, or put it somewhere,"
    held.take(world, (_STATE, one.address), str(one), by=by, back=back)


def _show(world: World, one: Object) -> None:
    """Let the program touch an object.

    What was lent at its address is gone where it is another one: a run that had it dropped it, and used its
    memory again.
    """
    state = state_of(world)
    known = state.objects.get(one.address)
    if known is one:
        return
    if known is not None:
        state.until_unlock.pop(one.address, None)
        state.for_a_while.pop(one.address, None)
        hide(world, known)
    memory.grant_region(state.within(one))
    state.objects[one.address] = one
    state.fields |= {one.address + each.offset: (one, each) for each in one.layout.fields}


def owned_at(world: World, address: int, name: str, released_by: str = OBJ_DROP) -> Object:
    """Return the object that starts at an address.

    Raises ExecutionError where the run owns none there that is given back by that kernel function.
    """
    state = state_of(world)
    made_by = _MAKERS[released_by]
    if not state.counts.get(address):
        what = "only lent" if address in state.objects else "no object that the program owns"
        raise ExecutionError(f"{name} of {address:#x}, which is {what}: take what {made_by} returned")
    one = state.objects[address]
    if one.layout.released_by != released_by:
        raise ExecutionError(f"{name} of {address:#x}, which is {one}: that is for what {made_by} returned")
    return one


def give(world: World, one: Object) -> None:
    """Take one reference from the run; whoever asks has it now. It is out of reach with the last."""
    state = state_of(world)
    held.give_back(world, (_STATE, one.address))
    state.counts[one.address] -= 1
    if not state.counts[one.address]:
        del state.counts[one.address]
        if one.address not in state.until_unlock and one.address not in state.for_a_while:
            hide(world, one)


def drop(world: World, one: Object) -> None:
    """Give one reference of the run back to nobody."""
    state = state_of(world)
    for lent in (state.until_unlock, state.for_a_while):
        lent.pop(one.address, None)
    give(world, one)
    if one.references == 1:
        state.unused.append(one.region)
    release([one])


def hide(world: World, one: Object) -> None:
    """Take an object out of the program's reach."""
    state = state_of(world)
    memory.revoke(state.within(one))
    state.objects.pop(one.address, None)
    state.reach.pop(one.address, None)
    for each in one.layout.fields:
        state.fields.pop(one.address + each.offset, None)


def lend_until_unlock(world: World, one: Object) -> None:
    """Let an object be read until the lock is given back, though it is not the run's."""
    _show(world, one)
    state_of(world).until_unlock[one.address] = one


def lend_for_a_while(world: World, one: Object) -> None:
    """Let an object that the run has and gives to a kptr be read on: those before it are hidden one day."""
    state = state_of(world)
    state.for_a_while[one.address] = one
    if len(state.for_a_while) > MOST_LENT:
        first = next(iter(state.for_a_while))
        oldest = state.for_a_while.pop(first)
        if not state.counts.get(first) and first not in state.until_unlock:
            hide(world, oldest)


def lend_from(world: World, holders: Iterable[Holder]) -> list[Region]:
    """Let a run that begins read what is in the kptrs of its maps; return the memory of these objects.

    Linux: a kptr that is loaded under RCU. What is taken out of one afterwards is the run's, as ever.
    """
    state, regions = state_of(world), list[Region]()
    for holder in holders:
        with changing.held:  # there may be as many as there is memory for: most are not looked at
            first = list(islice(holder.pointers.values(), MOST_LENT_FIRST - len(regions)))
        for one in first:
            regions.append(state.within(one))
            state.objects[one.address] = state.for_a_while[one.address] = one
            state.fields |= {one.address + each.offset: (one, each) for each in one.layout.fields}
    return regions


def end_of_lock(world: World) -> None:
    """Hide what was lent until the lock is given back."""
    state: Owned | None = world.shown.get(_STATE)
    if state is None:
        return
    lent, state.until_unlock = state.until_unlock, {}
    for address, one in lent.items():
        if not state.counts.get(address) and address not in state.for_a_while:
            hide(world, one)
