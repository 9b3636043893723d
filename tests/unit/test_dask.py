"""Programs on Dask: parts of captures, maps merged, columns; two processes, one of which goes away."""

from __future__ import annotations

import os
import random
import re
import signal
import struct
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from ebpfjit import (
    CaptureError,
    EbpfWarning,
    ExecutionError,
    JitUnavailable,
    MapError,
    Program,
    capture,
    load,
)
from ebpfjit.capture import parts as parts_of
from tests.support import captures
from tests.support.elf_files import OBJECTS
from tests.support.lazy import Lazy

dask, bags, dd, distributed = (Lazy(name) for name in ("dask", "dask.bag", "dask.dataframe", "distributed"))
pa, pd, on_dask = Lazy("pyarrow"), Lazy("pandas"), Lazy("ebpfjit.dask")

EXAMPLES = OBJECTS.parents[1] / "examples" / "packets"
LENGTH = Program.from_assembly("mov r0, r2\nexit")


def _packets(count: int, seed: int = 1) -> list[bytes]:
    chosen = random.Random(seed)
    return [bytes(12) + b"\x08\x00" + chosen.randbytes(chosen.randrange(20, 200)) for _ in range(count)]


@pytest.fixture
def one(tmp_path: Path) -> str:
    """Return a capture of 500 packets."""
    path = tmp_path / "one.pcap"
    path.write_bytes(captures.pcap(_packets(500)).data)
    return str(path)


def _in_parts(path: str, size: int) -> list[bytes]:
    """Return the packets of a capture read in parts, each from where the one before it ended."""
    found: list[bytes] = []
    end = None
    for part in parts_of.parts(path, size):
        if end is not None and not parts_of.follows(end, part.start):
            part = parts_of.Part(part.path, end, part.stop)
        with parts_of.reading(part) as reader:
            found += [bytes(packet) for batch in reader.batches() for packet in batch]
            end = reader.state
    return found


