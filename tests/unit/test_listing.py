"""What people see of a program: the listing as text and JSON, names in it, traces."""

from __future__ import annotations

import copy
import json
import os
import pickle
import re
import subprocess
import sys
from pathlib import Path

import pytest

from ebpfjit import EbpfVmRaw, JitUnavailable, Listing, MemoryFault, Program, VerifierError, assembler, load
from ebpfjit.jit import cpu, legend
from ebpfjit.program import SourceLine
from tests.support import warm

ROOT = Path(__file__).resolve().parents[2]
FILTER = ROOT / "examples" / "packets" / "xdp_port_filter.o"
LOOP = "mov r0, 0\nl: add r0, 1\njlt r0, 3, l\nldxb r4, [r1+1]\ncall 6\nexit"


@pytest.fixture(scope="module", autouse=True)
def _machine_code() -> None:
    try:
        EbpfVmRaw(assembler.assemble("mov r0, 0\nexit")).jit_compile()
    except JitUnavailable as unavailable:
        pytest.skip(str(unavailable))


def test_a_listing_shows_the_code_that_runs() -> None:
    program = load(FILTER).program("port_filter")
    listing = program.listing()
    assert "helper_missing" not in listing
    for text in (
        "lddw r1, map counters",
        "call bpf_map_lookup_elem",
        "jeq r0, 0x0, pc 45",
        "; map counters",
        "bytes of alignment)",
        "how many places",
        "; baseline code, where side exits go on",
        "no check: argument",
    ):
        assert text in listing, text
    head, _, body = listing.partition("\n\n")
    assert head.startswith("; optimised code (")
    assert "r6 rbx" in head
    lines = re.findall(r"^; \./.*: .*$", body.partition("; baseline code")[0], re.MULTILINE)
    assert len(lines) == len(set(lines)) > 5  # each in full once
    functions = load(FILTER).program("port_filter")
    assert _shape(functions.compile().listing()) == _shape(listing)


def _shape(text: str) -> str:
    """Return a listing without addresses of maps, which differ."""
    return re.sub(r"0x[0-9a-f]{8,}", "", re.sub(r"^.*movabs.*$", "", text, flags=re.MULTILINE))


def test_variables_functions_and_kernel_functions_are_named() -> None:
    objects = ROOT / "tests" / "elf"
    shown = load(objects / "globals.o").programs
    assert "variable " in next(iter(shown.values())).listing()
    calls = next(iter(load(objects / "subprograms.o").programs.values()))
    assert re.search(r"callx \w+ \(pc \d+\)", calls.listing())
    kfuncs = next(iter(load(objects / "own_kfuncs.o").programs.values()))
    names = {called.name for called in kfuncs.kfuncs.values()}
    assert any(f"call {name}" in kfuncs.listing() for name in names)


def test_what_is_not_there_and_maps_by_address_are_named() -> None:
    counters = load(FILTER).maps["counters"]
    code = assembler.assemble("r1 = map[fd:5]\ncall 195896080\nexit")
    program = Program(
        code, type="xdp", references={0: counters.address}, maps=(counters,), absent={2: "field 'x'"}
    )
    assert "lddw r1, map counters\n" in program.listing()
    assert "call 0xbad2310 (not there: field 'x')\n" in program.listing()


def test_a_helper_of_the_users_own_has_its_own_name() -> None:
    def gather(r1: int, r2: int, r3: int, r4: int, r5: int) -> int:
        return 0

    vm = EbpfVmRaw(assembler.assemble("call 1\nexit"))
    vm.register_helper(1, gather)
    assert "call gather\n" in vm.listing()
    assert "not run as it is: pc 0: " in Program.from_assembly("call 9999\nexit").listing()


def test_json_has_what_the_text_has() -> None:
    listing = Program.from_assembly(LOOP, name="count").listing()
    found = json.loads(listing.json())
    assert found["program"] == {"name": "count", "type": None, "section": None, "slots": 6}
    assert [step["pc"] for step in found["instructions"]] == [0, 1, 2, 3, 4, 5]
    assert found["instructions"][2]["targets"] == [1]
    assert found["instructions"][3]["note"].startswith("checked")
    assert [1, "taken"] in next(block for block in found["blocks"] if block["pc"] == 1)["ways"]
    code = b"".join(bytes.fromhex(line["bytes"]) for piece in found["machine"] for line in piece["lines"])
    assert len(code) > 100
    for piece in found["machine"]:
        for line in piece["lines"]:
            assert line["text"] in listing
    again = pickle.loads(pickle.dumps(listing))
    assert (again, type(again), again.json()) == (listing, Listing, listing.json())
    assert copy.deepcopy(listing) == listing


def test_every_kind_of_label_is_explained() -> None:
    """Those of instructions of their own, such as `.dividedN`, too."""
    goldens = (ROOT / "tests" / "golden" / "listings").glob("*.txt")
    text = "\n".join(golden.read_text() for golden in goldens)
    elf = ROOT / "tests" / "elf"
    for path in (FILTER, elf / "arena_data_clang19.o", elf / "beside_table.o"):
        for program in load(path).programs.values():
            text += program.listing() + program.listing(audit=True)
    labels = set(re.findall(r"^ +([.a-z_]+\w*):$", text, re.MULTILINE))
    assert len(labels) > 20
    unknown = {label for label in labels if legend.label_kind(label) is None}
    assert not unknown


