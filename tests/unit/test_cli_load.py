"""What `load` can be told, on the command line: --btf, --kconfig, --maps. In this process: quick."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from ebpfjit.cli import app

OBJECTS = Path(__file__).resolve().parents[1] / "elf"
CORE, TARGET = OBJECTS / "core.o", OBJECTS / "core_target.o"
EXTERNS, SIZED = OBJECTS / "externs.o", OBJECTS / "maps_by_loader.o"
CONFIG = """# Linux/x86 6.18.0 Kernel Configuration
CONFIG_HZ=0xfa
CONFIG_BPF=y
# CONFIG_MISSING is not set
CONFIG_NET=n
CONFIG_LOCALVERSION="-own"
CONFIG_HZ=100
"""
FRAME = "00" * 64

Command = Callable[..., tuple[int, str, str]]


@pytest.fixture
def ebpfjit(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    """A command: its exit status, what it prints, and its last line on stderr."""

    def run(*arguments: str | Path) -> tuple[int, str, str]:
        monkeypatch.setattr("sys.argv", ["ebpfjit", *map(str, arguments)])
        status = app.main()
        printed = capsys.readouterr()
        if status == 1:
            assert printed.err.count("\n") == 1, printed.err
        return status, printed.out, printed.err.rstrip("\n").rpartition("\n")[2]

    return run


def test_types_of_the_kernel(ebpfjit: Command) -> None:
    one = ("--program", "pid")
    own, kernels = (ebpfjit("disasm", CORE, *one, *btf)[1] for btf in ((), ("--btf", TARGET)))
    assert own != kernels
    assert own.replace("[r1+0x0]", "[r1+0x10]") == kernels
    for command in ("verify", "listing"):
        assert ebpfjit(command, CORE, *one, "--btf", TARGET)[0] == 0


@pytest.mark.parametrize("compressed", [False, True])
def test_a_configuration(ebpfjit: Command, tmp_path: Path, compressed: bool) -> None:
    """A file, compressed as /proc/config.gz or not; the first of two lines counts, what comes later more."""
    path = tmp_path / "config"
    path.write_bytes(gzip.compress(CONFIG.encode()) if compressed else CONFIG.encode())
    run = ("run", EXTERNS, "--hex", FRAME, "--json", "--program")
    told = ("--kconfig", path, "--kconfig", "LINUX_KERNEL_VERSION=7")
    status, printed, _ = ebpfjit(*run, "configured", *told)
    assert (status, json.loads(printed)["return_value"]) == (0, (7 + 250 * 10**9) & 0xFFFFFFFF)
    printed = ebpfjit(*run, "letters", *told, "--kconfig", "CONFIG_NET=y")[1]
    assert json.loads(printed)["return_value"] == ord("y") | ord("o") << 8 | 1 << 16


def test_sizes_of_maps(ebpfjit: Command) -> None:
    run = ("run", SIZED, "--hex", FRAME, "--program", "count")
    assert "give one with load(..., maps={'flows': n})" in ebpfjit(*run)[2]
    assert ebpfjit(*run, "--maps", "flows=128")[:2] == (0, "2 (0x2) XDP_PASS\n")
    told = ("--maps", "flows.type=lru_hash", "--maps", "flows.max_entries=0x80")
    assert ebpfjit(*run, *told)[:2] == (0, "2 (0x2) XDP_PASS\n")


def test_commands_that_take_objects_take_them(ebpfjit: Command) -> None:
    one = (SIZED, "--program", "count", "--maps", "flows=128", "--kconfig", "CONFIG_HZ=1", "--btf", TARGET)
    for command in ("run", "disasm", "verify", "listing", "diff"):
        frame = ("--hex", FRAME) if command == "run" else ()
        status, _, error = ebpfjit(command, *one, *frame)
        assert (status, error) == (0, ""), command


@pytest.mark.parametrize(
    ("option", "message"),
    [
        (("--btf", "no/such"), "no/such: No such file or directory"),
        (("--btf", SIZED.with_suffix(".c")), "maps_by_loader.c: the magic number is 0x2a2f"),
        (("--kconfig", "no/such"), "no/such: No such file or directory"),
        (("--kconfig", SIZED), "maps_by_loader.o: not the configuration of a kernel"),
        (("--maps", "flows=0"), "map 'flows' (hash) cannot have 0 entries (EINVAL)"),
        (("--maps", "flows=-1"), "map 'flows' (hash) cannot have -1 entries (EINVAL)"),
        (("--maps", "flows=4294967296"), "cannot have 4294967296 entries (EINVAL)"),
        (("--maps", "flow=5"), "no such map; there are: 'flows'"),
        (("--maps", ".data=5"), "a section of variables has one entry"),
        (("--maps", "flows.key_size=0"), "key_size"),
        (("--maps", "flows.type=99"), "there is no such map type"),
    ],
)
def test_what_does_not_fit_is_one_line(ebpfjit: Command, option: tuple[str, ...], message: str) -> None:
    status, _, error = ebpfjit("run", SIZED, "--hex", FRAME, "--program", "count", *option)
    assert status == 1
    assert error.startswith("ebpfjit: ")
    assert message in error


@pytest.mark.parametrize(
    ("option", "message"),
    [
        (("--kconfig", "CONFIG_HZ=fast"), "--kconfig CONFIG_HZ: 'fast' is neither y, m, n, a number nor"),
        (("--kconfig", "CONFIG_HZ="), "--kconfig CONFIG_HZ: '' is neither"),
        (("--kconfig", 'CONFIG_HZ="'), "is neither y, m, n, a number nor text in double quotes"),
        (("--maps", "flows"), "--maps takes NAME=SIZE, flows=128, not 'flows'"),
        (("--maps", "=5"), "--maps takes NAME=SIZE"),
        (("--maps", "flows=many"), "--maps flows=many: 'many' is not a number"),
        (("--maps", "flows=" + "9" * 5000), "is not a number"),
        (("--maps", "flows.type=table"), "--maps flows.type=table: 'type' is a MapType or one of hash, "),
    ],
)
def test_what_is_written_wrongly_is_wrong_usage(
    ebpfjit: Command, option: tuple[str, ...], message: str
) -> None:
    status, _, error = ebpfjit("run", SIZED, "--hex", FRAME, "--program", "count", *option)
    assert status == 2
    assert message in error


def test_values_that_do_not_fit_their_variables(ebpfjit: Command) -> None:
    run = ("run", EXTERNS, "--hex", FRAME, "--program", "letters")
    error = "externs.o: extern 'CONFIG_NET' in section '.kconfig' cannot be 'm': it is a bool"
    assert error in ebpfjit(*run, "--kconfig", "CONFIG_NET=m")[2]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"CONFIG_HZ=250\nCONFIG_NET\n", "line 2: 'CONFIG_NET': there is no '=' in it"),
        (b"CONFIG_HZ=fast\n", "line 1: 'CONFIG_HZ=fast': 'fast' is neither y, m, n"),
        (gzip.compress(CONFIG.encode())[:-9], "truncated: the compressed file ends early"),
        (b"\x1f\x8b" + bytes(99), "damaged: "),
        (gzip.compress(bytes(1 << 25)), "more than 16777216 bytes, which is too much for a configuration"),
        (b"", "not the configuration of a kernel"),
    ],
    ids=["no value", "no kind", "cut short", "damaged", "too large", "empty"],  # gzip puts the time in
)
def test_a_damaged_configuration(ebpfjit: Command, tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "config"
    path.write_bytes(content)
    status, _, error = ebpfjit("verify", EXTERNS, "--kconfig", path)
    assert status == 1
    assert error.startswith(f"ebpfjit: {path}: {message}")


def test_they_are_for_objects(ebpfjit: Command, tmp_path: Path) -> None:
    text, corpus = tmp_path / "exit.s", tmp_path / "exit.txt"
    for path in (text, corpus):
        path.write_text("exit\n")
    for command, path in (("run", text), ("diff", corpus)):
        status, _, error = ebpfjit(command, path, "--maps", "flows=5")
        assert (status, error) == (1, f"ebpfjit: {path}: assembly text; --maps is for object files")
