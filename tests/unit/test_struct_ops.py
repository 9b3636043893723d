"""Operations of structs (struct_ops), called with the arguments of their member's prototype, as by Linux."""

from __future__ import annotations

import struct
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ebpfjit import InputError, LoadError, MemoryFault, Object, Program, Result, load
from ebpfjit.assembler import assemble
from ebpfjit.kernel import unavailable_reason, vmlinux

OBJECT = Path(__file__).parents[1] / "elf" / "dummy_ops.o"
NO_KERNEL = unavailable_reason() or ("" if vmlinux.PATH.exists() else f"there is no {vmlinux.PATH}")
here = pytest.mark.parametrize("engine", ["interpreter", "jit"])
everywhere = pytest.mark.parametrize(
    "engine",
    [
        "interpreter",
        "jit",
        pytest.param("kernel", marks=pytest.mark.skipif(bool(NO_KERNEL), reason=NO_KERNEL)),
    ],
)
NULL_SEEN = 0xF2F3F4F5


@pytest.fixture(scope="module")
def obj() -> Object:
    return load(OBJECT)


def call(obj: Object, name: str, engine: str, *arguments: Any) -> Result:
    return obj.programs[name].run(engine=engine, context={"args": arguments})


@everywhere
def test_what_an_argument_points_to_is_there_and_comes_back(obj: Object, engine: str) -> None:
    for before, after in (
        ({"val": -5}, {"val": 0x5A}),
        ((-5).to_bytes(4, "little", signed=True), (0x5A).to_bytes(4, "little")),
    ):
        result = call(obj, "test_1", engine, before)
        assert result.return_value == 2**32 - 5
        assert result.context == {"args": [after]}
        assert result.data == bytes(8)  # no address of this process
    for nothing in (None, 0):
        result = call(obj, "test_1", engine, nothing)
        assert (result.return_value, result.context) == (NULL_SEEN, {"args": [0]})


@everywhere
def test_numbers_are_what_the_prototype_says(obj: Object, engine: str) -> None:
    """A short is unsigned, a char is not; numbers of either sign are taken."""
    result = call(obj, "test_2", engine, {"val": 7}, -5, 65535, 0x80, -1)
    assert result.context == {"args": [{"val": 7}, -5, 65535, -128, 2**64 - 1]}
    seen = struct.pack("<5Q", *obj.globals["seen"])
    assert struct.unpack("<5q", seen) == (7, -5, 65535, -128, -1)
    assert call(obj, "test_sleepable", engine, {"val": 1}).return_value == 3


@everywhere
def test_what_does_not_fit_the_prototype(obj: Object, engine: str) -> None:
    declared = r"bpf_dummy_ops.test_2 takes \(struct bpf_dummy_ops_state \*, int, .*short.*"
    for name, arguments, message in (
        ("test_2", (None,), declared + r", char, .*\), not \(None,\) \(EINVAL\)"),
        ("test_2", (None, 1 << 32, 0, 0, 0), r"args\[1\] \(int\): takes numbers of 32 bits, not 4294967296"),
        ("test_2", (None, "x", 0, 0, 0), r"args\[1\] \(int\): 'x' is no whole number"),
        ("test_1", (b"12345",), r"test_1: args\[0\] .*: 5 bytes were given, and there are 4 of it"),
        ("test_1", ({"value": 1},), r"args\[0\] .*: struct bpf_dummy_ops_state has no member 'value'"),
        ("test_1", (1 << 64,), r"args\[0\] .*: 18446744073709551616 is no address"),
        ("test_1", (1.5,), r"args\[0\] .*: .*'float'"),
    ):
        with pytest.raises(InputError, match=message):
            call(obj, name, engine, *arguments)
    with pytest.raises(InputError, match=r"get the words of their arguments as data, or context="):
        obj.programs["test_1"].run(engine=engine, context={"state": 1})


@here
def test_it_has_no_more_than_that(obj: Object, engine: str) -> None:
    test_1 = obj.programs["test_1"]
    beyond = assemble("ldxdw r1, [r1]\nstdw [r1], 5\nmov r0, 0\nexit")
    with pytest.raises(MemoryFault, match=r"bpf_dummy_ops.test_1, args\[0\] \(4 bytes\)"):
        replace(test_1, code=beyond, lines={}).run(engine=engine, context={"args": [{"val": 5}]})
    assert test_1.run(bytes(8), engine=engine).return_value == NULL_SEEN  # words as data


@here
def test_other_structs_have_theirs(obj: Object, engine: str) -> None:
    assert call(obj, "ssthresh", engine, b"any bytes").context == {"args": [b"any bytes"]}
    with pytest.raises(InputError, match=r"tcp_congestion_ops.ssthresh: .*nothing says what members it has"):
        call(obj, "ssthresh", engine, {"member": 1})
    unknown = Program(assemble("mov r0, 0\nexit"), "bare", "struct_ops/bare", "struct_ops")
    with pytest.raises(InputError, match=r"'bare': its types do not say which operation it is"):
        unknown.run(engine=engine, context={"args": []})


def test_where_no_member_points_to_it_the_section_says(obj: Object) -> None:
    """As libbpf did before it looked at what points to a program."""
    untold = replace(obj.programs["test_1"], operation=None)
    assert untold.run(context={"args": [{"val": 6}]}).return_value == 6


@pytest.mark.skipif(bool(NO_KERNEL), reason=NO_KERNEL)
def test_linux_is_given_no_address_that_somebody_made_up(obj: Object) -> None:
    """It would write there: into this process."""
    test_1 = obj.programs["test_1"]
    message = r"bpf_dummy_ops.test_1: Linux writes 4 bytes where its first argument points to: give these"
    for data, fields in ((struct.pack("<Q", 4096), None), (b"", {"args": [4096]})):
        with pytest.raises(InputError, match=message):
            test_1.run(data, engine="kernel", context=fields)
    with pytest.raises(LoadError, match="has no test run for operations but those of struct bpf_dummy_ops"):
        call(obj, "ssthresh", "kernel", None)


@pytest.mark.skipif(bool(NO_KERNEL), reason=NO_KERNEL)
def test_a_program_for_this_kernel_has_its_prototypes() -> None:
    there = load(OBJECT, btf=vmlinux.PATH)
    for engine in ("interpreter", "jit", "kernel"):
        assert call(there, "test_1", engine, {"val": 9}).return_value == 9
