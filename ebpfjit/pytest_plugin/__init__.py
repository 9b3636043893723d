"""The pytest plugin: fixtures that load and compile objects and run programs, on each engine asked for.

    ebpf_engine                    the engine of this test: "jit", "interpreter" or "kernel"
    ebpf_load(path)                load(path), counted from the file that calls it
    ebpf_compile(path)             the object that clang makes of a C file
    ebpf_run(program, data, ...)   program.run on the engine of this test

`--ebpf-engines=interpreter,jit`, the ini option `ebpf_engines` or `@pytest.mark.ebpf_engines(...)` run every
test that uses `ebpf_engine` or `ebpf_run` once on each; without them it runs once, on the best there is.
A test that fails shows what its last runs left: results, lines printed, events, maps.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Generator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, Unpack

import pytest

from ebpfjit.pytest_plugin import coverage, engines
from ebpfjit.pytest_plugin.engines import ENGINE
from ebpfjit.pytest_plugin.ran import TITLE, Ran, kept

if TYPE_CHECKING:
    from ebpfjit.arguments import Helpers, Kfuncs
    from ebpfjit.elf.loader import Object, Source
    from ebpfjit.keywords import GivenOptions, LoadOptions
    from ebpfjit.literals import AnyBuffer, EngineName
    from ebpfjit.program import Program
    from ebpfjit.runner import Result
    from ebpfjit.runtime.environment import Environment

SHOWN = 3
"""Runs of a test that its report shows: the last ones."""

_running = pytest.StashKey["Running"]()


class Running:
    """What the plugin knows of the test that runs: its file, and what its programs did."""

    def __init__(self) -> None:
        self.path: Path | None = None
        self.ran: list[Ran] = []
        self.wrong: pytest.UsageError | None = None  # of the first mark that has one


class EbpfLoad(Protocol):
    """What `ebpf_load` is: `load`, with paths counted from the test."""

    def __call__(self, path: Source, **options: Unpack[LoadOptions]) -> Object:
        """Load the object; raises as `load`."""


class EbpfCompile(Protocol):
    """What `ebpf_compile` is: `load` of what clang makes of a C file."""

    def __call__(self, path: str | Path, *flags: str, **options: Unpack[LoadOptions]) -> Object:
        """Compile the file with clang's options `flags`, and load it."""


class EbpfRun(Protocol):
    """What `ebpf_run` is: `Program.run` on the engine of the test."""

    def __call__(
        self,
        program: Program,
        data: AnyBuffer = b"",
        *,
        limit: int | None = None,
        context: Mapping[str, Any] | None = None,
        environment: Environment | None = None,
        helpers: Helpers | None = None,
        kfuncs: Kfuncs | None = None,
        repeat: int = 1,
    ) -> Result:
        """Run the program; raises as `Program.run`."""


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add --ebpf-engines and the ini options."""
    group = parser.getgroup("ebpfjit", "eBPF programs (ebpfjit)")
    what = f"engines to run eBPF tests on, of {', '.join(engines.NAMES)}"
    group.addoption(engines.OPTION, metavar="NAMES", help=f"{what}; the best one if not told")
    parser.addini(engines.INI, f"{what}, where {engines.OPTION} does not say", type="args")
    parser.addini("ebpf_clang", "the clang that ebpf_compile starts; if not told, $CLANG or clang")
    parser.addini("ebpf_cflags", "options for clang behind those of ebpf_compile", type="args")
    coverage.add_options(group)


def pytest_configure(config: pytest.Config) -> None:
    """Look at the engines that were asked for: a wrong name ends the session before it starts."""
    config.addinivalue_line(
        "markers", "ebpf_engines(*names): run this test on these engines, whatever the command line says"
    )
    config.stash[_running] = Running()
    engines.chosen(config)
    if coverage.is_wanted(config):
        config.pluginmanager.register(coverage.Session(config), "ebpf_coverage")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Give each test that runs programs one turn for each engine, where it names none itself."""
    test = metafunc.definition
    asked = ENGINE in metafunc.fixturenames
    if not (asked or engines.may_ask_late(test)) or engines.names_its_own(test):
        return
    try:
        names = engines.of_test(test, metafunc.config)
    except pytest.UsageError:  # said once all is collected: one test's error would show no more than a place
        return
    if names:
        if not asked:
            metafunc.fixturenames.append(ENGINE)
        metafunc.parametrize(ENGINE, names, indirect=True, scope="session")


def pytest_itemcollected(item: pytest.Item) -> None:
    """Look at a test's mark; one of a TestCase, which takes no parameters, gets its first engine."""
    if item.get_closest_marker(engines.MARK) is None:
        return
    try:
        names = engines.of_test(item, item.config)
    except pytest.UsageError as error:
        running = item.config.stash[_running]
        running.wrong = running.wrong or error
    else:
        if engines.is_of_test_case(item):
            engines.set_engine(item, names[0])


