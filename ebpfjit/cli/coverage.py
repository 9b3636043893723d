"""--cov of the commands that run programs: what was executed, in all processes that take part."""

from __future__ import annotations

import contextlib
import functools
import sys
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Annotated, ParamSpec

from ebpfjit.cli.output import one_line
from ebpfjit.cli.parameters import Option, WrongUsage, parameters_of
from ebpfjit.errors import EbpfError

if TYPE_CHECKING:
    from ebpfjit.coverage import Coverage

P = ParamSpec("P")

Cov = Annotated[bool, Option("--cov", help="Show which lines were executed, on engines of ours.")]
CovReport = Annotated[
    str | None,
    Option(
        "--cov-report", metavar="KINDS", help="Reports of that: term, html, lcov, xml (lcov:FILE: where to)."
    ),
]


def counted(command: Callable[P, None]) -> Callable[..., None]:
    """Return a command that takes --cov and --cov-report besides."""
    own = parameters_of(command)

    @functools.wraps(command)
    def with_coverage(*arguments: P.args, **options: P.kwargs) -> None:
        cov, cov_report = bool(options.pop("cov", False)), options.pop("cov_report", None)
        assert cov_report is None or isinstance(cov_report, str)
        if (cov or cov_report is not None) and options.get("file", own["file"][1]) is None:
            raise WrongUsage("--cov is for the program of a FILE: those that are made have no lines")
        with _coverage("term" if cov and cov_report is None else cov_report, bool(options.get("as_json"))):
            command(*arguments, **options)

    with_coverage.more = {"cov": (Cov, False), "cov_report": (CovReport, None)}  # type: ignore[attr-defined]
    return with_coverage


@contextlib.contextmanager
def _coverage(said: str | None, as_json: bool) -> Iterator[None]:
    """Count meanwhile, then print and write what is asked for; a table is no part of JSON."""
    if said is None:
        yield
        return
    import tempfile

    from ebpfjit.coverage import processes, wanted

    reports = wanted(said)
    with tempfile.TemporaryDirectory(prefix="ebpf-cov-") as folder:
        processes.start(folder)
        ended: BaseException | None = None
        try:
            yield
        except BaseException as error:
            ended = error
        processes.stop()
        coverage = processes.collected(folder)
        failed = bool(ended.code) if isinstance(ended, SystemExit) else ended is not None
        if coverage.programs or not failed:  # what fails before any run leaves older reports as they are
            try:
                _report(coverage, reports, as_json)
            except (EbpfError, OSError) as error:
                if not failed:
                    raise
                print(f"ebpfjit: {one_line(error)}", file=sys.stderr)
        if ended is not None:
            raise ended


def _report(coverage: Coverage, reports: list[tuple[str, str | None]], as_json: bool) -> None:
    from ebpfjit.coverage import text, write

    for kind, to in reports:
        if kind == "term":
            print(text(coverage), end="", file=sys.stderr if as_json else sys.stdout)
        else:
            print(f"{kind}: {write(coverage, kind, to)}", file=sys.stderr)
