"""Checks that are made once before a loop: for which loops, and that nothing else changes by it.

Each program runs on both engines, on memory of every size near its bounds, in a child: where too little is
asked before a loop a fault is missing, or a byte is changed that is not the program's.
"""

from __future__ import annotations

import re

import pytest

from ebpfjit import EbpfVmRaw, MemoryFault, Program
from ebpfjit.analysis.facts import analyse
from ebpfjit.analysis.verified import prepare
from ebpfjit.assembler import assemble
from ebpfjit.difftest.case import Case, Input
from ebpfjit.difftest.check import Checker
from ebpfjit.difftest.children import run_forked

HOISTED = {
    "a pointer that rises": "mov r3, 0\nl: stxb [r1], r3\nadd r1, 1\nadd r3, 1\njlt r3, 40, l\nexit",
    "up to and with": "mov r3, 0\nl: stxb [r1], r3\nadd r1, 1\nadd r3, 1\njle r3, 40, l\nexit",
    "until they meet": "mov r3, 0\nl: stxw [r1], r3\nadd r1, 4\nadd r3, 4\njne r3, 40, l\nexit",
    "a bound in a register": (
        "mov r4, r2\nrsh r4, 1\nmov r3, 0\nl: ldxh r5, [r1]\nadd r1, 2\nadd r3, 1\njlt r3, r4, l\nexit"
    ),
    "tested at the top": (
        "mov r3, 0\nl: jge r3, 40, out\nstxb [r1+2], r3\nadd r1, 1\nadd r3, 1\nja l\nout: exit"
    ),
    "entered in the middle": (
        "mov r3, 0\nja m\nl: add r1, 1\nadd r3, 1\njge r3, 40, out\nm: stxb [r1], r3\nja l\nout: exit"
    ),
    "downwards": (
        "add r1, 40\nmov r3, 40\nl: sub r1, 4\nldxw r4, [r1]\nadd r0, r4\nsub r3, 1\njgt r3, 30, l\nexit"
    ),
    "downwards, with the end": (
        "add r1, 40\nmov r3, 40\nl: stxb [r1], r3\nsub r1, 1\nsub r3, 1\njge r3, 2, l\nexit"
    ),
    "the counter is the pointer": "mov r3, r1\nadd r3, r2\nl: stb [r1], 7\nadd r1, 1\njne r1, r3, l\nexit",
    "signed, down to zero": (
        "add r1, 40\nmov r3, 39\nl: sub r1, 1\nldxb r4, [r1]\nsub r3, 1\njsgt r3, -1, l\nexit"
    ),
    "a sum": (
        "ldxb r6, [r1]\nmov r3, 0\nl: mov r4, r1\nadd r4, r3\nldxb r5, [r4+3]\nadd r3, 1\njlt r3, r6, l\nexit"
    ),
    "an index times four": (
        "ldxb r6, [r1]\nmov r3, 0\nl: mov r4, r3\nlsh r4, 2\nadd r4, r1\nldxw r5, [r4]\nadd r0, r5\n"
        "add r3, 1\njlt r3, r6, l\nexit"
    ),
    "several pointers": (
        "mov r4, r1\nadd r4, r2\nmov r3, 0\nl: sub r4, 2\nldxh r5, [r4]\nstxb [r1], r5\nadd r1, 1\n"
        "add r3, 1\njlt r3, 20, l\nexit"
    ),
    "a load that a store follows": (
        "mov r3, 0\nl: ldxw r4, [r1]\njgt r4, 9, n\nadd r4, 1\nstxw [r1], r4\nn: add r1, 4\nadd r3, 1\n"
        "jlt r3, 10, l\nexit"
    ),
    "left early": (
        "mov r3, 0\nl: ldxb r4, [r1]\njeq r4, 9, out\nadd r1, 1\nadd r3, 1\njlt r3, 40, l\n"
        "out: mov r0, r3\nexit"
    ),
    "in rounds of rounds": (
        "mov r6, 3\no: mov r3, 0\nmov r4, r1\nl: stxb [r4], r6\nadd r4, 1\nadd r3, 1\njlt r3, 40, l\n"
        "sub r6, 1\njne r6, 0, o\nexit"
    ),
    "steps of three": "mov r3, 0\nl: stxb [r1], r3\nadd r1, 3\nadd r3, 3\njlt r3, 40, l\nexit",
    "a bound near the top of all numbers": (
        "ldxdw r4, [r1]\nmov r3, r4\nsub r3, 6\nl: stxb [r1+8], r3\nadd r1, 4\nadd r3, 4\njlt r3, r4, l\nexit"
    ),
    "a bound near zero": (
        "ldxdw r4, [r1]\nmov r3, r4\nadd r3, 6\nl: stxb [r1+8], r3\nadd r1, 4\nsub r3, 4\njge r3, r4, l\nexit"
    ),
}
"""What is asked once before the loop; r1 and r2 are the memory and its size."""

