"""Captures: reading pcap and pcapng, writing pcap, and `ebpfjit run --pcap`."""

from __future__ import annotations

import csv
import io
import json
import os
import re
import select
import signal
import struct
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from support.packets import packets

from ebpfjit import CaptureError
from ebpfjit.assembler import assemble
from ebpfjit.capture import Writer, read
from ebpfjit.cli.capture import run as run_capture
from ebpfjit.program import Program
from tests.support import warm

SECOND = 1_000_000_000
EXAMPLES = Path(__file__).resolve().parents[2] / "examples" / "packets"


def pcap_bytes(
    records: list[tuple[int, int, bytes]], *, order: str = "<", nanoseconds: bool = False, link_type: int = 1
) -> bytes:
    """Return a pcap file; records are (seconds, fraction, packet)."""
    magic = 0xA1B23C4D if nanoseconds else 0xA1B2C3D4
    data = struct.pack(order + "IHHiIII", magic, 2, 4, 0, 0, 65535, link_type)
    for seconds, fraction, packet in records:
        data += struct.pack(order + "IIII", seconds, fraction, len(packet), len(packet) + 5) + packet
    return data


def written(path: Path) -> list[tuple[int, bytes]]:
    """Return time and bytes of each packet of a capture."""
    rows = [row for batch in read(path) for row in zip(batch.timestamps, batch, strict=True)]
    return [(time, bytes(packet)) for time, packet in rows]


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
    assert "a second" not in run.stdout  # three packets say nothing of how many a second there would be


