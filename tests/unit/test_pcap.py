"""Captures: reading pcap and pcapng, writing pcap, and `ebpfjit run --pcap`."""

from __future__ import annotations

import io
import json
import re
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from support.packets import packets

from ebpfjit.assembler import assemble
from ebpfjit.cli import pcap
from ebpfjit.cli.capture import run as run_capture
from ebpfjit.cli.files import FileError
from ebpfjit.program import Program
from tests.support import warm

SECOND = 1_000_000_000


def pcap_bytes(
    records: list[tuple[int, int, bytes]], *, order: str = "<", nanoseconds: bool = False, link_type: int = 1
) -> bytes:
    """Return a pcap file; records are (seconds, fraction, packet)."""
    magic = 0xA1B23C4D if nanoseconds else 0xA1B2C3D4
    data = struct.pack(order + "IHHiIII", magic, 2, 4, 0, 0, 65535, link_type)
    for seconds, fraction, packet in records:
        data += struct.pack(order + "IIII", seconds, fraction, len(packet), len(packet) + 5) + packet
    return data


def block(kind: int, body: bytes, order: str = "<") -> bytes:
    body += bytes(-len(body) % 4)
    size = struct.pack(order + "I", len(body) + 12)
    return struct.pack(order + "I", kind) + size + body + size


def section(order: str = "<") -> bytes:
    return block(0x0A0D0D0A, struct.pack(order + "IHHq", 0x1A2B3C4D, 1, 0, -1), order)


def interface(order: str = "<", link_type: int = 1, options: bytes = b"", snap: int = 0) -> bytes:
    return block(1, struct.pack(order + "HHI", link_type, 0, snap) + options, order)


def enhanced(time: int, packet: bytes, order: str = "<", index: int = 0) -> bytes:
    head = struct.pack(order + "IIIII", index, time >> 32, time & 0xFFFFFFFF, len(packet), len(packet))
    return block(6, head + packet, order)


def read(data: bytes) -> list[tuple[int, bytes, int]]:
    return [(each.time, each.data, each.wire_size) for each in pcap.read(io.BytesIO(data), "test")]


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("nanoseconds", [False, True])
def test_pcap_of_every_kind(order: str, nanoseconds: bool) -> None:
    data = pcap_bytes([(7, 5, b"a" * 20), (8, 0, b"b" * 60)], order=order, nanoseconds=nanoseconds)
    fraction = 5 if nanoseconds else 5000
    assert read(data) == [(7 * SECOND + fraction, b"a" * 20, 25), (8 * SECOND, b"b" * 60, 65)]
    assert read(pcap_bytes([], order=order)) == []


@pytest.mark.parametrize("order", ["<", ">"])
def test_pcapng_of_both_orders(order: str) -> None:
    resolution = struct.pack(order + "HHB3xHH", 9, 1, 9, 0, 0)
    data = section(order) + interface(order) + interface(order, options=resolution)
    data += enhanced(1_500_000, b"a" * 20, order) + block(5, bytes(8), order)
    data += enhanced(3, b"b" * 21, order, index=1)
    data += block(3, struct.pack(order + "I", 22) + b"c" * 22, order)
    assert read(data) == [(1_500_000_000, b"a" * 20, 20), (3, b"b" * 21, 21), (0, b"c" * 22, 22)]


def test_a_new_section_has_interfaces_of_its_own() -> None:
    data = section() + interface() + enhanced(1, b"a" * 20) + section(">")
    assert len(read(data)) == 1
    with pytest.raises(FileError, match=r"packet 2, byte .*: interface 0, and the section has 0"):
        read(data + enhanced(1, b"b" * 20, ">"))


def test_raw_ip_gets_an_ethernet_header() -> None:
    four, six = b"\x45" + bytes(19), b"\x60" + bytes(39)
    data = pcap_bytes([(0, 0, four), (0, 0, six)], link_type=101)
    assert [packet for _, packet, _ in read(data)] == [
        bytes(12) + b"\x08\x00" + four,
        bytes(12) + b"\x86\xdd" + six,
    ]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "test: packet 1, byte 0: the file ends 4 bytes early"),
        (b"\x7fELF" + bytes(60), "not a capture: neither pcap nor pcapng"),
        (pcap_bytes([], link_type=113), "link type 113; programs run on Ethernet"),
        (
            pcap_bytes([(0, 0, bytes(20)), (0, 0, bytes(20))])[:-1],
            "packet 2, byte .*: the file ends 1 bytes early",
        ),
        (pcap_bytes([(0, 0, bytes(20))])[:30], "packet 1, byte 30: the file ends 10 bytes early"),
        (pcap_bytes([]) + struct.pack("<IIII", 0, 0, 1 << 30, 1 << 30), "a packet of 1073741824 bytes"),
        (section() + struct.pack("<II", 6, 13), "a block of 13 bytes"),
        (section() + struct.pack("<II", 6, 1 << 30), "a block of 1073741824 bytes"),
        (section()[:8] + bytes(20), "a section without a byte order"),
        (section() + block(6, bytes(8)), "a packet block without its header"),
        (section() + block(1, b""), "an interface without a link type"),
        (
            section() + interface() + block(6, struct.pack("<IIIII", 0, 0, 0, 99, 99)),
            "99 bytes in a block of 20",
        ),
    ],
)
def test_damaged_captures_are_said(data: bytes, message: str) -> None:
    with pytest.raises(FileError, match=message):
        read(data)