NOT_HOISTED = {
    "another step in some rounds": (
        "mov r3, 0\nl: ldxb r4, [r1]\njeq r4, 9, n\nadd r1, 1\nn: add r1, 1\nadd r3, 1\njlt r3, 40, l\nexit"
    ),
    "a step from memory": "mov r3, 0\nl: ldxb r4, [r1]\nadd r1, r4\nadd r3, 1\njlt r3, 40, l\nexit",
    "a bound that changes": (
        "mov r6, r2\nmov r3, 0\nl: ldxb r4, [r1]\nadd r1, 1\nadd r3, 1\nsub r6, r4\njlt r3, r6, l\nexit"
    ),
    "rounds without the comparison": (
        "mov r3, 0\nl: ldxb r4, [r1]\nadd r1, 1\nadd r3, 1\njne r4, 9, l\njlt r3, 40, l\nexit"
    ),
    "it runs away": "mov r3, 50\nl: ldxb r4, [r1]\nadd r1, 1\nadd r3, 1\njgt r3, 40, l\nexit",
    "a comparison of halves": "mov r3, 0\nl: ldxb r4, [r1]\nadd r1, 1\nadd r3, 1\njlt32 r3, 40, l\nexit",
    "no multiple of the counter's step": (
        "mov r3, 0\nl: stxb [r1], r3\nadd r1, 1\nadd r3, 2\njlt r3, 40, l\nexit"
    ),
    "a call": (
        "mov r6, r1\nmov r7, 0\nl: ldxb r4, [r6]\nadd r6, 1\nadd r7, 1\ncall local f\njlt r7, 40, l\n"
        "exit\nf: exit"
    ),
    "entered in two places": (
        "mov r3, 0\njeq r2, 33, m\nl: ldxb r4, [r1]\nm: add r1, 1\nadd r3, 1\njlt r3, 40, l\nexit"
    ),
    "the program's start": "l: ldxb r4, [r1]\nadd r1, 1\nadd r3, 1\njlt r3, 40, l\nexit",
}


@pytest.mark.parametrize("name", HOISTED)
def test_what_is_asked_before_a_loop(name: str) -> None:
    code = assemble(HOISTED[name])
    facts = analyse(prepare(Program.from_bytes(code)))
    (header,) = facts.predicates
    inside = [access for access in facts.accesses.values() if access.before is not None]
    assert inside
    assert {access.reason for access in inside} == {f"no check: made before the loop at pc {header}"}


@pytest.mark.parametrize("name", NOT_HOISTED)
def test_what_is_not_known_before_a_loop(name: str) -> None:
    facts = analyse(prepare(Program.from_bytes(assemble(NOT_HOISTED[name]))))
    assert not facts.predicates
    assert all(access.before is None for access in facts.accesses.values())


@pytest.mark.parametrize("name", [*HOISTED, *NOT_HOISTED])
def test_engines_agree_at_every_bound(name: str) -> None:
    code = assemble({**HOISTED, **NOT_HOISTED}[name])
    contents = [bytes(80), bytes([9] * 80), b"\x05" + bytes(79), b"\xff" * 80, b"\x0a" + b"\x01" * 79]
    inputs = tuple(
        Input(content[:size], 600, read_only)
        for content in contents
        for size in (*range(6), *range(36, 46), 79, 80)
        for read_only in (False, True)
    )
    ended = run_forked(lambda: str(Checker(("interpreter", "jit")).check(Case(code, inputs))), 60)
    assert ended.value == "None", ended


