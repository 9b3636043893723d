"""Packets that grow and shrink by turns, at both ends and in the middle, to where there is no more room.

    r6  the context      r7  rounds      r8  data      r9  all that was seen, mixed

After each turn there are loads and stores: of the packet, near its ends, and of what lies where it was.
"""

from __future__ import annotations

import random

from ebpfjit.difftest.case import Case, Input
from ebpfjit.difftest.hostile.writer import Writer
from ebpfjit.runtime.helpers.names import NUMBERS

LIMIT = 3000
AMOUNTS = (0, 1, 4, 8, 14, 20, 64, 216, 252, 256, 512, 4095, 4096, 16000, 32768, 0x7FFFFFFF)
SMALL = (1, 2, 4, 4, 8, 14, 20)
ROOM_FLAGS = (0, 0, 0, 0, 1, 2, 1 << 5, 1 << 7, 1 << 8)

Turn = tuple[str, tuple[str, ...]]

XDP: tuple[Turn, ...] = (
    ("bpf_xdp_adjust_head", ("by",)),
    ("bpf_xdp_adjust_head", ("by",)),
    ("bpf_xdp_adjust_tail", ("by",)),
    ("bpf_xdp_adjust_meta", ("by",)),
    ("bpf_xdp_store_bytes", ("to", "frame", "size")),
    ("bpf_xdp_load_bytes", ("to", "frame", "size")),
)
SKB: tuple[Turn, ...] = (
    ("bpf_skb_adjust_room", ("by", "mode", "flags")),
    ("bpf_skb_adjust_room", ("by", "mode", "flags")),
    ("bpf_skb_adjust_room", ("by", "mode", "flags")),
    ("bpf_skb_change_tail", ("length", "none")),
    ("bpf_skb_change_tail", ("length", "none")),
    ("bpf_skb_change_head", ("size", "none")),
    ("bpf_skb_change_proto", ("protocol", "none")),
    ("bpf_skb_vlan_push", ("tag", "tag")),
    ("bpf_skb_vlan_pop", ()),
    ("bpf_skb_pull_data", ("size",)),
    ("bpf_skb_store_bytes", ("to", "frame", "size", "none")),
    ("bpf_skb_load_bytes", ("to", "frame", "size")),
)
"""Helpers that move packets, with what their arguments behind the context are."""


class _Growth(Writer):
    """Writes one program."""

    def argument(self, register: str, what: str) -> None:
        """Give a register an argument of a kind."""
        rng = self.rng
        number: int
        match what:
            case "frame":
                self.emit(f"mov {register}, r10", f"add {register}, {-rng.choice((64, 64, 8, 4))}")
                return
            case "by":
                number = rng.choice((1, 1, -1)) * rng.choice((rng.choice(AMOUNTS), rng.choice(SMALL), 4095))
            case "length":
                number = rng.choice((14, 34, 64, 64, 64, 64, 1500, 16064, 16065, -1))
            case "size" | "to":
                number = rng.choice((*SMALL, *SMALL, 0, 64, 65, 255, rng.choice(AMOUNTS), -1))
            case "mode":
                number = rng.choice((0, 1, 1, 2))
            case "flags":
                number = rng.choice(ROOM_FLAGS)
            case "protocol":
                number = rng.choice((0x0008, 0xDD86, 0))
            case "tag":
                number = rng.choice((0x0081, 0xA888, 5, 0xFFFF))
            case _:
                number = 0 if self.chance(0.97) else 1
        self.emit(f"mov {register}, {number}")

    def walk(self, turns: tuple[Turn, ...]) -> None:
        """Grow at one end and shrink at the other, so that the packet stays short and moves."""
        rng = self.rng
        if turns is XDP:
            self.call("bpf_xdp_adjust_head", -rng.choice((1, 14, 64, 200)))
            self.call("bpf_xdp_adjust_tail", -rng.choice((1, 14, 64, 200)))
            return
        match rng.randrange(8):
            case 0:
                self.call("bpf_skb_change_head", rng.choice((64, 4095, 16000)), 0)
            case 1:
                self.call("bpf_skb_vlan_push", 0x0081, 5)
            case 2:
                self.call("bpf_skb_change_proto", rng.choice((0x0008, 0xDD86)), 0)
            case _:
                self.call(
                    "bpf_skb_adjust_room", rng.choice((4095, 4095, 4000, 1000)), rng.choice((1, 1, 0)), 0
                )
        self.call("bpf_skb_change_tail", rng.choice((34, 64, 64, 64)), 0)

    def call(self, name: str, *numbers: int) -> None:
        """Call a helper with these behind the context."""
        self.emit(*(f"mov r{index}, {number}" for index, number in enumerate(numbers, 2)))
        self.emit("mov r1, r6", f"call {NUMBERS[name]}", "add r9, r0", "mul r9, 31")

    def turn(self, turns: tuple[Turn, ...]) -> None:
        """One call that moves the packet."""
        name, whats = self.rng.choice(turns)
        for register, what in zip(("r2", "r3", "r4", "r5"), whats, strict=False):
            self.argument(register, what)
        self.call(name)

    def look(self, data: int, end: int) -> None:
        """Loads and stores of the packet, behind a comparison with its end, or near what it was."""
        rng = self.rng
        out = self.label()
        if self.chance(0.85):
            self.emit(f"ldxw r8, [r6+{data}]")
        place = rng.choice((0, 0, 1, 8, 12, 34, 60))
        if self.chance(0.7):
            self.emit(f"ldxw r3, [r6+{end}]", "mov r2, r8", f"add r2, {place + 8}", f"jgt r2, r3, {out}")
        elif self.chance(0.5):  # at its end
            self.emit(f"ldxw r8, [r6+{end}]")
            place = rng.choice((-8, -4, -1, 0))
        self.access(f"r8{place:+}", "r3")
        self.emit("add r9, r3", f"{out}:")

    def program(self, turns: tuple[Turn, ...], data: int, end: int) -> bytes:
        """Return a program of some turns, a few of them in a loop of many rounds."""
        rng = self.rng
        self.emit("mov r6, r1", "mov r9, 0", f"ldxw r8, [r6+{data}]", "mov r3, 0")
        self.emit(*(f"stdw [r10-{8 * word}], {rng.randrange(1000)}" for word in range(1, 9)))
        for _ in range(rng.choice((1, 1, 2))):
            again = self.label()
            self.emit(f"mov r7, {rng.choice((1, 1, 2, 3, 8, 9, 9, 17, 40))}", f"{again}:")
            for _ in range(rng.randrange(1, 4)):
                if self.chance(0.35):
                    self.walk(turns)
                else:
                    self.turn(turns)
                if self.chance(0.5):
                    self.look(data, end)
            self.emit("sub r7, 1", f"jne r7, 0, {again}")
            self.look(data, end)
        self.emit("mov r0, r9", "exit")
        return self.code()


def case(rng: random.Random) -> Case:
    """A program of XDP or of a type of socket buffers, on an IP packet."""
    type_ = rng.choice(("xdp", "xdp", "tc", "tc", "tc", "lwt_xmit"))
    turns, data, end = (XDP, 0, 4) if type_ == "xdp" else (SKB, 76, 80)
    protocol = rng.choice((b"\x08\x00", b"\x08\x00", b"\x08\x00", b"\x86\xdd", b"\x81\x00"))
    packet = rng.randbytes(12) + protocol + b"\x45" + rng.randbytes(rng.choice((20, 46, 63, 63, 100, 1500)))
    return Case(_Growth(rng).program(turns, data, end), (Input(packet, LIMIT),), type=type_)
