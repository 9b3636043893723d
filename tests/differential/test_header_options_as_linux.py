"""Options of TCP headers: what helpers answer in each call that Linux makes for a connection."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Any

import pytest

import ebpfjit
from tests.support import cgroups

ELF = Path(__file__).parents[1] / "elf"
needs_cgroups = pytest.mark.skipif(cgroups.why_not() is not None, reason=str(cgroups.why_not()))
TCP_SAVE_SYN = 27
LENGTH, WRITE = 14, 15
IP_HEADER = b"\x45" + bytes(19)


def calls_of_a_connection(group: Path, loaded: ebpfjit.Object) -> list[dict[str, Any]]:
    """Return what the program recorded of a connection within the cgroup."""
    with cgroups.attached(group, loaded.programs["options"]), socket.socket() as listener:
        listener.setsockopt(socket.IPPROTO_TCP, TCP_SAVE_SYN, 1)
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        with socket.create_connection(listener.getsockname(), timeout=5) as client:
            server, _ = listener.accept()
            with server:
                client.sendall(b"x")
                assert server.recv(1) == b"x"
    return calls(loaded)


def calls(loaded: ebpfjit.Object) -> list[dict[str, Any]]:
    made: list[dict[str, Any]] = loaded.globals["calls"][: loaded.globals["count"]]
    return made


def context_of(call: dict[str, Any]) -> dict[str, Any]:
    """Return the context of a call, as a test says it."""
    header = bytes(call["header"][: call["header_size"]])
    context: dict[str, Any] = {"op": call["op"]}
    if header:
        context["skb_data"] = header
    if call["op"] == LENGTH:
        context["remaining_opt_len"] = call["remaining"]
    elif call["op"] == WRITE:
        context["remaining_opt_len"] = 4 * (header[12] >> 4) - len(header)
    elif call["answers"][9] > 0:
        context["syn"] = IP_HEADER + bytes(call["syn"][: call["answers"][9]])
    return context


@needs_cgroups
def test_every_call_is_answered_as_linux_does() -> None:
    loaded = ebpfjit.load(ELF / "header_options.o")
    made = cgroups.in_a_cgroup(lambda group: calls_of_a_connection(group, loaded))
    assert {call["op"] for call in made} == {4, 5, 13, LENGTH, WRITE}
    assert {call["answers"][9] for call in made} == {0, 60, -2}  # some had the SYN, some had not
    for engine in ("interpreter", "jit"):
        for call in made:
            loaded.globals["count"] = 0
            loaded.globals["calls"] = [{}] * 24
            result = loaded.programs["options"].run(context=context_of(call), engine=engine)
            assert calls(loaded) == [call], context_of(call)
            if call["op"] == WRITE:
                assert result.context["skb_data"] == bytes(call["end"][: call["end_size"]])
