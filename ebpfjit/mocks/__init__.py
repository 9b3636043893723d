"""Helpers of a test's own, called with what their prototypes say: maps, memory, signed numbers.

    fib = unittest.mock.Mock(return_value=0)
    program.run(packet, helpers=typed({"bpf_fib_lookup": fib}))
    fib.call_args.args[1][0]        # the first byte of struct bpf_fib_lookup

Recording and asserting is unittest.mock's.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

from ebpfjit.bits import U64_MASK, W32, W64
from ebpfjit.errors import ExecutionError, InputError
from ebpfjit.named import few
from ebpfjit.runtime import memory
from ebpfjit.runtime.helpers.maps import any_map
from ebpfjit.runtime.helpers.names import NUMBERS
from ebpfjit.runtime.maps.base import Map
from ebpfjit.runtime.world import current
from ebpfjit.verifier.prototypes import Argument, prototype

Function = Callable[..., Any]
_NUMBERS: Mapping[str, Callable[[int], int]] = {
    "u64": W64.wrap,
    "u32": W32.wrap,
    "u16": lambda value: value & 0xFFFF,
    "s32": W32.signed,
}
_OF_MAPS = frozenset({"ptr_to_map_key", "ptr_to_map_value"})
_OTHERS: Mapping[str, tuple[Argument, ...]] = {
    "bpf_get_branch_snapshot": (Argument("anything"),),
    "bpf_get_cgroup_classid": (Argument("ptr_to_ctx"),),
}
"""Arguments behind those of the prototype: Linux's verifier does not know them, or not in all programs."""

MOST = 1 << 20
"""Bytes behind a pointer that a function is given at most: more is no buffer of a program's."""


def typed(helpers: Mapping[str, Function]) -> dict[int | str, Function]:
    """Return functions for `helpers=`, by the names of Linux's helpers, that call these with typed arguments.

    Numbers come as the prototype has them (u32, or s32 from -2**31 on). A pointer to memory whose size
    is known (by the argument behind it, or by the map) comes as a memoryview of a copy: what the function
    writes there is the program's when it returns. A null pointer is None, a map is the map. Other pointers
    (contexts, sockets, functions) are their addresses. None that is returned is 0, everything else is taken
    modulo 2**64. A pointer to what is not the program's memory is a fault, as it is of the helper itself.

    Raises InputError for a name that is no helper of Linux, TypeError for what cannot be called.
    """
    found: dict[int | str, Function] = {}
    for name, function in helpers.items():
        takes = prototype(name)
        if takes is None:
            raise InputError(f"Linux has no helper {name!r}; names are as {few(list(NUMBERS))}")
        if not callable(function):
            raise TypeError(f"helper {name!r} cannot be called: it is of type {type(function).__name__}")
        found[name] = _Typed((*takes.arguments, *_OTHERS.get(name, ())), function)
    return found


class _Typed:
    """A function that takes five numbers, and calls another with what they stand for."""

    def __init__(self, takes: tuple[Argument, ...], function: Function) -> None:
        self.takes, self.function = takes, function

    def __call__(self, *numbers: int) -> int:
        views: list[tuple[int, bytes, bytearray]] = []
        arguments = self._arguments(numbers, views)
        result = self.function(*arguments)
        for address, before, now in views:
            if now != before:
                memory.write(address, bytes(now))
        return 0 if result is None else int(result) & U64_MASK

    def _arguments(self, numbers: tuple[int, ...], views: list[tuple[int, bytes, bytearray]]) -> list[Any]:
        """Return the arguments, and in `views` what is to be written back."""
        given: list[Any] = []
        found: Map | None = None
        for index, argument in enumerate(self.takes):
            number = numbers[index]
            kind = argument.kind
            if kind == "const_map_ptr":
                found = _map(number)
                given.append(number if found is None else found)
            elif kind not in _OF_MAPS and (kind != "ptr_to_mem" or argument.size):
                given.append(_NUMBERS[argument.number](number))
            elif not number:
                given.append(None)
            else:
                size = self._size(index, numbers, found)
                given.append(number if size is None else _view(number, size, views))
        return given

    def _size(self, index: int, numbers: tuple[int, ...], found: Map | None) -> int | None:
        """Return how many bytes a pointer is to, None where nothing tells."""
        kind = self.takes[index].kind
        if kind == "ptr_to_mem":
            size = W32.wrap(numbers[index + 1])
            return size if size <= MOST else None
        if found is None:
            return None
        return found.definition.key_size if kind == "ptr_to_map_key" else found.definition.value_size


def _map(address: int) -> Map | None:
    world = current()
    if world is None:
        return None
    with suppress(ExecutionError):
        return any_map(world, address, "a mock")
    return None


def _view(address: int, size: int, views: list[tuple[int, bytes, bytearray]]) -> memoryview:
    before = memory.read(address, size)
    now = bytearray(before)
    views.append((address, before, now))
    return memoryview(now)
