"""What members of an object that a user gives are: a wrong one is said where it is given, not in a run.

KINDS = {"mtu": U32, "mac": TEXT}       and in __post_init__: check(self, KINDS)
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from operator import index
from types import NoneType
from typing import Any

from ebpfjit.record import dataclass


@dataclass(frozen=True, slots=True)
class Kind:
    """What a member is: one of `types`, said as `words`; numbers are from `least` to `most`."""

    types: Any
    words: str
    least: int | None = None
    most: int | None = None

    def check(self, name: str, value: Any) -> None:
        """Raise TypeError for a value of another type, ValueError for a number that has no room."""
        if type(value) is not self.types and not isinstance(value, self.types) and not self._counts(value):
            raise TypeError(f"{name} is {self.words}, not of type {type(value).__name__}")
        if self.least is None or self.most is None or value is None:
            return
        if not self.least <= index(value) <= self.most:
            raise ValueError(f"{name} is from {self.least} to {self.most}, not {value}")

    def _counts(self, value: Any) -> bool:
        """True for what counts as an int, where that will do."""
        return self.types in (int, (int, NoneType)) and hasattr(value, "__index__")

    def or_none(self) -> Kind:
        """Return what may be missing too."""
        return Kind((self.types, NoneType), f"{self.words} or None", self.least, self.most)


NUMBER = Kind(int, "a number")
TEXT = Kind(str, "a string")
TUPLE = Kind((tuple, list), "a tuple")
MAPPING = Kind((dict, Mapping), "a mapping")
U8, U16, U32, U64 = (Kind(int, "a number", 0, (1 << bits) - 1) for bits in (8, 16, 32, 64))
S32 = Kind(int, "a number", -(1 << 31), (1 << 31) - 1)


def check(given: object, kinds: Mapping[str, Kind]) -> None:
    """Raise TypeError or ValueError for a member that is not of its kind; what is like an int becomes one."""
    for name, kind in kinds.items():
        value = getattr(given, name)
        if type(value) is kind.types and kind.least is None:
            continue  # most are, and each run without an environment makes one
        kind.check(name, value)
        if not isinstance(value, kind.types):
            object.__setattr__(given, name, index(value))  # frozen


def check_each(name: str, values: Iterable[Any], kind: Kind) -> None:
    """Raise TypeError or ValueError for one of many that is not of its kind."""
    for value in values:
        kind.check(f"each of {name}", value)


def check_functions(what: str, given: Any) -> Iterable[tuple[int | str, Callable[..., Any]]]:
    """Return functions with the number or name of the `what` ("helper", "kfunc") that each stands for.

    Raises TypeError for what is no mapping, a key of another type, and what cannot be called.
    """
    if not isinstance(given, Mapping):
        raise TypeError(f"{what}s maps numbers or names to functions, not a {type(given).__name__}")
    for key, function in given.items():
        if not isinstance(key, int | str):
            raise TypeError(f"a {what}'s key is a number or a name, not {key!r}")
        if not callable(function):
            raise TypeError(f"{what} {key!r} cannot be called: it is of type {type(function).__name__}")
    return given.items()
