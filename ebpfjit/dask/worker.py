"""What a worker does: a program that is compiled once in its process, on parts of captures and on columns."""

from __future__ import annotations

import hashlib
import os
import pickle
import socket
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import field
from threading import Lock
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pyarrow as pa

from ebpfjit import arrow
from ebpfjit.capture.parts import Part, reading
from ebpfjit.capture.reader import Reader, State
from ebpfjit.capture.tally import Tally
from ebpfjit.dask.merge import RULES, items, maps_of, naming, rules_of
from ebpfjit.errors import CaptureError, EbpfError, ExecutionError, InputError, MapError
from ebpfjit.interpreted import for_batches
from ebpfjit.program import Program
from ebpfjit.record import dataclass
from ebpfjit.runtime.maps.copying import contents_of, restore

if TYPE_CHECKING:
    from ebpfjit.capture.batch import Batch

COLUMNS = {"capture": "str", "timestamp": "datetime64[ns]", "length": "u4", "verdict": "u8"}
"""Columns of a row for each packet."""


class _Ready:
    """A program in this process: compiled, with its maps and what they held at first."""

    def __init__(self, pickled: bytes) -> None:
        self.program: Program = pickle.loads(pickled)
        self.function = for_batches(self.program)  # which makes program arrays its own
        self.maps = list(maps_of(self.program))
        self.start = [contents_of(map_) for map_ in self.maps]
        self.items = {map_.name: items(map_) if "sum" in rules_of(map_) else {} for map_ in self.maps}
        self.lock = Lock()

    def run(self, packets: Any, on_fault: int | None) -> Any:
        """Return the results of packets, u64."""
        return self.function.map(packets, on_fault=on_fault)

    def frames(self, batch: Batch) -> Batch:
        """Return a batch as the program takes it: with a type it gets Ethernet frames."""
        return batch if self.program.type is None else batch.frames()

    def begin(self) -> None:
        """Have all maps hold what they held at first."""
        for map_, contents in zip(self.maps, self.start, strict=True):
            restore(map_, contents)

    def left(self, rules: Mapping[str, str]) -> dict[str, Any]:
        """Return what is left of the maps that changed, by name.

        Raises MapError for one without a rule, TypeError for values that its rule cannot put together.
        """
        found = {}
        for map_, before in zip(self.maps, self.start, strict=True):
            now = contents_of(map_)
            if (now.pages, now.carried) != (before.pages, before.carried):
                if map_.name not in rules:
                    possible = rules_of(map_)
                    rule = f'merge={{{map_.name!r}: "{possible[0]}"}}'
                    raise MapError(
                        f"{map_.definition}: the program changes it, and nothing says how what parts leave is"
                        f" put together; give a rule, as {rule} (there are {', '.join(possible)})"
                    )
                rule = rules[map_.name]
                with naming(map_, rule):
                    found[map_.name] = RULES[rule].left(map_, self.items[map_.name])
        return found


_known: dict[str, _Ready] = {}
_making = Lock()


def _ready(pickled: bytes) -> _Ready:
    key = hashlib.blake2b(pickled, digest_size=16).hexdigest()
    with _making:
        if key not in _known:
            _known[key] = _Ready(pickled)
        return _known[key]


@dataclass(frozen=True, slots=True)
class Done:
    """What became of a part: where it ended, packets and bytes by verdict, maps that changed, an error.

    `worker` is who says so.
    """

    part: Part
    end: State
    counts: Mapping[int, tuple[int, int]] = field(default_factory=dict)
    maps: Mapping[str, Any] = field(default_factory=dict)
    error: EbpfError | None = None
    worker: str = ""

    @property
    def packets(self) -> int:
        """How many packets were counted."""
        return sum(packets for packets, _ in self.counts.values())


class Unreadable(CaptureError):  # noqa: N818 - as its neighbours in ebpfjit.errors
    """A capture that is not where a part of it is to be read, or is another there."""


def _worker() -> str:
    """Return what this process is called, on which machine."""
    process = f"process {os.getpid()} on {socket.gethostname()}"
    try:
        return f"worker {sys.modules['distributed'].get_worker().address}, {process}"
    except (KeyError, ValueError):  # there is no cluster, or this is no worker of one
        return process


