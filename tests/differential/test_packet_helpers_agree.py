"""Helpers on packets that machine code does by itself: moves of a packet's ends and copies, in any order.

Programs made at random, some of whose calls let Python know the run in between, on the interpreter, in both
tiers of machine code as functions, in batches, and as `run` runs them: one result, and one fault.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable

import pytest

from ebpfjit import EbpfError, JitFunction, Program
from ebpfjit.runtime.helpers.names import NUMBERS
from tests.support.whole import WHOLE

SEEDS = range(400 if WHOLE else 40)
ADJUST = ("xdp_adjust_head", "xdp_adjust_tail", "xdp_adjust_meta", "skb_pull_data")
COPY = ("xdp_load_bytes", "xdp_store_bytes", "skb_load_bytes")
KNOWN, PACKET = "get_current_uid_gid", "packet"  # Python knows the run from here on; loads and stores
CALLS = {
    "xdp": (*ADJUST[:3], *COPY[:2], "xdp_get_buff_len", KNOWN, PACKET, PACKET),
    "tc": ("skb_pull_data", "skb_load_bytes", KNOWN, PACKET),
    "socket_filter": ("skb_load_bytes", KNOWN),
}
POINTERS = {"xdp": (0, 4, 8), "tc": (76, 80, 140)}  # data, data_end, data_meta
DISTANCES = (
    0,
    1,
    -1,
    4,
    -4,
    -8,
    14,
    -14,
    46,
    -46,
    216,
    -216,
    -217,
    252,
    -252,
    -256,
    3500,
    -3500,
    2**31 - 1,
    -(2**31),
)
OFFSETS, COUNTS = (0, 1, 12, 20, 46, 60, -1, 3000), (1, 2, 3, 4, 7, 8, 9, 16, 32, 64, 100, 0, -1)
MIXED = "r9 *= 31\nr9 ^= r0"


def _touch(made: random.Random, kind: str, label: str) -> str:
    """Return loads and stores of the packet, mostly behind a test of its end."""
    data, end, meta = POINTERS[kind]
    size, bits = made.choice([(1, "u8"), (2, "u16"), (4, "u32"), (8, "u64")])
    at = made.choice([0, 0, 4, 10, 13])
    tested = f"r2 = r7\nr2 += {at + size}\nif r2 > r8 goto {label}" if made.random() < 0.8 else ""
    stored = f"r1 = {made.getrandbits(31)}\n*({bits} *)(r7 + {at}) = r1" if made.random() < 0.5 else ""
    return f"""
        r7 = *(u32 *)(r6 + {made.choice([data, meta])})
        r8 = *(u32 *)(r6 + {end})
        {tested}
        {stored}
        r0 = *({bits} *)(r7 + {at})
        {MIXED}
        r8 -= r7
        r9 ^= r8
        {label}:"""


def _copy(made: random.Random, name: str) -> str:
    to = made.choice([-128] * 8 + [-8, 0, -600])
    filled = "\n".join(f"r0 = {made.getrandbits(31)}\n*(u64 *)(r10 - {at}) = r0" for at in range(8, 129, 8))
    arguments = f"r2 = {made.choice(OFFSETS)}\nr3 = r10\nr3 += {to}\nr4 = {made.choice(COUNTS)}"
    read = "\n".join(f"r0 = *(u64 *)(r10 - {at})\n{MIXED}" for at in (128, 120, 72))
    return f"{filled}\nr1 = r6\n{arguments}\ncall {NUMBERS['bpf_' + name]}\n{MIXED}\n{read}"


def text_of(made: random.Random, kind: str) -> str:
    parts = ["r6 = r1", "r9 = 0"]
    for number in range(made.randint(1, 8)):
        name = made.choice(CALLS[kind])
        if name == PACKET:
            parts.append(_touch(made, kind, f"L{number}"))
        elif name in COPY:
            parts.append(_copy(made, name))
        elif name == KNOWN:
            parts.append(f"call {NUMBERS['bpf_' + name]}")
        else:
            distance = made.choice([*DISTANCES, made.randint(-300, 300)])
            parts.append(f"r1 = r6\nr2 = {distance}\ncall {NUMBERS['bpf_' + name]}\n{MIXED}")
    return "\n".join([*parts, "r0 = r9", "r0 >>= 32", "r0 ^= r9", "exit"])


def outcome(run: Callable[[], int]) -> object:
    """Return a result, or what was raised, without addresses and the number of a packet in a batch."""
    try:
        return run()
    except EbpfError as error:
        return type(error), re.sub(r"^packet \d+: |0x[0-9a-f]+", "", str(error))


def last_of_a_batch(function: JitFunction, packet: bytes) -> int:
    errors: list[EbpfError] = []
    results = function.map([packet] * 2, on_fault=0, faults=errors)  # type: ignore[arg-type]
    if errors:
        raise errors[-1]
    return results[-1]


@pytest.mark.parametrize("seed", SEEDS)
def test_helpers_on_packets_do_as_the_interpreters(seed: int) -> None:
    made = random.Random(seed)
    kind = made.choice([*CALLS, "xdp", "xdp"])
    text = text_of(made, kind)
    program = Program.from_assembly(text, name="made", type=kind)  # type: ignore[arg-type]
    functions = [program.compile(optimize=optimize) for optimize in (False, True)]
    packets = [
        made.randbytes(made.choice([14, 15, 20, 46, 64, 100, 1500, 3520, 3600, 9000])) for _ in range(3)
    ]
    for packet in [*packets, packets[0]]:
        wanted = outcome(lambda: program.run(packet, engine="interpreter").return_value)  # noqa: B023
        assert outcome(lambda: program.run(packet, engine="jit").return_value) == wanted, text  # noqa: B023
        for function in functions:
            assert outcome(lambda: function(packet)) == wanted, text  # noqa: B023
            assert outcome(lambda: last_of_a_batch(function, packet)) == wanted, text  # noqa: B023


@pytest.mark.parametrize("optimize", [False, True])
def test_what_a_run_left_in_front_of_a_packet_is_gone_for_the_next(optimize: bool) -> None:
    text = """
        r6 = r1
        r2 = -16
        call 44
        r7 = *(u32 *)(r6 + 0)
        r8 = *(u32 *)(r6 + 4)
        r1 = r7
        r1 += 8
        if r1 > r8 goto out
        r0 = *(u64 *)(r7 + 0)
        r1 = 7
        *(u64 *)(r7 + 0) = r1
        exit
        out: r0 = 1
        exit
    """
    function = Program.from_assembly(text, name="left", type="xdp").compile(optimize=optimize)
    assert [function(bytes(60)) for _ in range(3)] == [0, 0, 0]
    assert set(function.map([bytes(60)] * 3)) == {0}
    assert "Python function" not in function.explain()
    assert "so far" not in function.explain()  # it called nobody
