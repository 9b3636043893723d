"""`ebpfjit prove`: rules of the optimizer and translators, proven by a solver."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated

from ebpfjit.cli.options import Json
from ebpfjit.cli.output import print_json
from ebpfjit.cli.parameters import Argument, Option, WrongUsage

if TYPE_CHECKING:
    from ebpfjit.prove.run import Progress

DEFAULT_SECONDS = 20.0


def prove(
    rooms: Annotated[
        list[str] | None,
        Argument(
            metavar="ROOM",
            help="ranges, verifier, algebra, passes, translators, values, reductions; all unless told.",
        ),
    ] = None,
    seconds: Annotated[
        float, Option(min=0.1, help="How long the solver has for each question.")
    ] = DEFAULT_SECONDS,
    jobs: Annotated[int, Option(min=1, help="Child processes.")] = 1,
    as_json: Json = False,
) -> None:
    """Prove the optimizer's rules and the translators right, for all numbers at 32 and 64 bits.

    Needs z3 and Triton: pip install 'ebpfjit[prove]'. Exit status 1 where anything is refuted; what the
    solver does not decide in its time is listed.
    """
    try:
        from ebpfjit.prove.run import ROOMS, ProveError, claims_of, run
    except ModuleNotFoundError as error:
        raise WrongUsage(f"{error.name} is not there: pip install 'ebpfjit[prove]'") from None
    from ebpfjit.prove.claims import Verdict
    from ebpfjit.prove.report import as_json as told
    from ebpfjit.prove.report import show

    try:
        claims = list(claims_of(rooms or list(ROOMS)))
    except ProveError as error:
        raise WrongUsage(str(error)) from None
    with _progress() as progress:
        report = run(claims, seconds, jobs, progress)
    if as_json:
        print_json(told(report))
    else:
        show(report)
    if report.interrupted:
        if not as_json:
            print("interrupted: this is what was decided so far")
        raise SystemExit(130)
    if report.of(Verdict.REFUTED):
        raise SystemExit(1)


@contextmanager
def _progress() -> Iterator[Progress]:
    """Show a bar on standard error while it is a terminal; nothing remains of it."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
    from rich.progress import Progress as RichProgress

    console = Console(stderr=True)
    columns = (BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TextColumn("{task.description}"))
    with RichProgress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("")

        def show(done: int, count: int, title: str) -> None:
            bar.update(task, completed=done, total=count, description=title)

        yield show