def test_packets_that_pass_are_written(capture: Path, drop_udp: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.pcap"
    run = ebpfjit("run", drop_udp, "--type", "tc", "--pcap", capture, "--write", out, "--json")
    report: dict[str, Any] = json.loads(run.stdout)
    kept = [(number * SECOND, data) for number, data in enumerate(packets().values()) if not is_udp(data)]
    assert written(out) == kept
    assert report["packets"] == len(packets())
    assert report["written"] == len(kept)
    assert report["verdicts"]["TC_ACT_OK"]["packets"] == len(kept)
    assert report["error"] is None


def test_a_socket_filter_cuts_what_it_keeps(capture: Path, tmp_path: Path) -> None:
    program, out = tmp_path / "keep.s", tmp_path / "out.pcap"
    program.write_text("mov r0, 20\nexit")
    run = ebpfjit("run", program, "--type", "socket_filter", "--pcap", capture, "--write", out)
    assert run.returncode == 0
    assert [data for _, data in written(out)] == [data[:34] for data in packets().values()]


def test_a_vlan_tag_that_was_pushed_is_written(capture: Path, tmp_path: Path) -> None:
    program, out = tmp_path / "push.s", tmp_path / "out.pcap"
    program.write_text("mov r2, 0x81\nmov r3, 0x2007\ncall 18\nmov r0, 0\nexit")
    assert ebpfjit("run", program, "--type", "tc", "--pcap", capture, "--write", out).returncode == 0
    tagged = [data[:12] + b"\x81\x00\x20\x07" + data[12:] for data in packets().values()]
    assert [data for _, data in written(out)] == tagged


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
    with pytest.raises(CaptureError, match=r"packet 1, byte .*: the file ends 20 bytes early"):
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
        (("--pcap", "{capture}", "--verdicts", "{capture}"), "--verdicts and --pcap name the same file"),
        (
            ("--pcap", "-", "--write", "a.csv", "--verdicts", "a.csv", "--type", "xdp"),
            "and --verdicts name the",
        ),
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


def test_whole_batches_and_single_packets_come_to_the_same(capture: Path, tmp_path: Path) -> None:
    """With --context a capture is run packet by packet; what is counted is the same, faults and maps too."""
    short = tmp_path / "short.pcap"
    short.write_bytes(capture.read_bytes() + pcap_bytes([(9, 0, bytes(13)), (9, 1, bytes(15))])[24:])
    program = tmp_path / "fault.s"
    program.write_text("ldxw r2, [r1+0]\nldxb r0, [r2+60]\nmov r0, 2\nexit")
    filters = EXAMPLES / "xdp_port_filter.o"
    for file, options in ((program, ("--type", "xdp")), (filters, ("--map", "blocked[53]=1", "--show-maps"))):
        found = []
        for ways in ((), ("--context", "ingress_ifindex=1"), ("--engine", "interpreter")):
            run = ebpfjit("run", file, *options, "--pcap", short, "--json", *ways)
            report = json.loads(run.stdout)
            report.pop("seconds")
            found.append((run.returncode, re.sub("0x[0-9a-f]+", "0x", run.stderr), report))
            report["error"] = re.sub("0x[0-9a-f]+", "0x", report["error"] or "")
        assert found[0] == found[1] == found[2]
        assert found[0][2]["verdicts"]["not run"]["packets"] == 1


TUNNEL = 'tunnels[0x0200000A]={"local": 1, "remote": 2}'


def test_what_is_written_is_the_same_from_whole_batches(tmp_path: Path) -> None:
    """Packets that grow, tags that are pushed, filters that cut, events: in one pass as packet by packet."""
    file = tmp_path / "in.pcap"
    file.write_bytes(pcap_bytes([(n, n, data) for n, data in enumerate(packets().values())]))
    cut = tmp_path / "cut.s"
    cut.write_text("ldxw r0, [r1]\nrsh r0, 1\nexit")  # half of the packet
    for options in (
        (EXAMPLES / "ipip.o", "--program", "encapsulate", "--map", TUNNEL),
        (EXAMPLES / "vlan.o", "--program", "push"),
        (EXAMPLES / "event_logger.o",),
        (cut, "--type", "socket_filter"),
    ):
        found = []
        for engine in ("jit", "interpreter"):
            out = tmp_path / f"{engine}.pcap"
            run = ebpfjit("run", *options, "--pcap", file, "--write", out, "--json", "--engine", engine)
            report = json.loads(run.stdout)
            report.pop("seconds")
            found.append((report, out.read_bytes()))
        assert found[0] == found[1], options
        assert found[0][0]["written"] > 1
    assert report["verdicts"]


def test_lines_that_decide_are_shown(capture: Path, tmp_path: Path) -> None:
    ways = ["run", EXAMPLES / "xdp_port_filter.o", "--pcap", capture, "--reasons", "--map", "blocked[53]=1"]
    report = json.loads(ebpfjit(*ways, "--json").stdout)
    ((name, line, count),) = report["reasons"]
    assert (name, count) == ("XDP_DROP", report["verdicts"]["XDP_DROP"]["packets"])
    assert "xdp_port_filter.c:34: return bpf_map_lookup_elem(&blocked" in line
    assert line in ebpfjit(*ways).stdout
    wrong = ebpfjit(*ways, "--engine", "interpreter")
    assert (wrong.returncode, "told by machine code" in wrong.stderr) == (2, True)


def test_a_table_of_each_verdict(capture: Path, drop_udp: Path, tmp_path: Path) -> None:
    rows = []
    for name in ("v.csv", "v.jsonl", "v.parquet"):
        out = tmp_path / name
        assert ebpfjit("run", drop_udp, "--type", "tc", "--pcap", capture, "--verdicts", out).returncode == 0
    rows = [json.loads(line) for line in (tmp_path / "v.jsonl").read_text().splitlines()]
    assert [row["verdict"] == "TC_ACT_SHOT" for row in rows] == [is_udp(data) for data in packets().values()]
    assert [(row["packet"], row["length"]) for row in rows] == [
        (number, len(data)) for number, data in enumerate(packets().values(), 1)
    ]
    with (tmp_path / "v.csv").open(newline="") as file:
        assert [row["verdict"] for row in csv.DictReader(file)] == [row["verdict"] for row in rows]
    parquet = pytest.importorskip("pyarrow.parquet")
    assert parquet.read_table(tmp_path / "v.parquet")["verdict"].to_pylist() == [
        row["verdict"] for row in rows
    ]
    wrong = ebpfjit("run", drop_udp, "--type", "tc", "--pcap", capture, "--verdicts", tmp_path / "v.xls")
    assert (wrong.returncode, len(wrong.stderr.splitlines())) == (1, 1)
    assert "ends in .csv, .jsonl, .parquet" in wrong.stderr
    assert sorted(path.suffix for path in tmp_path.iterdir()) == [".csv", ".jsonl", ".parquet", ".pcap", ".s"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("command", ["run", "filter"])
def test_what_is_stopped_leaves_what_was_there(
    command: str, number: signal.Signals, capture: Path, drop_udp: Path, tmp_path: Path
) -> None:
    """In the middle of a capture: the file of that name stays, nothing unfinished does, nothing is said."""
    folder = tmp_path / "written"
    folder.mkdir()
    out, table = folder / "out.pcap", folder / "v.csv"
    out.write_bytes(b"what was there")
    ways = (
        ["run", drop_udp, "--type", "tc", "--verdicts", table]
        if command == "run"
        else ["filter", "ether[0] >= 0"]
    )
    line = [sys.executable, "-m", "ebpfjit", *map(str, ways), "--pcap", "-", "--write", str(out)]
    pipes: dict[str, Any] = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
    with subprocess.Popen(line, **pipes) as process:
        assert process.stdin is not None
        process.stdin.write(pcap_bytes([(0, 0, bytes(1000))] * 3000))
        process.stdin.flush()
        deadline = time.monotonic() + 60
        while not any(path.stat().st_size for path in folder.glob("out.pcap.*.unfinished")):
            assert time.monotonic() < deadline, "nothing was written"
            assert process.poll() is None
        process.send_signal(number)
        said = process.communicate(timeout=60)
    assert (process.returncode, *said) == (128 + number, b"", b"")
    assert [path.name for path in folder.iterdir()] == ["out.pcap"]
    assert out.read_bytes() == b"what was there"


@pytest.mark.parametrize("command", ["run", "filter"])
def test_packets_that_come_through_a_pipe_leave_at_once(command: str) -> None:
    """As `tcpdump -w - | ebpfjit run ... --write - | tcpdump -r -` has them, while nothing has ended."""
    ways = ["run", str(EXAMPLES / "xdp_port_filter.o")] if command == "run" else ["filter", "ether[0] >= 0"]
    data = pcap_bytes([(n, 0, bytes(60)) for n in range(3)])
    line = [sys.executable, "-m", "ebpfjit", *ways, "--pcap", "-", "--write", "-"]
    pipes: dict[str, Any] = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
    with subprocess.Popen(line, bufsize=0, **pipes) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(data[:-10])
        there, wanted = b"", 24 + 2 * 76
        while len(there) < wanted:
            assert select.select([process.stdout], [], [], 60)[0], "nothing comes"
            there += os.read(process.stdout.fileno(), wanted)
        rest, _ = process.communicate(data[-10:], timeout=60)
    assert (len(there + rest), process.returncode) == (len(data), 0)


def test_the_standard_input_into_a_file_that_is_there(capture: Path, drop_udp: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.pcap"
    out.write_bytes(b"what was there")
    shell = f"{sys.executable} -m ebpfjit run {drop_udp} --type tc --pcap - --write {out} < {capture}"
    run = subprocess.run(["sh", "-c", shell], capture_output=True, text=True, check=False)
    assert (run.returncode, run.stderr) == (0, "")
    assert len(written(out)) == sum(not is_udp(data) for data in packets().values())


def test_packets_on_the_standard_output_are_nothing_but_a_capture(
    capture: Path, drop_udp: Path, tmp_path: Path
) -> None:
    """What is said goes to standard error: the table, JSON, and the lines that the program prints."""
    path, said = tmp_path / "out.pcap", EXAMPLES / "xdp_port_filter.o"
    for ways in ((), ("--json",)):
        run = warm.run(
            [sys.executable, "-m", "ebpfjit", "run", said, "--pcap", capture, "--write", "-", *ways]
        )
        assert run.returncode == 0
        assert b"XDP_PASS" in run.stderr
        path.write_bytes(run.stdout)
        assert [data for _, data in written(path)] == list(packets().values())
    shell = f"{sys.executable} -m ebpfjit run {drop_udp} --type tc --pcap {capture} --write - > /dev/full"
    full = subprocess.run(["sh", "-c", shell], capture_output=True, text=True, check=False)
    assert (full.returncode, full.stderr) == (1, "ebpfjit: <stdout>: No space left on device\n")


def test_link_types_that_nobody_knows_are_said_of_the_file(drop_udp: Path, tmp_path: Path) -> None:
    path = tmp_path / "usb.pcap"
    path.write_bytes(pcap_bytes([(0, 0, bytes(60))], link_type=147))
    run = ebpfjit("run", drop_udp, "--type", "tc", "--pcap", path)
    assert (run.returncode, len(run.stderr.splitlines())) == (1, 1)
    assert run.stderr.startswith(
        f"ebpfjit: {path}: packet 1: packets of link type 147; frames can be made of"
    )
    run = ebpfjit("filter", "tcp", "--pcap", path)
    assert (run.returncode, len(run.stderr.splitlines())) == (1, 1)
    assert run.stderr.startswith(f"ebpfjit: {path}: packet 1: filter 'tcp': ")


def test_streams_and_disks_that_take_nothing(capture: Path, drop_udp: Path, tmp_path: Path) -> None:
    """One line each, and nothing half written is left."""
    source = (
        "import resource, signal, sys; from ebpfjit.cli.app import main;"
        " signal.signal(signal.SIGXFSZ, signal.SIG_IGN);"
        " resource.setrlimit(resource.RLIMIT_FSIZE, (10, 10)); sys.exit(main())"
    )
    ways = ["run", drop_udp, "--type", "tc", "--pcap", capture, "--verdicts", tmp_path / "v.csv"]
    run = subprocess.run([sys.executable, "-c", source, *ways], capture_output=True, text=True, check=False)
    assert (run.returncode, run.stderr) == (1, f"ebpfjit: {tmp_path / 'v.csv'}: File too large\n")
    assert not [path for path in tmp_path.iterdir() if path.name.startswith("v.")]
    for command, says in (
        (f"run {drop_udp} --type tc --pcap - <&-", "ebpfjit: <stdin>: not a capture"),
        (f"run {drop_udp} --type tc --pcap {capture} >&-", ""),
    ):
        shell = ["sh", "-c", f"{sys.executable} -m ebpfjit {command}"]
        run = subprocess.run(shell, capture_output=True, text=True, check=False)
        assert (run.returncode, run.stderr[: len(says)]) == (bool(says), says)


def test_an_expression_over_a_capture(capture: Path, tmp_path: Path) -> None:
    out = tmp_path / "udp.pcap"
    run = ebpfjit("filter", "ip proto 17", "--pcap", capture, "--write", out)
    expected = [data for data in packets().values() if is_udp(data)]
    assert run.stdout == f"{len(expected)} of {len(packets())} packets match, written to {out}\n"
    assert [data for _, data in written(out)] == expected
    counted = json.loads(ebpfjit("filter", "ip proto 17", "--pcap", capture, "--json").stdout)
    assert counted == {"packets": len(packets()), "matched": len(expected), "error": None}
    for arguments, says in [
        (("tcp prot 80", "--pcap", capture), "'tcp prot 80': can't parse filter expression: syntax error"),
        (("tcp", "--pcap", tmp_path / "none"), "No such file"),
        (("tcp", "--pcap", __file__), "not a capture"),
    ]:
        wrong = ebpfjit("filter", *arguments)
        assert (wrong.returncode, len(wrong.stderr.splitlines())) == (1, 1), arguments
        assert says in wrong.stderr
    cut = tmp_path / "cut.pcap"
    cut.write_bytes(capture.read_bytes()[:-3])
    wrong = ebpfjit("filter", "ip proto 17", "--pcap", cut)
    assert wrong.returncode == 1
    assert ("bytes early" in wrong.stderr, "packets match" in wrong.stdout) == (True, True)


@pytest.mark.parametrize("suffix", [".pcap", ".pcapng"])
def test_a_filter_asks_for_the_length_that_a_packet_had(suffix: str, tmp_path: Path) -> None:
    cut, out = tmp_path / f"cut{suffix}", tmp_path / "out.pcap"
    with Writer(str(cut)) as writer:
        for wire in (40, 60, 61, 1500, 9000):
            writer.add(bytes(40), wire, wire)
    for expression, wires in {"greater 61": [61, 1500, 9000], "less 60 and ether[39] = 0": [40, 60]}.items():
        run = ebpfjit("filter", expression, "--pcap", cut, "--write", out)
        assert run.stdout == f"{len(wires)} of 5 packets match, written to {out}\n", run.stderr
        (batch,) = read(out)
        assert [*batch.wire_lengths] == wires
        assert all(bytes(each) == bytes(40) for each in batch)
    assert ebpfjit("filter", "ip broadcast", "--pcap", cut).stdout.startswith("0 of 5")  # as tcpdump -r
    assert ebpfjit("filter", "greater 61 and ether[40] = 0", "--pcap", cut).stdout.startswith("0 of 5")


def test_each_packet_is_filtered_as_one_of_its_link_type(tmp_path: Path) -> None:
    frames = [data for name, data in packets().items() if name in ("tcp", "udp", "icmp")]
    both = tmp_path / "both.pcapng"
    with Writer(both) as writer:
        for link, all_ in ((101, [frame[14:] for frame in frames]), (1, frames), (101, [frames[0][14:]])):
            (batch,) = read(io.BytesIO(pcap_bytes([(1, 0, data) for data in all_], link_type=link)))
            writer.write(batch)
    out = tmp_path / "tcp.pcapng"
    run = ebpfjit("filter", "ip proto 6", "--pcap", both, "--write", out)
    assert run.stdout == f"3 of 7 packets match, written to {out}\n"
    assert [bytes(packet) for batch in read(out) for packet in batch] == [
        frames[0][14:], frames[0], frames[0][14:],
    ]  # fmt: skip
    one = tmp_path / "tcp.pcap"
    one.write_bytes(b"what was there")
    run = ebpfjit("filter", "ip proto 6", "--pcap", both, "--write", one)
    assert (run.returncode, run.stdout, len(run.stderr.splitlines())) == (1, "", 1)
    assert "a pcap file has one link type; one whose name ends in .pcapng has all" in run.stderr
    assert one.read_bytes() == b"what was there"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["both.pcapng", "tcp.pcap", "tcp.pcapng"]
    run = ebpfjit("run", EXAMPLES / "xdp_port_filter.o", "--pcap", both, "--write", out)  # all as frames
    assert [batch.link_type for batch in read(out)] == [1]
    assert "7 packets written" in run.stdout
