"""Damaged captures, images, corpus files and command lines: one line says what is wrong, no traceback."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import random
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.mutation import mutate

from ebpfjit import CaptureError, EbpfError, JitFunction, LoadError, Program, capture
from ebpfjit.capture import formats
from ebpfjit.cli import app
from ebpfjit.difftest.case import CorpusError, read_case

ROOT = Path(__file__).resolve().parents[2]
RETURN_1 = bytes.fromhex("b700000001000000 9500000000000000")
OBJECTS = tuple(path.read_bytes() for path in sorted((ROOT / "examples").rglob("*.o")))
CORPUS = sorted((ROOT / "tests" / "corpus").rglob("*.txt"))
TEXT = b"start: mov r0, 1\nldxb r1, [r1+2]\njeq r1, 5, +1\nlddw r2, 0x1122334455667788\ncall 6\nexit\n"
RECORD = struct.pack("<IIII", 1, 2, 64, 64) + bytes(64)
PCAP = b"\xd4\xc3\xb2\xa1" + struct.pack("<HHiIII", 2, 4, 0, 0, 65535, 1)
NUMBERS = ("0", "-1", "1", "9" * 30, "0x10", "1e5", "", "9" * 5000, str(1 << 64), str(1 << 63), str(1 << 31))
TYPES = ("xdp", "tc", "none", "socket_filter", "kprobe", "x", "", "sk_lookup", "cgroup_skb", "flow_dissector")


def block(kind: int, body: bytes) -> bytes:
    size = struct.pack("<I", len(body) + 12)
    return struct.pack("<I", kind) + size + body + size


PCAPNG = (
    block(0x0A0D0D0A, struct.pack("<IHHq", 0x1A2B3C4D, 1, 0, -1))
    + block(1, struct.pack("<HHI", 1, 0, 0) + struct.pack("<HHI", 9, 1, 6))
    + block(6, struct.pack("<IIIII", 0, 0, 5, 64, 64) + bytes(64))
    + block(3, struct.pack("<I", 64) + bytes(64))
)


def damaged(data: bytes, chance: random.Random) -> bytes:
    """Return some bytes with up to four things wrong."""
    found = bytearray(data)
    for _ in range(chance.choice((0, 1, 1, 2, 4))):
        if not found:
            break
        at = chance.randrange(len(found))
        match chance.randrange(5):
            case 0:
                found[at] ^= 1 << chance.randrange(8)
            case 1:
                found[at : at + 4] = struct.pack(
                    "<I", chance.choice((0, 1, 0xFFFFFFFF, 1 << 31, 1 << 24, 13))
                )
            case 2:
                del found[at:]
            case 3:
                found[at:at] = bytes(chance.randrange(1, 9))
            case 4:
                found[at] = chance.randrange(256)
    return bytes(found)


# -- the command line -----------------------------------------------------------------------------


class CommandLines:
    """Command lines that nobody would write, one after the other."""

    def __init__(self, chance: random.Random, folder: Path) -> None:
        self.chance = chance
        self.folder = folder

    def file(self) -> str:
        """Return the name of a file of any kind, or of none."""
        chance = self.chance
        if chance.random() < 0.15:
            return chance.choice(("/dev/null", str(self.folder), "/nonexistent", "", "/proc/self/mem", "-"))
        name, data = chance.choice((
            ("a.o", mutate(chance.choice(OBJECTS), chance, OBJECTS)),
            ("a.bin", damaged(RETURN_1 * chance.randrange(1, 4), chance)),
            ("a.s", damaged(TEXT, chance)),
            ("a.pcap", damaged(PCAP + RECORD * 3, chance)),
            ("a.pcapng", damaged(PCAPNG, chance)),
            ("a.txt", damaged(chance.choice(CORPUS).read_bytes(), chance)),
            ("raw", chance.randbytes(chance.randrange(100))),
            ("b.bin", RETURN_1),
        ))  # fmt: skip
        path = self.folder / name
        path.write_bytes(data)
        return str(path)

    def _perhaps(self, likely: float, *arguments: str) -> list[str]:
        return list(arguments) if self.chance.random() < likely else []

    def next(self) -> list[str]:
        """Return the arguments of a command."""
        chance, perhaps = self.chance, self._perhaps
        command = chance.choice(("run", "run", "run", "run", "asm", "disasm", "verify", "listing"))
        arguments = [command, self.file()]
        if command == "run":
            given = chance.choice(("--pcap", "--mem", "--hex", ""))
            if given:
                hex_ = chance.choice(("00" * 64, "0", "zz", "0x" + "11" * 64, "\xe9", "00:11"))
                arguments += [given, hex_ if given == "--hex" else self.file()]
            field = chance.choice(("mark", "ingress_ifindex", "x", "cb", "data", "len", ""))
            value = chance.choice((*NUMBERS, "1,2,3", "1,2,3,4,5", "-1,"))
            arguments += perhaps(0.3, "--type", chance.choice(TYPES))
            arguments += perhaps(0.3, "--context", f"{field}={value}")
            arguments += perhaps(0.3, "--limit", chance.choice(NUMBERS)) or ["--limit", "2000"]
            arguments += perhaps(0.2, "--engine", chance.choice(("interpreter", "jit", "x")))
            arguments += perhaps(
                0.2, "--mbuff-offsets", chance.choice(("0x40,0x50", "0,8", "-1,5", "9" * 30 + ",1"))
            )
            arguments += perhaps(
                0.2, "--write", chance.choice((str(self.folder / "o"), "/dev/full", str(self.folder)))
            )
        arguments += perhaps(0.3, "--program", chance.choice(("a", "x", "count", "\udc80", "")))
        return arguments + (perhaps(0.3, "--json") if command != "listing" else [])


def run_cli(arguments: list[str], monkeypatch: pytest.MonkeyPatch) -> tuple[int, str]:
    """Run a command in this process; return its status and what it wrote to standard error."""
    out = io.TextIOWrapper(io.BytesIO(), "utf-8", errors="backslashreplace")
    error = io.StringIO()
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(TEXT)))
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(error):
        status = app._guard(lambda: app._run(arguments))
    return status, error.getvalue()


@pytest.mark.parametrize("seed", range(4))
def test_odd_command_lines(seed: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = CommandLines(random.Random(seed), tmp_path)
    seen: set[int] = set()
    for _ in range(150):
        arguments = lines.next()
        status, error = run_cli(arguments, monkeypatch)
        seen.add(status)
        assert status in (0, 1, 2), arguments
        if status == 1:
            assert len(error.splitlines()) == 1, (arguments, error)
    assert seen == {0, 1, 2}


@pytest.mark.parametrize(
    "arguments",
    [
        ["run", "/dev/zero"],
        ["asm", "/dev/zero"],
        ["run", "b.bin", "--mem", "/dev/zero"],
        ["run", "b.bin", "--pcap", "/dev/zero"],
    ],
)
def test_files_without_an_end(arguments: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("b.bin").write_bytes(RETURN_1)
    monkeypatch.setattr("ebpfjit.elf.source.read_path.__defaults__", (1 << 22,))  # 256 MiB take their time
    status, error = run_cli(arguments, monkeypatch)
    assert status == 1
    assert len(error.splitlines()) == 1


# -- captures -------------------------------------------------------------------------------------


@pytest.mark.parametrize("whole", [PCAP + RECORD * 3, PCAPNG], ids=["pcap", "pcapng"])
def test_damaged_captures(whole: bytes) -> None:
    chance = random.Random(5)
    read = 0
    for _ in range(2000):
        with contextlib.suppress(CaptureError):
            for batch in capture.read(io.BytesIO(damaged(whole, chance))):
                read += len(batch)
    assert read > 1000


def test_records_that_claim_too_much_are_not_read() -> None:
    class Endless(io.RawIOBase):
        """A capture whose first record is of 4 GiB; how much of it is asked for."""

        most = given = 0

        def read(self, size: int = -1) -> bytes:
            self.most = max(self.most, size)
            head = PCAP[self.given : self.given + size]
            self.given += size
            return head + b"\xff" * (size - len(head))

    source: Any = Endless()
    with pytest.raises(CaptureError, match="packet 1, byte 24: a record of more than"):
        list(capture.read(source))
    assert source.most < 1 << 24


def test_interfaces_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(formats, "MAX_INTERFACES", 3)
    interface = block(1, struct.pack("<HHI", 1, 0, 0))
    with pytest.raises(CaptureError, match="more than 3 interfaces"):
        list(capture.read(io.BytesIO(PCAPNG[:28] + interface * 4)))


def test_a_verdict_for_each_packet_is_no_row_for_each() -> None:
    from ebpfjit.cli import capture

    report = capture.Report()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(capture, "MAX_VERDICTS", 10)
        for number in range(100):
            report.add(str(number), 1)
    assert len(report.verdicts) == 11
    assert report.verdicts[capture.OTHER].packets == 90


# -- corpus files ---------------------------------------------------------------------------------


def test_damaged_corpus_files(tmp_path: Path) -> None:
    chance, path, read = random.Random(6), tmp_path / "case.txt", 0
    for _ in range(500):
        path.write_bytes(damaged(chance.choice(CORPUS).read_bytes(), chance))
        with contextlib.suppress(CorpusError):
            read += bool(read_case(path).code)
    assert read > 50


def test_a_corpus_file_has_a_size(tmp_path: Path) -> None:
    large = tmp_path / "large.txt"
    large.touch()
    os.truncate(large, 1 << 30)
    for path in (Path("/dev/zero"), large):
        with pytest.raises(CorpusError, match="bytes"):
            read_case(path)


# -- images ---------------------------------------------------------------------------------------

MAGIC_SIZE, CHECKSUM_SIZE = 8, 32
VALUES = (None, -1, 1 << 70, "x", [], {}, [[]], [[1]], [[1, 2], [3]], 1.5, [["a", 3]], "\ud800")


@pytest.fixture
def image(tmp_path: Path) -> Path:
    path = tmp_path / "image"
    Program.from_bytes(RETURN_1).compile().save(path)
    return path


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Yield the way to each value inside of a header."""
    if path:
        yield path
    for key in (
        list(value) if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ()
    ):
        yield from places(value[key], (*path, key))


