"""Programs on Dask: over many captures, over columns of data frames and bags (`pip install 'ebpfjit[dask]'`).

run(program, paths)        captures in parts, wherever a worker is; verdicts counted, maps merged
packets(program, paths)    a row for each packet, as a Dask DataFrame
map(program, column)       a column of packets, as a column of results

A program is pickled once, and compiled once in each process. Each part starts from the maps as they were
pickled: what one part does no other sees, so a part that is lost with its worker is just run again.
"""

from __future__ import annotations

import os
import pickle
import warnings
from collections.abc import Callable, Iterable, Mapping
from dataclasses import field, replace
from itertools import pairwise
from typing import Any

import dask
import pandas as pd

from ebpfjit.capture.parts import SIZE, Part, follows, parts, reading
from ebpfjit.capture.reader import State
from ebpfjit.dask.merge import GONE, RULES, checked, items, maps_of, naming, shown
from ebpfjit.dask.worker import COLUMNS, Done, note, of_bag, of_series, rows, run_part
from ebpfjit.errors import CaptureError, EbpfError, EbpfWarning, ExecutionError, InputError
from ebpfjit.program import Program
from ebpfjit.record import dataclass

Paths = str | os.PathLike[str] | Iterable[str | os.PathLike[str]]


@dataclass(frozen=True, slots=True)
class Answer:
    """What a program did to captures.

    `counts` is a pandas DataFrame with a row for each capture and verdict: `capture`, `verdict` (u64),
    `packets`, `bytes`. `maps` are those that were merged, by name: keys (as Python values where the types
    tell and they hash, else bytes) to values. `errors` are those of captures that are damaged or were cut
    off, by path: what is before that is counted. `parts` are what the answer was put together from.
    """

    counts: pd.DataFrame
    maps: Mapping[str, Any]
    errors: Mapping[str, EbpfError]
    parts: tuple[Part, ...] = field(repr=False, default=())


def run(
    program: Program,
    paths: Paths,
    *,
    merge: Mapping[str, str] | None = None,
    on_fault: int | None = None,
    part_size: int = SIZE,
) -> Answer:
    """Run a program over captures, on whatever Dask's scheduler is (a Client that is there, else threads).

    `paths` are a path, or several, of files that each worker has too. `merge` says by the name of a map
    how what parts left in it is put together: "sum" (of numbers, also inside of structs and lists: each part
    adds what it changed), "max", "min", "last" (in the order of the packets), "list" (of ring and perf
    buffers, queues and stacks the records, else a list of what each part left) or "drop" (not at all).
    `on_fault` is as for `fn.map`. A capture of more than `part_size` bytes is read in parts.

    Raises TypeError for what is no `Program`, `paths` or `merge`; KeyError for a map that is not there;
    ValueError for a rule that the map cannot have, a capture that is given twice or that is no file (a pipe)
    and a `part_size` below 1; MapError for a map that a part changed and that `merge` does not name;
    TypeError for values that have no sum; ExecutionError for a fault without `on_fault` and InputError for a
    packet that is too short (a note says which one of which capture); what `capture.read` raises where there
    is no packet before it; CaptureError, which names the worker, where that cannot read a capture or has
    another one by its name.
    """
    pickled = _pickled(program)
    rules = checked(program, merge or {})
    waiting = [part for path in _paths(paths) for part in parts(path, part_size)]
    done = _all(run_part, pickled, waiting, on_fault, rules)
    while again := _guessed_wrong(done):
        mended = [replace(done[index].part, start=start) for index, start in again.items()]
        found = _all(run_part, pickled, mended, on_fault, rules)
        for index, one in zip(again, found, strict=True):
            done[index] = one
    return _answer(program, done, rules)


def packets(program: Program, paths: Paths, *, on_fault: int | None = None, part_size: int = SIZE) -> Any:
    """Return a Dask DataFrame with a row for each packet: `capture`, `timestamp`, `length`, `verdict`.

    `paths`, `on_fault` and `part_size` are as for `run`. The captures are walked at once, to see where
    parts start; the program runs where the frame is computed. An EbpfWarning says where a capture is damaged
    or was cut off: the packets before have their rows. Raises CaptureError for what is no capture and OSError
    at once, ExecutionError where it is computed, and what `run` raises.
    """
    import dask.dataframe as dd

    pickled = _pickled(program)
    exact = [part for path in _paths(paths) for part in _exact(parts(path, part_size))]
    meta = pd.DataFrame({name: pd.Series(dtype=kind) for name, kind in COLUMNS.items()})
    made = [dask.delayed(rows)(pickled, part, on_fault) for part in exact]
    return dd.from_delayed(made, meta=meta) if made else dd.from_pandas(meta, npartitions=1)


def map(program: Program, column: Any, *, on_fault: int | None = None) -> Any:
    """Run a program on each value (bytes) of a `column`: a Series of a Dask DataFrame, or a bag; return the
    results.

    Of a Series these are a Series "verdict" of u64, and missing values stay missing; of a bag ints.
    `on_fault` is as for `fn.map`. Raises TypeError for what is no `Program`, and for another column; where it
    is computed ExecutionError, and TypeError for values that are no bytes.
    """
    import dask.bag as db
    import dask.dataframe as dd

    pickled = _pickled(program)
    if isinstance(column, dd.Series) and not isinstance(column, dd.Index):
        meta = pd.Series(dtype="UInt64", name="verdict")
        return column.map_partitions(of_series, pickled, on_fault, meta=meta)
    if isinstance(column, db.Bag):
        return column.map_partitions(of_bag, pickled, on_fault)
    kind = type(column).__name__
    raise TypeError(f"a column is a Series of a Dask DataFrame, or a bag, not of type {kind}")


