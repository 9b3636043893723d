"""A `View` as one page for a browser."""

from __future__ import annotations

from html import escape

from ebpfjit.listing.text import to_text
from ebpfjit.listing.view import View


def page_of(view: View) -> str:
    """Return the page."""
    title, text = escape(view.title), escape(to_text(view))
    head = f'<!DOCTYPE html>\n<html lang="en"><meta charset="utf-8"><title>{title}</title>'
    return f"{head}<pre>{text}</pre></html>\n"
