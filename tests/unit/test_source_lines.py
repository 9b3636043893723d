"""Source lines: from BTF.ext into programs, faults, listings and refusals."""

from __future__ import annotations

import struct

import pytest

from ebpfjit.analysis import verifier
from ebpfjit.elf import load
from ebpfjit.elf.btf import Btf
from ebpfjit.elf.btf_ext import BtfExt
from ebpfjit.errors import ExecutionError, LoadError, MemoryFault, VerifierError
from ebpfjit.program import Program, SourceLine
from tests.support.elf_files import OBJECTS, BtfMaker

LINE = SourceLine("prog.c", 12, 5, "return *p;")
EXIT = bytes.fromhex("9500000000000000")
LOAD = bytes.fromhex("7110000000000000")  # ldxb r0, [r1]
PROGRAM = Program(LOAD + EXIT, lines={0: LINE})


def test_an_objects_lines() -> None:
    program = load(OBJECTS / "globals.o").program("write_constant")
    lines = {pc: (line.file, line.text) for pc, line in program.lines.items()}
    assert set(lines.values()) == {
        ("./globals.c", "*(volatile u32 *)&threshold = 3;"),
        ("./globals.c", "return 0;"),
    }
    last = max(program.lines)
    assert program.line_at(last) == program.lines[last]
    assert program.line_at(None) is None
    assert Program(program.code).line_at(0) is None
    source = (OBJECTS / "globals.c").read_text().splitlines()
    for line in program.lines.values():
        assert source[line.line - 1].strip() == line.text


def test_a_line_ends_where_a_function_starts() -> None:
    program = Program(LOAD + EXIT + EXIT, symbols={0: "a", 2: "b"}, lines={0: LINE})
    assert program.line_at(1) == LINE
    assert program.line_at(2) is None


@pytest.mark.parametrize("engine", ["interpreter", "jit"])
def test_faults_name_the_line(engine: str) -> None:
    with pytest.raises(MemoryFault) as caught:
        PROGRAM.run(b"", engine=engine)
    assert caught.value.line == "prog.c:12: return *p;"
    assert str(caught.value).endswith(" (prog.c:12: return *p;)")
    assert str(caught.value).count("prog.c") == 1


def test_both_engines_say_the_same() -> None:
    program = load(OBJECTS / "globals.o").program("count")
    plain = Program(program.code, references=program.references, maps=program.maps, lines=program.lines)
    messages = set()
    for engine in ("interpreter", "jit"):
        with pytest.raises(ExecutionError) as caught:
            plain.run(b"", engine=engine)
        messages.add(str(caught.value).split(": outside")[0] + str(caught.value.line))
    assert len(messages) == 1
    assert "globals.c:34: hidden += *context;" in messages.pop()


@pytest.mark.parametrize("engine", ["interpreter", "jit"])
def test_a_fault_without_a_line(engine: str) -> None:
    with pytest.raises(MemoryFault) as caught:
        Program(LOAD + EXIT).run(b"", engine=engine)
    assert caught.value.line == ""


def test_listings_show_lines() -> None:
    text = PROGRAM.compile().listing()
    assert "; prog.c:12: return *p;\n   0: " in text


def test_the_verifier_names_lines() -> None:
    with pytest.raises(VerifierError, match=r"\[no-fall-off\] \(prog\.c:12: return \*p;\)"):
        verifier.check(Program(LOAD, lines={0: LINE}))


def test_a_line_without_text() -> None:
    assert str(SourceLine("a.c", 3, 0, "")) == "a.c:3"


# BTF.ext


def ext(*parts: bytes, size: int = 32, **change: int) -> BtfExt:
    maker = BtfMaker()
    maker.string("text")
    ranges, body = [], b""
    for part in parts:
        ranges += [len(body), len(part)]
        body += part
    words = [*ranges, *([0] * (6 - len(ranges)))]
    data = struct.pack("<HBBI6I", change.get("magic", 0xEB9F), change.get("version", 1), 0, size, *words)
    return BtfExt(data + body, Btf(bytes(maker)), "x.o: section '.BTF.ext'")


def test_parts_that_are_not_there() -> None:
    empty = ext()
    assert empty.functions == {}
    assert empty.relocations == {}
    assert list(empty.lines("text", 0, 100)) == []
    assert empty.line_at("text", 0) is None


def test_records_may_be_longer_than_known() -> None:
    record = struct.pack("<6I", 8, 1, 1, 7 << 10 | 3, 99, 99)
    lines = ext(b"", struct.pack("<I", 24) + struct.pack("<II", 1, 1) + record)
    assert list(lines.lines("text", 0, 16)) == [(8, SourceLine("text", 7, 3, "text"))]
    assert lines.line_at("text", 16) == SourceLine("text", 7, 3, "text")
    assert lines.line_at("text", 0) is None


@pytest.mark.parametrize(
    ("part", "message"),
    [
        (b"\1\2", "line info are truncated"),
        (struct.pack("<I", 12), "records of 12 bytes in line info, at least 16"),
        (struct.pack("<I", 17), "records of 17 bytes"),
        (struct.pack("<II", 16, 1), "line info are truncated"),
        (struct.pack("<III", 16, 1, 1), "line info of section 'text' are truncated"),
        (struct.pack("<III", 16, 999, 0), "string at 0x3e7"),
        (struct.pack("<III", 16, 1, 1 << 31), "are truncated"),
    ],
)
def test_damaged_records(part: bytes, message: str) -> None:
    with pytest.raises(LoadError, match=message):
        ext(b"", part).line_at("text", 0)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"magic": 7}, "magic number 0x7"),
        ({"version": 2}, "version 2"),
        ({"size": 1 << 30}, "truncated header"),
    ],
)
def test_damaged_headers(change: dict[str, int], message: str) -> None:
    with pytest.raises(LoadError, match=message):
        ext(**change)
