"""`ebpfjit.fuzzing`: planted bugs are found, and made small; predicates; what a finding becomes."""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from ebpfjit import InputError, MemoryFault, Program, load
from ebpfjit.cli.app import main
from ebpfjit.fuzzing import Predicate, Report, fuzz
from ebpfjit.fuzzing.batches import Mutator
from ebpfjit.fuzzing.engines import Engines
from ebpfjit.fuzzing.samples import Inputs
from ebpfjit.fuzzing.shrink import shrunk
from ebpfjit.fuzzing.side import Side
from ebpfjit.fuzzing.supply import Supply, Turn
from ebpfjit.jit.gate import why_not
from tests.support import warm

BUGS = Path(__file__).parents[2] / "examples" / "bugs"
PORT_FILTER = BUGS.parent / "packets" / "xdp_port_filter.o"
MAGIC = """
    r2 = *(u32 *)(r1 + 0)
    r3 = *(u32 *)(r1 + 4)
    r0 = 2
    r4 = r2
    r4 += 20
    if r4 > r3 goto out
    r5 = *(u32 *)(r2 + 14)
    if r5 != 0x12345678 goto out
    r0 = *(u8 *)(r2 + 400)
out:
    exit
"""
OF_A_MARK = """
    r0 = *(u32 *)(r1 + 8)
    if r0 != 1 goto out
    r0 = *(u8 *)(r0 + 0)
out:
    exit
"""


def stop_at_the_first(report: Report) -> None:
    if report.findings:
        raise KeyboardInterrupt


def firewall(number: int) -> Program:
    return load(BUGS / f"firewall_{number}.o").program("firewall")


@pytest.mark.skipif(bool(why_not()), reason=f"minutes a bug, as each run is a call: {why_not()}")
@pytest.mark.parametrize("number", range(1, 11))
def test_planted_bugs_are_found_and_can_be_shown_again(number: int, tmp_path: Path) -> None:
    report = fuzz(
        firewall(number), check="action != XDP_ABORTED", against=firewall(0), runs=4_000_000, seed=number,
        progress=stop_at_the_first,
    )  # fmt: skip
    finding = report.findings[0]
    assert finding.kind == {1: "fault", 7: "fault", 10: "verdict"}.get(number, "difference")
    assert len(finding.packet) <= 100
    text = finding.pytest(str(BUGS / f"firewall_{number}.o"), "firewall", 1, str(BUGS / "firewall_0.o"))
    names: dict[str, object] = {}
    exec(compile(text, "a test", "exec"), names)
    (test,) = [each for name, each in names.items() if name.startswith("test_")]
    with pytest.raises((AssertionError, MemoryFault)):
        test()  # type: ignore[operator]
    assert len(finding.packets) == (1 if number != 8 else 256)


def test_fields_of_a_context_are_in_what_a_finding_becomes(monkeypatch: pytest.MonkeyPatch) -> None:
    program = Program.from_assembly(OF_A_MARK, name="marked", type="tc")
    report = fuzz(program, runs=60_000, seed=3, progress=stop_at_the_first)
    (finding,) = report.findings
    assert finding.contexts == [{"mark": 1}]
    monkeypatch.setattr("ebpfjit.load", lambda path: SimpleNamespace(program=lambda name: program, maps={}))
    names: dict[str, object] = {}
    exec(compile(finding.pytest("marked.o", "marked"), "a test", "exec"), names)
    (test,) = [each for name, each in names.items() if name.startswith("test_")]
    with pytest.raises(MemoryFault):
        test()  # type: ignore[operator]


def test_programs_in_arrays_are_in_what_a_finding_becomes() -> None:
    path = BUGS / "firewall_0.o"
    obj = load(path)
    text = "r2 = *(u32 *)(r1 + 4)\nr0 = *(u8 *)(r2 + 0)\nexit"
    obj.maps["handlers"][0] = Program.from_assembly(text, name="wrong", type="xdp")
    obj.maps["handlers"][1] = None
    obj.maps["handlers"][2] = obj.program("telnet")
    report = fuzz(obj.program("firewall"), runs=20_000, progress=stop_at_the_first)
    (finding,) = report.findings
    assert [(each.index, each.name, bool(each.code)) for each in finding.handlers] == [
        (0, "wrong", True), (2, "telnet", False), (1, "", False),
    ]  # fmt: skip
    names: dict[str, object] = {}
    exec(compile(finding.pytest(str(path), "firewall"), "a test", "exec"), names)
    (test,) = [each for name, each in names.items() if name.startswith("test_")]
    with pytest.raises(MemoryFault, match="pc 1: "):
        test()  # type: ignore[operator]
    assert json.loads(json.dumps(finding.to_json()))["handlers"][0]["name"] == "wrong"
    assert fuzz(firewall(0), runs=10).findings == []
    assert Side(firewall(0), 1000).handlers == []  # what the object has there needs nobody