def test_what_is_written_is_read_again() -> None:
    file = io.BytesIO()
    writer = pcap.Writer(file)
    rows = [(7 * SECOND + 123456789, b"a" * 20, 20), (0, b"b" * 1500, 9000)]
    for row in rows:
        writer.write(*row)
    assert writer.written == 2
    assert read(file.getvalue()) == rows


# --- the command ---

DROP_UDP = """
    mov r6, r1
    ldabsh 12             ; tc programs see the link header
    jne r0, 0x800, +3
    ldabsb 23
    mov r7, 2
    jeq r0, 17, +1
    mov r7, 0
    mov r0, r7
    exit
"""


@pytest.fixture
def capture(tmp_path: Path) -> Path:
    path = tmp_path / "capture.pcap"
    path.write_bytes(pcap_bytes([(number, 0, data) for number, data in enumerate(packets().values())]))
    return path


@pytest.fixture
def drop_udp(tmp_path: Path) -> Path:
    path = tmp_path / "drop_udp.s"
    path.write_text(DROP_UDP)
    return path


def ebpfjit(*arguments: object) -> subprocess.CompletedProcess[str]:
    return warm.run([sys.executable, "-m", "ebpfjit", *map(str, arguments)], text=True)


def is_udp(packet: bytes) -> bool:
    return packet[12:14] == b"\x08\x00" and packet[23] == 17


@pytest.mark.parametrize("engine", ["jit", "interpreter"])
def test_a_table_of_verdicts(capture: Path, drop_udp: Path, engine: str) -> None:
    run = ebpfjit("run", drop_udp, "--type", "tc", "--pcap", capture, "--engine", engine)
    assert (run.returncode, run.stderr) == (0, "")
    dropped = [data for data in packets().values() if is_udp(data)]
    total = sum(map(len, packets().values()))
    lines = [line.replace("│", " ").split() for line in run.stdout.splitlines()]
    assert ["TC_ACT_SHOT", str(len(dropped)), str(sum(map(len, dropped)))] in [line[:3] for line in lines]
    assert ["total", str(len(packets())), str(total), "100.0", "%"] in lines


