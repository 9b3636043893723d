"""The registry of kernel functions: one registers under its name in Linux, engines get it by BTF id.

@kfunc("bpf_iter_num_next")
def iter_num_next(world: World, place: int) -> int: ...

functions_of(program)[id](r1, r2, r3, r4, r5)  ->  iter_num_next(current world, r1)
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import TypeVar

from ebpfjit.once import modules_of, once
from ebpfjit.program import Program
from ebpfjit.record import dataclass
from ebpfjit.runtime import held
from ebpfjit.runtime.execution import HelperFunction
from ebpfjit.runtime.helpers.table import argument_count, bind, ending

Implementation = TypeVar("Implementation", bound=Callable[..., int])


@dataclass(frozen=True, slots=True)
class KernelFunction:
    """A kernel function that is there.

    `function` takes the world and `arguments` (0 to 5) u64; its result is taken modulo 2**64. It may be
    called while a spin lock is held where it is `under_lock`. Where it `leads_out`, what it returns points to
    memory that is the kernel's, not the program's. `differs` says in a few words what Linux does and this one
    does not.
    """

    name: str
    function: Callable[..., int]
    arguments: int
    under_lock: bool = False
    leads_out: bool = False
    differs: str = ""


_registered: dict[str, KernelFunction] = {}


def kfunc(
    *names: str, under_lock: bool = False, leads_out: bool = False, differs: str = ""
) -> Callable[[Implementation], Implementation]:
    """Register a function under the names of the kernel functions it is (`bpf_iter_num_new`).

    The function is given the world and the arguments it declares, each a u64; it returns an int,
    negative error numbers as they are. Raises ValueError for a name that is taken: a mistake of ours.
    """

    def register(function: Implementation) -> Implementation:
        arguments = argument_count(function)
        for name in names:
            if name in _registered:
                raise ValueError(f"{name} is registered already")
            _registered[name] = KernelFunction(name, function, arguments, under_lock, leads_out, differs)
        return function

    return register


@once
def kfuncs() -> Mapping[str, KernelFunction]:
    """Return all kernel functions by name. The first call imports their modules: all of this folder."""
    package = importlib.import_module("ebpfjit.runtime.kfuncs")
    for module in modules_of(package):
        importlib.import_module(f"{package.__name__}.{module}")
    return MappingProxyType(dict(sorted(_registered.items())))


@once
def bound() -> Mapping[str, HelperFunction]:
    """Return a function of five u64 for each, by name, the same ones at each call.

    Each finds the world of the run it is called from; outside of a run it raises ExecutionError.
    """
    return MappingProxyType(
        {
            name: bind(
                ending(held.of_iterators(name, each.function)),
                name,
                each.arguments,
                under_lock=each.under_lock,
            )
            for name, each in kfuncs().items()
        }
    )


def functions_of(program: Program) -> dict[int, HelperFunction]:
    """Return those that a program calls and that are there, by the imm of their calls."""
    return {
        number: bound()[called.name] for number, called in program.kfuncs.items() if called.name in bound()
    }
