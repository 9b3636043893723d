"""Captures: every form read, damaged ones, link types, writing."""

from __future__ import annotations

import gzip
import io
import itertools
import os
import queue
import random
import struct
import subprocess
import sys
import threading
import time
import tracemalloc
import zlib
from array import array
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import zstandard
from scapy.utils import RawPcapNgReader, RawPcapReader

from ebpfjit import CaptureError, JitUnavailable, Program, capture
from ebpfjit.assembler import assemble
from ebpfjit.capture import formats, routine, windows
from ebpfjit.capture.causes import Causes
from ebpfjit.capture.tally import Tally
from ebpfjit.cli.verdicts import Table
from ebpfjit.vm import EbpfVmMbuff
from tests.support import captures
from tests.support.captures import Capture
from tests.support.pace import within

Found = list[tuple[int, bytes, int, int]]


def _read(source: Any, **options: Any) -> tuple[Found, str]:
    """Return the packets of a capture, and the error that ends it."""
    found: Found = []
    raised: CaptureError | None = None
    try:
        for batch in capture.read(source, **options):
            assert batch.first == len(found)
            rows = zip(batch.timestamps, batch, batch.wire_lengths, strict=True)
            found += [(time, bytes(packet), wire, batch.link_type) for time, packet, wire in rows]
    except CaptureError as error:
        raised = error
    assert raised is None or raised.packets == len(found)
    return found, "" if raised is None else str(raised)