def refuse(path: Path) -> None:
    with pytest.raises(LoadError):
        JitFunction.load(path)


def test_damaged_images(image: Path) -> None:
    whole, chance = image.read_bytes(), random.Random(7)
    for size in range(0, len(whole), 97):
        image.write_bytes(whole[:size])
        refuse(image)
    for _ in range(200):
        changed = damaged(whole, chance)
        image.write_bytes(changed)
        if changed != whole:
            refuse(image)
    os.truncate(image, 1 << 30)
    refuse(image)


def test_headers_of_another_shape(image: Path) -> None:
    """Their checksum is right: who writes them may be an older version, not damage."""
    whole = image.read_bytes()
    start = MAGIC_SIZE + CHECKSUM_SIZE
    (size,) = struct.unpack_from("<I", whole, start)
    header, rest = json.loads(whole[start + 4 : start + 4 + size]), whole[start + 4 + size :]
    chance = random.Random(8)
    for path in places(header):
        changed = json.loads(json.dumps(header))
        inner = changed
        for key in path[:-1]:
            inner = inner[key]
        inner[path[-1]] = chance.choice(VALUES)
        _write_image(image, json.dumps(changed).encode(), rest)
        with contextlib.suppress(EbpfError):
            JitFunction.load(image)
    _write_image(image, b"[" * 100_000, rest)
    refuse(image)


def _write_image(path: Path, header: bytes, rest: bytes) -> None:
    content = struct.pack("<I", len(header)) + header + rest
    path.write_bytes(b"eBPFjit\x02" + hashlib.blake2b(content, digest_size=32).digest() + content)
