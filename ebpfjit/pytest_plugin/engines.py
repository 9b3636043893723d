"""Which engines a test runs on: named on the command line, in the ini file or at the test."""

from __future__ import annotations

from collections.abc import Iterable

import pytest

NAMES = ("jit", "interpreter", "kernel")
OPTION = "--ebpf-engines"
INI = MARK = "ebpf_engines"


def chosen(config: pytest.Config) -> list[str]:
    """Return the engines that all tests run on, [] where nothing says. Raises UsageError for a wrong name."""
    given = config.getoption(OPTION)
    if given is not None:
        return _known(given.replace(",", " ").split(), OPTION)
    ini: list[str] = config.getini(INI)
    return _known(" ".join(ini).replace(",", " ").split(), INI) if ini else []


def of_test(item: pytest.Item | pytest.Function, config: pytest.Config) -> list[str]:
    """Return the engines of one test: those of its mark, or of all tests."""
    mark = item.get_closest_marker(MARK)
    if mark is None:
        return chosen(config)
    try:
        return _known(mark.args, f"{item.nodeid}: @pytest.mark.{MARK}")
    except pytest.UsageError as error:
        raise pytest.Collector.CollectError(str(error)) from None


def _known(names: Iterable[str], who: str) -> list[str]:
    found = list(dict.fromkeys(names))
    unknown = [str(name) for name in found if name not in NAMES]
    if unknown or not found:
        wrong = ", ".join(unknown) or "none"
        raise pytest.UsageError(f"{who} takes names of {', '.join(NAMES)}, not {wrong}")
    return found


def best() -> str:
    """Return the engine that runs programs where nothing is said."""
    return "jit" if why_not("jit") is None else "interpreter"


def why_not(name: str) -> str | None:
    """Return why an engine cannot be used here, None where it can."""
    from ebpfjit import runtime_info

    state = runtime_info().engines[name]
    return None if state == "available" else state
