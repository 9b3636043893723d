"""`context=` by a program's own struct: tracepoints, raw tracepoints, syscall programs."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ebpfjit import InputError, MemoryFault, Object, Program, Result, load
from ebpfjit.assembler import assemble
from ebpfjit.cli import app
from ebpfjit.kernel import unavailable_reason

OBJECT = Path(__file__).parents[1] / "elf" / "named_contexts.o"
TARGET = OBJECT.with_name("named_contexts_target.o")
NO_KERNEL = unavailable_reason()
here = pytest.mark.parametrize("engine", ["interpreter", "jit"])
everywhere = pytest.mark.parametrize(
    "engine",
    [
        "interpreter",
        "jit",
        pytest.param("kernel", marks=pytest.mark.skipif(NO_KERNEL is not None, reason=str(NO_KERNEL))),
    ],
)

ENTRY = {"type": 0, "flags": 0, "preempt_count": 0, "pid": -3}
ENTERED = {"id": 5, "ent": {"pid": -3}, "args": [-100, 7, 0, 0, 0, 0], "__data": "ab"}
OPTIONS = {
    "number": 1 << 31, "small": -2, "low": 5, "is_set": True, "name": "abc", "list": [1, 2, 3],
    "point": {"x": -5}, "half": 7, "color": 1, "text": 77,
}  # fmt: skip


@pytest.fixture(scope="module")
def obj() -> Object:
    return load(OBJECT)


@pytest.fixture(scope="module")
def moved() -> Object:
    return load(OBJECT, btf=TARGET)


def run(obj: Object, name: str, engine: str, fields: dict[str, Any], data: bytes = b"") -> Result:
    return obj.programs[name].run(data, engine=engine, context=fields)


@here
def test_a_tracepoint_gets_the_struct_that_its_function_takes(obj: Object, engine: str) -> None:
    result = run(obj, "entered", engine, ENTERED)
    assert result.return_value == 5 - 3 - 100 + 7 + ord("b")
    assert result.context == {"ent": ENTRY, "id": 5, "args": [2**64 - 100, 7, 0, 0, 0, 0], "__data": b"ab"}
    assert len(result.data) == 66


@here
def test_it_is_the_kernel_s_where_the_program_is_made_for_one(moved: Object, engine: str) -> None:
    result = run(moved, "entered", engine, {**ENTERED, "before": 1000})
    assert result.return_value == 5 - 3 - 100 + 7 + ord("b")
    assert result.context["before"] == 1000
    assert result.context["ent"] == {**ENTRY, "more": 0}


@everywhere
@pytest.mark.parametrize(("name", "value"), [("raw", 3 - 4), ("words", -4)])
def test_a_raw_tracepoint_has_words(obj: Object, engine: str, name: str, value: int) -> None:
    """Its struct is Linux's, also where the function takes a pointer to words."""
    result = run(obj, name, engine, {"args": [3, -4]})
    assert result.return_value == value & 0xFFFFFFFF
    assert result.context == {"args": [3, 2**64 - 4]}
    with pytest.raises(InputError, match=r"bpf_raw_tracepoint_args has 96 bytes at most, and 104 .*EINVAL"):
        run(obj, name, engine, {"args": [0] * 13})


@everywhere
def test_a_syscall_program_changes_its_own_struct(obj: Object, moved: Object, engine: str) -> None:
    """Bit-fields, text, arrays, structs inside; the kernel's struct of that name is another."""
    for loaded in (obj, moved):
        result = run(loaded, "change", engine, OPTIONS)
        assert result.return_value == 0
        assert result.context == {
            "number": (1 << 31) + 3, "small": -2, "low": 5, "high": 17, "is_set": True,
            "name": b"abc\0\0\0\0z", "list": [1, 2, 3], "point": {"x": -5, "y": -6},
            "whole": 2**64 - 1, "half": 2**32 - 1, "color": 2,
        }  # fmt: skip
        assert result.data[56:64] == (77).to_bytes(8, "little")


@everywhere
def test_the_array_at_the_end_is_as_long_as_what_is_given(obj: Object, engine: str) -> None:
    assert run(obj, "last", engine, {"tail": b"abc"}).return_value == ord("c")
    assert run(obj, "last", engine, {"number": 5}, bytes(64) + b"abc").return_value == ord("c")
    error = MemoryFault if engine != "kernel" else InputError
    with pytest.raises(error):
        run(obj, "last", engine, {"tail": b"ab"})


@everywhere
def test_fields_go_over_bytes(obj: Object, engine: str) -> None:
    result = run(obj, "last", engine, {"number": 2}, b"\1" * 70)
    assert result.return_value == 1
    assert result.data == b"\2\0\0\0" + b"\1" * 66


@pytest.mark.parametrize(
    ("name", "fields", "message"),
    [
        ("change", {"lis": 1}, "field 'lis' of options is not there; it has: number, small, low, high"),
        ("change", {"number": 1 << 32}, "context field number: takes numbers of 32 bits, not 4294967296"),
        ("change", {"number": "x"}, "context field number: 'x' is no whole number"),
        ("change", {"low": 8}, "context field low: 8 is not from 0 to 7"),
        ("change", {"list": [1]}, "context field list: .* is not a sequence of 3 elements"),
        ("change", {"name": "too long it is"}, "context field name: 14 bytes do not fit 8"),
        ("change", {"point": {"z": 1}}, "context field point: .* has no member 'z'"),
        ("change", {"text": b"abc"}, r"context field text: an address, not b'abc'; .*Environment\(memory="),
        ("change", {"tail": 5}, "context field tail: 5 is no sequence of its elements"),
        ("change", {"tail": bytes(1 << 16)}, "options has 65535 bytes at most, and 65600 were given"),
        ("untyped", {"x": 1}, r"its function takes void \*, so that its context has no names: give the"),
    ],
)
def test_what_cannot_be_given(obj: Object, name: str, fields: dict[str, Any], message: str) -> None:
    for engine in ("interpreter", *(["kernel"] if NO_KERNEL is None and name == "change" else [])):
        with pytest.raises(InputError, match=message):
            run(obj, name, engine, fields)


def test_bytes_are_the_whole_struct_or_none(obj: Object) -> None:
    with pytest.raises(InputError, match="options has 64 bytes, and 3 were given: give all, or fields"):
        run(obj, "change", "jit", {"number": 1}, bytes(3))


def test_without_types_there_are_no_names(obj: Object) -> None:
    code = assemble("ldxdw r0, [r1+8]\nexit")
    with pytest.raises(InputError, match="program 'bare': no types, so that its context has no names"):
        Program(code, "bare", type="syscall").run(context={"x": 1})
    assert Program(code, "bare", type="raw_tracepoint").run(context={"args": [1, 9]}).return_value == 9
    types = obj.programs["change"].types
    assert types is not None
    damaged = replace(obj.programs["change"], types=replace(types, btf=types.btf[:-900]))
    with pytest.raises(InputError, match=r"program 'change': what its context looks like: .*truncated"):
        damaged.run(context={"number": 1})


def test_the_command_line_prints_them(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["run", str(OBJECT), "--program", "change", "--context", "number=3", "--json"]
    monkeypatch.setattr("sys.argv", ["ebpfjit", *arguments])
    assert app.main() == 0
    shown = json.loads(capsys.readouterr().out)["context"]
    assert (shown["number"], shown["name"], shown["point"]) == (3, bytes(8).hex(), {"x": 0, "y": 0})
