"""EBPFJIT_PERF: what profilers are told of machine code, read back as perf reads it."""

from __future__ import annotations

import os
import struct
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import pytest

from ebpfjit import InputError, Program, load
from ebpfjit.jit import perf
from ebpfjit.sealed import inside

PORT_FILTER = Path(__file__).parents[2] / "examples" / "packets" / "xdp_port_filter.o"
COMPILE = f"""
import os
from ebpfjit import load
from ebpfjit.sealed import inside
function = load({str(PORT_FILTER)!r}).program("port_filter").compile(optimize=True)
buffer = inside(function).plain.compiled.buffer
print(os.getpid(), buffer.address, buffer.size)
"""


def _compiled(kind: str, folder: Path) -> tuple[int, int, int]:
    """Compile in a process that profilers look at; return its number, and where the code is, how large."""
    env = {**os.environ, "EBPFJIT_PERF": kind, "JITDUMPDIR": str(folder)}
    done = subprocess.run(
        [sys.executable, "-c", COMPILE], env=env, capture_output=True, text=True, check=True
    )
    pid, address, size = map(int, done.stdout.split())
    return pid, address, size


def test_a_map_names_functions_and_lines(tmp_path: Path) -> None:
    pid, address, size = _compiled("map", tmp_path)
    path = Path(f"/tmp/perf-{pid}.map")
    entries = [line.split(" ", 2) for line in path.read_text(encoding="utf-8").splitlines()]
    path.unlink()
    shared = [entry for entry in entries if entry[2].startswith("ebpf::shared:")]
    assert {"ebpf::shared:run", "ebpf::shared:call_python"} <= {name for _, _, name in shared}
    assert any("lookup" in name for _, _, name in shared)  # a map's
    entries = [entry for entry in entries if entry not in shared]
    places = [(int(start, 16), int(length, 16)) for start, length, _ in entries]
    assert all(address <= start and start + length <= address + size for start, length in places)
    assert all(start + length == following for (start, length), (following, _) in pairwise(places))
    names = {name for _, _, name in entries}
    assert "ebpf::port_filter:./xdp_port_filter.c:49" in names
    assert "ebpf::port_filter" in names


def test_a_dump_has_the_code_and_its_lines(tmp_path: Path) -> None:
    pid, address, size = _compiled("dump", tmp_path)
    data = (tmp_path / f"jit-{pid}.dump").read_bytes()
    magic, version, length, machine = struct.unpack_from("<4I", data)
    assert (magic, version, machine) == (0x4A695444, 1, 62)
    at, lines, code = length, list[tuple[int, int, str]](), 0
    while at < len(data):
        kind, length, _ = struct.unpack_from("<2IQ", data, at)
        body = data[at + 16 : at + length]
        at += length
        if kind == 2:
            _, count = struct.unpack_from("<2Q", body)
            rest = body[16:]
            for _ in range(count):
                place, line, _ = struct.unpack_from("<Q2i", rest)
                name, _, rest = rest[16:].partition(b"\0")
                lines.append((place, line, name.decode()))
            assert rest == b""
        else:
            start, same, part = struct.unpack_from("<3Q", body, 8)
            name, _, bytes_ = body[40:].partition(b"\0")
            assert (kind, start, len(bytes_)) == (0, same, part)
            if not name.startswith(b"ebpf::shared:"):
                assert name == b"ebpf::port_filter"
                code += part
    assert at == len(data)
    assert 0 < code <= size
    assert {name for _, _, name in lines} == {"./xdp_port_filter.c", "././program.h"}
    assert all(address <= place < address + size for place, _, _ in lines)


def test_names_stay_on_their_line() -> None:
    program = Program.from_assembly("r0 = 0\nexit", name="a\nb 1 2")
    compiled = inside(program.compile()).plain.compiled
    assert [part.name for part in perf.stretches(program, compiled.image)] == ["ebpf::a?b 1 2"]


def test_nothing_of_somebody_elses_is_written_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EBPFJIT_PERF", "map")
    monkeypatch.setattr(perf, "MAPS", str(tmp_path))
    (tmp_path / "target").write_text("")
    (tmp_path / f"perf-{os.getpid()}.map").symlink_to(tmp_path / "target")
    load(PORT_FILTER).program("port_filter").compile()
    assert (tmp_path / "target").read_text() == ""
    monkeypatch.setenv("EBPFJIT_PERF", "yes")
    with pytest.raises(InputError, match="EBPFJIT_PERF is map or dump, not 'yes'"):
        load(PORT_FILTER).program("port_filter").compile()
