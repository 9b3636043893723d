"""One run of a program: what both engines are given, and the shape of helpers."""

from __future__ import annotations

import ctypes
import operator
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, NoReturn, Protocol

from ebpfjit.bits import U64_MASK
from ebpfjit.errors import PicklingRefused
from ebpfjit.record import dataclass, field
from ebpfjit.runtime import faults
from ebpfjit.runtime.memory import AddressSpace, Region, Stack

if TYPE_CHECKING:
    from ebpfjit.runtime.shared import SharedRegions
    from ebpfjit.runtime.world import World

HelperFunction = Callable[[int, int, int, int, int], int]

MAX_LOOPS = 8 * 1024 * 1024
"""How often may_goto falls through in one frame (Linux, BPF_MAX_LOOPS)."""

SLICE = 1 << 18
"""Instructions in a row before machine code looks at the clock: usually a tenth of a millisecond.

A quarter of a second where each takes a microsecond, as the slowest do."""

CODE_ADDRESS = 0xEBF0_0000_0000_0000
"""A function's address is this plus its pc: not canonical, so no memory ever has it."""


MAX_ARGUMENTS = 5
"""What a function takes: r1 to r5."""


def callback_arguments(arguments: Sequence[int]) -> list[int]:
    """Return r1 to r5 (u64) of a function that a helper calls: the arguments modulo 2**64, then zeros.

    Raises TypeError for more than five, or what is no integer: mistakes of the helper.
    """
    if len(arguments) > MAX_ARGUMENTS:
        raise TypeError(f"a function takes {MAX_ARGUMENTS} arguments, not {len(arguments)}")
    values = [operator.index(value) & U64_MASK for value in arguments]
    return values + [0] * (MAX_ARGUMENTS - len(values))


class NativeHelper:
    """A helper in native code: `address` is a C function of five u64 that returns u64.

    `owner` is kept alive as long as the helper. The function runs without the GIL and unchecked. Called from
    Python it takes and returns the same. Raises ValueError for an address that is not a positive u64.
    """

    _prototype = ctypes.CFUNCTYPE(ctypes.c_uint64, *[ctypes.c_uint64] * 5)

    def __init__(self, address: int, owner: object = None) -> None:
        if not 0 < address <= U64_MASK:
            raise ValueError(f"a native helper's address is a positive 64-bit number, not {address}")
        self.address = address
        self.owner = owner
        self._function = self._prototype(address)

    def __reduce__(self) -> NoReturn:
        raise PicklingRefused("native code at an address of this process stays there: register it on arrival")

    def __copy__(self) -> NativeHelper:
        return self

    def __deepcopy__(self, memo: object) -> NativeHelper:
        return self

    def __repr__(self) -> str:
        return f"<native helper at {self.address:#x}>"

    def __call__(self, r1: int, r2: int, r3: int, r4: int, r5: int) -> int:
        """Call the function from Python."""
        return int(self._function(r1, r2, r3, r4, r5))


def may_end_rights(function: HelperFunction) -> bool:
    """True for a helper of the user's that may take memory away (`runtime.memory.revoke`)."""
    return not isinstance(function, NativeHelper)


def call_helper(function: HelperFunction, arguments: tuple[int, int, int, int, int]) -> int:
    """Call a helper and return its result modulo 2**64.

    What the helper raises passes through; a result that is no integer is Python's TypeError.
    """
    return operator.index(function(*arguments)) & U64_MASK


class Headers(Protocol):
    """Where a packet's headers are: addresses that legacy packet loads count from."""

    @property
    def link(self) -> int:
        """The address of the link header."""

    @property
    def network(self) -> int:
        """The address of the network header."""


class Stops:
    """How often the runs of something were stopped; machine code reads the count at `address`."""

    __slots__ = ("_count", "address")

    def __init__(self) -> None:
        self._count = ctypes.c_uint64(0)
        self.address = ctypes.addressof(self._count)

    @property
    def count(self) -> int:
        """How often."""
        return self._count.value

    def stop(self) -> None:
        """Let all runs that have begun end with Stopped, and none that begins later."""
        self._count.value += 1

    def mark(self, count: int | None = None) -> Mark:
        """Return what a run has that begins now, or began when the count was another."""
        return Mark(self, self.count if count is None else count)


@dataclass(frozen=True, slots=True)
class Mark:
    """How often runs had been stopped when one began."""

    stops: Stops
    count: int

    def check(self) -> None:
        """Raise Stopped (without pc) where that is another number now."""
        if self.stops.count != self.count:
            raise faults.stopped(None)


@dataclass(slots=True)
class Execution:
    """The state one run starts from; made anew for each run, so runs never share it.

    `arguments` become r1 and r2; `argument` is the region that r1 points to, `packet` what legacy
    packet loads read, `headers` what negative offsets of theirs count from. `limit` counts
    instructions, None for no limit; `budget_left` is what was left of it. `instructions` is what
    the interpreter executed. `world` is what helpers see. `mark` tells whether the run is to end, None where
    nobody can stop it. `function` is what is called instead of the program's start, by its address, and its
    arguments. `shared` are regions to which others may add some meanwhile.
    """

    arguments: tuple[int, int]
    regions: list[Region]
    packet: Region | None = None
    argument: Region | None = None
    helpers: Mapping[int, HelperFunction] = field(default_factory=dict)
    kfuncs: Mapping[int, HelperFunction] = field(default_factory=dict)
    limit: int | None = None
    checked: bool = True
    stack: Stack = field(default_factory=Stack)
    instructions: int = 0
    budget_left: int | None = None
    world: World | None = None
    headers: Headers | None = None
    mark: Mark | None = None
    shared: SharedRegions | None = None
    function: tuple[int, tuple[int, ...]] | None = None

    @property
    def space(self) -> AddressSpace:
        """All the memory of this run, what is shared last."""
        space = AddressSpace([*self.regions, self.stack.region], checked=self.checked, shared=self.shared)
        space.world = self.world
        return space
