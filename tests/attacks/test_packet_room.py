"""Packets that grow and shrink by turns: they stay within their memory, and hold what Linux's would.

Every helper that moves an end of a packet, with sizes that nobody means, in random order. After each call
first <= data_meta <= data <= data_end <= last holds, and the structs below `first` are what they were; both
engines agree; bytes and results are those of a model that has no memory to leave, and of Linux on a sample.
"""

from __future__ import annotations

import errno
import random
from collections.abc import Callable
from typing import Any

import pytest

from ebpfjit.assembler import assemble
from ebpfjit.difftest.children import run_forked
from ebpfjit.errors import ExecutionError, InputError
from ebpfjit.kernel import unavailable_reason
from ebpfjit.program import Program
from ebpfjit.runtime.contexts import packet_context, program_type
from ebpfjit.runtime.contexts.packet import PacketContext
from ebpfjit.runtime.contexts.skb import SOCK_AT, SkbContext

U32 = (1 << 32) - 1
ENOTSUPP = 524
needs_kernel = pytest.mark.skipif(unavailable_reason() is not None, reason=str(unavailable_reason()))

HOSTILE = (0, 1, -1, 4, -4, 13, 14, 15, 20, -20, 64, -64, 255, 256, 1 << 31, (1 << 31) - 1, 65535, 65536, U32,
           U32 - 1, 4095, -4095, 4096, 4080, -4080, 16064, 16065, 1500, 9000, -9000, 33, 34, 35)  # fmt: skip
PROTOCOLS = (0x0008, 0xDD86, 0x0081, 0xA888, 0, 0xFFFF)

Call = tuple[int, tuple[int, ...]]

#  helper: its number, and what its arguments are chosen from
TC = {
    "change_head": (43, (HOSTILE, (0, 0, 0, 0, 1))),
    "change_tail": (38, (HOSTILE, (0, 0, 0, 0, 1))),
    "adjust_room": (50, (HOSTILE, (0, 1, 0, 1, 2), (0, 0, 0, 0, 2, 4, 6, 8, 1 << 9, 32))),
    "change_proto": (31, (PROTOCOLS, (0, 0, 0, 1))),
    "vlan_push": (18, (PROTOCOLS, (0, 5, 0xFFFF))),
    "vlan_pop": (19, ()),
}
XDP = {"adjust_head": (44, (HOSTILE,)), "adjust_tail": (65, (HOSTILE,)), "adjust_meta": (54, (HOSTILE,))}
NAMES = {number: name for table in (TC, XDP) for name, (number, _) in table.items()}


def chosen(rng: random.Random, table: dict[str, Any], count: int) -> list[Call]:
    """Return calls of random helpers with random arguments."""
    calls = []
    for _ in range(count):
        number, choices = table[rng.choice(list(table))]
        calls.append((number, tuple(rng.choice(values) for values in choices)))
    return calls


def program(calls: list[Call], type_: str) -> Program:
    """Return a program that makes the calls and returns a digest of what they returned.

    Then it writes the first and the last byte of the packet, where it has any.
    """
    data, data_end = (0, 4) if type_ == "xdp" else (76, 80)
    lines = ["mov r6, r1", "mov r7, 0"]
    for number, arguments in calls:
        lines += ["mov r1, r6"]
        lines += [f"lddw r{2 + index}, {value}" for index, value in enumerate(arguments)]
        lines += [f"call {number}", "mul32 r7, 31", "add32 r7, r0"]
    lines += [f"ldxw r2, [r6+{data}]", f"ldxw r3, [r6+{data_end}]"]
    lines += ["mov r4, r2", "add r4, 1", "jgt r4, r3, out", "stb [r2], 0xAB"]
    lines += ["out:", "mov r0, r7", "exit"]
    return Program(assemble("\n".join(lines)), type=type_)


def digest(results: list[int]) -> int:
    """Return what the program returns for such results."""
    value = 0
    for result in results:
        value = (value * 31 + result) & U32
    return value


def frame(rng: random.Random, size: int) -> bytes:
    """Return an Ethernet frame; mostly IPv4 or IPv6, some with VLAN tags."""
    kind = rng.choice((b"\x08\x00", b"\x08\x00", b"\x86\xdd", b"\x81\x00\0\5\x08\x00", b"\x90\0"))
    return (bytes(range(12)) + kind + rng.randbytes(size))[:size]


def signed(value: int) -> int:
    """Return the low 32 bits as the kernel's int."""
    value &= U32
    return value - (1 << 32) if value >> 31 else value


