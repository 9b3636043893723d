"""Segment routing headers: what lwt_seg6local programs may write of them, room that they make and take."""

from __future__ import annotations

import pytest

from ebpfjit import ExecutionError, MemoryFault, Program, Result
from ebpfjit.assembler import assemble

engines = pytest.mark.parametrize("engine", ["interpreter", "jit"])
EFAULT, EINVAL, ENOMEM = -14, -22, -12
ADDRESS = bytes(range(16))
TLVS = b"\5\6" + bytes(6)
SRH = bytes((17, 5, 4, 1, 1, 0, 0, 0)) + 2 * ADDRESS + TLVS  # two segments, and 8 bytes of TLVs
PAYLOAD = bytes(range(8))
HOPS = bytes((43, 0)) + bytes(6)
TLVS_AT, END = 40 + 8 + 32, 40 + 48


def frame(before: bytes = b"", srh: bytes = SRH, kind: int = 43) -> bytes:
    rest = before + srh + PAYLOAD
    header = b"\x60\0\0\0" + len(rest).to_bytes(2, "big") + bytes((kind, 64)) + 2 * ADDRESS
    return bytes(12) + b"\x86\xdd" + header + rest


def run(text: str, engine: str, data: bytes, type_: str = "lwt_seg6local") -> Result:
    program = Program.from_bytes(assemble(f"mov r6, r1\n{text}\nexit"), type=type_)
    return program.run(data, engine=engine)


def store(offset: int, size: int) -> str:
    value = "lddw r1, 0x1122334455667788\nstxdw [r10-8], r1\n"
    return f"{value}mov r1, r6\nmov r2, {offset}\nmov r3, r10\nadd r3, -8\nmov r4, {size}\ncall 74\n"


def adjust(offset: int, difference: int) -> str:
    return f"mov r1, r6\nmov r2, {offset}\nmov r3, {difference}\ncall 75\n"


def signed(result: Result) -> int:
    return result.return_value - (result.return_value >> 31 << 32)


@engines
@pytest.mark.parametrize(
    ("offset", "size", "answer"),
    [
        (45, 1, 0), (46, 2, 0), (45, 3, 0), (44, 2, EFAULT), (47, 2, EFAULT), (48, 1, EFAULT),
        (39, 1, EFAULT), (TLVS_AT, 8, 0), (TLVS_AT + 1, 8, EFAULT), (TLVS_AT - 8, 8, 0),
        (TLVS_AT - 9, 1, EFAULT), (END, 1, EFAULT), (-1, 8, EFAULT),
    ],
)  # fmt: skip
def test_what_may_be_written(offset: int, size: int, answer: int, engine: str) -> None:
    data = frame()
    result = run(store(offset, size), engine, data)
    assert signed(result) == answer
    at = 14 + offset
    written = 0x1122334455667788.to_bytes(8, "little")[:size]
    assert result.data == (data if answer else data[:at] + written + data[at + size :])


@engines
@pytest.mark.parametrize("before", [b"", HOPS], ids=["first", "behind another"])
def test_room_is_made_and_taken(before: bytes, engine: str) -> None:
    data, shift = frame(before, kind=0 if before else 43), len(before)
    at = 14 + TLVS_AT + shift
    grown = run(adjust(TLVS_AT + shift, 16), engine, data)
    assert signed(grown) == 0
    assert grown.data[18:20] == (len(before) + len(SRH) + len(PAYLOAD) + 16).to_bytes(2, "big")
    assert grown.data[at:] == bytes(16) + TLVS + PAYLOAD
    taken = run(adjust(TLVS_AT + shift, -8), engine, data)
    assert (signed(taken), taken.data[at:], taken.data[19]) == (0, PAYLOAD, shift + len(SRH))
    written = run(adjust(TLVS_AT + shift, 8) + store(TLVS_AT + shift + 8, 8), engine, data)
    value = 0x1122334455667788.to_bytes(8, "little")
    assert (signed(written), written.data[at : at + 16]) == (0, bytes(8) + value)


@engines
@pytest.mark.parametrize(
    ("offset", "difference", "answer"),
    [
        (TLVS_AT - 1, 8, EFAULT), (END, 8, 0), (END + 1, 8, EFAULT), (TLVS_AT, -9, EFAULT), (END, -1, EFAULT),
        (TLVS_AT, 0, 0), (TLVS_AT, 1 << 30, ENOMEM), (TLVS_AT, -(1 << 31), EFAULT),
    ],
)  # fmt: skip
def test_where_room_is_made(offset: int, difference: int, answer: int, engine: str) -> None:
    assert signed(run(adjust(offset, difference), engine, frame())) == answer


@engines
def test_what_is_refused(engine: str) -> None:
    for data in (frame(kind=17), frame(HOPS, kind=60).replace(HOPS, b"\x11" + HOPS[1:]), frame()[:55]):
        assert signed(run(store(46, 2), engine, data)) == EINVAL
        assert signed(run(adjust(TLVS_AT, 8), engine, data)) == EINVAL
    for call in (store(46, 2), adjust(TLVS_AT, 8)):
        with pytest.raises(ExecutionError, match="is for lwt_seg6local programs, this one is lwt_in"):
            run(call, engine, frame(), "lwt_in")
    with pytest.raises(MemoryFault, match="of 9 bytes"):
        run(store(46, 9), engine, frame())
