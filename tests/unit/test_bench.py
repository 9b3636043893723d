"""Benchmarks: what is measured is complete and has its shape. No test looks at how long something took."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from ebpfjit.assembler import assemble
from ebpfjit.bench import calls, compiling, contest, llvm, maps, native, payloads, tiers
from ebpfjit.bench.benchmark import SHORT, Bars, Benchmark, Plan, Section, Step
from ebpfjit.bench.catalog import BENCHMARKS, choose
from ebpfjit.bench.compiling import program
from ebpfjit.bench.holdout import HELD_OUT
from ebpfjit.bench.inputs import KERNELS, SOURCES, Kernel
from ebpfjit.bench.measure import BenchError, Rounds, geomean, in_turn, median, timed
from ebpfjit.bench.report import draw, run
from ebpfjit.elf.loader import load
from ebpfjit.jit.timing import STAGES
from ebpfjit.program import Program, decode
from ebpfjit.vm import EbpfVmRaw
from tests.support import warm

ROOT = Path(__file__).resolve().parents[2]
TINY = replace(SHORT, rounds=1, kernels=("gcd",), packets=100, entries=1024, sizes=(100,))


def bench(*arguments: str | Path, environment: Mapping[str, str] | None = None, code: str = "") -> Any:
    """Run `ebpfjit bench`; `code` goes before it."""
    main = f"{code}\nimport sys; from ebpfjit.cli.app import main; sys.exit(main())"
    command = [sys.executable, "-c", main, "bench", *map(str, arguments)]
    return warm.run(command, text=True, cwd=ROOT, env=environment)


# the clock


def test_ways_take_turns_and_each_round_starts_with_another() -> None:
    order: list[str] = []

    def way(name: str) -> Any:
        return lambda: float(order.append(name) or len(order))

    times = in_turn({name: way(name) for name in "abc"}, Rounds(3))
    assert "".join(order) == "abcbcacab"
    assert times == {"a": [1, 6, 8], "b": [2, 4, 9], "c": [3, 5, 7]}


def test_rounds_are_counted_or_fit_in_a_time_with_one_at_least() -> None:
    assert len(list(Rounds(4))) == 4
    assert len(list(Rounds(4, seconds=-1.0))) == 1


def test_preparing_is_not_in_the_time_and_the_best_of_some_counts() -> None:
    clock = [0]
    costs = iter((70, 30, 50))

    def spend(nanoseconds: int) -> None:
        clock[0] += nanoseconds

    way = timed(
        lambda: spend(next(costs)), 10, prepare=lambda: spend(1000), best_of=3, clock=lambda: clock[0]
    )
    assert way() == 3.0


def test_medians_and_means() -> None:
    assert median([3, 1, 2]) == 2
    assert median(None) != median(None)  # NaN
    assert geomean([2, 8]) == pytest.approx(4)


# kernels, and what native code needs


def test_every_kernel_has_its_source_and_object() -> None:
    for kernels, folder in ((KERNELS, SOURCES), (HELD_OUT, SOURCES / "holdout")):
        names = {kernel.name for kernel in kernels}
        assert {path.stem for path in folder.glob("*.c")} == names
        assert {path.stem for path in folder.glob("*.o")} == names


@pytest.mark.parametrize("kernel", HELD_OUT, ids=lambda kernel: kernel.name)
def test_engines_agree_on_the_kernels_that_nobody_tuned_for(
    kernel: Kernel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(native, "compilers", dict)
    space = contest.Workspace(kernel.memory(kernel.small))
    contest.Contest(kernel, leads=(0,)).check(space, interpret=True)
    assert space.buffer[:] != kernel.memory(kernel.small) or kernel.name in (
        "tokenizer",
        "regex",
        "levenshtein",
    )


@pytest.mark.parametrize("engine", contest.OURS)
@pytest.mark.parametrize("lead", contest.LEADS)
def test_code_does_the_same_elsewhere(engine: str, lead: int) -> None:
    """With calls, faults' places and loops: where the code lies is nothing to what it does."""
    (kernel,) = (kernel for kernel in KERNELS if kernel.name == "shell_sort")
    space = contest.Workspace(kernel.memory(kernel.small))
    space.restore()
    placed = contest.compile_ours(load(kernel.object).program("kernel"), engine, lead)
    result, memory = placed(space), space.buffer[:]
    space.restore()
    assert EbpfVmRaw(load(kernel.object).program("kernel")).execute_program(space.buffer) == result
    assert memory == space.buffer[:]


@pytest.mark.parametrize("name", payloads.PROGRAMS)
def test_packet_programs_do_the_same_on_all_engines(name: str) -> None:
    program = load(payloads.FOLDER / f"{name}.o").program("program")
    packet = payloads.PACKET[:180]
    results = {program.run(packet, engine="interpreter").return_value}
    for lead, options in enumerate(payloads.OURS.values()):
        results.add(payloads.compiled(program, options, 16 * lead)(packet))
    assert len(results) == 1


