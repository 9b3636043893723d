"""What every map is to the rest: an address, its values' memory, and the kernel's three operations."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any, ClassVar
from weakref import WeakKeyDictionary

from ebpfjit.errors import EbpfError
from ebpfjit.program import Program
from ebpfjit.runtime.maps import copying
from ebpfjit.runtime.maps.definition import MapDefinition, MapFlag
from ebpfjit.runtime.maps.special import SpecialField
from ebpfjit.runtime.maps.storage import Storage
from ebpfjit.runtime.memory import Region
from ebpfjit.runtime.timers import Timers

if TYPE_CHECKING:
    from ebpfjit.runtime.owned import Holder

_RDONLY_PROG = int(MapFlag.RDONLY_PROG)


FIXED = frozenset({
    "definition", "address", "regions", "storage", "_storage", "value_is_stable", "is_percpu", "cpus",
    "stride", "cpu_stride", "values_offset", "keys_offset", "states_offset", "size",
    "user_start", "_memory", "_table", "_view", "_pin",
})  # fmt: skip
"""Attributes of maps that stay as they are made."""


class Map(ABC):
    """A map as helpers and the loader see it; keys and values are the bytes that programs see.

    `address` is what a program's LDDW loads: it names the map and points to nothing that the
    program may touch. `regions` is the memory of its values, where programs may follow the pointers
    that lookups give. `value_is_stable` is true where such a pointer stays good for the rest of a
    run, whatever the program does. `is_frozen` is true from when a program that refers to the map
    was prepared: it may rely on read-only values, which Python must not change any more; where it
    `is_relied_on` machine code does, and Python cannot. `refused` is what an
    object's definition of it lacks, None where it lacks nothing: no program that refers to the map is run.
    `timers` are those in its values, `holder` has the objects that hang in them: None where there never were
    any. `structs` are what programs see of it as struct bpf_map, and `id` its number, both made where one
    looks (`runtime.maps.structs`). `pointers` are those that a loader put into the values: where they are in
    the memory, and the map that each points into.
    """

    carried: ClassVar[tuple[str, ...]] = ()
    """Attributes that are contents of the map, beside its memory: what a copy has of it."""

    definition: MapDefinition
    address: int
    regions: tuple[Region, ...]
    value_is_stable: bool
    is_frozen: bool = False
    is_relied_on: bool = False
    timers: Timers | None = None
    holder: Holder | None = None
    refused: EbpfError | None = None
    structs: WeakKeyDictionary[Any, Any] | None = None
    id: int | None = None
    pointers: tuple[tuple[int, Map], ...] = ()

    def __setattr__(self, name: str, value: Any) -> None:
        """Set what may change; what machine code was made with, or points to, may not."""
        is_lasting = name in ("is_frozen", "is_relied_on") and getattr(self, name) and not value
        if (name in FIXED and hasattr(self, name)) or is_lasting:
            raise AttributeError(f"{name} of map {self.name!r} cannot be changed")
        object.__setattr__(self, name, value)

    def __delattr__(self, name: str) -> None:
        raise AttributeError(f"{name} of map {self.name!r} cannot be deleted")

    def __copy__(self) -> Map:
        """The map itself: a shallow copy would share its memory, and not know of its changes."""
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        return copying.reduced(self)

    def __setstate__(self, contents: Any) -> None:
        """Take over what `contents` of another map returned."""
        copying.fill(self, contents)

    @property
    def stays_because(self) -> str:
        """Why there can be no copy of the map in another process, "" where there can."""
        if self.timers is not None or self.holder is not None:
            return "timers, or objects of programs, are in its values"
        return ""

    @property
    def header_size(self) -> int:
        """How many bytes at the start of its memory are not contents, but where things are."""
        return 0

    @property
    def processors(self) -> tuple[int, int]:
        """How many processors the map has values for, and the number of the one that programs run on."""
        return 1, 0

    def contents(self) -> dict[str, Any]:
        """Return the attributes that are `carried`, by name."""
        return {name: getattr(self, name) for name in self.carried}

    def take_contents(self, contents: dict[str, Any]) -> None:
        """Set what `contents` returned; the memory is as it was then, at another address."""
        for name, value in contents.items():
            setattr(self, name, value)

    def __bool__(self) -> bool:
        """True, even where the map is empty: it is a thing of its own, as a file is."""
        return True

    @property
    def name(self) -> str:
        """The map's name."""
        return self.definition.name

    @property
    def is_readonly(self) -> bool:
        """True where programs may not write the values."""
        return self.definition.is_readonly or bool(self.definition.flags & _RDONLY_PROG)

    @property
    def value_address(self) -> int:
        """The address of the only value of a map of globals (LDDW_MAP_IDX_VALUE)."""
        return self.regions[0].start

    @property
    def is_steady(self) -> bool:
        """True where machine code sees the same memory in all runs, whatever processor they are on."""
        return True

    @property
    def unchanged(self) -> AbstractContextManager[Any]:
        """What `with` takes, `storage.changing` held, so that machine code changes nothing meanwhile."""
        return nullcontext()

    def shown(self, cpu: int) -> tuple[tuple[int, int], ...]:
        """Return the words (address, number) that make `cpu` the processor whose values machine code sees.

        Raises ValueError as `use_cpu`.
        """
        return ()

    @property
    def inner_maps(self) -> tuple[Map, ...]:
        """The maps that are values of this one: a program that has this map can reach them."""
        return ()

    @property
    def pins(self) -> tuple[Any, ...]:
        """What keeps the map's memory where it is, whatever becomes of the map: code has addresses in it."""
        return tuple(each.pin for each in vars(self).values() if isinstance(each, Storage))

    def use_cpu(self, cpu: int) -> None:
        """Make `cpu` the processor whose values programs see; maps without per-CPU values have none.

        Raises ValueError where the map has no values for it.
        """
        return

    def drop_events(self) -> None:
        """Take out what programs sent through the map: somebody has it already."""
        return

    def used_by(self, program: Program) -> None:
        """Note that a program refers to the map, before it is run. Raises MapError where it must not."""
        return

    def lookup_percpu(self, key: bytes, cpu: int) -> int:
        """Return the address of processor `cpu`'s value under `key`, 0 where there is none."""
        return 0

    def special_at(self, address: int) -> SpecialField | None:
        """Return the special field that starts at an address inside of the values, None where none does."""
        return None

    def entry_at(self, address: int) -> tuple[bytes, int] | None:
        """Return the key of the value around an address of the values, and where that value starts.

        None where there is none now.
        """
        return None

    def entries(self) -> Iterator[tuple[bytes, int]]:
        """Yield each key and the address of its value, as bpf_for_each_map_elem visits them.

        Entries may come and go meanwhile.
        """
        return iter(())

    @abstractmethod
    def lookup(self, key: bytes) -> int:
        """Return the address of the value under `key`, 0 where there is none."""

    @abstractmethod
    def update(self, key: bytes, value: bytes, flags: int = 0) -> int:
        """Put a value in under a key, both as bytes; return 0 or a negative error number, as the kernel does.

        `flags` are BPF_ANY, BPF_NOEXIST, BPF_EXIST (0, 1, 2) and BPF_F_LOCK. Of per-CPU kinds the running
        processor's.
        """

    @abstractmethod
    def delete(self, key: bytes) -> int:
        """Remove a key; return 0 or a negative error number, as the kernel does."""
