"""The shape of what is known of values: flat lists, by number. Who fills them is `optimizer.ranges`."""

from __future__ import annotations

from collections.abc import Iterable

from ebpfjit.bits import U64_MASK, W64
from ebpfjit.isa import semantics
from ebpfjit.isa.spec import Kind, Row
from ebpfjit.isa.table import TABLE
from ebpfjit.isa.unencoded import UNENCODED
from ebpfjit.optimizer import intervals
from ebpfjit.optimizer.code import Op
from ebpfjit.optimizer.dominators import Dominators
from ebpfjit.optimizer.intervals import Interval

FARTHEST = 1 << 40
"""Distances from a region that are followed; regions and the address space end far from there."""

LARGEST_DELTA = 1 << 30
"""Of numbers that become displacements."""

MOST_LENGTH = 1 << 62
"""No region is longer, and none lies above the first half of the address space: Linux has that for itself."""

Incoming = tuple[int, int, int, int, int, int, int, int, int]
"""What is known of a value on a way: low, high, zeros, root, delta, base, near, far, limit."""

Placed = tuple[int, int, int]
"""A region, the frame of a function or the argument, and between which distances from it a value is."""

UNKNOWN = -1
"""As a base: none. As near, far or limit it is NOWHERE."""

NOWHERE = 1 << 80


class Facts:
    """What is known of values, by number, where they are defined.

    `low` <= value <= `high`, and the low `zeros` bits are zero. The value is that of `root` plus `delta`,
    modulo 2**64: of a value that is no sum the root is itself. `base` is the region that it most likely
    points into (UNKNOWN: none), and where `near` is not NOWHERE it is that region's start plus `near` to
    `far`; a frame counts from its end. `parts` are two roots and a number whose sum a root is. `limit` is a
    number k with root + k <= LENGTH, of pointers into the argument: distance + k <= LENGTH.

    `packet_ends` are values that the context says the packet ends at; where the program compared with one,
    bytes from a root up to `ahead` of it are likely to be there: a check decides.

    `defined` are the operations that made values, `where` the blocks (-1: none that control comes to).
    `dominators` are those of the code, entered wherever it may be. Where it `meets_rights`, what may be
    loaded or stored as one size may not be as another, but where a bound asks only for a region (`only`, by
    where values most likely point to).

    `functions` are those that start in this code, by slot, in the order of their frames.
    """

    def __init__(self, count: int, functions: Iterable[int]) -> None:
        self.functions = sorted(functions)
        self.constant, self.argument, self.length, self.packet, self.map_value = range(count, count + 5)
        self.frame = count + 5
        size = self.frame + len(self.functions)
        self.count = count
        self.low, self.high = [0] * size, [U64_MASK] * size
        self.zeros, self.delta = [0] * size, [0] * size
        self.root = list(range(size))
        self.base, self.near, self.far = [UNKNOWN] * size, [NOWHERE] * size, [NOWHERE] * size
        self.limit = [NOWHERE] * size
        self.parts: list[tuple[int, int, int] | None] = [None] * size
        self.defined: list[Op | None] = [None] * count
        self.where = [-1] * count
        self.packet_ends: set[int] = set()
        self.ahead: dict[int, int] = {}
        self.lookups: dict[int, tuple[int, bool]] = {}
        self.dominators: Dominators | None = None
        self.meets_rights = False
        self.only: dict[str, str] = {}
        self.high[self.constant] = 0
        for region in (self.argument, *range(self.frame, size)):
            self.base[region], self.near[region], self.far[region] = region, 0, 0

    def range(self, value: int) -> Interval:
        """Return between which numbers a value lies."""
        low, high, root = self.low[value], self.high[value], self.root[value]
        if root != value:
            delta = self.delta[value]
            a, b = self.low[root] + delta, self.high[root] + delta
            if a >= 0 and b <= U64_MASK:
                if a < low:
                    a = low
                if b > high:
                    b = high
                if a <= b:
                    return a, b
        return low, high

    def number(self, value: int) -> int | None:
        """Return the number that a value always is, None where it may be others."""
        return self.delta[value] if self.root[value] == self.constant else None

    def region(self, value: int) -> str:
        """Return the region that a value most likely points into, "" where that is not known."""
        base = self.base[value]
        if base >= self.frame:
            return "stack"
        return {self.argument: "argument", self.packet: "packet", self.map_value: "map value"}.get(base, "")

    def place(self, value: int) -> Placed | None:
        """Return a region, the frame of a function or the argument, and how far from it a value is."""
        root, delta = self.root[value], self.delta[value]
        base, near, far = self.base[value], self.near[value], self.far[value]
        parts = self.parts[root]
        if parts is not None and (parts[0] == self.argument or parts[0] >= self.frame):
            low, high = intervals.as_signed(W64, self.range(parts[1]))
            low, high = low + parts[2] + delta, high + parts[2] + delta
            if base == parts[0] and near != NOWHERE:
                low, high = max(low, near), min(high, far)
            if -FARTHEST < low <= high < FARTHEST:
                return parts[0], low, high
        return (base, near, far) if near != NOWHERE else None

    def is_end(self, value: int) -> bool:
        """True for the length, and for the address behind the last byte of the argument."""
        root, delta = self.root[value], self.delta[value]
        parts = self.parts[root]
        if parts is None:
            return root == self.length and delta == 0
        return parts[:2] == (self.argument, self.length) and parts[2] + delta == 0

    def room(self, value: int) -> int | None:
        """Return a k with value + k <= LENGTH, as numbers that do not wrap; None where none is known."""
        root, delta = self.root[value], self.delta[value]
        if root == self.constant:
            return self.low[self.length] - delta if delta < FARTHEST else None
        known = self.limit[root]
        if known == NOWHERE or self.base[root] == self.argument:
            return None
        if self.low[root] + delta < 0 or self.high[root] + delta > U64_MASK:
            return None
        return known - delta

    def room_behind(self, pointer: int) -> int | None:
        """Return a k with distance + k <= LENGTH, for a pointer at a distance from the argument's start.

        It says nothing of pointers in front of that.
        """
        root, delta = self.root[pointer], self.delta[pointer]
        if root == self.argument:
            return self.low[self.length] - delta
        known, parts = self.limit[root], self.parts[root]
        found = None if known == NOWHERE or self.base[root] != self.argument else known - delta
        if parts is not None and parts[0] == self.argument:
            more, by = self.limit[parts[1]], parts[2] + delta
            is_number = self.base[parts[1]] != self.argument
            if more != NOWHERE and is_number and (found is None or more - by > found):
                found = more - by
        return found


