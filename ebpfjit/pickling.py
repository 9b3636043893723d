"""Functions of users' that travel with what they were given to, and what stays in this process.

Machine code never travels: a pickle holds bytecode and settings, and is compiled anew on arrival. A copy in
this process shares what a pickle would refuse.
"""

from __future__ import annotations

import pickle
import sys
from collections.abc import Callable, Mapping
from typing import Any, NoReturn

from ebpfjit.errors import PicklingRefused


class FunctionRefused(PicklingRefused, pickle.PicklingError):
    """A function, or memory, that cannot be sent to another process."""


class Functions(dict[Any, Any]):
    """Functions by number or name, which say themselves whether they can be pickled.

    That is by pickle; or by cloudpickle if that is in use, which then packs them whichever pickles the rest.
    Pickling raises FunctionRefused naming the first that cannot, behind `what` these are.
    """

    def __init__(self, what: str, functions: Mapping[Any, Any]) -> None:
        super().__init__(functions)
        self.what = what

    def __reduce__(self) -> tuple[Any, ...]:
        packed = False
        for name, function in self.items():
            reason = _why_not(function, pickle.dumps)
            if reason is None:
                continue
            packs = getattr(sys.modules.get("cloudpickle"), "dumps", None)
            if packs is None or _why_not(function, packs) is not None:
                raise FunctionRefused(f"{self.what} {name} ({function!r}) cannot be pickled: {reason}")
            packed = True
        if packed:
            return _unpacked, (sys.modules["cloudpickle"].dumps(dict(self)),)
        return dict, (dict(self),)

    def __deepcopy__(self, memo: dict[int, Any]) -> dict[Any, Any]:
        import copy

        return copy.deepcopy(dict(self), memo)


class Here:
    """A value that copies share; pickling raises FunctionRefused, which says `why`."""

    def __init__(self, value: Any, why: str) -> None:
        self.value = value
        self.why = why

    def __reduce__(self) -> NoReturn:
        raise FunctionRefused(self.why)

    def __deepcopy__(self, memo: object) -> Here:
        return self


def _unpacked(packed: bytes) -> dict[Any, Any]:
    """Return the functions that cloudpickle packed."""
    functions: dict[Any, Any] = pickle.loads(packed)
    return functions


def _why_not(function: Any, dumps: Callable[[Any], bytes]) -> str | None:
    """Return why a function cannot be pickled in this way, None where it can."""
    try:
        dumps(function)
    except PicklingRefused as error:
        return str(error)
    except Exception as error:  # pickling runs the object's own code
        return f"{error}; a function that a module defines at its top can be, any with cloudpickle imported"
    return None
