"""How much tests look at: a part, the same each time, or with `EBPFJIT_WHOLE=1` (make nightly) all."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TypeVar

T = TypeVar("T")
WHOLE = bool(os.environ.get("EBPFJIT_WHOLE"))


def part(values: Sequence[T], nth: int, start: int = 0) -> Sequence[T]:
    """Return every nth of the values, from one of the first on; all where all is asked for."""
    return values if WHOLE else values[start % nth :: nth]
