"""Programs over columns: numpy's records, Arrow's arrays and tables, pandas, Polars, DuckDB."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import cache
from typing import Any

import pytest

from ebpfjit import JitUnavailable, LoadError, MemoryFault, Program, load
from ebpfjit.columns import dtype_of, records
from tests.support.elf_files import OBJECTS
from tests.support.lazy import Lazy

duckdb, np, pd, pl = (Lazy(name) for name in ("duckdb", "numpy", "pandas", "polars"))
pa, pc, arrow = Lazy("pyarrow"), Lazy("pyarrow.compute"), Lazy("ebpfjit.arrow")
LENGTH = Program.from_assembly("mov r0, r2\nexit").compile()
FIRST = Program.from_assembly("ldxb r0, [r1]\nexit").compile()
VALUES = [b"a", b"bcd", b"", None, b"efghij"]
LENGTHS = [1, 3, 0, None, 6]


@pytest.fixture(scope="module")
def weigh() -> Any:
    """Return the program of columns.c that reads a struct event."""
    return load(OBJECTS / "columns.o").programs["weigh"]


EVENTS: dict[str, Any] = {
    "kind": [1, 2],
    "size": [10, 20],
    "name": [b"abc", b"\0"],
    "at": [{"x": -3, "y": 4}, {"x": 5, "y": 6}],
    "samples": [[7, 8, 9], [1, 2, 3]],
    "delta": [-5, 1 << 40],
    "colour": [7, 0],
}
WEIGHTS = [1 + 10 - 12 + 9 - 5 + 7 + ord("a"), 2 + 20 + 30 + 3 + (1 << 40)]


@cache
def schema() -> Any:
    return pa.schema([
        ("kind", pa.uint8()), ("size", pa.uint32()), ("name", pa.binary()),
        ("at", pa.struct([("x", pa.int32()), ("y", pa.int32())])), ("samples", pa.list_(pa.uint16(), 3)),
        ("delta", pa.int64()), ("colour", pa.uint32()),
    ])  # fmt: skip


def test_records_are_laid_out_as_in_c(weigh: Program) -> None:
    dtype = dtype_of(weigh)
    assert dtype.itemsize == 48
    assert {name: dtype.fields[name][1] for name in dtype.names} == {  # type: ignore[index,union-attr]
        "kind": 0, "size": 4, "name": 8, "at": 16, "samples": 24, "delta": 32, "colour": 40,
    }  # fmt: skip
    assert dtype == dtype_of(weigh, "struct event") == dtype_of(weigh, "event")
    at = np.array([(-3, 4), (5, 6)], dtype=dtype["at"])
    rows = records(dtype, EVENTS | {"at": at})
    assert list(weigh.compile().map(rows, stride=rows.itemsize)) == WEIGHTS


WRONG: list[tuple[dict[str, Any], type[Exception], str]] = [
    ({"speed": [1, 2]}, TypeError, "there is no member 'speed'; there are: kind, size"),
    ({"kind": [1, 256]}, ValueError, "member 'kind' holds 0 to 255, and its column 1 to 256"),
    ({"delta": [0.5, 1.0]}, TypeError, "member 'delta' is int64, and its column float64"),
    ({"name": [b"1234567", b""]}, ValueError, "member 'name' has 6 bytes, and its column up to 7"),
    ({"samples": [[1, 2], [3, 4]]}, ValueError, r"member 'samples' has the shape \(3,\), .* \(2,\)"),
    ({"size": [1]}, ValueError, "columns of several lengths"),
    (
        {"size": [1, None]},
        TypeError,
        r"member 'size' is uint32, and its column Python objects \(int, NoneType\)",
    ),
    (
        {"size": [1, 1 << 70]},
        ValueError,
        "member 'size' holds 0 to 4294967295, and its column 1 to 1180591620",
    ),
    ({"name": ["a", "b"]}, TypeError, r"member 'name' is .S6, and its column text"),
]


def test_columns_that_do_not_fit_are_named(weigh: Program) -> None:
    dtype = dtype_of(weigh)
    sound = EVENTS | {"at": np.zeros(2, dtype["at"])}
    for columns, kind, says in WRONG:
        with pytest.raises(kind, match=says):
            records(dtype, sound | columns)
    with pytest.raises(TypeError, match="no column for member 'kind', 'size'"):
        records(dtype, {name: sound[name] for name in sound if name not in ("kind", "size")})
    programs = load(OBJECTS / "columns.o").programs
    for name, says in [("with_bits", "'low' is a bit-field"), ("of_a_number", "takes u64, no pointer")]:
        with pytest.raises(LoadError, match=says):
            dtype_of(programs[name])
    with pytest.raises(LoadError, match="no struct 'nothing'"):
        dtype_of(weigh, "nothing")
    with pytest.raises(LoadError, match="compile with -g"):
        dtype_of(LENGTH.program)


@pytest.mark.parametrize("kind", ["binary", "large_binary", "string", "large_string"])
def test_packets_of_any_length(kind: str) -> None:
    values = pa.array(VALUES, pa.binary()).cast(getattr(pa, kind)())
    assert arrow.map(LENGTH, values).to_pylist() == LENGTHS
    assert arrow.map(LENGTH, values[1:4], nulls=7).to_pylist() == [3, 0, 7]
    chunked = pa.chunked_array([values, values[:0], values[4:]])
    found = arrow.map(LENGTH, chunked)
    assert (found.to_pylist(), found.num_chunks) == ([*LENGTHS, 6], 3)
    assert arrow.map(LENGTH, values[:0]).to_pylist() == []
    with pytest.raises(ValueError, match="row 3 is null"):
        arrow.map(LENGTH, values, nulls="raise")


class Tagged(pa.ExtensionType):  # type: ignore[misc]  # pyarrow has no types
    """Packets, by another name; objects of it do not hash."""

    __hash__ = None  # type: ignore[assignment]  # as of types without one

    def __init__(self) -> None:
        super().__init__(pa.binary(), "tests.tagged")

    def __arrow_ext_serialize__(self) -> bytes:
        return b""


OTHER_WAYS: Callable[[Any], list[Any]] = lambda values: [  # noqa: E731 - a table
    values.cast(pa.binary_view()),
    values.cast(pa.string_view()),
    values.dictionary_encode(),
    values.cast(pa.string()).dictionary_encode(),
    pa.ExtensionArray.from_storage(Tagged(), values),
]


def test_values_that_stand_elsewhere_than_one_behind_the_other() -> None:
    values = pa.array(VALUES, pa.binary())
    for column in OTHER_WAYS(values):
        assert arrow.map(LENGTH, column).to_pylist() == LENGTHS
        assert arrow.map(LENGTH, column[1:4], nulls=7).to_pylist() == [3, 0, 7]
        assert arrow.map(LENGTH, column[:0]).to_pylist() == []
        assert arrow.map(LENGTH, pa.chunked_array([column, column[4:]])).to_pylist() == [*LENGTHS, 6]
    runs = pa.RunEndEncodedArray.from_arrays([2, 3, 4], pa.array([b"ab", None, b"c"]))
    assert arrow.map(LENGTH, runs).to_pylist() == [2, 2, None, 1]
    assert arrow.map(LENGTH, runs[1:]).to_pylist() == [2, None, 1]
    assert arrow.map(LENGTH, pa.array([b"", None, b""], pa.binary(0))).to_pylist() == [0, None, 0]


def test_members_that_stand_elsewhere(weigh: Program) -> None:
    table = pa.table(EVENTS, schema=schema())
    columns = dict(zip(table.column_names, table.columns, strict=True))
    for name in ("kind", "name"):
        encoded = {**columns, name: columns[name].dictionary_encode()}
        assert arrow.map(weigh, pa.table(encoded)).to_pylist() == WEIGHTS
    lists = pa.array([[7, None, 9]] * 2, pa.list_(pa.uint16(), 3))
    with pytest.raises(ValueError, match="member 'samples' has nulls inside of its lists"):
        arrow.map(weigh, pa.table({**columns, "samples": lists}))


MEMBERS = [("n", "u1"), ("text", "S4"), ("raw", "V3"), ("pair", [("x", "<i2"), ("y", "?")])]
NO_COLUMNS: Callable[[], list[tuple[str, Any, type[Exception], str]]] = lambda: [  # noqa: E731 - a table
    ("n", 5, TypeError, "member 'n' is one value, of type int"),
    ("n", b"ab", TypeError, "member 'n' is one value"),
    ("n", np.ma.array([1, 2], mask=[True, False]), ValueError, "member 'n' has values that are masked"),
    ("text", [None, b"a"], TypeError, "member 'text' is bytes, and its column has a NoneType"),
    ("text", np.array([b"a", 5], object), TypeError, "has a int"),
    ("text", np.array([1 << 70, b""], object), TypeError, "has a int"),
    ("raw", np.zeros(2, [("q", "i4")]), TypeError, "member 'raw' is .V3, and its column"),
    ("raw", np.zeros(2, "V4"), TypeError, "member 'raw' is .V3, and its column .V4"),
    ("pair", np.zeros(2, [("a", "i2"), ("b", "?")]), TypeError, "no member 'a'; there are: x, y"),
    ("pair", np.ones(2, [("x", "i2")]), TypeError, "no column for member 'y'"),
    ("pair", np.full(2, 1 << 20, [("x", "i4"), ("y", "?")]), ValueError, "'x' holds -32768 to 32767, and"),
    ("pair", np.zeros(2, "V3"), TypeError, "member 'pair' is "),
]


def test_what_is_no_column_of_values_is_said() -> None:
    good = {
        "n": np.array([1, 2], ">i8"), "text": np.array([b"ab", bytearray(b"c")], object),
        "raw": np.array([b"abc", b"def"], "V3"),
        "pair": np.array([(True, -5), (False, 6)], [("y", "?"), ("x", ">i8")]),
    }  # fmt: skip
    members = np.dtype(MEMBERS)
    assert records(members, good).tolist() == [(1, b"ab", b"abc", (-5, True)), (2, b"c", b"def", (6, False))]
    for name, column, kind, says in NO_COLUMNS():
        with pytest.raises(kind, match=says):
            records(members, good | {name: column})


def test_packets_of_one_length_and_faults() -> None:
    values = pa.array([b"abc", b"xyz", None, b"def"], pa.binary(3))
    assert arrow.map(FIRST, values).to_pylist() == [97, 120, None, 100]
    assert arrow.map(FIRST, values[1:]).to_pylist() == [120, None, 100]
    assert arrow.map(FIRST, pa.array([b"a", b""]), on_fault=-1).to_pylist() == [97, (1 << 64) - 1]
    with pytest.raises(MemoryFault) as raised:
        arrow.map(FIRST, pa.array([b"a", b""]))
    assert raised.value.index == 1


def test_what_faults_or_is_null_is_said_by_its_row(monkeypatch: pytest.MonkeyPatch) -> None:
    """The row of the whole column: nulls before it count, and chunks; with machine code and without."""

    def refuse(*_: object, **options: object) -> None:
        raise JitUnavailable("not here")

    values = pa.array([b"a", None, b"b", None, b"", b"c"])
    chunked = pa.chunked_array([values[:3], pa.array([], pa.binary()), values[3:]])
    for function in (FIRST, FIRST.program):
        for column in (values, chunked, pa.table({"packet": chunked})["packet"]):
            with pytest.raises(MemoryFault, match=r"^packet 4: pc 0: load of 1 byte") as raised:
                arrow.map(function, column)
            assert raised.value.index == 4
        monkeypatch.setattr(Program, "compile", refuse)
        monkeypatch.setattr("ebpfjit.interpreted.warnings.warn", lambda *_, **options: None)
    with pytest.raises(ValueError, match=r"^row 3 is null"):
        arrow.map(LENGTH, pa.chunked_array([values[:1], values[:1], values[:2]]), nulls="raise")


def test_rows_of_structs_and_tables(weigh: Program) -> None:
    table = pa.table(EVENTS, schema=schema()).select(schema().names[::-1])
    assert arrow.map(weigh, table).to_pylist() == WEIGHTS
    batch = table.to_batches()[0]
    assert arrow.map(weigh, batch).to_pylist() == WEIGHTS
    rows = batch.to_struct_array()
    assert arrow.map(weigh, rows, layout=dtype_of(weigh)).to_pylist() == WEIGHTS
    assert arrow.map(weigh, rows[1:]).to_pylist() == WEIGHTS[1:]
    holes = pa.table(EVENTS | {"kind": [None, 2]}, schema=schema())
    assert arrow.map(weigh, holes).to_pylist() == [None, WEIGHTS[1]]
    assert arrow.map(weigh, table[:0]).to_pylist() == []
    with pytest.raises(TypeError, match="there is no member 'speed'"):
        arrow.map(weigh, table.append_column("speed", [[1, 2]]))


def test_the_program_does_not_see_nulls() -> None:
    counter = load(OBJECTS / "counter.o")
    arrow.map(counter.programs["count"], pa.array([bytes(64), None, bytes(64)]))
    assert counter.maps["seen"][0] == (2).to_bytes(8, "little")


def test_what_is_no_column_is_said() -> None:
    for column, says in [
        ([b"a"], "a column is of pyarrow, not of type list"),
        (pa.array([1, 2]), "a column of int64: programs run on binary, string"),
    ]:
        with pytest.raises(TypeError, match=says):
            arrow.map(LENGTH, column)
    with pytest.raises(TypeError, match="a column of int64: "):
        arrow.map(LENGTH, pa.chunked_array([], pa.int64()))
    for made in (pa.array([1]), pa.array([[1], None])):
        for column in (made, made[:0], made[1:], made.slice(len(made))):  # whatever is in it
            with pytest.raises(TypeError, match=f"a column of {re.escape(str(made.type))}: "):
                arrow.map(LENGTH, column)
    assert arrow.map(LENGTH, pa.nulls(2)).to_pylist() == [None, None]
    newer = pa.record_batch({"text": pa.array([b"a", None], pa.binary_view())})
    with pytest.raises(TypeError, match="a column of struct<text: binary_view> with nulls"):
        arrow.map(LENGTH, newer)
    with pytest.raises(TypeError, match='nulls is None, a number or "raise"'):
        arrow.map(LENGTH, pa.array([b"a"]), nulls="skip")


def test_a_compute_function_of_pyarrow() -> None:
    arrow.register(LENGTH, "ebpf_length", nulls=0)
    column = pa.chunked_array([pa.array(VALUES)])
    assert pc.call_function("ebpf_length", [column]).to_pylist() == [1, 3, 0, 0, 6]
    assert pc.call_function("ebpf_length", [pa.scalar(b"four")]).as_py() == 4


def test_pandas() -> None:
    frame = pd.DataFrame({"packet": pd.array([b"a", b"bcd"], dtype=pd.ArrowDtype(pa.binary()))})
    frame["length"] = pd.array(arrow.map(LENGTH, pa.chunked_array(pa.array(frame["packet"]))))
    assert list(frame["length"]) == [1, 3]


def test_polars() -> None:
    frame = pl.DataFrame({"packet": [b"a", None, b"bcd"]})
    for compatible in (pl.CompatLevel.oldest(), pl.CompatLevel.newest()):  # large_binary, views of it
        packets = frame["packet"].to_arrow(compat_level=compatible)
        found = frame.with_columns(length=pl.from_arrow(arrow.map(LENGTH, packets)))
        assert found["length"].to_list() == [1, None, 3]


def test_duckdb() -> None:
    connection = duckdb.connect()
    blob, number = duckdb.sqltype("BLOB"), duckdb.sqltype("UBIGINT")
    size_of = lambda column: arrow.map(LENGTH, column)  # noqa: E731 - as users write it
    connection.create_function("size_of", size_of, [blob], number, type="arrow")
    found = connection.sql("select size_of(x) from (values ('abc'::BLOB), ('z'::BLOB)) as t(x)").fetchall()
    assert found == [(3,), (1,)]
