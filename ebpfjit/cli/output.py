"""What commands print: JSON, tables without lines around them, errors on one line."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NoReturn

from ebpfjit.cli import files
from ebpfjit.errors import EbpfError
from ebpfjit.named import printable


def print_json(value: object) -> None:
    """Print a value as JSON; bytes as hex."""
    import json

    print(json.dumps(value, indent=2, default=_plain))


def _plain(value: object) -> object:
    """Return what JSON has no type for."""
    return value.hex() if isinstance(value, bytes | bytearray) else str(value)


def shown_name(name: str) -> str:
    """Return a name as it can be printed: those of an object file may hold anything."""
    return name if name.isprintable() else repr(name)


def print_columns(titles: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print rows below their titles, the first column to the left and the others to the right."""
    table = [list(titles), *map(list, rows)]
    widths = [max(len(row[column]) for row in table) for column in range(len(titles))]
    for row in table:
        first, *others = (text.ljust(width) for text, width in zip(row, widths, strict=True))
        numbers = [text.strip().rjust(width) for text, width in zip(others, widths[1:], strict=True)]
        print("  ".join([first, *numbers]).rstrip())


@contextlib.contextmanager
def naming(what: str) -> Iterator[None]:
    """Put `what` in front of an error's message."""
    try:
        yield
    except EbpfError as error:
        raise files.FileError(named(what, str(error))) from error


def write_file(path: str | os.PathLike[str], data: str | bytes) -> None:
    """Write a file. Raises OSError, which names it in any case: one of a full disk comes without."""
    try:
        Path(path).write_bytes(data.encode() if isinstance(data, str) else data)
    except OSError as error:
        error.filename = os.fspath(path)
        raise


@contextlib.contextmanager
def clearing_up() -> Iterator[None]:
    """Have SIGTERM end the command as Ctrl-C does: what it has not finished writing is taken away."""
    before = signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def named(what: str, text: str) -> str:
    """Return a message with `what` in front, once."""
    return text if text.startswith(f"{what}: ") else f"{what}: {text}"


def one_line(error: BaseException) -> str:
    """Return an error's message as one line: its first, and nothing in it that a terminal obeys."""
    if isinstance(error, OSError) and error.strerror:
        file = "" if error.filename is None else f"{printable(str(error.filename)) or repr('')}: "
        return file + error.strerror
    lines = str(error).splitlines()
    return printable(lines[0]) if lines else type(error).__name__


def fail(message: str) -> NoReturn:
    """Say an error, and end with status 1, where what there is was printed already."""
    print(f"ebpfjit: {message}", file=sys.stderr)
    raise SystemExit(1)


def error_json(error: BaseException, message: str) -> dict[str, object]:
    """Return what --json prints of an error: its kind, its line, and what it knows of where it was."""
    cause = error.__cause__ if isinstance(error, files.FileError) and error.__cause__ else error
    known = {name: getattr(cause, name, None) for name in ("pc", "address", "size", "access", "line")}
    said = {name: value for name, value in known.items() if value not in (None, "")}
    return {"error": {"type": type(cause).__name__, "message": message, **said}}
