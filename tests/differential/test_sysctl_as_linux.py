"""cgroup/sysctl programs: what helpers tell them, and what becomes of values, as where Linux calls them."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

import ebpfjit
from tests.support import cgroups

ELF = Path(__file__).parents[1] / "elf"
NAME = "net/ipv4/ip_default_ttl"
VARIABLE = Path("/proc/sys", NAME)
needs_cgroups = pytest.mark.skipif(cgroups.why_not() is not None, reason=str(cgroups.why_not()))

STEPS: tuple[tuple[str, bytes | None], ...] = (
    ("look", None), ("look", b"-61\n"), ("look", b"5" * 40), ("refuse", None), ("change", None),
    ("change", b"62"), ("move", None),
)  # fmt: skip
"""Which program is there, and what is done: the variable is read, or this is written to it."""


def variables(loaded: ebpfjit.Object) -> dict[str, Any]:
    return {name: loaded.globals[name] for name in loaded.globals if name not in ("runs", "_license")}


def what_linux_does(group: Path, loaded: ebpfjit.Object) -> list[tuple[bytes, Any, dict[str, Any], bytes]]:
    """Return for each step: the value before, what is read or the error, variables, the value after."""
    seen = []
    for name, value in STEPS:
        before = VARIABLE.read_bytes()
        with cgroups.attached(group, loaded.programs[name]):
            file = os.open(VARIABLE, os.O_RDWR)
            try:
                answer = os.read(file, 100) if value is None else os.write(file, value)
            except OSError as error:
                answer = error.errno
            finally:
                os.close(file)
        seen.append((before, answer, variables(loaded), VARIABLE.read_bytes()))
    return seen


@needs_cgroups
def test_helpers_tell_what_linux_tells() -> None:
    loaded = ebpfjit.load(ELF / "sysctl.o")
    seen = cgroups.in_a_cgroup(lambda group: what_linux_does(group, loaded))
    for (name, value), (before, answer, left, after) in zip(STEPS, seen, strict=True):
        context: dict[str, Any] = {"write": int(value is not None), "name": NAME, "current_value": before}
        if value is not None:
            context["new_value"] = value
        for engine in ("interpreter", "jit"):
            result = loaded.programs[name].run(context=context, engine=engine)
            assert variables(loaded) == left, (name, value, engine)
            assert (result.return_value == 0) == (answer == 1)  # EPERM
            if name == "change" and value is not None:
                assert after == bytes(result.context["new_value"]) + b"\n"
            if name == "move":  # the value is told to whoever reads from the first byte on
                assert (result.context["file_pos"], answer) == (1, b"")
