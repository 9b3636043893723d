"""Writes the text of a program piece by piece: numbers with bounds, and memory, got in many ways.

r6 is the context throughout, where a piece does not say otherwise; all else is a piece's own. A piece that
goes on no further goes to `skip`, behind it. Whatever bounds or tests something may be `wrong`: off by one,
of the other width, left out.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

Value = TypeVar("Value")

FIELDS: Mapping[str, tuple[int, ...]] = {
    "xdp": (12, 16),
    "tc": (0, 4, 8, 12, 16, 20, 48, 68, 72),
    "socket_filter": (0, 4, 8, 12, 16, 20, 48, 68),
    "cgroup_skb": (0, 4, 8, 12, 16, 20, 48, 68),
    "sk_skb": (0, 32),
    "lwt_xmit": (0, 4, 8, 12, 48),
    "kprobe": (0, 8, 112),
    "tracepoint": (8, 16, 64),
    "raw_tracepoint": (0, 8),
    "perf_event": (168, 176),
    "cgroup_sock_addr": (4, 24, 28, 32, 36),
    "cgroup_device": (0, 4, 8),
    "cgroup_sysctl": (0, 4),
    "cgroup_sockopt": (24, 28, 32),
    "sock_ops": (0, 20, 24),
    "sk_lookup": (8, 12, 16),
    "sk_msg": (16, 20),
    "sk_reuseport": (16, 20, 24, 32),
}
"""Offsets of 4-byte numbers in the contexts that programs may load, by type."""

DATA: Mapping[str, tuple[int, int, int]] = {
    "xdp": (0, 4, 8),
    "tc": (76, 80, 140),
    "cgroup_skb": (76, 80, 140),
    "socket_filter": (76, 80, 140),
    "sk_skb": (76, 80, 140),
    "lwt_xmit": (76, 80, 140),
}
"""Offsets of data, data_end and data_meta."""

PACKETS = ("xdp", "tc", "cgroup_skb", "sk_skb", "lwt_xmit")
"""Types whose programs may load the packet's bytes through data."""
FIRST = ("xdp", "tc", "socket_filter", "cgroup_skb")
"""The types that most of the programs have."""
TYPES = tuple(FIELDS)

LETTERS = {1: "u8", 2: "u16", 4: "u32", 8: "u64"}
SIZES = (1, 2, 4, 8)
NEGATED = {">": "<=", ">=": "<", "<": ">=", "<=": ">", "==": "!=", "!=": "=="}
SWAPPED = {">": "<", ">=": "<=", "<": ">", "<=": ">="}

KTIME, PRANDOM = 5, 7
"""Helpers that take nothing: bpf_ktime_get_ns, bpf_get_prandom_u32."""


def _plain(text: str) -> str:
    """Return lines of statements, whose offsets have one sign."""
    return text.replace(";", "\n").replace("+ -", "- ").replace("- -", "+ ").replace("+-", "-")


@dataclass(slots=True)
class Memory:
    """Memory that a register points to: `size` bytes from there. `kind` is where it is."""

    kind: str
    size: int
    writable: bool = True
    readable: bool = True
    finish: str = ""
    """What has to be done with it at the end of the piece."""


