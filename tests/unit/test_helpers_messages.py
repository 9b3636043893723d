"""Helpers of sk_msg and sk_reuseport programs: which bytes they see, which socket they choose."""

from __future__ import annotations

import errno

import pytest

from ebpfjit import ExecutionError, MemoryFault, Program, Result
from ebpfjit.assembler import assemble
from ebpfjit.runtime.maps import MapDefinition, MapType, create
from tests.support.helper_runs import HERE

engines = pytest.mark.parametrize("engine", ["interpreter", "jit"])
SEEN = "ldxdw r2, [r6+0]\nldxdw r0, [r6+8]\nsub r0, r2"
CALL = "mov r6, r1\nmov r2, {0}\nmov r3, {1}\nmov r4, {2}\ncall {3}\n"
PULL, PUSH, POP = 63, 90, 91


def message(text: str, engine: str, data: bytes = b"0123456789") -> Result:
    program = Program.from_bytes(assemble(f"{text}\nexit"), type="sk_msg")
    return program.run(data, engine=engine)


def signed(result: Result) -> int:
    return result.return_value - (1 << 32) if result.return_value >> 31 else result.return_value


@engines
@pytest.mark.parametrize(
    ("number", "first", "second", "flags", "result", "after"),
    [
        (PULL, 2, 5, 0, 0, b"0123456789"),
        (PULL, 2, 2, 0, -errno.EINVAL, b"0123456789"),
        (PULL, 2, 11, 0, -errno.EINVAL, b"0123456789"),
        (PULL, 2, 5, 1, -errno.EINVAL, b"0123456789"),
        (PUSH, 2, 3, 0, 0, b"01\0\0\0" + b"23456789"),
        (PUSH, 10, 1, 0, 0, b"0123456789\0"),
        (PUSH, 11, 1, 0, -errno.EINVAL, b"0123456789"),
        (PUSH, 11, 0, 0, 0, b"0123456789"),
        (PUSH, 0, 1 << 20, 0, -errno.ENOMEM, b"0123456789"),
        (POP, 2, 3, 0, 0, b"0156789"),
        (POP, 0, 10, 0, 0, b""),
        (POP, 2, 9, 0, -errno.EINVAL, b"0123456789"),
        (POP, 2, 3, 4, -errno.EINVAL, b"0123456789"),
    ],
)
def test_bytes_of_a_message_move(
    number: int, first: int, second: int, flags: int, result: int, after: bytes, engine: str
) -> None:
    made = message(CALL.format(first, second, flags, number), engine)
    assert (signed(made), made.data, made.context["size"]) == (result, after, len(after))


@engines
def test_a_program_sees_the_bytes_that_it_pulled(engine: str) -> None:
    call = CALL.format(2, 5, 0, PULL)
    assert message(call + SEEN, engine).return_value == 3
    assert message(call + "ldxdw r2, [r6+0]\nldxb r0, [r2+2]\nstb [r2+0], 90", engine).data == b"01Z3456789"
    with pytest.raises(MemoryFault):
        message(call + "ldxdw r2, [r6+0]\nldxb r0, [r2+3]", engine)
    with pytest.raises(MemoryFault):  # what it saw before is not its own any more
        message("ldxdw r7, [r1+0]\n" + call + "ldxb r0, [r7+1]", engine)


@engines
def test_what_is_said_beside_the_verdict(engine: str) -> None:
    made = message("mov r6, r1\nmov r2, 7\ncall 61\nmov r1, r6\nmov r2, 9\ncall 62\nmov r0, 1", engine)
    assert (made.action, made.context["apply_bytes"], made.context["cork_bytes"]) == ("SK_PASS", 7, 9)
    with pytest.raises(ExecutionError, match="bpf_msg_pull_data needs a struct sk_msg_md"):
        Program.from_bytes(assemble("call 63\nexit"), type="kprobe").run(engine=engine)


@engines
@pytest.mark.parametrize("kind", [MapType.REUSEPORT_SOCKARRAY, MapType.SOCKMAP, MapType.SOCKHASH])
@pytest.mark.parametrize(
    ("key", "flags", "result"),
    [(1, 0, 0), (2, 0, -errno.ENOENT), (9, 0, -errno.ENOENT), (1, 1, -errno.EINVAL)],
)
def test_a_socket_is_chosen(kind: MapType, key: int, flags: int, result: int, engine: str) -> None:
    sockets = create(MapDefinition("sockets", kind, 4, 8, 4), environment=HERE)
    assert sockets.update(bytes([1, 0, 0, 0]), bytes([77] + [0] * 7)) == 0
    text = f"stw [r10-4], {key}\nlddw r2, map[idx:0]\nmov r3, r10\nadd r3, -4\nmov r4, {flags}\ncall 82\nexit"
    program = Program(assemble(text), type="sk_reuseport", maps=(sockets,), references={1: sockets.address})
    made = program.run(b"datagram", engine=engine)
    assert signed(made) == result
    assert (made.redirect is None) == (result != 0)
    if made.redirect is not None:
        assert (made.redirect.helper, made.redirect.map) == ("bpf_sk_select_reuseport", "sockets")


@engines
def test_a_datagram_is_copied(engine: str) -> None:
    load = "mov r2, {0}\nmov r3, r10\nadd r3, -8\nmov r4, 4\n{1}\njne r0, 0, +1\nldxw r0, [r10-8]\nexit"
    for offset, call, result in (
        (4, "call 26", b"gram"),
        (5, "call 26", None),
        (0, "mov r5, 1\ncall 68", None),
    ):
        program = Program.from_bytes(assemble(load.format(offset, call)), type="sk_reuseport")
        wanted = -errno.EFAULT if result is None else int.from_bytes(result, "little")
        assert signed(program.run(b"datagram", engine=engine)) == wanted