def _pickled(program: Program) -> bytes:
    """Return a program as workers get it. Raises TypeError for what is none, PicklingRefused."""
    if not isinstance(program, Program):
        kind = type(program).__name__
        raise TypeError(f"workers are sent an ebpfjit.Program (of a function its `program`), not a {kind}")
    return pickle.dumps(program)


def _paths(paths: Paths) -> list[str]:
    """Return the paths of captures. Raises TypeError, ValueError for one that is given twice."""
    if isinstance(paths, (str, os.PathLike)):
        paths = [paths]
    if isinstance(paths, bytes) or not isinstance(paths, Iterable):
        raise TypeError(f"captures are given by a path, or several, not as {type(paths).__name__}")
    found: dict[str, str] = {}
    for path in paths:
        name = os.fspath(path)
        if not isinstance(name, str):
            raise TypeError(f"the path of a capture is text, not {type(name).__name__}")
        if (place := os.path.realpath(name)) in found:
            raise ValueError(f"capture {name} is given twice (as {found[place]})")
        found[place] = name
    return list(found.values())


def _all(work: Callable[..., Done], pickled: bytes, these: list[Part], *arguments: Any) -> list[Done]:
    shared = dask.delayed(pickled)
    found: tuple[Done, ...] = dask.compute(*[dask.delayed(work)(shared, part, *arguments) for part in these])
    return list(found)


def _guessed_wrong(done: list[Done]) -> dict[int, State]:
    """Return for each capture the first part that does not start where the one before it ended, and where to.

    Only of what follows parts that are right it is known that it starts at a record.
    """
    wrong: dict[str, tuple[int, State]] = {}
    for index, (before, this) in enumerate(pairwise(done), 1):
        path = this.part.path
        if before.part.path == path and before.error is None and not follows(before.end, this.part.start):
            wrong.setdefault(path, (index, before.end))
    return dict(wrong.values())


def _exact(guessed: list[Part]) -> list[Part]:
    """Return parts that start where the one before ends, found by walking them."""
    found: list[Part] = []
    state: State | None = None
    for part in guessed:
        this = part if state is None else replace(part, start=state)
        try:
            with reading(this) as reader:
                for _ in reader.batches():
                    pass
        except CaptureError as error:
            warnings.warn(f"{error}; there are rows of the packets before", EbpfWarning, stacklevel=3)
            return [*found, replace(this, stop=reader.position)]
        state = reader.state
        found.append(this)
    return found


def _answer(program: Program, done: list[Done], rules: Mapping[str, str]) -> Answer:
    """Put together what parts left, in their order. Raises what ended one, but for damaged captures."""
    counts: dict[tuple[str, int], tuple[int, int]] = {}
    left: dict[str, Any] = {}
    named = {map_.name: map_ for map_ in maps_of(program)}
    errors: dict[str, EbpfError] = {}
    behind: dict[str, int] = {}
    for one in done:
        path = one.part.path
        if path in errors:
            continue  # behind what is damaged nothing is known
        earlier = behind.get(path, 0)
        behind[path] = earlier + one.packets
        if isinstance(one.error, CaptureError):
            errors[path] = _counted_on(one.error, earlier - one.part.start.packets)
            errors[path].add_note(f"read by {one.worker}")
        elif one.error is not None:
            if isinstance(one.error, ExecutionError | InputError):
                one.error.add_note(note(path, behind[path] + (one.error.index or 0)))
            raise one.error
        for kind, (packets, size) in one.counts.items():
            before = counts.get((path, kind), (0, 0))
            counts[path, kind] = before[0] + packets, before[1] + size
        for name, more in one.maps.items():
            with naming(named[name], rules[name]):
                left[name] = RULES[rules[name]].added(left[name], more) if name in left else more
    rows = [(path, kind, *numbers) for (path, kind), numbers in counts.items()]
    frame = pd.DataFrame(rows, columns=["capture", "verdict", "packets", "bytes"])
    frame = frame.astype({"verdict": "u8", "packets": "u8", "bytes": "u8"})
    kept = {name: rule for name, rule in rules.items() if rule != "drop"}
    maps = {name: _whole(named[name], rule, left.get(name)) for name, rule in kept.items()}
    return Answer(frame, maps, errors, tuple(one.part for one in done))


def _counted_on(error: CaptureError, before: int) -> CaptureError:
    """Return an error of a part, which counts its own packets, as one of the capture."""
    packets = error.packets + before
    said = str(error).replace(f": packet {error.packets + 1}, ", f": packet {packets + 1}, ", 1)
    return CaptureError(said, packets, error.position)


def _whole(map_: Any, rule: str, left: Any) -> Any:
    """Return what a map holds behind all parts."""
    if rule == "list":
        return left or []
    before = items(map_)
    if left is None:
        return shown(map_, before)
    with naming(map_, rule):
        found = RULES[rule].added(before, left) if rule in ("sum", "last") else left
    return shown(map_, {key: value for key, value in found.items() if value is not GONE})