class Writer:
    """The text of one program while it is written."""

    def __init__(self, rng: random.Random, type_: str, wrong: float) -> None:
        self.rng = rng
        self.type = type_
        self.wrong = wrong
        self.lines: list[str] = []
        self.functions: list[str] = []
        self.skip = "out"
        self._labels = 0

    # -- text -----------------------------------------------------------------------------------

    def say(self, text: str) -> None:
        """Write lines; statements may be separated by `;`."""
        self.lines += [line.strip() for line in _plain(text).splitlines() if line.strip()]

    def label(self) -> str:
        """Return a new label."""
        self._labels += 1
        return f"L{self._labels}"

    def function(self, name: str, text: str) -> str:
        """Write a function behind the program; `name` is made unique where it is not a global one."""
        if not name.startswith("g_"):
            self._labels += 1
            name = f"{name}{self._labels}"
        if not any(each.startswith(f"{name}:") for each in self.functions):
            self.functions.append(f"{name}:\n" + _plain(text))
        return name

    # -- chance ---------------------------------------------------------------------------------

    def oops(self) -> bool:
        """True where something is to be wrong."""
        return self.rng.random() < self.wrong

    def chance(self, share: float) -> bool:
        """True in this share of cases."""
        return self.rng.random() < share

    def pick(self, choices: Sequence[Value]) -> Value:
        """Return one of some choices."""
        return self.rng.choice(choices)

    def near(self, number: int) -> int:
        """Return a number, or one beside it."""
        return number + self.pick((1, -1, 1, 8, -8, 2)) if self.oops() else number

    # -- numbers --------------------------------------------------------------------------------

    def number(self, reg: str, *, calls: bool = False) -> bool:
        """Put a number that is not known into a register; return whether it may have 64 bits.

        Where `calls` are allowed, r0 to r5 may be lost.
        """
        if calls and self.chance(0.4):
            helper = self.pick((KTIME, PRANDOM))
            self.say(f"call {helper}")
            if reg != "r0":
                self.say(f"{reg} = r0")
            return True
        self.say(f"{reg} = *(u32 *)(r6 + {self.pick(FIELDS[self.type])})")
        if self.chance(0.25):
            self.say(self.pick((f"{reg} = -{reg}", f"{reg} <<= 16", f"{reg} = be64 {reg}", f"{reg} ^= -1")))
            return True
        return False

    def bounded(self, reg: str, limit: int, *, calls: bool = False, spare: str = "r5") -> None:
        """Put a number of 0 to `limit` into a register, not known which; `spare` may be lost."""
        limit = max(self.near(limit), 0)
        if self.oops():
            self.number(reg, calls=calls)
            return
        self.pick(_BOUNDS)(self, reg, limit, self.number(reg, calls=calls), spare)
        if self.chance(0.15):
            self.say(
                self.pick(
                    (f"{spare} = {reg}; {reg} = {spare}", f"w{reg[1:]} = w{reg[1:]}", f"{reg} = (s32){reg}")
                )
            )

    # -- memory ---------------------------------------------------------------------------------

    def null_test(self, reg: str, width: str = "r") -> None:
        """Go on only where a register is not 0."""
        form = self.rng.randrange(6)
        if self.oops():
            if self.chance(0.5):
                self.say(f"if {reg} != 0 goto {self.skip}")
            return
        if form < 3:
            self.say(f"if {reg} == 0 goto {self.skip}")
        elif form < 5:
            on = self.label()
            self.say(f"if {reg} != 0 goto {on}; goto {self.skip}; {on}:")
        else:
            self.say(f"r5 = 0; if {reg} == r5 goto {self.skip}")

    def key(self, name: str, size: int) -> None:
        """Point r2 to a key of `size` bytes on the stack."""
        at = -8 * (-(-max(size, 1) // 8)) - 8 * self.rng.randrange(3)
        if not self.oops():
            for offset in range(at, at + size, 8):
                left = min(8, at + size - offset)
                word = 8 if left > 4 else 4
                self.say(
                    f"*({LETTERS[word]} *)(r10 {offset:+d}) = {self.rng.randrange(3)}".replace("+-", "-")
                )
        self.say(f"r2 = r10; r2 += {self.near(at)}")

    def lookup(self, reg: str, name: str, size: int, key_size: int) -> Memory:
        """Look something up in a map; `reg` points to the value."""
        self.key(name, key_size)
        self.say(f"r1 = map[{name}]; call 1")
        if self.chance(0.5):
            self.null_test("r0")
            self.say(f"{reg} = r0")
        else:
            self.say(f"{reg} = r0")
            self.null_test(self.pick((reg, reg, "r0")))
        return Memory("map", size, writable=name != "read_only", readable=name != "write_only")

    def packet(self, reg: str, need: int | None = None) -> Memory:
        """Point a register to the packet's first bytes, of which enough were seen to be there."""
        size = need or self.pick((14, 20, 34, 42, 54, 60, 1, 8, 64))
        data, end, _ = DATA[self.type]
        probe, limit = self.pick((("r2", "r3"), ("r3", "r4"), ("r0", "r1"), ("r5", "r2")))
        order = [f"{reg} = *(u32 *)(r6 + {data})", f"{limit} = *(u32 *)(r6 + {end})"]
        self.rng.shuffle(order)
        self.say("; ".join(order))
        self.say(f"{probe} = {reg}; {probe} += {self.near(size)}")
        self.compared(probe, limit)
        return Memory("packet", size, writable=self.type != "cgroup_skb")

    def compared(self, probe: str, limit: str) -> None:
        """Go on only where `probe` <= `limit` (or below it): data and data_end in any way."""
        if self.oops():
            if self.chance(0.3):
                self.say(f"if {limit} > {probe} goto {self.skip}")
            return
        symbol = self.pick((">", ">", ">", ">="))
        left, right = probe, limit
        if self.chance(0.4):
            left, right, symbol = limit, probe, SWAPPED[symbol]
        if self.chance(0.3):
            on = self.label()
            self.say(f"if {left} {NEGATED[symbol]} {right} goto {on}; goto {self.skip}; {on}:")
        else:
            self.say(f"if {left} {symbol} {right} goto {self.skip}")

    def on_stack(self, reg: str) -> Memory:
        """Point a register to bytes of the stack that were stored to."""
        words = self.rng.randrange(1, 9)
        at = -8 * (words + self.rng.randrange(4)) - 24
        for index in range(words):
            if self.oops():
                continue
            if self.chance(0.3):
                self.say(f"r5 = *(u32 *)(r6 + {self.pick(FIELDS[self.type])})")
                self.say(f"*(u64 *)(r10 {at + 8 * index}) = r5")
            else:
                self.say(f"*(u64 *)(r10 {at + 8 * index}) = {self.rng.randrange(-9, 99)}")
        self.say(f"{reg} = r10; {reg} += {at}")
        return Memory("stack", 8 * words)

    def record(self, reg: str) -> Memory:
        """Point a register to a record of a ring buffer, which has to be given back."""
        size = self.pick((8, 16, 24, 20, 64, 1))
        self.say(f"r1 = map[ring]; r2 = {size}; r3 = 0; call 131")
        self.say(f"{reg} = r0")
        self.null_test(reg)
        finish = f"r1 = {reg}; r2 = 0; call {self.pick((132, 133))}"
        return Memory("ring", size, finish="" if self.oops() else finish)

    def direct(self, reg: str) -> Memory:
        """Point a register to the value of an array of one entry."""
        name, size = self.pick((("single", 64), ("constants", 32)))
        offset = self.pick((0, 0, 8, 16, 24))
        self.say(f"{reg} = map[{name}][0]+{offset}")
        return Memory("map", size - offset, writable=name == "single")

    def memory(self, reg: str, kinds: Sequence[str] = ()) -> Memory:
        """Point a register (r7 to r9) to memory of some kind; r0 to r5 are lost."""
        kinds = kinds or (
            *(("packet",) * 2 if self.type in PACKETS else ()),
            "map",
            "map",
            "stack",
            "ring",
            "direct",
        )
        kind = self.pick(kinds)
        if kind == "packet" and self.type in PACKETS:
            return self.packet(reg)
        if kind == "stack":
            return self.on_stack(reg)
        if kind == "ring":
            return self.record(reg)
        if kind == "direct":
            return self.direct(reg)
        return self.lookup(reg, *self.pick(VALUES))

    # -- accesses -------------------------------------------------------------------------------

    def access(self, base: str, offset: int, size: int, memory: Memory, other: str = "r0") -> None:
        """Load, store or change `size` bytes at a constant offset; `other` is lost."""
        write = memory.writable != self.oops()
        place = f"({base} {'+' if offset >= 0 else '-'} {abs(offset)})"
        letters = LETTERS[size]
        forms = [f"{other} = *({letters} *){place}"] * (3 if memory.readable or self.oops() else 0)
        if size < 8 and memory.readable and self.chance(0.3):
            forms.append(f"{other} = *({letters.replace('u', 's')} *){place}")
        if write:
            forms += [f"*({letters} *){place} = {self.rng.randrange(-2, 9)}"]
            forms += [f"{other} = 5; *({letters} *){place} = {other}"]
            if size >= 4 and memory.readable and memory.kind != "packet" and offset % size == 0:
                half = other if size == 8 else "w" + other[1:]
                forms += [f"{half} = 5; lock *({letters} *){place} {self.pick(('+', '|', '&', '^'))}= {half}"]
                forms += [f"{half} = 5; {half} = atomic_fetch_add(({letters} *){place}, {half})"]
        if not forms:
            return
        self.say(self.pick(forms))

    def use(self, base: str, memory: Memory) -> None:
        """Access memory once, at a constant or an unknown offset; r0 to r5 are lost."""
        sizes = [size for size in SIZES if size <= memory.size]
        size = self.pick(sizes)
        room = memory.size - size
        if memory.kind == "packet" or self.chance(0.6):
            offset = self.pick((0, room, self.rng.randint(0, room)))
            if memory.kind == "stack":
                offset -= offset % size
            self.access(base, self.near(offset), size, memory)
            return
        shift = self.rng.randint(0, room) if self.chance(0.3) else 0
        self.bounded("r1", room - shift, spare="r5")
        if memory.kind == "stack" and size > 1:
            self.say(f"r1 &= {-size}")
        form = self.rng.randrange(3)
        if form == 0:
            self.say(f"r2 = {base}; r2 += r1")
        elif form == 1:
            self.say(f"r1 += {base}; r2 = r1")
        else:
            self.say(f"r2 = {base}; r2 += {shift}; r2 += r1; r2 -= {shift}")
        self.access("r2", shift if memory.kind != "stack" else 0, size, memory)


VALUES = (
    ("array", 48, 4), ("hash", 16, 8), ("percpu_array", 24, 4), ("lru", 32, 4), ("odd", 13, 5),
    ("large", 4096, 4), ("small", 1, 4), ("percpu_hash", 8, 4), ("trie", 8, 8), ("read_only", 16, 4),
    ("write_only", 16, 4), ("single", 64, 4),
)  # fmt: skip
"""Maps with plain values: name, bytes of a value, bytes of a key."""


# -- ways to bound a number: (writer, register, limit, may have 64 bits, spare register) ----------------


def _mask(w: Writer, reg: str, limit: int, wide: bool, spare: str) -> None:
    mask = (1 << (limit + 1).bit_length() - 1) - 1
    half = "w" + reg[1:]
    w.say(w.pick((f"{reg} &= {mask}", f"{half} &= {mask}", f"{spare} = {mask}; {reg} &= {spare}")))


def _unsigned(w: Writer, reg: str, limit: int, wide: bool, spare: str) -> None:
    form = w.rng.randrange(5)
    if form == 0:
        w.say(f"if {reg} > {limit} goto {w.skip}")
    elif form == 1:
        w.say(f"if {reg} >= {limit + 1} goto {w.skip}")
    elif form == 2:
        on = w.label()
        w.say(f"if {reg} <= {limit} goto {on}; goto {w.skip}; {on}:")
    elif form == 3:
        w.say(f"{spare} = {limit}; if {spare} < {reg} goto {w.skip}")
    else:
        half = "w" + reg[1:]
        w.say(f"if {half} > {limit} goto {w.skip}")
        if wide and not w.oops():
            w.say(f"{half} = {half}")


def _signed(w: Writer, reg: str, limit: int, wide: bool, spare: str) -> None:
    half = "w" + reg[1:] if w.chance(0.3) else reg
    tests = [f"if {half} s> {limit} goto {w.skip}", f"if {half} s< 0 goto {w.skip}"]
    if w.chance(0.3):
        tests = [f"if {half} s>= {limit + 1} goto {w.skip}", f"if {half} s<= -1 goto {w.skip}"]
    w.rng.shuffle(tests)
    if w.oops():
        del tests[0]
    for test in tests:
        w.say(test)
    if half != reg and wide:
        w.say(f"{half} = {half}")


def _modulo(w: Writer, reg: str, limit: int, wide: bool, spare: str) -> None:
    w.say(f"{w.pick((reg, 'w' + reg[1:]))} %= {limit + 1}")


def _shift(w: Writer, reg: str, limit: int, wide: bool, spare: str) -> None:
    bits = (limit + 1).bit_length() - 1
    if bits == 0:
        w.say(f"{reg} = 0")
    else:
        w.say(
            w.pick(
                (
                    f"{reg} >>= {64 - bits}",
                    f"w{reg[1:]} >>= {32 - bits}",
                    f"{reg} <<= {64 - bits}; {reg} >>= {64 - bits}",
                )
            )
        )


def _byte(w: Writer, reg: str, limit: int, wide: bool, spare: str) -> None:
    if limit >= 255:
        w.say(w.pick((f"{reg} &= 255", f"{reg} <<= 56; {reg} >>= 56")))
    else:
        w.say(f"*(u64 *)(r10 - 16) = {reg}; {reg} = *(u8 *)(r10 - 16); if {reg} > {limit} goto {w.skip}")


def _bits(w: Writer, reg: str, limit: int, wide: bool, spare: str) -> None:
    mask = (1 << (limit + 1).bit_length() - 1) - 1
    w.say(f"if {reg} & {~mask} goto {w.skip}")


def _equal(w: Writer, reg: str, limit: int, wide: bool, spare: str) -> None:
    value = w.rng.randint(0, limit)
    if w.chance(0.5):
        w.say(f"if {reg} != {value} goto {w.skip}")
    else:
        on = w.label()
        w.say(f"if {reg} == {value} goto {on}; {reg} = {w.rng.randint(0, limit)}; {on}:")


def _smaller(w: Writer, reg: str, limit: int, wide: bool, spare: str) -> None:
    on = w.label()
    w.say(f"if {reg} <= {limit} goto {on}; {reg} = {limit}; {on}:")


def _scaled(w: Writer, reg: str, limit: int, wide: bool, spare: str) -> None:
    factor = w.pick((2, 3, 4, 8))
    _unsigned(w, reg, limit // factor, wide, spare)
    shift = {2: 1, 4: 2, 8: 3}.get(factor)
    w.say(f"{reg} <<= {shift}" if shift and w.chance(0.5) else f"{reg} *= {factor}")


def _moved(w: Writer, reg: str, limit: int, wide: bool, spare: str) -> None:
    part = w.rng.randint(0, limit)
    _mask(w, reg, part, wide, spare)
    most = (1 << (part + 1).bit_length() - 1) - 1
    w.say(w.pick((f"{reg} += {limit - most}", f"{reg} = -{reg}; {reg} += {limit}", f"{reg} ^= {most}")))


def _copied(w: Writer, reg: str, limit: int, wide: bool, spare: str) -> None:
    """Test a copy."""
    w.say(f"{spare} = {reg}")
    _unsigned(w, spare, limit, wide, reg if w.oops() else "r4")


def _spilled(w: Writer, reg: str, limit: int, wide: bool, spare: str) -> None:
    size = w.pick((8, 8, 4, 1))
    at = -8
    w.say(f"*({LETTERS[size]} *)(r10 {at}) = {reg}; {reg} = *({LETTERS[size]} *)(r10 {at})")
    _unsigned(w, reg, limit, wide and size == 8, spare)
    w.say(f"*(u64 *)(r10 {at}) = {reg}; {reg} = *(u64 *)(r10 {at})")


def _two_sided(w: Writer, reg: str, limit: int, wide: bool, spare: str) -> None:
    """Between two numbers, then brought down."""
    low = w.pick((1, 5, 100))
    w.say(f"if {reg} < {low} goto {w.skip}; if {reg} > {low + limit} goto {w.skip}; {reg} -= {low}")


def _by_number(w: Writer, reg: str, limit: int, wide: bool, spare: str) -> None:
    """Compared with a number that has bounds of its own."""
    w.say(f"{spare} = *(u32 *)(r6 + {w.pick(FIELDS[w.type])})")
    _mask(w, spare, limit, False, spare)
    w.say(f"if {reg} > {spare} goto {w.skip}")


def _extended(w: Writer, reg: str, limit: int, wide: bool, spare: str) -> None:
    w.say(f"{reg} = (s{w.pick((8, 16))}){reg}")
    _signed(w, reg, limit, True, spare)


def _divided(w: Writer, reg: str, limit: int, wide: bool, spare: str) -> None:
    half = "w" + reg[1:]
    w.say(f"{half} &= 4095; {half} /= {-(-4096 // (limit + 1))}")


_BOUNDS: Sequence[Callable[[Writer, str, int, bool, str], None]] = (
    _mask, _mask, _unsigned, _unsigned, _unsigned, _signed, _signed, _modulo, _shift, _byte, _bits, _equal,
    _smaller, _scaled, _moved, _copied, _spilled, _two_sided, _by_number, _extended, _divided,
)  # fmt: skip
