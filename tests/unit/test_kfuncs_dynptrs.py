"""Kernel functions on dynptrs, and stretches that are to be left: on both engines, and as Linux has them."""

from __future__ import annotations

import pytest

from ebpfjit import Environment, ExecutionError
from tests.support.helper_runs import needs_kernel
from tests.support.kfunc_runs import PACKET, in_kernel, program_of, run, value

FROM = {
    "tc": "mov r6, r1\nmov r2, 0\nmov r3, r10\nadd r3, -16\ncall kfunc {bpf_dynptr_from_skb}\nmov r7, r0\n",
    "xdp": "mov r6, r1\nmov r2, 0\nmov r3, r10\nadd r3, -16\ncall kfunc {bpf_dynptr_from_xdp}\nmov r7, r0\n",
}
HERE = "mov r1, r10\nadd r1, -16\n"


def slice_of(name: str, offset: int, size: int, store: str = "") -> str:
    return f"""
        {HERE}
        mov r2, {offset}
        mov r3, r10
        add r3, -64
        mov r4, {size}
        stdw [r10-64], 0
        stdw [r10-56], 0
        call kfunc {{{name}}}
        mov r8, -77
        jeq r0, 0, nothing
        {store}
        ldxb r8, [r0+{size - 1}]
    nothing:
        mov r0, r8
        exit
    """


WAYS = {
    "size": HERE + "call kfunc {bpf_dynptr_size}\nexit",
    "is_null": HERE + "call kfunc {bpf_dynptr_is_null}\nexit",
    "is_rdonly": HERE + "call kfunc {bpf_dynptr_is_rdonly}\nexit",
    "slice": slice_of("bpf_dynptr_slice", 20, 8),
    "slice to the end": slice_of("bpf_dynptr_slice", 56, 8),
    "slice behind it": slice_of("bpf_dynptr_slice", 57, 8),
    "slice to write": slice_of("bpf_dynptr_slice_rdwr", 20, 8, "stb [r0+7], 9"),
    "adjust": HERE
    + "mov r2, 4\nmov r3, 30\ncall kfunc {bpf_dynptr_adjust}\nmov r9, r0\n"
    + slice_of("bpf_dynptr_slice", 10, 8),
    "adjust too far": HERE + "mov r2, 4\nmov r3, 65\ncall kfunc {bpf_dynptr_adjust}\nexit",
    "adjust backwards": HERE + "mov r2, 5\nmov r3, 4\ncall kfunc {bpf_dynptr_adjust}\nexit",
    "adjusted size": HERE
    + "mov r2, 4\nmov r3, 30\ncall kfunc {bpf_dynptr_adjust}\n"
    + HERE
    + "call kfunc {bpf_dynptr_size}\nexit",
    "clone": HERE
    + "mov r2, r10\nadd r2, -32\ncall kfunc {bpf_dynptr_clone}\nmov r9, r0\nmov r1, r10\nadd r1, -32\n"
    + "call kfunc {bpf_dynptr_size}\nadd r0, r9\nexit",
    "copy": HERE + "mov r2, 14\nmov r3, r1\nmov r4, 40\nmov r5, 10\ncall kfunc {bpf_dynptr_copy}\nexit",
    "copy too much": HERE
    + "mov r2, 60\nmov r3, r1\nmov r4, 0\nmov r5, 10\ncall kfunc {bpf_dynptr_copy}\nexit",
    "memset": HERE + "mov r2, 14\nmov r3, 10\nmov r4, 7\ncall kfunc {bpf_dynptr_memset}\nexit",
    "memset too much": HERE + "mov r2, 60\nmov r3, 10\nmov r4, 7\ncall kfunc {bpf_dynptr_memset}\nexit",
    "read": "mov r1, r10\nadd r1, -64\nmov r2, 8\nmov r3, r10\nadd r3, -16\nmov r4, 20\nmov r5, 0\n"
    "stdw [r10-64], 0\ncall 201\nldxb r1, [r10-57]\nadd r0, r1\nexit",
    "write": "mov r1, r10\nadd r1, -16\nmov r2, 20\nmov r3, r10\nadd r3, -64\nmov r4, 8\nmov r5, 0\n"
    "stdw [r10-64], 3\ncall 202\nexit",
}


