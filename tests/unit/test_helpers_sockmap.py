"""Helpers of maps of sockets."""

from __future__ import annotations

import errno
from dataclasses import replace

import pytest

from ebpfjit import Environment
from ebpfjit.runtime.maps.definition import MapType
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
