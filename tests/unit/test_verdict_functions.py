"""Verdicts on global functions, and on what they are given: as Linux says."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from ebpfjit import load
from ebpfjit.difftest.verdicts.sample import Sample
from ebpfjit.difftest.verdicts.types import Writer
from ebpfjit.elf.btf import Kind
from ebpfjit.engines import unavailable
from ebpfjit.errors import EbpfError
from ebpfjit.kernel import load_program
from ebpfjit.program import TypeInfo

OBJECT = Path(__file__).resolve().parents[1] / "elf/global_functions.o"
NO_KERNEL = unavailable("kernel")

REFUSED = {
    "gives_too_little": "access to stack R1 off=-8 size=16",
    "calls_unsafe": "R1 invalid mem access 'mem_or_null'",
    "moves_the_packet": "are void after a call of moved()",
    "trusts_the_result": "math between pkt pointer and register with unbounded min value",
    "loses_what_it_compared": "invalid access to packet, off=0 size=1, R6(r=0)",
    "gives_a_pointer_for_a_number": "R1 is not a scalar",
}
ACCEPTED = {"gives_a_value", "gives_the_stack"}


def test_every_program_is_here() -> None:
    assert REFUSED.keys() | ACCEPTED == load(OBJECT).programs.keys()


@pytest.mark.parametrize("name", sorted(ACCEPTED))
def test_accepted(name: str) -> None:
    assert load(OBJECT).program(name).verify().status == "accepted"


@pytest.mark.parametrize("name", REFUSED)
def test_refused(name: str) -> None:
    (error,) = load(OBJECT).program(name).verify(seconds=0).errors
    assert REFUSED[name] in error.message
    assert error.line is not None


@pytest.mark.skipif(bool(NO_KERNEL), reason=f"Linux cannot be asked: {NO_KERNEL}")
@pytest.mark.parametrize("name", [*sorted(ACCEPTED), *REFUSED])
def test_linux_says_the_same(name: str) -> None:
    program = load(OBJECT).program(name)
    if name in ACCEPTED:
        load_program(program)
    else:
        with pytest.raises(EbpfError):
            load_program(program)


def _tagged(text: str, *tags: str) -> str:
    """Return the verdict of a program whose function f() takes a struct task_struct, with some tags."""
    w = Writer()
    number = w.integer("int", 4, is_signed=True)
    pointer = w.add("", Kind.PTR, 0, w.struct("task_struct", 8, ("pid", number, 0)))
    main, called = w.function("main", number, number), w.function("f", number, pointer)
    for tag in tags:
        w.add(f"arg:{tag}", Kind.DECL_TAG, 0, called, 0)
    program = Sample.of_text("tc", text.replace("; ", "\n")).program()
    types = TypeInfo(w.to_bytes(), ((0, main), (max(program.functions), called)))
    return str(replace(program, types=types).verify(seconds=0))


_TASK = "call 158; r1 = r0; call f; r0 = 0; exit; f:; "
_NULL = "r1 = 0; call f; r0 = 0; exit; f:; "


@pytest.mark.parametrize(
    ("text", "tags", "said"),
    [
        (_TASK + "r0 = 0; exit", ("trusted",), "accepted"),
        (_NULL + "r0 = 0; exit", ("trusted",), "expected=ptr_, trusted_ptr_, rcu_ptr_"),
        (_NULL + "r0 = 0; exit", ("trusted", "nullable"), "accepted"),
        (_TASK + "r1 += 8; r0 = 0; exit", ("trusted",), "accepted"),
        (_TASK + "r1 += 8; r0 = 0; exit", ("trusted", "nullable"), "null-check it first"),
        (_NULL + "r0 = 0; exit", ("nullable",), "invalid combination of tags"),
        (_TASK + "r0 = 0; exit", ("trusted", "nonnull"), "invalid combination of tags"),
        (_TASK + "r0 = 0; exit", ("beautiful",), "unsupported set of tags"),
        ("r1 = 8; call f; r0 = 0; exit; f:; r0 = 0; exit", ("untrusted",), "accepted"),
    ],
)
def test_tags_of_arguments(text: str, tags: tuple[str, ...], said: str) -> None:
    assert said in _tagged(text, *tags)


def test_what_an_exception_calls_is_called_by_nothing_else() -> None:
    program = Sample.of_text("cgroup_skb", "r0 = 1\nexit\nr0 = 1\nexit").program()
    assert replace(program, exception_callback=2).verify(seconds=0).is_accepted
    wrong = Sample.of_text("cgroup_skb", "r0 = 1\nexit\nr0 = 7\nexit").program()
    (error,) = replace(wrong, exception_callback=2).verify(seconds=0).errors
    assert error.kind == "result"
    called = Sample.of_text("cgroup_skb", "r1 = 0\ncall f\nexit\nf:\nr0 = 1\nexit").program()
    (error,) = replace(called, exception_callback=max(called.functions)).verify(seconds=0).errors
    assert "cannot call exception cb directly" in error.message


def test_what_is_trusted_is_not_null() -> None:
    text = _TASK + "if r1 == 0 goto wrong; r0 = 0; exit; wrong:; r0 = r9; exit"
    assert "accepted" in _tagged(text, "trusted")
    assert "R9 !read_ok" in _tagged(text, "untrusted")


def test_memory_of_a_dynptr_that_a_function_is_given() -> None:
    w = Writer()
    number = w.integer("int", 4, is_signed=True)
    pointer = w.add("", Kind.PTR, 0, w.struct("bpf_dynptr", 16, ("", number, 0)))
    main, called = w.function("main", number, number), w.function("f", number, pointer)
    text = """
        *(u64 *)(r10 - 8) = 1; r2 = r10; r2 += -8; r1 = map[array]; call 1; if r0 == 0 goto out
        r1 = r0; r2 = 16; r3 = 0; r4 = r10; r4 += -24; call 197; r1 = r10; r1 += -24; call f
        out:; r0 = 0; exit; f:; r2 = 0; r3 = 8; call 203; if r0 == 0 goto none
        r0 = *(u64 *)(r0 + 0); none:; r0 = 0; exit
    """
    program = Sample.of_text("tc", text.replace("; ", "\n")).program()
    types = TypeInfo(w.to_bytes(), ((0, main), (max(program.functions), called)))
    verdict = replace(program, types=types).verify(seconds=0)
    assert verdict.is_accepted, str(verdict)
