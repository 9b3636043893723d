"""What a worker does: a program that is compiled once in its process, on parts of captures and on columns."""

from __future__ import annotations

import hashlib
import pickle
from collections.abc import Iterable, Mapping
from dataclasses import field
from threading import Lock
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pyarrow as pa

from ebpfjit.capture.parts import Part, reading
from ebpfjit.capture.reader import State
from ebpfjit.capture.tally import Tally
from ebpfjit.dask.merge import RULES, items, maps_of
from ebpfjit.errors import EbpfError, MapError
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
        self.maps = list(maps_of(self.program))
        self.start = [contents_of(map_) for map_ in self.maps]
        self.items = {map_.name: items(map_) if hasattr(map_, "typed") else {} for map_ in self.maps}
        self.lock = Lock()
        self._function = for_batches(self.program)

    def run(self, packets: Any, on_fault: int | None) -> Any:
        """Return the results of packets, u64."""
        return self._function.map(packets, on_fault=on_fault)

    def frames(self, batch: Batch) -> Batch:
        """Return a batch as the program takes it: with a type it gets Ethernet frames."""
        return batch if self.program.type is None else batch.frames()

    def begin(self) -> None:
        """Have all maps hold what they held at first."""
        for map_, contents in zip(self.maps, self.start, strict=True):
            restore(map_, contents)

    def left(self, rules: Mapping[str, str]) -> dict[str, Any]:
        """Return what is left of the maps that changed, by name. Raises MapError for one without a rule."""
        found = {}
        for map_, before in zip(self.maps, self.start, strict=True):
            now = contents_of(map_)
            if (now.pages, now.carried) != (before.pages, before.carried):
                if map_.name not in rules:
                    rule = f'merge={{{map_.name!r}: "sum"}}'
                    raise MapError(
                        f"{map_.definition}: the program changes it, and nothing says how what parts leave is"
                        f" put together; give a rule, as {rule} (there are {', '.join(RULES)})"
                    )
                found[map_.name] = RULES[rules[map_.name]].left(map_, self.items[map_.name])
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
    """What became of a part: where it ended, packets and bytes by verdict, maps that changed, an error."""

    part: Part
    end: State
    counts: Mapping[int, tuple[int, int]] = field(default_factory=dict)
    maps: Mapping[str, Any] = field(default_factory=dict)
    error: EbpfError | None = None


def run_part(pickled: bytes, part: Part, on_fault: int | None, rules: Mapping[str, str]) -> Done:
    """Run a program over a part; what goes wrong is kept: the part may have been guessed wrong."""
    ready, tally = _ready(pickled), Tally()
    end, left = part.start, {}
    error: EbpfError | None = None
    with ready.lock:
        ready.begin()
        try:
            with reading(part) as reader:
                for batch in reader.batches():
                    frames = ready.frames(batch)
                    tally.add(ready.run(frames, on_fault), frames.lengths)
                    end = reader.state
                end = reader.state
        except EbpfError as raised:
            error = raised
        try:
            left = ready.left(rules)
        except EbpfError as raised:
            error = error or raised
    return Done(part, end, {kind: (packets, size) for kind, packets, size in tally}, left, error)


def rows(pickled: bytes, part: Part, on_fault: int | None) -> pd.DataFrame:
    """Return a row for each packet of a part."""
    ready, found = _ready(pickled), []
    with ready.lock, reading(part) as reader:
        ready.begin()
        for batch in reader.batches():
            frames = ready.frames(batch)
            found.append(
                pd.DataFrame(
                    {
                        "capture": part.path,
                        "timestamp": np.array(frames.timestamps, "u8").view("datetime64[ns]"),
                        "length": np.array(frames.lengths, "u4"),
                        "verdict": np.array(ready.run(frames, on_fault), "u8"),
                    }
                )
            )
    empty = pd.DataFrame({name: pd.Series(dtype=kind) for name, kind in COLUMNS.items()})
    return pd.concat(found, ignore_index=True).astype(COLUMNS) if found else empty


def of_series(column: pd.Series[Any], pickled: bytes, on_fault: int | None) -> pd.Series[Any]:
    """Return the results of a column of packets; what is missing stays so. Raises TypeError for text."""
    values = pa.array(column, from_pandas=True)
    if pa.types.is_string(values.type) or pa.types.is_large_string(values.type):
        raise TypeError(
            "the column holds text, not bytes: give it the type binary[pyarrow], or have Dask make no text"
            " of bytes: dask.config.set({'dataframe.convert-string': False})"
        )
    there = values.drop_null()
    found = np.array(_on_values(pickled, there.to_pylist(), on_fault), "u8")
    results = pd.Series(pd.NA, index=column.index, dtype="UInt64", name="verdict")
    results[np.asarray(values.is_valid())] = found
    return results


def of_bag(values: Iterable[bytes], pickled: bytes, on_fault: int | None) -> list[int]:
    """Return the results of packets."""
    return [int(each) for each in _on_values(pickled, list(values), on_fault)]


def _on_values(pickled: bytes, values: list[bytes], on_fault: int | None) -> Any:
    ready = _ready(pickled)
    with ready.lock:
        ready.begin()
        return ready.run(values, on_fault)
