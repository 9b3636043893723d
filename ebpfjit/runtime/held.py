"""What a run has taken and must give back before it ends: locks, ring buffer records, sockets, iterators.

Linux's verifier refuses a program with a way out that forgets one; here the run ends with an error that
names the place where it was taken. A helper calls `take` and `give_back`; `check` is called at the end.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Hashable, Iterable

from ebpfjit.errors import ExecutionError
from ebpfjit.program import Program
from ebpfjit.record import dataclass
from ebpfjit.runtime import faults
from ebpfjit.runtime.world import World


def key_of_lock(address: int) -> Hashable:
    """Return the key of a lock that is held; the last one that was taken is `World.lock`."""
    return "lock", address


@dataclass(slots=True)
class Taken:
    """Something that is held: in words, by which helper it was taken first, which gives it back, and where.

    `pc` is the slot of the helper's call in `program`, `times` how often it was taken and not given back.
    """

    what: str
    by: str
    back: str
    program: Program
    pc: int
    times: int = 1


def take(
    world: World, key: Hashable, what: str, *, by: str, back: str, place: tuple[Program, int] | None = None
) -> None:
    """Note that the program has taken something; what is taken twice under a key is given back twice.

    It did so where it is now, or at a slot of a program.
    """
    taken = world.held.get(key)
    if taken is not None:
        taken.times += 1
        return
    assert world.engine is not None  # engines call helpers
    program, pc = place or world.engine.place()
    world.held[key] = Taken(what, by, back, program, pc)


def reference(pointer: int) -> Hashable:
    """Return the key of a reference to an object of the kernel's."""
    return "reference", pointer


RELEASED_BY = {"task_struct": "bpf_task_release", "cgroup": "bpf_cgroup_release"}
"""The kernel functions that give back references to objects of the environment that a kptr may own."""

_PASSED_ON = "references that functions of the user's saw"


def take_out(world: World, pointer: int, by: str) -> None:
    """Note that a pointer came out of a kptr: one to an object of RELEASED_BY is to be given back."""
    described = world.environment.objects.at(pointer)
    if described is not None and described.pointer.struct in RELEASED_BY:
        struct = described.pointer.struct
        back = f"{RELEASED_BY[struct]}, or put it somewhere,"
        take(world, reference(pointer), f"a reference to a {struct}", by=by, back=back)


def pass_on(world: World, pointers: Iterable[int], result: int) -> None:
    """Note what a function of the user's was given, and returned.

    It may release the one and acquire the other: to these the program has a reference or not, as it likes.
    """
    for pointer in pointers if world.held else ():
        if world.held.pop(reference(pointer), None) is not None:
            world.kept.setdefault(_PASSED_ON, set()).add(pointer)
    if world.environment.objects.at(result) is not None:
        world.kept.setdefault(_PASSED_ON, set()).add(result)


def release(world: World, pointer: int, name: str) -> None:
    """Give a reference back. Raises ExecutionError where the program has none to an object that is there."""
    if give_back(world, reference(pointer)) or pointer in world.kept.get(_PASSED_ON, ()):
        return
    if pointer and (pointer == world.current_task or world.environment.objects.at(pointer) is not None):
        raise ExecutionError(
            f"{name} of {pointer:#x}, to which the program has no reference: one for each that it took"
        )


def give_back(world: World, key: Hashable) -> bool:
    """Note that the program gave something back; False where it did not hold it."""
    taken = world.held.get(key)
    if taken is None:
        return False
    taken.times -= 1
    if not taken.times:
        del world.held[key]
    return True


def taken(world: World, key: Hashable) -> tuple[str, str]:
    """Return where the program took what it holds (pc and line), and what gives that back."""
    found = world.held[key]
    line = found.program.line_at(found.pc)
    return f"pc {found.pc}" if line is None else f"pc {found.pc} ({line})", found.back


def check(world: World, where: str = "where the program ends") -> None:
    """Raise ExecutionError where something is still held; its pc is that of the call that took it first."""
    for first in world.held.values():
        error = ExecutionError(
            f"pc {first.pc}: {first.by} takes {first.what}, which is still held {where}: "
            f"call {first.back} on every way out",
            first.pc,
        )
        raise faults.name_line(error, first.program)


ITERATOR = re.compile(r"(bpf_iter_\w+)_(new|destroy)")
MOST_ITERATORS = 512
"""Iterators that a run has at a time: more of the smallest are not in 8 frames of 512 bytes."""

_ITERATORS = "iterators"


def of_iterators(name: str, function: Callable[..., int]) -> Callable[..., int]:
    """Return a kernel function as it is, or what begins or ends an iterator as one that says so here.

    An iterator is to be ended where it could not begin as well: it is what lies at its address that counts.
    """
    found = ITERATOR.fullmatch(name)
    if found is None:
        return function
    kind, step = found.groups()
    back = f"{kind}_destroy"

    def begin(world: World, place: int, *rest: int) -> int:
        places: set[int] = world.kept.setdefault(_ITERATORS, set())
        if place in places:
            where, ends = taken(world, (_ITERATORS, place))
            raise ExecutionError(
                f"{name} of {place:#x}, where an iterator is, since {where}: call {ends} first"
            )
        if len(places) >= MOST_ITERATORS:
            raise ExecutionError(f"{name}: the {MOST_ITERATORS + 1}th iterator at a time: end some before")
        result = function(world, place, *rest)
        places.add(place)
        take(world, (_ITERATORS, place), "an iterator", by=name, back=back)
        return result

    def end(world: World, place: int) -> int:
        result = function(world, place)
        if give_back(world, (_ITERATORS, place)):
            world.kept[_ITERATORS].discard(place)
        return result

    return begin if step == "new" else end
