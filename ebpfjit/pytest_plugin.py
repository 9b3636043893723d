"""The pytest plugin: fixtures that load objects and run programs, each test on each engine asked for.

    ebpf_engine       the engine of this test: "jit", "interpreter" or "kernel"
    ebpf_load(path)   load(path), counted from the test's file
    ebpf_run(program, data, ...)   program.run on the engine of this test

`--ebpf-engines=interpreter,jit` runs every test that uses `ebpf_engine` or `ebpf_run` once on each.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from ebpfjit.elf.loader import Object
    from ebpfjit.program import Program
    from ebpfjit.runner import Result

ENGINES = ("jit", "interpreter", "kernel")
OPTION = "--ebpf-engines"


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add --ebpf-engines."""
    group = parser.getgroup("ebpfjit", "eBPF programs (ebpfjit)")
    group.addoption(
        OPTION,
        metavar="NAMES",
        default=ENGINES[0],
        help=f"engines to run eBPF tests on, of {', '.join(ENGINES)}; {ENGINES[0]} unless told",
    )


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Give each test that runs programs one turn for each engine."""
    if "ebpf_engine" in metafunc.fixturenames:
        metafunc.parametrize("ebpf_engine", _chosen(metafunc.config), indirect=True)


def _chosen(config: pytest.Config) -> list[str]:
    names = list(dict.fromkeys(config.getoption(OPTION).replace(",", " ").split()))
    unknown = [name for name in names if name not in ENGINES]
    if unknown or not names:
        raise pytest.UsageError(
            f"{OPTION} takes names of {', '.join(ENGINES)}, not {', '.join(unknown) or 'none'}"
        )
    return names


@pytest.fixture
def ebpf_engine(request: pytest.FixtureRequest) -> str:
    """Return the name of the engine that this test runs programs on; skip where it is not to be had."""
    name: str = getattr(request, "param", None) or _chosen(request.config)[0]  # unittest has one turn
    reason = _unavailable(name)
    if reason is not None:
        pytest.skip(f"engine {name}: {reason}")
    return name


def _unavailable(name: str) -> str | None:
    """Return why an engine cannot be used here, None where it can."""
    from ebpfjit import runtime_info

    state = runtime_info().engines[name]
    return None if state == "available" else state


@pytest.fixture(scope="module")
def ebpf_load(request: pytest.FixtureRequest) -> Callable[..., Object]:
    """Return a function that loads an object file: `ebpf_load(path)`, relative to the test's file.

    What else it is given goes to `load`: `btf=`, `maps=`, `environment=`. Each call loads anew; a fixture of
    a module or class may keep what it returns for several tests.
    """
    from ebpfjit import EbpfError, load

    def load_beside(path: str | Path, **options: Any) -> Object:
        __tracebackhide__ = True
        try:
            return load(request.path.parent / path, **options)
        except (EbpfError, OSError) as error:
            raise error.with_traceback(None) from None  # what a test shows ends at its own line

    return load_beside


@pytest.fixture
def ebpf_run(ebpf_engine: str) -> Callable[..., Result]:
    """Return a function that runs a program: `ebpf_run(program, data, context=..., limit=...)`.

    What else it is given goes to `Program.run`: `environment=`, `helpers=`, `kfuncs=`.
    """
    from ebpfjit import EbpfError

    def run(program: Program, data: Any = b"", **options: Any) -> Result:
        __tracebackhide__ = True
        try:
            return program.run(data, engine=ebpf_engine, **options)
        except EbpfError as error:
            raise error.with_traceback(None) from None  # what a test shows ends at its own line

    return run
