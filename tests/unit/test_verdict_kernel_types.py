"""Verdicts on what programs do with the kernel's structs (tests/elf/verdict_kernel_types.c)."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from ebpfjit import load
from ebpfjit.difftest.children import run_forked
from ebpfjit.errors import EbpfError
from ebpfjit.kernel import load_program, unavailable_reason
from ebpfjit.verifier.kernel_types import KernelTypes

OBJECT = Path(__file__).resolve().parents[1] / "elf" / "verdict_kernel_types_clang19.o"
KERNEL_TYPES = Path("/sys/kernel/btf/vmlinux")


def _expected(name: str) -> str:
    return "refused" if name.startswith(("bad_", "lost_")) else "accepted"


def test_programs_whose_names_begin_with_bad_are_refused() -> None:
    programs = load(OBJECT).programs
    found = {
        name: program.verify(seconds=0) for name, program in programs.items() if not name.startswith("lost_")
    }
    assert {name: str(verdict) for name, verdict in found.items() if verdict.status != _expected(name)} == {}
    assert len(found) >= 40


def test_a_weak_kernel_function_that_nobody_has() -> None:
    verdict = load(OBJECT.with_name("externs.o")).programs["weak_reached"].verify(seconds=0)
    assert [error.message.partition("#")[0] for error in verdict.errors] == ["invalid func unknown"]


@pytest.mark.skipif(not KERNEL_TYPES.exists(), reason="this kernel has no types")
def test_a_struct_that_the_kernel_lacks() -> None:
    verdict = load(OBJECT, btf=KERNEL_TYPES).programs["lost_struct"].verify(seconds=0)
    assert [error.message for error in verdict.errors] == [
        "arg#0 reference type('struct of_no_kernel') has no matches"
    ]


@pytest.mark.skipif(not KERNEL_TYPES.exists(), reason="this kernel has no types")
def test_processors_are_as_many_as_the_kernel_is_made_for() -> None:
    there, here = (load(OBJECT, btf=btf).programs["reads_anything"] for btf in (KERNEL_TYPES, None))
    most = KernelTypes(there).most_processors(1 << 20)
    assert most in range(64, 8193, 64)
    assert len(os.sched_getaffinity(0)) <= most
    assert KernelTypes(here).most_processors(8192) == 8192


@pytest.mark.skipif(unavailable_reason() is not None, reason=str(unavailable_reason()))
@pytest.mark.skipif(not KERNEL_TYPES.exists(), reason="this kernel has no types")
def test_linux_says_the_same() -> None:
    def ask() -> dict[str, str]:
        wrong = {}
        for name, program in load(OBJECT, btf=KERNEL_TYPES).programs.items():
            verdict, log = "accepted", ""
            try:
                load_program(program)
            except EbpfError as error:
                verdict, log = "refused", str(error)[-300:]
            if verdict != _expected(name):
                wrong[name] = f"{verdict} {log}"
        return wrong

    assert run_forked(ask, 60).value == {}
