"""Options of TCP headers in sock_ops programs: what a test says of a header, what helpers answer."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import pytest

import ebpfjit
from ebpfjit import ExecutionError, InputError, MemoryFault, Program, Result
from ebpfjit.assembler import assemble

ELF = Path(__file__).parents[1] / "elf"
engines = pytest.mark.parametrize("engine", ["interpreter", "jit"])
PARSE, LENGTH, WRITE, TIME_STAMP = 13, 14, 15, 16
EPERM, ENOENT, EFAULT, EEXIST, EINVAL, ENOSPC, ENOMSG, EOPNOTSUPP = -1, -2, -14, -17, -22, -28, -42, -95
MSS, MAGIC = bytes((2, 4, 5, 180)), bytes((254, 6, 0xEB, 0x9F, 0x12, 0x34))


def header(options: bytes = b"") -> bytes:
    return bytes(12) + bytes(((5 + -(-len(options) // 4)) << 4,)) + bytes(7) + options


def run(text: str, engine: str, type_: str = "sock_ops", **context: Any) -> Result:
    program = Program.from_bytes(assemble(f"{text}\nexit"), type=type_)
    return program.run(context=context, engine=engine)


def signed(result: Result) -> int:
    return result.return_value - (result.return_value >> 31 << 32)


def call(number: int, option: bytes, size: int, flags: int = 0) -> str:
    """Return a call with an option in the frame, whose first word becomes r7 afterwards."""
    (word,) = struct.unpack("<Q", option.ljust(8, b"\0"))
    return f"""
        lddw r2, {word:#x}
        stxdw [r10-8], r2
        mov r6, r1
        mov r2, r10
        add r2, -8
        mov r3, {size}
        mov r4, {flags}
        call {number}
        ldxdw r7, [r10-8]
    """


LOADS: dict[str, tuple[bytes, bytes, int, int]] = {
    "an option": (MSS, bytes((2, 0)), 8, 4),
    "padding in front": (b"\1\1" + MSS, bytes((2, 0)), 8, 4),
    "behind the end": (b"\0\0" + MSS, bytes((2, 0)), 8, ENOMSG),
    "longer than its room": (MSS, bytes((2, 0)), 3, ENOSPC),
    "a magic number": (MSS + MAGIC, MAGIC[:1] + b"\4" + MAGIC[2:4], 8, 6),
    "a long magic number": (MAGIC, MAGIC, 8, 6),
    "a magic number longer than the option": (bytes((254, 4, 0xEB, 0x9F)), MAGIC, 8, ENOMSG),
    "another magic number": (MAGIC, bytes((254, 4, 0, 0)), 8, ENOMSG),
    "an option of no length": (bytes((3, 0)), bytes((2, 0)), 8, EFAULT),
    "an option of one byte": (bytes((3, 1)), bytes((2, 0)), 8, EFAULT),
    "an option that is cut": (bytes((3, 5, 0, 0)), bytes((2, 0)), 8, EFAULT),
    "a kind alone": (b"\1\1\1\3", bytes((2, 0)), 8, EFAULT),
    "a length where none is asked for": (MSS, bytes((2, 4)), 8, EINVAL),
    "no magic number": (MAGIC, bytes((254, 0)), 8, EINVAL),
    "padding": (MSS, bytes((1, 0)), 8, EINVAL),
    "too little room": (MSS, bytes((2, 0)), 1, EINVAL),
}


@engines
@pytest.mark.parametrize("name", LOADS)
def test_options_that_are_looked_for(name: str, engine: str) -> None:
    options, wanted, size, answer = LOADS[name]
    assert signed(run(call(142, wanted, size), engine, op=PARSE, skb_data=header(options))) == answer
    syn = b"\x45" + bytes(19) + header(options + bytes(-len(options) % 4))
    from_syn = run(call(142, wanted, size, 1), engine, op=PARSE, syn=bytes(12) + b"\x08\0" + syn)
    if answer != EFAULT:  # the end of the options is elsewhere
        assert signed(from_syn) == answer


@engines
def test_an_option_is_copied(engine: str) -> None:
    found = run(call(142, bytes((2, 0)), 8) + "mov r0, r7", engine, op=PARSE, skb_data=header(MSS))
    assert found.return_value == int.from_bytes(MSS, "little")


@engines
def test_where_there_is_nothing_to_look_at(engine: str) -> None:
    assert signed(run(call(142, bytes((2, 0)), 8), engine, op=PARSE)) == EPERM
    assert signed(run(call(142, bytes((2, 0)), 8), engine, op=LENGTH, skb_data=header(MSS))) == EPERM
    assert signed(run(call(142, bytes((2, 0)), 8, 1), engine, op=PARSE)) == ENOENT
    assert signed(run(call(142, bytes((2, 0)), 8), engine, op=TIME_STAMP)) == EOPNOTSUPP
    assert signed(run("mov r2, 1\ncall 59", engine, op=TIME_STAMP)) == EOPNOTSUPP


STORE = call(143, MAGIC, 6)


@engines
@pytest.mark.parametrize(
    ("options", "remaining", "answer"),
    [
        (b"", None, 0),
        (MSS, 6, 0),
        (MSS, 5, ENOSPC),
        (MAGIC, 20, EEXIST),
        (b"\0", 20, ENOSPC),
        (b"\3", 20, EFAULT),
    ],
)
def test_options_that_are_stored(options: bytes, remaining: int | None, answer: int, engine: str) -> None:
    context = {} if remaining is None else {"remaining_opt_len": remaining}
    result = run(STORE, engine, op=WRITE, skb_data=header(options), **context)
    assert signed(result) == answer
    assert result.context["skb_data"] == header(options) + (b"" if answer else MAGIC)
    left = 40 - len(options) if remaining is None else remaining
    assert result.context["remaining_opt_len"] == left - (0 if answer else 6)


@engines
def test_a_stored_option_is_there_at_once(engine: str) -> None:
    reads = """
        ldxdw r2, [r6+192]
        ldxdw r3, [r6+200]
        mov r0, r3
        sub r0, r2
        ldxb r4, [r3-1]
        lsh r4, 8
        or r0, r4
    """
    result = run(STORE + reads, engine, op=WRITE, skb_data=header())
    assert result.return_value == 26 | 0x34 << 8
    with pytest.raises(MemoryFault):
        run(STORE + reads + "\nldxb r0, [r3]", engine, op=WRITE, skb_data=header())
    with pytest.raises(MemoryFault, match="store of 1 byte"):
        run(STORE + reads + "\nstb [r2], 0", engine, op=WRITE, skb_data=header())


@engines
def test_room_that_is_reserved(engine: str) -> None:
    text = "mov r6, r1\nmov r2, {}\nmov r3, 0\ncall 144\nmov r1, r6\nmov r2, 6\nmov r3, 0\ncall 144"
    result = run(text.format(36), engine, op=LENGTH)
    assert (signed(result), result.context["remaining_opt_len"]) == (ENOSPC, 4)
    result = run(text.format(12), engine, op=LENGTH, remaining_opt_len=20)
    assert (signed(result), result.context["remaining_opt_len"]) == (0, 2)
    assert signed(run(text.format(12), engine, op=WRITE)) == EPERM


@engines
@pytest.mark.parametrize(
    ("name", "size", "answer"), [(1005, 40, 24), (1006, 64, 44), (1007, 64, 58), (1007, 50, ENOSPC)]
)
def test_the_syn_as_an_option_of_the_socket(name: int, size: int, answer: int, engine: str) -> None:
    text = f"mov r2, 6\nmov r3, {name}\nmov r4, r10\nadd r4, -64\nmov r5, {size}\ncall 57"
    syn = b"\x45" + bytes(19) + header(MSS)
    assert signed(run(text, engine, op=PARSE, syn=bytes(12) + b"\x08\0" + syn)) == answer
    without = {1005: answer, 1006: answer}.get(name, ENOENT)
    assert signed(run(text, engine, op=PARSE, syn=syn)) == without
    assert signed(run(text, engine, op=PARSE)) == ENOENT
    assert signed(run(text, engine, op=TIME_STAMP, syn=syn)) == EOPNOTSUPP


@engines
def test_what_is_refused(engine: str) -> None:
    with pytest.raises(ExecutionError, match="nobody says which header is being written; give context="):
        run(STORE, engine, op=WRITE)
    with pytest.raises(InputError, match="remaining_opt_len is a number of bytes, at most 40, not 41"):
        run(STORE, engine, op=WRITE, remaining_opt_len=41)
    for syn in (b"", b"\x45" + bytes(30), 5, header(MSS)):
        with pytest.raises(InputError, match="syn is a packet with its IP and TCP headers"):
            run(STORE, engine, op=PARSE, syn=syn)
    with pytest.raises(MemoryFault):
        run(call(142, b"\2", 9), engine, op=PARSE, skb_data=header(MSS))
    for number in (142, 143, 144):
        with pytest.raises(ExecutionError, match=r"is for sock_ops programs \(sections 'sockops'\)"):
            run(call(number, b"\2", 8), engine, "kprobe")
        with pytest.raises(ExecutionError, match="r1 is 0x0, and the context is at"):
            run("mov r1, 0\n" + call(number, b"\2", 8), engine, op=WRITE)


@engines
def test_a_connection_that_begins(engine: str) -> None:
    loaded = ebpfjit.load(ELF / "header_options.o")
    written = loaded.programs["options"].run(
        context={"op": WRITE, "skb_data": header(MSS), "remaining_opt_len": 16}, engine=engine
    )
    options = MAGIC + bytes((253, 4, 0xEB, 0x9F)) + bytes((3, 3, 5))
    assert written.context["skb_data"] == header(MSS) + options
    assert loaded.globals["calls"][0]["answers"][:4] == [0, EEXIST, 0, EINVAL]
