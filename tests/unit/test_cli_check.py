"""`ebpfjit check`: what programs need, what a kernel lacks and what helps; as text and as JSON."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ebpfjit.cli import app
from ebpfjit.compatibility.advice import FEATURES, KINDS
from ebpfjit.compatibility.find import Needs
from ebpfjit.compatibility.lookup import releases
from ebpfjit.compatibility.release import FIRST, Release
from ebpfjit.compatibility.tables import helpers, kernel
from tests.unit.test_compatibility import kernel_types

ROOT = Path(__file__).resolve().parents[2]
LOGGER = ROOT / "examples" / "packets" / "event_logger.o"
OBJECTS = ROOT / "tests" / "elf"


@pytest.fixture
def check(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    """Run the command; return its exit status, and what is on stdout and stderr."""

    def run(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr("sys.argv", ["ebpfjit", "check", *map(str, arguments)])
        monkeypatch.setattr("gc.freeze", lambda: None)
        status = app.main()
        out, error = capsys.readouterr()
        return status, out, error

    return run


def test_without_a_kernel_it_shows_the_releases(check) -> None:
    status, out, error = check(LOGGER)
    assert (status, error) == (0, "")
    assert out.startswith("log_connections (xdp): Linux 5.8 or later\n  5.8   bpf_ringbuf_reserve  pc 25 (")
    assert "BTF_KIND_DATASEC *" in out
    assert "program type xdp" in check(LOGGER, "--program", "log_connections")[1]
    assert "BTF_KIND" not in check(LOGGER, "--program", "log_connections")[1]


def test_what_a_release_lacks_and_what_helps(check) -> None:
    status, out, error = check(LOGGER, "--kernel", "5.7")
    assert (status, error) == (1, "")
    lines = out.splitlines()
    assert lines[0] == "log_connections (xdp): Linux 5.7 lacks 3 of what it needs"
    assert lines[1].startswith("  bpf_ringbuf_reserve, since 5.8: pc 25 (./event_logger.c:34: struct event")
    assert lines[2].startswith("    help: bpf_perf_event_output into a map of type perf_event_array")
    assert lines[-1] == "the rest of the object: Linux 5.7 has all it needs"
    assert check(LOGGER, "--kernel", "5.8")[0] == 0


def test_json_has_all_of_it(check) -> None:
    status, out, _ = check(LOGGER, "--kernel", "5.7", "--json", "--verify")
    told = json.loads(out)
    assert (status, told["file"], told["minimum"]) == (1, str(LOGGER), "5.8")
    assert told["kernel"] == {"name": "Linux 5.7", "release": "5.7"}
    program = told["programs"]["log_connections"]
    assert program["verdict"]["status"] == "accepted"
    assert [(need["feature"], need["release"], need["pc"]) for need in program["missing"]] == [
        ("bpf_ringbuf_reserve", "5.8", 25),
        ("bpf_ringbuf_submit", "5.8", 56),
        ("map type ringbuf", "5.8", 21),
    ]
    assert program["missing"][0]["line"]["line"] == 34
    assert "perf_event_array" in program["missing"][0]["advice"]
    assert told["rest"]["missing"] == []


def test_the_types_of_a_kernel(check, tmp_path: Path) -> None:
    types = tmp_path / "vmlinux"
    types.write_bytes(kernel_types("6.1"))
    status, out, _ = check(LOGGER, "--kernel", types)
    assert status == 1, "it was built without XDP, by its types"
    assert f"{types} (Linux 6.1) lacks" in out
    assert "program type xdp, since 4.8, but not in this kernel's types" in out


def test_bytecode_and_text_have_a_type_when_it_is_told(check, tmp_path: Path) -> None:
    text = tmp_path / "loop.s"
    text.write_text("r1 = 1\nr2 = 0\nr3 = 0\nr4 = 0\ncall 181\nexit")
    status, out, _ = check(text, "--kernel", "6.1")
    assert (status, "nothing says its type" in out, "--type xdp" in out) == (1, True, True)
    assert check(text, "--kernel", "6.1", "--type", "xdp")[0] == 0
    status, out, _ = check(text, "--kernel", "5.10", "--type", "xdp")
    assert (status, "bpf_loop, since 5.17: pc 4" in out) == (1, True)
    assert check(text, "--type", "xdpp")[0] == 1


def test_verify_decides_too(check, tmp_path: Path) -> None:
    text = tmp_path / "wild.s"
    text.write_text("r0 = *(u64 *)(r1 + 4096)\nexit")
    status, out, error = check(text, "--type", "xdp", "--verify")
    assert (status, error) == (1, "")
    assert "refused" in out
    assert check(text, "--type", "xdp")[0] == 0


def test_code_that_is_safe_is_not_all_where_its_object_lacks_something(check) -> None:
    status, out, _ = check(OBJECTS / "externs.o", "--program", "configured", "--verify")
    assert (status, "configured: accepted" in out, "has no value" in out) == (1, True, True)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((LOGGER, "--kernel", "4.4"), "no release of Linux '4.4': known are 4.19 to 4.20"),
        ((LOGGER, "--kernel", "./nowhere"), "nowhere: No such file or directory"),
        ((LOGGER, "--kernel", LOGGER), "these are not the types of a kernel"),
        ((LOGGER, "--program", "log"), "no program 'log'; there are: 'log_connections'"),
        ((OBJECTS / "stripped.o",), "there is no symbol table"),
        ((OBJECTS / "README.md", "--kernel", "5.15"), "README.md: line 1"),
    ],
)
def test_what_is_wrong_is_one_line(check, arguments: tuple[object, ...], words: str) -> None:
    status, out, error = check(*arguments)
    assert (status, out) == (1, "")
    assert words in error
    assert error.count("\n") == 1


def test_each_advice_is_for_something(check) -> None:
    """What advice is of is in the tables; instructions that a known release lacks all have one."""
    known = {f"bpf_{name}" for name in releases(helpers.HELPERS)}
    known |= {f"map type {name}" for name in releases(kernel.MAP_TYPES)}
    known |= {name for _, _, name in kernel.INSTRUCTIONS} | set(kernel.NEVER.values())
    source = Path(str(Needs.__init__.__code__.co_filename)).read_text()
    assert [each for each in FEATURES if each not in known and f'"{each}"' not in source] == []
    assert [kind for kind in KINDS if f'"{kind}"' not in source] == []
    late = [name for _, since, name in kernel.INSTRUCTIONS if Release(since) > FIRST]
    assert [name for name in (*late, *kernel.NEVER.values()) if name not in FEATURES] == []
