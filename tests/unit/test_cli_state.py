"""The command line: what a file holds, maps and variables around a run, JSON of whatever is wrong."""

from __future__ import annotations

import json
import struct
import sys
from pathlib import Path
from typing import Any

import pytest

from ebpfjit import engines
from tests.support import warm

ROOT = Path(__file__).resolve().parents[2]
FILTER = ROOT / "examples" / "packets" / "xdp_port_filter.o"
GLOBALS = ROOT / "tests" / "elf" / "globals.o"
BLOCK_PORT = ROOT / "examples" / "block_port.o"
DNS = "000000000000000000000000 0800 45000020000000004011000000000000 00000000 0035 0035 0000 0000"


def ebpfjit(*arguments: object, status: int = 0, stdin: str = "") -> tuple[str, str]:
    """Return standard output and error of a command."""
    command = [sys.executable, "-m", "ebpfjit", *map(str, arguments)]
    done = warm.run(command, stdin, cwd=ROOT, timeout=60)
    assert done.returncode == status, done.stderr.decode()
    return done.stdout.decode(), done.stderr.decode()


def as_json(*arguments: object, status: int = 0) -> Any:
    return json.loads(ebpfjit(*arguments, "--json", status=status)[0])


# info


def test_info_tells_programs_maps_and_variables() -> None:
    text, _ = ebpfjit("info", FILTER)
    assert [line.split() for line in text.splitlines()[:2]] == [
        ["program", "type", "section", "slots"],
        ["port_filter", "xdp", "xdp", "47"],
    ]
    assert "port_filter: helpers: bpf_map_lookup_elem" in text
    assert "counters: u32 -> struct counter {packets: u64, bytes: u64}" in text
    found = as_json("info", GLOBALS)
    assert found["globals"]["total"] == {"section": ".data", "type": "s64", "value": -5, "readonly": False}
    assert found["globals"]["limits"]["readonly"]
    assert found["programs"]["count"]["type"] == "socket_filter"
    assert as_json("info", ROOT / "tests" / "elf" / "maps_only.o")["programs"] == {}


def test_info_tells_what_is_missing_here(tmp_path: Path) -> None:
    parts = as_json("info", ROOT / "tests" / "elf" / "parts.o")["programs"]
    assert "a_kfunc" in parts["uses_kfunc"]["missing"][0]
    assert parts["also_fine"]["missing"] == []
    source = tmp_path / "calls.s"
    source.write_text("call 777\ncall 5\nexit")
    assert as_json("info", source)["programs"]["calls"]["missing"] == ["helper helper 777"]


# Maps and variables


def test_a_map_is_filled_and_shown(tmp_path: Path) -> None:
    run = ("run", FILTER, "--hex", DNS, "--show-maps")
    assert ebpfjit(*run)[0].startswith("2 (0x2) XDP_PASS\n")
    text, _ = ebpfjit(*run, "--map", "blocked[53]=1")
    assert text == (
        "1 (0x1) XDP_DROP\n"
        "map 'counters' (array):\n"
        '  1: {"packets": 1, "bytes": 42}\n'
        "map 'blocked' (hash):\n"
        "  53: 1\n"
    )
    shown = as_json(*run, "--map", "blocked[0x35]=1", "--map", 'counters[1]={"packets": 41, "bytes": "0x10"}')
    assert shown["action"] == "XDP_DROP"
    assert shown["maps"] == {
        "counters": [{"key": 1, "value": {"packets": 42, "bytes": 58}}],
        "blocked": [{"key": 53, "value": 1}],
    }
    for name, content in (
        ("list", shown["maps"]["blocked"]),
        ("object", {"53": 1}),
        ("bpftool", [{"key": ["0x35", "0x00"], "value": ["0x01"], "formatted": {"key": 53, "value": 1}}]),
    ):
        path = tmp_path / f"{name}.json"
        path.write_text(json.dumps(content))
        assert as_json(*run, "--map", f"blocked={path}")["maps"]["blocked"] == [{"key": 53, "value": 1}]


def test_bytes_are_hex() -> None:
    assert as_json("run", FILTER, "--hex", DNS, "--show-maps", "--map", "blocked[35:00]=01")["maps"][
        "blocked"
    ] == [{"key": 53, "value": 1}]


