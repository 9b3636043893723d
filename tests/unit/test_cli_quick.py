"""What is read without typer is what typer reads; what is not spelled out is left to it."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any, get_args

import pytest

from ebpfjit.cli import full, quick
from ebpfjit.cli.commands import COMMANDS, function_of
from ebpfjit.cli.parameters import REQUIRED, Argument, parameters_of

GOOD = ("x.s", "-", "5", "-5")
ODD = ("0", "+5", "1_0", "0.5", "1e3", "nan", " 7", "", "jit", "linux", "JIT", "a=b", "--", "-o")


def _typers(arguments: list[str]) -> tuple[Any, dict[str, Any]] | None:
    """Return what typer reads; None where it finds something wrong, or helps."""
    read: list[tuple[Any, dict[str, Any]]] = []
    full.run(arguments, lambda function, given: read.append((function, given)))
    return read[0] if read else None


def _words_of(function: Callable[..., Any], chance: random.Random) -> list[str]:
    """Return arguments for a command: mostly what fits, in any order, and what does not."""
    words: list[list[str]] = []
    parameters = parameters_of(function)
    often = min(0.25, 3 / len(parameters))  # each more is one more that may be wrong
    for name, (hint, default) in parameters.items():
        type_, marker = get_args(hint)
        values = [member.value for member in _members(type_)] or GOOD
        value = chance.choice(values if chance.random() < 0.85 else ODD)
        if isinstance(marker, Argument):
            words += [[value]] if chance.random() < 0.9 else []
        elif default is REQUIRED or chance.random() < often:
            spelled = chance.choice(marker.names or (f"--{name.replace('_', '-')}",))
            if type_ is bool:
                off = not marker.names and chance.random() < 0.5
                words.append([f"--no-{name}" if off else spelled])
            else:
                words.append([f"{spelled}={value}"] if chance.random() < 0.3 else [spelled, value])
    chance.shuffle(words)
    words += words[:1] if chance.random() < 0.1 else []
    return [word for some in words for word in some]


def _members(type_: Any) -> list[Any]:
    members = [list(each) for each in (type_, *get_args(type_)) if isinstance(each, type(quick.Enum))]
    return members[0] if members else []


@pytest.mark.parametrize("command", COMMANDS)
def test_what_is_read_quickly_is_what_typer_reads(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    function, chance, read = function_of(command), random.Random(command), 0
    defaults = {name: default for name, (_, default) in parameters_of(function).items()}
    for _ in range(40):
        arguments = [command, *_words_of(function, chance)]
        found = quick.read(arguments)
        if found is None:
            continue
        read += 1
        typers = _typers(arguments)
        assert typers is not None, arguments
        assert (found[0], defaults | found[1]) == typers, arguments
    assert read > 3
    capsys.readouterr()


@pytest.mark.parametrize(
    "arguments",
    [
        *("", "--version", "-h", "run", "run -h", "run x.s --help", "run x.s --nope", "run x.s --limit"),
        *("run x.s --limit 0", "run x.s --engine jot", "run x.s y.s", "rum x.s", "run x.s --json=1"),
    ],
)
def test_what_is_not_spelled_out_is_left_to_typer(arguments: str) -> None:
    assert quick.read(arguments.split()) is None


def test_completion_is_typers(monkeypatch: pytest.MonkeyPatch) -> None:
    assert quick.read(["run", "x.s"]) is not None
    monkeypatch.setenv("_EBPFJIT_COMPLETE", "complete_bash")
    assert quick.read(["run", "x.s"]) is None
