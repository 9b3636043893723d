"""Helpers and kernel functions of a test's own, called with what their prototypes say: maps, memory, numbers.

    fib = unittest.mock.Mock(return_value=0)
    program.run(packet, helpers=typed({"bpf_fib_lookup": fib}))
    fib.call_args.args[1][0]        # the first byte of struct bpf_fib_lookup

    lookup = unittest.mock.Mock(return_value=None)
    program.run(packet, kfuncs=typed_kfuncs(program, {"bpf_xdp_ct_lookup": lookup}))
    lookup.call_args.args[1]        # a memoryview of struct bpf_sock_tuple

Recording and asserting is unittest.mock's.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from difflib import get_close_matches
from typing import Any

from ebpfjit.arguments import Kfuncs
from ebpfjit.bits import W32, W64
from ebpfjit.elf.btf import COMPOSITES, Btf, Kind
from ebpfjit.errors import ExecutionError, InputError
from ebpfjit.named import few
from ebpfjit.program import Kfunc, Number, Program
from ebpfjit.runtime import memory
from ebpfjit.runtime.given import check_functions
from ebpfjit.runtime.helpers.maps import any_map
from ebpfjit.runtime.helpers.names import NUMBERS
from ebpfjit.runtime.kfuncs.given import result_of
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

_SIZES = ("__sz", "__szk", "_size", "_sz", "_len")
"""How arguments are called that say how many bytes are behind the pointer before them."""
_KNOWN = COMPOSITES | {Kind.INT, Kind.ENUM, Kind.ENUM64}

_Views = list[tuple[int, bytes, memoryview]]
"""Addresses that were given as memory: what was there, and what is there now."""

MOST = 1 << 20
"""Bytes behind a pointer that a function is given at most: more is no buffer of a program's."""


def typed(helpers: Kfuncs) -> dict[int | str, Function]:
    """Return functions for `helpers=`, by the names of Linux's helpers, that call these with typed arguments.

    Numbers come as the prototype has them (u32, or s32 from -2**31 on). A pointer to memory whose size
    is known (by the argument behind it, the map, or the helper) comes as a memoryview of a copy: what the
    function writes there is the program's when it returns. A null pointer is None, a map is the map. Other
    pointers (contexts, sockets, functions) are their addresses. A pointer to what is not the program's memory
    is a fault, as it is of the helper itself.

    An integer that is returned is taken modulo 2**64, None is 0. For a helper that returns a pointer, a
    buffer is memory that the program may touch for the rest of the run, read-only where the buffer is.
    Anything else ends the run with an error.

    Raises InputError for a name or number that is no helper of Linux, TypeError for what cannot be called, or
    is no mapping.
    """
    found: dict[int | str, Function] = {}
    for name, function in check_functions("helper", helpers):
        takes = prototype(name)
        if takes is None:
            raise InputError(f"Linux has no helper {name!r}{_meant(name)}")
        is_pointer = takes.returns.startswith("ptr_")
        called = Kfunc(takes.name, result=Number(is_pointer=is_pointer))
        found[name] = _Typed(called, (*takes.arguments, *_OTHERS.get(takes.name, ())), function)
    return found


def _meant(name: int | str) -> str:
    """Return which names there are, the closest where one is close."""
    close = get_close_matches(str(name), NUMBERS, 1)
    return f": did you mean {close[0]!r}?" if close else f"; names are as {few(list(NUMBERS))}"


def typed_kfuncs(program: Program, kfuncs: Kfuncs) -> dict[str, Function]:
    """Return functions for `kfuncs=`, that call these with arguments as the program's BTF declares them.

    They are given by name, or by the number that calls have. Numbers come as their types have them.
    A pointer to a struct or a number comes as a memoryview of a copy
    of what it is of; one to anything (`void *`) with as many bytes as the number behind it says, where that
    is called `..._sz`, `..._size` or `..._len`, or not named. What the function writes there is the
    program's when it returns. A null pointer is None; a pointer to what is not the program's memory (objects
    of the kernel) is its address. What is returned is as for `kfuncs=`.

    Raises InputError for a function that the program's types do not declare, TypeError for what is no
    program, what cannot be called, or is no mapping.
    """
    if not isinstance(program, Program):
        raise TypeError(f"kernel functions are those of a Program, not of a {type(program).__name__}")
    types = None if program.types is None else Btf(program.types.btf, f"program {program.name!r}: BTF")
    numbers = {number: called.name for number, called in program.kfuncs.items()}
    found: dict[str, Function] = {}
    for key, function in check_functions("kfunc", kfuncs):
        name = key if isinstance(key, str) else numbers.get(key, "")
        ids = () if types is None else types.named(name, {Kind.FUNC})
        if types is None or not ids:
            raise InputError(f"program {program.name!r} declares no kernel function {key!r}")
        declared = types.resolve(types.type(ids[0]).target)
        found[name] = _TypedKfunc(_pointers(types, name, declared.parameters), function)
    return found


