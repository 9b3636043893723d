"""The command line as typer has it: help, what is wrong with arguments, completion of the shell's.

It is made of what the commands' functions say of their parameters. `quick.py` reads most command lines
without it.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Sequence
from typing import Annotated, Any, get_args

import typer

from ebpfjit.cli.commands import COMMANDS, function_of
from ebpfjit.cli.parameters import REQUIRED, Argument, Option, WrongUsage, parameters_of

WRONG: Any = typer.BadParameter.__mro__[2]
"""Click's ClickException, wherever typer has it from."""
Call = Callable[[Callable[..., Any], dict[str, Any]], Any]
"""What is done with a command's function and what it is given."""


def _print_version(asked: bool) -> None:
    if asked:
        from ebpfjit import __version__

        print(f"ebpfjit {__version__}")
        raise typer.Exit


def _options(
    version: Annotated[
        bool, typer.Option("--version", is_eager=True, callback=_print_version, help="Show the version.")
    ] = False,
) -> None:
    """EBPF in user space: run, look at, verify, compare and measure programs."""


def _typers(parameter: Option | Argument) -> Any:
    """Return a parameter in typer's words."""
    if isinstance(parameter, Argument):
        return typer.Argument(metavar=parameter.metavar, help=parameter.help)
    told: dict[str, Any] = {"metavar": parameter.metavar, "help": parameter.help, "min": parameter.min}
    return typer.Option(*parameter.names, **told)


def _command(function: Callable[..., Any], call: Call) -> Callable[..., Any]:
    """Return what typer calls in place of a command's function, with the same parameters."""
    types, told = {}, []
    for name, (hint, default) in parameters_of(function).items():
        type_, said = get_args(hint)
        types[name] = Annotated[type_, _typers(said)]
        given = inspect.Parameter.empty if default is REQUIRED else default
        told.append(
            inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=given, annotation=types[name])
        )

    def command(**given: Any) -> Any:
        try:
            return call(function, given)
        except WrongUsage as error:
            raise typer.BadParameter(str(error)) from None

    command.__signature__ = inspect.Signature(told)  # type: ignore[attr-defined]
    command.__annotations__ = types
    command.__doc__ = function.__doc__
    return command


def _called(function: Callable[..., Any], given: dict[str, Any]) -> Any:
    return function(**given)


def app_of(commands: Collection[str] = COMMANDS, call: Call = _called) -> typer.Typer:
    """Return the command line with these commands, by which `call` is called."""
    app = typer.Typer(
        name="ebpfjit",
        help="eBPF in user space: run, look at, verify, compare and measure programs.",
        no_args_is_help=True,
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.callback()(_options)
    for name in commands:
        app.command(name)(_command(function_of(name), call))
    return app


def run(arguments: Sequence[str], call: Call = _called) -> tuple[Any, str | None]:
    """Read arguments and call the command that they name.

    Returns what it returned, or its exit status and, where the usage was wrong, what was said of it.
    """
    one = arguments[:1]  # typer takes its time for each that it is told
    named = one if one and one[0] in COMMANDS else COMMANDS
    try:
        return app_of(named, call)(list(arguments), prog_name="ebpfjit", standalone_mode=False), None
    except WRONG as error:
        error.show()
        return int(error.exit_code), error.format_message()
    except typer.Abort:
        raise KeyboardInterrupt from None