NOTHING: Incoming = (0, U64_MASK, 0, UNKNOWN, 0, UNKNOWN, NOWHERE, NOWHERE, NOWHERE)


def both(a: Incoming, b: Incoming) -> Incoming:
    """Return what holds of a value that is one or the other."""
    if a == b:
        return a
    root, delta = (a[3], a[4]) if a[3] == b[3] and a[4] == b[4] else (UNKNOWN, 0)
    base, near, far = (a[5], a[6], a[7]) if a[5] == b[5] else (UNKNOWN, NOWHERE, NOWHERE)
    if near != NOWHERE:
        near, far = (min(near, b[6]), max(far, b[7])) if b[6] != NOWHERE else (NOWHERE, NOWHERE)
    limit = min(a[8], b[8]) if a[5] == b[5] and NOWHERE not in (a[8], b[8]) else NOWHERE
    return min(a[0], b[0]), max(a[1], b[1]), min(a[2], b[2]), root, delta, base, near, far, limit


def static_range(op: Op) -> Interval:
    """Return between which numbers what an operation makes lies, whatever its operands are."""
    row = op.row
    whole = _WHOLE.get(row)
    if whole is not None:
        return whole
    if row.kind is Kind.LOAD_IMM64:
        return op.imm, op.imm
    mask = row.width.mask
    if row.kind is Kind.MOVE:
        return (semantics.MOVE[row.meaning](row.width, op.imm & mask),) * 2
    return intervals.BINARY[row.meaning](row.width, (0, mask), (op.imm & mask, op.imm & mask))


def _most(row: Row) -> int:
    """Return the largest number that an operation of a row makes."""
    match row.kind:
        case Kind.LOAD | Kind.PACKET_LOAD:
            return U64_MASK if row.signed else (1 << 8 * row.size) - 1
        case Kind.ATOMIC:
            return (1 << 8 * row.size) - 1
        case Kind.UNARY if row.meaning != "NEG":
            return (1 << int(row.meaning.lstrip("BELSWAP"))) - 1
        case Kind.BINARY | Kind.MOVE | Kind.UNARY:
            return row.width.mask
        case _:
            return U64_MASK


MOST: dict[Row, int] = {row: _most(row) for row in (*TABLE, *UNENCODED.values())}
_WHOLE: dict[Row, Interval] = {
    row: (0, most)
    for row, most in MOST.items()
    if row.kind is not Kind.LOAD_IMM64
    and (row.uses_src or row.kind not in (Kind.BINARY, Kind.MOVE) or row.meaning in ("ADD", "SUB"))
}
"""The numbers that rows make of which the operand says nothing."""