def test_packet_programs_are_timed_beside_what_there_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each has its source; without clang its column is left out."""
    for suffix in ("c", "o"):
        assert {path.stem for path in payloads.FOLDER.glob(f"*.{suffix}")} == {*payloads.PROGRAMS}
    monkeypatch.setattr(payloads, "PROGRAMS", ("options",))
    for compilers in ({}, native.compilers()):
        monkeypatch.setattr(native, "compilers", lambda compilers=compilers: compilers)
        (section,) = run(choose(["payloads"]), TINY, lambda *step: None).sections
        assert ("clang, ns" in section.headings) is ("clang" in compilers) is not section.remarks
        assert [len(row) for row in section.rows] == 2 * [len(section.headings)]


def test_llvm_makes_of_the_same_bytecode_what_does_the_same() -> None:
    pytest.importorskip("llvmlite", reason="the peer of a benchmark, of the extra `bench`")
    source = """
        r0 = r1
        r3 = *(u32 *)(r1 + 4)
        r3 s>>= 3
        w3 s%= -7
        r0 = 5
        r0 /= r2
        w0 += w3
        r1 = r0
        call f
        r0 = be32 r0
        exit
        f: r2 = -3
        *(u64 *)(r10 - 8) = r1
        r0 = *(s16 *)(r10 - 8)
        if w0 s< w2 goto +1
        r0 *= r2
        exit
    """
    code = assemble(source)
    space = contest.Workspace(bytes(range(1, 65)) * 64)
    space.restore()
    expected = EbpfVmRaw(code).execute_program(space.buffer)
    assert llvm.compile_program(Program.from_bytes(code), 16)(space) == expected
    with pytest.raises(BenchError, match="kernels have none"):
        llvm.compile_program(Program.from_bytes(assemble("call 1\nexit")), 0)


def test_times_are_net_and_the_median_over_places() -> None:
    rounds = {"gcc": [[10.0, 12.0, 11.0], [20.0, 20.0, 20.0], [13.0, 13.0, 13.0]], "checked": [[25.0]] * 3}
    timing = contest.Timing("one", "", 8, rounds, {"gcc": [3.0], "checked": [5.0]})
    assert timing.median("gcc") == 10
    assert timing.ratio("checked/gcc") == 2
    assert timing.ratio("checked/clang") != timing.ratio("checked/clang")  # NaN


def test_engines_that_disagree_end_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(native, "compilers", dict)
    (kernel,) = (kernel for kernel in KERNELS if kernel.name == "gcd")
    found = contest.Contest(kernel)
    seven = Program.from_bytes(bytes.fromhex("b700000007000000 9500000000000000"))
    found.placed["checked"] = [contest.compile_ours(seven, "checked", 0)]
    with pytest.raises(BenchError, match=r"gcd on .* unchecked returns 0x.*, checked 0x7; the memory is"):
        found.check(contest.Workspace(kernel.memory(kernel.small)), interpret=False)


def test_a_compiler_that_does_not_work_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake = tmp_path / "gcc"
    fake.write_text("#!/bin/sh\necho no licence >&2\nexit 1\n")
    fake.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    native.compilers.cache_clear()
    try:
        assert not native.compilers()
        with pytest.raises(BenchError, match="gcc does not compile: no licence"):
            native.load("int x;", compiler="gcc")
        assert native.left_out() == ["Without columns of gcc and clang: not in PATH, or not working."]
    finally:
        native.compilers.cache_clear()


def test_compiled_programs_have_about_their_size_and_are_always_the_same() -> None:
    assert program(1000, seed=1) == program(1000, seed=1) != program(1000, seed=2)
    assert 900 < len(decode(program(1000, seed=1))) < 1300


def test_a_call_with_nothing_to_compare_it_with() -> None:
    section = calls.section("calls", "", [calls.Comparison("fn", [2.0, 4.0], "", (), None)])
    assert section.rows == (("fn", "3.0", "", "", "", ""),)
    assert section.bars.series == {"ebpfjit": (3.0,)}
    assert section.data["comparisons"][0]["other_ns"] == []


def test_operations_on_maps_are_what_is_left_of_two_loops() -> None:
    case = maps.Case(maps.MapType.HASH, 4, 16, "lookup")
    rounds = {"ours": [30.0, 20.0], "ours, nothing": [5.0, 7.0]}
    rounds |= {"unlocked": [30.0, 35.0], "unlocked, nothing": [6.0, 5.0]}
    timing = maps.Timing(case, rounds)
    assert timing.cost("ours") == 15.0
    section = maps.section([timing, maps.FromPython({"array: m[key]": 1.0})])
    assert section.rows == (("hash, 16 entries, keys of 4 bytes: lookup", "15.0", "25.0", "1.67"),)


# runs


def test_all_benchmarks_have_sections(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(native, "compilers", dict)  # they are for tests of the command
    plan = replace(TINY, processes=1)
    titles: list[str] = []
    report = run(
        choose(["calls", "helpers", "batch", "maps", "kernels"]), plan, lambda *step: titles.append(step[2])
    )
    assert [section.name for section in report.sections] == ["calls", "helpers", "batch", "maps", "kernels"]
    assert titles[-2:] == ["kernels: gcd", ""]
    assert not report.interrupted
    for section in report.sections:
        assert {len(row) for row in section.rows} == {len(section.headings)} == {len(section.align)}
        assert {len(values) for values in section.bars.series.values()} == {len(section.bars.labels)}
        assert draw(section).row_count == len(section.rows)
    assert json.loads(json.dumps(report.as_json(), allow_nan=False))["benchmarks"]["maps"]["operations"]


def test_compiling_is_measured_by_stage(monkeypatch: pytest.MonkeyPatch) -> None:
    def forked(command: list[str], *, env: Mapping[str, str], **_: object) -> Any:
        return warm.run(command, text=True, env=env)

    monkeypatch.setattr(compiling, "subprocess", SimpleNamespace(run=forked))
    report = run(choose(["compile"]), replace(TINY, processes=1))
    found = report.as_json()["benchmarks"]["compile"]
    assert [one["mode"] for one in found["stages"]] == 2 * ["cold", "other", "warm"]
    assert [one["build"] for one in found["stages"]] == 3 * ["baseline"] + 3 * ["optimised"]
    for one in found["stages"]:
        assert list(one["stages"]) == list(STAGES)
        assert one["total"] == pytest.approx(sum(one["stages"].values()))
        assert one["keystone_calls"] <= 1
    assert set(found["again"][0]) == {"compile", "optimize", "load", "hit"}
    assert min(found["kept_bytes"][0].values()) > 0
    assert "ebpfjit run gcd.o" in found["processes_ms"][0]


def test_tiers_are_held_against_either() -> None:
    found = run(choose(["tiers"]), replace(TINY, kernels=("xtea",))).as_json()["benchmarks"]["tiers"][
        "totals"
    ]
    assert [one["calls"] for one in found] == list(tiers.CALLS)
    for one in found:
        assert set(one["milliseconds"]) == {"never", "tiers", "at once"}
        assert min(one["milliseconds"].values()) > 0


def _section(found: Any) -> Section:
    return Section("one", "One", ("",), "l", tuple(found), Bars("ns", (), {}), {"found": list(found)})


def test_interrupted_runs_keep_what_was_measured() -> None:
    def interrupt(rounds: Rounds) -> list[Any]:
        raise KeyboardInterrupt

    steps = [Step("first", lambda rounds: [("1",)]), Step("second", interrupt)]
    whole = Benchmark("one", "", lambda plan: steps, _section)
    never = Benchmark("two", "", lambda plan: steps, _section)
    before = signal.getsignal(signal.SIGINT)
    report = run([whole, never], TINY)
    assert report.interrupted
    assert [section.rows for section in report.sections] == [(("1",),)]
    assert signal.getsignal(signal.SIGINT) is before


def test_ctrl_c_waits_for_the_measurement_to_end() -> None:
    done = []

    def way() -> float:
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(0)  # a place where Python looks for signals
        done.append(1)
        return 1.0

    steps = [Step("first", lambda rounds: [in_turn({"a": way, "b": way}, rounds)])]
    report = run([Benchmark("one", "", lambda plan: steps, _section)], TINY)
    assert report.interrupted
    assert len(done) == 1


def test_seconds_are_shared_by_the_steps() -> None:
    seen: list[Rounds] = []
    steps = [Step(name, lambda rounds: seen.append(rounds) or [("1",)]) for name in "abcd"]
    run([Benchmark("one", "", lambda plan: steps, _section)], Plan(seconds=1000.0))
    shares = [rounds.seconds for rounds in seen if rounds.seconds is not None]
    assert len(shares) == 4
    assert 200 < shares[0] < 250  # a fourth of what is left when it starts, and so on
    assert shares[0] < shares[1] < shares[2] < shares[3] < 1000


# the command


def test_table() -> None:
    found = bench("calls", "--rounds", "1")
    assert found.returncode == 0, found.stderr
    assert "fn(bytes)" in found.stdout
    assert "execute_program_jit(bytearray)" in found.stdout
    assert "keystone 0." in found.stdout
    assert found.stderr == ""


def test_json() -> None:
    found = bench("calls", "kernels", "--kernels", "gcd,xtea", "--rounds", "2", "--json")
    assert found.returncode == 0, found.stderr
    report = json.loads(found.stdout)
    assert list(report) == ["machine", "interrupted", "benchmarks"]
    assert {"date", "cpu", "python", "ebpfjit", "keystone", "compilers"} <= set(report["machine"])
    comparisons = report["benchmarks"]["calls"]["comparisons"]
    assert {len(one["ns"]) for one in comparisons} == {2}
    assert all(len(one["other_ns"]) == 2 and one["ratio"] > 0 for one in comparisons if one["other"])
    kernels = report["benchmarks"]["kernels"]
    assert [one["kernel"] for one in kernels["kernels"]] == ["xtea", "gcd"]
    assert {"unchecked", "checked"} <= set(kernels["kernels"][0]["median_ns"])
    assert kernels["summary"]["geomean"]["checked/unchecked"] > 0


def test_without_a_compiler() -> None:
    found = bench("calls", "batch", "kernels", "--kernels", "gcd", "--rounds", "1", environment={"PATH": ""})
    assert found.returncode == 0, found.stderr
    assert "Without columns of gcc and clang: not in PATH" in found.stdout
    assert "Without the C extension" in found.stdout
    assert "fn(bytes)" in found.stdout
    assert "Without the C loop" in found.stdout
    assert "checked/" in found.stdout
    assert found.stdout.count("gcc") == 1


def test_plot(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    file = tmp_path / "bars.svg"
    found = bench("calls", "kernels", "--kernels", "gcd", "--rounds", "1", "--plot", file)
    assert found.returncode == 0, found.stderr
    assert "<svg" in file.read_text()


def test_plot_of_stacked_bars_and_gaps(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    from ebpfjit.bench import plot

    gap = Bars("ns", ("a", "b"), {"x": (1.0, 2.0), "y": (float("nan"), 1234.0)})
    stack = Bars("us", ("a",), {"x": (1.0,), "y": (2.0,)}, stacked=True)
    sections = [Section("s", "S", (), "", (), bars, {}) for bars in (gap, stack, Bars("", (), {}))]
    plot.write(sections, tmp_path / "bars.svg")
    assert "<svg" in (tmp_path / "bars.svg").read_text()


NO_MATPLOTLIB = (
    "import importlib.util as u; find = u.find_spec\n"
    "u.find_spec = lambda name, *more: None if name == 'matplotlib' else find(name, *more)"
)


def _refused(found: Any) -> str:
    assert found.returncode == 1, found.stderr
    assert found.stdout == ""
    assert found.stderr.count("\n") == 1
    message: str = found.stderr
    return message


def test_without_matplotlib_nothing_is_measured(tmp_path: Path) -> None:
    found = bench("--plot", tmp_path / "bars.svg", code=NO_MATPLOTLIB)
    assert _refused(found) == "ebpfjit: --plot needs matplotlib: pip install 'ebpfjit[plot]'\n"


WITH_MATPLOTLIB = "import importlib.util as u; u.find_spec = lambda name, *more: object()"


@pytest.mark.parametrize(
    ("file", "message"),
    [
        ("nowhere/bars.svg", "No such file or directory"),
        ("bars.txt", "a plot is a file whose name ends in .svg"),
        ("folder.svg", "Is a directory"),
    ],
)
def test_a_plot_that_cannot_be_written_is_refused_at_once(tmp_path: Path, file: str, message: str) -> None:
    (tmp_path / "folder.svg").mkdir()
    assert message in _refused(bench("--plot", tmp_path / file, code=WITH_MATPLOTLIB))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["folder.svg"]


def test_unknown_kernel() -> None:
    assert "no kernel 'nope'; there are: fnv1a, " in _refused(bench("kernels", "--kernels", "gcd,nope"))


@pytest.mark.parametrize(
    "arguments", [("nope",), ("--rounds", "0"), ("--seconds", "0"), ("--rounds", "1", "--seconds", "1")]
)
def test_wrong_usage(arguments: tuple[str, ...]) -> None:
    found = bench(*arguments)
    assert found.returncode == 2
    assert "Error: " in found.stderr


def test_the_help_names_every_benchmark() -> None:
    text = " ".join(bench("--help").stdout.split())
    assert ", ".join(BENCHMARKS) in text


CTRL_C = """
import os, signal
from ebpfjit.bench import calls
real = calls.compare_threads
def interrupted(rounds):
    os.kill(os.getpid(), signal.SIGINT)
    return real(rounds)
calls.compare_threads = interrupted
"""


def test_ctrl_c_prints_what_was_measured() -> None:
    found = bench("helpers", "threads", "--rounds", "1", code=CTRL_C)
    assert found.returncode == 130
    assert found.stderr == ""
    assert "helper in Python, 1000 calls" in found.stdout
    assert "two threads" not in found.stdout
    assert "interrupted" in found.stdout