def test_variables_are_set_and_shown() -> None:
    run = ("run", GLOBALS, "--program", "count", "--type", "none", "--hex", "00" * 20, "--show-maps")
    before = as_json(*run)["globals"]
    shown = as_json(
        *run, "--global", "total=7", "--global", "ports=[1,2,3,4]", "--global", "label=abc",
        "--global", 'limits={"first": 9, "mac": "0x0102030405ff", "bits": 1}', "--global", "enabled=false",
    )["globals"]  # fmt: skip
    assert (before["ports"], shown["ports"]) == ([80, 443, 0, 0], [1, 2, 3, 4])
    assert shown["label"] == "0x6162630000"
    assert shown["limits"]["mac"] == "0x0102030405ff"
    assert shown["limits"]["first"] == 9


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (["--map", "nonesuch[1]=1"], "no map 'nonesuch'; there are: 'counters', 'blocked'"),
        (["--map", "blocked[99999]=1"], "key: 99999 is not from 0 to 65535: it is u16"),
        (["--map", "blocked[1]=x"], "value: 'x' is no number: it is u8"),
        (["--map", 'counters[1]={"packets": "many"}'], "it is struct counter {packets: u64, bytes: u64}"),
        (["--map", 'counters[1]={"pakets": 1}'], "has no member 'pakets'"),
        (
            ["--map", "counters[1]={packets: 1}"],
            "--map counters[1]: no JSON: close what is open, put names in",
        ),
        (["--map", "blocked={file}"], "{file}: no JSON: "),
        (["--map", "blocked[1]=" + "[" * 100_000], "ebpfjit: --map blocked[1]: no JSON: close what is open"),
        (["--map", "blocked[1]=" + "[" * 900 + "]" * 900], "a list is no whole number: it is u8"),
        (["--map", "blocked[1]=1.5"], "1.5 is no whole number: it is u8"),
        (["--map", "blocked=no/such.json"], "no/such.json: No such file"),
        (["--map", "a\nb\x1b]m[1]=1"], r"--map a\nb\x1b]m: no map"),
        (["--map", "blocked=a\nb\x1b[31m.json"], r"a\nb\x1b[31m.json: No such file"),
        (["--map", "blocked="], "'': No such file"),
        (["--cache", "{file}"], "{file}: Not a directory"),
        (["--global", "nonesuch=1"], "no variable 'nonesuch'; there is none at all"),
    ],
)
def test_what_does_not_fit_is_one_line(given: list[str], words: str, tmp_path: Path) -> None:
    file = tmp_path / "bad.json"
    file.write_text("{not json")
    given = [each.replace("{file}", str(file)) for each in given]
    out, error = ebpfjit("run", FILTER, "--hex", DNS, *given, "--json", status=1)
    assert words.replace("{file}", str(file)) in error
    assert error.count("\n") == 1
    assert json.loads(out)["error"]["message"] == error.removeprefix("ebpfjit: ").rstrip("\n")
    assert ebpfjit("run", FILTER, "--map", "blocked", status=2)[1]


def test_variables_of_the_wrong_type() -> None:
    for text, words in (("total=x", "it is s64"), ("ports=[1]", "it is a list of 4, each u16")):
        assert words in ebpfjit("run", GLOBALS, "--program", "count", "--global", text, status=1)[1]
    assert "no object file" in ebpfjit("run", "-", "--global", "a=1", status=1, stdin="exit")[1]


# Errors, help


def test_errors_are_json_too(tmp_path: Path) -> None:
    source = tmp_path / "fault.s"
    source.write_text("mov r1, 0\nldxw r0, [r1]\nexit")
    error = as_json("run", source, status=1)["error"]
    assert (error["type"], error["pc"], error["access"]) == ("MemoryFault", 1, "load")
    assert as_json("run", source, "--engine", "abacus", status=2)["error"]["message"]
    for command in ("disasm", "verify", "listing", "info", "asm", "diff"):
        assert "no/such.s" in as_json(command, "no/such.s", status=1)["error"]["message"], command


def test_short_help_version_and_c_files() -> None:
    assert ebpfjit("-h")[0] == ebpfjit("--help")[0]
    assert "--show-maps" in ebpfjit("run", "-h")[0]
    assert ebpfjit("--version")[0].startswith("ebpfjit 0.")
    assert "--install-completion" in ebpfjit("-h")[0]
    error = ebpfjit("run", "my.c", status=1)[1]
    build = "clang -O2 -g -target bpf -I/usr/include/$(uname -m)-linux-gnu -c my.c -o my.o"
    assert error == f"ebpfjit: my.c: C source; first: {build}\n"


# diff, fuzz, verify


