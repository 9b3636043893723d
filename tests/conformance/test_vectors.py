"""The project's own vectors (vectors/*.txt; support/vectors.py says how they are written), on every engine.

Expectations were written from RFC 9669 and Linux; the kernel, where it may be used, confirms them.
"""

from __future__ import annotations

import re
from dataclasses import replace
from functools import cache

import pytest
from support.machines import ENGINES, MACHINE_CODE, Job, Outcome, constant, run_jobs, word
from support.vectors import Case, Vector, all_vectors
from support.whole import WHOLE

from ebpfjit.errors import EbpfError
from ebpfjit.isa.table import TABLE
from ebpfjit.program import Program, decode

# What is compiled for all of its tests is compiled once.
pytestmark = pytest.mark.xdist_group("vectors")

try:
    from ebpfjit.kernel import run_program, unavailable_reason
except ImportError as missing:
    NO_KERNEL: str | None = f"ebpfjit.kernel is not there: {missing}"
else:
    NO_KERNEL = unavailable_reason()

#  rows that the kernel does not run in this form, and why
NOT_IN_THE_KERNEL = {
    "CALL": "its helpers are others",
    "CALL_KFUNC": "ids are of one kernel's BTF",
    "CALLX": "Linux has no indirect calls",
    "ADDR_SPACE_CAST": "it wants a map, an arena",
    "LDDW_MAP_FD": "descriptors are of one process",
    "LDDW_MAP_VALUE": "descriptors are of one process",
    "LDDW_VARIABLE": "ids are of one kernel's BTF",
    "LDDW_CODE": "an argument of helpers only",
    "LDDW_MAP_IDX": "there is no fd_array",
    "LDDW_MAP_IDX_VALUE": "there is no fd_array",
    "LDABSDW": "rbpf's alone",
    "LDINDDW": "rbpf's alone",
}


VECTORS = all_vectors()
CASES = [one for vector in VECTORS for one in vector.cases]


def rows_of(cases: list[Case]) -> set[str]:
    """The names of the rows that the programs of these cases consist of."""
    return {insn.row.name for one in cases for insn in decode(one.code) if insn.row is not None}


FIRST = {
    one.name
    for vector in VECTORS
    for one in {frozenset(rows_of([c])): c for c in vector.cases[::-1]}.values()
}
SOME_ENGINES = ("interpreter", "checked", "baseline", "hardened", "unchecked-plain")


def job(one: Case) -> Job:
    """Return what runs a case: the first of a vector on every engine, others of the same rows on some."""
    made = one.job()
    if WHOLE or one.name in FIRST:
        return made
    return replace(made, engines=tuple(name for name in made.engines if name in SOME_ENGINES))


@cache
def outcomes() -> dict[str, dict[str, Outcome]]:
    """What became of each case, by its name and the engine; all run in one child."""
    found = run_jobs(job(one) for one in CASES)
    return {
        one.name: {engine: runs[0] for engine, runs in by_engine.items()}
        for one, by_engine in zip(CASES, found, strict=True)
    }


def by_title(vector: Vector) -> str:
    return vector.title


def test_names_are_unique() -> None:
    names = [one.name for one in CASES]
    assert sorted(set(names)) == sorted(names)


@pytest.mark.parametrize("vector", VECTORS, ids=by_title)
def test_vector(vector: Vector) -> None:
    """On the interpreter and on machine code: checked and unchecked, with and without BMI2."""
    complaints = [
        f"{one.name}: {engine}: {complaint} ({outcome})"
        for one in vector.cases
        for engine, outcome in outcomes()[one.name].items()
        if (complaint := one.complaint(outcome.value, outcome.memory, outcome.error, outcome.pc))
    ]
    assert not complaints, "\n".join(complaints)
    for one in vector.cases:
        assert set(outcomes()[one.name]) == set(job(one).engines)


def run_in_the_kernel(one: Case) -> str:
    try:
        result = run_program(Program(one.code), one.memory or b"")
    except EbpfError as error:
        return f"the kernel refuses it: {error}"
    return one.complaint(result.return_value, result.data)


@pytest.mark.skipif(NO_KERNEL is not None, reason=str(NO_KERNEL))
@pytest.mark.parametrize("vector", [v for v in VECTORS if v.cases[0].kernel], ids=by_title)
def test_vector_in_the_kernel(vector: Vector) -> None:
    """The kernel says the same: the expectations are not ours alone."""
    complaints = [f"{one.name}: {text}" for one in vector.cases if (text := run_in_the_kernel(one))]
    assert not complaints, "\n".join(complaints)


def test_every_row_of_the_table_has_a_vector_that_was_executed() -> None:
    for engine in ENGINES:
        finished = [
            one for one in CASES if engine in outcomes()[one.name] and not outcomes()[one.name][engine].error
        ]
        assert {row.name for row in TABLE} - rows_of(finished) == set(), f"without a vector on {engine}"


def test_every_row_that_linux_knows_has_a_vector_for_the_kernel() -> None:
    assert {row.name for row in TABLE} - rows_of([one for one in CASES if one.kernel]) == set(
        NOT_IN_THE_KERNEL
    )


def test_every_row_is_named_by_a_title() -> None:
    """So that a reader finds what covers a row; families share a vector where only sizes differ."""
    titles = "\n".join(vector.title for vector in VECTORS)
    families = re.compile(r"^(LOAD_ACQ|STORE_REL)(B|H|W|DW)$")
    names = {families.sub(r"\1", row.name) for row in TABLE}
    assert {name for name in names if name not in titles} == set()


def test_may_goto_falls_through_as_often_as_in_linux() -> None:
    """BPF_MAX_LOOPS is 8 * 1024 * 1024 (include/linux/bpf.h): in machine code a matter of moments."""
    code = word("ADD64_K", 0, imm=1) + word("MAY_GOTO", offset=1) + word("JA", offset=-3) + word("EXIT")
    (result,) = run_jobs([Job("may_goto", code, engines=tuple(MACHINE_CODE), limit=None)])
    assert {engine: runs[0].value for engine, runs in result.items()} == dict.fromkeys(
        MACHINE_CODE, 8 * 1024 * 1024 + 1
    )


def test_a_limit_stops_every_engine_at_the_same_block() -> None:
    code = constant(0, 5) + word("ADD64_K", 0, imm=1) + word("JA", offset=-2) + word("EXIT")
    (result,) = run_jobs([Job("endless", code, limit=100)])
    assert {(runs[0].error, runs[0].pc) for runs in result.values()} == {("BudgetExhausted", 2)}