def test_programs_of_another_file_in_arrays_are_loaded_from_there() -> None:
    path, other = BUGS / "firewall_0.o", BUGS.parent / "packets" / "load_balancer.o"
    obj = load(path)
    obj.maps["handlers"][0] = load(other).program("balance_tcp")
    obj.maps["handlers"][1] = load(BUGS / "firewall_1.o").program("tftp")  # the same types, in another file
    report = fuzz(
        obj.program("firewall"), check="action != XDP_ABORTED", runs=40_000, progress=stop_at_the_first
    )
    (finding,) = report.findings
    assert [(each.index, each.name, each.file) for each in finding.handlers] == [
        (0, "balance_tcp", str(other)), (1, "tftp", str(BUGS / "firewall_1.o")),
    ]  # fmt: skip
    names: dict[str, object] = {}
    exec(compile(finding.pytest(str(path), "firewall"), "a test", "exec"), names)
    (test,) = [each for name, each in names.items() if name.startswith("test_")]
    with pytest.raises(AssertionError):
        test()  # type: ignore[operator]


def test_the_right_version_has_no_findings() -> None:
    program = firewall(0)
    report = fuzz(program, check="action != XDP_ABORTED", against=firewall(0), runs=60_000, seed=5)
    assert report.findings == []
    assert report.reached > 0.9 * report.instructions
    assert report.worst_cost > 0
    assert not any(len(map_) for map_ in program.maps if map_.definition.name in ("ports", "sources"))


def test_comparisons_steer_bytes() -> None:
    report = fuzz(Program.from_assembly(MAGIC, name="magic", type="xdp"), runs=20_000)
    (finding,) = report.findings
    assert (finding.fault, finding.pc) == ("MemoryFault", 8)
    assert finding.packet[14:18] == b"\x78\x56\x34\x12"
    assert len(finding.packet) == 20
    assert finding.packet[:14] == bytes(14)


@pytest.mark.parametrize("name", ["fresh", "batch"])
def test_an_error_in_making_inputs_ends_the_run_and_keeps_what_it_found(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    made, calls = getattr(Supply, name), itertools.count()

    def make(*given: Any) -> Any:
        if next(calls) > (20 if name == "batch" else 0):
            raise IndexError("no layer\nat all")
        return made(*given)

    monkeypatch.setattr(Supply, name, make)
    program = Program.from_assembly("r0 = 0\nr0 = *(u8 *)(r0 + 0)\nexit", name="null", type="xdp")
    with pytest.raises(IndexError):  # as the tests have it
        fuzz(program, runs=1_000_000)
    monkeypatch.delenv("EBPFJIT_FAILURES")
    calls = itertools.count()
    report = fuzz(program, runs=1_000_000)
    assert [finding.fault for finding in report.findings] == ["MemoryFault"]
    assert report.failure == "inputs could not be made: IndexError: no layer at all"
    calls = itertools.count()
    line = ["ebpfjit", "fuzz", str(BUGS / "firewall_0.o"), "--program", "firewall", "--inputs", "1000000"]
    monkeypatch.setattr(sys, "argv", line)
    assert main() == 1
    said = capsys.readouterr()
    assert said.err == f"ebpfjit fuzz: {report.failure}; this is what was found so far\n"
    assert "0 findings" in said.out


def test_a_loop_without_end_is_a_finding() -> None:
    text = "r0 = 0\nagain:\nr0 += 1\nif r0 != 0 goto again\nexit"
    report = fuzz(Program.from_assembly(text, type="xdp"), limit=1000, runs=200)
    assert [(each.fault, each.packet) for each in report.findings] == [("BudgetExhausted", bytes(14))]


def test_lengths_in_headers_are_made_small_with_what_they_count() -> None:
    def has_options(data: bytes) -> bool:  # an IPv4 header of more than 20 bytes, all there, and 4 behind it
        return len(data) >= 19 and data[14] >> 4 == 4 and data[14] & 15 > 5 and len(data) >= end_of(data) + 4

    def end_of(data: bytes) -> int:
        return 14 + 4 * (data[14] & 15)

    assert shrunk(bytes(14) + b"\x4f" + b"\7" * 80, has_options, 14) == bytes(14) + b"\x46" + bytes(27)


def test_what_brings_nothing_new_has_its_turn_less_often() -> None:
    turn = Turn(4, 16)
    came = []
    for number in range(400):
        if turn.has_come(number):
            came.append(number)
            turn.brought(new=number >= 300)
    gaps = [after - before for before, after in itertools.pairwise(came)]
    assert gaps[:8] == [4] * 8
    assert gaps[8:16] == [8] * 8
    assert max(gaps) == 16
    assert gaps[-1] == 4


def test_without_numpy_packets_are_changed_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "numpy", None)
    inputs = Inputs(Program.from_assembly("exit", type="xdp"))
    batch = Mutator(1, [b"\0\5"], inputs).batch([bytes(20), b"\1" * 60], 50)
    packets = [batch.packet(index) for index in range(len(batch))]
    assert len(set(packets)) > 40
    assert min(map(len, packets)) >= 14


