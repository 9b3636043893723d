"""`Listing`: a listing as text, which can become JSON or a page."""

from __future__ import annotations

import html
import json
from typing import Any

from ebpfjit.collector import collector_paused
from ebpfjit.listing.text import to_text
from ebpfjit.listing.view import View


class Listing(str):
    """What a program became: its eBPF beside its source, its machine code, and why accesses are checked.

    It is a str, the text that `ebpfjit listing` prints. `json()` is the same as JSON, `html()` as one page
    that needs nothing else; notebooks show the page. `view` has all of it as values
    (`ebpfjit.listing.view.View`).

        listing = program.listing()
        print(listing)
        Path("listing.html").write_text(listing.html())
    """

    view: View

    def __new__(cls, view: View) -> Listing:
        """Make the listing of what a `View` holds."""
        with collector_paused():
            made = super().__new__(cls, to_text(view))
        made.view = view
        return made

    def __reduce__(self) -> tuple[type[Listing], tuple[View]]:
        return Listing, (self.view,)

    def __repr__(self) -> str:
        return f"<listing of {self.view.title}: {self.view.state[:120]}>"

    def to_dict(self) -> dict[str, Any]:
        """Return what `json` writes, as Python values."""
        return self.view.to_dict()

    def json(self, indent: int | None = None) -> str:
        """Return the listing as JSON text, `indent`ed by so many blanks (None: on one line).

        The keys: `program`, `state` (which code this is, or why there is none), `tier`, `refusal`, `remarks`,
        `legend` (`registers`, `others`, `words`, `labels`, `checks`), `instructions` (`pc`, `bytes`, `text`,
        `line`, `note`, ...), `blocks` (`pc`, `function`, `ways`: where control goes on, and how), `machine`:
        the code in pieces, with the `pc` that each is of and its `lines` (`offset`, `bytes`, `text`).
        """
        with collector_paused():
            return json.dumps(self.to_dict(), indent=indent)

    def html(self) -> str:
        """Return one self-contained page: source beside eBPF beside machine code, for a browser.

        It needs no network, and holds nothing of the program but as data: a name cannot become markup.
        """
        from ebpfjit.listing.page import page_of

        with collector_paused():
            return page_of(self.view)

    def _repr_html_(self) -> str:
        """Return the page as notebooks show it: in a frame of its own, that reaches nothing around it."""
        return (
            '<iframe sandbox="allow-scripts" style="width:100%;height:640px;border:1px solid #8888"'
            f' title="listing" srcdoc="{html.escape(self.html(), quote=True)}"></iframe>'
        )
