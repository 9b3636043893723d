"""A program over columns of Arrow: `map`, and compute functions of pyarrow (`pip install 'ebpfjit[arrow]'`).

binary, large_binary, string    a value is a packet: the buffers are used as they are, nothing is copied
fixed_size_binary(n)            the same
views, dictionaries, run-ends   are copied first, one behind the other; extension types are what they store
struct, or a whole table        a row is laid out as the C struct that the program reads (`ebpfjit.columns`)

The results are u64. A null is no packet: the program does not see it, and what stands there is what `nulls`
says.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Literal

import pyarrow as pa
import pyarrow.compute as pc

from ebpfjit.errors import ExecutionError, InputError
from ebpfjit.function import JitFunction
from ebpfjit.interpreted import Interpreted, for_batches
from ebpfjit.named import of_packet
from ebpfjit.program import Program

if TYPE_CHECKING:
    import numpy as np

OFFSETS: dict[Any, Literal["i", "q"]] = {
    pa.binary(): "i", pa.string(): "i", pa.large_binary(): "q", pa.large_string(): "q",
}  # fmt: skip
"""How the offsets of a column of packets stand in memory, by its type."""

Nulls = int | str | None


def map(
    function: JitFunction | Interpreted | Program,
    column: Any,
    *,
    on_fault: int | None = None,
    nulls: Nulls = None,
    layout: np.dtype[Any] | None = None,
) -> Any:
    """Run a program on each value of a column; return an array of uint64, chunked as the column is.

    `column` is a pyarrow Array, ChunkedArray, RecordBatch or Table. `on_fault` is as for `fn.map`. `nulls` is
    what a null gives: None a null, a number that number, "raise" a ValueError. In rows of a struct or a table
    a null in any member counts. `layout` is the struct that rows are laid out as, by default the one that the
    program's function takes (`ebpfjit.columns.dtype_of`).

    Raises TypeError for columns of other types, what `fn.map` raises (`index` is the row then, from 0), and
    what `columns.records` does.
    """
    if nulls not in (None, "raise") and (isinstance(nulls, bool) or not isinstance(nulls, int)):
        raise TypeError(f'nulls is None, a number or "raise", not {nulls!r}')
    if isinstance(function, Program):
        function = for_batches(function)
    if isinstance(column, pa.Table):
        rows = [batch.to_struct_array() for batch in column.to_batches()]
        column = pa.chunked_array(rows, pa.struct(list(column.schema)))
    if isinstance(column, pa.RecordBatch):
        column = column.to_struct_array()
    if isinstance(column, pa.ChunkedArray):
        if not column.chunks:
            _of_array(function, pa.array([], column.type), on_fault, nulls, layout)  # says what the type is
        found, first = [], 0
        for chunk in column.chunks:
            found.append(_of_array(function, chunk, on_fault, nulls, layout, first))
            first += len(chunk)
        return pa.chunked_array(found, pa.uint64())
    if not isinstance(column, pa.Array):
        kind = type(column).__name__
        raise TypeError(f"a column is of pyarrow, not of type {kind}; pyarrow.array makes one")
    return _of_array(function, column, on_fault, nulls, layout)


def register(
    function: JitFunction | Program,
    name: str,
    type: Any = None,
    *,
    on_fault: int | None = None,
    nulls: Nulls = None,
) -> None:
    """Register a program as a scalar compute function of pyarrow: `pc.call_function(name, [column])`.

    `type` is that of the column, binary if it is not said; `on_fault` and `nulls` are as for `map`. Raises
    what `pyarrow.compute` raises for a name that is taken.
    """
    compiled = for_batches(function) if isinstance(function, Program) else function

    def run(context: Any, column: Any) -> Any:
        if isinstance(column, pa.Scalar):
            return map(compiled, pa.array([column]), on_fault=on_fault, nulls=nulls)[0]
        return map(compiled, column, on_fault=on_fault, nulls=nulls)

    what = {"summary": f"eBPF: {name}", "description": "a program of ebpfjit over each value"}
    pc.register_scalar_function(run, name, what, {"column": type or pa.binary()}, pa.uint64())


def _of_array(
    function: JitFunction | Interpreted,
    column: Any,
    on_fault: int | None,
    nulls: Nulls,
    layout: np.dtype[Any] | None,
    first: int = 0,
) -> Any:
    """Return the results of an array, whose first value is row `first` in what is said of one."""
    column = _plain(column)
    kind = column.type
    if not _has_packets(kind) and not pa.types.is_struct(kind) and not pa.types.is_null(kind):
        known = ", ".join(str(each) for each in OFFSETS)
        raise TypeError(f"a column of {kind}: programs run on {known}, fixed_size_binary and struct")
    valid = _valid_rows(column)
    if valid is None:
        with _counting(lambda row: first + row):
            return _results(function, column, on_fault, layout)
    if nulls == "raise":
        raise ValueError(f"row {first + valid.index(False).as_py()} is null")
    try:
        there = column.filter(valid)
    except pa.ArrowNotImplementedError as error:  # a struct with members of newer types
        raise TypeError(f"a column of {kind} with nulls: {error}") from None
    with _counting(lambda row: first + pc.indices_nonzero(valid)[row].as_py()):
        results = _results(function, there, on_fault, layout)
    places = pc.if_else(valid, pc.subtract(pc.cumulative_sum(pc.cast(valid, pa.int64())), 1), None)
    spread = results.take(places)
    return spread if nulls is None else pc.fill_null(spread, pa.scalar(nulls % (1 << 64), pa.uint64()))


@contextmanager
def _counting(row: Callable[[int], int]) -> Iterator[None]:
    """Have what a packet raises say which row of the column it is, by which one it is of some of them."""
    try:
        yield
    except (ExecutionError, InputError) as error:
        if error.index is not None:
            of_packet(error, row(error.index))
        raise


def _plain(column: Any) -> Any:
    """Return a column whose values stand one behind the other: of what other types say in other ways."""
    kind, types = column.type, pa.types
    if isinstance(kind, pa.BaseExtensionType):
        return _plain(column.storage)
    if types.is_dictionary(kind):
        return _plain(column.dictionary_decode())
    if types.is_run_end_encoded(kind):
        return _plain(pc.run_end_decode(column))
    if types.is_binary_view(kind):
        return column.cast(pa.large_binary())
    return column.cast(pa.large_string()) if types.is_string_view(kind) else column


def _has_packets(kind: Any) -> bool:
    """True for types whose values are packets as they are."""
    return kind in OFFSETS or pa.types.is_fixed_size_binary(kind)


def _valid_rows(column: Any) -> Any:
    """Return which rows are there, as an array of booleans; None where all are."""
    found = column.is_valid() if column.null_count else None
    if pa.types.is_struct(column.type):
        for member in column.flatten():
            below = _valid_rows(member)
            if below is not None:
                found = below if found is None else pc.and_(found, below)
    return found


def _results(
    function: JitFunction | Interpreted, column: Any, on_fault: int | None, layout: np.dtype[Any] | None
) -> Any:
    """Return the results of a column without nulls."""
    kind, count = column.type, len(column)
    if count == 0:
        return pa.array([], pa.uint64())
    if kind in OFFSETS:
        _, offsets, data = column.buffers()
        starts = memoryview(offsets).cast(OFFSETS[kind])[column.offset : column.offset + count + 1]
        found = function.map(data if data is not None else b"", offsets=starts, on_fault=on_fault)
    elif pa.types.is_fixed_size_binary(kind):
        size = kind.byte_width
        if not size:
            return _results(function, pa.array([b""] * count, pa.binary()), on_fault, layout)
        start = column.offset * size
        data = memoryview(column.buffers()[1])[start : start + count * size]
        found = function.map(data, stride=size, on_fault=on_fault)
    else:
        rows = _rows(column, layout if layout is not None else _layout_of(function))
        found = function.map(rows, stride=rows.itemsize, on_fault=on_fault)
    return pa.Array.from_buffers(pa.uint64(), count, [None, pa.py_buffer(found)])


def _layout_of(function: JitFunction | Interpreted) -> np.dtype[Any]:
    from ebpfjit.columns import dtype_of

    return dtype_of(function.program)


def _rows(column: Any, layout: np.dtype[Any]) -> np.ndarray[Any, Any]:
    """Return the rows of a struct column, laid out."""
    from ebpfjit.columns import records

    names = [field.name for field in column.type]
    members = dict(zip(names, column.flatten(), strict=True))
    return records(layout, {name: _member(name, member, layout) for name, member in members.items()})


def _member(name: str, column: Any, layout: np.dtype[Any]) -> np.ndarray[Any, Any]:
    """Return a member's column as numpy has it."""
    column = _plain(column)
    kind = column.type
    if pa.types.is_struct(kind):
        inner = layout[name] if name in (layout.names or ()) else None
        if inner is None or inner.names is None:
            raise TypeError(f"there is no struct {name!r} in the program's")
        return _rows(column, inner)
    if pa.types.is_fixed_size_list(kind):
        values = column.flatten()
        if values.null_count:
            raise ValueError(f"member {name!r} has nulls inside of its lists")
        flat: np.ndarray[Any, Any] = values.to_numpy(zero_copy_only=False)
        return flat.reshape(len(column), kind.list_size)
    numbers: np.ndarray[Any, Any] = column.to_numpy(zero_copy_only=False)
    return numbers
