"""The command line, from its arguments to an exit status.

Exit status 0: done; 1: the program or the input was refused or faulted, with one line on stderr; 2: wrong
usage; 130: interrupted; 141: nobody reads on. With --json an error is on stdout too, as {"error": ...}. Every
command imports what it needs when it runs.
"""

from __future__ import annotations

import contextlib
import gc
import io
import os
import sys
import warnings
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

from ebpfjit import failures
from ebpfjit.cli import quick
from ebpfjit.cli.output import error_json, one_line, print_json
from ebpfjit.cli.parameters import WrongUsage
from ebpfjit.errors import EbpfError

BROKEN_PIPE = 128 + 13  # SIGPIPE
"""The exit status where whoever read our output has seen enough (`| head`), as shells give other tools."""


def main() -> int:
    """Run the command line and return its exit status."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:  # whoever started us has closed it
            setattr(sys, name, open(os.devnull, mode))  # noqa: SIM115 - open until the process ends
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")
    with warnings.catch_warnings():
        warnings.showwarning = _warn
        status = _guard(lambda: _run(sys.argv[1:]))
    gc.freeze()  # Python ends by looking for cycles in all there is, which is a quarter of a short process
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return status or BROKEN_PIPE
    return status


def _warn(message: Warning | str, *_: object, **__: object) -> None:
    """Print a warning as an error is printed, without the place in our code that it comes from."""
    print(f"ebpfjit: warning: {message}", file=sys.stderr)


def _guard(command: Callable[[], object]) -> int:
    """Run `command` and return the exit status that its outcome stands for."""
    try:
        status = command()
    except SystemExit as finished:
        if isinstance(finished.__context__, BrokenPipeError):  # click makes 1 of it, and says nothing
            return BROKEN_PIPE
        return finished.code if isinstance(finished.code, int) else 0
    except BrokenPipeError:
        return BROKEN_PIPE
    except (EbpfError, OSError) as error:
        _say(error, one_line(error))
        return 1
    except KeyboardInterrupt:
        return 130
    except Exception as error:
        if failures.are_raised():
            raise
        _say(error, f"a bug of ebpfjit: {_told(error)}; {failures.RAISED} in the environment shows where")
        return 1
    return status if isinstance(status, int) else 0


def _told(error: Exception) -> str:
    message = one_line(error)
    return message if message == type(error).__name__ else f"{type(error).__name__}: {message}"


def _run(arguments: Sequence[str]) -> object:
    """Run the command that arguments name; return what it returned, or an exit status."""
    read = quick.read(arguments)
    if read is None:
        return _run_full(arguments)
    function, given = read
    try:
        return function(**given)
    except WrongUsage as error:
        wrong = error

    def refuse(*_: object) -> NoReturn:
        raise wrong  # typer, which reads the same, knows what the usage is

    return _run_full(arguments, refuse)


def _run_full(arguments: Sequence[str], *call: Callable[..., Any]) -> object:
    """Do the same by typer, which says what is wrong with arguments."""
    from ebpfjit.cli import full

    status, wrong = full.run(arguments, *call)
    if wrong is not None:
        _say(WrongUsage(wrong), wrong, on_stderr=False)
    return status


def _say(error: BaseException, message: str, *, on_stderr: bool = True) -> None:
    """Say an error on one line of stderr; with --json on stdout too, as JSON."""
    if on_stderr:
        print(f"ebpfjit: {message}", file=sys.stderr)
    if "--json" in sys.argv[1:]:
        with contextlib.suppress(BrokenPipeError):
            print_json(error_json(error, message))
