"""The plugin as the public runner starts it: a process, hex in, hex out."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from ebpfjit.assembler import assemble
from tests.support import warm

ELF = Path(__file__).parents[1] / "elf" / "text_only.o"
modes = pytest.mark.parametrize("mode", ["--interpret", "--jit"])


def plugin(stdin: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "ebpfjit.cli.conformance_plugin", *arguments]
    return warm.run(command, stdin, text=True)


@modes
def test_memory_and_its_length(mode: str) -> None:
    child = plugin(assemble("ldxb r0, [r1+2]\nlsh r0, 8\nor r0, r2\nexit").hex(" "), "aa bb 11 cc", mode)
    assert (child.stdout, child.returncode) == ("1104\n", 0)


@modes
def test_without_memory_both_are_zero(mode: str) -> None:
    child = plugin(assemble("mov r0, r1\nor r0, r2\nexit").hex(), mode)
    assert (child.stdout, child.returncode) == ("0\n", 0)


@modes
def test_helper_5_returns_its_first_argument(mode: str) -> None:
    child = plugin(assemble("mov r1, -1\ncall 5\nexit").hex(), mode)
    assert child.stdout == f"{2**64 - 1:x}\n"


def test_an_object_file() -> None:
    assert plugin(ELF.read_bytes().hex(), "--elf").returncode == 0


@pytest.mark.parametrize(
    ("stdin", "arguments", "status", "words"),
    [
        ("zz", (), 1, "not hex"),
        ("95", (), 1, "multiple of 8"),
        ("9500000000000000", ("qq",), 1, "the memory is not hex"),
        ("7110020000000000 9500000000000000", ("aa",), 1, "load of 1 byte"),
        ("9500000000000000", ("--fast",), 2, "usage"),
        ("9500000000000000", ("--jit", "--interpret"), 2, "usage"),
        ("00", ("--elf",), 1, ""),
    ],
)
def test_what_is_wrong_is_one_line(stdin: str, arguments: tuple[str, ...], status: int, words: str) -> None:
    child = plugin(stdin, *arguments)
    assert child.returncode == status
    assert child.stdout == ""
    assert words in child.stderr
    assert child.stderr.count("\n") == 1
