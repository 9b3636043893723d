"""What compiled functions and machines say where a helper of theirs does not pickle.

Machine code never travels: a pickle holds bytecode and settings, and is compiled anew on arrival.
"""

from __future__ import annotations

import pickle
import sys
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from ebpfjit.errors import PicklingRefused
from ebpfjit.runtime.execution import NativeHelper

Name = TypeVar("Name", int, int | str)


class FunctionRefused(PicklingRefused, pickle.PicklingError):
    """A helper, or a kernel function, that cannot be sent to another process."""


class _Carried(dict[Any, Any]):
    """Functions of which cloudpickle takes some that pickle does not: it packs them, whoever asks."""

    def __reduce__(self) -> tuple[Any, ...]:
        return _unpacked, (sys.modules["cloudpickle"].dumps(dict(self)),)

    def __deepcopy__(self, memo: object) -> dict[Any, Any]:
        return dict(self)


def _unpacked(packed: bytes) -> dict[Any, Any]:
    """Return the functions that cloudpickle packed."""
    functions: dict[Any, Any] = pickle.loads(packed)
    return functions


def checked_functions(what: str, functions: Mapping[Name, Any]) -> dict[Name, Any]:
    """Return `functions`, by number or name, if they can be pickled.

    That is by pickle; or by cloudpickle if that is in use, which then packs them whichever pickles the rest.

    Raises FunctionRefused naming the first that cannot.
    """
    carried: type[dict[Name, Any]] = dict
    for number, function in functions.items():
        reason = _why_not(function, pickle.dumps)
        if reason is None:
            continue
        packs = getattr(sys.modules.get("cloudpickle"), "dumps", None)
        if packs is None or _why_not(function, packs) is not None:
            raise FunctionRefused(f"{what} {number} ({function!r}) cannot be pickled: {reason}")
        carried = _Carried
    return carried(functions)


def _why_not(function: Any, dumps: Callable[[Any], bytes]) -> str | None:
    """Return why a function cannot be pickled in this way, None where it can."""
    if isinstance(function, NativeHelper):
        return "it is native code at an address of this process; register it anew on arrival"
    try:
        dumps(function)
    except Exception as error:  # pickling runs the object's own code
        return f"{error}; a function that a module defines at its top can be, any with cloudpickle imported"
    return None