@pytest.mark.parametrize(
    ("text", "why"),
    [("mov r0, 1\nja +5", "pc 1: ja: jump at pc 7 is outside"), ("mov r0, 1", "pc 0: mov64: "), ("", "no ")],
)
def test_what_cannot_be_compiled_shows_what_there_is(text: str, why: str) -> None:
    program = Program.from_assembly(text)
    listing = program.listing()
    assert listing.startswith("; no machine code: ")
    assert why in listing.splitlines()[0]
    assert ("mov64 r0, 0x1" in listing) is bool(text)
    assert json.loads(listing.json())["refusal"] in listing
    assert listing.view.tier == ""
    with pytest.raises(VerifierError):
        program.compile()


def test_without_an_assembler_the_program_is_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing() -> None:
        raise JitUnavailable("keystone is not installed")

    monkeypatch.setattr(cpu, "target", missing)
    for listing in (Program.from_assembly(LOOP).listing(), EbpfVmRaw(assembler.assemble(LOOP)).listing()):
        assert listing.startswith("; no machine code: keystone is not installed\n")
        assert "jlt r0, 0x3, pc 1" in listing
        assert [block.pc for block in listing.view.blocks] == [0, 1, 3]
        assert "<html" in listing.html()


def test_names_cannot_reach_the_terminal() -> None:
    evil = "\x1b]0;owned\x07\n"
    lines = {0: SourceLine(evil, 1, 0, evil), 1: SourceLine("a.c", 2, 0, evil)}
    code = assembler.assemble("call f\nexit\nf: mov r0, 7\nexit")
    program = Program(code, name=evil, section=evil, symbols={2: evil}, lines=lines)
    for text in (program.listing(), repr(program.listing()), str(program.trace()), repr(program)):
        assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f]", text)
        assert "owned" in text


def test_the_command_line(tmp_path: Path) -> None:
    text = tmp_path / "count.s"
    text.write_text(LOOP)

    def ebpfjit(*arguments: str | Path, **environment: str) -> subprocess.CompletedProcess[bytes]:
        env = {key: value for key, value in os.environ.items() if key not in ("NO_COLOR", "FORCE_COLOR")}
        command = [sys.executable, "-m", "ebpfjit", "listing", *map(str, arguments)]
        return warm.run(command, cwd=ROOT, timeout=60, env={**env, "TERM": "xterm", **environment})

    plain = ebpfjit(text).stdout.decode()
    assert "\x1b" not in plain
    colored = ebpfjit(text, FORCE_COLOR="1").stdout.decode()
    assert "\x1b[36m" in colored
    assert re.sub(r"\x1b\[[0-9;]*m", "", colored) == plain
    assert ebpfjit(text, FORCE_COLOR="1", NO_COLOR="1").stdout.decode() == plain
    found = json.loads(ebpfjit(text, "--json").stdout)
    assert found["program"]["name"] == "count"
    page = tmp_path / "page.html"
    assert ebpfjit(text, "--html", page).stdout == f"page written to {page}\n".encode()
    assert ebpfjit(text, "--html", "-").stdout.decode() == page.read_text() + "\n"
    assert ebpfjit(text, "--html", page, "--json").returncode == 2
    text.write_text("mov r0, 1\nja +5")
    refused = ebpfjit(text)
    assert refused.returncode == 1
    assert b"0: b7 00 00 00 01 00 00 00  mov64 r0, 0x1\n" in refused.stdout
    assert refused.stderr.startswith(f"ebpfjit: {text}: pc 1: ja: jump at pc 7 is outside".encode())
    assert refused.stderr.count(b"\n") == 1


def test_disassembly_goes_back() -> None:
    program = Program.from_assembly(LOOP, name="n", type="xdp")
    assert (program.name, program.type) == ("n", "xdp")
    for dialect in ("rbpf", "linux"):
        assert assembler.assemble(program.disassemble(dialect)) == program.code
    with pytest.raises(ValueError, match="dialect"):
        program.disassemble("intel")


def test_a_trace_has_the_registers_at_each_pc() -> None:
    trace = Program.from_assembly(LOOP).trace(b"abc")
    assert [step.pc for step in trace] == [0, 1, 2, 1, 2, 1, 2, 3, 4, 5]
    assert next(trace) == trace[0]
    assert trace[7].registers[0] == 3
    assert trace[8].registers[4] == ord("b")
    assert trace.error is None
    assert trace.result is not None
    text = str(trace)
    assert "jlt r0, 0x3, pc 1" in text
    assert re.search(r"3: ldxb r4, \[r1\+0x1\] +r4=0x62\n", text)
    assert text.endswith(f"; r0 = {trace.result.return_value} ({trace.result.return_value:#x})\n")


def test_a_trace_ends_where_the_run_does() -> None:
    trace = Program.from_assembly(LOOP).trace(b"")
    assert isinstance(trace.error, MemoryFault)
    assert (trace.result, trace[-1].pc) == (None, 3)
    assert str(trace).endswith(f"; MemoryFault: {trace.error}\n")
    assert len(Program.from_assembly("l: mov r0, 1\nja l").trace(limit=100)) == 100
    with pytest.raises(VerifierError):
        Program.from_assembly("ja +5").trace()


def test_a_trace_names_source_lines_and_programs() -> None:
    trace = load(FILTER).program("port_filter").trace(bytes(60))
    assert "; ./xdp_port_filter.c:40: void *data = (void *)(long)xdp->data;\n   1: ldxw r7" in str(trace)
    assert str(trace).endswith("XDP_PASS\n")
    assert trace[1].line is not None
    assert trace[1].line.line == 40
