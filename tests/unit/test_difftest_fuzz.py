"""Fuzzing runs: findings, crashes and hangs, planted bugs, the same report twice, Ctrl-C, the commands."""

from __future__ import annotations

import ctypes
import itertools
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ebpfjit import EbpfError, kernel
from ebpfjit.difftest import CorpusError, UnknownEngine, read_case, read_corpus
from ebpfjit.difftest.check import CRASH, DIFFERS, HANG
from ebpfjit.difftest.children import run_forked
from ebpfjit.difftest.coverage import ROW
from ebpfjit.difftest.fuzz import FuzzReport, Options, fuzz, save
from ebpfjit.difftest.html import page
from ebpfjit.difftest.report import report_text, times_text
from ebpfjit.difftest.sources import SOURCES, TYPED
from ebpfjit.program import Program
from tests.support import warm
from tests.support.whole import WHOLE

ROOT = Path(__file__).resolve().parents[2]
CORPUS = ROOT / "tests" / "corpus"


def ebpfjit(*arguments: str) -> subprocess.CompletedProcess[str]:
    return warm.run([sys.executable, "-m", "ebpfjit", *arguments], text=True, cwd=ROOT)


def shrunk(name: str, programs: int = 400) -> FuzzReport:
    """Plant a bug, and shrink the first finding, which is of a program that can become small.

    It is in baseline code, where each instruction has its translator.
    """
    builds = ("baseline",)
    options = Options(sources=("valid",), programs=programs, planted=name, stop_at=1, shrink=1, builds=builds)
    return fuzz(options)


# -- the same seed, the same report -----------------------------------------------------------------


ALL_ENGINES = ("interpreter", "jit", "gate", *(() if kernel.unavailable_reason() else ("kernel",)))


PROGRAMS = 60 if WHOLE else 45  # more than one batch


def test_the_same_seed_gives_the_same_report_however_many_children() -> None:
    corpus = tuple(read_corpus(CORPUS))[::8]
    reports = [
        report_text(fuzz(Options(ALL_ENGINES, programs=PROGRAMS, seed=7, jobs=jobs, corpus=corpus)))
        for jobs in (1, 2)
    ]
    assert reports[0] == reports[1]
    assert f"{PROGRAMS} programs of " in reports[0]
    assert reports[0].endswith("no findings")


def test_another_seed_gives_another_report() -> None:
    assert report_text(fuzz(Options(programs=2, seed=8))) != report_text(fuzz(Options(programs=2, seed=7)))


def test_findings_are_the_same_too() -> None:
    """With a bug that leaves memory alone: what a damaged process does is different each time.

    So is how far memory of one kind lies from another, which faults at a wrong pc tell where there are types.
    """
    sources = tuple(name for name in SOURCES if name not in TYPED)
    one, other = (
        fuzz(Options(programs=20, sources=sources, planted="fault-pc", jobs=jobs, shrink=1))
        for jobs in (1, 2)
    )
    assert report_text(one) == report_text(other)
    assert len(one.findings) > 1
    assert [bool(finding.details) for finding in one.findings[:2]] == [True, False]


# -- findings -----------------------------------------------------------------------------------


def test_a_finding_is_shrunk_and_told_and_becomes_a_corpus_file(tmp_path: Path) -> None:
    report = shrunk("sub-swapped")
    (finding, *_) = report.findings
    assert finding.nature == DIFFERS
    program = Program.from_bytes(finding.case.code)
    assert len(program) <= 6
    assert "SUB64_X" in {insn.row.name for insn in program.instructions if insn.row}
    assert re.search(r"interpreter: +r0 = ", finding.details) or "Fault" in finding.details
    assert re.search(r"jit: ", finding.details)
    assert "they part after pc" in finding.details or "they differ in" in finding.details
    assert "sub64" in finding.details  # the program
    assert "sub r10, " in finding.details  # and the machine code of that pc

    (path,) = save([finding], tmp_path / "new")
    assert path.name.startswith("differs_")
    case = read_case(path)
    assert (case.code, case.inputs, case.build) == (
        finding.case.code,
        finding.case.inputs,
        finding.case.build,
    )
    assert "# Found as " in path.read_text()
    assert "#   interpreter: " in path.read_text()