@contextmanager
def _saying_where(part: Part) -> Iterator[None]:
    """Have errors of the system say which part it was, and where that was read."""
    try:
        yield
    except OSError as error:
        raise Unreadable(
            f"{part.path}, part from byte {part.start.position} on: {error.strerror or error} ({_worker()});"
            " a worker reads captures by the paths that are given, and needs the same files there",
            position=part.start.position,
        ) from None


@contextmanager
def _opened(part: Part) -> Iterator[Reader]:
    """Yield the reader of a part. Raises Unreadable."""
    with ExitStack() as stack:
        with _saying_where(part):
            reader = stack.enter_context(reading(part))
        yield reader


def _batches(part: Part, reader: Reader) -> Iterator[Batch]:
    """Yield the batches of a part. Raises Unreadable, CaptureError."""
    batches = reader.batches()
    while True:
        with _saying_where(part):
            batch = next(batches, None)
        if batch is None:
            return
        yield batch


def run_part(pickled: bytes, part: Part, on_fault: int | None, rules: Mapping[str, str]) -> Done:
    """Run a program over a part; what goes wrong is kept: the part may have been guessed wrong.

    Raises Unreadable where there is no such part here.
    """
    ready, tally = _ready(pickled), Tally()
    end, left = part.start, {}
    error: EbpfError | None = None
    with ready.lock:
        ready.begin()
        try:
            with _opened(part) as reader:
                for batch in _batches(part, reader):
                    frames = ready.frames(batch)
                    tally.add(ready.run(frames, on_fault), frames.lengths)
                    end = reader.state
                end = reader.state
        except Unreadable:
            raise
        except EbpfError as raised:
            error = raised
        try:
            left = ready.left(rules)
        except EbpfError as raised:
            error = error or raised
    counts = {kind: (packets, size) for kind, packets, size in tally}
    return Done(part, end, counts, left, error, _worker())


def rows(pickled: bytes, part: Part, on_fault: int | None) -> pd.DataFrame:
    """Return a row for each packet of a part. Raises Unreadable, CaptureError, ExecutionError, InputError."""
    ready, found = _ready(pickled), []
    with ready.lock, _opened(part) as reader:
        ready.begin()
        for batch in _batches(part, reader):
            frames = ready.frames(batch)
            with _saying_which(part.path, batch.first):
                verdicts = ready.run(frames, on_fault)
            found.append(
                pd.DataFrame(
                    {
                        "capture": part.path,
                        "timestamp": np.array(frames.timestamps, "u8").view("datetime64[ns]"),
                        "length": np.array(frames.lengths, "u4"),
                        "verdict": np.array(verdicts, "u8"),
                    }
                )
            )
    empty = pd.DataFrame({name: pd.Series(dtype=kind) for name, kind in COLUMNS.items()})
    return pd.concat(found, ignore_index=True).astype(COLUMNS) if found else empty


@contextmanager
def _saying_which(path: str, first: int) -> Iterator[None]:
    """Have what a packet of a batch raises say which packet of the capture it is."""
    try:
        yield
    except (ExecutionError, InputError) as error:
        error.add_note(note(path, first + (error.index or 0)))
        raise


def note(path: str, index: int) -> str:
    """Return what is said of an error, besides: about which packet of which capture it is."""
    return f"in capture {path}, packet {index + 1}"


def of_series(column: pd.Series[Any], pickled: bytes, on_fault: int | None) -> pd.Series[Any]:
    """Return the results of a column of packets; what is missing stays so. Raises TypeError for others."""
    values = pa.array(column, from_pandas=True)
    kind = values.type.value_type if pa.types.is_dictionary(values.type) else values.type
    if pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind):
        raise TypeError(
            "the column holds text, not bytes: give it the type binary[pyarrow], or have Dask make no text"
            " of bytes: dask.config.set({'dataframe.convert-string': False})"
        )
    if pa.types.is_struct(kind):
        raise TypeError("the column holds structs, not bytes: ebpfjit.arrow.map runs programs on these")
    ready = _ready(pickled)
    with ready.lock:
        ready.begin()
        found = arrow.map(ready.function, values, on_fault=on_fault)
    results = pd.array(found.to_pylist(), dtype="UInt64")
    return pd.Series(results, index=column.index, name="verdict")


def of_bag(values: Iterable[bytes], pickled: bytes, on_fault: int | None) -> list[int]:
    """Return the results of packets."""
    ready = _ready(pickled)
    with ready.lock:
        ready.begin()
        return [int(each) for each in ready.run(list(values), on_fault)]
