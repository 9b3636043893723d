"""Kernel functions: sets of processors (struct bpf_cpumask), objects that a run owns, or puts into a kptr.

A set has a bit for each processor of the environment, in words of 64; what is behind the last processor
counts for nothing. A program reads the words of one that was made here, and changes them by these functions
alone; it may also have one in memory of its own, as in Linux (kernel/bpf/cpumask.c). What is only
asked may also be a set of the kernel's (`task->cpus_ptr`), as the environment has it.
"""

from __future__ import annotations

import errno

from ebpfjit.bits import W32, W64
from ebpfjit.runtime import memory, owned
from ebpfjit.runtime.foreign import KERNEL_START
from ebpfjit.runtime.kfuncs.table import kfunc
from ebpfjit.runtime.maps.special import ObjectLayout
from ebpfjit.runtime.world import World

RELEASE = "bpf_cpumask_release"
_COUNT_SIZE = 8
"""Bytes behind the words: how many references there are (u32), and nothing."""
_LAST = "cpumask: last one that was distributed"


def _words_size(world: World) -> int:
    """Return the bytes of a set's words (bitmap_size)."""
    return (world.environment.cpus + 63) // 64 * 8


def _all(world: World) -> int:
    return (1 << world.environment.cpus) - 1


def _owned(world: World, address: int) -> memoryview | None:
    """Return the words of a set that functions here made, None where there is none at an address."""
    memory.pay(_words_size(world))
    one = owned.state_of(world).objects.get(address)
    if one is None or one.layout.released_by != RELEASE:
        return None
    return one.region.view[: one.region.size - _COUNT_SIZE]


def _read(world: World, address: int) -> int:
    """Return the processors in a set that are there. Raises MemoryFault where there is none to read."""
    words: bytes | memoryview | None = _owned(world, address)
    if words is None and address >= KERNEL_START:
        words = world.foreign.read(address, _words_size(world))
    if words is None:  # Linux takes memory of the program for the struct, which has numbers only
        words = memory.read(address, _words_size(world))
    return int.from_bytes(words, "little") & _all(world)


def _write(world: World, address: int, bits: int) -> None:
    """Change a set. Raises MemoryFault where there is none that the program may change."""
    words = _owned(world, address)
    if words is None:
        memory.write(address, bits.to_bytes(_words_size(world), "little"))
    else:  # it may be from a run with fewer processors
        words[:] = (bits & (1 << 8 * len(words)) - 1).to_bytes(len(words), "little")


def _first(world: World, bits: int, start: int = 0) -> int:
    """Return the first processor of a set from `start` on, the number of processors where there is none."""
    left = bits >> start << start
    return (left & -left).bit_length() - 1 if left else world.environment.cpus


# -- references ------------------------------------------------------------------------------------


@kfunc("bpf_cpumask_create", differs="0 for the 513th object that a run owns at a time")
def cpumask_create(world: World) -> int:
    """Return a new, empty set; 0 where there is no memory."""
    size = _words_size(world) + _COUNT_SIZE
    layout = ObjectLayout("bpf_cpumask", size, (), released_by=RELEASE)
    return owned.new(world, layout, "bpf_cpumask_create")


@kfunc("bpf_cpumask_acquire")
def cpumask_acquire(world: World, mask: int) -> int:
    """Return one reference more to a set that the program owns."""
    one = owned.owned_at(world, mask, "bpf_cpumask_acquire", RELEASE)
    one.count(1)
    owned.own(world, one, "bpf_cpumask_acquire")
    return mask


@kfunc(RELEASE)
def cpumask_release(world: World, mask: int) -> int:
    """Give a reference to a set back."""
    owned.drop(world, owned.owned_at(world, mask, RELEASE, RELEASE))
    return 0


# -- one processor ---------------------------------------------------------------------------------


def _bit(world: World, cpu: int) -> int:
    """Return a processor's bit, 0 where there is no such processor."""
    cpu = W32.wrap(cpu)
    return 1 << cpu if cpu < world.environment.cpus else 0


@kfunc("bpf_cpumask_set_cpu")
def cpumask_set_cpu(world: World, cpu: int, mask: int) -> int:
    """Put a processor into a set; none that is not there."""
    _write(world, mask, _read(world, mask) | _bit(world, cpu))
    return 0


@kfunc("bpf_cpumask_clear_cpu")
def cpumask_clear_cpu(world: World, cpu: int, mask: int) -> int:
    """Take a processor out of a set."""
    _write(world, mask, _read(world, mask) & ~_bit(world, cpu))
    return 0


@kfunc("bpf_cpumask_test_cpu")
def cpumask_test_cpu(world: World, cpu: int, mask: int) -> int:
    """Return 1 for a processor that is in a set."""
    return int(bool(_read(world, mask) & _bit(world, cpu)))


@kfunc("bpf_cpumask_test_and_set_cpu")
def cpumask_test_and_set_cpu(world: World, cpu: int, mask: int) -> int:
    """Put a processor into a set; 1 where it was in it."""
    before, bit = _read(world, mask), _bit(world, cpu)
    _write(world, mask, before | bit)
    return int(bool(before & bit))


