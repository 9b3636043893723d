"""What a run has taken and must give back before it ends: spin locks, ring buffer records, sockets.

Linux's verifier refuses a program with a way out that forgets one; here the run ends with an error that
names the place where it was taken. A helper calls `take` and `give_back`; `check` is called at the end.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass

from ebpfjit.errors import ExecutionError
from ebpfjit.program import Program
from ebpfjit.runtime import faults
from ebpfjit.runtime.world import World

LOCK = "spin lock"
"""The key of the lock that is held; which it is is in `World.lock`."""


@dataclass(frozen=True, slots=True)
class Taken:
    """Something that is held: in words, by which helper it was taken, which gives it back, and where.

    `pc` is the slot of the helper's call in `program`.
    """

    what: str
    by: str
    back: str
    program: Program
    pc: int


def take(world: World, key: Hashable, what: str, *, by: str, back: str) -> None:
    """Note that the program has taken something; what is taken twice under a key is given back twice."""
    assert world.engine is not None  # engines call helpers
    program, pc = world.engine.place()
    world.held.setdefault(key, []).append(Taken(what, by, back, program, pc))


def give_back(world: World, key: Hashable) -> bool:
    """Note that the program gave something back; False where it did not hold it."""
    places = world.held.get(key)
    if not places:
        return False
    places.pop()
    if not places:
        del world.held[key]
    return True


def taken(world: World, key: Hashable) -> tuple[str, str]:
    """Return where the program took the last of what it holds (pc and line), and what gives that back."""
    last = world.held[key][-1]
    line = last.program.line_at(last.pc)
    return f"pc {last.pc}" if line is None else f"pc {last.pc} ({line})", last.back


def check(world: World, where: str = "where the program ends") -> None:
    """Raise ExecutionError where something is still held; its pc is that of the call that took it first."""
    for places in world.held.values():
        first = places[0]
        error = ExecutionError(
            f"pc {first.pc}: {first.by} takes {first.what}, which is still held {where}: "
            f"call {first.back} on every way out",
            first.pc,
        )
        raise faults.name_line(error, first.program)
