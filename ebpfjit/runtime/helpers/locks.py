"""Helpers of what lives inside a map's value: spin locks, kernel pointers."""

from __future__ import annotations

from ebpfjit.errors import ExecutionError
from ebpfjit.runtime import held as holdings
from ebpfjit.runtime import memory, owned
from ebpfjit.runtime.helpers.maps import map_at
from ebpfjit.runtime.helpers.table import engine_of, helper
from ebpfjit.runtime.maps.base import Map
from ebpfjit.runtime.maps.special import KINDS, POINTERS, REFERENCED, SpecialField
from ebpfjit.runtime.maps.storage import changing
from ebpfjit.runtime.world import World


def special_field(world: World, address: int, kind: str, name: str) -> tuple[Map | None, SpecialField | None]:
    """Return the map in whose values a special field is, and which it is; None where neither is known.

    Maps without BTF do not say where their special fields are, so there it may be anywhere, and so it may in
    memory of a program that has no types. Raises ExecutionError (helper `name`) where types say that
    there is none of this kind, MemoryFault where the program may not write there.
    """
    return _special_field(world, address, frozenset({kind}), kind, name)


def _special_field(
    world: World, address: int, kinds: frozenset[str], words: str, name: str
) -> tuple[Map | None, SpecialField | None]:
    """As `special_field`, for a field of any of some kinds, which `words` are for; those of objects too."""
    memory.check(address, max(KINDS[kind].size for kind in kinds), "store")
    inside = owned.state_of(world).fields.get(address)
    if inside is not None and inside[1].kind in kinds:
        return None, inside[1]
    found = map_at(world, address)
    if found is None:
        if inside is not None or engine_of(world).place()[0].types is not None:
            raise ExecutionError(f"{name}: {address:#x} is no {words} of a map's value, or of an object")
        return None, None
    definition = found.definition
    field = found.special_at(address)
    if field is not None and field.kind in kinds:
        return found, field
    known = definition.types is not None and definition.types.value != 0
    if known or definition.special or definition.value_type is not None:
        has = ", ".join(f"{one} at {one.offset}" for one in definition.special) or "none"
        raise ExecutionError(
            f"{name}: {address:#x} is no {words} of {definition}; special fields of its values: {has}"
        )
    return found, None


RESILIENT = "locks of bpf_res_spin_lock"
"""Where a world keeps those that are held, as they were taken one after another; `World.lock` is the last."""

BELOW = "lock of bpf_spin_lock"
"""Where a world keeps the bpf_spin_lock that is held below them."""


def lock_at(world: World, lock: int, kind: str, name: str) -> str:
    """Return a lock in words. Raises as `special_field`."""
    found, field = special_field(world, lock, kind, name)
    if found is None:
        return f"the lock at {lock:#x}"
    return f"the lock {'' if field is None else repr(field.name) + ' '}at {lock:#x} of {found.definition}"


@helper(
    "bpf_spin_lock", under_lock=True, differs="keeps out nobody: programs in other threads may run meanwhile"
)
def spin_lock(world: World, lock: int) -> int:
    """Take a lock. Raises ExecutionError where one is held already, as Linux refuses that."""
    what = lock_at(world, lock, "bpf_spin_lock", "bpf_spin_lock")
    if world.lock is not None:
        raise ExecutionError(f"bpf_spin_lock: {world.lock[1]} is held already; one at a time")
    world.lock = lock, what
    holdings.take(world, holdings.key_of_lock(lock), what, by="bpf_spin_lock", back="bpf_spin_unlock")
    return 0


@helper("bpf_spin_unlock", under_lock=True, ends_rights=True)
def spin_unlock(world: World, lock: int) -> int:
    """Release a lock. Raises ExecutionError where it is not the one that is held."""
    held, world.lock = world.lock, None
    if held is None or held[0] != lock or world.kept.get(RESILIENT):
        what = "no lock is held" if held is None else f"{held[1]} is the one that is held"
        raise ExecutionError(f"bpf_spin_unlock of {lock:#x}: {what}")
    holdings.give_back(world, holdings.key_of_lock(lock))
    owned.end_of_lock(world)
    return 0


@helper("bpf_kptr_xchg", ends_rights=True)
def kptr_xchg(world: World, place: int, pointer: int) -> int:
    """Put a pointer into a map's value, or an object's; return the one that was there.

    An object of the program's goes to whom the place is of; the one that was there is the run's from now on.
    Raises ExecutionError where types say that there is no kptr that owns what it points to.
    """
    _special_field(world, place, REFERENCED, "referenced kptr", "bpf_kptr_xchg")
    state = owned.state_of(world)
    with changing.held:  # of two threads that exchange one, each gets another
        old = int.from_bytes(memory.read(place, 8), "little")
        holder = _holder_of(world, place)
        before = holder.pointers.pop(place, None) if holder is not None else None
        given = state.objects[pointer] if holder is not None and state.counts.get(pointer) else None
        if given is not None and holder is not None:
            holder.pointers[place] = given
        memory.write(place, pointer.to_bytes(8, "little"))
    if given is None and pointer:
        holdings.give_back(world, holdings.reference(pointer))
    if given is not None:
        owned.lend_for_a_while(world, given)
        owned.give(world, given)
    if before is None:
        holdings.take_out(world, old, "bpf_kptr_xchg")
        return old
    owned.own(world, before, "bpf_kptr_xchg")
    return before.address


def _holder_of(world: World, place: int) -> owned.Holder | None:
    """Return what holds the objects of a kptr at an address, None where it is no kptr that is known."""
    inside = owned.state_of(world).fields.get(place)
    if inside is not None:
        return inside[0].holder if inside[1].kind in POINTERS else None
    found = map_at(world, place)
    field = None if found is None else found.special_at(place)
    if found is None or field is None or field.kind not in POINTERS:
        return None
    found.holder = found.holder or owned.Holder()
    return found.holder
