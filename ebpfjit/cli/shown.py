"""`ebpfjit listing`: as text, in colours on a terminal, as JSON, as a page."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated

from ebpfjit.cli.options import (
    Btf,
    FilterExpression,
    Json,
    Kconfig,
    Maps,
    ProgramName,
    check_one_of,
    loading,
    one_program,
)
from ebpfjit.cli.output import fail, named, naming, write_file
from ebpfjit.cli.parameters import Argument, Option, WrongUsage

if TYPE_CHECKING:
    from ebpfjit.listing.listing import Listing

STDOUT = "-"


def listing(
    file: Annotated[
        str | None,
        Argument(metavar="FILE", help="Object file, bytecode (.bin), assembly text (.s), or -."),
    ] = None,
    program: ProgramName = None,
    expression: FilterExpression = None,
    optimize: Annotated[bool, Option(help="Look for checks and instructions to save.")] = True,
    checks: Annotated[bool, Option(help="With memory checks, or without.")] = True,
    harden: Annotated[bool, Option("--harden", help="Blind the program's constants.")] = False,
    html: Annotated[
        str | None,
        Option("--html", metavar="OUT", help="Write it as a page to this file; - prints it."),
    ] = None,
    btf: Btf = None,
    kconfig: Kconfig = None,
    maps: Maps = None,
    as_json: Json = False,
) -> None:
    """Print a program's eBPF, the assembly text made from it and its bytes side by side.

    Of a program that cannot be compiled it prints what there is, and says why that is all.
    """
    if html is not None and as_json:
        raise WrongUsage("--html and --json exclude each other")
    check_one_of(file, expression, bool(program or btf or kconfig or maps))
    if file is not None:
        chosen = one_program(file, program, loading(btf, kconfig, maps))
    else:
        from ebpfjit import filters

        chosen = filters.compile(expression or "", type=None)
    with naming(file or "filter"):
        shown = chosen.listing(optimize=optimize, checked=checks, harden=harden)
    print_listing(shown, html=html, as_json=as_json)
    if shown.view.refusal:
        fail(named(file or "filter", shown.view.refusal))


def print_listing(listing: Listing, *, html: str | None, as_json: bool) -> None:
    """Print a listing, or write its page to the file `html`. Raises OSError."""
    if as_json:
        print(listing.json(indent=2))
    elif html is not None and html != STDOUT:
        write_file(html, listing.html())
        print(f"page written to {html}")
    elif html is not None:
        print(listing.html())
    else:
        _print_text(listing)


def _print_text(listing: Listing) -> None:
    render = _colors()
    if render is None:
        print(listing, end="")
        return
    from ebpfjit.listing.text import to_colored

    sys.stdout.writelines(to_colored(listing.view, render))


def _colors() -> Callable[[str, str], str] | None:
    """Return what puts a text into a terminal's colours; None for a pipe, and where nobody wants them."""
    if not sys.stdout.isatty() and not os.environ.get("FORCE_COLOR"):
        return None
    from rich.color import ColorSystem
    from rich.console import Console
    from rich.style import Style

    console = Console()
    if console.color_system is None or console.no_color:
        return None
    return lambda style, text: Style.parse(style).render(text, color_system=ColorSystem.STANDARD)
