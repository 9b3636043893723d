"""Coverage: what is counted is what the trace shows, on every engine; reports, files, processes."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from contextlib import suppress
from functools import partial
from pathlib import Path
from xml.etree import ElementTree

import pytest
from support.counting import came_to_its_end, counted, traced

from ebpfjit import EbpfError, ExecutionError, InputError, Program, capture, load
from ebpfjit.analysis.accesses import Promises
from ebpfjit.capture import routine
from ebpfjit.coverage import Coverage, lcov, processes, text, write
from ebpfjit.difftest import engines, optimized, sources
from ebpfjit.interpreter import interpret
from ebpfjit.literals import named_engine
from ebpfjit.runtime import counters

EXAMPLES = sorted(Path(__file__).parents[2].glob("examples/packets/*.o"))
PORT_FILTER = Path(__file__).parents[2] / "examples/packets/xdp_port_filter.o"
PROGRAMS = 1000 if os.environ.get("EBPFJIT_WHOLE") else 60
NAMES = (
    "valid",
    "pointers",
    "sweeps",
    "rounds",
    "idioms",
    "paths",
    "calls",
    "spills",
    "arrays",
    "rows",
    "classic",
)


@pytest.fixture
def counting():
    counters.start()
    yield
    counters.stop()


@pytest.mark.parametrize("name", NAMES)
def test_counts_are_those_of_the_trace_on_every_engine(name: str, counting: None) -> None:
    compared = 0
    for number in range(PROGRAMS // len(NAMES) + 1):
        case = sources.SOURCES[name].source(random.Random(f"{name}{number}"), ())
        try:
            verified = engines.prepared(case)
        except EbpfError:
            continue
        wanted, outcomes = traced(case, verified)
        runs = {
            "interpreter": engines.on_interpreter(case, verified),
            "jit": engines.on_jit(case, verified),
            "baseline": engines.runner_of(engines.compiled_case(case, verified, "baseline")),
        }
        for engine, run in runs.items():
            kinds = [outcome and outcome.kind for outcome in map(run, case.inputs)]
            found = counted(verified.program)
            assert kinds == [outcome and outcome.kind for outcome in outcomes], (name, number, engine)
            assert found.executed == wanted.executed, (name, number, engine)
            if came_to_its_end(outcomes):
                assert found.branches == wanted.branches, (name, number, engine)
            compared += 1
    assert compared


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("late", [None, 0, 2], ids=["functions", "loops", "later"])
def test_counts_are_those_of_the_trace_behind_each_pass(name: str, late: int | None, counting: None) -> None:
    compared = 0
    for number in range(PROGRAMS // (10 * len(NAMES)) + 2):
        case = sources.SOURCES[name].source(random.Random(f"{name}{number}{late}"), ())
        promises = Promises(
            case.promised, argument_is_measured=True, calling=frozenset(engines.arena().helpers)
        )
        try:
            verified = engines.prepared(case)
            stages = optimized.stages(verified, () if late is None else verified.tested, promises)
        except EbpfError:
            continue
        wanted, outcomes = traced(case, verified)
        for stage in stages:
            place = engines.arena()
            machine = partial(stage.machine, judge=None, late=late or 0)
            kinds = []
            for given in case.inputs:
                started = place.start(given)
                run = partial(interpret, verified, machine=machine)
                kinds.append(engines.outcome_of(run, started, place).kind)
            found = counted(verified.program)
            assert kinds == [outcome and outcome.kind for outcome in outcomes], (name, number, stage.name)
            assert found.executed == wanted.executed, (name, number, stage.name)
            if came_to_its_end(outcomes):
                assert found.branches == wanted.branches, (name, number, stage.name)
            compared += 1
    assert compared


def test_a_run_that_changes_tiers_is_counted_once(counting: None, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(12):
        monkeypatch.setattr(engines, "FIRST_SLICES", ((1, 3, 5, 9, 17, 25)[number % 6],))
        case = sources.SOURCES["sweeps"].source(random.Random(number), ())
        verified = engines.prepared(case)
        wanted, outcomes = traced(case, verified)
        run = engines.on_tiered(case, verified)
        assert [outcome and outcome.kind for outcome in map(run, case.inputs)] == [
            outcome and outcome.kind for outcome in outcomes
        ]
        assert counted(verified.program).executed == wanted.executed, number


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_engines_agree_on_the_examples(path: Path) -> None:
    found = {}
    packets = [bytes(14), bytes(60), bytes(12) + b"\x08\x00\x45" + bytes(60), random.Random(1).randbytes(100)]
    for engine in ("interpreter", "jit"):
        with Coverage() as coverage:
            for program in load(path).programs.values():
                for packet in packets:
                    with suppress(ExecutionError):
                        program.run(packet, engine=named_engine(engine))
        found[engine] = [covered.to_json() for covered in coverage.programs]
    assert found["interpreter"] == found["jit"]
    assert found["jit"]


@pytest.fixture
def filtered() -> Coverage:
    """The port filter on packets that are no IP."""
    with Coverage() as coverage:
        (program,) = load(PORT_FILTER).programs.values()
        function = program.compile()
        assert [*function.map([bytes(60), bytes(20)])] == [2, 2]
        assert function(bytes(64)) == 2
    return coverage


def test_lines_branches_and_functions_of_a_c_file(filtered: Coverage) -> None:
    (file,) = [file for name, file in filtered.files.items() if name.endswith("filter.c")]
    source = Path(file.name).read_text(encoding="utf-8").splitlines()
    lines = {source[line - 1].strip(): count for line, count in file.lines.items()}
    assert lines["return action;"] == 3
    assert lines["__u16 destination = htons(ports->dest);"] == 0
    assert file.functions["port_filter"].calls == 3
    (tests_counter,) = [line for line in file.lines if "if (counter)" in source[line - 1]]
    assert [(branch.taken, branch.not_taken) for branch in file.branches[tests_counter]] == [(0, 3)]
    assert 0 < filtered.percent < 100


def test_reports(filtered: Coverage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(PORT_FILTER.parent)
    (name, *numbers) = next(line for line in text(filtered).splitlines() if "filter.c" in line).split()
    assert name == "xdp_port_filter.c"
    assert numbers[:2] == ["14", "5"]
    record = lcov(filtered).split("end_of_record")[1].split()
    assert {"SF:xdp_port_filter.c", "FNDA:3,port_filter", "LF:14", "LH:9"} <= set(record)
    tree = ElementTree.parse(write(filtered, "xml", tmp_path / "c.xml")).getroot()
    assert tree.get("lines-valid") == "15"
    assert (write(filtered, "html", tmp_path / "html") / "index.html").is_file()
    assert write(filtered, "lcov", tmp_path / "c.lcov").read_text(encoding="utf-8") == lcov(filtered)
    with pytest.raises(InputError, match="no report 'pdf'"):
        write(filtered, "pdf")


def test_a_source_too_short_to_be_what_was_compiled_is_shown_as_the_object_has_it(
    filtered: Coverage, tmp_path: Path
) -> None:
    (name,) = [name for name in filtered.files if name.endswith("filter.c")]
    short = tmp_path / "short.c"
    short.write_text("int nothing;\n", encoding="utf-8")
    moved = Coverage()
    moved.combine(json.loads(json.dumps(filtered.to_json()).replace(name, str(short))))
    tree = ElementTree.parse(write(moved, "xml", tmp_path / "c.xml")).getroot()
    assert tree.get("lines-valid") == "15"
    (page,) = write(moved, "html", tmp_path / "html").glob("*short*.html")
    assert "return action;" in page.read_text(encoding="utf-8")


def test_a_program_without_lines_counts_by_slot(tmp_path: Path) -> None:
    with Coverage() as coverage:
        Program.from_assembly("r0 = 1\nif r1 == 0 goto +1\nr0 = 2\nexit", name="bare").run(
            engine="interpreter"
        )
    file = coverage.files["<bare>"]
    assert file.lines == {1: 1, 2: 1, 3: 0, 4: 1}
    assert "no source is known of <bare>: numbers are slots" in text(coverage)
    assert "SF:<bare>" in lcov(coverage)
    assert ElementTree.parse(write(coverage, "xml", tmp_path / "c.xml")).getroot().get("lines-valid") == "4"
    (page,) = [
        each for each in write(coverage, "html", tmp_path / "html").glob("*.html") if "bare" in each.name
    ]
    assert "pc 2: r0 = 2" in page.read_text(encoding="utf-8")
    assert (file.branches[2][0].taken, file.branches[2][0].not_taken) == (1, 0)


def test_routines_of_the_library_are_nobodys_to_cover(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(routine, "_routine", routine._routine.__wrapped__)  # made now, not kept
    with capture.Writer(tmp_path / "c.pcap") as writer:
        writer.add(bytes(60), 1)
    with Coverage() as coverage:
        assert sum(len(batch) for batch in capture.read(tmp_path / "c.pcap")) == 1
    assert any(each.program.name == "pcap" for each in counters._all.values())
    assert coverage.programs == []


def test_only_what_runs_while_it_is_on_counts() -> None:
    program = Program.from_assembly("r0 = 7\nexit", name="seven")
    with Coverage() as first:
        program.run()
    program.run()
    assert [covered.executed for covered in first.programs] == [{0: 1, 1: 1}]
    with first, Coverage(["other"]) as second:
        program.run(engine="interpreter")
    assert [covered.executed for covered in first.programs] == [{0: 2, 1: 2}]
    assert second.programs == []
    with pytest.raises(RuntimeError, match="has not been started"):
        first.stop()


def test_what_was_counted_travels(filtered: Coverage, tmp_path: Path) -> None:
    filtered.save(tmp_path / "one")
    both = Coverage()
    both.load(tmp_path / "one")
    both.load(tmp_path / "one")
    assert [each.executed for each in both.programs] == [
        {pc: 2 * count for pc, count in each.executed.items()} for each in filtered.programs
    ]
    said = json.loads((tmp_path / "one").read_text())
    for programs in (None, 5, [{}], [5], [{**said["programs"][0], "executed": []}]):
        (tmp_path / "damaged").write_text(json.dumps({**said, "programs": programs}))
        with pytest.raises(InputError, match="damaged: this is no coverage"):
            both.load(tmp_path / "damaged")
    for damaged in ("", "[]", "{}", "[" * 100_000):
        (tmp_path / "damaged").write_text(damaged)
        with pytest.raises(InputError, match="damaged: this is no coverage"):
            both.load(tmp_path / "damaged")


CHILD = """
import multiprocessing, ebpfjit
def work(number):
    return ebpfjit.Program.from_assembly("r0 = 3\\nexit", name="three").run().return_value
if __name__ == "__main__":
    work(0)
    with multiprocessing.get_context("fork").Pool(1) as pool:
        pool.map(work, range(2))
        pool.close()
        pool.join()
"""


def test_other_processes_leave_what_they_counted(tmp_path: Path) -> None:
    (tmp_path / "child.py").write_text(CHILD)
    env = {**os.environ, processes.VARIABLE: str(tmp_path)}
    subprocess.run([sys.executable, tmp_path / "child.py"], check=True, env=env, timeout=60)
    assert [each.executed for each in processes.collected(str(tmp_path)).programs] == [{0: 3, 1: 3}]