def test_diff_says_what_became_of_inputs(tmp_path: Path) -> None:
    text, _ = ebpfjit("diff", FILTER, "--random", 6)
    assert text.startswith("6 inputs: 6 ended, 0 faulted, 0 refused; ")
    assert text.endswith("6 inputs, interpreter, jit: no difference\n")
    found = as_json("diff", BLOCK_PORT, "--hex", "00", "--hex", "00" * 100)
    assert (found["ended"], found["faulted"], found["refused"]) == (1, 1, 0)
    assert 0 < found["reached"] < found["instructions"] == 44
    short = as_json("diff", FILTER, "--hex", "00", "--map", "blocked[53]=1")
    assert (short["refused"], short["reached"]) == (1, 0)


def test_diff_compares_expressions() -> None:
    found = as_json("diff", "--filter", "tcp port 80 or udp", "--random", 30)
    assert (found["ended"], found["differ"]) == (30, 0)
    assert found["reached"] > 40
    for wrong in ((), (FILTER, "--filter", "tcp"), ("--filter", "tcp", "--map", "a=b")):
        said = ebpfjit("diff", *wrong, status=2)[1]
        assert "FILE" in said.splitlines()[-1]
    said = ebpfjit("diff", "--filter", "tcp prt", status=1)[1]
    assert said.startswith("ebpfjit: filter 'tcp prt': can't parse")


def test_diff_takes_captures(tmp_path: Path) -> None:
    path = tmp_path / "two.pcap"
    records = b"".join(
        struct.pack("<IIII", 0, 0, len(packet), len(packet)) + packet
        for packet in (bytes.fromhex(DNS), bytes(60))
    )
    path.write_bytes(b"\xd4\xc3\xb2\xa1" + struct.pack("<HHiIII", 2, 4, 0, 0, 1 << 16, 1) + records)
    assert as_json("diff", FILTER, "--pcap", path)["ended"] == 2


MAGIC = """ldxb r0, [r1]
jne r0, 0x42, out
ldxw r2, [r1+4]
jne r2, 0x12345678, out
lddw r3, 0
ldxb r0, [r3]
out: exit"""


def test_fuzz_finds_the_way_to_a_fault(tmp_path: Path) -> None:
    source, corpus = tmp_path / "magic.s", tmp_path / "corpus"
    source.write_text(MAGIC)
    found = as_json("fuzz", source, "--inputs", 4000, "--corpus", corpus, status=1)
    faults = {each["pc"]: bytes.fromhex(each["packet"]) for each in found["findings"]}
    assert faults[6] == b"\x42\0\0\0" + (0x12345678).to_bytes(4, "little")
    assert found["reached"] == found["instructions"]
    assert found["differences"] == []
    assert faults[6] in [path.read_bytes() for path in corpus.glob("*.bin")]
    text, _ = ebpfjit("fuzz", source, "--inputs", 64, "--corpus", corpus, status=1)
    assert "null pointer" in text


def test_fuzz_of_a_packet_program() -> None:
    found = as_json("fuzz", FILTER, "--inputs", 130, "--map", "blocked[53]=1")
    assert (found["inputs"], found["findings"], found["differences"]) == (130, [], [])
    assert found["ended"] > 100
    assert ebpfjit("fuzz", FILTER, "--sources", "rows", status=2)[1]
    assert ebpfjit("fuzz", "--inputs", 5, status=2)[1]
    assert "777" in ebpfjit("fuzz", "-", "--inputs", 5, status=1, stdin="call 777\nexit")[1]


def test_frames_are_whole() -> None:
    import random

    from ebpfjit.difftest.frames import checksum, frame

    rng = random.Random(1)
    packets = [frame(rng) for _ in range(200)]
    ipv4 = [packet for packet in packets if packet[12:14] == b"\x08\x00" and len(packet) >= 34]
    whole = [packet for packet in ipv4 if checksum(packet[14 : 14 + 4 * (packet[14] & 15)]) == 0]
    assert len(whole) >= 0.9 * len(ipv4) > 20
    assert min(map(len, packets)) >= 14


@pytest.mark.skipif(bool(engines.unavailable("kernel")), reason="the kernel loads no programs here")
def test_verify_asks_the_kernel(tmp_path: Path) -> None:
    assert as_json("verify", FILTER, "--kernel")["port_filter"]["kernel"] == {"status": "accepted"}
    refused = as_json("verify", ROOT / "tests" / "elf" / "license_missing.o", "--kernel", status=1)
    assert refused["ticks"]["kernel"]["status"] == "accepted"
    assert "GPL-restricted" in refused["reads"]["kernel"]["reason"]
    assert any("bpf_probe_read_kernel" in line for line in refused["reads"]["kernel"]["log"])
    source = tmp_path / "exits.s"
    source.write_text("exit")
    assert "kernel: not loaded: it has no type" in ebpfjit("verify", source, "--kernel")[0]
