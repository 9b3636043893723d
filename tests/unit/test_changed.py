"""What a batch leaves besides verdicts: changed packets, events, printed lines, each of its packet."""

from __future__ import annotations

import random
from array import array
from pathlib import Path
from typing import Any

import pytest

from ebpfjit import Changed, EbpfError, JitFunction, Program, load
from ebpfjit.assembler import assemble
from ebpfjit.jit import batch
from ebpfjit.runtime.contexts.outcome import with_tag
from tests.support.packets import packets

EXAMPLES = Path(__file__).resolve().parents[2] / "examples" / "packets"
Left = tuple[list[int], list[bytes], list[tuple[int, str, bytes]], list[tuple[int, str]]]


def _mapped(function: JitFunction, *given: Any, **options: Any) -> Left:
    changed = Changed()
    events: list[tuple[int, str, bytes]] = []
    output: list[tuple[int, str]] = []
    values = function.map(*given, on_fault=0, changed=changed, events=events, output=output, **options)
    return list(values), [bytes(packet) for packet in changed], events, output


def _run(program: Program, data: list[bytes]) -> Left:
    """Return what `Program.run` does to each packet."""
    values: list[int] = []
    left: list[bytes] = []
    events: list[tuple[int, str, bytes]] = []
    output: list[tuple[int, str]] = []
    for number, packet in enumerate(data):
        try:
            result = program.run(packet, engine="interpreter")
        except EbpfError:
            values.append(0)
            left.append(b"")
            continue
        values.append(result.return_value)
        left.append(with_tag(result.data, result.context))
        events += [(number, *event) for event in result.events]
        output += [(number, line) for line in result.output]
    return values, left, events, output


DATA = [*packets().values(), b"too short", bytes(2000)]
TUNNEL = {"local": 0x0100000A, "remote": 0x0900000A}


def _example(name: str, program: str) -> Program:
    """Return a program, with a tunnel for what goes to 10.0.0.2."""
    obj = load(EXAMPLES / f"{name}.o")
    if name == "ipip":
        obj.maps["tunnels"].typed[0x0200000A] = TUNNEL
    return obj.programs[program]


NAMES = ("ipip", "event_logger", "nat", "vlan", "socket_statistics", "load_balancer")


@pytest.mark.parametrize("name", NAMES)
def test_batches_leave_what_runs_do(name: str) -> None:
    """All that the examples change, in code of both kinds, from packets of all sources."""
    whole = b"".join(DATA)
    starts = [sum(map(len, DATA[:number])) for number in range(len(DATA) + 1)]
    for program in load(EXAMPLES / f"{name}.o").programs:
        expected = _run(_example(name, program), DATA)
        for optimize, given, options in (
            (True, DATA, {}),
            (False, whole, {"offsets": starts}),
            (True, whole, {"offsets": starts[:-1], "lengths": [*map(len, DATA)]}),
        ):
            function = _example(name, program).compile(optimize=optimize)
            assert _mapped(function, given, **options) == expected, (program, options)


PRINTS = """
    mov r6, r1
    mov r7, 0x0a7525
    stxdw [r10-8], r7
    mov r1, r10
    sub r1, 8
    mov r2, 4
    ldxw r3, [r6+0]
    call 6
    mov r0, 2
    exit
"""


def test_lines_and_faults_are_of_their_packets() -> None:
    program = Program.from_assembly(PRINTS, name="prints", type="socket_filter")
    values, left, _, output = _mapped(program.compile(), DATA)
    sizes = [len(packet) for packet in DATA]
    expected = [(number, str(size - 14)) for number, size in enumerate(sizes) if size >= 14]
    assert output == expected
    assert (values[0], values[-2], left[-2], left[0]) == (2, 0, b"", DATA[0])
    far = Program.from_assembly(
        "ldxw r2, [r1+4]\nldxw r1, [r1+0]\nldxb r0, [r1+60]\nexit", type="xdp"
    ).compile()
    faults: list[Any] = []
    changed = Changed()
    far.map(DATA, on_fault=7, faults=faults, changed=changed)
    assert [error.index for error in faults] == [n for n, size in enumerate(sizes) if size <= 60]
    assert [len(packet) for packet in changed] == [size if size > 60 else 0 for size in sizes]


def test_programs_without_a_type_write_in_place_as_ever() -> None:
    double = Program.from_bytes(assemble("ldxb r0, [r1]\nadd r0, r0\nstxb [r1], r0\nexit")).compile()
    data = bytearray(range(60))
    assert _mapped(double, data, stride=3)[1] == [bytes([2 * n % 256, n + 1, n + 2]) for n in range(0, 60, 3)]
    assert data[3] == 6
    assert _mapped(double, [b"ab", bytearray(b"cd")])[1] == [b"", bytes([198, 100])]  # bytes are read-only
    called = []

    def helper(*_: int) -> int:
        called.append(1)
        return 5

    asks = Program.from_bytes(assemble("mov r6, r1\ncall 1\nstxb [r6], r0\nexit")).compile(
        helpers={1: helper}
    )
    many = [bytearray(b"x" * size) for size in (1, 200, 17)] * 1000  # more than are held at a time
    left = _mapped(asks, many)[1]
    assert left == [b"\5" + b"x" * (size - 1) for size in (1, 200, 17)] * 1000
    assert len(called) == 3000


def test_changed_packets_are_packets() -> None:
    """They go into the next program; what somebody looks at stays as it is."""
    outer, inner = (_example("ipip", name).compile() for name in ("encapsulate", "decapsulate"))
    start = [packet for name, packet in packets().items() if name in ("tcp", "udp", "tcp_data")]
    changed, back = Changed(), Changed()
    outer.map(start, changed=changed)
    assert [len(now) - len(before) for now, before in zip(changed, start, strict=True)] == [20] * 3
    inner.map(changed, changed=back)
    assert [bytes(packet)[14:] for packet in back] == [packet[14:] for packet in start]
    assert repr(back) == f"<3 packets, {sum(map(len, start))} bytes>"
    seen, view = [bytes(packet) for packet in back], back.buffer
    inner.map(start[:1], changed=back)
    assert (len(back), bytes(view)) == (1, b"".join(seen))
    assert isinstance(back.lengths.obj, array)


def test_a_batch_that_stops_leaves_nothing() -> None:
    changed = Changed()
    first = Program.from_bytes(assemble("ldxb r0, [r1]\nexit")).compile()
    first.map([b"a", b"bc"], changed=changed)
    assert [bytes(packet) for packet in changed] == [b"a", b"bc"]
    with pytest.raises(EbpfError):
        first.map([b"xyz", b""], changed=changed)
    assert (list(changed), len(changed.buffer)) == ([], 0)
    assert not batch.takers


@pytest.mark.parametrize("seed", range(3))
def test_as_without_machine_code_around_it(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Calls that are prepared in Python leave the same."""
    chosen = random.Random(seed)
    data = [chosen.randbytes(chosen.randrange(10, 90)) for _ in range(20)]
    program = _example("vlan", "push")
    native = _mapped(program.compile(), data)
    monkeypatch.setattr(batch.Batch, "_gate", lambda self, packets: None)
    assert _mapped(program.compile(), data) == native
