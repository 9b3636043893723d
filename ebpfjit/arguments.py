"""What the user gives a run, or compiles a program with: the same names everywhere, checked in one place.

Program.run, Program.compile, the machines, the command line, the fixtures for pytest
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, TypeAlias

from ebpfjit.errors import InputError
from ebpfjit.literals import ENGINES
from ebpfjit.record import fields
from ebpfjit.runtime.environment import Environment
from ebpfjit.runtime.execution import HelperFunction
from ebpfjit.runtime.given import check_functions
from ebpfjit.runtime.helpers.names import NUMBERS

if TYPE_CHECKING:
    from ebpfjit.runtime.kfuncs.given import Given

Helpers: TypeAlias = (
    Mapping[int, HelperFunction] | Mapping[str, HelperFunction] | Mapping[int | str, HelperFunction]
)
"""Functions that stand for helpers, by number or by Linux's name."""

KernelFunction: TypeAlias = Callable[..., Any]

Kfuncs: TypeAlias = (
    Mapping[str, KernelFunction] | Mapping[int, KernelFunction] | Mapping[int | str, KernelFunction]
)
"""Functions that stand for kernel functions, by name or by BTF id."""

_U32 = 1 << 32

OF_THE_KERNEL = frozenset({"cpu", "cpus", "gpl_only", "btf"})
"""What a test run of the kernel's can be told of an Environment; all else is as it is there."""


def check_engine(engine: str | None) -> None:
    """Raise ValueError for an engine that there is not."""
    if engine is not None and engine not in ENGINES:
        raise ValueError(f"no engine {engine!r}; there are: {', '.join(ENGINES)}")


def check_limit(limit: int | None, name: str = "limit") -> None:
    """Raise ValueError for an instruction limit that is none; 0 is one, for which nothing runs."""
    if limit is not None and (not isinstance(limit, int) or limit < 0):
        raise ValueError(f"{name} is a number of instructions, or None for no limit, not {limit!r}")


def check_repeat(repeat: int) -> None:
    """Raise ValueError for a number of runs that is none."""
    if not isinstance(repeat, int) or repeat < 1:
        raise ValueError(f"repeat is how often the program runs, at least once, not {repeat!r}")


def check_environment(environment: Environment | None) -> None:
    """Raise TypeError for what is no environment."""
    if environment is not None and not isinstance(environment, Environment):
        raise TypeError(f"environment is an Environment, not of type {type(environment).__name__}")


def check_context(context: Mapping[str, Any] | None) -> None:
    """Raise TypeError for what does not name fields."""
    if context is not None and not isinstance(context, Mapping):
        raise TypeError(f"context is a mapping of field names to numbers, not {type(context).__name__}")


def numbered(helpers: Helpers | None) -> Mapping[int, HelperFunction]:
    """Return functions that stand for helpers by number, where they may have been named as in Linux.

    Raises InputError for a name that no helper has, or a number that is no u32, TypeError for what is no
    function, or no mapping.
    """
    found: dict[int, HelperFunction] = {}
    for key, function in () if helpers is None else check_functions("helper", helpers):
        if isinstance(key, str) and key not in NUMBERS:
            raise InputError(f"Linux has no helper {key!r}; give one of your own a number that is free")
        number = NUMBERS[key] if isinstance(key, str) else key
        if not 0 <= number < _U32:
            raise InputError(f"a helper's number is from 0 to {_U32 - 1}, not {number}")
        found[number] = function
    return found


def checked_kfuncs(kfuncs: Kfuncs | None) -> Given:
    """Return functions that stand for kernel functions. Raises TypeError for what is none, or no mapping."""
    return {} if kfuncs is None else dict(check_functions("kfunc", kfuncs))


def kernel_refusal(
    *,
    helpers: object = None,
    kfuncs: object = None,
    limit: object = None,
    environment: Environment | None = None,
) -> str:
    """Return what of this the kernel cannot honour, as a sentence; "" where it honours all."""
    if kfuncs:
        return "the kernel has its own kfuncs; kfuncs= is for the other engines"
    if helpers:
        return "the kernel has its own helpers; helpers= is for the other engines"
    if limit is not None:
        return "the kernel has a limit of its own; limit= is for the other engines"
    told = _told(environment) if environment is not None else []
    return (
        f"the kernel has its own {told[0]}; Environment({told[0]}=) is for the other engines" if told else ""
    )


def _told(environment: Environment) -> list[str]:
    """Return what an environment says that the kernel has of its own, by name."""
    usual = Environment()
    names = [each.name for each in fields(Environment) if each.compare and each.name not in OF_THE_KERNEL]
    said = [name for name in names if getattr(environment, name) != getattr(usual, name)]
    return [*said, "memory"] if environment.has_memory else said