def test_packets_that_pass_are_written(capture: Path, drop_udp: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.pcap"
    run = ebpfjit("run", drop_udp, "--type", "tc", "--pcap", capture, "--write", out, "--json")
    report: dict[str, Any] = json.loads(run.stdout)
    kept = [(number * SECOND, data) for number, data in enumerate(packets().values()) if not is_udp(data)]
    with out.open("rb") as file:
        assert [(each.time, each.data) for each in pcap.read(file, "out")] == kept
    assert report["packets"] == len(packets())
    assert report["written"] == len(kept)
    assert report["verdicts"]["TC_ACT_OK"]["packets"] == len(kept)
    assert report["error"] is None


def test_a_socket_filter_cuts_what_it_keeps(capture: Path, tmp_path: Path) -> None:
    program, out = tmp_path / "keep.s", tmp_path / "out.pcap"
    program.write_text("mov r0, 20\nexit")
    run = ebpfjit("run", program, "--type", "socket_filter", "--pcap", capture, "--write", out)
    assert run.returncode == 0
    with out.open("rb") as file:
        assert [each.data for each in pcap.read(file, "out")] == [data[:34] for data in packets().values()]


def test_a_vlan_tag_that_was_pushed_is_written(capture: Path, tmp_path: Path) -> None:
    program, out = tmp_path / "push.s", tmp_path / "out.pcap"
    program.write_text("mov r2, 0x81\nmov r3, 0x2007\ncall 18\nmov r0, 0\nexit")
    assert ebpfjit("run", program, "--type", "tc", "--pcap", capture, "--write", out).returncode == 0
    with out.open("rb") as file:
        written = [each.data for each in pcap.read(file, "out")]
    assert written == [data[:12] + b"\x81\x00\x20\x07" + data[12:] for data in packets().values()]


def test_packets_that_cannot_be_run_are_counted(tmp_path: Path, drop_udp: Path) -> None:
    path = tmp_path / "short.pcap"
    path.write_bytes(pcap_bytes([(0, 0, bytes(60)), (0, 0, bytes(13)), (0, 0, bytes(60))]))
    run = ebpfjit("run", drop_udp, "--type", "tc", "--pcap", path, "--json")
    assert run.returncode == 1
    report = json.loads(run.stdout)
    assert {name: count["packets"] for name, count in report["verdicts"].items()} == {
        "TC_ACT_OK": 2,
        "not run": 1,
    }
    assert "packet 2: tc programs run on packets of at least 14 bytes" in run.stderr
    assert len(run.stderr.splitlines()) == 1


def test_a_capture_that_was_cut_off_is_counted_as_far_as_it_goes(tmp_path: Path) -> None:
    """Two whole packets and a piece of a third: both verdicts, and one line that says so."""
    path = tmp_path / "cut.pcap"
    path.write_bytes(pcap_bytes([(0, 0, bytes(60))] * 3)[:-20])
    program = Program(assemble("mov r0, 2\nexit"), type="xdp")
    report = run_capture(program, str(path), str(tmp_path / "out.pcap"), program.run, show=False)
    assert report.verdicts.keys() == {"XDP_PASS"}
    assert (report.total.packets, report.written) == (2, 2)
    assert report.error is not None
    assert re.fullmatch(r"packet 3, byte \d+: the file ends 20 bytes early", report.error)
    path.write_bytes(pcap_bytes([(0, 0, bytes(60))])[:-20])
    with pytest.raises(FileError, match=r"packet 1, byte .*: the file ends 20 bytes early"):
        run_capture(program, str(path), None, program.run, show=False)


def test_a_program_that_faults_is_counted(tmp_path: Path, capture: Path) -> None:
    program = tmp_path / "fault.s"
    program.write_text("ldxw r2, [r1+0]\nldxb r0, [r2+60]\nmov r0, 2\nexit")
    run = ebpfjit("run", program, "--type", "xdp", "--pcap", capture, "--json")
    assert run.returncode == 1
    counts = json.loads(run.stdout)["verdicts"]
    assert counts["fault"]["packets"] == sum(len(data) <= 60 for data in packets().values())
    assert "packet 1: pc 1: load of 1 byte" in run.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--write", "x.pcap"), "--write goes with --pcap"),
        (("--pcap", "{capture}", "--hex", "00"), "exclude each other"),
        (("--pcap", "{capture}", "--write", "x.pcap"), "--write needs the program's type"),
        (("--pcap", "{capture}", "--write", "{capture}", "--type", "xdp"), "name the same file"),
        (("--pcap", "{capture}", "--mbuff-offsets", "0,8"), "not for --pcap"),
        (("--context", "mark"), "FIELD=NUMBER"),
    ],
)
def test_wrong_usage(arguments: tuple[str, ...], message: str, capture: Path, drop_udp: Path) -> None:
    given = [argument.format(capture=capture) for argument in arguments]
    run = ebpfjit("run", drop_udp, *given)
    assert run.returncode == 2
    assert message in run.stderr.replace("\n", " ")


def test_a_capture_that_is_none(drop_udp: Path, tmp_path: Path) -> None:
    run = ebpfjit("run", drop_udp, "--type", "tc", "--pcap", drop_udp)
    assert run.returncode == 1
    assert "not a capture" in run.stderr
    assert len(run.stderr.splitlines()) == 1
    run = ebpfjit("run", drop_udp, "--type", "tc", "--pcap", tmp_path / "none.pcap")
    assert (run.returncode, "No such file" in run.stderr) == (1, True)


def test_one_packet_with_a_context(drop_udp: Path, tmp_path: Path) -> None:
    program = tmp_path / "mark.s"
    program.write_text("ldxw r0, [r1+8]\nldxw r2, [r1+52]\nadd r0, r2\nexit")
    arguments = (
        "run",
        program,
        "--type",
        "tc",
        "--hex",
        "00" * 20,
        "--context",
        "mark=0x10",
        "--context",
        "cb=1,2",
    )
    assert ebpfjit(*arguments).stdout == "18 (0x12)\n"
    shown = json.loads(ebpfjit(*arguments, "--json").stdout)
    assert shown["context"]["mark"] == 16
    assert shown["context"]["cb"] == [1, 2, 0, 0, 0]
    assert shown["action"] is None
    assert ebpfjit("run", program, "--type", "tc", "--hex", "00" * 20).stdout == "0 (0x0) TC_ACT_OK\n"