def pytest_collection_modifyitems(config: pytest.Config) -> None:
    """End a session in which a mark names what is no engine, with one line."""
    wrong = config.stash[_running].wrong
    if wrong is not None and not hasattr(config, "workerinput"):
        raise wrong


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Fail a test whose mark names what is no engine: in a worker of xdist, which cannot end the session."""
    if item.config.stash[_running].wrong is None:
        return
    try:
        engines.of_test(item, item.config)
    except pytest.UsageError as error:
        wrong = str(error)
    else:
        return
    pytest.fail(wrong, pytrace=False)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, Any, Any]:
    """Forget what the programs of another test did."""
    running = item.config.stash[_running]
    running.path, running.ran = item.path, []
    return (yield)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, Any, Any]:
    """Add to the report of a failed test what its last runs left."""
    report = yield
    if report.failed:
        shown = item.config.stash[_running].ran
        last = {id(ran.program): ran for ran in shown}
        report.sections += [ran.section(shows_maps=last[id(ran.program)] is ran) for ran in shown]
    return report


@pytest.hookimpl(tryfirst=True)
def pytest_exception_interact(node: pytest.Item | pytest.Collector, report: Any) -> None:
    """Show what the runs left before --pdb stops at the failure: it is in no summary then."""
    terminal = node.config.pluginmanager.get_plugin("terminalreporter")
    if node.config.getoption("usepdb", default=False) and terminal is not None:
        for title, text in report.sections:
            if title.startswith(TITLE):
                terminal.ensure_newline()
                terminal.section(title, sep="-")
                terminal.line(text)


@pytest.fixture(scope="session")
def ebpf_engine(request: pytest.FixtureRequest) -> EngineName:
    """Return the name of the engine that this test runs programs on; skip where it is not to be had."""
    name: EngineName | None = getattr(request, "param", None)
    if name is None:  # nothing is told, or it is not a function's: a TestCase, a late getfixturevalue
        name = next(iter(engines.chosen(request.config)), None) or engines.best()
    reason = engines.why_not(name)
    if reason:
        pytest.skip(f"engine {name}: {reason}")
    return name


@pytest.fixture(scope="session")
def ebpf_load(pytestconfig: pytest.Config) -> EbpfLoad:
    """Return a function that loads an object file: `ebpf_load(path)`, relative to the file that calls it.

    A path that is not there counts from the test's own file; bytes and open files are loaded as such. What
    else it is given goes to `load`: `btf=`, `maps=`, `environment=`. Each call loads anew; a fixture of any
    scope may keep what it returns for several tests.
    """
    from ebpfjit import EbpfError, load

    def load_beside(path: Source, **options: Unpack[LoadOptions]) -> Object:
        __tracebackhide__ = True
        found: Source = path
        if isinstance(path, (str, os.PathLike)):
            found = _beside(pytestconfig, path, sys._getframe(1).f_code.co_filename)
        try:
            return load(found, **options)
        except (EbpfError, OSError) as error:
            raise error.with_traceback(None) from None  # what a test shows ends at its own line

    return load_beside


@pytest.fixture(scope="session")
def ebpf_compile(pytestconfig: pytest.Config, tmp_path_factory: pytest.TempPathFactory) -> EbpfCompile:
    """Return a function that compiles a C file and loads the object: `ebpf_compile(path, "-DPORT=9")`.

    Paths count as those of `ebpf_load`. Options for clang follow; named ones go to `load`. An object is kept
    in pytest's cache, for as long as what the preprocessor makes of the source, and the options, stay the
    same. The test is skipped without clang, and fails with clang's own words where that refuses the source.
    """
    from ebpfjit.pytest_plugin.clang import Clang

    clang = Clang(pytestconfig, tmp_path_factory)

    def compile_beside(path: str | Path, *flags: str, **options: Unpack[LoadOptions]) -> Object:
        __tracebackhide__ = True
        from ebpfjit import load

        source = _beside(pytestconfig, path, sys._getframe(1).f_code.co_filename)
        return load(clang.compile(source, flags), **options)

    return compile_beside


@pytest.fixture(scope="session")
def ebpf_run(ebpf_engine: EngineName, pytestconfig: pytest.Config) -> EbpfRun:
    """Return a function that runs a program: `ebpf_run(program, data, context=..., limit=...)`.

    What else it is given goes to `Program.run`: `environment=`, `helpers=`, `kfuncs=`, `repeat=`. What the
    kernel cannot honour (a limit, a clock, helpers) skips the test there.
    """
    from ebpfjit import EbpfError

    running = pytestconfig.stash[_running]

    def run(
        program: Program,
        data: AnyBuffer = b"",
        *,
        limit: int | None = None,
        context: Mapping[str, Any] | None = None,
        environment: Environment | None = None,
        helpers: Helpers | None = None,
        kfuncs: Kfuncs | None = None,
        repeat: int = 1,
    ) -> Result:
        __tracebackhide__ = True
        if ebpf_engine == "kernel":
            engines.skip_what_the_kernel_has(helpers, kfuncs, limit, environment)
        options: GivenOptions = {
            "limit": limit,
            "context": context,
            "environment": environment,
            "helpers": helpers,
            "kfuncs": kfuncs,
        }
        ran = Ran(program, kept(data), ebpf_engine, options)
        running.ran = [*running.ran[1 - SHOWN :], ran]
        try:
            ran.result = program.run(data, engine=ebpf_engine, repeat=repeat, **options)
        except EbpfError as error:
            ran.error = error
            raise error.with_traceback(None) from None  # what a test shows ends at its own line
        return ran.result

    return run


def _beside(config: pytest.Config, path: str | os.PathLike[str], caller: str) -> Path:
    """Return a path counted from the file that names it; from the test's own where it is not there."""
    found = Path(caller).parent / path
    test = config.stash[_running].path
    if not found.exists() and test is not None and (test.parent / path).exists():
        return test.parent / path
    return found
