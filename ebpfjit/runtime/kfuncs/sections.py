"""Kernel functions: stretches of a program in which something is kept from happening.

One run has its thread for itself and nothing is freed under it, so that nothing has to be done; but each is
to be left again, in order, before the program ends.
"""

from __future__ import annotations

from ebpfjit.errors import ExecutionError
from ebpfjit.runtime import held, memory
from ebpfjit.runtime.kfuncs.table import kfunc
from ebpfjit.runtime.world import World

FLAGS = 0x246
"""RFLAGS with interrupts enabled, as bpf_local_irq_save finds them."""

MOST_SAVED = 64
"""How often interrupts are kept out at a time: what they were is in a program's frames, 8 bytes each."""

_RCU, _PREEMPTION, _INTERRUPTS = "RCU", "preemption", "interrupts"


def _leave(world: World, key: str, name: str, first: str) -> int:
    if not held.give_back(world, key):
        raise ExecutionError(f"{name} without {first}: there is nothing to leave")
    return 0


@kfunc("bpf_rcu_read_lock")
def rcu_read_lock(world: World) -> int:
    """Enter a stretch in which what RCU protects stays."""
    held.take(world, _RCU, "the RCU read lock", by="bpf_rcu_read_lock", back="bpf_rcu_read_unlock")
    return 0


@kfunc("bpf_rcu_read_unlock")
def rcu_read_unlock(world: World) -> int:
    """Leave it."""
    return _leave(world, _RCU, "bpf_rcu_read_unlock", "bpf_rcu_read_lock")


@kfunc("bpf_preempt_disable")
def preempt_disable(world: World) -> int:
    """Enter a stretch in which nothing else runs on the processor."""
    held.take(world, _PREEMPTION, "the processor", by="bpf_preempt_disable", back="bpf_preempt_enable")
    return 0


@kfunc("bpf_preempt_enable")
def preempt_enable(world: World) -> int:
    """Leave it."""
    return _leave(world, _PREEMPTION, "bpf_preempt_enable", "bpf_preempt_disable")


def check_flags(world: World, place: int, name: str) -> None:
    """Raise where flags cannot be kept at an address: ExecutionError, or MemoryFault."""
    places: list[tuple[int, str]] = world.kept.get(_INTERRUPTS, [])
    if any(place == other for other, _ in places):
        raise ExecutionError(f"{name} to {place:#x}, which holds flags already")
    if len(places) >= MOST_SAVED:
        raise ExecutionError(f"{name}, the {MOST_SAVED + 1}th in a row: restore some before")
    memory.check(place, 8, "store")


def save_flags(world: World, place: int, by: str, back: str) -> None:
    """Enter a stretch without interrupts. Raises as `check_flags`."""
    check_flags(world, place, by)
    memory.write(place, FLAGS.to_bytes(8, "little"))
    held.take(world, (_INTERRUPTS, place), "interrupts", by=by, back=back)
    world.kept.setdefault(_INTERRUPTS, []).append((place, back))


def check_restore(world: World, place: int, name: str) -> None:
    """Raise where a stretch is not the one that was entered last, to be left by this kernel function."""
    places: list[tuple[int, str]] = world.kept.get(_INTERRUPTS, [])
    if not places or places[-1][0] != place:
        raise ExecutionError(f"{name} of {place:#x}: the last save was elsewhere")
    if places[-1][1] != name:
        raise ExecutionError(f"{name} of {place:#x}: it is for {places[-1][1]} to restore")
    memory.check(place, 8, "load")


def restore_flags(world: World, place: int, name: str) -> None:
    """Leave the stretch that was entered last. Raises as `check_restore`."""
    check_restore(world, place, name)
    world.kept[_INTERRUPTS].pop()
    held.give_back(world, (_INTERRUPTS, place))


@kfunc("bpf_local_irq_save")
def local_irq_save(world: World, place: int) -> int:
    """Enter a stretch without interrupts; what was so before is kept at an address (u64)."""
    save_flags(world, place, "bpf_local_irq_save", "bpf_local_irq_restore")
    return 0


@kfunc("bpf_local_irq_restore")
def local_irq_restore(world: World, place: int) -> int:
    """Leave the stretch that was entered last."""
    restore_flags(world, place, "bpf_local_irq_restore")
    return 0
