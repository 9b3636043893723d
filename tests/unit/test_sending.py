"""What runs of a batch send by themselves is what they send through Python: events, errors, rings."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from ebpfjit import EbpfError
from ebpfjit.jit import batch, sending
from ebpfjit.runtime.environment import Environment
from ebpfjit.runtime.maps import Map, MapType
from tests.support.helper_runs import Table, program_with

TABLES = {
    "one": Table(MapType.RINGBUF, entries=4096),
    "two": Table(MapType.RINGBUF, entries=8192),
    "perf": Table(MapType.PERF_EVENT_ARRAY, 4, 4, 2),
}
START = """
    mov r6, r1
    mov r9, 0
    stxdw [r10-8], r9
    lddw r7, 0x1122334455667788
    stxdw [r10-16], r7
    stxdw [r10-24], r7
    ldxw r7, [r6+0]
    ldxw r8, [r6+4]
    mov r1, r7
    add r1, 16
    jgt r1, r8, end
"""
END = """
end:
    ldxdw r0, [r10-8]
    exit
"""
ADD = "ldxdw r1, [r10-8]\nmul r1, 3\nadd r1, r0\nstxdw [r10-8], r1\n"
STACK, PACKET, STRUCT = "mov r{0}, r10\nadd r{0}, -24\n", "mov r{0}, r7\nadd r{0}, {1}\n", "mov r{0}, r6\n"


def _bytes(chosen: random.Random, register: int) -> str:
    """Return what puts a pointer into a register, of which many are the program's."""
    places = (STACK, STACK, PACKET, PACKET, STRUCT, "mov r{0}, r9\n", "mov r{0}, 64\n")
    return chosen.choice(places).format(register, chosen.randrange(16))


def _ring(chosen: random.Random) -> str:
    return f"lddw r1, {{{chosen.choice(('one', 'two'))}}}\n"


def _output(chosen: random.Random) -> str:
    size = chosen.choice((0, 1, 7, 8, 13, 16, 24, 500, 4080, 5000))
    flags = chosen.choice((0, 0, 0, 1, 3, 4))
    return f"{_bytes(chosen, 2)}mov r3, {size}\nmov r4, {flags}\n{_ring(chosen)}call 130\n{ADD}"


def _reserve(chosen: random.Random) -> str:
    size, keep = chosen.choice((0, 8, 8, 24, 300, 4097)), chosen.choice(("mov r9, r0\n", "mov r9, r0\n", ""))
    write = "jeq r9, 0, +1\nstb [r9+1], 7\n" if size and keep else ""
    flags = chosen.choice((0, 0, 0, 1))
    return f"mov r2, {size}\nmov r3, {flags}\n{_ring(chosen)}call 131\n{keep}{write}"


def _take_back(chosen: random.Random) -> str:
    forget = "mov r9, 0\n" if chosen.random() < 0.9 else ""
    call = f"mov r1, r9\nmov r2, 0\ncall {chosen.choice((132, 132, 133))}\n"
    return f"jeq r9, 0, +{4 + bool(forget)}\n{call}{forget}mov r0, 0\n"


def _query(chosen: random.Random) -> str:
    return f"mov r2, {chosen.randrange(4)}\n{_ring(chosen)}call 134\n{ADD}"


def _perf(chosen: random.Random) -> str:
    flags = chosen.choice(("-1", "-1", "0", "1", "7"))
    narrow = "lsh r3, 32\nrsh r3, 32\n" if flags == "-1" else ""
    more = "mov r1, 6\nlsh r1, 32\nor r3, r1\n" if chosen.random() < 0.2 else ""
    size = chosen.choice((1, 8, 15, 24, 100))
    return (
        f"{_bytes(chosen, 4)}mov r5, {size}\nmov r3, {flags}\n{narrow}{more}lddw r2, {{perf}}\nmov r1, r6\n"
        f"call 25\n{ADD}"
    )