def test_a_crash_is_a_finding_with_its_program_and_pc() -> None:
    report = shrunk("sdiv-minus-one", programs=3000)
    finding = report.findings[0]
    assert finding.nature == CRASH  # INT_MIN / -1 traps; other quotients by -1 are right even so
    assert "SIGFPE" in finding.text
    assert "the last step of baseline code was at pc " in finding.details
    assert "idiv" in finding.details
    assert "interpreter: r0 = " in finding.details


def test_a_child_that_hangs_is_known_as_that() -> None:
    assert run_forked(lambda: time.sleep(60), 0.05).hangs  # it waits: ten times as long is too long
    assert run_forked(lambda: max(itertools.count()), 0.2).hangs
    waits = run_forked(lambda: time.sleep(0.5), 0.4)  # as on a busy machine
    assert not waits.hangs
    assert waits.value is None
    assert run_forked(lambda: os.kill(os.getpid(), signal.SIGUSR1), 5).signal == "SIGUSR1"
    assert run_forked(lambda: 42, 5).value == 42


def test_a_hang_is_a_finding() -> None:
    report = fuzz(Options(programs=30, planted="hangs", stop_at=1, shrink=0, hang_seconds=0.7))
    assert {finding.nature for finding in report.findings} == {HANG}
    assert "it does not end in 0.7 s" in report.findings[0].text


# Found within so many programs of seed 1, of these sources; the benchmark plants all of them, and names none.
SAMPLE: dict[str, tuple[int, tuple[str, ...]]] = {
    "add32-wide": (400, ()),
    "movsx-zero-extends": (800, ()),
    "shift-clobbers-r4": (800, ()),
    "jslt-unsigned": (800, ()),
    "check-off-by-one": (800, ()),
    "check-read-only": (1600, ()),
    "frame-not-zeroed": (800, ()),
    "exit-ignores-liveness": (800, ()),
    "charge-less": (400, ()),
    "fault-pc": (400, ()),
    "imm8-border": (1600, ()),
    "packets-longer": (60, ("proven",)),
    "packets-stay": (60, ("proven",)),
    "lookups-succeed": (120, ("proven",)),
    "frames-alike": (120, ("proven",)),
    "numbers-forgotten": (120, ("proven",)),
    "stores-elsewhere": (60, ("proven",)),
    "helpers-write-nothing": (60, ("proven",)),
    "signs-lost": (60, ("proven",)),
}


ONE_OF_EACH_FAMILY = {
    "add32-wide",
    "check-off-by-one",
    "frame-not-zeroed",
    "charge-less",
    "fault-pc",
    "packets-longer",
    "signs-lost",
}
"""Arithmetic, checks, frames, the limit, faults, what relies on a verdict; `make nightly` plants all
(EBPFJIT_WHOLE=1)."""
PLANTED = [name for name in SAMPLE if WHOLE or name in ONE_OF_EACH_FAMILY]


@pytest.mark.parametrize("name", PLANTED)
def test_planted_bugs_are_found(name: str) -> None:
    programs, sources = SAMPLE[name]
    report = fuzz(
        Options(programs=programs, planted=name, stop_at=1, shrink=0, hang_seconds=2, sources=sources)
    )
    assert report.findings, f"{name} was not found by {report.total.programs} programs"


def test_metamorphic_programs_find_what_engines_agree_on() -> None:
    """A bug in the meanings would be the interpreter's: there the twin alone can tell."""
    report = fuzz(Options(programs=400, planted="jgt-is-jge", sources=("metamorphic",), stop_at=1, shrink=0))
    assert report.findings


# -- the page -----------------------------------------------------------------------------------


