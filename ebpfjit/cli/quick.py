"""A command line that spells everything out, read without typer.

It reads what leaves no question: a command, its options by their whole names, each once, with values that are
what they should be. All else (help, completion, a mistake, a short form) it leaves to `full.py`, which says
the same of what both read: tests hold them against each other.
"""

from __future__ import annotations

import os
import re
import types
from collections.abc import Callable, Iterator, Sequence
from enum import Enum
from typing import Any, Union, get_args, get_origin

from ebpfjit.cli.commands import COMMANDS, function_of
from ebpfjit.cli.parameters import REQUIRED, Argument, Option, parameters_of

_INT = re.compile("-?[0-9]{1,18}", re.ASCII)
_FLOAT = re.compile("[0-9]{1,9}([.][0-9]{1,9})?", re.ASCII)


class Unclear(Exception):  # noqa: N818 - not wrong: not for us
    """What typer is to read."""


def read(arguments: Sequence[str]) -> tuple[Callable[..., Any], dict[str, Any]] | None:
    """Return a command's function and what it is given; None for what typer is to read."""
    if not arguments or arguments[0] not in COMMANDS or "_EBPFJIT_COMPLETE" in os.environ:
        return None
    function = function_of(arguments[0])
    try:
        return function, _given(function, arguments[1:])
    except Unclear:
        return None


def _given(function: Callable[..., Any], words: Sequence[str]) -> dict[str, Any]:
    """Return the arguments of a function; what is not told is left to its defaults."""
    parameters = parameters_of(function)
    said = {name: get_args(hint) for name, (hint, _) in parameters.items()}  # (type, Option or Argument)
    options = {
        spelled: name
        for name, (type_, marker) in said.items()
        if isinstance(marker, Option)
        for spelled in (marker.names or (f"--{name.replace('_', '-')}",))
    }
    flags = {name for name, (type_, _) in said.items() if type_ is bool}
    negated = {f"--no-{name.replace('_', '-')}": name for name in flags if not said[name][1].names}
    places = [name for name, (_, marker) in said.items() if isinstance(marker, Argument)]
    found: dict[str, Any] = {}
    rest = iter(words)
    for word in rest:
        if word == "-" or not word.startswith("-"):
            if not places or not word:
                raise Unclear
            name = places[0]
            _add(found, name, said[name], word)
            if not _is_list(said[name][0]):
                places.pop(0)
            continue
        spelled, has_value, value = word.partition("=")
        name = options.get(spelled) or negated.get(spelled) or ""
        if not name or (not spelled.startswith("--") and has_value):
            raise Unclear
        if name in flags:
            if has_value or name in found:
                raise Unclear
            found[name] = spelled not in negated
        else:
            _add(found, name, said[name], value if has_value else _next(rest))
    if any(default is REQUIRED and name not in found for name, (_, default) in parameters.items()):
        raise Unclear
    return found


def _next(rest: Iterator[str]) -> str:
    word = next(rest, "-")
    if word.startswith("-") and not _INT.fullmatch(word):  # a number, or an option whose value was forgotten
        raise Unclear
    return word


def _is_list(type_: Any) -> bool:
    return get_origin(_plain(type_)) is list


def _plain(type_: Any) -> Any:
    """Return a type without its None."""
    if get_origin(type_) in (types.UnionType, Union):
        return next(each for each in get_args(type_) if each is not type(None))
    return type_


def _add(found: dict[str, Any], name: str, said: tuple[Any, Any], text: str) -> None:
    """Keep the value of a parameter."""
    type_ = _plain(said[0])
    if get_origin(type_) is list:
        found.setdefault(name, []).append(_value(get_args(type_)[0], said[1], text))
    elif name in found:
        raise Unclear
    else:
        found[name] = _value(type_, said[1], text)


def _value(type_: Any, marker: Option | Argument, text: str) -> Any:
    """Return a text as a value of a type."""
    if not text:
        raise Unclear
    if type_ is str:
        return text
    if issubclass(type_, os.PathLike):
        return type_(text)
    if issubclass(type_, Enum):
        if text not in {each.value for each in type_}:
            raise Unclear
        return type_(text)
    form = {int: _INT, float: _FLOAT}[type_]
    if not form.fullmatch(text):
        raise Unclear
    number = type_(text)
    if isinstance(marker, Option) and marker.min is not None and number < marker.min:
        raise Unclear
    return number
