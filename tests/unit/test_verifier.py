"""One refused program for each rule, and what must be accepted."""

from __future__ import annotations

import pytest

from ebpfjit import EbpfVmNoData, VerifierError, verifier
from ebpfjit.assembler import assemble

EXIT = bytes.fromhex("9500000000000000")


def word(opcode: int, dst: int = 0, src: int = 0, offset: int = 0, imm: int = 0) -> bytes:
    fields = bytes([opcode, src << 4 | dst])
    return fields + offset.to_bytes(2, "little", signed=True) + imm.to_bytes(4, "little", signed=True)


REFUSED = {
    "empty": (b"", None, "size", "empty"),
    "odd length": (EXIT + b"\0", 1, "size", "multiple of 8"),
    "half an lddw": (word(0x18), 0, "size", "two slots"),
    "unknown opcode": (word(0xFF) + EXIT, 0, "known-opcode", "0xff"),
    "unknown atomic": (word(0xDB, 10, 1, -8, 2) + EXIT, 0, "known-opcode", "imm=0x2"),
    "destination register": (word(0xB7, 11) + EXIT, 0, "registers", "r0 to r10"),
    "source register": (word(0xBF, 0, 15) + EXIT, 0, "registers", "r0 to r10"),
    "r10 written": (word(0x07, 10, 0, 0, 1) + EXIT, 0, "registers", "read-only"),
    "r10 fetched into": (word(0xDB, 10, 10, -8, 1) + EXIT, 0, "registers", "read-only"),
    "reserved offset": (word(0x07, 1, 0, 5, 1) + EXIT, 0, "reserved-fields", "offset is reserved"),
    "reserved src": (word(0x07, 1, 4, 0, 1) + EXIT, 0, "reserved-fields", "src_reg is reserved"),
    "lddw second half": (word(0x18) + word(0, 1) + EXIT, 0, "reserved-fields", "second slot"),
    "jump behind the end": (word(0x05, offset=1) + EXIT, 0, "jump-targets", "outside"),
    "jump before the start": (word(0x05, offset=-2) + EXIT, 0, "jump-targets", "outside"),
    "jump into an lddw": (word(0x05, offset=1) + word(0x18) + word(0) + EXIT, 0, "jump-targets", "half"),
    "local call outside": (word(0x85, 0, 1, 0, 9) + EXIT, 0, "jump-targets", "outside"),
    "falls off the end": (word(0xB7, 0), 0, "no-fall-off", "fall off"),
    "ends in a branch": (EXIT + word(0x15, 0, 0, -1), 1, "no-fall-off", "fall off"),
    "unaligned atomic": (word(0xDB, 10, 1, -4, 0) + EXIT, 0, "aligned-atomics", "not aligned"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused_with_pc_rule_and_reason(name: str) -> None:
    code, pc, rule, words = REFUSED[name]
    with pytest.raises(VerifierError, match=words) as caught:
        verifier.check(code)
    assert (caught.value.pc, caught.value.rule) == (pc, rule)
    if pc is not None:
        assert str(caught.value).startswith(f"pc {pc}: ") or rule == "size"


@pytest.mark.parametrize(
    "text",
    [
        "div64 r0, 0\nexit",  # defined: 0
        "mod32 r0, 0\nexit",
        "exit",
        "ja +0\nexit",
        "exit\nja -2",  # a jump may come last
        "lddw r1, 5\nexit",
        "lock add [r10-8], r1\nexit",
    ],
)
def test_accepted(text: str) -> None:
    assert verifier.check(assemble(text)) is None


def test_the_number_of_instructions_is_limited() -> None:
    code = word(0xB7) * verifier.MAX_INSTRUCTIONS + EXIT
    with pytest.raises(VerifierError, match="at most 1000000"):
        verifier.check(code)
    assert verifier.check(code[8:]) is None


def test_a_verifier_can_be_replaced() -> None:
    seen = []
    vm = EbpfVmNoData()
    vm.set_verifier(seen.append)
    assert seen == []
    vm.set_program(EXIT)
    assert seen == [EXIT]

    def refuse(prog: bytes) -> None:
        raise VerifierError("not on a Sunday")

    with pytest.raises(VerifierError, match="Sunday"):
        vm.set_verifier(refuse)
    vm.set_program(EXIT + EXIT)  # the refused verifier was not taken over
    assert len(seen) == 2
