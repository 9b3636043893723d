"""Helpers of maps of sockets."""

from __future__ import annotations

import errno
from dataclasses import replace

import pytest

from ebpfjit import EbpfError, Environment, Program, Socket
from ebpfjit.assembler import assemble
from ebpfjit.kernel import unavailable_reason
from ebpfjit.runtime.maps import MapDefinition, MapType, create
from tests.support.helper_runs import HERE, Table, run

ENVIRONMENT = replace(HERE, socket_cookie=77)
UPDATE = """
    mov r9, 0
    stw [r10-4], {key}
    lddw r2, {{sockets}}
    mov r3, r10
    add r3, -4
    mov r4, {flags}
    call {number}
"""
REDIRECT = """
    mov r6, r0
    stw [r10-4], {key}
    lddw r2, {{sockets}}
    mov r3, {key_or_pointer}
    {add}
    mov r4, {redirect_flags}
    call {redirect}
    jeq r6, 0, +1
    mov r0, r6
    exit
"""


@pytest.mark.parametrize(
    ("type_", "update", "redirect", "key_or_pointer", "add"),
    [
        (MapType.SOCKMAP, 53, 52, "2", ""),
        (MapType.SOCKMAP, 53, 60, "2", ""),
        (MapType.SOCKHASH, 70, 72, "r10", "add r3, -4"),
        (MapType.SOCKHASH, 70, 71, "r10", "add r3, -4"),
    ],
)
@pytest.mark.parametrize(
    ("flags", "redirect_flags", "result"),
    [(0, 0, 1), (1, 1, 1), (0, 2, 0), (2, 0, -errno.ENOENT), (4, 0, -errno.EINVAL)],
)
def test_a_socket_is_put_in_and_sent_to(
    type_: MapType, update: int, redirect: int, key_or_pointer: str, add: str,
    flags: int, redirect_flags: int, result: int,
) -> None:  # fmt: skip
    text = (UPDATE + REDIRECT).format(
        key=2, flags=flags, number=update, redirect=redirect, key_or_pointer=key_or_pointer, add=add,
        redirect_flags=redirect_flags,
    )  # fmt: skip
    outcome = run(text, maps={"sockets": Table(type_, 4, 8, 4)}, environment=ENVIRONMENT)
    assert outcome.signed == result


def test_nothing_is_sent_where_no_socket_is() -> None:
    text = "lddw r2, {sockets}\nmov r3, 1\nmov r4, 0\ncall 52\nexit"
    assert run(text, maps={"sockets": Table(MapType.SOCKMAP, 4, 4, 4)}, environment=Environment()).value == 0


LOOK_UP = """
    stw [r10-4], {key}
    lddw r1, {{sockets}}
    mov r2, r10
    add r2, -4
    call 1
    mov r6, r0
    mov r7, -1
    jeq r6, 0, +5
"""
RELEASE = "    mov r1, r6\n    call 86\n    mov r0, r7\n    exit\n"
SOCKETS = (Socket("udp", ("10.0.0.1", 53), cookie=5, mark=9), Socket("tcp", ("10.0.0.1", 80), cookie=6))


@pytest.mark.parametrize("type_", [MapType.SOCKMAP, MapType.SOCKHASH])
@pytest.mark.parametrize(("cookie", "mark", "protocol"), [(5, 9, 17), (6, 0, 6), (7, 0, 6), (None, -1, -1)])
def test_a_socket_is_looked_up(type_: MapType, cookie: int | None, mark: int, protocol: int) -> None:
    content = {} if cookie is None else {b"\2\0\0\0": cookie.to_bytes(8, "little")}
    maps = {"sockets": Table(type_, 4, 8, 4, content=content)}
    environment = replace(ENVIRONMENT, sockets=SOCKETS)
    for offset, value in ((16, mark), (12, protocol)):
        text = (
            LOOK_UP.format(key=2)
            + f"    ldxw r7, [r6+{offset}]\n    mov r1, r6\n    call 86\n    mov r0, r7\n"
        )
        text += "    exit\n    mov r0, -1\n    exit\n"
        assert run(text, maps=maps, environment=environment).signed == value
    cookie_of = LOOK_UP.format(key=2) + "    mov r1, r6\n    call 46\n    mov r7, r0\n    ja +2\n" + RELEASE
    if cookie is not None:
        cookie_of = cookie_of.replace("    ja +2\n", "")
        assert run(cookie_of, maps=maps, environment=environment).value == cookie


@pytest.mark.parametrize("engine", ["interpreter", "jit"])
def test_a_socket_that_was_looked_up_is_given_back(engine: str) -> None:
    sockets = create(MapDefinition("sockets", MapType.SOCKMAP, 4, 8, 4), environment=ENVIRONMENT)
    assert sockets.update(b"\2\0\0\0", (5).to_bytes(8, "little")) == 0
    head = LOOK_UP.format(key=2).replace("{{", "{").replace("}}", "}").format(sockets="map[idx:0]")
    environment = replace(ENVIRONMENT, sockets=SOCKETS)
    for rest, message in (
        ("mov r0, 0", "bpf_map_lookup_elem takes a udp socket, which is still held"),
        ("mov r1, r6\ncall 86\nldxw r0, [r6+4]", "load of 4 bytes at"),
        ("ldxw r0, [r6+80]", "load of 4 bytes at"),
        ("mov r0, 0\nstxw [r6+4], r0", r"bpf_sock\.family is read-only"),
    ):
        code = assemble(f"{head}\n{rest}\n" + "exit\n" * 6)
        program = Program(code, type="tc", maps=(sockets,), references={1: sockets.address})
        with pytest.raises(EbpfError, match=message):
            program.run(bytes(64), engine=engine, environment=environment)


ASSIGN = """
    mov r9, r1
    mov r8, 0
    stw [r10-4], 2
    lddw r1, map[idx:0]
    mov r2, r10
    add r2, -4
    call 1
    jne r0, 0, found
    mov r0, 0
    exit
found:
    mov r6, r0
    mov r1, r9
    mov r2, r6
    mov r3, 0
    call 124
    mov r8, r0
    mov r1, r6
    call 86
    mov r0, 1
    jeq r8, 0, +1
    mov r0, 0
    exit
"""


@pytest.mark.parametrize("type_", [MapType.SOCKMAP, MapType.SOCKHASH])
@pytest.mark.parametrize("engine", ["interpreter", "jit", "kernel"])
def test_a_lookup_chooses_a_socket_of_a_map(type_: MapType, engine: str) -> None:
    sockets = create(MapDefinition("sockets", type_, 4, 8, 4), environment=ENVIRONMENT)
    program = Program(
        assemble(ASSIGN), "chooses", "sk_lookup", "sk_lookup", {}, {3: sockets.address}, (sockets,)
    )
    environment = None if engine == "kernel" else replace(ENVIRONMENT, sockets=SOCKETS)
    fields = {"protocol": 6, "remote_ip4": 1, "local_ip4": 2, "local_port": 80}
    if engine == "kernel" and (reason := unavailable_reason()) is not None:
        pytest.skip(str(reason))
    made = program.run(b"", engine=engine, environment=environment, context=fields)
    assert (made.action, made.context["cookie"]) == ("SK_DROP", 0)
    if engine != "kernel":
        assert sockets.update(b"\2\0\0\0", (6).to_bytes(8, "little")) == 0
        made = program.run(b"", engine=engine, environment=environment, context=fields)
        assert (made.action, made.context["cookie"]) == ("SK_PASS", 6)
