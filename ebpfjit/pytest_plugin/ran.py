"""What a failing test shows of a run: its end, what it printed, its events and its maps."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from copy import deepcopy
from itertools import islice
from typing import TYPE_CHECKING, Any

from ebpfjit.record import dataclass

if TYPE_CHECKING:
    from ebpfjit.errors import EbpfError
    from ebpfjit.keywords import GivenOptions
    from ebpfjit.literals import AnyBuffer
    from ebpfjit.program import Program
    from ebpfjit.runner import Result

MOST_LINES = 20
"""Lines, events and entries of a map that are shown, each at most."""
MOST_READ = 10_000
"""Entries of a map that are looked at: an array may have a million, all of them zero."""
MOST_KEPT = 1 << 20
"""Bytes of memory that are kept for the report, as they were before the run."""
WIDTH = 100
TITLE = "eBPF: "


@dataclass(slots=True)
class Ran:
    """One run of a program: its result, or the error that it ended with; neither where Python's ended it.

    `data` is what it was given, as it was before; None where that is too much to keep.
    """

    program: Program
    data: AnyBuffer | None
    engine: str
    options: GivenOptions
    result: Result | None = None
    error: EbpfError | None = None

    def section(self, *, shows_maps: bool) -> tuple[str, str]:
        """Return a title and a text for a test's report; maps are shown as they are now."""
        lines = [*self._end(), *(self._maps() if shows_maps else ())]
        return f"{TITLE}program {self.program.name!r} on {self.engine}", "\n".join(lines)

    def _end(self) -> Iterator[str]:
        if self.error is not None:
            yield f"{type(self.error).__name__}: {self.error}"
        elif self.result is None:
            yield "an exception of Python's ended it"
        else:
            action = "" if self.result.action is None else f" ({self.result.action})"
            yield f"returned {self.result.return_value}{action}{self._last_line()}"
            yield from _listed("printed", self.result.output)
            yield from _listed("event", [f"{name}: {data.hex(' ')}" for name, data in self.result.events])

    def _maps(self) -> Iterator[str]:
        for map_ in self.program.maps:
            if not map_.name.startswith("."):  # sections of variables, whose names only the object knows
                yield f"map {map_.name!r} ({map_.definition.type_name}):"
                yield from _entries(map_)

    def _last_line(self) -> str:
        """Return the line of C that the run ended at, "" where that is not known.

        Machine code does not say, so a copy of the program, with the maps as they are now, is run once more,
        step by step; where that comes to another result nothing is said. Nor where the program calls the
        test's own functions: it may count how often it does.
        """
        own_functions = self.options.get("helpers") or self.options.get("kfuncs")
        if self.result is None or self.data is None or own_functions or not self.program.lines:
            return ""
        with suppress(Exception):  # what cannot be copied
            program, options = deepcopy((self.program, self.options))
            trace = program.trace(self.data, **options)
            line, again = trace[-1].line, trace.result
            if line is not None and again is not None and again.return_value == self.result.return_value:
                return f" at {line}"
        return ""


def kept(data: Any) -> AnyBuffer | None:
    """Return memory as it is now, None where that is more than is kept."""
    if isinstance(data, bytes):
        return data
    try:
        size = memoryview(data).nbytes
    except TypeError:  # which the run says as well
        return None
    return bytearray(data) if size <= MOST_KEPT else None


def _listed(what: str, texts: Any) -> Iterator[str]:
    for text in islice(texts, MOST_LINES):
        yield f"{what}: {_short(text)}"
    if len(texts) > MOST_LINES:
        yield f"... and {len(texts) - MOST_LINES} more"


def _entries(map_: Any) -> Iterator[str]:
    """Yield a map's entries, without the zeros of an array; the kinds that have none say what they are."""
    if not hasattr(map_, "typed"):
        yield f"  {_short(map_)}"
        return
    found: list[str] = []
    with suppress(Exception):  # a report never fails: maps that cannot be read, values that cannot be decoded
        both = zip(map_.items(), map_.typed.items(), strict=False)
        shown = (typed for raw, typed in islice(both, MOST_READ) if _is_set(raw[1]))
        found += [f"  {_short(key)}: {_short(value)}" for key, value in islice(shown, MOST_LINES + 1)]
    yield from found[:MOST_LINES] or ["  empty, or nothing but zeros"]
    if len(found) > MOST_LINES:
        yield "  ..."


def _is_set(value: Any) -> bool:
    values = value if isinstance(value, list) else [value]
    return any(any(one) if isinstance(one, bytes) else one is not None for one in values)


def _short(value: Any) -> str:
    text = value if isinstance(value, str) else repr(value)
    return text if len(text) <= WIDTH else f"{text[: WIDTH - 3]}..."
