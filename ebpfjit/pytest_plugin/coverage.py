"""--ebpf-cov: which lines of programs the tests executed, in all processes that they start.

Each process leaves what it counted in one folder (`ebpfjit/coverage/processes.py`), workers of xdist too, as
the environment that they inherit names it. The process that started them reports, once all have ended.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Generator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from ebpfjit.coverage import Coverage

OPTION, REPORT, LEAST = "--ebpf-cov", "--ebpf-cov-report", "--ebpf-cov-fail-under"


def add_options(group: pytest.OptionGroup) -> None:
    """Add the options of coverage."""
    group.addoption(
        OPTION, metavar="PROGRAM", action="append", nargs="?", const="",
        help="count what is executed of eBPF programs: of these (by default of all that run)",
    )  # fmt: skip
    group.addoption(
        REPORT, metavar="KINDS", action="append",
        help="reports of it: term, html, lcov, xml, the last three with a place if you like "
        "(lcov:out.lcov); by default a table in the terminal",
    )  # fmt: skip
    group.addoption(
        LEAST, metavar="PERCENT", type=float,
        help="the session fails where less of all lines and branches was executed",
    )  # fmt: skip


def is_wanted(config: pytest.Config) -> bool:
    """True where any of the options is there."""
    return any(config.getoption(option) is not None for option in (OPTION, REPORT, LEAST))


def reports_of(config: pytest.Config) -> list[tuple[str, str | None]]:
    """Return the reports that are wanted, and where to. Raises UsageError for a kind that is none."""
    from ebpfjit.coverage import wanted
    from ebpfjit.errors import InputError

    said = config.getoption(REPORT)
    try:
        return wanted(",".join(["term"] if said is None else said))
    except InputError as error:
        raise pytest.UsageError(f"{REPORT}: {error}") from None


class Session:
    """A session whose programs are counted: a plugin of its own, which is there where that is wanted."""

    def __init__(self, config: pytest.Config) -> None:
        from ebpfjit.coverage import processes

        self.processes = processes
        self.config = config
        self.reports = reports_of(config)
        self.is_worker = hasattr(config, "workerinput")
        self.coverage: Coverage | None = None
        self.failures: list[str] = []
        self.written: list[str] = []
        self.folder = ""
        if not self.is_worker:  # a worker counts since it imported the library: the environment says so
            self.folder = tempfile.mkdtemp(prefix="ebpf-cov-")
            processes.start(self.folder)

    @pytest.hookimpl(wrapper=True, trylast=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> Generator[None, object, object]:
        """Leave what was counted when workers have ended, before the summary; if it is too little, fail."""
        result = yield
        self.processes.leave()
        if not self.is_worker:
            self.coverage = self.processes.collected(self.folder, self.names())
            self.judge(self.coverage)
            if self.failures and not session.exitstatus:
                session.exitstatus = pytest.ExitCode.TESTS_FAILED
        return result

    def judge(self, coverage: Coverage) -> None:
        """Write the reports that are files, and note what makes the session fail."""
        from ebpfjit.coverage import write
        from ebpfjit.errors import EbpfError

        for kind, to in self.reports:
            if kind == "term":
                continue
            try:
                self.written.append(f"{kind}: {write(coverage, kind, to)}")
            except (EbpfError, OSError) as error:
                self.failures.append(f"{kind}: {error}")
        least = self.config.getoption(LEAST)
        if least is None:
            return
        if coverage.percent < least:
            percent = f"{coverage.percent:.2f} % were executed, less than the {least:g} % of {LEAST}"
            self.failures.append(percent)
        if self.missing(coverage) or not coverage.programs:
            which = ", ".join(self.missing(coverage)) or "any program"
            self.failures.append(f"nothing of {which} was executed, and {LEAST} asks for {least:g} %")

    def missing(self, coverage: Coverage) -> list[str]:
        """Return the names of programs that were asked for and did not run."""
        return [name for name in self.names() or () if name not in {each.name for each in coverage.programs}]

    def names(self) -> list[str] | None:
        """Return the names of the programs that count, None for all."""
        said: list[str] = self.config.getoption(OPTION) or []
        names = [name for text in said for name in text.split(",") if name]
        return names or None

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """Print the table, where the other reports are, and what is too little."""
        from ebpfjit.coverage import text

        coverage = self.coverage
        if coverage is None:
            return
        terminalreporter.section("coverage of eBPF programs")
        if any(kind == "term" for kind, _ in self.reports):
            terminalreporter.write(text(coverage))
        for line in self.written:
            terminalreporter.write_line(line)
        missing = self.missing(coverage)
        if missing:
            terminalreporter.write_line(f"no such program was run: {', '.join(missing)}", yellow=True)
        for line in self.failures:
            terminalreporter.write_line(f"FAIL: {line}", red=True)

    def pytest_unconfigure(self) -> None:
        """Take the folder away."""
        self.processes.stop()
        if self.folder:
            shutil.rmtree(self.folder, ignore_errors=True)
