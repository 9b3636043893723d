"""The commands: run, info, filter, asm, disasm, verify, listing, cost, diff, fuzz, bench, prove.

Exit status 0: done; 1: the program or the input was refused or faulted, with one line on stderr; 2: wrong
usage; 130: interrupted; 141: nobody reads on. With --json an error is on stdout too, as {"error": ...}. Every
command imports what it needs when it runs.
"""

from __future__ import annotations

import contextlib
import gc
import io
import os
import signal
import sys
import warnings
from collections.abc import Callable, Sequence
from copy import copy
from enum import StrEnum
from typing import Annotated, Any

import typer

from ebpfjit.cli import files
from ebpfjit.cli.bench import bench
from ebpfjit.cli.cost import cost
from ebpfjit.cli.coverage import counted
from ebpfjit.cli.diff import diff
from ebpfjit.cli.filter import filter_
from ebpfjit.cli.fuzz import fuzz
from ebpfjit.cli.info import info
from ebpfjit.cli.options import Btf, File, Json, Kconfig, Maps, ProgramName, loading, one_program, programs
from ebpfjit.cli.output import error_json, fail, naming, one_line, print_json, shown_name
from ebpfjit.cli.prove import prove
from ebpfjit.cli.run import run
from ebpfjit.cli.verify import verify
from ebpfjit.errors import EbpfError

WRONG_USAGE: Any = typer.BadParameter.__mro__[2]
"""Click's ClickException, wherever typer has it from."""

app = typer.Typer(
    name="ebpfjit",
    help="eBPF in user space: run, look at, verify, compare and measure programs.",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _print_version(asked: bool) -> None:
    if asked:
        from ebpfjit import __version__

        print(f"ebpfjit {__version__}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", is_eager=True, callback=_print_version, help="Show the version.")
    ] = False,
) -> None:
    """EBPF in user space: run, look at, verify, compare and measure programs."""


class Dialect(StrEnum):
    """How a program is written as text."""

    RBPF = "rbpf"
    LINUX = "linux"


app.command()(counted(run))
app.command()(info)
app.command("filter")(filter_)


@app.command()
def asm(
    file: File,
    output: Annotated[
        str | None, typer.Option("-o", "--output", metavar="OUT", help="Write the bytes to this file.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Assemble text: raw bytes to OUT or a pipe, hex to a terminal."""
    data = files.read_bytes(file)
    if files.kind_of(file, data) is files.FileKind.OBJECT:
        raise files.FileError(f"{file}: an object file, not assembly text")
    code = files.assemble_text(file, data)
    if output is not None:
        with open(output, "wb") as out:
            out.write(code)
    if as_json:
        print_json({"size": len(code), "hex": code.hex()})
    elif output is None and sys.stdout.isatty():
        for start in range(0, len(code), 8):
            print(code[start : start + 8].hex(" "))
    elif output is None:
        sys.stdout.buffer.write(code)


@app.command()
def disasm(
    file: File,
    program: ProgramName = None,
    dialect: Annotated[Dialect, typer.Option(help="How to write instructions.")] = Dialect.RBPF,
    btf: Btf = None,
    kconfig: Kconfig = None,
    maps: Maps = None,
    as_json: Json = False,
) -> None:
    """Print a program as assembly text; of an object file all programs, or one."""
    from ebpfjit.disassembler import disassemble

    found = programs(file, program, loading(btf, kconfig, maps))
    texts = {name: disassemble(chosen, dialect.value) for name, chosen in found.items()}
    if as_json:
        print_json({name: text.splitlines() for name, text in texts.items()})
        return
    for number, (name, text) in enumerate(texts.items()):
        if len(texts) > 1:
            print(f"{chr(10) if number else ''}# {shown_name(name)}")
        print(text.rstrip("\n"))


app.command()(verify)


@app.command()
def listing(
    file: Annotated[
        str | None,
        typer.Argument(metavar="FILE", help="Object file, bytecode (.bin), assembly text (.s), or -."),
    ] = None,
    program: ProgramName = None,
    expression: Annotated[
        str | None,
        typer.Option("--filter", metavar="EXPRESSION", help="Instead of a file: tcpdump's 'tcp port 80'."),
    ] = None,
    optimize: Annotated[bool, typer.Option(help="Look for checks and instructions to save.")] = True,
    checks: Annotated[bool, typer.Option(help="With memory checks, or without.")] = True,
    harden: Annotated[bool, typer.Option("--harden", help="Blind the program's constants.")] = False,
    html: Annotated[
        str | None,
        typer.Option("--html", metavar="OUT", help="Write it as a page to this file; - prints it."),
    ] = None,
    btf: Btf = None,
    kconfig: Kconfig = None,
    maps: Maps = None,
    as_json: Json = False,
) -> None:
    """Print a program's eBPF, the assembly text made from it and its bytes side by side.

    Of a program that cannot be compiled it prints what there is, and says why that is all.
    """
    from ebpfjit.cli.shown import print_listing

    if html is not None and as_json:
        raise typer.BadParameter("--html and --json exclude each other")
    if file is not None and expression is None:
        chosen = one_program(file, program, loading(btf, kconfig, maps))
    elif file is not None or expression is None:
        raise typer.BadParameter("there is a FILE, or --filter EXPRESSION, and not both")
    elif program or btf or kconfig or maps:
        raise typer.BadParameter("--program, --btf, --kconfig and --maps go with FILE")
    else:
        from ebpfjit import filters

        chosen = filters.compile(expression, type=None)
    with naming(file or "filter"):
        shown = chosen.listing(optimize=optimize, checked=checks, harden=harden)
    print_listing(shown, html=html, as_json=as_json)
    if shown.view.refusal:
        fail(f"{file or 'filter'}: {shown.view.refusal}")


app.command()(cost)
app.command()(counted(diff))
app.command()(counted(fuzz))
app.command()(bench)
app.command()(prove)


def commands(arguments: Sequence[str]) -> typer.Typer:
    """Return the command line: all of it, or only the command that is named first, as typer is slow."""
    named = [
        each for each in app.registered_commands
        if arguments and each.callback is not None and arguments[0] == (each.name or each.callback.__name__)
    ]  # fmt: skip
    if not named:
        return app
    one = copy(app)
    one.registered_commands = named
    if one.registered_callback is None:
        one.callback()(lambda: None)  # else it would be no group, and the command not named
    return one


BROKEN_PIPE = 128 + signal.SIGPIPE
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
        status = _guard(lambda: commands(sys.argv[1:])(prog_name="ebpfjit", standalone_mode=False))
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
    except WRONG_USAGE as error:
        error.show()
        _say(error, error.format_message(), on_stderr=False)
        return int(error.exit_code)
    except (typer.Abort, KeyboardInterrupt):
        return 130
    return status if isinstance(status, int) else 0


def _say(error: BaseException, message: str, *, on_stderr: bool = True) -> None:
    """Say an error on one line of stderr; with --json on stdout too, as JSON."""
    if on_stderr:
        print(f"ebpfjit: {message}", file=sys.stderr)
    if "--json" in sys.argv[1:]:
        with contextlib.suppress(BrokenPipeError):
            print_json(error_json(error, message))
