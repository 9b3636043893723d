"""The pytest plugin, as users of it see it: sessions of their own, in this process."""

from __future__ import annotations

import pdb
import re
import shutil
from pathlib import Path

import pytest

from ebpfjit import engines, load
from tests.support.elf_files import OBJECTS

pytest_plugins = ["pytester"]
EXAMPLES = OBJECTS.parents[1] / "examples"


@pytest.fixture(scope="module", autouse=True)
def _all_is_imported() -> None:
    """Sessions in this process forget the modules that they were the first to import."""
    for engine in ("interpreter", "jit"):
        load(OBJECTS / "counter.o").programs["count"].run(bytes(60), engine=engine)


@pytest.fixture
def session(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> pytest.Pytester:
    """Return a folder with counter.o, in which the options of these tests do not hold."""
    monkeypatch.delenv("PYTEST_ADDOPTS", raising=False)
    shutil.copy(OBJECTS / "counter.o", pytester.path)
    shutil.copy(EXAMPLES / "packets" / "xdp_port_filter.o", pytester.path)
    return pytester


def _run(session: pytest.Pytester, *arguments: str) -> pytest.RunResult:
    return session.runpytest_inprocess("-p", "no:cacheprovider", *arguments)


ANYWHERE = """
    import unittest
    import pytest

    @pytest.fixture(scope="session")
    def everywhere(ebpf_load, ebpf_run):
        program = ebpf_load("counter.o").programs["count"]
        return lambda: ebpf_run(program, bytes(60)).action

    @pytest.fixture(scope="module")
    def result(everywhere):
        return everywhere()

    def test_in_fixtures_of_any_scope(result, everywhere, ebpf_engine):
        assert result == everywhere() == "XDP_PASS"

    def test_asked_for_late(request):
        run, load = map(request.getfixturevalue, ("ebpf_run", "ebpf_load"))
        assert run(load("counter.o").programs["count"], bytes(60)).action == "XDP_PASS"

    @pytest.mark.ebpf_engines("interpreter")
    def test_of_one(ebpf_engine):
        assert ebpf_engine == "interpreter"

    @pytest.mark.ebpf_engines("interpreter")
    def test_of_one_asked_for_late(request):
        assert request.getfixturevalue("ebpf_engine") == "interpreter"

    @pytest.mark.parametrize(("ebpf_engine", "size"), [("interpreter", 60)], indirect=["ebpf_engine"])
    def test_of_its_own_parameters(ebpf_engine, ebpf_run, ebpf_load, size):
        assert ebpf_run(ebpf_load("counter.o").programs["count"], bytes(size)).instructions

    def test_bytes_and_files(ebpf_load):
        with open("counter.o", "rb") as file:
            assert "count" in ebpf_load(file).programs
            file.seek(0)
            assert "count" in ebpf_load(file.read()).programs

    class TestOld(unittest.TestCase):
        @pytest.fixture(autouse=True)
        def take(self, ebpf_run, ebpf_load):
            self.run_program, self.load = ebpf_run, ebpf_load

        def result(self):
            return self.run_program(self.load("counter.o").programs["count"], bytes(60))

        def test_one(self):
            self.assertEqual(self.result().action, "XDP_PASS")

        @pytest.mark.ebpf_engines("interpreter")
        def test_of_one(self):
            self.assertIsNotNone(self.result().instructions)

        @pytest.mark.ebpf_engines("jit")
        def test_of_another(self):
            self.assertIsNone(self.result().instructions)
"""


def test_fixtures_work_wherever_they_are_asked_for(session: pytest.Pytester) -> None:
    session.makepyfile(ANYWHERE)
    _run(session).assert_outcomes(passed=9)
    both = _run(session, "--ebpf-engines=interpreter,jit", "-v")
    both.assert_outcomes(passed=10)
    both.stdout.fnmatch_lines(["*test_in_fixtures_of_any_scope?interpreter? PASSED*"])
    session.makeini("[pytest]\nebpf_engines = interpreter jit\n")
    _run(session).assert_outcomes(passed=10)
    _run(session, "--ebpf-engines=interpreter").assert_outcomes(passed=9)


def test_a_wrong_engine_is_one_line(session: pytest.Pytester) -> None:
    session.makepyfile("def test(): pass")
    wrong = _run(session, "--ebpf-engines=interpreter,jti")
    assert wrong.ret == pytest.ExitCode.USAGE_ERROR
    said = [line for line in (wrong.stderr.lines + wrong.outlines) if line.strip()]
    assert said == ["ERROR: --ebpf-engines takes names of jit, interpreter, kernel, not jti"]


@pytest.mark.parametrize(
    ("mark", "wrong"),
    [
        ('("fast")\ndef test(ebpf_run): pass', "fast"),
        ('("jit", "fast")\ndef test(): pass', "fast"),
        ('(["jit"])\ndef test(ebpf_run): pass', "['jit']"),
        ('(engine="jit")\ndef test(ebpf_run): pass', "engine='jit'"),
        ("()\nclass Test(TestCase):\n    def test(self): pass", "none"),
    ],
)
def test_a_wrong_mark_is_one_line(session: pytest.Pytester, mark: str, wrong: str) -> None:
    """Also where nothing asks for an engine, and once whatever else is collected."""
    head = "import pytest\nfrom unittest import TestCase\n"
    session.makepyfile(f"{head}@pytest.mark.ebpf_engines{mark}\n{_FAST}")
    ended = _run(session)
    assert ended.ret == pytest.ExitCode.USAGE_ERROR
    (said,) = [line for line in (ended.stderr.lines + ended.outlines) if line.startswith("ERROR")]
    place = r"ERROR: test_a_wrong_mark_is_one_line\.py::(Test::)?test: @pytest.mark.ebpf_engines"
    assert re.fullmatch(rf"{place} takes names of jit, interpreter, kernel, not {re.escape(wrong)}", said)


_FAST = '@pytest.mark.ebpf_engines("fast")\ndef test_later(ebpf_engine): pass'


FAILING = """
    import pytest

    @pytest.fixture
    def obj(ebpf_load):
        return ebpf_load("counter.o")

    def test_wrong(obj, ebpf_run):
        ebpf_run(obj.programs["count"], bytes(60))
        assert ebpf_run(obj.programs["count"], bytes(60)).action == "XDP_DROP"

    def test_fault(ebpf_load, ebpf_run):
        from ebpfjit import Program
        from ebpfjit.assembler import assemble
        ebpf_run(Program(assemble("ldxdw r0, [r1]\\nexit"), name="reads"), b"abc")

    def test_line(ebpf_load, ebpf_run):
        program = ebpf_load("xdp_port_filter.o").programs["port_filter"]
        assert ebpf_run(program, bytes(60), context={"ingress_ifindex": 1}).action == "XDP_DROP"

    def test_right(obj, ebpf_run):
        ebpf_run(obj.programs["count"], bytes(60))
"""


def test_a_failing_test_shows_what_its_runs_left(session: pytest.Pytester) -> None:
    session.makepyfile(FAILING)
    failed = _run(session, "--ebpf-engines=interpreter", "-rN")
    failed.assert_outcomes(passed=1, failed=3)
    failed.stdout.fnmatch_lines([
        "*eBPF: program 'count' on interpreter*",
        "returned 2 (XDP_PASS) at ./counter.c:26: return 2;",
        "map 'seen' (array):",
        "  0: 2",
        "*test_fault*",
        "*eBPF: program 'reads' on interpreter*",
        "MemoryFault: pc 0: load of 8 bytes*",
        "returned 2 (XDP_PASS) at ./xdp_port_filter.c:49: return action;",
        "map 'counters' (array):",
        "  2: {'packets': 1, 'bytes': 60}",
    ])  # fmt: skip
    assert len([line for line in failed.outlines if "eBPF: program" in line]) == 4
    failed.stdout.no_fnmatch_line("*pytest_plugin*")


UNTOUCHED = """
    calls = []

    def function(*arguments):
        calls.append(arguments)
        return 0

    def test_own_functions(ebpf_load, ebpf_run):
        program = ebpf_load("counter.o").programs["count"]
        assert ebpf_run(program, bytes(60), helpers={1: function}).action == "XDP_DROP"

    def test_they_were_called_by_the_test_alone():
        assert len(calls) == 1
"""


def test_a_report_calls_no_function_of_the_test(session: pytest.Pytester) -> None:
    session.makepyfile(UNTOUCHED)
    _run(session, "-rN").assert_outcomes(passed=1, failed=1)


def test_the_debugger_stops_below_what_the_runs_left(
    session: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    session.makepyfile(FAILING)
    monkeypatch.setattr(pdb.Pdb, "interaction", lambda *_: print("stopped"))
    shown = _run(session, "--pdb", "-k", "wrong", "-s")
    shown.stdout.fnmatch_lines(["*F", "*eBPF: program 'count' on *", "  0: 2", "*entering PDB*", "stopped"])


@pytest.fixture
def clang(session: pytest.Pytester) -> Path:
    """Return a program that stands for clang: it writes down how it is started, and copies counter.o."""
    program = session.path / "clang.sh"
    program.write_text(
        f"""#!/bin/sh
echo "$*" >> {session.path}/calls
case "$*" in
    *--version*) echo clang 1;;
    *-E*) grep -q wrong "$8" && {{ echo "$8:1: error: wrong" >&2; exit 1; }}; cat "$8";;
    *) while [ "$1" != -o ]; do shift; done; cp counter.o "$2";;
esac
"""
    )
    program.chmod(0o755)
    return program


COMPILES = """
    def test_it(ebpf_compile):
        for _ in range(2):
            obj = ebpf_compile("source.c")
            assert obj.programs["count"].run(bytes(60)).action == "XDP_PASS"
"""


def test_a_source_is_compiled_where_it_is_new(
    session: pytest.Pytester, clang: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    session.makeini(f"[pytest]\nebpf_clang = ./{clang.name}\n")  # counted from here, wherever it is started
    monkeypatch.chdir(session.mkdir("elsewhere"))
    session.makepyfile(COMPILES)
    source, calls = session.path / "source.c", session.path / "calls"
    for text, compiled in (("int one;", 1), ("int one;", 1), ("int two;", 2)):
        source.write_text(text)
        session.runpytest_inprocess(session.path).assert_outcomes(passed=1)
        assert calls.read_text().count(" -c ") == compiled
    source.write_text("wrong")
    failed = session.runpytest_inprocess(session.path)
    failed.assert_outcomes(failed=1)
    failed.stdout.fnmatch_lines(["*clang.sh -O2 -g -target bpf*", "*source.c:1: error: wrong"])
    session.makeini("[pytest]\nebpf_clang = no-such-clang\n")
    skipped = session.runpytest_inprocess(session.path, "-rs")
    skipped.assert_outcomes(skipped=1)
    skipped.stdout.fnmatch_lines(["*needs 'no-such-clang', which is not here*"])


HONOURED = """
    import pytest
    from ebpfjit import Clock, Environment

    @pytest.mark.ebpf_engines("interpreter", "kernel")
    @pytest.mark.parametrize("given", [{"limit": 50}, {"environment": Environment(clock=Clock(5))}])
    def test_one(ebpf_load, ebpf_run, given):
        program = ebpf_load("counter.o").programs["count"]
        assert ebpf_run(program, bytes(60), repeat=2, **given).action == "XDP_PASS"
"""


@pytest.mark.skipif(bool(engines.unavailable("kernel")), reason="the kernel loads no programs here")
def test_what_the_kernel_cannot_honour_is_a_skip_that_says_so(session: pytest.Pytester) -> None:
    session.makepyfile(HONOURED)
    result = _run(session, "-rs")
    result.assert_outcomes(passed=2, skipped=2)
    result.stdout.fnmatch_lines_random(
        [
            "*engine kernel: the kernel has a limit of its own*",
            "*engine kernel: the kernel has its own clock*",
        ]
    )


COVERED = """
    import subprocess, sys
    import pytest

    @pytest.mark.parametrize("number", range(2))
    def test_it(ebpf_load, ebpf_run, number):
        ebpf_run(ebpf_load("xdp_port_filter.o").programs["port_filter"], bytes(60))

    def test_in_another_process():
        code = "import ebpfjit; ebpfjit.load('xdp_port_filter.o').program('port_filter').run(bytes(60))"
        subprocess.run([sys.executable, "-c", code], check=True)
"""


def test_coverage_of_all_processes(session: pytest.Pytester) -> None:
    session.makepyfile(test_covered=COVERED)
    result = session.runpytest_subprocess(
        "-n", "2", "--ebpf-cov=port_filter,other", "--ebpf-cov-report=term,lcov:out.lcov",
        "--ebpf-cov-fail-under=90",
    )  # fmt: skip
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    result.assert_outcomes(passed=3)
    result.stdout.fnmatch_lines(
        [
            "*xdp_port_filter.c *",
            "TOTAL *",
            "lcov: out.lcov",
            "no such program was run: other",
            "FAIL: *90 %*",
        ]
    )
    assert "FNDA:3,port_filter\n" in (session.path / "out.lcov").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--ebpf-cov-report=lcov:nowhere/out.lcov"], "FAIL: lcov: *nowhere/out.lcov*"),
        (["--ebpf-cov=nobody", "--ebpf-cov-fail-under=0"], "FAIL: nothing of nobody was executed*"),
    ],
)
def test_coverage_that_is_not_to_be_had_fails_the_session(
    session: pytest.Pytester, options: list[str], said: str
) -> None:
    session.makepyfile(test_covered="def test_it(): pass")
    result = session.runpytest_subprocess(*options)
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    result.stdout.fnmatch_lines([said])


def test_coverage_says_what_it_cannot_report(session: pytest.Pytester) -> None:
    result = _run(session, "--ebpf-cov-report=pdf")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(
        ["ERROR: --ebpf-cov-report: reports of coverage are term, html, lcov, xml*'pdf'*"]
    )
