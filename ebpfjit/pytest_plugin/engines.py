"""Which engines a test runs on: named on the command line, in the ini file or at the test."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

import pytest

from ebpfjit.literals import ENGINES, EngineName, named_engine

if TYPE_CHECKING:
    from ebpfjit.arguments import Helpers, Kfuncs
    from ebpfjit.runtime.environment import Environment

NAMES = ENGINES
OPTION = "--ebpf-engines"
INI = MARK = "ebpf_engines"
ENGINE = "ebpf_engine"
"""The fixture."""


def chosen(config: pytest.Config) -> list[EngineName]:
    """Return the engines that all tests run on, [] where nothing says. Raises UsageError for a wrong name."""
    given = config.getoption(OPTION)
    if given is not None:
        return _known(given.replace(",", " ").split(), OPTION)
    ini: list[str] = config.getini(INI)
    return _known(" ".join(ini).replace(",", " ").split(), INI) if ini else []


def of_test(item: pytest.Item, config: pytest.Config) -> list[EngineName]:
    """Return the engines of one test: of its mark, or of all tests. Raises UsageError for a wrong name."""
    mark = item.get_closest_marker(MARK)
    if mark is None:
        return chosen(config)
    given = [*mark.args, *(f"{name}={value!r}" for name, value in mark.kwargs.items())]
    return _known(given, f"{item.nodeid}: @pytest.mark.{MARK}")


def may_ask_late(test: pytest.Function) -> bool:
    """Tell whether a marked test may ask for the fixture while it runs, by `request.getfixturevalue`."""
    if test.get_closest_marker(MARK) is None:
        return False
    own = any(mark.name == MARK for mark in test.own_markers)
    return own or "request" in inspect.signature(test.obj).parameters


def names_its_own(test: pytest.Function) -> bool:
    """Tell whether a test's own parameters say which engines it runs on."""
    for mark in test.iter_markers("parametrize"):
        names = mark.args[0] if mark.args else mark.kwargs.get("argnames", ())
        if ENGINE in (names.replace(",", " ").split() if isinstance(names, str) else names):
            return True
    return False


def is_of_test_case(item: pytest.Item) -> bool:
    """Tell whether a test is a method of a unittest.TestCase."""
    unittest = sys.modules.get("unittest")
    cls = getattr(item, "cls", None)
    return unittest is not None and isinstance(cls, type) and issubclass(cls, unittest.TestCase)


def set_engine(item: pytest.Item, name: EngineName) -> None:
    """Give a test the parameter that pytest gives functions alone; the fixture follows it."""
    from _pytest.python import CallSpec2
    from _pytest.scope import Scope

    item.callspec = CallSpec2({ENGINE: name}, {ENGINE: 0}, {ENGINE: Scope.Session})  # type: ignore[attr-defined]


def _known(names: Sequence[object], who: str) -> list[EngineName]:
    unknown = [str(name) for name in names if name not in NAMES]
    if unknown or not names:
        wrong = ", ".join(unknown) or "none"
        raise pytest.UsageError(f"{who} takes names of {', '.join(NAMES)}, not {wrong}")
    return [named_engine(str(name)) for name in dict.fromkeys(names)]


def best() -> EngineName:
    """Return the engine that runs programs where nothing is said."""
    from ebpfjit.engines import best_engine

    return best_engine()


def why_not(name: EngineName) -> str:
    """Return why an engine cannot be used here, "" where it can."""
    from ebpfjit.engines import unavailable

    return unavailable(name)


def skip_what_the_kernel_has(
    helpers: Helpers | None, kfuncs: Kfuncs | None, limit: int | None, environment: Environment | None
) -> None:
    """Skip a test that runs a program in the kernel with what that cannot honour."""
    from ebpfjit.arguments import kernel_refusal

    refusal = kernel_refusal(helpers=helpers, kfuncs=kfuncs, limit=limit, environment=environment)
    if refusal:
        pytest.skip(f"engine kernel: {refusal}")