@needs_kernel
@pytest.mark.parametrize("type", ["tc", "xdp"])
@pytest.mark.parametrize("way", WAYS)
def test_dynptrs_of_packets_as_linux(way: str, type: str) -> None:
    program = program_of(FROM[type] + WAYS[way], type)
    theirs = program.run(PACKET, engine="kernel")
    ours = run(program)
    assert (ours.return_value, ours.data) == (theirs.return_value, theirs.data)


def test_flags_make_no_dynptr() -> None:
    text = FROM["tc"].replace("mov r2, 0", "mov r2, 1") + HERE + "call kfunc {bpf_dynptr_is_null}\nexit"
    assert value(text) == 1


@needs_kernel
def test_a_dynptr_of_the_programs_own_memory_as_linux() -> None:
    """Of a map's value in Linux; here bytes that nothing made are one of nothing."""
    text = "stdw [r10-16], 0\nstdw [r10-8], 0\n" + HERE + "call kfunc {bpf_dynptr_size}\nexit"
    assert value(text) == -22


def test_bytes_that_the_program_wrote_reach_only_what_is_its_own() -> None:
    for first in (0x1000, 1):
        text = f"stdw [r10-16], {first}\nstw [r10-8], 0x10000010\nstw [r10-4], 0x7ffffff0\n" + slice_of(
            "bpf_dynptr_slice", 0, 8
        )
        assert value(text) == -77
    with pytest.raises(ExecutionError, match=r"load of 1 byte.* at 0x1007"):
        value("stdw [r10-16], 0x1000\nstw [r10-8], 16\nstw [r10-4], 0\n" + slice_of("bpf_dynptr_slice", 0, 8))


# -- stretches that are to be left -----------------------------------------------------------------

IRQ = "mov r1, r10\nadd r1, -8\ncall kfunc {{bpf_local_irq_{what}}}\n"
PAIRS = {
    "rcu": "call kfunc {bpf_rcu_read_lock}\ncall kfunc {bpf_rcu_read_unlock}\nmov r0, 3\nexit",
    "preempt": "call kfunc {bpf_preempt_disable}\n" * 2
    + "call kfunc {bpf_preempt_enable}\n" * 2
    + "mov r0, 3\nexit",
    "irq": IRQ.format(what="save") + IRQ.format(what="restore") + "mov r0, 3\nexit",
}


@needs_kernel
@pytest.mark.parametrize("pair", PAIRS)
def test_stretches_that_are_left_as_linux(pair: str) -> None:
    assert value(PAIRS[pair]) == in_kernel(PAIRS[pair]) == 3


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("call kfunc {bpf_rcu_read_lock}\nmov r0, 0\nexit", r"pc 0: bpf_rcu_read_lock takes .* still held"),
        (
            "call kfunc {bpf_preempt_disable}\nmov r0, 0\nexit",
            r"bpf_preempt_disable takes .* still held",
        ),
        (IRQ.format(what="save") + "mov r0, 0\nexit", r"pc 2: bpf_local_irq_save takes .* still held"),
        ("call kfunc {bpf_rcu_read_unlock}\nexit", "bpf_rcu_read_unlock without bpf_rcu_read_lock"),
        ("call kfunc {bpf_preempt_enable}\nexit", "bpf_preempt_enable without bpf_preempt_disable"),
        (IRQ.format(what="restore") + "exit", "the last save was elsewhere"),
    ],
)
def test_what_is_not_left_in_order_is_an_error(text: str, message: str) -> None:
    with pytest.raises(ExecutionError, match=message):
        run(text)


# -- casts -----------------------------------------------------------------------------------------


def test_what_was_cast_is_read_as_the_kernels() -> None:
    text = "lddw r1, 0xffff888000000000\nmov r2, 1\ncall kfunc {bpf_rdonly_cast}\nldxdw r0, [r0+8]\nexit"
    environment = Environment(memory={0xFFFF888000000000: bytes(8) + (77).to_bytes(8, "little")})
    assert value(text, environment=environment) == 77
    assert value(text.replace("[r0+8]", "[r0+800]"), environment=environment) == 0
