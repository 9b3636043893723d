"""The registry of Linux's helpers: a function registers under its name, engines get it by number.

@helper("bpf_ktime_get_ns")
def ktime_get_ns(world: World) -> int: ...

bound()[5](r1, r2, r3, r4, r5)  ->  ktime_get_ns(current world)
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType
from typing import Any, TypeVar

from ebpfjit.errors import ExecutionError
from ebpfjit.once import modules_of, once
from ebpfjit.record import dataclass
from ebpfjit.runtime import held
from ebpfjit.runtime.execution import HelperFunction
from ebpfjit.runtime.helpers.names import NAMES, NUMBERS
from ebpfjit.runtime.memory import running
from ebpfjit.runtime.world import Engine, Thrown, World

MAX_ARGUMENTS = 5

Implementation = TypeVar("Implementation", bound=Callable[..., int])


@dataclass(frozen=True, slots=True)
class Helper:
    """A helper that is there.

    `function` takes the world and `arguments` (0 to 5) u64; its result is taken modulo 2**64.
    `ends_rights` is true where memory that the program could touch before may be gone, `calls_functions`
    where it may call functions of the program (what does not say so is not let to), `asks_user` where it
    calls a function of the user's (a clock, randomness), which may do all that a helper of the user's may,
    `under_lock` where programs may call it while they hold a spin lock. `program_types` are those that Linux
    gives it to (empty: all of them), `gpl` says that it asks for a GPL license. `differs` says in a few words
    what Linux does and this one does not.
    """

    number: int
    name: str
    function: Callable[..., int]
    arguments: int
    ends_rights: bool = False
    calls_functions: bool = False
    asks_user: bool = False
    under_lock: bool = False
    program_types: frozenset[str] = frozenset()
    gpl: bool = False
    differs: str = ""


_registered: dict[int, Helper] = {}


def argument_count(function: Implementation) -> int:
    """Return how many arguments a function takes besides the world."""
    code = getattr(function, "__code__", None)
    if code is None or hasattr(function, "__wrapped__"):
        import inspect  # it takes longer to import than all helpers that most programs call

        return len(inspect.signature(function).parameters) - 1
    return int(code.co_argcount) - 1


def helper(
    *names: str,
    ends_rights: bool = False,
    calls_functions: bool = False,
    asks_user: bool = False,
    under_lock: bool = False,
    program_types: Iterable[str] = (),
    gpl: bool = False,
    differs: str = "",
) -> Callable[[Implementation], Implementation]:
    """Register a function under the names of the helpers it is (`bpf_ktime_get_ns`).

    The function is given the world and the arguments it declares, each a u64; it returns an int,
    negative error numbers as they are. Raises KeyError for a name that Linux does not have and
    ValueError for one that is taken: mistakes of ours.
    """

    def register(function: Implementation) -> Implementation:
        arguments = argument_count(function)
        for name in names:
            number = NUMBERS[name]
            if number in _registered:
                raise ValueError(f"{name} is registered already")
            _registered[number] = Helper(
                number,
                name,
                function,
                arguments,
                ends_rights=ends_rights or asks_user,
                calls_functions=calls_functions,
                asks_user=asks_user,
                under_lock=under_lock,
                program_types=frozenset(program_types),
                gpl=gpl,
                differs=differs,
            )
        return function

    return register


@once
def helpers() -> Mapping[int, Helper]:
    """Return all helpers by number. The first call imports their modules: all of this folder."""
    package = importlib.import_module("ebpfjit.runtime.helpers")
    for module in modules_of(package):
        importlib.import_module(f"{package.__name__}.{module}")
    return MappingProxyType(dict(sorted(_registered.items())))


@once
def bound() -> Mapping[int, HelperFunction]:
    """Return a function of five u64 for each helper, by number, the same ones at each call.

    Each finds the world of the run it is called from; outside of a run it raises ExecutionError.
    """
    return MappingProxyType({number: _bind(helper) for number, helper in helpers().items()})


def ours(helpers: Mapping[int, HelperFunction], *numbers: int) -> frozenset[int]:
    """Return those of the numbers that do as Linux does: what else stands for one may do anything."""
    there = [number for number in numbers if number in helpers]
    known = bound() if there else {}
    return frozenset(number for number in there if helpers[number] is known.get(number))


def _world(name: str) -> World:
    space = running()
    world = None if space is None else space.world
    if world is None:
        raise ExecutionError(f"{name} needs a world (clock, maps, packet), and this run has none")
    return world


def _unlocked_world(name: str) -> World:
    world = _world(name)
    if world.lock is not None:
        where, back = held.taken(world, held.key_of_lock(world.lock[0]))
        raise ExecutionError(f"{name} is called while {world.lock[1]} is held, since {where}: {back} first")
    return world


def engine_of(world: World) -> Engine:
    """Return the engine that runs the program."""
    assert world.engine is not None  # both engines set it before they start
    return world.engine


def _bind(helper: Helper) -> HelperFunction:
    """Return a helper as a function of five numbers."""
    function = ending(helper.function) if helper.calls_functions else helper.function
    return bind(function, helper.name, helper.arguments, under_lock=helper.under_lock)


def ending(function: Callable[..., int]) -> Callable[..., int]:
    """Return what calls functions of the program, which may end the program: then who called it exits."""

    def call(world: World, *arguments: int) -> int:
        try:
            return function(world, *arguments)
        except Thrown as thrown:
            engine_of(world).leave_program()
            return thrown.value

    call.__doc__ = function.__doc__
    return call


def bind(function: Callable[..., int], name: str, arguments: int, *, under_lock: bool) -> HelperFunction:
    """Return what is given a world as a function of five numbers, of which it passes on what is declared.

    It raises ExecutionError where a spin lock is held under which it may not be called (do_check in
    kernel/bpf/verifier.c).
    """
    find = _world if under_lock else _unlocked_world
    # One function per count: passing on *arguments would cost each call a tuple.
    by_count: tuple[HelperFunction, ...] = (
        lambda r1, r2, r3, r4, r5: function(find(name)),
        lambda r1, r2, r3, r4, r5: function(find(name), r1),
        lambda r1, r2, r3, r4, r5: function(find(name), r1, r2),
        lambda r1, r2, r3, r4, r5: function(find(name), r1, r2, r3),
        lambda r1, r2, r3, r4, r5: function(find(name), r1, r2, r3, r4),
        lambda r1, r2, r3, r4, r5: function(find(name), r1, r2, r3, r4, r5),
    )
    chosen: Any = by_count[arguments]
    chosen.__name__ = chosen.__qualname__ = name
    chosen.__doc__ = function.__doc__
    bound_function: HelperFunction = chosen
    return bound_function


def name_of(number: int) -> str:
    """Return the name of a helper, `helper 999` for a number that Linux does not have."""
    return NAMES.get(number, f"helper {number}")
