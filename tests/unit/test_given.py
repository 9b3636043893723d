"""Objects that a user gives an environment: what they are not is said where they are given, in words."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

import ebpfjit
from ebpfjit import Interface, Network, Route, Socket, TunnelKey

UNTYPED: Any = ebpfjit  # what is wrong here is what mypy would say

_NOWHERE = ("10.0.0.1", 80)
WRONG_TYPES: list[tuple[Callable[..., object], dict[str, Any]]] = [
    (Interface, {"mtu": "1500", "mac": b"x"}),
    (partial(Route, "10.0.0.0/8"), {"ifindex": "2", "gateway": 1, "source": 1, "metric": None}),
    (partial(Route, "10.0.0.0/8"), {"mtu": "1", "table": 2.5}),
    (Route, {"network": 10}),
    (TunnelKey, {"id": "1", "remote": 1, "local": b"", "tos": None, "ttl": 1.5, "label": "x", "flags": ()}),
    (Network, {"routes": "10.0.0.0/8", "neighbours": (), "interfaces": [1]}),
    (partial(Socket, "tcp", _NOWHERE), {"remote": "10.0.0.2", "interface": "lo", "mark": None}),
    (partial(Socket, "tcp", _NOWHERE), {"cookie": b"", "tcp": 5}),
    (partial(Socket, local=_NOWHERE), {"protocol": 6}),
]  # fmt: skip
NO_ROOM: list[tuple[Callable[..., object], dict[str, Any]]] = [
    (Interface, {"mtu": -1}),
    (partial(Route, "10.0.0.0/8"), {"ifindex": -1, "mtu": 1 << 32}),
    (TunnelKey, {"id": 1 << 32, "tos": 256, "ttl": -1, "flags": 1 << 16}),
    (
        partial(Socket, "udp", _NOWHERE),
        {"mark": 1 << 32, "rx_queue": 1 << 31, "state": -1, "cookie": 1 << 64},
    ),
]


@pytest.mark.parametrize(
    ("make", "name", "value"),
    [(make, name, value) for make, members in WRONG_TYPES for name, value in members.items()],
)
def test_members_of_another_type_are_refused_where_they_are_given(
    make: Callable[..., object], name: str, value: Any
) -> None:
    with pytest.raises(TypeError, match=f"^{name} is a .*, not of type {type(value).__name__}$"):
        make(**{name: value})


@pytest.mark.parametrize(
    ("make", "name", "value"),
    [(make, name, value) for make, members in NO_ROOM for name, value in members.items()],
)
def test_numbers_without_room_are_refused_where_they_are_given(
    make: Callable[..., object], name: str, value: int
) -> None:
    with pytest.raises(ValueError, match=f"^{name} is from -?[0-9]+ to [0-9]+, not {value}$"):
        make(**{name: value})


@pytest.mark.parametrize(
    ("make", "why"),
    [
        (lambda: UNTYPED.Network(routes=({},)), "each of routes is a Route, not of type dict"),
        (
            lambda: UNTYPED.Network(neighbours={"10.0.0.1": None}),
            "each of neighbours is a string, not of type None",
        ),
        (
            lambda: UNTYPED.Network(interfaces={1: 1500}),
            "each of interfaces is an Interface, not of type int",
        ),
        (
            lambda: UNTYPED.Network(interfaces={"1": Interface()}),
            "numbers of interfaces is a number, not of type str",
        ),
        (lambda: UNTYPED.Socket("tcp", ("10.0.0.1", "80")), "port of 10.0.0.1 is a number, not of type str"),
        (lambda: UNTYPED.Socket("tcp", (1, 80)), "IP address of a socket is a string, not of type int"),
        (
            lambda: UNTYPED.Socket("tcp", _NOWHERE, tcp={"snd_cwnd": "3"}),
            "tcp: snd_cwnd is a number, not of type str",
        ),
        (lambda: UNTYPED.Environment(memory={"5": b"x"}), "addresses of memory is a number, not of type str"),
        (lambda: UNTYPED.Environment(symbols={5: b"x"}), "names of symbols is a string, not of type int"),
        (
            lambda: UNTYPED.Environment(socket_options={7: 1}),
            "keys of socket_options is a tuple, not of type int",
        ),
        (
            lambda: UNTYPED.Environment(socket_options={(1, 2): None}),
            "a number, bytes or a string, not of type None",
        ),
        (lambda: UNTYPED.Environment().file(5), "path is a string or None, not of type int"),
        (lambda: UNTYPED.Environment().struct(5), "name of a struct is a string, not of type int"),
    ],
)
def test_what_is_inside_of_members_is_refused_where_it_is_given(make: Callable[[], object], why: str) -> None:
    with pytest.raises(TypeError, match=why):
        make()


def test_what_counts_as_a_number_becomes_one() -> None:
    class Number:
        def __index__(self) -> int:
            return 7

    given: Any = Number()
    assert Interface(mtu=given) == Interface(mtu=7)
    assert Socket("tcp", ("10.0.0.1", given), mark=given) == Socket("tcp", ("10.0.0.1", 7), mark=7)
