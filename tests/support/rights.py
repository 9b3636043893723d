"""Every helper under watch, in all tests: one that takes memory away says so (`ends_rights`).

Machine code relies on what accesses have shown, up to the next call of a helper that may end it. A helper
that moves, shrinks or takes away a region, or makes it read-only, and is not marked fails the test that
called it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import wraps
from typing import Any

from ebpfjit.runtime.execution import HelperFunction
from ebpfjit.runtime.helpers import table
from ebpfjit.runtime.memory import Region, running

Rights = list[tuple[Region, int, int, bool]]


def watch_helpers() -> None:
    """Put all helpers under watch from now on; before the first one is bound."""
    assert not table.bound.is_made, "helpers are in use already"
    bind = table._bind

    def bind_watched(helper: table.Helper) -> HelperFunction:
        return bind(watched(helper))

    table._bind = bind_watched


def watched(helper: table.Helper) -> table.Helper:
    """Return a helper that fails where it takes memory away and is not marked."""
    if helper.ends_rights:
        return helper

    @wraps(helper.function)
    def function(*arguments: Any) -> int:
        with keeping_rights(helper.name):
            return helper.function(*arguments)

    return replace(helper, function=function)


@contextmanager
def keeping_rights(name: str) -> Iterator[None]:
    """Fail where less of the running program's memory is there behind a block than before it."""
    before = _rights()
    try:
        yield
    finally:
        space = running()
        there = {id(region) for region in space.own} if space is not None else set()
        for region, start, stop, writable in before:
            keeps = region.start <= start and stop <= region.stop and region.writable >= writable
            keeps = keeps and id(region) in there
            assert keeps, f"{name} took memory away ({region.name}): mark it with ends_rights"


def _rights() -> Rights:
    """Return the regions of the running program but the stack, whose frames come and go."""
    space = running()
    own = space.own if space is not None else []
    return [(each, each.start, each.stop, each.writable) for each in own if each.name != "stack"]
