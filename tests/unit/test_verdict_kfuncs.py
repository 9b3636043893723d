"""Verdicts on calls of kernel functions: programs as text (tests/verifier/kfuncs), and objects."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import pytest

from ebpfjit import Program, load
from ebpfjit.difftest.children import run_forked
from ebpfjit.difftest.verdicts import texts
from ebpfjit.errors import EbpfError
from ebpfjit.kernel import load_program, unavailable_reason
from ebpfjit.literals import EngineName
from ebpfjit.runtime.kfuncs.table import kfuncs
from ebpfjit.verifier.kernel_functions import OLDER, kernel_functions

TESTS = Path(__file__).resolve().parents[1]
FILES = sorted((TESTS / "verifier" / "kfuncs").glob("*.txt"))

REFUSED = {
    "exceptions": "from_loop from_loop_with_callback from_loop_in_loop from_each from_timer holding",
    "iterators": "",
    "kptr_variables": "",
    "misplaced": "leaves_numbers leaves_bits leaves_what_failed begins_twice jumps_away",
    "objects": "exchanged forgotten after_drop dropped_twice after_unlock wrong_struct without_lock"
    " new_under_lock",
    "percpu_objects_clang19": "forgotten owned direct dropped_otherwise too_large with_pointers with_structs",
    "res_locks": "forgotten out_of_order asks_time another_unlock another_restore not_held no_lock",
    "verdict_objects": (
        "push_nolock push_otherlock push_write_after push_drop push_twice push_wrong_off"
        " push_wrong_struct pop_leak pop_drop_node pop_drop_in_lock pop_node_write front_after front_drop"
        " front_push field_past field_node field_neg field_var drop_twice drop_mid drop_null"
        " tree_add_range tree_add_unlocks tree_add_helper tree_add_past tree_add_nolock tree_add_list"
        " tree_remove_leak ref_none ref_leak ref_borrowed_null obj_lock_other obj_lock_drop kptr_leak"
        " kptr_wrong kptr_load_drop kptr_store kptr_half kptr_borrowed kptr_after_use kptr_sub"
    ),
    "verdict_kfuncs": (
        "wq_othermap wq_cb1 wq_cbp wq_cbwq wq_badoff wq_read t_xchg_leak t_xchg_cg t_xchg_rel_wrong"
        " t_xchg_null t_xchg_twice t_load_release t_load_rcu_gone c_anc_after r_noleak r_unchecked r_after"
        " r_two_leak r_other_head r_relookup r_mixed r_write_lock spin_rcu static_release_twice"
        " static_makes_leak static_lock_leak loop_leak loop_rel percpu_load arr_past bad_type bad_type0"
        " var_type wq_kp t_load_sys"
    ),
}
"""Programs of objects that are refused; all others of them that call kernel functions are accepted."""


@cache
def expected(path: Path) -> texts.Expected:
    """Return what a file expects."""
    return texts.read(path)


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.stem))
def test_a_program_gets_its_verdict(path: Path) -> None:
    wanted = expected(path)
    found = wanted.sample.program().verify(limit=20_000, seconds=0)
    assert found.status == wanted.verdict, str(found)
    if wanted.verdict == "refused":
        assert (found.errors[0].kind, found.errors[0].pc) == (wanted.kind, wanted.pc), str(found)


@pytest.mark.parametrize("name", REFUSED)
def test_programs_of_objects(name: str) -> None:
    found = {each: program.verify(seconds=0).status for each, program in _calling(name).items()}
    refused = REFUSED[name].split()
    assert found == {each: "refused" if each in refused else "accepted" for each in found}
    assert set(refused) <= set(found)


def _calling(name: str) -> dict[str, Program]:
    programs = load(TESTS / "elf" / f"{name}.o").programs
    is_whole = name.startswith("verdict_")
    return {each: one for each, one in programs.items() if (one.kfuncs or is_whole) and not one.refusals}


@pytest.mark.parametrize("engine", ["interpreter", "jit"])
@pytest.mark.parametrize("name", ["verdict_objects", "verdict_kfuncs"])
def test_what_is_accepted_runs_without_a_fault(name: str, engine: EngineName) -> None:
    for each, program in _calling(name).items():
        if each not in REFUSED[name].split():
            program.run(b"" if program.type == "syscall" else bytes(64), engine=engine)


@pytest.mark.skipif(unavailable_reason() is not None, reason=str(unavailable_reason()))
def test_linux_says_the_same() -> None:
    def ask() -> list[str]:
        found = []
        for path in FILES:
            verdict, log = "accepted", ""
            try:
                load_program(expected(path).sample.program())
            except EbpfError as error:
                verdict, log = "refused", str(error)
            if verdict != expected(path).linux_verdict or expected(path).linux not in log:
                found.append(f"{path.stem}: {verdict} {log}")
        return found

    ended = run_forked(ask, 60)
    assert ended.value == []


def test_each_kernel_function_has_a_row() -> None:
    rows = kernel_functions()
    assert rows.keys() | OLDER >= kfuncs().keys()
    assert not rows.keys() & OLDER
    for name, row in ((name, row) for name, row in rows.items() if name in kfuncs()):
        more = [each for each in row.arguments[kfuncs()[name].arguments :] if each.kind != "ignored"]
        assert [each.kind for each in more] in ([], ["number"]), name  # what clang's macros put behind
        assert len(row.arguments) >= kfuncs()[name].arguments, name
