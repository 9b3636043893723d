"""A packet of a batch is a run of its own: nothing of the runs before it shows."""

from __future__ import annotations

import struct
from typing import Any

import pytest

from ebpfjit.assembler import assemble
from ebpfjit.program import Program

CHANGE_HEAD = 43
LINK, NETWORK = -0x200000, -0x100000


def packet_load(offset: int) -> bytes:
    return struct.pack("<BBhi", 0x30, 0, 0, offset)


@pytest.mark.parametrize(
    "options", [{"optimize": False}, {"optimize": True}, {"harden": True}, {"audit": True}]
)
def test_headers_are_where_they_are_in_each_packet(options: dict[str, Any]) -> None:
    """Room in front of one packet moved the headers of all that came after it in the batch."""
    code = assemble(
        f"""
        ldxw r7, [r1+76]
        ldxb r7, [r7+0]
        jne r7, 1, +3
        mov r2, 32
        mov r3, 0
        call {CHANGE_HEAD}
        """
    )
    code += packet_load(LINK + 1) + assemble("mov r6, r0\nlsh r6, 8\n")
    code += packet_load(NETWORK + 1) + assemble("or r0, r6\nexit")
    program = Program(code, name="t", type="tc")
    packets = [
        bytes([moves, *range(start, start + 59)]) for moves, start in ((0, 1), (1, 100), (0, 7), (0, 9))
    ]
    expected = [program.run(data, engine="interpreter").return_value for data in packets]
    function = program.compile(**options)
    assert [function(data) for data in packets] == expected
    assert list(function.map(packets)) == expected