def test_predicates() -> None:
    values = {"action": "XDP_DROP", "return_value": 1, "packet": b"\1\2", "data": b"\1", "maps": {"m": [7]}}
    for text in (
        "action == XDP_DROP", "action in (XDP_DROP, XDP_PASS)", "not return_value > 1 and len(packet) == 2",
        "packet[0] == 1 and data[:1] == b'\\x01'", "maps['m'][0] + 1 == 8", "XDP_TX if len(data) else 0",
    ):  # fmt: skip
        assert Predicate(text).holds(values), text
    assert not Predicate("action != XDP_DROP").holds(values)
    for wrong in (
        "", "action ==", "acton == 1", "__import__('os')", "packet.hex()", "action == 1.5", "(lambda: 1)()",
        "[x for x in packet]", "f'{packet}'", "action := 1", "2 ** 9 == 512", "(" * 300, "open(packet)", "\0",
        "action != XDP_ABROTED", "action != ABORTED",
        "u16(packet)", "sum(*maps)", "sum == 3", "len(packet, key=1)", "(len)(packet)(1)",
    ):  # fmt: skip
        with pytest.raises(InputError, match="the predicate"):
            Predicate(wrong)
    assert Predicate("u16(packet, 0) == 0x102 and sum(maps['m']) == 7 and any((0, len(data)))").holds(values)
    for raises in ("packet[9] == 1", "action < 5", "return_value // 0", "maps['n']", "u32(packet, 0) == 1"):
        with pytest.raises(InputError, match="cannot be told"):
            Predicate(raises).holds(values)


@pytest.mark.parametrize(
    ("type_", "said"),
    [("tc", "no verdict of tc programs; they have TC_ACT_OK"), (None, "without a type; they have none")],
)
def test_a_predicate_about_a_verdict_that_never_is_is_refused(type_: str | None, said: str) -> None:
    program = Program.from_assembly("mov r0, 2\nexit", type=type_)
    with pytest.raises(InputError, match=f"XDP_DROP is .*{said}"):
        fuzz(program, check="action != XDP_DROP", runs=10)


@pytest.mark.parametrize("place", [".", "absent/test_it.py"])
def test_a_place_where_no_tests_can_be_written_is_told_before_the_run(tmp_path: Path, place: str) -> None:
    source = tmp_path / "loop.s"
    source.write_text("mov r0, 0\nexit\n")
    found = command(source, "--seconds", 3600, "--tests", tmp_path / place)
    assert found.returncode == 2
    assert "in a folder that is there" in " ".join(found.stderr.split())


def test_a_predicate_that_cannot_be_told_names_the_packet() -> None:
    with pytest.raises(InputError, match=r"cannot be told: IndexError: .*; packet [0-9a-f]+"):
        fuzz(firewall(0), check="packet[5000] == 1", runs=10)


def test_what_cannot_be_is_refused() -> None:
    with pytest.raises(InputError, match="other version"):
        fuzz(firewall(0), against=Program.from_assembly("r0 = 0\nexit", type="tc"), runs=1)
    for type_, sizes, words in (
        ("xdp", (10, 20), "from 14"), ("xdp", (60, 40), "60 to 40"), ("xdp", (60, 10**9), "to 65536 bytes"),
        ("sock_ops", (8, 8), "sock_ops programs get"),
    ):  # fmt: skip
        with pytest.raises(InputError, match=words):
            fuzz(Program.from_assembly("r0 = 0\nexit", type=type_), runs=1, sizes=sizes)
    with pytest.raises(ValueError, match="limit"):
        fuzz(firewall(0), runs=1, limit=-1)


def command(*arguments: object) -> subprocess.CompletedProcess[str]:
    line = [sys.executable, "-m", "ebpfjit", "fuzz", *map(str, arguments)]
    return warm.run(line, text=True)