def test_a_loop_that_fits_has_no_check_and_one_that_does_not_faults_where_it_should() -> None:
    """Out of line is the loop that checks each access; in line there is none left."""
    vm = EbpfVmRaw(assemble(HOISTED["a pointer that rises"]))
    vm.jit_compile()
    text = vm.listing()
    loop = text[text.index("pc_1:") : text.index("pc_5:")]
    jumps = re.findall(r"\b(j\w+) \.?[a-z]+_\d", loop)
    assert jumps == ["jl", "jb"]  # the budget's and the loop's
    memory = bytearray(39)
    with pytest.raises(MemoryFault) as caught:
        vm.execute_program_jit(memory)
    assert (caught.value.pc, caught.value.access) == (1, "store")
    assert memory == bytes(range(39))
    longer = bytearray(41)
    vm.execute_program_jit(longer)
    assert longer == bytes([*range(40), 0])


def test_hardened_code_asks_nothing_before_loops() -> None:
    """What is asked holds numbers of the program's choosing."""
    program = Program.from_bytes(assemble(HOISTED["a pointer that rises"]))
    assert "before_" in program.compile().listing()
    assert "before_" not in program.compile(harden=True).listing()
    assert "before_" not in program.compile(checked=False).listing()


@pytest.mark.parametrize("release_gil", [False, True])
def test_what_is_asked_is_asked_of_each_packet_of_a_batch(release_gil: bool) -> None:
    """Sizes and rights of the memory are other ones from packet to packet."""
    program = Program.from_bytes(assemble(HOISTED["a pointer that rises"]))
    function = program.compile(release_gil=release_gil)
    fits, short, constant = bytearray(64), bytearray(39), bytes(64)
    for packets, index, access in (
        ([fits, short, fits], 1, (1, "store")),
        ([fits, bytearray(40), constant], 2, (1, "store")),
        ([constant], 0, (1, "store")),
    ):
        for packet in (fits, short):
            packet[:] = bytes(len(packet))
        with pytest.raises(MemoryFault) as caught:
            function.map(packets)
        assert (caught.value.index, (caught.value.pc, caught.value.access)) == (index, access)
    function.map([short], on_fault=7)
    assert short == bytes(range(39))
    assert function.map([fits, short, bytearray(40), constant, fits], on_fault=7).tolist() == [0, 7, 0, 7, 0]
    area = bytearray(3 * 41)
    assert function.map(area, stride=41).tolist() == [0, 0, 0]
    assert area == bytes([*range(40), 0]) * 3
    with pytest.raises(MemoryFault) as caught:
        function.map(area, offsets=[0, 41, 83], lengths=[41, 40, 39])
    assert caught.value.index == 2


def test_what_is_asked_on_packets_of_programs_with_a_type() -> None:
    """The packet lies between pointers in its context, and grows no larger than it is."""
    text = (
        "ldxw r2, [r1]\nldxw r4, [r1+4]\nmov r0, 1\nmov r3, 0\nl: ldxb r5, [r2]\nadd r3, r5\nadd r2, 1\n"
        "jlt r2, r4, l\nmov r0, r3\nexit"
    )
    program = Program(assemble(text), type="xdp")
    packet = bytes(range(60)) * 2
    assert "before_" in program.compile().listing()
    assert program.compile()(packet) == sum(packet) == program.run(packet, engine="interpreter").return_value
    beyond = Program(assemble(text.replace("jlt r2, r4", "jle r2, r4")), type="xdp")
    pcs = set()
    for run in (beyond.compile(), lambda data: beyond.run(data, engine="interpreter")):
        with pytest.raises(MemoryFault) as caught:
            run(packet)
        pcs.add((caught.value.pc, caught.value.access, caught.value.size))
    assert pcs == {(4, "load", 1)}
