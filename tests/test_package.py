"""What users install: the wheel with all that the library reads, the sdist with docs, examples and tests."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
NOT_OURS = (".git", ".venv", ".*cache", ".hypothesis", "dist", "site", "*.egg-info", "__pycache__")
LEFT_OUT = shutil.ignore_patterns(*NOT_OURS)
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]

BUILD = "import sys; from setuptools import build_meta; getattr(build_meta, sys.argv[1])(sys.argv[2])"

of_what_is_built = pytest.mark.xdist_group("package")  # one worker builds it

USE = """
import sys, ebpfjit
assert ebpfjit.__file__.startswith(sys.argv[1]), ebpfjit.__file__
from ebpfjit import Program, capture, classic, load, seccomp
program = Program.from_assembly("mov r0, 5\\nexit")
assert program.run().return_value == program.compile(optimize=True)(b"") == 5
assert "<html" in program.listing().html()
assert seccomp.load("ret #0x7fff0000").run(nr="read", arch="x86_64") == "SCMP_ACT_ALLOW"
obj = load(sys.argv[2])
obj.maps["blocked"][9] = 1
assert obj.programs["port_filter"].compile(optimize=True)(bytes(60)) == 2
with capture.Writer(sys.argv[3]) as writer:
    writer.add(bytes(60), 1)
assert [len(batch) for batch in capture.read(sys.argv[3])] == [1]
print(ebpfjit.__version__)
"""

NO_KEYSTONE = """
import sys
class Nothing:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {hidden!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, Nothing())
"""


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with a wheel and an sdist, made of a copy of what is here."""
    folder = tmp_path_factory.mktemp("package")
    shutil.copytree(ROOT, folder / "tree", ignore=LEFT_OUT, symlinks=True)
    for what in ("build_sdist", "build_wheel"):
        command = [sys.executable, "-c", BUILD, what, str(folder)]
        run = subprocess.run(command, cwd=folder / "tree", capture_output=True, text=True, check=False)
        assert run.returncode == 0, run.stderr[-3000:]
    return folder


def _python(source: str, *arguments: str, path: Path | None = None) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(path or ROOT), "EBPFJIT_TIERS": ""}
    command = [sys.executable, "-c", source, *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False, cwd="/")


@of_what_is_built
def test_the_wheel_has_what_the_library_reads(built: Path, tmp_path: Path) -> None:
    wheel = next(built.glob("*.whl"))
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        archive.extractall(tmp_path / "site")
    own = {name.split("/")[0] for name in names}
    assert own == {"ebpfjit", wheel.name.removesuffix("-py3-none-any.whl") + ".dist-info"}
    tracked = {path.relative_to(ROOT).as_posix() for path in (ROOT / "ebpfjit").rglob("*") if path.is_file()}
    kept = {name for name in tracked if "__pycache__" not in name and not name.endswith((".c", ".pyc"))}
    assert kept - set(names) == set()
    filter_ = str(ROOT / "examples" / "packets" / "xdp_port_filter.o")
    used = _python(USE, str(tmp_path / "site"), filter_, str(tmp_path / "c.pcap"), path=tmp_path / "site")
    assert (used.returncode, used.stderr) == (0, "")
    assert f"-{used.stdout.strip()}-" in wheel.name


@of_what_is_built
def test_the_sdist_carries_docs_examples_and_tests_that_pass(built: Path, tmp_path: Path) -> None:
    with tarfile.open(next(built.glob("*.tar.gz"))) as archive:
        archive.extractall(tmp_path, filter="data")
    (tree,) = tmp_path.iterdir()
    for folder in ("docs", "examples", "tests", "benchmarks", "translators", "ebpfjit"):
        here = {path.relative_to(ROOT) for path in (ROOT / folder).rglob("*") if path.is_file()}
        wanted = {path for path in here if not {"__pycache__", ".hypothesis"} & set(path.parts)}
        assert {str(path) for path in wanted if not (tree / path).exists()} == set(), folder
    tests = ["tests/unit/test_bits.py", "tests/unit/test_isa_table.py", "tests/test_architecture.py"]
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *tests]
    environment = {**os.environ, "PYTHONPATH": str(tree)}
    ran = subprocess.run(command, cwd=tree, env=environment, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stdout[-2000:]


HIDDEN = [("keystone",), ("typer", "rich"), ("keystone", "capstone", "typer", "rich", "numpy")]


@pytest.mark.parametrize("hidden", HIDDEN)
def test_the_library_works_without_what_is_not_its_own(hidden: tuple[str, ...]) -> None:
    use = """
from ebpfjit import EbpfVmRaw, JitUnavailable, Program, load, runtime_info
import ebpfjit.pytest_plugin
program = Program.from_assembly("ldxb r0, [r1]\\nexit")
assert program.run(b"A").return_value == 65
assert program.listing() and program.trace(b"A").result.return_value == 65
assert load(sys.argv[1]).programs["port_filter"].run(bytes(60)).action == "XDP_PASS"
machine = EbpfVmRaw(program)
assert machine.execute_program(b"A") == 65
if "keystone" in hidden:
    assert "keystone is not installed" in runtime_info().engines["jit"]
    for machine_code in (machine.jit_compile, program.compile, lambda: program.run(engine="jit")):
        try:
            machine_code()
        except JitUnavailable as error:
            assert "the interpreter works without" in str(error)
        else:
            raise AssertionError("machine code, without keystone")
from ebpfjit.cli import entry
import importlib.util
found = importlib.util.find_spec
importlib.util.find_spec = lambda name: None if name in hidden else found(name)
sys.argv[1:] = ["run", sys.argv[1], "--hex", "00" * 60]
sys.exit(entry.main())
"""
    source = NO_KEYSTONE.format(hidden=hidden) + f"hidden = {hidden!r}\n" + use
    run = _python(source, str(ROOT / "examples" / "packets" / "xdp_port_filter.o"))
    if "typer" in hidden:
        expected = "ebpfjit: the command line needs typer and rich: pip install 'ebpfjit[cli]'\n"
        assert (run.returncode, run.stderr) == (1, expected)
    else:
        assert (run.returncode, run.stdout, run.stderr) == (0, "2 (0x2) XDP_PASS\n", "")


def test_dependencies_are_few() -> None:
    needed = {line.split(">")[0].split(";")[0].strip() for line in PROJECT["dependencies"]}
    assert needed == {"keystone-engine"}
    assert "; platform_machine" in PROJECT["dependencies"][0]
    assert not any("<" in line for line in PROJECT["optional-dependencies"]["cli"])
    assert PROJECT["license"] == "MIT OR Apache-2.0"
