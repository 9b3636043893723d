"""What a command's parameters are, as plain facts: each is stated once, at the command's function.

def run(file: Annotated[str, Argument(metavar="FILE")], limit: Annotated[int, Option(min=1)] = 9) -> None

A command of many parameters says them as the fields of a class, of which its function takes one (`taking`).

Help, errors and completion are typer's, which `full.py` tells them; a command that is spelled out is
read from them alone (`quick.py`), as typer takes longer than most commands do.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, get_type_hints

T = TypeVar("T")
REQUIRED: Any = object()
"""The default of a parameter that has none."""


class Option:
    """An option: its names, `--the-parameter` unless told; `min` is the least number it takes."""

    def __init__(
        self, *names: str, metavar: str | None = None, help: str = "", min: float | None = None
    ) -> None:
        self.names = names
        self.metavar = metavar
        self.help = help
        self.min = min


class Argument:
    """An argument, by its place; one that is a list takes all that there are."""

    def __init__(self, *, metavar: str, help: str = "") -> None:
        self.metavar = metavar
        self.help = help


class WrongUsage(Exception):  # noqa: N818 - what the user did, not what went wrong here
    """Options that do not go together, or do not read as what they are: status 2, with the usage."""


def taking(options: type[T]) -> Callable[[Callable[[T], None]], Callable[..., None]]:
    """Have a command's function, which takes such options, take the fields of their class by name."""

    def decorate(function: Callable[[T], None]) -> Callable[..., None]:
        def command(**given: Any) -> None:
            function(options(**given))

        command.options = options  # type: ignore[attr-defined]
        command.__doc__, command.__name__ = function.__doc__, function.__name__
        return command

    return decorate


def parameters_of(function: Callable[..., Any]) -> dict[str, tuple[Any, Any]]:
    """Return what a command's function takes by name, in order: its annotation, and its default.

    The module `inspect` says it too, and takes as long to import as a third of a short run.
    """
    own: Any = getattr(function, "__wrapped__", function)
    options = getattr(own, "options", None)
    if options is not None:
        hints = get_type_hints(options, include_extras=True)
        found = {name: (hint, getattr(options, name, REQUIRED)) for name, hint in hints.items()}
    else:
        hints, code, defaults = get_type_hints(own, include_extras=True), own.__code__, own.__defaults__ or ()
        names = code.co_varnames[: code.co_argcount]
        given = (*[REQUIRED] * (len(names) - len(defaults)), *defaults)
        found = {name: (hints[name], default) for name, default in zip(names, given, strict=True)}
    return found | getattr(function, "more", {})