def _asks_python(chosen: random.Random) -> str:
    return f"call 15\n{ADD}"


STEPS = (*(_output, _reserve, _take_back) * 2, _take_back, _query, _perf, _asks_python)


def _text(chosen: random.Random) -> str:
    """Return a program of steps of which a packet's bytes say which it takes."""
    steps = []
    for number in range(chosen.randrange(2, 14)):
        step = chosen.choice(STEPS)(chosen)
        guard = f"ldxb r1, [r7+{number}]\njset r1, {1 << chosen.randrange(3)}, over_{number}\n"
        steps.append(f"{guard}{step}over_{number}:\n")
    give_back = _take_back(chosen) if chosen.random() < 0.9 else ""
    return START + "".join(steps) + give_back + END


def _left(
    text: str, packets: list[bytes], prepare: Callable[[dict[str, Map]], None], *, optimize: bool
) -> list[Any]:
    """Return what two batches leave: values, events, errors, and what is in the maps then."""
    here = Environment(clock=lambda: 7)
    maps = {name: table.make(name, here) for name, table in TABLES.items()}
    prepare(maps)
    bare = program_with(text, maps)
    program = replace(bare, maps=tuple(maps.values()), type="xdp")
    function = program.compile(optimize=optimize, environment=here, limit=10_000)
    found: list[Any] = []
    for _ in range(2):
        events: list[tuple[int, str, bytes]] = []
        faults: list[Any] = []
        values = function.map(packets, on_fault=77, events=events, faults=faults)
        rings: list[Any] = [maps["one"], maps["two"]]
        state = [(each.query(0), each.query(2), each.query(3), each.events()) for each in rings]
        found.append((list(values), events, [_said(error) for error in faults], state))
    return found


def _said(error: EbpfError) -> str:
    """Return an error's text without addresses, which differ from map to map."""
    return " ".join("0x" if "0x" in word else word for word in str(error).split())


def _as_it_is(maps: dict[str, Map]) -> None:
    pass


def _nobody_listens(maps: dict[str, Any]) -> None:
    maps["perf"].close(0)


def _something_waits(maps: dict[str, Any]) -> None:
    maps["perf"].output(b"older")
    maps["one"].output(b"older")


@pytest.mark.parametrize("prepare", [_as_it_is, _nobody_listens, _something_waits])
@pytest.mark.parametrize("room", [sending.ROOM, 300])
def test_as_through_python(
    prepare: Callable[[dict[str, Map]], None], room: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sending, "ROOM", room)
    chosen = random.Random(f"{prepare.__name__} {room}")
    for number in range(8):
        optimize = bool(number % 2)
        text = _text(chosen)
        packets = [bytes(chosen.choices((0, 1, 2, 4, 7), k=chosen.randrange(14, 20))) for _ in range(12)]
        native = _left(text, packets, prepare, optimize=optimize)
        with monkeypatch.context() as without:
            without.setattr(batch.Batch, "_gate", lambda self, packets: None)
            assert _left(text, packets, prepare, optimize=optimize) == native, text


def test_events_of_a_batch_need_no_python() -> None:
    """But where more is sent than there is room for: then one run of many is known to Python."""
    maps: dict[str, Any] = {"one": TABLES["one"].make("one", Environment())}
    text = "mov r6, r1\nmov r2, 8\nmov r3, 0\nlddw r1, {one}\ncall 131\njeq r0, 0, +5\n"
    text += "stdw [r0+0], 5\nmov r1, r0\nmov r2, 0\ncall 132\nmov r0, 2\nexit\n"
    program = replace(program_with(text, maps), maps=(maps["one"],), type="xdp")
    function = program.compile(optimize=True)
    events: list[tuple[int, str, bytes]] = []
    function.map([bytes(60)] * 4000, events=events)
    assert events == [(number, "one", b"\5" + bytes(7)) for number in range(4000)]
    assert maps["one"].events() == []
    assert "so far 2 times" in function.explain(), function.explain()
