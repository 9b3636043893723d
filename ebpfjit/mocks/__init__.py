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

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Any

from ebpfjit.bits import U64_MASK, W32, W64
from ebpfjit.elf.btf import COMPOSITES, Btf, Kind
from ebpfjit.errors import ExecutionError, InputError
from ebpfjit.named import few
from ebpfjit.program import Program
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

_SIZES = ("__sz", "__szk", "_size", "_sz", "_len")
"""How arguments are called that say how many bytes are behind the pointer before them."""
_KNOWN = COMPOSITES | {Kind.INT, Kind.ENUM, Kind.ENUM64}

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


def typed_kfuncs(program: Program, kfuncs: Mapping[str, Function]) -> dict[str, Function]:
    """Return functions for `kfuncs=`, that call these with arguments as the program's BTF declares them.

    Numbers come as their types have them. A pointer to a struct or a number comes as a memoryview of a copy
    of what it is of; one to anything (`void *`) with as many bytes as the number behind it says, where that
    is called `..._sz`, `..._size` or `..._len`, or not named. What the function writes there is the
    program's when it returns. A null pointer is None; a pointer to what is not the program's memory (objects
    of the kernel) is its address. What is returned is as for `kfuncs=`.

    Raises InputError for a function that the program's types do not declare, TypeError for what cannot be
    called.
    """
    types = None if program.types is None else Btf(program.types.btf, f"program {program.name!r}: BTF")
    found: dict[str, Function] = {}
    for name, function in kfuncs.items():
        ids = () if types is None else types.named(name, {Kind.FUNC})
        if types is None or not ids:
            raise InputError(f"program {program.name!r} declares no kernel function {name!r}")
        if not callable(function):
            raise TypeError(f"kfunc {name!r} cannot be called: it is of type {type(function).__name__}")
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
        views: list[tuple[int, bytes, bytearray]] = []
        arguments = [self._argument(index, numbers, views) for index in range(len(numbers))]
        result = self.function(*arguments)
        _write_back(views)
        return result

    def _argument(
        self, index: int, numbers: tuple[int, ...], views: list[tuple[int, bytes, bytearray]]
    ) -> Any:
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


def _write_back(views: Iterable[tuple[int, bytes, bytearray]]) -> None:
    for address, before, now in views:
        if now != before:
            memory.write(address, bytes(now))


class _Typed:
    """A function that takes five numbers, and calls another with what they stand for."""

    def __init__(self, takes: tuple[Argument, ...], function: Function) -> None:
        self.takes, self.function = takes, function

    def __call__(self, *numbers: int) -> int:
        views: list[tuple[int, bytes, bytearray]] = []
        arguments = self._arguments(numbers, views)
        result = self.function(*arguments)
        _write_back(views)
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