@pytest.fixture(params=["machine code", "interpreter"])
def engine(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have the routines run on one engine and on the other, with small windows."""
    monkeypatch.setattr(windows, "SIZE", 150)
    if request.param == "interpreter":

        def refuse(machine: EbpfVmMbuff) -> None:
            raise JitUnavailable("not in this test")

        monkeypatch.setattr(EbpfVmMbuff, "jit_compile", refuse)
        monkeypatch.setattr(routine, "_routine", routine._routine.__wrapped__)


def _some(count: int) -> list[Capture]:
    made = []
    for seed in range(count):
        chosen = random.Random(seed)
        if seed % 3:
            made.append(captures.pcapng(chosen))
        else:
            packets = [chosen.randbytes(chosen.randrange(100)) for _ in range(chosen.randrange(12))]
            made.append(captures.pcap(packets, order=chosen.choice("<>"), nano=chosen.random() < 0.5))
    return made


@pytest.mark.usefixtures("engine")
def test_every_form(tmp_path: Path) -> None:
    for number, made in enumerate(_some(40)):
        assert _read(io.BytesIO(made.data)) == (made.packets, ""), number
        (tmp_path / "c").write_bytes(made.data)
        assert _read(tmp_path / "c", packets=3) == (made.packets, ""), number


@pytest.mark.usefixtures("engine")
def test_what_was_cut_off_ends_in_an_error_behind_the_packets_before_it() -> None:
    for number, made in enumerate(_some(40)):
        for at in random.Random(number).sample(range(len(made.data)), 4):
            found, error = _read(io.BytesIO(made.data[:at]))
            whole = sum(end <= at for end in made.ends)
            assert found == made.packets[:whole], (number, at)
            if not error:  # between two records, or behind a block that is none
                assert at >= 24


def test_damaged_bytes_end_in_nothing_but_a_capture_error() -> None:
    for number, made in enumerate(_some(120)):
        chosen, data = random.Random(-number - 1), bytearray(made.data)
        for _ in range(3):
            data[chosen.randrange(len(data))] = chosen.choice([0, 1, 0x7F, 0xFF, chosen.randrange(256)])
        found, error = _read(io.BytesIO(data))
        if error:
            assert error.startswith("<file>: "), error
        for batch in _batches(bytes(data)):
            batch.frames()
        assert len(found) <= len(data)


def _batches(data: bytes) -> list[capture.Batch]:
    found = []
    try:
        for batch in capture.read(io.BytesIO(data)):
            capture.batch.check_link(batch.link_type)
            found.append(batch)
    except CaptureError:
        pass
    return found


def test_scapy_reads_the_same(tmp_path: Path) -> None:
    for number, made in enumerate(_some(12)):
        path = tmp_path / f"{number}"
        path.write_bytes(made.data)
        if not made.packets or (number % 3 and any(link != 1 for *_, link in made.packets)):
            continue
        reader = RawPcapNgReader(str(path)) if number % 3 else RawPcapReader(str(path))
        assert [data for data, _ in reader] == [data for _, data, _, _ in _read(path)[0]], number


SECTION, INTERFACE, EMPTY = captures.section("<"), captures.interface("<", 1), captures.pcap([]).data
BEYOND = captures.block("<", 6, struct.pack("<5I", 0, 0, 0, 40, 40) + bytes(20))


def _with(data: bytes, at: int, new: bytes) -> bytes:
    return data[:at] + new + data[at + len(new) :]


def _option(code: int, data: bytes, size: int | None = None) -> bytes:
    """Return a section, and an interface with one option."""
    size = len(data) if size is None else size
    body = struct.pack("<HHIHH", 1, 0, 0, code, size) + data + bytes(-len(data) % 4)
    return SECTION + captures.block("<", 1, body)


WRONG = {
    _with(EMPTY, 4, b"\5"): "pcap of version 5.4, which is not 2.4",
    _with(EMPTY, 6, b"\1"): "pcap of version 2.1, which is not 2.4",
    _with(EMPTY, 22, b"\1"): "a link type of 0x10001, with bits that are reserved",
    _with(SECTION, 12, b"\2"): "packet 1, byte 0: a section of version 2.0, which is not 1.0",
    _with(SECTION, 24, b"\x20"): "packet 1, byte 0: a block whose two sizes differ",
    SECTION + _with(INTERFACE, 16, b"\x18"): "packet 1, byte 28: a block whose two sizes differ",
    _option(9, b"\6\6"): "packet 1, byte 28: an interface whose option 9 has 2 bytes, and not 1",
    _option(14, bytes(4)): "packet 1, byte 28: an interface whose option 14 has 4 bytes, and not 8",
    _option(9, b"", 1): "packet 1, byte 28: an option of 1 bytes, which ends behind its block",
    b"": "not a capture: neither pcap nor pcapng .is empty",
    b"GIF89a": r"not a capture: .*starts with 47 49 46 38",
    EMPTY[:20]: "packet 1, byte 0: the file ends 4 bytes early",
    captures.pcap([b"x"]).data + b"\1": "packet 2, byte 41: the file ends 15 bytes early",
    EMPTY + struct.pack("<4I", 0, 0, 1 << 31, 0): "packet 1, byte 24: a record of more than",
    SECTION + captures.block("<", 6, bytes(20)): "packet 1, byte 28: .*interface that its section",
    SECTION[:8] + bytes(20): r"a section without a byte order \(00 00 00 00\)",
    SECTION + INTERFACE + struct.pack("<5I", 6, 20, 0, 0, 24): "two sizes differ",
    SECTION + INTERFACE + captures.block("<", 6, bytes(8)): "too short",
    SECTION + INTERFACE + struct.pack("<2I", 6, 0): "packet 1, byte 48: the file ends 4 bytes early",
    SECTION + INTERFACE + BEYOND: "too short",
    gzip.compress(captures.pcap([b"x" * 500]).data)[:-30]: "the compressed data ends early",
    b"\xa1\xb2\xcd\x34": r"a pcap file of a patched libpcap \(it starts with a1 b2 cd 34\), ",
}


def test_what_is_wrong_is_said(tmp_path: Path) -> None:
    for data, says in WRONG.items():
        with pytest.raises(CaptureError, match=says):
            list(capture.read(io.BytesIO(data)))
    with pytest.raises(FileNotFoundError):
        list(capture.read(tmp_path / "missing"))
    with pytest.raises(ValueError, match="at least 1 packet"):
        list(capture.read(io.BytesIO(b""), packets=0))
    with pytest.raises(TypeError, match="given by its path, or open for reading, not as int"):
        list(capture.read(5))  # type: ignore[arg-type]  # what users may get wrong


class _Slow(io.BytesIO):
    """A stream that gives a byte at a time."""

    def read(self, size: int | None = -1) -> bytes:
        return super().read(1)


def test_compressed_ones_and_the_standard_input(tmp_path: Path) -> None:
    made = captures.pcap([bytes([n]) * 50 for n in range(200)])
    (tmp_path / "a.gz").write_bytes(gzip.compress(made.data))
    (tmp_path / "a.zst").write_bytes(zstandard.compress(made.data))
    for name in ("a.gz", "a.zst"):
        assert _read(tmp_path / name) == (made.packets, "")
        slow = _Slow((tmp_path / name).read_bytes())
        assert _read(slow) == (made.packets, "")
    with gzip.open(tmp_path / "a.gz") as unpacked:  # its `name` and `fileno` are those of what is packed
        assert _read(unpacked) == (made.packets, "")
    with (tmp_path / "b").open("w+b") as behind:
        behind.write(b"before" + made.data)
        behind.seek(6)
        assert _read(behind) == (made.packets, "")
    source = "from ebpfjit import capture; print(sum(len(batch) for batch in capture.read('-')))"
    run = subprocess.run([sys.executable, "-c", source], input=made.data, capture_output=True, check=True)
    assert run.stdout == b"200\n"


@pytest.mark.parametrize("kind", ["plain", "gzip", "zstd"])
def test_packets_of_a_pipe_do_not_wait_for_others(kind: str) -> None:
    """What has come through a pipe is a batch, while the pipe is open; a record is waited for as a whole."""
    made = captures.pcap([bytes([n]) * 50 for n in range(9)])
    packed = {"gzip": zlib.compressobj(wbits=31), "zstd": zstandard.ZstdCompressor().compressobj()}.get(kind)
    flush = {"gzip": (zlib.Z_SYNC_FLUSH,), "zstd": (zstandard.COMPRESSOBJ_FLUSH_BLOCK,)}.get(kind, ())
    reading, writing = os.pipe()
    found: queue.SimpleQueue[int] = queue.SimpleQueue()

    def read() -> None:
        with open(reading, "rb") as file:
            for batch in capture.read(file):
                found.put(len(batch))
        found.put(0)

    def write(data: bytes) -> None:
        os.write(writing, data if packed is None else packed.compress(data) + packed.flush(*flush))

    reader = threading.Thread(target=read, daemon=True)
    reader.start()
    counts = []
    for first, last in ((0, 3), (3, 4), (4, 9)):
        start, stop = made.ends[first - 1] if first else 0, made.ends[last - 1]
        write(made.data[start : stop - 20])
        if last - first > 1:
            counts.append(found.get(timeout=60))
        write(made.data[stop - 20 : stop])
        counts.append(found.get(timeout=60))
    os.write(writing, b"" if packed is None else packed.flush())
    os.close(writing)
    assert found.get(timeout=60) == 0
    assert counts == [2, 1, 1, 4, 1]


def test_packets_that_are_written_to_a_pipe_are_there_at_once() -> None:
    reading, writing = os.pipe()
    os.set_blocking(reading, False)
    with capture.Writer(f"/dev/fd/{writing}") as writer:
        writer.add(b"abc", 5)
        assert os.read(reading, 1000)[-3:] == b"abc"
    os.close(reading)
    os.close(writing)


@pytest.mark.parametrize("kind", ["gz", "zst", "gz stream"])
def test_of_compressed_ones_that_were_cut_off_there_is_all_before_that(kind: str) -> None:
    """All records that are whole in what the compressed bytes hold, and then an error, wherever it ends."""
    made = captures.pcap([os.urandom(1000) for _ in range(400)])
    pack = zstandard.compress if kind == "zst" else gzip.compress
    half = len(made.data) // 1016 // 2 * 1016 + 24  # the end of a record
    packed = [pack(made.data[:half]), pack(made.data[half:])]
    whole = b"".join(packed)
    least = 0
    for cut in (*range(5, len(whole), 9_001), len(packed[0]) - 1, len(whole) - 9, len(whole) - 1):
        source: Any = io.BytesIO(whole[:cut])
        found, error = _read(gzip.GzipFile(fileobj=source) if kind == "gz stream" else source)
        assert error
        assert found == made.packets[: len(found)]
        missing = (1 << 17) // 1016 + 10  # a block of zstd is there or not
        assert len(found) >= cut // 1016 - missing, cut
        least = max(least, len(found))
    assert least >= 399 - missing
    for behind, ends in ((b"", ""), (bytes(600), ""), (b"garbage!", "<file>")):
        found, error = _read(io.BytesIO(whole + behind))
        assert found == made.packets
        assert error.startswith(ends)
        assert bool(error) == bool(ends)


def test_a_stream_that_fails_is_read_up_to_there() -> None:
    made = captures.pcap([bytes([n]) * 50 for n in range(20)])

    class Fails(io.BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            if self.tell() == len(self.getvalue()):
                raise OSError(5, "Input/output error")
            return super().read(size)

        read1 = read

    batches = capture.read(Fails(made.data))
    assert sum(len(batch) for batch in itertools.islice(batches, 1)) == 20
    with pytest.raises(OSError, match="Input/output"):
        next(batches)


def test_damaged_compressed_ones_end_in_nothing_but_a_capture_error() -> None:
    made = captures.pcap([os.urandom(50) for _ in range(40)])
    for pack in (gzip.compress, zstandard.ZstdCompressor(write_checksum=True).compress):
        whole, ends = pack(made.data), set[str]()
        for at in range(4, len(whole), 3):
            for damaged in (whole[:at], whole[:at] + b"\xff" + whole[at + 1 :]):
                found, error = _read(io.BytesIO(damaged))
                assert error or found == made.packets
                ends.add(error.rpartition(":")[2])
        assert len(ends) > 1


def test_records_larger_than_a_window(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(windows, "SIZE", 64)
    made = captures.pcap([b"a" * 10, b"b" * 100_000, b"c" * 10])
    (tmp_path / "c").write_bytes(made.data)
    assert _read(tmp_path / "c") == _read(io.BytesIO(made.data)) == (made.packets, "")


def test_what_is_small_costs_little() -> None:
    """Whatever a capture's blocks are, and however many packets are asked for at once."""
    many = captures.section("<") + captures.interface("<", 1) * formats.MAX_INTERFACES
    packets = b"".join(captures.block("<", 6, struct.pack("<5I", n % 2, 0, 0, 0, 0)) for n in range(200))
    both = captures.section("<") + captures.interface("<", 1) + captures.interface("<", 101) + packets
    tracemalloc.start()
    start = time.process_time()
    assert _read(io.BytesIO(many)) == ([], "")
    assert "more than 16384 interfaces" in _read(io.BytesIO(many + captures.interface("<", 1)))[1]
    assert within(5, time.process_time() - start)  # it was minutes
    kept = list(capture.read(io.BytesIO(both)))
    assert len(kept) == 200
    assert sum(map(len, capture.read(io.BytesIO(both), packets=1 << 70))) == 200
    assert tracemalloc.get_traced_memory()[1] < 16 << 20
    tracemalloc.stop()


def test_many_interfaces_and_changes_of_the_link_type() -> None:
    data = captures.section("<") + b"".join(captures.interface("<", 1 + 100 * (n % 2)) for n in range(300))
    numbers = [0, 298, 299, 1, 150]
    for number in numbers:
        data += captures.block("<", 6, struct.pack("<5I", number, 0, number, 2, 2) + b"hi")
    batches = list(capture.read(io.BytesIO(data)))
    assert [(len(batch), batch.link_type) for batch in batches] == [(2, 1), (2, 101), (1, 1)]
    assert [time for batch in batches for time in batch.timestamps] == [1000 * number for number in numbers]


def test_verdicts_are_counted_however_many_there_are() -> None:
    for kinds in (3, 64, 65, 300):
        chosen = random.Random(kinds)
        tally, counts, sizes = Tally(), Counter[int](), Counter[int]()
        for size in (0, 1, 500, 90):
            verdicts = array("Q", (chosen.randrange(kinds) << 50 for _ in range(size)))
            lengths = memoryview(array("Q", (chosen.randrange(2000) for _ in range(size))))
            tally.add(verdicts, lengths)
            places = tally.places
            assert (places is not None) or kinds > 64
            if places is not None:
                assert [tally.rows[place] for place in places] == list(verdicts)
            counts.update(verdicts)
            for verdict, length in zip(verdicts, lengths, strict=True):
                sizes[verdict] += length
        tally.take_off(verdicts[0], lengths[0])
        counts[verdicts[0]] -= 1
        sizes[verdicts[0]] -= lengths[0]
        expected = {verdict: (count, sizes[verdict]) for verdict, count in counts.items() if count}
        assert {verdict: (count, size) for verdict, count, size in tally} == expected
    with pytest.raises(ValueError, match="1 verdicts for 0 packets"):
        tally.add(array("Q", [1]), memoryview(array("Q")))


def test_causes_are_counted_however_many_there_are() -> None:
    for kinds in (2, 8, 9, 40):
        chosen = random.Random(kinds)
        causes, expected = Causes(), Counter[tuple[int, int]]()
        for size in (0, 1, 500, 90):
            verdicts, pcs = (array("Q", (chosen.randrange(kinds) << 50 for _ in range(size))) for _ in "vp")
            causes.add(verdicts, pcs)
            expected.update(zip(verdicts, pcs, strict=True))
        assert {(verdict, pc): packets for verdict, pc, packets in causes} == expected
    with pytest.raises(ValueError, match="1 verdicts, and what set 0"):
        causes.add(array("Q", [1]), array("Q"))


def test_memory_of_records_is_used_again(tmp_path: Path) -> None:
    """Records of another batch, larger or smaller, are nothing but its own."""
    times, wire = (memoryview(array("Q", [n, n])) for n in (7, 0))
    for name in ("a.pcap", "a.pcapng"):
        sizes = [3, 5000, 2, 0, 5001, 1]
        with capture.Writer(tmp_path / name) as writer:
            for size in sizes:
                data = memoryview(bytes([size % 251]) * size)
                places = memoryview(array("Q", [0, 0])), memoryview(array("Q", [size, size]))
                writer.write(capture.Batch(data, *places, times, wire))
        there = [bytes(packet) for batch in capture.read(tmp_path / name) for packet in batch]
        assert there == [bytes([size % 251]) * size for size in sizes for _ in range(2)]


PACKET = bytes.fromhex("45000014") + bytes(16)
PACKET_6 = b"\x60" + bytes(39)
LINKS = {
    101: [(PACKET, "0800", PACKET), (PACKET_6, "86dd", PACKET_6), (b"", "0800", b"")],
    113: [(bytes(14) + b"\x08\x00" + PACKET, "0800", PACKET), (bytes(14) + b"\x08\x06ARP", "0806", b"ARP"),
          (b"short", "0000", b"")],
    276: [(b"\x86\xdd" + bytes(18) + PACKET_6, "86dd", PACKET_6)],
    0: [(b"\x02\0\0\0" + PACKET, "0800", PACKET), (b"\0\0\0\x02" + PACKET, "0800", PACKET),
        (b"\x1e\0\0\0" + PACKET_6, "86dd", PACKET_6), (b"\x02", "0000", b"")],
    108: [(b"\0\0\0\x02" + PACKET, "0800", PACKET), (b"\0\0\0\x18" + PACKET_6, "86dd", PACKET_6)],
}  # fmt: skip


def test_frames_of_every_link_type() -> None:
    for link, rows in LINKS.items():
        (batch,) = capture.read(io.BytesIO(captures.pcap([row[0] for row in rows], link=link).data))
        frames = batch.frames()
        assert frames.link_type == 1
        expected = [bytes(12) + bytes.fromhex(kind) + data for _, kind, data in rows]
        assert [bytes(frame) for frame in frames] == expected, link
        assert list(frames.timestamps) == list(batch.timestamps)
        cut = [wire - length for wire, length in zip(batch.wire_lengths, batch.lengths, strict=True)]
        longer = zip(frames.wire_lengths, frames.lengths, strict=True)
        assert all(wire - length >= 0 for wire, length in longer), cut
    (batch,) = capture.read(io.BytesIO(captures.pcap([b"x"], link=147).data))
    with pytest.raises(
        CaptureError, match=r"^<file>: packet 1: packets of link type 147; frames can be made of Ethernet"
    ):
        batch.frames()
    (batch,) = capture.read(io.BytesIO(captures.pcap([b"x"]).data))
    assert batch.frames() is batch


def test_a_function_takes_batches() -> None:
    made = captures.pcap([bytes([n]) * (n + 1) for n in range(50)])
    first = Program(assemble("ldxb r0, [r1]\nexit")).compile()
    (batch,) = capture.read(io.BytesIO(made.data))
    assert list(first.map(batch)) == list(range(50))
    assert repr(batch) == "<batch of 50 packets, 0 to 49, Ethernet>"
    assert (bytes(batch[3]), batch.slice(10, 12).first, bytes(batch.slice(10, 12)[1])) == (
        b"\3" * 4, 10, b"\x0b" * 12,
    )  # fmt: skip


def test_what_is_written_is_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(capture.writer, "AT_ONCE", 7)
    made = captures.pcap([bytes([n]) * n for n in range(60)], start=1_700_000_000)
    path = tmp_path / "out.pcap"
    with capture.Writer(path) as writer:
        for batch in capture.read(io.BytesIO(made.data), packets=16):
            writer.write(batch, [packet[:1] != b"\5" for packet in batch])
    assert writer.written == 59
    assert _read(path) == ([row for row in made.packets if row[1][:1] != b"\5"], "")
    assert os.listdir(tmp_path) == ["out.pcap"]


@pytest.mark.usefixtures("engine")
def test_pcapng_has_all_link_types(tmp_path: Path) -> None:
    """Packets of all sizes, and interfaces that alternate; scapy sees the same."""
    path = tmp_path / "out.pcapng"
    made = [
        captures.pcap([bytes([n]) * n for n in range(9)], link=link, start=10**9) for link in (101, 1, 228)
    ]
    with capture.Writer(path) as writer:
        for one in [*made, made[0]]:
            for batch in capture.read(io.BytesIO(one.data)):
                writer.write(batch, [len(packet) != 4 for packet in batch])
        writer.add(b"abc", 2**63 + 5, 3)
    expected = [row for one in [*made, made[0]] for row in one.packets if len(row[1]) != 4]
    assert _read(path) == ([*expected, (2**63 + 5, b"abc", 3, 1)], "")
    with RawPcapNgReader(str(path)) as reader:
        assert [data for data, _ in reader] == [row[1] for row in expected] + [b"abc"]
    assert writer.written == len(expected) + 1


def test_nothing_is_replaced_before_its_successor_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "out.pcap"
    path.write_bytes(b"what was there")
    (batch,) = capture.read(io.BytesIO(captures.pcap([b"abc"], link=101).data))

    def write(*keep: list[int], link_type: int = 1) -> None:
        with capture.Writer(path, link_type=link_type) as writer:
            writer.write(batch.frames() if link_type == 1 else batch)
            writer.write(batch, *keep)

    with pytest.raises(
        CaptureError, match=r"link type 101 \(raw IP\), behind those of 1 .*name ends in \.pcapng"
    ):
        write()
    with pytest.raises(ValueError, match="2 values for 1 packets"):
        write([1, 0], link_type=101)
    assert path.read_bytes() == b"what was there"
    assert os.listdir(tmp_path) == ["out.pcap"]
    with pytest.raises(FileNotFoundError, match=r"no folder/x'$"):
        capture.Writer(tmp_path / "no folder" / "x")
    full = "/dev/full"
    with pytest.raises(OSError, match=f"No space left on device: '{full}'"), capture.Writer(full) as writer:
        writer.add(b"1", 0)
    for name in ("a.csv", "a.jsonl", "a.parquet"):
        with pytest.raises(FileNotFoundError, match=f"no folder/{name}'$"):
            Table(str(tmp_path / "no folder" / name))
    with pytest.raises(ValueError, match="a link type is a number from 0 to 65535, not -1"):
        capture.Writer(tmp_path / "x", link_type=-1)
    with pytest.raises(ValueError, match="a packet of 16777217 bytes"), capture.Writer(path) as writer:
        writer.add(bytes((1 << 24) + 1), 0)
    with capture.Writer(path) as writer:
        writer.add(b"abc", 5, 1 << 33)  # a size on the wire that a header was added to
    assert _read(path) == ([(5, b"abc", (1 << 32) - 1, 1)], "")
    assert os.listdir(tmp_path) == ["out.pcap"]
    with capture.Writer("/dev/null", link_type=101) as writer:
        writer.write(batch)
    assert not Path("/dev/null").is_file()
