"""A `View` as one page: its data, packed, in a template with all that a browser needs to show it.

    page_files/page.html    the template: @title@, @policy@, @style@, @data@, @script@
    page_files/page.css     light and dark
    page_files/rows.js      the rows of its lists, which draw what is seen
    page_files/flow.js      control flow as a picture
    page_files/page.js      lights what belongs together, searches

Nothing of the program is in the page as markup: the data is base64, which the script writes as text. A policy
lets the browser run that one script, and load nothing.
"""

from __future__ import annotations

import hashlib
import json
import re
import zlib
from base64 import b64encode
from html import escape
from pathlib import Path

from ebpfjit.listing.view import View
from ebpfjit.once import once

FILES = Path(__file__).parent / "page_files"
SCRIPTS = ("rows.js", "flow.js", "page.js")
POLICY = "default-src 'none'; style-src '{style}'; script-src '{script}'"


def page_of(view: View) -> str:
    """Return the page: HTML that needs no other file and no network."""
    style, script = _file("page.css"), "".join(map(_file, SCRIPTS))
    data = json.dumps(view.to_dict(), separators=(",", ":")).encode()
    values = {
        "title": escape(view.title),
        "policy": escape(POLICY.format(style=_digest(style), script=_digest(script))),
        "style": style,
        "data": b64encode(zlib.compress(data, 6)).decode(),
        "script": script,
    }
    return re.sub("@([a-z]+)@", lambda found: values[found[1]], _file("page.html"))


@once
def _file(name: str) -> str:
    return (FILES / name).read_text(encoding="utf-8")


def _digest(text: str) -> str:
    """Return what a policy calls a script or a style of the page itself."""
    return f"sha256-{b64encode(hashlib.sha256(text.encode()).digest()).decode()}"
