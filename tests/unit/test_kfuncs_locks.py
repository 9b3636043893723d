"""Locks of bpf_res_spin_lock: on both engines, and as Linux has them."""

from __future__ import annotations

from pathlib import Path

import pytest

from ebpfjit import ExecutionError, load
from ebpfjit.bits import W32
from ebpfjit.elf import Object
from ebpfjit.kernel import KernelVerifierError, vmlinux  # noqa: F401 - in a text below
from ebpfjit.kernel.vmlinux import Kind  # noqa: F401
from tests.support.helper_runs import needs_kernel
from tests.support.kfunc_runs import program_of, run

OBJECT = Path(__file__).parent.parent / "elf" / "res_locks.o"
needs_the_locks = pytest.mark.skipif(  # as a text: asked when a test runs, the kernel's types are large
    "not vmlinux.find('bpf_res_spin_lock', Kind.FUNC)", reason="this kernel has no bpf_res_spin_lock"
)
IN_KERNEL = pytest.param("kernel", marks=[needs_kernel, needs_the_locks])
FRAME = bytes(64)


def call(obj: Object, name: str, engine: str, same: int = 0) -> int:
    obj.globals["same"] = same
    return W32.signed(obj.program(name).run(FRAME, engine=engine).return_value)


@pytest.mark.parametrize("engine", ["interpreter", "jit", IN_KERNEL])
def test_several_are_held_and_no_one_twice(engine: str) -> None:
    obj = load(OBJECT)
    assert call(obj, "moved", engine) == 42
    assert call(obj, "moved", engine, same=1) == -35
    assert call(obj, "without_interrupts", engine) == 0
    assert call(obj, "without_interrupts", engine, same=1) == -35


REFUSED = {
    "forgotten": "bpf_res_spin_lock takes the lock 'lock' at .* of map 'accounts' .*, which is still held",
    "out_of_order": r"bpf_res_spin_unlock of .*: the lock 'lock' at .* is the one that was taken last",
    "asks_time": "bpf_ktime_get_ns is called while .* is held, since pc 24 .*: bpf_res_spin_unlock first",
    "another_unlock": "bpf_res_spin_unlock of .*: it is for bpf_res_spin_unlock_irqrestore to release",
    "another_restore": "bpf_local_irq_restore is called while .*: bpf_res_spin_unlock_irqrestore first",
    "not_held": "bpf_res_spin_unlock of .*: no lock is held",
    "no_lock": "bpf_res_spin_lock: .* is no bpf_res_spin_lock of map 'accounts'",
}


@pytest.mark.parametrize("name", REFUSED)
@pytest.mark.parametrize("engine", ["interpreter", "jit"])
def test_what_linux_refuses_is_an_error_with_its_line(name: str, engine: str) -> None:
    obj = load(OBJECT)
    with pytest.raises(ExecutionError, match=rf"pc \d+: {REFUSED[name]}.*res_locks\.c:"):
        call(obj, name, engine)
    assert call(obj, "moved", engine) == 42


@needs_kernel
@needs_the_locks
@pytest.mark.parametrize("name", REFUSED)
def test_linux_refuses_it_at_the_same_place(name: str) -> None:
    obj = load(OBJECT)
    with pytest.raises(KernelVerifierError) as theirs:
        call(obj, name, "kernel")
    with pytest.raises(ExecutionError) as ours:
        call(obj, name, "interpreter")
    if name != "forgotten":  # ours says where it was taken
        assert theirs.value.pc == ours.value.pc


LOCKS = "mov r6, r10\nadd r6, -8\nmov r7, r10\nadd r7, -16\nmov r8, r10\nadd r8, -24\n"


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        (
            "mov r1, r6\ncall kfunc {bpf_res_spin_lock}\nmov r1, r7\ncall 93\nexit",
            "pc 9: bpf_spin_lock: the lock at .* is held already; one at a time",
        ),
        (
            "mov r1, r6\ncall kfunc {bpf_res_spin_lock}\nmov r1, r6\ncall 94\nexit",
            "pc 9: bpf_spin_unlock of .*: the lock at .* is the one that is held",
        ),
        (
            "mov r1, r6\nmov r2, r8\ncall kfunc {bpf_res_spin_lock_irqsave}\n"
            "mov r1, r7\nmov r2, r8\ncall kfunc {bpf_res_spin_lock_irqsave}\nexit",
            "pc 11: bpf_res_spin_lock_irqsave to .*, which holds flags already",
        ),
        (
            "mov r1, r6\nmov r2, r8\ncall kfunc {bpf_res_spin_lock_irqsave}\n"
            "mov r1, r6\nmov r2, r7\ncall kfunc {bpf_res_spin_unlock_irqrestore}\nexit",
            "pc 11: bpf_res_spin_unlock_irqrestore of .*: the last save was elsewhere",
        ),
        (
            "mov r1, r8\ncall kfunc {bpf_local_irq_save}\nmov r1, r6\nmov r2, r7\n"
            "call kfunc {bpf_res_spin_lock_irqsave}\nmov r1, r6\nmov r2, r8\n"
            "call kfunc {bpf_res_spin_unlock_irqrestore}\nexit",
            "pc 13: bpf_res_spin_unlock_irqrestore of .*: the last save was elsewhere",
        ),
    ],
)
@pytest.mark.parametrize("engine", ["interpreter", "jit"])
def test_other_misuse(text: str, wrong: str, engine: str) -> None:
    with pytest.raises(ExecutionError, match=wrong):
        program_of(LOCKS + text).run(FRAME, engine=engine)


def test_a_lock_that_cannot_be_had_takes_nothing() -> None:
    again = "mov r1, r6\ncall kfunc {bpf_res_spin_lock}\n"
    end = "mov r7, r0\nmov r1, r6\ncall kfunc {bpf_res_spin_unlock}\nmov r0, r7\nexit"
    assert W32.signed(run(LOCKS + 3 * again + end).return_value) == -35


@pytest.mark.parametrize("engine", ["interpreter", "jit"])
def test_so_many_are_held_and_no_more(engine: str) -> None:
    text = """
        mov r6, r10
        add r6, -512
    again:
        mov r1, r6
        call kfunc {bpf_res_spin_lock}
        add r6, 4
        jlt r6, r10, again
        exit
    """
    with pytest.raises(ExecutionError, match="pc 3: bpf_res_spin_lock, the 65th in a row"):
        program_of(text).run(FRAME, engine=engine)