def test_the_page_is_self_contained() -> None:
    report = fuzz(Options(programs=120))
    text = page(report)
    assert text.startswith("<!doctype html>")
    assert not re.search(r"(src|href)\s*=|https?://|@import", text)
    assert text.count("<div class=grid>") > 80
    for row in ("ADD64_X", "ATOMIC_CMPXCHG32"):
        assert row in text
    assert report.coverage.of(ROW)
    assert times_text(report).startswith("time: ")


# -- bad input ----------------------------------------------------------------------------------


def test_what_cannot_be_run_is_said_at_once(tmp_path: Path) -> None:
    with pytest.raises(UnknownEngine):
        fuzz(Options(("jit", "qemu"), programs=1))
    with pytest.raises(EbpfError, match="no source of programs"):
        fuzz(Options(sources=("dreams",), programs=1))
    (tmp_path / "bad.txt").write_text("code 95\n")
    with pytest.raises(CorpusError):
        read_corpus(tmp_path)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("fuzz", "--engines", "jit,qemu"), "no engine 'qemu'; there are interpreter, optimized"),
        (("fuzz", "--engines", "jit"), "ebpfjit: comparing takes two engines at least"),
        (("fuzz", "--corpus", "{tmp}/none"), "ebpfjit: {tmp}/none: no such folder"),
        (("fuzz", "--corpus", "{tmp}"), "ebpfjit: {tmp}/bad.txt: line 1: 'code 95' is none of: code, memory"),
        (("fuzz", "--sources", "dreams"), "ebpfjit: no source of programs 'dreams'"),
        (("diff", "{tmp}/bad.txt"), "ebpfjit: {tmp}/bad.txt: line 1"),
        (("diff", "{tmp}/large.bin"), "is too large: at most"),
        (("diff", "{tmp}/large.bin", "--engines", "kernel"), "ebpfjit: comparing takes two engines"),
        (("diff", "{tmp}/none.bin"), "ebpfjit: {tmp}/none.bin: No such file"),
        (("diff", "{tmp}/short.bin"), "short.bin: a program is a multiple of 8 bytes"),
    ],
)  # fmt: skip
def test_bad_input_is_one_line_and_status_1(tmp_path: Path, arguments: tuple[str, ...], said: str) -> None:
    (tmp_path / "bad.txt").write_text("code 95\n")
    (tmp_path / "large.bin").write_bytes(bytes(8) * 100_000)
    (tmp_path / "short.bin").write_bytes(bytes(7))
    done = ebpfjit(*(argument.format(tmp=tmp_path) for argument in arguments))
    assert done.returncode == 1, done.stderr
    assert done.stderr.count("\n") == 1
    assert said.format(tmp=tmp_path) in done.stderr


def without_bpf() -> None:
    """Let a child have no right to bpf(2), were it root: CAP_SYS_ADMIN, CAP_PERFMON, CAP_BPF."""
    prctl = ctypes.CDLL(None).prctl
    for capability in (21, 38, 39):
        prctl(24, capability, 0, 0, 0)  # PR_CAPBSET_DROP


@pytest.mark.parametrize("command", [("fuzz",), ("diff", "examples/block_port.o")])
def test_a_kernel_that_may_not_be_asked_is_one_line(command: tuple[str, ...]) -> None:
    whole = [sys.executable, "-m", "ebpfjit", *command, "--engines", "jit,kernel"]
    done = subprocess.run(
        whole, capture_output=True, text=True, cwd=ROOT, check=False, preexec_fn=without_bpf
    )
    assert done.returncode == 1, done.stdout
    assert done.stderr.startswith("ebpfjit: the kernel is no engine here: ")
    assert done.stderr.count("\n") == 1


def test_wrong_usage_is_status_2() -> None:
    assert ebpfjit("fuzz", "--seconds", "soon").returncode == 2
    assert ebpfjit("diff", "examples/block_port.o", "--hex", "xyz").returncode == 2


# -- the commands -------------------------------------------------------------------------------