class TcModel:
    """A packet of tc as bytes: `network` is where its network header is, `tag` the VLAN tag beside it."""

    def __init__(self, data: bytes) -> None:
        self.data = bytearray(data)
        self.network = 14
        self.protocol = data[12] << 8 | data[13]
        if self.protocol < 0x600:
            self.protocol = 1 if data[14:16] == b"\xff\xff" else 4
        self.tag: tuple[int, int] | None = None
        self.encapsulated = False

    def change_head(self, room: int, flags: int) -> int:
        room = signed(room)
        if flags or room < 0 or len(self.data) + room > 16064:
            return -errno.EINVAL
        self.data[:0] = bytes(room)
        self.network += room
        return 0

    def change_tail(self, size: int, flags: int) -> int:
        size &= U32
        if flags or size > 16064 or size < self.network:
            return -errno.EINVAL
        if self.encapsulated:
            return -ENOTSUPP
        self.data = self.data[:size].ljust(size, b"\0")
        return 0

    def adjust_room(self, difference: int, mode: int, flags: int) -> int:
        difference = signed(difference)
        amount, header = abs(difference), {0x800: 20, 0x86DD: 40}.get(self.protocol)
        if flags & 512:  # no such flag
            return -errno.EINVAL
        if amount > 0xFFF:
            return -errno.EFAULT
        if header is None or mode > 1:
            return -ENOTSUPP
        at, behind = self.network + (0 if mode else header), len(self.data) - self.network
        if difference < 0:
            if amount >= behind or behind - amount < header:
                return -ENOTSUPP
            if flags & ~0x121:
                return -errno.EINVAL
            if at + amount > len(self.data):
                return -errno.ENOMEM
            del self.data[at : at + amount]
            return 0
        if len(self.data) + amount > 16064:
            return -ENOTSUPP
        if flags & 6 == 6:
            return -errno.EINVAL
        if flags & 6 and self.encapsulated:
            return -errno.EALREADY
        if at > len(self.data):
            return -errno.ENOMEM
        self.data[at:at] = bytes(amount)
        if flags & 6:
            self.encapsulated = True
            self.protocol = 0x800 if flags & 2 else 0x86DD
        return 0

    def change_proto(self, protocol: int, flags: int) -> int:
        wanted = (protocol & 0xFF) << 8 | protocol >> 8 & 0xFF
        if flags:
            return -errno.EINVAL
        if {wanted, self.protocol} != {0x800, 0x86DD}:
            return -ENOTSUPP
        at = self.network
        if wanted == 0x800 and at + 20 > len(self.data):
            return -errno.ENOMEM
        if wanted == 0x86DD and at > len(self.data):
            return -errno.ENOMEM
        if wanted == 0x800:
            del self.data[at : at + 20]
        else:
            self.data[at:at] = bytes(20)
        self.protocol = wanted
        return 0

    def vlan_push(self, protocol: int, tci: int) -> int:
        wanted = (protocol & 0xFF) << 8 | protocol >> 8 & 0xFF
        if self.tag is not None:
            outer, old = self.tag
            self.data[12:12] = outer.to_bytes(2, "big") + old.to_bytes(2, "big")
            self.protocol = outer
        self.tag = (wanted if wanted in (0x8100, 0x88A8) else 0x8100), tci
        return 0

    def _untag(self) -> int | None:
        if len(self.data) < 18:
            return None
        tci = int.from_bytes(self.data[14:16], "big")
        inside = int.from_bytes(self.data[16:18], "big")
        if inside < 0x600:
            inside = 1 if self.data[18:20] == b"\xff\xff" else 4
        del self.data[12:16]
        self.network = max(self.network - 4, 14)
        self.protocol = inside
        return tci

    def vlan_pop(self) -> int:
        if self.tag is not None:
            self.tag = None
        elif self.protocol not in (0x8100, 0x88A8):
            return 0
        elif self._untag() is None:
            return -errno.ENOMEM
        if self.protocol in (0x8100, 0x88A8):
            outer = self.protocol
            tci = self._untag()
            if tci is None:
                return -errno.ENOMEM
            self.tag = outer, tci
        return 0


