"""Kernel functions on strings: on both engines, and as Linux has them."""

from __future__ import annotations

import errno

import pytest

from tests.support.helper_runs import needs_kernel
from tests.support.kfunc_runs import PACKET, program_of, value

FIRST, SECOND = -64, -128
TEXTS = [b"", b"a", b"hello world", b"hello World", b"lo", b"world", b"olleh", b"h\xc3\xa9llo", b"zz", b"ell"]


def stores(at: int, text: bytes) -> str:
    padded = text.ljust(16, b"\0")
    words = (int.from_bytes(padded[each : each + 8], "little") for each in (0, 8))
    return "".join(f"lddw r1, {word:#x}\nstxdw [r10{at + 8 * n}], r1\n" for n, word in enumerate(words))


def called(name: str, *arguments: str) -> str:
    """A call, its result mixed into r6."""
    moves = "".join(
        f"mov r{n}, r10\nadd r{n}, {argument[1:]}\n"
        if argument.startswith("@")
        else f"mov r{n}, {argument}\n"
        for n, argument in enumerate(arguments, 1)
    )
    return f"{moves}call kfunc {{{name}}}\nmul r6, 131\nadd r6, r0\n"


ONE, OTHER = f"@{FIRST}", f"@{SECOND}"
PAIRS = ("bpf_strcmp", "bpf_strcasecmp", "bpf_strspn", "bpf_strcspn", "bpf_strstr")
SEARCHES = ("bpf_strchr", "bpf_strchrnul", "bpf_strrchr")
CALLS = (
    *[(name, ONE, OTHER) for name in PAIRS],
    *[("bpf_strnstr", ONE, OTHER, str(count)) for count in (0, 2, 5, 11, 12, 40)],
    *[(name, ONE, str(c)) for name in SEARCHES for c in (0, 108, 120, 0xC3)],
    *[("bpf_strnchr", ONE, str(count), "111") for count in (0, 4, 5, 30)],
    *[("bpf_strnlen", ONE, str(count)) for count in (0, 3, 11, 12, 60)],
    ("bpf_strlen", ONE),
)  # fmt: skip


@needs_kernel
@pytest.mark.parametrize("first", TEXTS[2:5])
def test_strings_as_linux(first: bytes) -> None:
    for second in TEXTS:
        text = stores(FIRST, first) + stores(SECOND, second) + "mov r6, 0\n"
        text += "".join(called(*each) for each in CALLS) + "mov r0, r6\nexit"
        program = program_of(text)
        theirs = program.run(PACKET, engine="kernel").return_value
        for engine in ("interpreter", "jit"):
            assert program.run(PACKET, engine=engine).return_value == theirs, (first, second)


@needs_kernel
@pytest.mark.parametrize("name", sorted({each[0] for each in CALLS}))
def test_what_is_no_memory_as_linux(name: str) -> None:
    for address in ("0", "4096"):
        other = address if name in ("bpf_strcmp", "bpf_strcasecmp", "bpf_strspn", "bpf_strstr") else "5"
        text = f"mov r6, 0\n{called(name, address, other, '5')}mov r0, r6\nexit"
        program = program_of(text)
        theirs = program.run(PACKET, engine="kernel").return_value
        assert value(program) & 0xFFFFFFFF == theirs


def test_strings_that_run_out_of_memory() -> None:
    text = "lddw r1, 0x4141414141414141\nstxdw [r10-8], r1\nmov r6, 0\n"
    assert value(text + called("bpf_strlen", "@-8") + "mov r0, r6\nexit") == -errno.EFAULT
    assert value(text + called("bpf_strnlen", "@-8", "8") + "mov r0, r6\nexit") == 8
    assert value(text + called("bpf_strchr", "@-8", "66") + "mov r0, r6\nexit") == -errno.EFAULT
