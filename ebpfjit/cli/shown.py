"""A listing on the command line: as text, in colours on a terminal, as JSON, as a page."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ebpfjit.listing.listing import Listing

STDOUT = "-"


def print_listing(listing: Listing, *, html: str | None, as_json: bool) -> None:
    """Print a listing, or write its page to the file `html`. Raises OSError."""
    if as_json:
        print(listing.json(indent=2))
    elif html is not None and html != STDOUT:
        page = listing.html()
        with open(html, "w", encoding="utf-8") as out:
            out.write(page)
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
