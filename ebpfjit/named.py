"""Things by name, as an object file has them: messages where a name is not there, short lists of names."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import islice
from typing import Any, NoReturn

MOST_SHOWN = 8
"""Names in a `repr`: an object may have thousands."""


class Named(dict[str, Any]):
    """A dict whose KeyError says which names there are, as a MappingProxyType over it does too."""

    def __init__(self, what: str, items: Mapping[str, Any]) -> None:
        super().__init__(items)
        self._what = what

    def __missing__(self, name: str) -> NoReturn:
        raise KeyError(absent(name, self._what, self))


def absent(name: object, what: str, known: Iterable[str]) -> str:
    """Say that there is no `what` (a "program") of that name, and which there are."""
    names = ", ".join(map(repr, known))
    return f"no {what} {name!r}; " + (f"there are: {names}" if names else "there is none at all")


def few(names: Iterable[str]) -> str:
    """Return the first names as one list, and how many more there are."""
    known = iter(names)
    shown = ", ".join(islice(known, MOST_SHOWN))
    more = sum(1 for _ in known)
    return f"{shown} and {more} more" if more else shown