def test_fuzz_prints_the_same_twice_times_aside(tmp_path: Path) -> None:
    outputs = []
    for jobs in ("1", "2"):
        done = ebpfjit(
            "fuzz", "--programs", "12", "--jobs", jobs, "--seed", "5", "--report", str(tmp_path / jobs)
        )
        assert done.returncode == 0, done.stdout + done.stderr
        lines = done.stdout.splitlines()
        assert lines[-1].startswith("time: ")
        outputs.append(lines[:-1])
        assert (tmp_path / jobs).read_text().startswith("<!doctype html>")
    assert outputs[0] == outputs[1]


def test_diff_compares_one_program_on_many_inputs() -> None:
    done = ebpfjit("diff", "examples/block_port.o", "--hex", "00", "--random", "20")
    assert done.returncode == 0
    counts, verdict = done.stdout.splitlines()
    assert counts == "21 inputs: 3 ended, 18 faulted, 0 refused; 8 of 44 instructions reached (18 %)"
    assert verdict == "21 inputs, interpreter, jit: no difference"
    done = ebpfjit("diff", str(next(CORPUS.glob("*.txt"))))
    counts, verdict = done.stdout.splitlines()
    assert (done.returncode, verdict) == (0, "1 input, interpreter, jit: no difference")
    assert counts.startswith("1 input: ")


@pytest.mark.parametrize("inputs", [(), ("--random", "3")])
def test_diff_gives_a_struct_its_size(inputs: tuple[str, ...]) -> None:
    """Fourteen bytes, as of the smallest frame, would be a fault on each engine, at an address of its own."""
    done = ebpfjit("diff", "tests/elf/contexts.o", "--program", "address", *inputs)
    assert done.stdout.endswith("interpreter, jit: no difference\n"), done.stdout


