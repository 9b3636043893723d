"""The example objects: the engines and the kernel agree on verdict, packet, maps and events."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.packets import packets

from ebpfjit import Environment, kernel, load
from ebpfjit.options import Options
from ebpfjit.ready import ready
from ebpfjit.runner import Result

OBJECTS = sorted((Path(__file__).parents[2] / "examples" / "packets").glob("*.o"))
FIXED = Environment(clock=lambda: 1_000_000_000, random=lambda: 4)
KERNEL_CLOCK = {"rate_limiter"}
"""Objects that go by the kernel's time: only their first run can be foretold, without the maps."""


def programs() -> Iterator[Any]:
    """Yield (path, name of the program)."""
    for path in OBJECTS:
        for name in load(path).programs:
            yield pytest.param(path, name, id=f"{path.stem}-{name}")


def contents(obj: Any) -> dict[str, Any]:
    """Return what an object's maps hold."""
    found: dict[str, Any] = {}
    for name, each in obj.maps.items():
        if hasattr(each, "items"):
            found[name] = sorted((key, value) for key, value in each.items() if value is not None)
    return {name: [(key, str(value)) for key, value in items] for name, items in found.items()}


def state(path: Path, name: str, engine: str, *, audit: bool = False) -> list[tuple[Any, ...]]:
    """Run all packets, one after the other on the same maps; return what each run left."""
    obj = load(path, environment=FIXED)
    for program in obj.programs.values():  # those that are tail called too
        ready(program).options = Options(audit=audit)
    states = []
    for packet in packets().values():
        result: Result = obj.programs[name].run(packet, engine=engine)
        events = [(map_name, data.rstrip(b"\0")) for map_name, data in result.events]
        states.append((result.return_value, result.action, result.data, events, contents(obj)))
    return states


@pytest.mark.parametrize(("path", "name"), list(programs()))
def test_both_engines_agree(path: Path, name: str) -> None:
    oracle = state(path, name, "interpreter")
    assert state(path, name, "jit") == oracle
    assert state(path, name, "jit", audit=True) == oracle


@pytest.mark.skipif(kernel.unavailable_reason() is not None, reason=str(kernel.unavailable_reason()))
@pytest.mark.parametrize(("path", "name"), list(programs()))
def test_the_kernel_agrees(path: Path, name: str) -> None:
    theirs, ours = state(path, name, "kernel"), state(path, name, "interpreter")
    if path.stem in KERNEL_CLOCK:
        theirs, ours = ([rows[0][:4]] for rows in (theirs, ours))
    assert ours == theirs
