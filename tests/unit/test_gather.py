"""Bytes that are loaded one by one and put together: where they become one load, and where not."""

from __future__ import annotations

import re

import pytest

from ebpfjit import EbpfVmRaw, MemoryFault
from ebpfjit.assembler import assemble

MEMORY = bytes(range(0x81, 0x91))
WORD = "ldxb r3, [r1+1]\nldxb r4, [r1+2]\nlsh r4, 8\nor r4, r3\n"
NETWORK = "ldxb r3, [r1+2]\nldxb r4, [r1+1]\nlsh r4, 8\nor r4, r3\n"
FOUR = (
    "ldxb r3, [r1+3]\nlsh32 r3, 24\nldxb r4, [r1+1]\nlsh32 r4, 8\nor32 r3, r4\n"
    "ldxb r4, [r1]\nor32 r3, r4\nldxb r4, [r1+2]\nlsh32 r4, 16\nor32 r3, r4\n"
)
EIGHT = "mov r0, 0\n" + "".join(f"ldxb r3, [r1+{i}]\nlsh r3, {8 * i}\nor r0, r3\n" for i in range(8))
HALVES = "ldxw r3, [r1]\nldxw r4, [r1+4]\nlsh r4, 32\nor r4, r3\nmov r0, r4\nexit"

GATHERED = {
    "two bytes": (WORD + "mov r0, r4\nexit", "word ptr [rdi+0x1]"),
    "two bytes in network order": (NETWORK + "mov r0, r4\nexit", "rol cx, 8"),
    "four bytes in any order": (FOUR + "mov r0, r3\nexit", "dword ptr [rdi]"),
    "two words": (HALVES, "qword ptr [rdi]"),
    "something else in between": (
        WORD.replace("lsh r4", "mov r5, 7\nldxb r6, [r1+9]\nlsh r4")
        + "mov r0, r4\nadd r0, r5\nadd r0, r6\nexit",
        "word ptr [rdi+0x1]",
    ),
    "into the base": (
        "mov r2, r1\nldxb r3, [r2]\nldxb r2, [r2+1]\nlsh r2, 8\nor r2, r3\nmov r0, r2\nexit",
        "word ptr [rsi]",
    ),
}

NOT_GATHERED = {
    "a byte that is read besides": WORD + "mov r0, r4\nadd r0, r3\nexit",
    "a byte that is read in between": WORD.replace("lsh r4", "mov r5, r3\nlsh r4")
    + "mov r0, r4\nadd r0, r5\nexit",
    "a store in between": WORD.replace("lsh r4", "stb [r1+1], 9\nlsh r4") + "mov r0, r4\nexit",
    "a gap": WORD.replace("r1+2", "r1+3") + "mov r0, r4\nexit",
    "the same byte twice": WORD.replace("r1+2", "r1+1") + "mov r0, r4\nexit",
    "a shift by another number": WORD.replace(", 8", ", 9") + "mov r0, r4\nexit",
    "a shift that loses a byte": WORD.replace("lsh r4, 8", "lsh r4, 56") + "mov r0, r4\nexit",
    "a base that moves": WORD.replace("ldxb r4", "add r1, 1\nldxb r4") + "mov r0, r4\nexit",
    "a label in between": WORD.replace("ldxb r4", "jeq r2, 99, l\nl: ldxb r4") + "mov r0, r4\nexit",
}


def machine(text: str, *, checked: bool = True) -> EbpfVmRaw:
    made = EbpfVmRaw(assemble(text), checked=checked)
    made.jit_compile()
    return made


def byte_loads(text: str) -> int:
    return len(re.findall(r"movzx \w+, byte ptr", machine(text, checked=False).listing()))


@pytest.mark.parametrize("name", GATHERED)
def test_bytes_side_by_side_are_one_load(name: str) -> None:
    text, wide = GATHERED[name]
    found = machine(text)
    assert wide in found.listing()
    assert byte_loads(text) == text.count("ldxb r6")
    assert found.execute_program_jit(bytearray(MEMORY)) == found.execute_program(bytearray(MEMORY))


@pytest.mark.parametrize("name", NOT_GATHERED)
def test_what_only_looks_like_it_is_not(name: str) -> None:
    text = NOT_GATHERED[name]
    assert byte_loads(text) == text.count("ldxb")
    for checked in (True, False):
        found = machine(text, checked=checked)
        assert found.execute_program_jit(bytearray(MEMORY)) == found.execute_program(bytearray(MEMORY))


def test_what_is_joined_to_a_number_before_is_gathered_as_far_as_it_goes() -> None:
    found = machine(EIGHT + "exit")
    assert found.execute_program_jit(bytearray(MEMORY)) == int.from_bytes(MEMORY[:8], "little")


@pytest.mark.parametrize("text", [text for text, _ in GATHERED.values()])
def test_a_fault_is_that_of_the_byte_that_is_not_there(text: str) -> None:
    found = machine(text)
    for size in range(1, 12):
        faults = []
        for run in (found.execute_program, found.execute_program_jit):
            memory = bytearray(MEMORY[:size])
            try:
                faults.append((run(memory),))
            except MemoryFault as fault:
                faults.append((fault.pc, fault.size))
        assert faults[0] == faults[1]