def test_ctrl_c_ends_a_run_with_its_report_and_leaves_no_child() -> None:
    run = subprocess.Popen(
        [sys.executable, "-m", "ebpfjit", "fuzz", "--seconds", "120", "--jobs", "2"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT, start_new_session=True,
    )  # fmt: skip
    deadline = time.monotonic() + 60
    while len(children_of(run.pid)) < 2:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    found = children_of(run.pid)
    os.killpg(run.pid, signal.SIGINT)
    output, errors = run.communicate(timeout=60)
    assert run.returncode == 130, errors
    assert "Traceback" not in errors
    assert re.search(r"no findings, interrupted", output)
    assert output.splitlines()[-1].startswith("time: ")
    assert not any(Path(f"/proc/{child}").exists() for child in found)


def children_of(pid: int) -> list[int]:
    """The child processes of a process (Linux)."""
    path = Path(f"/proc/{pid}/task/{pid}/children")
    try:
        return [int(child) for child in path.read_text().split()]
    except OSError:
        return []


# -- the pytest plugin ----------------------------------------------------------------------------


def run_pytest(*arguments: str, fresh: bool = False) -> subprocess.CompletedProcess[str]:
    """Run the example tests as a user does, with the plugin; `fresh`: where nothing was compiled before."""
    from importlib.metadata import entry_points

    installed = [
        point.name for point in entry_points(group="pytest11") if point.value == "ebpfjit.pytest_plugin"
    ]
    plugin = () if installed else ("-p", "ebpfjit.pytest_plugin")
    command = [
        sys.executable,
        "-m",
        "pytest",
        *plugin,
        "-p",
        "no:cacheprovider",
        "-c",
        os.devnull,
        *arguments,
    ]
    folder = ROOT / "examples" / "pytest"
    if fresh:
        return subprocess.run(command, capture_output=True, text=True, cwd=folder, check=False, timeout=120)
    return warm.run(command, text=True, cwd=folder)


def test_the_plugin_runs_a_users_tests_on_each_engine() -> None:
    once = run_pytest("-v", "test_drop_discard.py")
    assert once.returncode == 0, once.stdout + once.stderr
    assert "test_port[9-XDP_DROP] PASSED" in once.stdout
    assert "5 passed" in once.stdout
    twice = run_pytest("-v", "--ebpf-engines=interpreter,jit", "test_drop_discard.py")
    assert "10 passed" in twice.stdout
    assert "interpreter" in twice.stdout


USERS_TESTS = """
import ctypes, unittest, pytest
from ebpfjit import Program
from ebpfjit.assembler import assemble

DENIED = ctypes.CDLL(None).prctl(65, 1, 0, 0, 0) == 0  # PR_SET_MDWE: no memory becomes executable

@pytest.fixture(scope="module")
def program(ebpf_load):
    return ebpf_load(OBJECT_FILE).programs["count"]

@pytest.mark.parametrize("size", [60, 64])
def test_of_a_module(program, size):
    assert program.run(bytes(size)).action == "XDP_PASS"

def test_denied(ebpf_run):
    assert ebpf_run(Program(assemble("ldxb r0, [r1]\\nexit")), b"\\5").return_value == 5

class TestUnittest(unittest.TestCase):
    @pytest.fixture(autouse=True)
    def _take(self, ebpf_run):
        self.run_program = ebpf_run

    def test_load(self):
        self.assertEqual(self.run_program(Program(assemble("mov r0, 5\\nexit"))).return_value, 5)

def test_kernel_has_it():
    if not DENIED:
        pytest.skip("no PR_SET_MDWE")
"""


def test_fixtures_of_modules_and_classes_and_a_process_that_may_not_have_machine_code(tmp_path: Path) -> None:
    """An engine that is not asked for is one that works; one that is, and does not, skips with the reason."""
    path = tmp_path / "test_users.py"
    path.write_text(f"OBJECT_FILE = {str(ROOT / 'tests' / 'elf' / 'counter.o')!r}\n{USERS_TESTS}")
    child = run_pytest("-rs", "--ebpf-engines=interpreter,jit", str(path), fresh=True)
    if "no PR_SET_MDWE" in child.stdout:
        pytest.skip("this kernel has no PR_SET_MDWE")
    assert "5 passed, 1 skipped" in child.stdout, child.stdout + child.stderr
    assert "engine jit: this system does not let memory become executable" in child.stdout


def test_what_fails_is_shown_at_the_line_of_the_test(tmp_path: Path) -> None:
    """Not in twenty frames of ours, the last of them about machine code."""
    path = tmp_path / "test_users.py"
    path.write_text(
        "from ebpfjit import Program\n"
        "def test_fault(ebpf_run): ebpf_run(Program(b'\\x71\\x10' + bytes(6) + b'\\x95' + bytes(7)))\n"
        "def test_object(ebpf_load): ebpf_load('test_users.py')\n"
        "def test_path(ebpf_load): ebpf_load('no.o')\n"
    )
    child = run_pytest("--ebpf-engines=interpreter,jit", str(path))
    assert "4 failed" in child.stdout, child.stdout + child.stderr
    assert "pc 0: load of 1 byte at 0x0" in child.stdout
    assert "not an ELF file" in child.stdout
    assert re.findall(r"^(\S+\.py):\d+: \w+$", child.stdout.replace(f"{tmp_path}/", ""), re.MULTILINE)
    assert "ebpfjit/runner.py" not in child.stdout
    assert "ebpfjit/pytest_plugin.py" not in child.stdout


def test_the_documentation_has_the_example_as_it_is() -> None:
    example = (ROOT / "examples" / "pytest" / "test_drop_discard.py").read_text()
    assert f"```python\n{example}```" in (ROOT / "docs" / "testing.md").read_text()


def test_the_plugin_says_what_engine_it_does_not_know() -> None:
    wrong = run_pytest("--ebpf-engines=qemu", "test_drop_discard.py")
    assert wrong.returncode != 0
    assert "--ebpf-engines takes names of jit, interpreter, kernel, not qemu" in wrong.stdout + wrong.stderr
