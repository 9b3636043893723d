"""Kernel functions: sets of processors, which programs make, count references to, and keep in kptrs.

    struct bpf_cpumask    [ a bit for each of MOST_CPUS processors ][ references, which nobody counts here ]

A set that is only read may be any struct cpumask, the kernel's too (`task->cpus_ptr`). How many processors
there are says the environment.
"""

from __future__ import annotations

from ebpfjit.bits import W32
from ebpfjit.runtime import memory, owned
from ebpfjit.runtime.kfuncs.table import kfunc
from ebpfjit.runtime.maps.special import ObjectLayout
from ebpfjit.runtime.world import World

MOST_CPUS = 8192
"""NR_CPUS of Linux's usual configurations on x86-64."""
SIZE = MOST_CPUS // 8
LAYOUT = ObjectLayout("bpf_cpumask", SIZE + 8, ())
_BACK = "bpf_cpumask_release, or put it into a kptr,"


def _all(world: World) -> int:
    """Return the set of all processors."""
    return (1 << min(world.environment.cpus, MOST_CPUS)) - 1


def _read(world: World, mask: int) -> int:
    """Return the set at an address, of those processors that there are; nothing is there: the empty set."""
    size = -(-min(world.environment.cpus, MOST_CPUS) // 64) * 8
    found = memory.find(mask, size, "load")
    data = bytes(found) if found is not None else world.foreign.read(mask, size)
    return int.from_bytes(data or b"", "little") & _all(world)


def _write(mask: int, value: int) -> None:
    memory.write(mask, value.to_bytes(SIZE, "little"))


def _bit(world: World, cpu: int) -> int:
    """Return the set of one processor, the empty one for a processor that is not there."""
    cpu = W32.wrap(cpu)
    return 1 << cpu if cpu < min(world.environment.cpus, MOST_CPUS) else 0


def _first(world: World, value: int) -> int:
    """Return the number of the first processor of a set, as many as there are for the empty set."""
    return (value & -value).bit_length() - 1 if value else world.environment.cpus


@kfunc("bpf_cpumask_create")
def create(world: World) -> int:
    """Return a new, empty set; 0 where there is no memory."""
    memory.pay(LAYOUT.size)
    return owned.new(world, LAYOUT, by="bpf_cpumask_create", back=_BACK)


@kfunc("bpf_cpumask_acquire")
def acquire(world: World, mask: int) -> int:
    """Take one more reference to a set; return it."""
    one = owned.owned_at(world, mask, "bpf_cpumask_acquire")
    one.references += 1
    owned.own(world, one, "bpf_cpumask_acquire", _BACK)
    return mask


@kfunc("bpf_cpumask_release")
def release(world: World, mask: int) -> int:
    """Give a reference to a set back."""
    owned.drop(world, owned.owned_at(world, mask, "bpf_cpumask_release"))
    return 0


@kfunc("bpf_cpumask_first")
def first(world: World, mask: int) -> int:
    """Return the first processor of a set; for the empty one, as many as there are."""
    return _first(world, _read(world, mask))


@kfunc("bpf_cpumask_first_zero")
def first_zero(world: World, mask: int) -> int:
    """Return the first processor that is not in a set; as many as there are where all are."""
    return _first(world, ~_read(world, mask) & _all(world))


@kfunc("bpf_cpumask_first_and")
def first_and(world: World, one: int, other: int) -> int:
    """Return the first processor of both sets; as many as there are for none."""
    return _first(world, _read(world, one) & _read(world, other))


@kfunc("bpf_cpumask_any_distribute", differs="always the first")
def any_distribute(world: World, mask: int) -> int:
    """Return a processor of a set; for the empty one, as many as there are."""
    return _first(world, _read(world, mask))


@kfunc("bpf_cpumask_any_and_distribute", differs="always the first")
def any_and_distribute(world: World, one: int, other: int) -> int:
    """Return a processor of both sets; as many as there are for none."""
    return _first(world, _read(world, one) & _read(world, other))


@kfunc("bpf_cpumask_set_cpu")
def set_cpu(world: World, cpu: int, mask: int) -> int:
    """Put a processor into a set."""
    _write(mask, _read(world, mask) | _bit(world, cpu))
    return 0


@kfunc("bpf_cpumask_clear_cpu")
def clear_cpu(world: World, cpu: int, mask: int) -> int:
    """Take a processor out of a set."""
    _write(mask, _read(world, mask) & ~_bit(world, cpu))
    return 0


@kfunc("bpf_cpumask_test_cpu")
def test_cpu(world: World, cpu: int, mask: int) -> int:
    """Return 1 for a processor that is in a set."""
    return int(bool(_read(world, mask) & _bit(world, cpu)))


@kfunc("bpf_cpumask_test_and_set_cpu")
def test_and_set_cpu(world: World, cpu: int, mask: int) -> int:
    """Put a processor into a set; return 1 where it was in it."""
    before = _read(world, mask)
    _write(mask, before | _bit(world, cpu))
    return int(bool(before & _bit(world, cpu)))


@kfunc("bpf_cpumask_test_and_clear_cpu")
def test_and_clear_cpu(world: World, cpu: int, mask: int) -> int:
    """Take a processor out of a set; return 1 where it was in it."""
    before = _read(world, mask)
    _write(mask, before & ~_bit(world, cpu))
    return int(bool(before & _bit(world, cpu)))


@kfunc("bpf_cpumask_setall")
def setall(world: World, mask: int) -> int:
    """Put all processors into a set."""
    _write(mask, _all(world))
    return 0


@kfunc("bpf_cpumask_clear")
def clear(world: World, mask: int) -> int:
    """Empty a set."""
    _write(mask, 0)
    return 0


@kfunc("bpf_cpumask_and")
def and_(world: World, to: int, one: int, other: int) -> int:
    """Write what is in both sets; return 1 where that is any."""
    both = _read(world, one) & _read(world, other)
    _write(to, both)
    return int(bool(both))


@kfunc("bpf_cpumask_or")
def or_(world: World, to: int, one: int, other: int) -> int:
    """Write what is in any of two sets."""
    _write(to, _read(world, one) | _read(world, other))
    return 0


@kfunc("bpf_cpumask_xor")
def xor(world: World, to: int, one: int, other: int) -> int:
    """Write what is in one of two sets."""
    _write(to, _read(world, one) ^ _read(world, other))
    return 0


@kfunc("bpf_cpumask_equal")
def equal(world: World, one: int, other: int) -> int:
    """Return 1 for sets of the same processors."""
    return int(_read(world, one) == _read(world, other))


@kfunc("bpf_cpumask_intersects")
def intersects(world: World, one: int, other: int) -> int:
    """Return 1 for sets that have a processor in common."""
    return int(bool(_read(world, one) & _read(world, other)))


@kfunc("bpf_cpumask_subset")
def subset(world: World, one: int, other: int) -> int:
    """Return 1 where all that is in the one is in the other."""
    return int(not _read(world, one) & ~_read(world, other))


@kfunc("bpf_cpumask_empty")
def empty(world: World, mask: int) -> int:
    """Return 1 for the empty set."""
    return int(not _read(world, mask))


@kfunc("bpf_cpumask_full")
def full(world: World, mask: int) -> int:
    """Return 1 for the set of all processors."""
    return int(_read(world, mask) == _all(world))


@kfunc("bpf_cpumask_copy")
def copy(world: World, to: int, source: int) -> int:
    """Write what is in another set."""
    _write(to, _read(world, source))
    return 0


@kfunc("bpf_cpumask_weight")
def weight(world: World, mask: int) -> int:
    """Return how many processors are in a set."""
    return _read(world, mask).bit_count()
