"""What compiled functions and machines say where a helper of theirs does not pickle.

Machine code never travels: a pickle holds bytecode and settings, and is compiled anew on arrival.
"""

from __future__ import annotations

import pickle
import sys
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from ebpfjit.runtime.execution import NativeHelper

Name = TypeVar("Name", int, int | str)


def checked_functions(what: str, functions: Mapping[Name, Any]) -> dict[Name, Any]:
    """Return `functions`, by number or name, if they can be pickled.

    That is by pickle, or by cloudpickle if that is in use.

    Raises pickle.PicklingError naming the first that cannot.
    """
    for number, function in functions.items():
        reason = _why_not(function)
        if reason is not None:
            raise pickle.PicklingError(f"{what} {number} ({function!r}) cannot be pickled: {reason}")
    return dict(functions)


def _why_not(function: Any) -> str | None:
    if isinstance(function, NativeHelper):
        return "it is native code at an address of this process; register it anew on arrival"
    error: Exception | None = None
    for dumps in _picklers():
        try:
            dumps(function)
        except Exception as raised:  # pickling runs the object's own code
            error = error or raised
        else:
            return None
    return f"{error}; a function that a module defines at its top can be"


def _picklers() -> list[Callable[[Any], bytes]]:
    """Return what may be pickling: Dask and Ray use cloudpickle, which takes more than pickle does."""
    cloudpickle = sys.modules.get("cloudpickle")
    return [pickle.dumps, cloudpickle.dumps] if cloudpickle is not None else [pickle.dumps]