class XdpModel:
    """A packet of XDP as bytes, `before` how far its start is from the page's, with `metadata` before it."""

    def __init__(self, data: bytes) -> None:
        self.data = bytearray(data)
        self.before, self.metadata = 256, bytearray()
        self.end = max(4096, 256 + len(data) + 320) - 320

    def adjust_head(self, distance: int) -> int:
        distance = signed(distance)
        if self.before + distance < 40 + len(self.metadata) or distance > len(self.data) - 14:
            return -errno.EINVAL
        if distance >= 0:
            del self.data[:distance]
        else:
            # what stood there before is seen again; in a new page it is zero
            raise ForgottenBytesError
        self.before += distance
        return 0

    def adjust_tail(self, distance: int) -> int:
        size = len(self.data) + signed(distance)
        if self.before + size > self.end or size < 14:
            return -errno.EINVAL
        self.data = self.data[:size].ljust(size, b"\0")
        return 0

    def adjust_meta(self, distance: int) -> int:
        size = len(self.metadata) - signed(distance)
        if self.before - size < 40 or size < 0:
            return -errno.EINVAL
        if size % 4 or size > 252:
            return -errno.EACCES
        kept = bytes(self.metadata)[-size:] if size else b""
        self.metadata = bytearray(kept.rjust(size, b"\0"))
        return 0


class ForgottenBytesError(Exception):
    """The model does not know what the helper brings back."""


def modelled(calls: list[Call], data: bytes, type_: str) -> tuple[int, bytes] | None:
    """Return what the program returns, and the packet, by the model, where it knows."""
    if type_ == "lwt_xmit":
        return None
    model: Any = TcModel(data) if type_ == "tc" else XdpModel(data)
    try:
        value = digest([getattr(model, NAMES[number])(*arguments) for number, arguments in calls])
    except ForgottenBytesError:
        return None
    after = bytearray(model.data)
    after[:1] = b"\xab" if after else b""
    return value, bytes(after)


