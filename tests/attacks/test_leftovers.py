"""What a packet left in memory that runs share is not seen by the next one, whoever grows into it."""

from __future__ import annotations

import pytest

from ebpfjit import EbpfError
from ebpfjit.assembler import assemble
from ebpfjit.program import Program

PACKET = bytes(12) + b"\x08\x00\x45" + bytes(49)
SECRET = 0xA5
START = {"xdp": "ldxw r1, [r6+0]\nldxw r2, [r6+4]", "tc": "ldxw r1, [r6+76]\nldxw r2, [r6+80]"}
GROWS = {
    "adjust_head": ("xdp", "mov r2, -200\ncall 44"),
    "adjust_tail": ("xdp", "mov r2, 200\ncall 65"),
    "adjust_meta": ("xdp", "mov r2, -32\ncall 54"),
    "change_tail": ("tc", "mov r2, 1000\nmov r3, 0\ncall 38"),
    "change_head": ("tc", "mov r2, 200\nmov r3, 0\ncall 43"),
    "adjust_room": ("tc", "mov r2, 200\nmov r3, 1\nmov r4, 0\nmov r5, 0\ncall 50"),
}
BUILDS = ({"optimize": True}, {"optimize": False}, {"harden": True}, {"release_gil": True})


def counts(type_: str, grow: str) -> Program:
    """A program that grows its packet and returns how many bytes of the secret it finds, or 9999."""
    start = START[type_]
    if "call 54" in grow:  # the metadata lies before the packet
        start = "ldxw r1, [r6+8]\nldxw r2, [r6+0]"
    text = f"""
        mov r6, r1
        {grow}
        jeq r0, 0, go
        mov r0, 9999
        exit
    go:
        {start}
        mov r0, 0
    next:
        jge r1, r2, done
        ldxb r3, [r1+0]
        jne r3, {SECRET}, +1
        add r0, 1
        add r1, 1
        ja next
    done:
        exit
    """
    return Program(assemble(text), type=type_)


def leaves(type_: str, then: str) -> Program:
    """A program that makes room in front, fills its whole packet with the secret, and ends with `then`."""
    room = "mov r2, -200\ncall 44" if type_ == "xdp" else "mov r2, 200\nmov r3, 0\ncall 43"
    text = f"""
        mov r6, r1
        {room}
        {START[type_]}
    next:
        jge r1, r2, done
        stb [r1+0], {SECRET}
        add r1, 1
        ja next
    done:
        {then}
        exit
    """
    return Program(assemble(text), type=type_)


@pytest.mark.parametrize("end", ["mov r0, 2", "ldxb r0, [r2+4000]"], ids=["returns", "faults"])
@pytest.mark.parametrize("name", GROWS)
def test_room_that_a_packet_grows_into_is_zero(name: str, end: str) -> None:
    type_, grow = GROWS[name]
    reads, before = counts(type_, grow), leaves(type_, end)
    large = PACKET + bytes([SECRET]) * 2000

    def fill(**options: bool) -> None:
        for packet in (PACKET, large):
            try:
                before.compile(**options)(packet)
            except EbpfError:
                assert "4000" in end

    found = {}
    for engine in ("interpreter", "jit"):
        fill(optimize=True)
        found[engine] = reads.run(PACKET, engine=engine).return_value
    for options in BUILDS:
        function = reads.compile(**options)
        fill(**options)
        found[str(options)] = function(PACKET)
        fill(**options)
        found[f"batch {options}"] = max(function.map([PACKET, large[:14] + PACKET, PACKET]))
    assert set(found.values()) == {0}, found