def test_the_command(tmp_path: Path) -> None:
    tests, corpus = tmp_path / "test_found.py", tmp_path / "corpus"
    found = command(
        BUGS / "firewall_1.o",
        "--program",
        "firewall",
        "--inputs",
        20_000,
        "--tests",
        tests,
        "--corpus",
        corpus,
    )
    assert found.returncode == 1, found.stderr
    assert found.stdout.startswith("fault: pc ")
    assert "Ether(" in found.stdout
    assert "raises MemoryFault" in tests.read_text(encoding="utf-8")
    assert [*corpus.glob("*.bin")]
    said = command(BUGS / "firewall_0.o", "--program", "firewall", "--inputs", 2_000, "--json")
    assert said.returncode == 0
    assert json.loads(said.stdout)["findings"] == []
    for wrong, words in (
        (("--check", "action =="), "the predicate"),
        (("--until", "soon"), "--until takes a time"),
        (("--against", tmp_path / "no.o"), "no.o"),
        (("--pcap", PORT_FILTER), PORT_FILTER.name),
    ):
        refused = command(BUGS / "firewall_0.o", "--program", "firewall", *wrong)
        assert refused.returncode in (1, 2), wrong
        assert words in refused.stderr
        assert "Traceback" not in refused.stderr


ADDRESS = """
    r2 = *(u32 *)(r1 + 24)
    r0 = 1
    if r2 != 0x5000 goto out
    r3 = *(u32 *)(r1 + 4)
    r3 >>= 8
    if r3 != 0x0100 goto out
    r0 = *(u8 *)(r0 + 0)
out:
    exit
"""
SOCKET_OPTION = """
    r2 = *(u64 *)(r1 + 8)
    r3 = *(u64 *)(r1 + 16)
    r0 = 1
    r4 = r2
    r4 += 4
    if r4 > r3 goto out
    r5 = *(u32 *)(r2 + 0)
    if r5 != 0x1234567 goto out
    r0 = *(u8 *)(r2 + 4)
out:
    exit
"""
SYSCTL = """
    r2 = r10
    r2 += -64
    r3 = 64
    r4 = 0
    call 101
    r3 = *(u8 *)(r10 - 64)
    r0 = 1
    if r3 != 0x7a goto out
    r0 = *(u8 *)(r0 + 0)
out:
    exit
"""
MEMORY = """
    r0 = *(u8 *)(r1 + 0)
    if r0 != 0x42 goto out
    r2 = *(u32 *)(r1 + 4)
    if r2 != 0x12345678 goto out
    r0 = *(u8 *)(r0 + 0)
out:
    exit
"""


@pytest.mark.parametrize(
    ("type_", "text", "data", "context"),
    [
        ("cgroup_sock_addr", ADDRESS, bytes(5) + b"\0\1\0" + bytes(17) + b"\x50" + bytes(46), {}),
        ("cgroup_sockopt", SOCKET_OPTION, bytes(40), {"optval": b"\x67\x45\x23\x01"}),
        ("cgroup_sysctl", SYSCTL, bytes(8), None),
        ("sk_msg", OF_A_MARK.replace("+ 8", "+ 20"), b"", {"remote_ip4": 1}),
    ],
)
def test_contexts_are_given_what_leads_to_a_fault(
    type_: str, text: str, data: bytes, context: dict[str, object] | None
) -> None:
    program = Program.from_assembly(text, type=type_)
    report = fuzz(program, runs=6_000, progress=stop_at_the_first)
    (finding,) = report.findings
    assert finding.packet == data
    assert finding.scapy == ""
    assert report.refused == 0
    if context is None:
        assert finding.context["name"].startswith(b"z")
    else:
        assert finding.context == context
    with pytest.raises(MemoryFault):
        program.run(finding.packet, context=finding.context or None)


def test_memory_of_some_sizes() -> None:
    program = Program.from_assembly(MEMORY, name="reads")
    report = fuzz(program, runs=8_000, sizes=(8, 40))
    (finding,) = report.findings
    assert (finding.pc, finding.packet) == (4, b"\x42\0\0\0\x78\x56\x34\x12")
    assert {len(each) for each in report.kept} <= {*range(8, 41)}
    shortest = fuzz(program, runs=3_000).findings[0]
    assert (shortest.pc, shortest.packet) == (0, b"")
    by_type = load(Path(__file__).parents[1] / "elf" / "columns.o").program("weigh")
    assert fuzz(by_type, runs=500).findings == []  # its memory is the struct that it takes