@pytest.fixture(autouse=True)
def watched(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hold the invariant whenever a packet is put somewhere."""
    original = PacketContext.place

    def place(self: PacketContext) -> None:
        original(self)
        assert self.first <= self.data_meta <= self.data <= self.data_end <= self.last
        assert self.lowest >= self.first
        assert self.packet.start == self.memory.start + self.data_meta
        assert self.packet.stop == self.memory.start + self.data_end
        if isinstance(self, SkbContext):
            assert self.get("sk") == self.memory.start + SOCK_AT
            assert bytes(self.sock.view[72:80]) == (7).to_bytes(4, "little") + b"\xff" * 4

    monkeypatch.setattr(PacketContext, "place", place)


SIZES = (14, 15, 18, 20, 33, 34, 54, 60, 64, 200, 1500, 3500, 9000, 16064, 60000)


@pytest.mark.parametrize("type_", ["tc", "xdp", "lwt_xmit"])
@pytest.mark.parametrize("seed", range(6))
def test_random_sequences(type_: str, seed: int) -> None:
    """Both engines and the model agree, and the packet stays in its memory."""
    rng = random.Random(f"{type_} {seed}")
    table = XDP if type_ == "xdp" else TC
    accepted = 0
    for number in range(40):
        data = frame(rng, rng.choice(SIZES))
        calls = chosen(rng, table, rng.choice((1, 3, 10, 40)))
        made = program(calls, type_)
        results = [made.run(data, engine=engine) for engine in ("interpreter", "jit")]
        slow, fast = [(each.return_value, each.data, each.metadata, each.context) for each in results]
        assert slow == fast, (seed, number, calls)
        accepted += len(slow[1]) != len(data)
        expected = modelled(calls, data, type_)
        if expected is not None:
            assert (slow[0], slow[1]) == expected, (seed, number, len(data), calls)
    assert accepted > 5  # not all is refused


@needs_kernel
@pytest.mark.parametrize("type_", ["tc", "xdp"])
def test_random_sequences_in_linux(type_: str) -> None:
    """Linux makes the same of the same calls."""

    def job() -> tuple[int, list[str]]:
        judged, wrong = 0, []
        for seed in range(60):
            rng = random.Random(f"linux {type_} {seed}")
            data = frame(rng, rng.choice((14, 18, 34, 60, 64, 200, 1500, 3000)))
            calls = chosen(rng, TC if type_ == "tc" else XDP, rng.choice((1, 3, 10)))
            made = program(calls, type_)
            try:
                judge = made.run(data, engine="kernel")
            except InputError:
                continue  # a packet that BPF_PROG_TEST_RUN does not take or give back
            judged += 1
            mine = made.run(data, engine="jit")
            if (judge.return_value, judge.data) != (mine.return_value, mine.data):
                wrong.append(
                    f"{seed}: {len(data)} bytes {data[12:18].hex()}, {calls}: {mine.return_value:#x} "
                    f"{len(mine.data)} bytes, Linux {judge.return_value:#x} {len(judge.data)}"
                )
        return judged, wrong

    ended = run_forked(job, 60)
    assert ended.value is not None, ended
    judged, wrong = ended.value
    assert wrong == []
    assert judged > 30


def grow_by_turns(rounds: int) -> list[Call]:
    return [(50, (4095, 1, 0)), (38, (64, 0))] * rounds


@pytest.mark.parametrize("engine", ["interpreter", "jit"])
def test_growth_by_turns_never_ends(engine: str) -> None:
    """What grows in front and is cut behind is put elsewhere where its room ends, as in Linux."""
    data = bytes(12) + b"\x08\x00\x45" + bytes(range(63))
    calls = grow_by_turns(100)
    result = program(calls, "tc").run(data, engine=engine)
    assert (result.return_value, result.data) == modelled(calls, data, "tc")


@pytest.mark.parametrize("engine", ["interpreter", "jit"])
def test_tags_end_with_the_memory(engine: str) -> None:
    """Linux limits no VLAN tags; where there is no memory for one more it says so, and nothing is moved."""
    text = """
        mov r6, r1
        mov r7, 0
        again:
        mov r1, r6
        mov r2, 0x81
        mov r3, 5
        call 18
        jne r0, 0, out
        add r7, 1
        jlt r7, 100000, again
        out:
        ldxw r1, [r6+76]
        ldxw r2, [r6+80]
        stb [r1], 1
        stb [r2-1], 2
        exit
    """
    result = Program(assemble(text), type="tc").run(bytes(12) + b"\x08\x00" + bytes(50), engine=engine)
    assert result.return_value == -errno.ENOMEM & U32
    assert 1 << 16 < len(result.data) < 1 << 18
    assert (result.data[0], result.data[-1]) == (1, 2)


@pytest.mark.parametrize("engine", ["interpreter", "jit"])
@pytest.mark.parametrize("room", [16000, 65535, 1 << 20, (1 << 31) - 1])
def test_segments_have_no_limit_but_memory(engine: str, room: int) -> None:
    """A packet of segments grows past SKB_MAX_ALLOC, up to the memory there is."""
    made = program([(43, (room, 0))], "tc")
    result = made.run(bytes(12) + b"\x08\x00" + bytes(50), engine=engine, context={"gso_size": 100})
    fits = room < 1 << 17
    assert result.return_value == (0 if fits else -errno.ENOMEM & U32)
    assert len(result.data) == 64 + (room if fits else 0)


@pytest.mark.parametrize("move", [(-1, 0), (1, 0), (0, -1), (0, 1 << 30)])
@pytest.mark.parametrize("type_", ["xdp", "tc", "lwt_xmit"])
def test_the_one_place_refuses_what_leaves_the_memory(type_: str, move: tuple[int, int]) -> None:
    """Whoever forgets to ask for room is told, and nothing is moved."""
    context = packet_context(program_type(type_))
    before = context.data, context.data_end, context.data_meta
    with pytest.raises(ExecutionError, match="would leave its memory"):
        context.move(context.first + move[0], context.first + move[1])
    assert (context.data, context.data_end, context.data_meta) == before
    for name in ("data", "data_end", "data_meta"):
        with pytest.raises(AttributeError):
            setattr(context, name, 0)


@pytest.mark.parametrize("size", [14, 60, 1500, 65536, 70000])
@pytest.mark.parametrize("type_", ["xdp", "tc", "lwt_xmit"])
def test_room_is_made_without_a_change_to_the_packet(type_: str, size: int) -> None:
    """Bytes and headers move together, to the last byte of the memory there is."""
    rng = random.Random(size)
    context = packet_context(program_type(type_), max(size, 1 << 16))
    data = frame(rng, size)
    context.start(data, None)
    content, headers = bytes(context.view[context.data : context.data_end]), _headers(context)
    for _ in range(200):
        free = context.last - context.first - (context.data_end - context.lowest)
        before = rng.choice((0, 1, 4095, free // 2, free, free + 1, -1))
        behind = rng.choice((0, 1, 4095, free - before, free - before + 1))
        fits = min(before, behind) >= 0 and before + behind <= free
        assert context.make_room(before, behind) is fits
        if fits:
            assert context.lowest - before >= context.first
            assert context.data_end + behind <= context.last
        assert bytes(context.view[context.data : context.data_end]) == content
        assert _headers(context) == headers


def _headers(context: Any) -> list[int]:
    names: Callable[[str], int] = lambda name: getattr(context, name, context.data) - context.data  # noqa: E731
    return [names(name) for name in ("data_meta", "mac_header", "network_header")]
