"""What people are shown of things: absent names, short lists of names, a `repr` of three lines."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import islice
from typing import Any, NoReturn

from ebpfjit.record import fields, is_dataclass

MOST_SHOWN = 8
"""Names in a `repr`: an object may have thousands."""


class Named(dict[str, Any]):
    """A dict whose KeyError says which names there are, as a MappingProxyType over it does too."""

    def __init__(self, what: str, items: Mapping[str, Any]) -> None:
        super().__init__(items)
        self._what = what

    def __missing__(self, name: str) -> NoReturn:
        raise KeyError(absent(name, self._what, self))

    def __repr__(self) -> str:
        return cut(f"{len(self)} {self._what}{'s' * (len(self) != 1)}: {few(self)}")


def absent(name: object, what: str, known: Iterable[str]) -> str:
    """Say that there is no `what` (a "program") of that name, and which there are."""
    names = ", ".join(map(repr, known))
    return f"no {what} {name!r}; " + (f"there are: {names}" if names else "there is none at all")


def printable(text: str) -> str:
    """Return a text with what moves a terminal's cursor, or colours it, as Python writes it in a string."""
    if text.isprintable():
        return text
    return "".join(each if each.isprintable() else repr(each)[1:-1] for each in text)


def few(names: Iterable[str]) -> str:
    """Return the first names as one list, and how many more there are."""
    known = iter(names)
    shown = ", ".join(islice(known, MOST_SHOWN))
    more = sum(1 for _ in known)
    return f"{shown} and {more} more" if more else shown


MOST_CHARACTERS = 240
"""Of a `repr`: three lines of a terminal."""
_MOST_OF_ONE = 72


def cut(text: str, most: int = MOST_CHARACTERS) -> str:
    """Return a text on one line, and no longer than it may be."""
    text = text if text.isprintable() else repr(text)[1:-1]
    return text if len(text) <= most else f"{text[: most - 3]}..."


def brief(value: Any) -> str:
    """Return a dataclass as its fields that are not what they are by default, none of them at length."""
    shown = [
        f"{each.name}={_short(found)}"
        for each in fields(value)
        if each.repr and (found := getattr(value, each.name)) is not None and not _is_default(each, found)
    ]
    text = f"{type(value).__name__}({', '.join(shown)})"
    return text if len(text) <= MOST_CHARACTERS else f"{text[: MOST_CHARACTERS - 4]}...)"


def _is_default(of: Any, value: Any) -> bool:
    if callable(of.default_factory):
        return bool(value == of.default_factory())
    return value is of.default or bool(value == of.default)  # nothing is what stands for no default


def _short(value: Any) -> str:
    """Return a value of a field: bytes as their number and the first of them, a mapping as its keys."""
    if isinstance(value, bytes | bytearray | memoryview):
        start = bytes(value[:8]).hex(" ")
        return repr(bytes(value)) if len(value) <= 8 else f"<{len(value)} bytes: {start} ...>"
    if isinstance(value, Mapping):
        return f"{{{few(map(str, value))}}}"
    if isinstance(value, tuple | list):
        more = f", and {len(value) - 2} more" if len(value) > 2 else "," * (len(value) == 1)
        return f"({', '.join(map(_short, value[:2]))}{more})"
    if callable(value) and not is_dataclass(value):
        return cut(getattr(value, "__qualname__", type(value).__name__), _MOST_OF_ONE)
    return cut(repr(value), _MOST_OF_ONE)


def of_packet(error: Any, index: int) -> None:
    """Have an ExecutionError, or an InputError, say about which packet of a batch it is.

    What it has said of that is said no more.
    """
    said = str(error).removeprefix(f"packet {error.index}: ")
    error.index, error.args = index, (f"packet {index}: {said}",)
