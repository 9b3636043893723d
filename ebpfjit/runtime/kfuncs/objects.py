"""Kernel functions: objects of a program's own, and linked lists of them."""

from __future__ import annotations

import errno
from collections import deque

from ebpfjit.errors import ExecutionError
from ebpfjit.record import replace
from ebpfjit.runtime import owned
from ebpfjit.runtime.helpers.locks import BELOW, RESILIENT, special_field
from ebpfjit.runtime.kfuncs.table import kfunc
from ebpfjit.runtime.maps.special import HEADS, LOCKS, ObjectLayout, SpecialField
from ebpfjit.runtime.maps.storage import changing
from ebpfjit.runtime.owned import Holder, Object
from ebpfjit.runtime.world import World

LARGEST_PERCPU = 512
"""Bytes of a struct that each processor has at most (BPF_GLOBAL_PERCPU_MA_MAX_SIZE)."""

Hanging = deque[tuple[Object, int]]


@kfunc(
    "bpf_obj_new_impl",
    "bpf_obj_new",
    differs="0 for the 513th object that a run owns at a time; Linux zeroes special fields only",
)
def obj_new(world: World, type_id: int) -> int:
    """Return a new object of a struct of the program's BTF, all zeros; 0 where there is no memory."""
    return owned.new(world, _layout_of(world, type_id, "bpf_obj_new"))


def _layout_of(world: World, type_id: int, name: str) -> ObjectLayout:
    layout = world.object_types(type_id) if world.object_types is not None else None
    if layout is None:
        raise ExecutionError(f"{name} of type {type_id}, which is no struct in the program's BTF")
    return layout


@kfunc("bpf_obj_drop_impl", "bpf_obj_drop")
def obj_drop(world: World, address: int) -> int:
    """Give an object back, and with the last reference all that hangs in it."""
    owned.drop(world, owned.owned_at(world, address, "bpf_obj_drop"))
    return 0


@kfunc(
    "bpf_percpu_obj_new_impl",
    "bpf_percpu_obj_new",
    differs="0 for the 513th object that a run owns at a time, and for more than 64 KiB for all processors",
)
def percpu_obj_new(world: World, type_id: int) -> int:
    """Return a new object with a struct for each processor, to ask bpf_per_cpu_ptr for; 0 without memory."""
    layout = _layout_of(world, type_id, "bpf_percpu_obj_new")
    if not layout.is_scalar:
        raise ExecutionError(f"bpf_percpu_obj_new of struct {layout.name}, which has more than numbers in it")
    if layout.size > LARGEST_PERCPU:
        raise ExecutionError(
            f"bpf_percpu_obj_new of struct {layout.name}: its {layout.size} bytes are more than "
            f"{LARGEST_PERCPU}"
        )
    layout = replace(layout, released_by=owned.PERCPU_OBJ_DROP)
    return owned.new(world, layout, "bpf_percpu_obj_new", world.environment.cpus)


@kfunc("bpf_percpu_obj_drop_impl", "bpf_percpu_obj_drop")
def percpu_obj_drop(world: World, address: int) -> int:
    """Give an object of bpf_percpu_obj_new back."""
    name = owned.PERCPU_OBJ_DROP
    owned.drop(world, owned.owned_at(world, address, name, name))
    return 0


@kfunc("bpf_refcount_acquire_impl", "bpf_refcount_acquire", under_lock=True)
def refcount_acquire(world: World, address: int) -> int:
    """Return one reference more to an object that has a bpf_refcount."""
    one = owned.state_of(world).objects.get(address)
    if one is None or one.layout.field_of("bpf_refcount") is None:
        raise ExecutionError(f"bpf_refcount_acquire of {address:#x}, which is no object with a bpf_refcount")
    one.count(1)
    owned.own(world, one, "bpf_refcount_acquire")
    return address


# -- heads and nodes ---------------------------------------------------------------------------------