def _pointers(types: Btf, function: str, parameters: Sequence[tuple[str, int]]) -> dict[int, int | None]:
    """Return which arguments are pointers, with how many bytes behind them: None where the next one says."""
    found: dict[int, int | None] = {}
    for index, (_, id) in enumerate(parameters):
        pointer = types.resolve(id)
        if pointer.kind is not Kind.PTR:
            continue
        target = types.resolve(pointer.target)
        name, behind = parameters[index + 1] if index + 1 < len(parameters) else (function, 0)
        is_nameless = name in ("", function)  # as clang 14 has it of functions that are declared only
        is_number = types.resolve(behind).kind is Kind.INT
        if is_number and name.endswith(_SIZES[:2] if target.kind in COMPOSITES else _SIZES):
            found[index] = None
        elif target.kind in _KNOWN:
            found[index] = types.size_of(target.id)
        elif is_number and is_nameless:
            found[index] = None
    return found


class _TypedKfunc:
    """A function that takes numbers, and calls another with memory where they are addresses."""

    def __init__(self, pointers: Mapping[int, int | None], function: Function) -> None:
        self.pointers, self.function = pointers, function

    def __call__(self, *numbers: int) -> Any:
        views: _Views = []
        arguments = [self._argument(index, numbers, views) for index in range(len(numbers))]
        result = self.function(*arguments)
        _write_back(views)
        return result

    def _argument(self, index: int, numbers: tuple[int, ...], views: _Views) -> Any:
        number = numbers[index]
        if index not in self.pointers:
            return number
        if not number:
            return None
        known = self.pointers[index]
        size = W32.wrap(numbers[index + 1]) if known is None else known
        try:
            return _view(number, size, views) if size <= MOST else number
        except ExecutionError:
            return number


def _write_back(views: _Views) -> None:
    for address, before, now in views:
        if now != before:
            memory.write(address, bytes(now))


class _Typed:
    """A function that takes five numbers, and calls another with what they stand for."""

    def __init__(self, called: Kfunc, takes: tuple[Argument, ...], function: Function) -> None:
        self.called, self.takes, self.function = called, takes, function

    def __call__(self, *numbers: int) -> int:
        views: _Views = []
        arguments = self._arguments(numbers, views)
        result = result_of(self.called, self.function(*arguments), "helper")
        _write_back(views)
        return result

    def _arguments(self, numbers: tuple[int, ...], views: _Views) -> list[Any]:
        """Return the arguments, and in `views` what is to be written back."""
        given: list[Any] = []
        found: Map | None = None
        for index, argument in enumerate(self.takes):
            number = numbers[index]
            kind = argument.kind
            if kind == "const_map_ptr":
                found = _map(number)
                given.append(number if found is None else found)
            elif kind not in _OF_MAPS and kind != "ptr_to_mem":
                given.append(_NUMBERS[argument.number](number))
            elif not number:
                given.append(None)
            else:
                size = self._size(index, numbers, found)
                given.append(number if size is None else _view(number, size, views))
        return given

    def _size(self, index: int, numbers: tuple[int, ...], found: Map | None) -> int | None:
        """Return how many bytes a pointer is to, None where nothing tells."""
        kind, known = self.takes[index].kind, self.takes[index].size
        if kind == "ptr_to_mem":
            size = known or W32.wrap(numbers[index + 1])
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


def _view(address: int, size: int, views: _Views) -> memoryview:
    before = memory.read(address, size)
    now = memoryview(bytearray(before))  # kept: as long as it is there, nobody makes them more or fewer bytes
    views.append((address, before, now))
    return now[:]