@kfunc("bpf_cpumask_test_and_clear_cpu")
def cpumask_test_and_clear_cpu(world: World, cpu: int, mask: int) -> int:
    """Take a processor out of a set; 1 where it was in it."""
    before, bit = _read(world, mask), _bit(world, cpu)
    _write(world, mask, before & ~bit)
    return int(bool(before & bit))


@kfunc("bpf_cpumask_first")
def cpumask_first(world: World, mask: int) -> int:
    """Return the first processor in a set, the number of processors where it is empty."""
    return _first(world, _read(world, mask))


@kfunc("bpf_cpumask_first_zero")
def cpumask_first_zero(world: World, mask: int) -> int:
    """Return the first processor that is not in a set, the number of processors where all are."""
    return _first(world, _all(world) & ~_read(world, mask))


@kfunc("bpf_cpumask_first_and")
def cpumask_first_and(world: World, one: int, other: int) -> int:
    """Return the first processor that is in two sets, the number of processors where none is."""
    return _first(world, _read(world, one) & _read(world, other))


def _distributed(world: World, bits: int) -> int:
    """Return the next processor of a set behind that of the call before, going round."""
    found = _first(world, bits, world.kept.get(_LAST, 0) + 1)
    if found == world.environment.cpus:
        found = _first(world, bits)
    if found < world.environment.cpus:
        world.kept[_LAST] = found
    return found


@kfunc("bpf_cpumask_any_distribute", differs="goes round within a run; Linux goes on for all programs")
def cpumask_any_distribute(world: World, mask: int) -> int:
    """Return a processor in a set, another one at each call; the number of processors where it is empty."""
    return _distributed(world, _read(world, mask))


@kfunc("bpf_cpumask_any_and_distribute", differs="goes round within a run; Linux goes on for all programs")
def cpumask_any_and_distribute(world: World, one: int, other: int) -> int:
    """Return a processor that is in two sets, another one at each call; how many there are if none is."""
    return _distributed(world, _read(world, one) & _read(world, other))


# -- whole sets ------------------------------------------------------------------------------------


@kfunc("bpf_cpumask_setall")
def cpumask_setall(world: World, mask: int) -> int:
    """Put all processors into a set."""
    _write(world, mask, _all(world))
    return 0


@kfunc("bpf_cpumask_clear")
def cpumask_clear(world: World, mask: int) -> int:
    """Empty a set."""
    _write(world, mask, 0)
    return 0


@kfunc("bpf_cpumask_and")
def cpumask_and(world: World, to: int, one: int, other: int) -> int:
    """Let a set have what two others both have; 1 where that is anything."""
    bits = _read(world, one) & _read(world, other)
    _write(world, to, bits)
    return int(bool(bits))


@kfunc("bpf_cpumask_or")
def cpumask_or(world: World, to: int, one: int, other: int) -> int:
    """Let a set have what one of two others has."""
    _write(world, to, _read(world, one) | _read(world, other))
    return 0


@kfunc("bpf_cpumask_xor")
def cpumask_xor(world: World, to: int, one: int, other: int) -> int:
    """Let a set have what exactly one of two others has."""
    _write(world, to, _read(world, one) ^ _read(world, other))
    return 0


@kfunc("bpf_cpumask_copy")
def cpumask_copy(world: World, to: int, mask: int) -> int:
    """Let a set have what another one has."""
    _write(world, to, _read(world, mask))
    return 0


@kfunc("bpf_cpumask_equal")
def cpumask_equal(world: World, one: int, other: int) -> int:
    """Return 1 for two sets that have the same."""
    return int(_read(world, one) == _read(world, other))


@kfunc("bpf_cpumask_intersects")
def cpumask_intersects(world: World, one: int, other: int) -> int:
    """Return 1 for two sets that both have some processor."""
    return int(bool(_read(world, one) & _read(world, other)))


@kfunc("bpf_cpumask_subset")
def cpumask_subset(world: World, one: int, other: int) -> int:
    """Return 1 where another set has all that one has."""
    return int(not _read(world, one) & ~_read(world, other))


@kfunc("bpf_cpumask_empty")
def cpumask_empty(world: World, mask: int) -> int:
    """Return 1 for a set that has no processor."""
    return int(not _read(world, mask))


@kfunc("bpf_cpumask_full")
def cpumask_full(world: World, mask: int) -> int:
    """Return 1 for a set that has all processors."""
    return int(_read(world, mask) == _all(world))


@kfunc("bpf_cpumask_weight")
def cpumask_weight(world: World, mask: int) -> int:
    """Return how many processors a set has."""
    return _read(world, mask).bit_count()


@kfunc("bpf_cpumask_populate")
def cpumask_populate(world: World, to: int, words: int, size: int) -> int:
    """Let a set have the bits of some memory; 0, or -EACCES where there are too few."""
    size, needed = W64.wrap(size), _words_size(world)
    memory.check(words, size, "load")
    if size < needed:
        return -errno.EACCES
    _write(world, to, int.from_bytes(memory.read(words, needed), "little") & _all(world))
    return 0