def head_at(world: World, address: int, kind: str, name: str) -> tuple[Holder, SpecialField]:
    """Return what holds the head at an address, and the head. Raises ExecutionError without its lock."""
    inside = owned.state_of(world).fields.get(address)
    if inside is not None and inside[1].kind == kind:
        one, head = inside
        fields, holder = one.layout.fields, one.holder
    else:
        map_, found = special_field(world, address, kind, name)
        if map_ is None or found is None:
            raise ExecutionError(f"{name}: {address:#x} is no {kind} of a map's value, or of an object")
        head, fields = found, map_.definition.special
        if map_.holder is None:
            map_.holder = Holder()
        holder = map_.holder
    lock = next((field for field in fields if field.kind in LOCKS), None)
    if lock is None:
        raise ExecutionError(f"{name}: {head} has no bpf_spin_lock beside it, under which it is changed")
    place = address - head.offset + lock.offset
    taken = (world.lock, world.kept.get(BELOW), *world.kept.get(RESILIENT, ()))
    if all(each is None or each[0] != place for each in taken):
        raise ExecutionError(f"{name}: the lock {lock.name!r} beside {head} must be held: {lock.kind} first")
    return holder, head


def node_at(world: World, address: int, head: SpecialField, name: str) -> tuple[Object, SpecialField]:
    """Return the object, and its field, of a node that hangs, or is to hang, in a head."""
    found = owned.state_of(world).fields.get(address)
    if found is None or found[1].kind != HEADS[head.kind]:
        raise ExecutionError(f"{name}: {address:#x} is no {HEADS[head.kind]} of an object in reach")
    one, node = found
    if head.contains != (one.layout.name, node.offset):
        takes = "nothing" if head.contains is None else f"struct {head.contains[0]}"
        raise ExecutionError(f"{name}: {head} holds {takes}, not {node} of struct {one.layout.name}")
    return one, node


def put(world: World, one: Object, node: SpecialField, name: str) -> bool:
    """Take an object from the run to hang it up; False where its node hangs already: then it is dropped."""
    owned.owned_at(world, one.address, name)
    if node.offset in one.hangs_in:
        owned.drop(world, one)
        return False
    owned.lend_until_unlock(world, one)
    owned.give(world, one)
    return True


def _push(world: World, place: int, address: int, name: str, *, at_front: bool) -> int:
    holder, head = head_at(world, place, "bpf_list_head", name)
    one, node = node_at(world, address, head, name)
    if not put(world, one, node, name):
        return -errno.EINVAL
    with changing.held:
        one.hangs_in[node.offset] = place
        hanging: Hanging = holder.lists.setdefault(place, deque())
        (hanging.appendleft if at_front else hanging.append)((one, node.offset))
    return 0


@kfunc("bpf_list_push_front_impl", "bpf_list_push_front", under_lock=True)
def list_push_front(world: World, head: int, node: int) -> int:
    """Put an object in at the front; 0, or -EINVAL where it hangs somewhere already, and is dropped."""
    return _push(world, head, node, "bpf_list_push_front", at_front=True)


@kfunc("bpf_list_push_back_impl", "bpf_list_push_back", under_lock=True)
def list_push_back(world: World, head: int, node: int) -> int:
    """Put an object in at the back; 0, or -EINVAL where it hangs somewhere already, and is dropped."""
    return _push(world, head, node, "bpf_list_push_back", at_front=False)


def _pop(world: World, place: int, name: str, *, at_front: bool) -> int:
    holder, _ = head_at(world, place, "bpf_list_head", name)
    with changing.held:
        hanging = holder.lists.get(place)
        if not hanging:
            return 0
        one, node = hanging.popleft() if at_front else hanging.pop()
        one.hangs_in.pop(node, None)
    owned.own(world, one, name)
    return one.address + node


@kfunc("bpf_list_pop_front", under_lock=True)
def list_pop_front(world: World, head: int) -> int:
    """Take the first object out; return the address of its node, 0 where there is none."""
    return _pop(world, head, "bpf_list_pop_front", at_front=True)


@kfunc("bpf_list_pop_back", under_lock=True)
def list_pop_back(world: World, head: int) -> int:
    """Take the last object out; return the address of its node, 0 where there is none."""
    return _pop(world, head, "bpf_list_pop_back", at_front=False)


def _look(world: World, place: int, name: str, index: int) -> int:
    holder, _ = head_at(world, place, "bpf_list_head", name)
    hanging = holder.lists.get(place)
    if not hanging:
        return 0
    one, node = hanging[index]
    owned.lend_until_unlock(world, one)
    return one.address + node


@kfunc("bpf_list_front", under_lock=True)
def list_front(world: World, head: int) -> int:
    """Return the address of the first object's node, 0 where there is none; it stays where it is."""
    return _look(world, head, "bpf_list_front", 0)


@kfunc("bpf_list_back", under_lock=True)
def list_back(world: World, head: int) -> int:
    """Return the address of the last object's node, 0 where there is none; it stays where it is."""
    return _look(world, head, "bpf_list_back", -1)