def test_parts_are_the_whole_capture(tmp_path: Path) -> None:
    path = str(tmp_path / "c")
    for seed in range(12):
        chosen, order = random.Random(seed), "<>"[seed % 4 // 2]
        made = captures.pcapng(chosen) if seed % 2 else captures.pcap(_packets(40, seed), order=order)
        Path(path).write_bytes(made.data)
        for size in (64, 1000, 1 << 20):
            assert _in_parts(path, size) == [data for _, data, _, _ in made.packets], (seed, size)


def test_guesses_are_right_for_captures_of_packets(one: str) -> None:
    guessed = parts_of.parts(one, 5000)
    assert len(guessed) > 5
    with parts_of.reading(guessed[0]) as reader:
        for _ in reader.batches():
            pass
        assert parts_of.follows(reader.state, guessed[1].start)


@pytest.fixture
def threads() -> Iterator[None]:
    """Use no cluster."""
    with dask.config.set(scheduler="threads", num_workers=2):
        yield


def _misleading() -> bytes:
    """Return packets in which there are records: a guess may take them for the capture's own."""
    inside = b"".join(struct.pack("<4I", 5, 5, 40, 40) + bytes(40) for _ in range(40))
    return captures.pcap([inside] * 20).data


@pytest.mark.usefixtures("threads")
def test_a_capture_in_parts_comes_to_the_same(one: str, tmp_path: Path) -> None:
    misleading = tmp_path / "misleading.pcap"
    misleading.write_bytes(_misleading())
    for path in (one, str(misleading)):
        whole, parts = (on_dask.run(LENGTH, path, part_size=size) for size in (1 << 30, 3000))
        assert len(parts.parts) > len(whole.parts) == 1
        by = ["capture", "verdict"]
        pd.testing.assert_frame_equal(
            whole.counts.sort_values(by, ignore_index=True), parts.counts.sort_values(by, ignore_index=True)
        )
        rows = on_dask.packets(LENGTH, path, part_size=3000).compute()
        expected = [len(packet) for batch in capture.read(path) for packet in batch]
        assert rows["verdict"].tolist() == rows["length"].tolist() == expected
    assert whole.counts.packets.sum() == 20
    assert rows["timestamp"].iloc[1] > rows["timestamp"].iloc[0]


@pytest.mark.usefixtures("threads")
def test_maps_are_merged_by_the_rule_that_is_named(one: str, tmp_path: Path) -> None:
    obj = load(EXAMPLES / "xdp_port_filter.o")
    program = obj.programs["port_filter"]
    obj.maps["counters"][2] = {"packets": 1000, "bytes": 5}
    sizes = [len(packet) for packet in _packets(500)]
    for rule, expected in [
        ("sum", {"packets": 1500, "bytes": 5 + sum(sizes)}),
        ("max", None), ("min", None), ("last", None),
    ]:  # fmt: skip
        answer = on_dask.run(program, one, merge={"counters": rule}, part_size=5000)
        found = answer.maps["counters"][2]
        if expected is not None:
            assert found == expected
        else:
            assert 1000 < found["packets"] < 1500
    listed = on_dask.run(program, one, merge={"counters": "list"}, part_size=5000).maps["counters"]
    assert sum(part[2]["packets"] - 1000 for part in listed) == 500
    assert len(listed) > 5
    with pytest.raises(MapError, match=r"map 'counters' \(array\): the program changes it.*merge=\{"):
        on_dask.run(program, one)
    for merge, kind, says in [
        ({"counters": "mean"}, ValueError, "there are sum, max, min, last, list"),
        ({"nothing": "sum"}, KeyError, "has no map 'nothing'; it has blocked, counters"),
    ]:
        with pytest.raises(kind, match=says):
            on_dask.run(program, one, merge=merge)
    assert obj.maps["counters"].typed[2]["packets"] == 1000  # the runs had copies


@pytest.mark.usefixtures("threads")
def test_damaged_captures_and_faults(one: str, tmp_path: Path) -> None:
    cut = tmp_path / "cut.pcap"
    cut.write_bytes(Path(one).read_bytes()[:-7])
    answer = on_dask.run(LENGTH, [cut, one], part_size=5000)
    assert "packet" in str(answer.errors[str(cut)])
    assert answer.counts.groupby("capture").packets.sum().to_dict() == {str(cut): 499, one: 500}
    far = Program.from_assembly("ldxb r0, [r1+150]\nexit")
    with pytest.raises(ExecutionError) as raised:
        on_dask.run(far, one, part_size=5000)
    assert f"in capture {one}" in raised.value.__notes__[-1]
    counted = on_dask.run(far, one, on_fault=999, part_size=5000).counts
    short = sum(len(packet) <= 150 for packet in _packets(500))
    assert counted[counted.verdict == 999].packets.item() == short
    with pytest.raises(FileNotFoundError):
        on_dask.run(LENGTH, tmp_path / "missing")
    with pytest.warns(EbpfWarning, match=r"cut\.pcap: packet 500, byte .* ends .* early; there are rows of"):
        rows = on_dask.packets(far, cut, on_fault=999, part_size=5000)
    assert len(rows.compute()) == 499
    with pytest.raises(ExecutionError) as raised:
        on_dask.packets(far, one, part_size=5000).compute()
    number = raised.value.__notes__[-1].removeprefix(f"in capture {one}, packet ")
    assert len(_packets(500)[int(number) - 1]) <= 150


@pytest.mark.usefixtures("threads")
def test_packets_are_counted_over_parts(tmp_path: Path) -> None:
    """What is wrong in a part is said by the number that the packet has in its capture."""
    packets = [bytes(12) + b"\x08\x00" + random.Random(7).randbytes(100) for _ in range(300)]
    made = captures.pcap([*packets, b"short", *packets])
    path = tmp_path / "c.pcap"
    path.write_bytes(made.data)
    far = Program.from_assembly("ldxb r0, [r1+50]\nexit")
    with pytest.raises(ExecutionError) as raised:
        on_dask.run(far, path, part_size=5000)
    assert raised.value.__notes__[-1] == f"in capture {path}, packet 301"
    path.write_bytes(made.data[: made.ends[400] + 8] + b"\xff" * 4 + made.data[made.ends[400] + 12 :])
    answer = on_dask.run(far, path, part_size=5000, on_fault=0)
    error = answer.errors[str(path)]
    assert str(error).startswith(f"{path}: packet 402, byte {made.ends[400]}: a record of more than")
    assert (error.packets, error.position) == (401, made.ends[400])
    assert answer.counts.packets.sum() == 401


ARGUMENTS: list[tuple[Any, dict[str, Any], type[Exception], str]] = [
    (LENGTH, {"paths": None}, TypeError, "given by a path, or several, not as NoneType"),
    (LENGTH, {"paths": [b"one.pcap"]}, TypeError, "the path of a capture is text, not bytes"),
    (LENGTH, {"paths": "-"}, ValueError, "-: a pipe, or a device, can be read once and here"),
    (LENGTH, {"paths": "/dev/null"}, ValueError, "/dev/null: a pipe, or a device, can be read once and here"),
    (LENGTH, {"paths": "twice"}, ValueError, "capture .*one.pcap is given twice"),
    (LENGTH, {"part_size": 0}, ValueError, "a part has at least 1 byte, not 0"),
    (LENGTH, {"part_size": 1e6}, TypeError, "the size of a part is a number of bytes, not float"),
    (LENGTH, {"merge": ["counters"]}, TypeError, "merge names a rule for each map"),
    (LENGTH, {"merge": {"counters": "sum"}}, KeyError, "has no map 'counters'; it has none"),
    (LENGTH.compile(), {}, TypeError, "workers are sent an ebpfjit.Program .* not a JitFunction"),
    ("pushes", {"merge": {"queue": max}}, ValueError, "merge rule <built-in function max> of map 'queue'"),
    ("pushes", {"merge": {"queue": "sum"}}, ValueError, r"map 'queue' \(queue\): .*'sum'.* has list, drop"),
    ("pushes", {"merge": {"bloom": "list"}}, ValueError, r"map 'bloom' \(bloom_filter\): .* map has drop$"),
    ("renames", {"merge": {"names": "max"}}, TypeError, r"map 'names' \(hash\): merge rule 'max': .*bytes"),
    ("renames", {"merge": {"names": "sum"}}, TypeError, r"map 'names' \(hash\): merge rule 'sum': .*bytes"),
]


@pytest.mark.usefixtures("threads")
def test_what_cannot_be_run_is_said(one: str, tmp_path: Path) -> None:
    merged = load(OBJECTS / "merged.o")
    merged.maps["names"][1] = {"count": 0, "name": b"a"}
    for program, options, kind, says in ARGUMENTS:
        paths = options.pop("paths", one)
        paths = [one, Path(one).parent / "." / "one.pcap"] if paths == "twice" else paths
        with pytest.raises(kind, match=says):
            on_dask.run(
                merged.programs[program] if isinstance(program, str) else program,
                **{"paths": paths, "part_size": 5000} | options,
            )
    assert on_dask.run(LENGTH, []).counts.empty
    assert on_dask.packets(LENGTH, []).compute().empty
    frame = dd.from_pandas(pd.DataFrame({"packet": [b"a"]}), npartitions=1)
    for column in (frame, frame.index, pd.Series([b"a"])):
        with pytest.raises(TypeError, match="a column is a Series of a Dask DataFrame, or a bag"):
            on_dask.map(LENGTH, column)


@pytest.mark.usefixtures("threads")
def test_maps_of_all_kinds_are_merged(one: str) -> None:
    """Maps inside of maps, of programs that are jumped to, records, and what is deleted."""
    five = (5).to_bytes(8, "little")
    for name, merge, expected in [
        ("jump", {"shared": "sum", "beside": "max"}, {"shared": {0: 1000}, "beside": None}),
        ("nested", {"inside": "sum"}, {"inside": {0: 500}}),
        ("pushes", {"queue": "list", "stack": "list", "bloom": "drop", "ring": "list"},
         {"queue": [five] * 36, "stack": [five] * 36, "ring": None}),
        ("renames", {"names": "last"}, {"names": {1: {"count": 1, "name": b"abc\0"}}}),
    ]:  # fmt: skip
        merged = load(OBJECTS / "merged.o")
        merged.maps["names"][7] = {"count": 3, "name": b"old"}
        answer = on_dask.run(merged.programs[name], one, merge=merge, part_size=1 << 13)
        assert len(answer.parts) == 9
        assert answer.maps == {key: value or answer.maps[key] for key, value in expected.items()}
        assert answer.counts.packets.sum() == 500
    with pytest.raises(MapError, match=r"map 'bloom' \(bloom_filter\): .* merge=\{'bloom': \"drop\"\}"):
        on_dask.run(merged.programs["pushes"], one, merge={"queue": "drop", "stack": "drop", "ring": "drop"})


@pytest.mark.usefixtures("threads")
def test_captures_that_change_after_their_parts_were_made(tmp_path: Path) -> None:
    made, path = captures.pcap(_packets(300)), tmp_path / "c.pcap"
    other = captures.pcap([bytes(len(packet)) for packet in _packets(300)], start=5)
    for now, says in [
        (made.data[:-1], f"it has {len(made.data) - 1} bytes, and had {len(made.data)} when its parts"),
        (other.data, "it begins otherwise than when its parts were made"),
        (None, "No such file or directory"),
    ]:
        path.write_bytes(made.data)
        rows = on_dask.packets(LENGTH, path, part_size=1 << 30)
        path.write_bytes(now) if now is not None else path.unlink()
        with pytest.raises(CaptureError) as raised:
            rows.compute()
        said = rf"{path}, part from byte 24 on: {says}.* \(process {os.getpid()} on .*\); .* the same files"
        assert re.match(said, str(raised.value)), str(raised.value)
    path.write_bytes(made.data)
    rows = on_dask.packets(LENGTH, path)
    path.write_bytes(made.data + made.data[24:])  # it is still being written
    assert len(rows.compute()) == 300


@pytest.mark.usefixtures("threads")
def test_columns_of_frames_and_bags() -> None:
    values = [b"a", b"bcd", None, b""]
    frame = pd.DataFrame({"packet": pd.array(values, dtype=pd.ArrowDtype(pa.binary()))})
    series = dd.from_pandas(frame, npartitions=2)["packet"]
    assert on_dask.map(LENGTH, series).compute().tolist() == [1, 3, pd.NA, 0]
    others = [b"aa", None, b"bb"]
    for kind in (pa.binary(2), pa.binary_view(), pa.large_binary(), pa.dictionary(pa.int32(), pa.binary())):
        series = pd.Series(pd.array(others, dtype=pd.ArrowDtype(kind)), index=[5, 5, 6])
        found = on_dask.map(LENGTH, dd.from_pandas(series, npartitions=1)).compute()
        assert (found.tolist(), found.index.tolist(), str(found.dtype)) == (
            [2, pd.NA, 2],
            [5, 5, 6],
            "UInt64",
        )
        assert on_dask.map(LENGTH, dd.from_pandas(series[:0], npartitions=1)).compute().tolist() == []
    for wrong in (pd.Series([1, 2]), pd.Series([0.5])):
        with pytest.raises(TypeError, match=r"a column of (int64|double): programs run on"):
            on_dask.map(LENGTH, dd.from_pandas(wrong, npartitions=1)).compute()
    text = dd.from_pandas(pd.DataFrame({"packet": ["a", "b"]}), npartitions=1)["packet"]
    with pytest.raises(TypeError, match=r"holds text, not bytes: give it the type binary\[pyarrow\]"):
        on_dask.map(LENGTH, text).compute()
    bag = bags.from_sequence([b"a", b"bcd", b""], npartitions=2)
    assert on_dask.map(LENGTH, bag).compute() == [1, 3, 0]
    with pytest.raises(TypeError, match="not of type list"):
        on_dask.map(LENGTH, [b"a"])


@pytest.mark.usefixtures("threads")
def test_where_there_is_no_machine_code_the_interpreter_runs_and_says_so_once(
    one: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **options: object) -> None:
        raise JitUnavailable("there is no keystone here")

    program = Program.from_assembly("ldxb r0, [r1+150]\nexit", name="far")
    expected = on_dask.run(program, one, on_fault=999, part_size=9000).counts
    monkeypatch.setattr(Program, "compile", refuse)
    monkeypatch.setattr(on_dask.worker, "_known", {})
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        found = on_dask.run(program, one, on_fault=999, part_size=9000)
    assert [str(each.message) for each in said if each.category is EbpfWarning] == [
        "there is no keystone here; the interpreter runs 'far'"
    ]
    assert len(found.parts) > 2
    by = ["capture", "verdict"]
    pd.testing.assert_frame_equal(
        found.counts.sort_values(by, ignore_index=True), expected.sort_values(by, ignore_index=True)
    )


def _die_once(flag: str) -> None:
    """End this process, the first time that anybody asks."""
    try:
        os.close(os.open(flag, os.O_CREAT | os.O_EXCL))
    except FileExistsError:
        return
    os.kill(os.getpid(), signal.SIGKILL)


@contextmanager
def _two_processes() -> Iterator[Any]:
    """Yield the client of a cluster of two processes."""
    with (
        distributed.LocalCluster(
            n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None, silence_logs=50
        ) as cluster,
        distributed.Client(cluster) as client,
    ):
        yield client


def test_two_processes_one_of_which_has_other_files(
    one: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where one worker has no such capture, or another one, it says so: file, part, worker."""
    elsewhere, data = tmp_path / "elsewhere", Path(one).read_bytes()
    elsewhere.mkdir()
    monkeypatch.chdir(tmp_path)
    with _two_processes() as client:
        workers = sorted(client.scheduler_info()["workers"])
        client.run(os.chdir, str(tmp_path))
        assert on_dask.run(LENGTH, "one.pcap", part_size=2000).counts.packets.sum() == 500
        client.run(os.chdir, str(elsewhere), workers=workers[:1])
        for there, says in [
            (None, "No such file or directory"),
            (data[:-100], "it has .* bytes, and had .* when its parts were made"),
            (
                captures.pcap([bytes(len(packet)) for packet in _packets(500)]).data,
                "it begins otherwise than",
            ),
        ]:
            if there is not None:
                (elsewhere / "one.pcap").write_bytes(there)
            with pytest.raises(CaptureError) as raised:
                on_dask.run(LENGTH, "one.pcap", part_size=2000)
            worker = re.escape(workers[0])
            said = rf"one\.pcap, part from byte \d+ on: {says}.* \(worker {worker}, process \d+ on"
            assert re.match(said, str(raised.value)), str(raised.value)


def test_two_processes_one_of_which_is_killed(
    one: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = load(EXAMPLES / "xdp_port_filter.o").programs["port_filter"]
    work, flag = on_dask.run_part, str(tmp_path / "died")

    def run_part(*arguments: Any) -> Any:
        _die_once(flag)
        return work(*arguments)

    monkeypatch.setattr("ebpfjit.dask.run_part", run_part)
    dask.config.set({"distributed.worker.daemon": True})
    with _two_processes():
        answer = on_dask.run(program, one, merge={"counters": "sum"}, part_size=5000)
    assert os.path.exists(flag)
    assert answer.counts.packets.sum() == 500
    assert answer.maps["counters"][2]["packets"] == 500