def test_a_file_of_several_findings(tmp_path: Path) -> None:
    source, tests = tmp_path / "reads.s", tmp_path / "test_reads.py"
    source.write_text(MEMORY)
    found = command(source, "--inputs", 6_000, "--limit", 50, "--tests", tests)
    assert (found.returncode, found.stderr) == (1, "")
    names: dict[str, object] = {}
    exec(compile(tests.read_text(), "a test", "exec"), names)
    written = [each for name, each in names.items() if name.startswith("test_")]
    assert len(written) == 3
    places = set()
    for test in written:
        with pytest.raises(MemoryFault) as raised:
            test()  # type: ignore[operator]
        places.add(raised.value.pc)
    assert places == {0, 2, 4}


def test_engines_that_differ_are_a_finding(monkeypatch: pytest.MonkeyPatch) -> None:
    real = Engines._left

    def left(self: Engines, engine: str, *given: Any) -> dict[str, Any]:
        found = real(self, engine, *given)  # type: ignore[arg-type]
        return found if engine == "interpreter" or given[-1][-1].data[14:15] < b"\x40" else {"result": 7}

    monkeypatch.setattr(Engines, "_left", left)
    monkeypatch.setattr(Engines, "_is_confirmed", lambda *_: True)
    report = fuzz(firewall(0), runs=3_000, compare_engines=True)
    (finding,) = report.findings
    assert finding.kind == "engines"
    assert "7 (jit)" in finding.text
    assert finding.packet[:14] == bytes(14)
    assert 'engine="jit"' in finding.pytest("x.o", "firewall").replace("'", '"')


@pytest.mark.parametrize(
    ("file", "name", "check", "count"),
    [
        ("xdp_port_filter.o", "port_filter", 'maps["counters"][2]["packets"] < 3', 3),
        ("configurable.o", "configurable", 'globals["dropped"] < 2', 2),
        ("rate_limiter.o", "limit", 'sum(maps["totals"][0]) < 2 or len(maps["buckets"]) < 2', 2),
    ],
)
def test_predicates_over_maps_and_variables(
    file: str, name: str, check: str, count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = PORT_FILTER.with_name(file)
    report = fuzz(load(path).program(name), check=check, runs=30_000, progress=stop_at_the_first)
    (finding,) = report.findings
    assert (len(finding.packets), finding.maps, finding.cleared) == (count, {}, [])
    names: dict[str, object] = {}
    exec(compile(finding.pytest(str(path), name), "a test", "exec"), names)
    (test,) = [each for each_name, each in names.items() if each_name.startswith("test_")]
    with pytest.raises(AssertionError):
        test()  # type: ignore[operator]


def test_maps_that_have_to_be_empty_are_made_so(monkeypatch: pytest.MonkeyPatch) -> None:
    obj = load(PORT_FILTER)
    obj.maps["blocked"][0] = 1
    udp = "len(packet) > 41 and u16(packet, 12) == 0x800 and u8(packet, 14) == 0x45 and u8(packet, 23) == 17"
    check = f"not ({udp} and u16(packet, 36) == u16(packet, 20) & 0x3fff == 0 and action == XDP_PASS)"
    packet = bytes(12) + b"\x08\0\x45" + bytes(8) + b"\x11" + bytes(30)
    program = obj.program("port_filter")
    report = fuzz(program, check=check, packets=[packet], runs=100_000, progress=stop_at_the_first)
    (finding,) = report.findings
    assert (finding.cleared, finding.maps) == (["blocked"], {})
    text = finding.pytest("filter.o", "port_filter", before={"blocked": [(bytes(2), bytes([1, 0, 0, 0]))]})
    assert text.index(".clear()") > text.index("bytes.fromhex('01")
    names: dict[str, object] = {}
    monkeypatch.setattr("ebpfjit.load", lambda path: obj)
    exec(compile(finding.pytest("filter.o", "port_filter"), "a test", "exec"), names)
    with pytest.raises(AssertionError):
        names["test_port_filter_verdict_1"]()  # type: ignore[operator]


def test_what_a_predicate_names_and_is_not_there() -> None:
    program = load(PORT_FILTER).program("port_filter")
    for check, words in (
        ('maps["flows"][1] == 2', "no map 'flows'; there are: 'counters', 'blocked'"),
        ('globals["drops"] == 2', "no variable 'drops'; there is none at all"),
    ):
        with pytest.raises(InputError, match=words):
            fuzz(program, check=check, runs=10)


def test_without_machine_code_the_interpreter_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ebpfjit.fuzzing.side.best_engine", lambda: "interpreter")
    report = fuzz(Program.from_assembly(MAGIC, name="magic", type="xdp"), runs=1_500, compare_engines=True)
    (finding,) = report.findings
    assert (finding.fault, finding.pc, len(finding.packet)) == ("MemoryFault", 8, 20)
