"""Tests over a table: one test, which goes through all rows and names every one that fails.

`@over("a, b", table)` stands where `@pytest.mark.parametrize` would, where rows are many and small.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import pytest

SHOWN = 20


Parameters = type(pytest.param())


def _values(row: Any, count: int) -> tuple[Any, ...]:
    if isinstance(row, Parameters):
        assert not row.marks, "marks are for parameters"
        return tuple(row.values)
    return (row,) if count == 1 else tuple(row)


def over(
    names: str | Sequence[str], table: Iterable[Any]
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Let a test run for each row; what else it takes are fixtures, or rows of another table."""
    keys = [name.strip() for name in names.split(",")] if isinstance(names, str) else list(names)
    rows = [_values(row, len(keys)) for row in table]

    def decorate(test: Callable[..., None]) -> Callable[..., None]:
        @functools.wraps(test)
        def every_row(**others: Any) -> None:
            wrong = []
            for values in rows:
                try:
                    test(**dict(zip(keys, values, strict=True)), **others)
                except (Exception, pytest.fail.Exception) as error:
                    wrong.append(f"{', '.join(map(repr, values))[:300]}: {type(error).__name__}: {error}")
            assert rows, "there are no rows"
            assert not wrong, f"{len(wrong)} of {len(rows)} rows:\n" + "\n".join(wrong[:SHOWN])

        signature = inspect.signature(test)
        left = [one for name, one in signature.parameters.items() if name not in keys]
        every_row.__signature__ = signature.replace(parameters=left)  # type: ignore[attr-defined]
        return every_row

    return decorate
